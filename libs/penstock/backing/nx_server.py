"""nx-27017 for the processes of one user: it knows no passwords, and every user of a machine reaches its loopback.

So each connection is asked of the kernel, which knows whose it is. Run as a script, with nx-27017's own arguments; what
else differs from nx-27017 is in `nx_patches`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from penstock.backing import nx_patches

_ESTABLISHED = "01"
Address = tuple[str, int]
Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
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


def for_own_user(client: Client) -> Client:
    """`client`, called for connections of this process's own user only; others are closed unread."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer, own = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
        if owner_of(peer, own, _connections()) == os.geteuid():
            await client(reader, writer)
            return
        log.warning("refused a connection of another user, from port %s", peer[1])
        writer.close()

    return serve


def main() -> None:
    """Run nx-27017 with its arguments, guarded and patched."""
    from nx_27017 import nx_27017  # type: ignore[import-untyped]

    nx_patches.apply()
    listen = asyncio.start_server

    def guarded(client: Client, *arguments: Any, **options: Any) -> Any:
        return listen(for_own_user(client), *arguments, **options)

    asyncio.start_server = guarded  # type: ignore[assignment]
    nx_27017.main()


if __name__ == "__main__":
    main()
