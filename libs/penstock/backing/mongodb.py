"""The database of one machine: a given MongoDB, a `mongod` on PATH, or nx-27017, which speaks its protocol over SQLite.

nx-27017 is started with a data directory: in its single-file mode collections of the same name in two databases are one
and the same. Each database is a file, so services do not wait for each other's fsync either.
"""

from __future__ import annotations

import asyncio
import shutil
import struct
import sys
from pathlib import Path

from penstock.backing import nx_server
from penstock.backing.ports import choose_port
from penstock.backing.process import ManagedProcess, Program, wait_ready
from penstock.backing.wheels import wheel_binary
from penstock.errors import Unavailable

NAME = "mongodb"
_SQLITE = b"SQLite format 3\0"  # how a file of a database begins
_OP_MSG = 2013
# {hello: 1, $db: "admin"} in BSON: enough to learn that the server answers, without a driver.
_HELLO = bytes.fromhex("1f0000001068656c6c6f000100000002246462000600000061646d696e0000")


class MongoServer:
    """The MongoDB server of one home directory, or the one behind `uri`, which is then only used, never managed."""

    def __init__(self, home: Path, uri: str | None = None, port: int | None = None) -> None:
        self.home = home
        self._external = uri
        self._port = port
        self.process: ManagedProcess | None = None

    @property
    def uri(self) -> str:
        """What a driver connects to; once started."""
        return self._external or f"mongodb://127.0.0.1:{self._port}/?directConnection=true"

    @property
    def managed(self) -> bool:
        """Whether this object starts and stops the server."""
        return self._external is None

    async def start(self, *, attached: bool = False) -> ManagedProcess | None:
        """Adopt the running one or start one, and wait until it answers; None if the server is somebody else's.

        Raises Unavailable, too, for a damaged file of nx-27017.
        """
        if self._external is not None:
            return None
        process = ManagedProcess.ensure(self.home, NAME, self._program, attached=attached)
        self._port = port = int(process.facts["port"])
        self.process = process
        await wait_ready(process, lambda: answers(port), timeout=60)
        return process

    def _program(self) -> Program:
        port = choose_port(self.home, NAME, self._port)
        data = self.home / NAME
        # A home keeps the server that it began with: another one would start on empty data.
        began_with_nx = (data / "nx-27017").exists() and not (data / "mongod").exists()
        mongod = None if began_with_nx else shutil.which("mongod")
        server = "mongod" if mongod else "nx-27017"
        data /= server
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not mongod:
            _check_files(data)
        argv = _mongod(mongod, data, port) if mongod else _nx_27017(data, port)
        return Program(NAME, argv, facts={"port": port, "server": server})


def _mongod(binary: str, data: Path, port: int) -> list[str]:
    # A flush interval of 5 ms bounds what j:true waits for; loopback without a socket file under /tmp.
    options = ["--bind_ip", "127.0.0.1", "--nounixsocket", "--journalCommitInterval", "5"]
    return [binary, "--dbpath", str(data), "--port", str(port), *options]


def _check_files(data: Path) -> None:
    """Say which database is damaged: nx-27017 answers every request of it with an error that names no file."""
    for path in sorted(data.glob("*.db")):
        with path.open("rb") as file:
            if file.read(len(_SQLITE)) not in (_SQLITE, b""):
                raise Unavailable(f"The database {path.stem} is damaged: {path} is no SQLite file. Restore a backup.")


def _nx_27017(data: Path, port: int) -> list[str]:
    wheel_binary("nx-27017", "nx-27017")  # the clear error if it is missing
    pid_file = data / "server.pid"
    pid_file.unlink(missing_ok=True)  # one that a kill left would refuse the start; our lock guards the data
    options = ["--host", "127.0.0.1", "--log-file", "/dev/null", "--pid-file", str(pid_file)]
    return [sys.executable, "-I", nx_server.__file__, "--port", str(port), "--data-dir", str(data), *options]


async def answers(port: int, timeout: float = 2.0) -> bool:
    """Whether the server on 127.0.0.1:`port` answers a `hello` within `timeout` seconds."""
    message = struct.pack("<iiiiIB", 21 + len(_HELLO), 1, 0, _OP_MSG, 0, 0) + _HELLO
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(message)
                return len(await reader.readexactly(16)) == 16
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False
