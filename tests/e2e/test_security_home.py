"""What lies and listens on the machine: files, ports, arguments, NATS; and where credentials and secrets went."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import socket
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import nats.errors
import pytest
from nats.aio.client import Client as NatsClient

from penstock.api.event.v1 import event_service_pb2 as event_pb
from penstock.api.event.v1.events_pb2 import Event
from penstock.api.project.v1 import project_service_pb2 as pb
from penstock.edge import Edge
from penstock.errors import FailedPrecondition, InvalidArgument, PermissionDenied
from penstock.rpc.denylist import Denylist
from penstock.rpc.keys import Keys
from penstock.rpc.server import Server
from penstock.rpc.tokens import Tokens
from penstock.runtime.metrics import MetricsServer, new_registry
from penstock.sdk import Client
from tests.support.attacker import Victim
from tests.support.rivals import Rival, make_project, token_of

CREDENTIAL = re.compile(
    rb"eyJ[A-Za-z0-9_-]{20,}\.eyJ[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{40,}|PRIVATE KEY|\bS[UAO][A-Z2-7]{56}\b"
)
SECRET = "correct-horse-battery-staple-7261"
PLAIN = "not-a-secret-at-all-7261"


@pytest.fixture(scope="module")
def boss(victim: Victim) -> Iterator[Client]:
    """The admin of the project `safe`, in which things have happened."""
    with make_project(victim, "safe") as client:
        secret = pb.Secret(value=SECRET.encode())
        client.projects.CreateSecret(pb.CreateSecretRequest(parent=client.project, secret_id="db", secret=secret))
        client.dataset(f"d{os.getpid()}").create(key_field="id", description=PLAIN)
        yield client


def files(home: Path) -> Iterator[tuple[Path, bytes]]:
    """Every regular file of the home and what is in it."""
    for root, _, names in os.walk(home):
        for name in names:
            path = Path(root, name)
            try:
                if path.is_file() and not path.is_symlink():
                    yield path, path.read_bytes()
            except OSError:
                continue  # gone meanwhile


def holding(home: Path, *texts: str) -> list[Path]:
    """The files that hold one of these texts, as it is or encoded."""
    needles = [form for text in texts for form in (text.encode(), base64.b64encode(text.encode()).rstrip(b"="))]
    return [path for path, content in files(home) if any(needle in content for needle in needles)]


def test_the_home_and_all_credentials_in_it_are_for_their_owner_only(victim: Victim) -> None:
    home = victim.home.resolve()
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    holders = [path for path, content in files(home) if CREDENTIAL.search(content)]
    found = {path.relative_to(home).parts[0] for path in holders}
    assert {"token", "keys", "nats"} <= found  # the search finds what there is
    open_ = [(path, oct(path.stat().st_mode)) for path in holders if stat.S_IMODE(path.stat().st_mode) & 0o077]
    assert not open_
    assert stat.S_IMODE((home / "project" / "secrets.key").stat().st_mode) == 0o600


def test_secrets_are_sealed_wherever_they_are_kept(victim: Victim, boss: Client) -> None:
    assert holding(victim.home, PLAIN)  # the control: a text that is no secret is found by the same search
    assert holding(victim.home, SECRET) == []
    listed = boss.projects.ListSecrets(pb.ListSecretsRequest(parent=boss.project)).secrets
    assert [secret.name for secret in listed] == ["projects/safe/secrets/db"] and not any(s.value for s in listed)
    with pytest.raises(PermissionDenied):
        boss.projects.AccessSecret(pb.AccessSecretRequest(name="projects/safe/secrets/db"))


def test_tokens_are_in_no_document_event_or_log(victim: Victim, boss: Client, rivals: tuple[Rival, Rival]) -> None:
    made = token_of(boss, "safe", "writer", "editor")
    with Client(victim.url, made.text, "safe") as writer:
        event = Event(type="com.example.x", id="home-1")
        writer.events.PublishEvent(event_pb.PublishEventRequest(parent="projects/safe", event=event))
    used = [made.text, boss.token, *(rival.client.token for rival in rivals)]
    assert holding(victim.home, *used) == []
    signatures = [text.rsplit(".", 1)[1] for text in used]  # not in part either
    assert holding(victim.home, *signatures) == []
    home = victim.home.resolve()
    assert {path.relative_to(home).as_posix() for path in holding(home, victim.admin)} == {"token"}


def processes(home: Path) -> dict[int, list[bytes]]:
    """The platform's processes with their arguments: those of the records, and all that they started."""
    parents, arguments = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            arguments[int(folder.name)] = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        parents[int(folder.name)] = int(fields[1])
    recorded = (json.loads(path.read_text()).get("pid") for path in (home / "run").glob("*.json"))
    ours = {pid for pid in recorded if pid in parents}
    named = os.fsencode(home.resolve())
    ours |= {pid for pid, words in arguments.items() if any(named in word for word in words) and pid != os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return {pid: arguments[pid] for pid in ours}


def test_no_credential_is_among_arguments(victim: Victim, boss: Client) -> None:
    found = processes(victim.home)
    assert len(found) >= 5
    told = [SECRET.encode(), victim.admin.encode(), boss.token.encode(), *_seeds(victim.home)]
    for pid, words in found.items():
        line = b"\0".join(words)
        assert not CREDENTIAL.search(line) and not any(text in line for text in told), (pid, words[:3])


def _seeds(home: Path) -> list[bytes]:
    kept = json.loads((home / "nats" / "authority" / "authority.json").read_text())
    return [value.encode() for name, value in kept.items() if name.endswith("_seed")]


def _descriptors(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return []


def listening(pids: Iterable[int]) -> list[str]:
    """The addresses (in hexadecimal, as the kernel has them) on which processes listen."""
    inodes = set()
    for pid in pids:
        for number in _descriptors(pid):
            with contextlib.suppress(OSError):  # gone meanwhile
                inodes.add(os.readlink(f"/proc/{pid}/fd/{number}").removeprefix("socket:[").removesuffix("]"))
    found = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes and fields[3] in ("0A", "07"):
                found.append(fields[1].partition(":")[0])
    return found


LOOPBACK = re.compile(r"[0-9A-F]{6}7F|0{24}01000000|0{16}FFFF0000[0-9A-F]{6}7F")


def test_every_port_is_on_loopback(victim: Victim, rivals: tuple[Rival, Rival]) -> None:
    found = listening(processes(victim.home))
    assert len(found) >= 10  # edge, admin, services, metrics, NATS, its monitor, the database, Triton's
    assert [address for address in found if not LOOPBACK.fullmatch(address)] == []
    with socket.create_server(("0.0.0.0", 0)):  # the control: a port that is open to the network is seen as such
        assert any(not LOOPBACK.fullmatch(address) for address in listening([os.getpid()]))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "example.com"])
