"""Every write waits for the journal of a majority, and the driver never repeats one by itself."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

import pytest
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from penstock.store import Database, Rows, RowUpdate
from penstock.store import database as database_module
from tests.integration.store.sample import Happened, Run, name, runs_in

WRITES = {"insert", "update", "delete", "findAndModify"}


class Commands(CommandListener):
    """The write commands as they were sent."""

    def __init__(self) -> None:
        self.writes: list[dict[str, Any]] = []

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name in WRITES:
            self.writes.append(dict(event.command))

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Of no interest."""

    def failed(self, event: CommandFailedEvent) -> None:
        """Of no interest."""


async def test_every_write_asks_for_the_journal_of_a_majority(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = Commands()
    monkeypatch.setitem(database_module._OPTIONS, "event_listeners", [commands])
    database = Database.connect(store_uri, f"penstock_test_{secrets.token_hex(4)}")
    try:
        runs = await runs_in(database)
        created = await runs.create(name("a"), Run("p"), [Happened()])
        saved = await runs.save(created, replace(created.value, steps=1), [Happened()])
        await runs.trim(await runs.pending())
        await runs.delete(saved)
        rows = Rows(database, "rows", indexes=("run",))
        await rows.insert([{"_id": "a", "run": "r"}, {"_id": "b", "run": "r"}])
        await rows.update("a", set={"run": "s"})
        await rows.update_many([RowUpdate("b", set={"run": "s"})])
        await rows.upsert("c", {"run": "r"})
        await rows.delete(["a"])
    finally:
        await database.drop()
        await database.close()
    assert len(commands.writes) >= 10
    assert all(command["writeConcern"] == {"w": "majority", "j": True} for command in commands.writes)
    assert not any("txnNumber" in command for command in commands.writes)


def test_the_uri_cannot_weaken_it() -> None:
    database = Database("mongodb://127.0.0.1:1/?w=1&journal=false&retryWrites=true", "penstock_test")
    concern = database.collection("x").write_concern
    assert concern.document == {"w": "majority", "j": True}
