"""The far side: reads `[expression, variables]` a line, writes `[value, error]` a line; see `evaluator`.

A script of its own that imports nothing of Penstock, so it starts in some 50 ms. What an expression may use is bounded
by the kernel, since nothing in here could interrupt the library.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from typing import Any

import cel

CPU_SECONDS = 1.0  # for one expression: then SIGPROF ends the process
_MEMORY = 1 << 30  # bytes of address space


def main() -> None:
    """Answer until the input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        answer = json.dumps(_answer(*json.loads(line)), default=str)
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


def _answer(expression: str, variables: dict[str, Any] | None) -> tuple[Any, str | None]:
    try:
        if variables is None:
            return list(cel.compile(expression).variables()), None
        return cel.evaluate(expression, variables), None
    except Exception as error:  # noqa: BLE001 (the library raises many kinds for what is wrong with an expression)
        return None, str(error) or type(error).__name__


if __name__ == "__main__":
    main()
