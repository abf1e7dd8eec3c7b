"""A platform of its own for each bench: real servers in a temporary home, gone afterwards with all they started."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from penstock.backing.embedded import PROCESS, Embedded
from penstock.backing.ports import free_port
from penstock.backing.records import read_record
from penstock.backing.stack import Stack
from penstock.backing.triton_environment import TritonEnvironment, find_environment
from penstock.errors import FailedPrecondition
from penstock.rpc.keys import Keys
from penstock.rpc.tokens import Tokens
from penstock.runtime.settings import data_directory
from penstock.sdk.client import Client

PROJECT = "default"


@dataclass(frozen=True)
class Platform:
    """A running platform. `client` goes through its edge with the home's token, as a user's does."""

    embedded: Embedded
    client: Client

    @property
    def home(self) -> Path:
        """Its home directory."""
        return self.embedded.home

    @property
    def mongodb_uri(self) -> str:
        """The database that its services use."""
        return self.embedded.stack.mongodb_uri

    @property
    def tokens(self) -> Tokens:
        """Mints tokens that it accepts."""
        return Tokens(Keys.open(self.home / "keys"))

    @property
    def services_address(self) -> str:
        """Where its services listen themselves, behind the edge: there jobs report."""
        record = read_record(self.home, PROCESS)
        assert record is not None
        return f"127.0.0.1:{record[1]['port']}"


@contextmanager
def running_platform() -> Iterator[Platform]:
    """Start a platform; stop it and remove its home at the end."""
    home = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    embedded = Embedded(home, free_port())
    try:
        asyncio.run(embedded.start())
        with Client(embedded.url, (home / "token").read_text().strip(), PROJECT) as client:
            yield Platform(embedded, client)
    finally:
        asyncio.run(embedded.stop())
        shutil.rmtree(home, ignore_errors=True)


def triton_environment() -> TritonEnvironment:
    """Triton's environment; raises FailedPrecondition if `penstock setup` has not made it."""
    found = find_environment(data_directory())
    if found is None:
        raise FailedPrecondition("Triton is not installed: run `make setup` (or `penstock setup`) first.")
    return found


@contextmanager
def running_stack() -> Iterator[Stack]:
    """NATS and the database alone, in a temporary home."""
    home = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    stack = Stack(home)
    try:
        asyncio.run(stack.start())
        yield stack
    finally:
        asyncio.run(stack.stop())
        shutil.rmtree(home, ignore_errors=True)
