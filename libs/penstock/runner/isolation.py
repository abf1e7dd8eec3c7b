"""What separates a job's command from the platform.

When the platform runs as root, the command becomes another user, in a view of the disk in which folders that are closed
to that user (the platform's home, /root) hold nothing but what the job needs. Otherwise it runs as the platform's own
user, which is no boundary, and the result says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import os
import stat
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import Unavailable
from penstock.runner.processes import living_users, no_new_privileges

NO_BOUNDARY = "none: the command runs as the platform's own user and can read what that user can"
# Users that nobody has (the range that systemd gives to services for a while), so that jobs cannot signal each other.
USERS = range(61184, 65280)
_CLONE_NEWNS, _MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x20000, 2, 4, 0x1000, 0x4000, 1 << 18


@dataclass(frozen=True)
class Isolation:
    """How a command is kept apart: `user` to become (None: stay), `visible` paths to show in folders closed to it.

    In place of `private` folders it has empty ones that nobody else sees.
    """

    user: int | None = None
    visible: tuple[Path, ...] = ()
    private: tuple[Path, ...] = ()

    @property
    def description(self) -> str:
        """For people, in the result."""
        return NO_BOUNDARY if self.user is None else "a user of its own; folders closed to others are hidden"

    def enter(self) -> None:
        """Become so, in the child that will be the command. Raises OSError where that is not allowed."""
        if self.user is None:
            return
        os.umask(0o022)
        closed = closed_folders(self.visible)
        if closed or self.private:
            _hide(closed, self.private, self.user)
        os.setgroups([])
        os.setresgid(self.user, self.user, self.user)
        os.setresuid(self.user, self.user, self.user)

    def give(self, folder: Path) -> None:
        """Make a folder and all in it belong to the command's user."""
        if self.user is None:
            return
        os.chown(folder, self.user, self.user, follow_symlinks=False)
        for root, folders, files in os.walk(folder):
            for name in (*folders, *files):
                os.chown(os.path.join(root, name), self.user, self.user, follow_symlinks=False)


@contextlib.contextmanager
def choose(own: Iterable[Path], locks: Path) -> Iterator[Isolation]:
    """The strongest isolation that works here, for a job that must reach the interpreter and its `own` folders.

    Its user is nobody else's until the end of the block, or of this process; `locks` is a file that all who choose have
    in common. Raises Unavailable if no user is free.
    """
    if os.geteuid() != 0 or not works():
        yield Isolation()
        return
    paths = (*_interpreter(), *(Path(os.path.realpath(path)) for path in own))
    with reserved(USERS, locks) as user:
        yield Isolation(user, paths)


@contextlib.contextmanager
def reserved(users: range, locks: Path) -> Iterator[int]:
    """A user that no process has and that nobody else reserves meanwhile. Raises Unavailable if there is none."""
    user, descriptor = _reserve(users, locks)
    try:
        yield user
    finally:
        os.close(descriptor)


def confine(
    own: Iterable[str], visible: Iterable[str], probes: Iterable[str], users: Sequence[int], locks: str
) -> bool:
    """Make this process, and whatever it becomes by exec, a user of range(*users) that is nobody else's meanwhile.

    Of folders that are closed to that user it sees `visible`, and `own`, which it is given; /dev/shm is its own. Where
    this does not work, or it could not read the `probes`, it stays what it is, and the answer is False. Raises
    Unavailable if no user is free.
    """
    user, descriptor = _reserve(range(*users), Path(locks))
    owned = [Path(os.path.realpath(path)) for path in own]
    paths = (*owned, *(Path(os.path.realpath(path)) for path in visible))
    isolation = Isolation(user, paths, (Path("/dev/shm"),))
    for path in owned:
        isolation.give(path)
    if not _reaches(isolation, [*paths, *map(Path, probes)]):
        os.close(descriptor)
        return False
    os.set_inheritable(descriptor, True)
    folder = os.getcwd()
    isolation.enter()
    os.chdir(folder)  # as it is now: from the old one, `..` would lead where everything can be seen
    no_new_privileges()
    return True


