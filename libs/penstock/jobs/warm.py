"""Warm starts of built-in algorithms: a detached process that has imported what they need forks a shim per attempt.

It belongs to nobody: a service asks it over a socket in its folder and may come and go. It has no say in what an
attempt is: a child takes its own lock and writes its own record, as any shim does. If it is gone, shims start cold.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import logging
import os
import select
import signal
import socket
import struct
import sys
import time
import traceback
from pathlib import Path
from typing import NoReturn

from penstock.jobs import shim
from penstock.jobs.locks import held
from penstock.runner import isolation
from penstock.runner.environment import packages

IDLE_SECONDS = 300.0
TICK_SECONDS = 1.0
DEADLINE_SECONDS = 2.0
STOP = b"stop"
PRELOAD = "penstock.algorithms:preload"
_logger = logging.getLogger(__name__)


def ask(folder: Path, message: bytes) -> bool:
    """Send one message (an attempt's folder, or STOP) to the process at home in `folder`; whether it took it."""
    try:
        home = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(DEADLINE_SECONDS)
            # By descriptor: a socket's path may have 107 bytes only, a home directory more.
            connection.connect(f"/proc/self/fd/{home}/socket")
            connection.send(message)
            return connection.recv(16) == b"ok"
    except OSError:
        return False
    finally:
        os.close(home)


def running(folder: Path) -> bool:
    """Whether a warm process is at home in `folder`, ready or not yet."""
    return held(folder / "lock")


class Warm:
    """The process itself."""

    def __init__(self, folder: Path, idle: float) -> None:
        self._folder = folder
        self._idle = idle
        self._children: set[int] = set()
        self._used = time.monotonic()

    def serve(self, preload: str) -> None:
        """Take the folder, import, and serve until stopped, idle, or without a home."""
        lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return
        _load(preload)
        os.chdir(self._folder)
        with contextlib.suppress(FileNotFoundError):
            os.unlink("socket.new")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind("socket.new")
            listener.listen(64)
            os.replace("socket.new", "socket")  # whoever sees it is answered
            _logger.info("warm")
            while self._wanted():
                self._reap()
                if select.select([listener], [], [], TICK_SECONDS)[0] and not self._answer(listener):
                    break
            with contextlib.suppress(FileNotFoundError):
                os.unlink("socket")

    def _wanted(self) -> bool:
        idle = not self._children and time.monotonic() - self._used > self._idle
        return not idle and os.path.exists(self._folder / "socket")

    def _answer(self, listener: socket.socket) -> bool:
        """Serve one connection; False if it asks to stop."""
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(DEADLINE_SECONDS)
            try:
                message = connection.recv(4096)
                if not _same_user(connection) or not message:
                    return True
                if message != STOP:
                    self._fork(Path(os.fsdecode(message)))
                connection.send(b"ok")
            except OSError as error:
                _logger.warning("a request failed: %s", error)
                return True
        return message != STOP

    def _fork(self, attempt: Path) -> None:
        self._used = time.monotonic()
        child = os.fork()
        if child == 0:
            _become_shim(attempt)
        self._children.add(child)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (child := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                self._children.discard(child)
                self._used = time.monotonic()


def _become_shim(attempt: Path) -> NoReturn:
    code = 1
    try:
        os.setsid()
        errors = os.open(attempt / "shim.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(errors, 1)
        os.dup2(errors, 2)
        # The sockets and the lock of the warm process: a copy would outlive it.
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.chdir("/")
        code = shim.run(attempt, warm=True)
    except BaseException:  # noqa: BLE001 - a forked child must never return into its parent's loop
        traceback.print_exc()
    finally:
        logging.shutdown()
        os._exit(code)


def _load(preload: str) -> None:
    """Import what `preload` ("module" or "module:function", with commas between) names; what fails stays cold."""
    for name in filter(None, preload.split(",")):
        module, _, function = name.partition(":")
        try:
            loaded = importlib.import_module(module)
            if function:
                getattr(loaded, function)()
        except Exception:
            _logger.exception("cannot preload %s", name)
    packages()
    isolation.works()
    # What is there now is there for good: no child needs to look at (and so copy) it.
    gc.collect()
    gc.freeze()


def _same_user(connection: socket.socket) -> bool:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", credentials)[1] == os.getuid())


def main() -> None:
    """The command line: a folder, what to preload, and the seconds of idleness after which it leaves."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    folder, preload, idle = sys.argv[1:4]
    Warm(Path(folder), float(idle)).serve(preload)


if __name__ == "__main__":
    main()
