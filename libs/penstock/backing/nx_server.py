"""nx-27017 for the processes of one user: it knows no passwords, and every user of a machine reaches its loopback.

So each connection is asked of the kernel, which knows whose it is. It is served by a thread of its own: with nx-27017's
other loop every request is handed from an event loop to a thread and back, which takes longer than most requests. Run
as a script, with nx-27017's own arguments; what else differs from nx-27017 is in `nx_patches`.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.backing import nx_patches

_ESTABLISHED = "01"
Address = tuple[str, int]
Serve = Callable[[socket.socket, Any], None]
log = logging.getLogger(__name__)


def owner_of(peer: Address, own: Address, table: str) -> int | None:
    """The user at the other end of a connection of this machine, by the text of /proc/net/tcp; None if unknown.

    Only a socket that is open counts: one that was closed has no owner any more, and is shown as root's.
    """
    wanted = (_hexadecimal(peer), _hexadecimal(own))
    for line in table.splitlines()[1:]:
        _, local, remote, state, _, _, _, user, _, inode, *_ = line.split()
        if (local, remote) == wanted and state == _ESTABLISHED and inode != "0":
            return int(user)
    return None


def _connections() -> str:
    return Path("/proc/net/tcp").read_text("ascii")  # the kernel answers at once


def _hexadecimal(address: Address) -> str:
    host, port = address
    return f"{socket.inet_aton(host)[::-1].hex().upper()}:{port:04X}"


def for_own_user(serve: Serve) -> Serve:
    """`serve`, called for connections of this process's own user only; others are closed unread."""

    def guarded(connection: socket.socket, handler: Any) -> None:
        try:
            own, peer = connection.getsockname(), connection.getpeername()
            owner = owner_of(peer, own, _connections())
        except OSError:
            owner = None  # it is closed already, whoever it was
        if owner != os.geteuid():
            log.warning("refused a connection of another user")
            connection.close()
            return
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        serve(connection, handler)

    return guarded


def main() -> None:
    """Run nx-27017 with its arguments, guarded and patched."""
    from nx_27017 import nx_27017, server  # type: ignore[import-untyped]

    nx_patches.apply()
    server.handle_client_threaded = for_own_user(server.handle_client_threaded)
    sys.argv.append("--threaded")  # here, for it is what the guard guards
    logging.disable(logging.INFO)  # else it writes two lines about every request
    nx_27017.main()


if __name__ == "__main__":
    main()