def _reserve(users: range, locks: Path) -> tuple[int, int]:
    """A user, and the open file to which it is bound."""
    descriptor = os.open(locks, os.O_RDWR | os.O_CREAT, 0o600)
    first = _anywhere(len(users))
    for number in (*range(first, len(users)), *range(first)):
        # The lock before the look: it goes with the process that had it, which may leave others of that user.
        if _lock(descriptor, number) and users[number] not in living_users():
            return users[number], descriptor
    os.close(descriptor)
    raise Unavailable(f"All {len(users)} users of this kind are taken. Try again later.")


def _anywhere(number: int) -> int:
    # Spread out, since files of a former job may have been left somewhere under its user.
    return int.from_bytes(os.urandom(8)) % number


def _lock(descriptor: int, number: int) -> bool:
    """Lock one byte of a file, for as long as this opening of it lasts; False if somebody else has."""
    wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, number, 1, 0)  # struct flock
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
    except (BlockingIOError, PermissionError):
        return False
    return True


def closed_folders(paths: Iterable[Path]) -> dict[Path, list[Path]]:
    """The outermost folders that others may not enter, each with the paths to show below it."""
    closed: dict[Path, list[Path]] = {}
    for path in sorted(set(paths)):
        outermost = next((p for p in reversed(path.parents) if not p.stat().st_mode & stat.S_IXOTH), None)
        if outermost is not None:
            below = closed.setdefault(outermost, [])
            if not any(path.is_relative_to(shown) for shown in below):
                below.append(path)
    return closed


def _interpreter() -> tuple[Path, ...]:
    paths = (sys.prefix, sys.base_prefix, *(p for p in sys.path if os.path.isdir(p)))
    return tuple(dict.fromkeys(Path(os.path.realpath(path)) for path in paths if os.path.realpath(path) != "/"))


@functools.cache
def works() -> bool:
    """Whether a command can become another user here: a child tries it, and looks for the interpreter."""
    return _reaches(Isolation(USERS[0], _interpreter()), [Path(p) for p in (os.__file__, __file__, sys.executable)])


def _reaches(isolation: Isolation, paths: Iterable[Path]) -> bool:
    """Whether it can be entered, and these paths read from within."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            isolation.enter()
            code = 0 if all(os.access(path, os.R_OK) for path in paths) else 1
        except OSError:
            code = 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _hide(closed: dict[Path, list[Path]], private: Iterable[Path], user: int) -> None:
    """In a mount namespace of this process, put an empty folder over each closed one, and bind what is to be shown.

    Private ones are the user's.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.unshare(_CLONE_NEWNS), "unshare")
    _mount(libc, "none", "/", None, _MS_REC | _MS_PRIVATE)
    shown = {path: os.open(path, os.O_PATH) for paths in closed.values() for path in paths}
    for folder, paths in closed.items():
        _mount(libc, "tmpfs", str(folder), "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755,size=64k")
        for path in paths:
            if stat.S_ISDIR(os.fstat(shown[path]).st_mode):
                path.mkdir(parents=True, exist_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            _mount(libc, f"/proc/self/fd/{shown[path]}", str(path), None, _MS_BIND | _MS_REC)
    for descriptor in shown.values():
        os.close(descriptor)
    for folder in private:
        _mount(libc, "tmpfs", str(folder), "tmpfs", _MS_NOSUID | _MS_NODEV, f"mode=700,uid={user},gid={user}")


def _mount(
    libc: ctypes.CDLL, source: str, target: str, kind: str | None, flags: int, options: str | None = None
) -> None:
    encoded = [text.encode() if text is not None else None for text in (source, target, kind)]
    _check(libc.mount(*encoded, ctypes.c_ulong(flags), options.encode() if options else None), f"mount {target}")


def _check(code: int, what: str) -> None:
    if code != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
