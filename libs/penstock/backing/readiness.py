"""Whether the platform of a home is well. Each part is asked itself: one that hangs has not ended, and looks alive."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from penstock.backing import envoy, mongodb, nats
from penstock.backing.embedded import PROCESS
from penstock.backing.health import PATIENCE, serves
from penstock.backing.process import ManagedProcess, http_ok
from penstock.backing.records import SUPERVISOR, Facts, record_path

LOOKS = 2  # one that is busy may be late once
PAUSE = 0.5  # seconds between them
Ask = Callable[[Facts], Awaitable[bool]]


async def what_is_down(home: Path) -> list[str]:
    """What does not run or does not answer, each with what to do about it; empty if the platform is well."""
    parts: dict[str, Ask] = {
        nats.NAME: lambda facts: http_ok(int(facts["monitor_port"]), "/healthz", timeout=PATIENCE),
        mongodb.NAME: lambda facts: mongodb.answers(int(facts["port"]), PATIENCE),
        PROCESS: lambda facts: serves(int(facts["port"])),
        envoy.NAME: lambda facts: http_ok(int(facts["port"]), "/healthz", timeout=PATIENCE),
    }
    if not record_path(home, mongodb.NAME).exists():
        del parts[mongodb.NAME]  # somebody else's: without it, the services do not answer
    supervisor = ManagedProcess.adopt(home, SUPERVISOR)
    found = [] if supervisor else [f"no supervisor runs: run `penstock up --home {home}`"]
    asked = await asyncio.gather(*(_look(home, name, ask, bool(supervisor)) for name, ask in parts.items()))
    return found + [problem for problem in asked if problem]


async def _look(home: Path, name: str, ask: Ask, supervised: bool) -> str:
    """What is wrong with a part, or ""."""
    process = ManagedProcess.adopt(home, name)
    if process is None:
        hope = f"; the supervisor starts it again: see {home / 'logs' / name}.log" if supervised else ""
        return f"{name}: not running{hope}"
    for look in range(LOOKS):
        if look:
            await asyncio.sleep(PAUSE)
        if await ask(process.facts):
            return ""
    return (
        f"{name}: process {process.identity.pid} does not answer; if it stays so, run `penstock down` and "
        f"`penstock up --detach` with `--home {home}`, and see {home / 'logs' / name}.log"
    )
