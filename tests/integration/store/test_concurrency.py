"""Compare-and-set under concurrency: whatever the interleaving, the document is as if the changes came one by one."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.errors import Conflict
from penstock.store import Database
from tests.integration.store.sample import Happened, Run, name, runs_in

PLANS = st.lists(st.lists(st.sampled_from(["change", "save", "repeat", "trim"]), max_size=6), min_size=2, max_size=4)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PLANS)
async def test_concurrent_writers_lose_and_double_nothing(store_uri: str, plans: list[list[str]]) -> None:
    """Each writer is a process of its own as far as the store knows: it has its own locks."""
    database = Database.connect(store_uri, f"penstock_test_{secrets.token_hex(4)}")
    try:
        first = await runs_in(database)
        await first.create(name("a"), Run("p"), [Happened()])
        applied = await asyncio.gather(*(_write(database, plan, writer) for writer, plan in enumerate(plans)))
        stored = await first.get(name("a"))
        assert stored.value.steps == sum(applied)
        assert stored.version == 1 + sum(applied)
        assert stored.sequence == 1 + sum(applied)
        published = [entry for plan in plans for entry in plan if entry == "trim"]
        [*pending] = await first.pending()
        left = [] if not pending else [entry for entry in pending[0].entries]
        assert published or len(left) == stored.sequence
        assert len(left) == len(set(left)) <= stored.sequence
    finally:
        await database.drop()
        await database.close()


async def _write(database: Database, plan: list[str], writer: int) -> int:
    """Carry out a plan; returns how many steps it added."""
    runs = await runs_in(database)
    added = 0

    def step(run: Run) -> tuple[Run, list[Happened]]:
        return replace(run, steps=run.steps + 1), [Happened()]

    for n, action in enumerate(plan):
        if action == "change":
            await runs.change(name("a"), step)
            added += 1
        elif action == "repeat":  # the same request twice, at once
            await asyncio.gather(*(runs.change(name("a"), step, request_id=f"{writer}/{n}") for _ in range(2)))
            added += 1
        elif action == "save":
            stored = await runs.get(name("a"))
            try:
                await runs.save(stored, *step(stored.value))
                added += 1
            except Conflict:
                continue
        else:
            await runs.trim(await runs.pending())
    return added
