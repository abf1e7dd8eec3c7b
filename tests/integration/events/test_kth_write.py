"""A fault at the k-th store write or publish, for every k: nothing acknowledged is lost, each event applied once."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from penstock.events import Bus
from penstock.store import Database
from tests.integration.events.faults import Fault, Injector, injected
from tests.integration.events.story import Record, live, verify
from tests.integration.events.world import new_project


@asynccontextmanager
async def fresh(mongodb_uri: str) -> AsyncIterator[Database]:
    database = Database.connect(mongodb_uri, f"penstock_test_{secrets.token_hex(4)}")
    try:
        yield database
    finally:
        await database.drop()
        await database.close()


async def survive(bus: Bus, database: Database, injector: Injector, seconds: float = 30) -> Record:
    """Live with the fault; after a death, live again without, until all is well or `seconds` have passed."""
    record = Record(new_project())
    with injected(injector):
        life = asyncio.create_task(live(bus, database, record, record.acknowledged.add))
        death = asyncio.create_task(injector.died.wait())
        await asyncio.wait([life, death], return_when=asyncio.FIRST_COMPLETED)
        died = injector.died.is_set()
        for task in (life, death):
            task.cancel()
        outcomes = await asyncio.gather(life, death, return_exceptions=True)
    if died:
        with suppress(AssertionError):  # the verdict comes from `verify`
            await live(bus, database, record, record.acknowledged.add, seconds)
    elif isinstance(outcomes[0], BaseException):
        raise outcomes[0]
    return record


@pytest.mark.parametrize("fault", [Fault.FAIL_BEFORE, Fault.FAIL_AFTER, Fault.DIE_BEFORE, Fault.DIE_AFTER])
async def test_a_fault_at_any_write_loses_and_doubles_nothing(
    nats: object, bus: Bus, mongodb_uri: str, fault: Fault
) -> None:
    async with fresh(mongodb_uri) as database:
        faultless = Injector(0, fault)
        record = await survive(bus, database, faultless)
        assert await verify(database, record) == []
    k, fired, injector = 0, 0, faultless
    while k <= faultless.count or injector.fired:
        k += 1
        injector = Injector(k, fault)
        async with fresh(mongodb_uri) as database:
            record = await survive(bus, database, injector)
            assert await verify(database, record) == [], f"with '{fault.value}' at operation {k}"
        fired += injector.fired
    # Every operation of the run without faults was hit; how they are put together varies a little from run to run.
    assert k > faultless.count > 15
    assert fired > 0.8 * faultless.count
