"""Load from compiled generators: wrk for REST, ghz for gRPC. A Python client would measure itself."""

from __future__ import annotations

import json
import shlex
import shutil
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from tritonclient.grpc import model_config_pb2, service_pb2

from bench.models import INPUT, NAME
from penstock.errors import FailedPrecondition, PenstockError
from penstock.runtime.settings import inherited

_CALL = "inference.GRPCInferenceService/ModelInfer"
_SCRIPT = """
wrk.method = "POST"
wrk.path = "/v2/models/%s/infer"
wrk.body = %s
%s
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('RESULT {"requests": %%d, "microseconds": %%d, "failed": %%d, "p50": %%f, "p99": %%f}\\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50.0), latency:percentile(99.0)))
end
"""


@dataclass(frozen=True)
class Load:
    """What a generator saw: requests a second, and latencies in seconds."""

    rate: float
    p50: float
    p99: float


@dataclass(frozen=True)
class Target:
    """A server that answers KServe v2; `token` is sent if there is one."""

    http_port: int
    grpc_port: int
    token: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """What is sent with each request."""
        return {"authorization": f"Bearer {self.token}"} if self.token else {}


class Wrk:
    """REST by Debian's wrk. Raises FailedPrecondition if it is not installed."""

    def __init__(self, folder: Path) -> None:
        self._binary = shutil.which("wrk")
        self._folder = folder
        if self._binary is None:
            raise FailedPrecondition("wrk is missing: apt-get install wrk")

    def run(self, target: Target, clients: int, seconds: int) -> Load:
        """Each of `clients` connections asks again as soon as it is answered. Raises PenstockError if one fails."""
        script = self._folder / f"wrk-{target.http_port}.lua"
        script.write_text(_lua(target.headers), encoding="utf-8")
        url = f"http://127.0.0.1:{target.http_port}"
        command = [
            str(self._binary),
            "-t1",
            f"-c{clients}",
            f"-d{seconds}s",
            "--timeout",
            "10s",
            "-s",
            str(script),
            url,
        ]
        found = json.loads(_run(command).partition("RESULT ")[2])
        if found["failed"] or not found["requests"]:
            raise PenstockError(f"{found['failed']} of {found['requests']} requests to {url} failed")
        return Load(found["requests"] / found["microseconds"] * 1e6, found["p50"] / 1e6, found["p99"] / 1e6)


def _lua(headers: Mapping[str, str]) -> str:
    lines = [
        f'wrk.headers["{name}"] = "{value}"' for name, value in {"content-type": "application/json", **headers}.items()
    ]
    return _SCRIPT % (NAME, json.dumps(json.dumps({"inputs": [INPUT]})), "\n".join(lines))


class Ghz:
    """gRPC by ghz, from PENSTOCK_GHZ or PATH. Raises FailedPrecondition if there is none."""

    def __init__(self, folder: Path) -> None:
        given = inherited(["PENSTOCK_GHZ"]).get("PENSTOCK_GHZ") or shutil.which("ghz") or ""
        self._command = shlex.split(given)
        self._folder = folder
        if not self._command or shutil.which(self._command[0]) is None:
            raise FailedPrecondition("ghz is missing: put it on PATH, or set PENSTOCK_GHZ (https://ghz.sh)")
        (folder / "kserve.protoset").write_bytes(_protoset())
        (folder / "request.bin").write_bytes(_request())

    def run(self, target: Target, clients: int, seconds: int) -> Load:
        """Each of `clients` connections has one call under way. Raises PenstockError if a call fails."""
        metadata = self._folder / f"ghz-{target.grpc_port}.json"
        metadata.write_text(json.dumps(target.headers), encoding="utf-8")
        command = [
            *self._command, "--insecure", "--protoset", str(self._folder / "kserve.protoset"), "--call", _CALL,
            "-B", str(self._folder / "request.bin"), "-M", str(metadata), "-c", str(clients),
            "--connections", str(clients), "-z", f"{seconds}s", "--duration-stop", "wait", "-O", "json",
            f"127.0.0.1:{target.grpc_port}",
        ]  # fmt: skip
        found = json.loads(_run(command))
        if found.get("errorDistribution") or not found["count"]:
            raise PenstockError(f"Calls of ghz failed: {found.get('errorDistribution')}")
        slow = {each["percentage"]: each["latency"] / 1e9 for each in found["latencyDistribution"]}
        return Load(found["rps"], slow[50], slow[99])


def _protoset() -> bytes:
    described = FileDescriptorSet()
    for module in (model_config_pb2, service_pb2):
        module.DESCRIPTOR.CopyToProto(described.file.add())
    return described.SerializeToString()


def _request() -> bytes:
    request = service_pb2.ModelInferRequest(model_name=NAME)
    request.inputs.add(name=INPUT["name"], datatype=INPUT["datatype"], shape=INPUT["shape"])
    request.raw_input_contents.append(struct.pack(f"<{len(INPUT['data'])}f", *INPUT["data"]))
    content: bytes = request.SerializeToString()
    return content


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PenstockError(f"{Path(command[0]).name} failed: {done.stderr[-1000:]}")
    return done.stdout
