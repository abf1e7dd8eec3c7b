"""A platform that restarts: calls that may be repeated are, as the same call; the others fail at once."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from penstock.api.dataset.v1 import dataset_service_pb2 as dataset_pb
from penstock.api.dataset.v1.dataset_service_pb2_grpc import (
    DatasetServiceServicer,
    add_DatasetServiceServicer_to_server,
)
from penstock.api.project.v1 import project_service_pb2 as project_pb
from penstock.api.project.v1.project_service_pb2_grpc import (
    ProjectServiceServicer,
    add_ProjectServiceServicer_to_server,
)
from penstock.backing.ports import free_port
from penstock.backing.process import ManagedProcess, Program
from penstock.errors import NotFound, PenstockError, Unavailable
from penstock.rpc.errors import from_rpc_error
from penstock.sdk import interceptors
from penstock.sdk.client import Client
from penstock.sdk.local import is_kept_up

NAME = "projects/default/datasets/digits"


@dataclass
class Restarting(DatasetServiceServicer, ProjectServiceServicer):
    """Answers a call only after some refusals."""

    refusals: int = 0
    code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
    asked: list[Any] = field(default_factory=list)

    def _answer(self, request: Any, context: grpc.ServicerContext, answer: Callable[[], Any]) -> Any:
        self.asked.append(request)
        if len(self.asked) <= self.refusals:
            context.abort(self.code, "not now")
        return answer()

    def GetDataset(self, request: Any, context: Any) -> Any:
        return self._answer(request, context, lambda: dataset_pb.Dataset(name=request.name))

    def EditRecords(self, request: Any, context: Any) -> Any:
        return self._answer(request, context, lambda: dataset_pb.Draft(name=request.name))

    def DiffVersions(self, request: Any, context: Any) -> Any:
        return self._answer(request, context, dataset_pb.DiffVersionsResponse)

    def RevokeToken(self, request: Any, context: Any) -> Any:
        return self._answer(request, context, lambda: project_pb.Token(name=request.name))


@pytest.fixture
def service() -> Iterator[tuple[Restarting, Client]]:
    """The service, and a client of it."""
    servicer = Restarting()  # type: ignore[abstract]
    server = grpc.server(ThreadPoolExecutor(2))
    add_DatasetServiceServicer_to_server(servicer, server)
    add_ProjectServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with Client(f"http://127.0.0.1:{port}", "a-token", "default") as client:
        yield servicer, client
    server.stop(None)


def test_a_read_is_repeated_until_it_is_answered(service: tuple[Restarting, Client]) -> None:
    servicer, client = service
    servicer.refusals = 3
    assert client.dataset("digits").get().name == NAME
    assert len(servicer.asked) == 4


def test_what_only_reads_is_known_by_its_rest_method(service: tuple[Restarting, Client]) -> None:
    servicer, client = service
    servicer.refusals = 1
    assert list(client.dataset("digits").diff(1, 2)) == []
    assert len(servicer.asked) == 2


def test_a_write_is_repeated_as_the_same_request(service: tuple[Restarting, Client]) -> None:
    servicer, client = service
    servicer.refusals = 2
    client.dataset("digits").patch("a", {"label": 1}, draft="mine")
    assert len(servicer.asked) == 3
    assert len({request.request_id for request in servicer.asked}) == 1 and servicer.asked[0].request_id


def test_a_write_that_cannot_be_told_from_a_second_one_is_not_repeated(service: tuple[Restarting, Client]) -> None:
    servicer, client = service
    servicer.refusals = 1
    with pytest.raises(Unavailable):
        client.projects.RevokeToken(project_pb.RevokeTokenRequest(name="projects/default/tokens/t"))
    assert len(servicer.asked) == 1


def test_a_refusal_that_stays_is_raised_at_once(service: tuple[Restarting, Client]) -> None:
    servicer, client = service
    servicer.refusals, servicer.code = 9, grpc.StatusCode.NOT_FOUND
    with pytest.raises(NotFound):
        client.dataset("digits").get()
    assert len(servicer.asked) == 1


def test_patience_ends(service: tuple[Restarting, Client]) -> None:
    servicer, client = service
    servicer.refusals = 1000
    with Client(client.url, "a-token", "default", patience=1) as hasty, pytest.raises(Unavailable):
        hasty.dataset("digits").get()
    assert 2 <= len(servicer.asked) < 20


def test_a_platform_that_is_not_there_is_not_waited_for_long() -> None:
    began = time.monotonic()
    with Client(f"http://127.0.0.1:{free_port()}", "a-token", "default") as client, pytest.raises(Unavailable):
        client.dataset("digits").get()
    assert time.monotonic() - began < 10


def test_a_platform_of_this_machine_that_is_kept_up_is_worth_waiting_for(home: Path) -> None:
    url = "http://127.0.0.1:4242"
    assert not is_kept_up(home, url)
    supervisor = ManagedProcess.start(home, Program("supervisor", ["/bin/sleep", "600"], facts={"port": 4242}))
    try:
        assert is_kept_up(home, url)
        assert not is_kept_up(home, "http://127.0.0.1:4243")
    finally:
        supervisor.kill()
    assert not is_kept_up(home, url)


def test_who_starts_while_it_restarts_waits_for_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first call, which nobody has ever answered: its patience is not that with a platform that is not running."""
    monkeypatch.setattr(interceptors, "FIRST_PATIENCE", 0.1)
    monkeypatch.setenv("PENSTOCK_HOME", str(home))
    port = free_port()
    supervisor = ManagedProcess.start(home, Program("supervisor", ["/bin/sleep", "600"], facts={"port": port}))
    server = grpc.server(ThreadPoolExecutor(2))
    add_DatasetServiceServicer_to_server(Restarting(), server)  # type: ignore[abstract]
    server.add_insecure_port(f"127.0.0.1:{port}")
    starting = threading.Timer(1.0, server.start)
    starting.start()
    try:
        with Client(f"http://127.0.0.1:{port}", "a-token", "default") as client:
            assert client.dataset("digits").get().name == NAME
    finally:
        starting.join()
        server.stop(None)
        supervisor.kill()


def test_a_connection_may_take_its_time(service: tuple[Restarting, Client]) -> None:
    """A call that is not repeated, through somebody who is slow to pass it on."""
    _, client = service
    target = int(client.url.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", 0)) as slow:

        def accept() -> None:
            inside, _ = slow.accept()
            time.sleep(1.0)
            with inside, socket.create_connection(("127.0.0.1", target)) as outside:
                back = threading.Thread(target=pump, args=(outside, inside))
                back.start()
                pump(inside, outside)
                back.join()

        accepting = threading.Thread(target=accept)
        accepting.start()
        name = "projects/default/tokens/t"
        with Client(f"http://127.0.0.1:{slow.getsockname()[1]}", "a-token", "default") as through:
            assert through.projects.RevokeToken(project_pb.RevokeTokenRequest(name=name)).name == name
        accepting.join(10)


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Pass on what comes until no more does."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


class Cut(grpc.RpcError):
    """What gRPC makes of a stream whose server dies behind the edge, as it was seen."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNKNOWN

    def details(self) -> str:
        return "Stream removed (RST_STREAM (Received RST_STREAM with error code 2))"

    def trailing_metadata(self) -> tuple[Any, ...]:
        return ()


def test_a_stream_that_was_cut_may_be_opened_again() -> None:
    found: PenstockError = from_rpc_error(Cut())
    assert isinstance(found, Unavailable)
