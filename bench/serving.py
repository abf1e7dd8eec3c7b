"""A model behind Triton and behind the edge, with the services left out: only what a prediction passes through."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from bench.environments import peer_python
from bench.load import Target
from bench.models import NAME
from bench.peer_process import http_server
from bench.platform import PROJECT, triton_environment
from penstock.backing.envoy import EnvoyServer
from penstock.backing.ports import free_port
from penstock.backing.triton import TritonInstance
from penstock.backing.triton_repository import write_repository
from penstock.edge import Edge, Member
from penstock.rpc.caller import EDITOR
from penstock.rpc.keys import Keys
from penstock.rpc.tokens import Tokens

_CLOSED = "127.0.0.1:1"  # no service is called here


@dataclass(frozen=True)
class Served:
    """The same Triton: asked directly, and through Envoy with a token."""

    direct: Target
    edge: Target


@contextmanager
def served(model: Path) -> Iterator[Served]:
    """Serve a model until the end of the block."""
    home = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    repository = write_repository(home / "repository", NAME, model)
    triton = TritonInstance(home, "triton-bench", triton_environment(), repository, model, NAME)
    with ExitStack() as closing:
        closing.callback(shutil.rmtree, home, ignore_errors=True)
        closing.callback(lambda: asyncio.run(triton.stop()))
        asyncio.run(triton.start())
        envoy, token = _edge(home, triton)
        closing.callback(lambda: asyncio.run(envoy.stop()))
        asyncio.run(envoy.start())
        yield Served(Target(triton.http_port, triton.grpc_port), Target(envoy.port, envoy.port, token))


def _edge(home: Path, triton: TritonInstance) -> tuple[EnvoyServer, str]:
    """Envoy as the platform starts it, and a user's token."""
    keys = Keys.open(home / "keys")
    edge = Edge(home / "envoy")
    port, admin = free_port(), free_port()
    edge.write_base(
        port=port,
        admin_port=admin,
        jwks=keys.jwks(),
        services={"project": _CLOSED},
        descriptor_set=resources.files("penstock.api").joinpath("descriptors.binpb").read_bytes(),
    )
    edge.set_endpoint(PROJECT, NAME, [Member(1, triton.http_port, triton.grpc_port)])
    return EnvoyServer(home, edge.arguments(), port, admin), Tokens(keys).mint("bench", PROJECT, EDITOR, 3600)


@contextmanager
def fastapi(model: Path, workers: int) -> Iterator[Target]:
    """The peer: FastAPI and onnxruntime under uvicorn, in their own environment."""
    with tempfile.TemporaryDirectory(prefix="penstock-bench-fastapi-") as folder:
        port = free_port()
        command = [str(peer_python("fastapi")), *fastapi_arguments(workers, port)]
        environment = {"MODEL": str(model / "model.onnx"), "PYTHONPATH": str(Path(__file__).parent / "peers")}
        with http_server(command, port, "/healthz", Path(folder), environment):
            yield Target(port, 0)


def fastapi_arguments(workers: int, port: int | str) -> list[str]:
    """What uvicorn is started with."""
    return [
        "-m", "uvicorn", "fastapi_server:app", "--host", "127.0.0.1", "--port", str(port), "--loop", "uvloop",
        "--http", "httptools", "--no-access-log", "--log-level", "warning", "--workers", str(workers),
    ]  # fmt: skip
