"""Processes of peers: servers that are waited for, and scripts that answer a line of JSON with a line of JSON."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from penstock.backing.process import http_ok
from penstock.errors import Unavailable
from penstock.runtime.settings import whole_environment

STARTS_WITHIN = 90.0  # seconds


@contextmanager
def http_server(
    command: Sequence[str], port: int, path: str, folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[None]:
    """A server in `folder`, from the moment that it answers 200 under `path`; its process group ends with the block."""
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
            env={**whole_environment(), **(environment or {})}, start_new_session=True,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + STARTS_WITHIN
            while not asyncio.run(http_ok(port, path)):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise Unavailable(f"`{' '.join(command)}` did not start:\n{_tail(log)}")
                time.sleep(0.05)
            yield
        finally:
            end(process)


class Script:
    """A script of a peer that is asked and answers, line by line; for `with`."""

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self._log = folder / "script.log"
        with self._log.open("wb") as errors:
            self._process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                env={**whole_environment(), **(environment or {})}, start_new_session=True,
            )  # fmt: skip
        self._answer()  # that it is ready

    def ask(self, **question: Any) -> dict[str, Any]:
        """Send a question and wait for its answer. Raises Unavailable if the script has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Unavailable(f"A peer's script ended:\n{_tail(self._log)}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *_: object) -> None:
        end(self._process)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def end(process: subprocess.Popen[Any]) -> None:
    """End a process that leads a group of its own, with the whole group."""
    group = process.pid
    _signal_group(group, signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        _signal_group(group, signal.SIGKILL)
        process.wait(10)
    _signal_group(group, signal.SIGKILL)  # workers that did not go with it


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
