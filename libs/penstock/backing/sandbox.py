"""What keeps a server that runs somebody's model apart from the platform: the means of jobs, see `runner.isolation`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import penstock

# Users that nobody has, and no job: the rest of the range that systemd gives to services for a while.
USERS = range(65280, 65520)


@dataclass(frozen=True)
class Sandbox:
    """A server as a user of its own, with shared memory of its own, who sees none of the folders closed to others.

    But for `own`, which is given to that user, and `visible`. `probes` are files that it must be able to read; where it
    could not, the server runs as the platform's user instead, and says so in its log. `locks` is a file common to all.
    """

    own: Sequence[Path]
    visible: Sequence[Path]
    probes: Sequence[Path]
    locks: Path

    def plan(self) -> Mapping[str, object]:
        """For `_launch`: where our modules are, and the arguments of `isolation.confine`."""
        paths = {"own": self.own, "visible": self.visible, "probes": self.probes}
        arguments = {name: [str(path) for path in listed] for name, listed in paths.items()}
        confine = {**arguments, "users": [USERS.start, USERS.stop], "locks": str(self.locks)}
        return {"modules": str(Path(penstock.__file__).parents[1]), "confine": confine}
