"""TCP ports on 127.0.0.1: any free one, the one that a server had, or the one that is wanted."""

from __future__ import annotations

import random
import socket
from collections import deque
from pathlib import Path

from penstock.backing.records import read_record
from penstock.errors import FailedPrecondition, Unavailable

# Below the usual ephemeral range: a port of that range can be taken by any outgoing connection while its server
# restarts, and a client that redials it can even connect to itself.
_PORTS = range(20_000, 32_000)
# Given out by this process, though perhaps nobody listens there yet: two ports of one server must not be the same.
_given_out: deque[int] = deque(maxlen=1_000)


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on now, picked at random so that parallel callers rarely collide."""
    for candidate in random.sample(_PORTS, 2_000):
        if candidate not in _given_out and port_free(candidate):
            _given_out.append(candidate)
            return candidate
    raise Unavailable("no free TCP port was found on 127.0.0.1; stop some servers and try again")


def port_free(port: int) -> bool:
    """Whether a server could bind 127.0.0.1:`port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def choose_port(home: Path, name: str, wanted: int | None, key: str = "port") -> int:
    """The port for `name`: the wanted one, else the one it had (in its fact `key`) when it last ran here, else any.

    Raises FailedPrecondition if the wanted one is taken.
    """
    if wanted:
        _given_out.append(wanted)
        if not port_free(wanted):
            raise FailedPrecondition(
                f"port {wanted}, where {name} must listen, is in use: stop what listens there, or choose another port",
                metadata={"port": str(wanted)},
            )
        return wanted
    last = read_record(home, name)
    before = int(last[1].get(key, 0)) if last else 0
    if not before or not port_free(before):
        return free_port()
    _given_out.append(before)
    return before


def keep_free(port: int) -> None:
    """Give `port` to nobody: a server of ours will listen there, though not yet."""
    _given_out.append(port)
