"""How many more files Envoy can watch: each costs an inotify instance, few per user, and without one Envoy aborts.

So the limit is checked before an endpoint is added, where it is an error message, not the end of all traffic.
"""

from __future__ import annotations

import os
from pathlib import Path

from penstock.errors import ResourceExhausted

_LIMIT = Path("/proc/sys/fs/inotify/max_user_instances")
_BASE = 5  # files that Envoy watches without any endpoint
_RESERVE = 8  # for others, and for what was written and is not watched yet


def check_free(number: int, watched: int) -> None:
    """Raise ResourceExhausted unless this user may have `number` more inotify instances, and some to spare.

    `watched` is how many files of endpoints there are: Envoy, which may be down now, must be able to watch them all.
    """
    try:
        limit = int(_LIMIT.read_text())
    except (OSError, ValueError):
        return  # not Linux
    used = max(used_instances(Path("/proc"), os.getuid()), _BASE + watched)
    if used + number + _RESERVE > limit:
        raise ResourceExhausted(
            f"Envoy cannot watch another endpoint: {used} of this user's {limit} inotify instances are in use. "
            f"Remove endpoints, or raise the limit (sysctl fs.inotify.max_user_instances=1024)."
        )


def used_instances(proc: Path, uid: int) -> int:
    """The number of inotify instances that processes of this user hold, as far as they can be seen."""
    return sum(_of_process(process, uid) for process in proc.iterdir() if process.name.isdigit())


def _of_process(process: Path, uid: int) -> int:
    try:
        if process.stat().st_uid != uid:
            return 0
        return sum("inotify" in _target(descriptor) for descriptor in (process / "fd").iterdir())
    except OSError:
        return 0  # it ended, or is not ours to see


def _target(descriptor: Path) -> str:
    try:
        return os.readlink(descriptor)
    except OSError:
        return ""
