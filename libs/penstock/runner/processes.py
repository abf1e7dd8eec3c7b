"""Processes by identity (pid, start time, boot), and the ends of whole families of them.

A pid alone may have been given to somebody else since; a process group alone misses what called setsid.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# In the environment of every process of an attempt's command, with a value that nobody else can know: who carries it is
# counted and ended with the command.
MARKER = "PENSTOCK_JOB"
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_CHILD_SUBREAPER = 1, 38, 36


@dataclass(frozen=True)
class Identity:
    """A process that can be told from a later one of the same pid. `start_time` is in clock ticks since boot."""

    pid: int
    start_time: int
    boot_id: str


@dataclass(frozen=True)
class _Stat:
    pid: int
    state: str
    parent: int
    session: int
    start_time: int


@functools.cache
def boot_id() -> str:
    """This boot of this machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def identity_of(pid: int) -> Identity:
    """The identity of a living process; raises ProcessLookupError."""
    stat = _stat(pid)
    if stat is None:
        raise ProcessLookupError(pid)
    return Identity(pid, stat.start_time, boot_id())


def alive(identity: Identity) -> bool:
    """Whether that very process still runs (a zombie does not)."""
    stat = _stat(identity.pid)
    return (
        identity.boot_id == boot_id()
        and stat is not None
        and stat.start_time == identity.start_time
        and stat.state != "Z"
    )


def send(identity: Identity, number: int) -> bool:
    """Signal that very process; False if it is gone."""
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return False
    try:
        # The descriptor holds the process fast: what is checked now is what is signalled.
        if not alive(identity):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def family(leader: Identity | None, marker: str, ancestor: int = 0) -> list[Identity]:
    """The living processes of a job's command.

    They are in `leader`'s session, or carry `marker` in their environment, or descend from one of those or from
    `ancestor` (itself not included; 0 for none).
    """
    stats = {stat.pid: stat for stat in _all() if stat.state != "Z"}
    if leader is not None and (leader.boot_id != boot_id() or _reused(leader, stats)):
        leader = None
    found = {
        pid
        for pid, stat in stats.items()
        if (leader and stat.session == leader.pid and stat.start_time >= leader.start_time) or _marked(pid, marker)
    }
    found |= _below({*found, ancestor} - {0}, stats)
    found -= {ancestor, os.getpid()}
    return [Identity(pid, stats[pid].start_time, boot_id()) for pid in found]


def with_arguments(first: str, second: str) -> list[Identity]:
    """The living processes with an argument `first` followed by one that begins with `second`."""
    found = []
    for stat in _all():
        try:
            words = Path(f"/proc/{stat.pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            continue
        if any(a == first and b.startswith(second) for a, b in itertools.pairwise(words)):
            found.append(Identity(stat.pid, stat.start_time, boot_id()))
    return found


def living_users() -> set[int]:
    """The users that processes of this machine are, were, or may become again."""
    found: set[int] = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        # Not the folder's owner: a process can make that root.
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{name}/status").read_text(errors="replace").splitlines()
            found.update(map(int, next(line for line in lines if line.startswith("Uid:")).split()[1:]))
    return found


def end_family(leader: Identity | None, marker: str, ancestor: int = 0, seconds: float = 10.0) -> int:
    """SIGKILL all of a family, also while it forks; returns how many there were. TimeoutError if some stay."""
    ended: set[Identity] = set()
    deadline = time.monotonic() + seconds
    while members := family(leader, marker, ancestor):
        # Stopped first, so that none makes a child between the look and the kill.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for member in members:
                with contextlib.suppress(PermissionError):
                    send(member, number)
        ended.update(members)
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(members)} processes cannot be ended: {sorted(m.pid for m in members)[:10]}")
        time.sleep(0.005)
    return len(ended)


def memory_of(members: Iterable[Identity], limit: int) -> int:
    """Bytes in use by processes. Shared pages are divided among their users only if the sum is over `limit`."""
    pids = [member.pid for member in members]
    resident = sum(_resident(pid) for pid in pids)
    return resident if resident <= limit else sum(_proportional(pid) for pid in pids)


def become_subreaper() -> None:
    """Make orphans below this process its children, so that it sees and ends them."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """Be killed when the (single-threaded) parent dies; leave at once if it has already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(137)


def no_new_privileges() -> None:
    """Make set-uid programs powerless for this process and its children."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def reap_orphans(leader: int) -> None:
    """Collect ended children other than `leader`, whose status is for the one who waits for it."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid != leader:
            os.waitpid(ended.si_pid, os.WNOHANG)


def _reused(leader: Identity, stats: dict[int, _Stat]) -> bool:
    stat = stats.get(leader.pid)
    return stat is not None and stat.start_time != leader.start_time


def _below(roots: set[int], stats: dict[int, _Stat]) -> set[int]:
    found: set[int] = set()
    level = roots
    while level := {pid for pid, stat in stats.items() if stat.parent in level and pid not in found}:
        found |= level
    return found


def _marked(pid: int, marker: str) -> bool:
    if not marker:
        return False
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return f"{MARKER}={marker}".encode() in environment.split(b"\0")


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def _proportional(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return _resident(pid)
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _all() -> list[_Stat]:
    return [stat for name in os.listdir("/proc") if name.isdigit() and (stat := _stat(int(name)))]


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command's name, in parentheses, may itself hold spaces and parentheses.
    fields = text[text.rindex(")") + 2 :].split()
    return _Stat(pid, fields[0], int(fields[1]), int(fields[3]), int(fields[19]))