def test_nothing_listens_beyond_this_machine_without_tls(tmp_path: Path, host: str) -> None:
    keys = Keys.generate()
    address = f"[{host}]:0" if ":" in host else f"{host}:0"
    with pytest.raises(FailedPrecondition):
        Edge(tmp_path).write_base(
            port=8420,
            admin_port=8421,
            jwks=keys.jwks(),
            services={"project": "127.0.0.1:1"},
            descriptor_set=b"",
            host=host,
        )
    with pytest.raises(InvalidArgument):
        Server(address, [], Tokens(keys), Denylist(_nobody))
    with pytest.raises(InvalidArgument):
        MetricsServer(address, new_registry())


async def _nobody() -> list[str]:
    return []


class NatsUser:
    """A connection to NATS, and what the server complained about on it."""

    def __init__(self) -> None:
        self.client = NatsClient()
        self.complaints: list[str] = []

    async def _complain(self, error: Exception) -> None:
        self.complaints.append(str(error))

    async def connect(self, url: str, **more: Any) -> NatsUser:
        await self.client.connect(url, allow_reconnect=False, connect_timeout=3, error_cb=self._complain, **more)
        return self

    async def refused(self, number: int) -> bool:
        """Whether there come to be so many complaints."""
        await self.client.flush()
        for _ in range(100):
            if len(self.complaints) >= number:
                break
            await asyncio.sleep(0.02)
        return len(self.complaints) == number


def nats_url(victim: Victim) -> str:
    record = json.loads((victim.home / "run" / "nats.json").read_text())
    return f"nats://127.0.0.1:{record['facts']['port']}"


async def test_nats_lets_nobody_in_without_credentials(victim: Victim) -> None:
    for login in ({}, {"user": "penstock", "password": "penstock"}, {"token": victim.admin}):
        with pytest.raises(nats.errors.Error):
            await NatsUser().connect(nats_url(victim), **login)


async def test_a_publisher_publishes_outside_events_of_its_project_and_nothing_else(
    victim: Victim, boss: Client, tmp_path: Path
) -> None:
    request = pb.CreatePublisherRequest(parent=boss.project, publisher_id=f"p{os.getpid()}")
    made = boss.projects.CreatePublisher(request)
    path = tmp_path / "lab.creds"
    path.write_text(made.credentials)
    inbox = f"_INBOX_safe_p{os.getpid()}".encode()
    user = await NatsUser().connect(made.url, user_credentials=str(path), inbox_prefix=inbox)
    headers = {"ce-specversion": "1.0", "ce-id": "n-1", "ce-source": "//lab", "ce-type": "com.example.measured"}
    answer = await user.client.request("penstock.safe.external.lab.measured", b"{}", timeout=5, headers=headers)
    assert json.loads(answer.data)["stream"] == "PENSTOCK_EXTERNAL"  # the control: this it may
    assert not user.complaints
    forbidden = [
        "penstock.default.external.lab.measured", "penstock.safe.dataset.dataset.x.version-committed",
        "penstock.safe.training.run.r.succeeded", "$JS.API.STREAM.LIST", "$JS.API.STREAM.DELETE.PENSTOCK",
        "$SYS.REQ.SERVER.PING", "_INBOX_pipeline.x", "penstock-replay.lineage.x",
    ]  # fmt: skip
    for number, subject in enumerate(forbidden, 1):
        await user.client.publish(subject, b"{}", headers=headers)
        assert await user.refused(number), subject
    for number, subject in enumerate(["penstock.>", "penstock.safe.external.>", "_INBOX.>", ">", "$JS.>"], 1):
        await user.client.subscribe(subject)
        assert await user.refused(len(forbidden) + number), subject
    await user.client.close()


async def test_a_service_publishes_its_own_events_and_no_other_s(victim: Victim) -> None:
    credentials = victim.home / "nats" / "users" / "dataset.creds"
    user = await NatsUser().connect(nats_url(victim), user_credentials=str(credentials), inbox_prefix=b"_INBOX_dataset")
    await user.client.publish("_INBOX_dataset.x", b"")  # the control: nobody complains about its own
    subjects = ["penstock.safe.dataset-test.x", "penstock.safe.training.run.r.succeeded", "penstock.safe.external.x.y"]
    for number, subject in enumerate(subjects, 1):
        await user.client.publish(subject, b"{}")
        assert await user.refused(number), subject
    await user.client.close()
