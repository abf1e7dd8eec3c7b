"""Who a process is, so that a recycled pid is never mistaken for one of ours.

A pid alone names nobody: it is reused, and after a reboot it is anybody's. A process is pid + start time + boot id;
children that it owns are found by a random marker in their environment, which survives re-parenting and new groups.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path

MARKER = "PENSTOCK_PROCESS"
_LOOKS = 2  # that find no child before there is none: in the moment of an exec, a process shows no environment
_BETWEEN_LOOKS = 0.01  # seconds
_DEAD_STATES = ("Z", "X")
_EXITING = 0x4  # of the flags: PF_EXITING in the kernel's sched.h
_FLAGS, _THREADS, _STARTED = 6, 17, 19  # fields of /proc/<pid>/stat, counted from its state


def boot_id() -> str:
    """The kernel's identifier of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/<pid>/stat from the third (state) on; None if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def _kill_pending(pid: int) -> bool:
    """Whether a SIGKILL waits for the process to run."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return False
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd:", "ShdPnd:"))]
    return any(mask >> (signal.SIGKILL - 1) & 1 for mask in masks)


@dataclass(frozen=True)
class Identity:
    """One process, for ever: `started` is in clock ticks since boot (/proc/<pid>/stat, field 22)."""

    pid: int
    started: int
    boot_id: str
    marker: str

    def started_at(self) -> float:
        """When it started, in seconds since the epoch, right to about a second."""
        kernel = Path("/proc/stat").read_text(encoding="utf-8").split()
        return int(kernel[kernel.index("btime") + 1]) + self.started / os.sysconf("SC_CLK_TCK")

    def alive(self) -> bool:
        """Whether this very process still runs (a zombie does not, unless threads of it still hold its ports)."""
        if self.boot_id != boot_id():
            return False
        fields = _stat(self.pid)
        if fields is None or int(fields[_STARTED]) != self.started:
            return False
        return fields[0] not in _DEAD_STATES or int(fields[_THREADS]) > 1

    def doomed(self) -> bool:
        """Whether it runs, but was killed (SIGKILL) or is exiting: it will be gone without another word."""
        fields = _stat(self.pid)
        if fields is None or not self.alive():
            return False
        return bool(int(fields[_FLAGS]) & _EXITING) or _kill_pending(self.pid)

    def signal(self, number: int) -> bool:
        """Send a signal to this process, never to one that has taken its pid; False if it is gone."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            # The handle pins the process: if the identity is right now, it stays right for the signal.
            if not self.alive():
                return False
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True

    def wait(self, timeout: float) -> bool:
        """Block up to `timeout` seconds until the process is gone; True if it is. Works for adopted processes too."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            if not self.alive():
                return True
            poller = select.poll()
            poller.register(handle, select.POLLIN)
            return bool(poller.poll(max(0.0, timeout) * 1000))
        finally:
            os.close(handle)

    async def exited(self) -> None:
        """Return when the process is gone; costs nothing while it runs."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        try:
            if not self.alive():
                return
            loop.add_reader(handle, gone.set)
            await gone.wait()
        finally:
            loop.remove_reader(handle)
            os.close(handle)

    def family(self) -> list[int]:
        """Pids of every living process that carries this one's marker: itself and its descendants, if it owns them."""
        if self.boot_id != boot_id():
            return []
        needle = f"{MARKER}={self.marker}".encode()
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                # Processes of other users, and those that end meanwhile, are not readable and not ours.
                with contextlib.suppress(OSError):
                    if needle in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                        found.append(int(entry))
        return found

    def kill_family(self) -> None:
        """SIGKILL whatever carries the marker, until nothing does."""
        empty = 0
        for _ in range(100):
            left = self.family()
            empty = 0 if left else empty + 1
            if empty == _LOOKS:
                return
            for pid in left:
                self._kill_member(pid)
            if not left:
                time.sleep(_BETWEEN_LOOKS)

    def _kill_member(self, pid: int) -> None:
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(pid)
            try:
                environ = Path(f"/proc/{pid}/environ").read_bytes()
                if f"{MARKER}={self.marker}".encode() in environ.split(b"\0"):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    select.select([handle], [], [], 1.0)
            finally:
                os.close(handle)
