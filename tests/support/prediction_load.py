"""What clients that ask without pause were answered."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field


async def until(condition: Callable[[], bool | Awaitable[bool]], timeout: float = 60.0) -> None:
    """Wait for something that nobody tells."""
    async with asyncio.timeout(timeout):
        while True:
            found = condition()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.03)


@dataclass
class Load:
    """Clients without retries that ask an endpoint without pause: which factor and which revision answered."""

    answers: Counter[tuple[float, int]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    @property
    def revisions(self) -> set[int]:
        return {revision for _, revision in self.answers}

    @property
    def factors(self) -> set[float]:
        return {factor for factor, _ in self.answers}

    async def more(self, number: int = 30) -> None:
        """Wait until that many more were answered."""
        wanted = self.answers.total() + len(self.failures) + number
        await until(lambda: self.answers.total() + len(self.failures) >= wanted)
