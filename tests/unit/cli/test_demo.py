"""The demo's port: the usual one, or another if somebody has it, or takes it meanwhile."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from penstock.backing.ports import free_port
from penstock.cli.demo import command
from penstock.errors import FailedPrecondition


def listen(port: int) -> socket.socket:
    return socket.create_server(("127.0.0.1", port))


def test_a_port_that_another_took_first_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = free_port()
    monkeypatch.setattr(command, "DEFAULT_PORT", usual)
    tried: list[int] = []
    with ExitStack() as open_:

        def start(home: Path, port: int, project: str) -> str:
            tried.append(port)
            if port == usual:  # two demos saw it free
                open_.enter_context(listen(usual))
                raise FailedPrecondition("in use")
            return f"http://127.0.0.1:{port}"

        monkeypatch.setattr(command, "start_detached", start)
        assert command._start(tmp_path, 0, "default") == f"http://127.0.0.1:{tried[1]}"
    assert tried[0] == usual != tried[1]


def test_a_start_that_fails_for_another_reason_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def start(home: Path, port: int, project: str) -> str:
        tried.append(port)
        raise FailedPrecondition("no room")

    monkeypatch.setattr(command, "DEFAULT_PORT", free_port())
    monkeypatch.setattr(command, "start_detached", start)
    with pytest.raises(FailedPrecondition, match="no room"):
        command._start(tmp_path, 0, "default")
    assert len(tried) == 1
