"""The entry point of a job that runs a built-in: parameters and folders from the environment, an exit code back.

Imports the heavy libraries only when a job starts: `penstock.algorithms` is also imported by services.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from penstock.algorithms.catalogue import algorithm
from penstock.errors import InvalidArgument, NotFound, PenstockError
from penstock.runtime.settings import JobEnvironment, let_idle_threads_sleep

OK, FAILED, WRONG_INPUT = 0, 1, 2


def run(name: str, environment: JobEnvironment | None = None) -> int:
    """Run the built-in `name` on the job's folders (by default those in the process's environment).

    Returns the exit code: 0 done; 2 wrong parameters or data; 1 anything else that the platform foresees. The last
    two come with one line on stderr. What is not foreseen is raised, with its traceback.
    """
    try:
        _run(name, environment or JobEnvironment.load())
    except (InvalidArgument, NotFound) as error:
        print(f"error: {error.message}", file=sys.stderr, flush=True)
        return WRONG_INPUT
    except PenstockError as error:
        print(f"error: {error.message}", file=sys.stderr, flush=True)
        return FAILED
    return OK


def preload() -> None:
    """Import what the built-ins need, for a process that will fork workers. Starts no threads."""
    let_idle_threads_sleep()
    for module in ("penstock.algorithms.training", "penstock.algorithms.evaluation", "threadpoolctl"):
        importlib.import_module(module)


def _run(name: str, environment: JobEnvironment) -> None:
    chosen = algorithm(name)
    parameters = chosen.parse(_given(environment.params_file))
    if chosen.kind == "evaluator":
        from penstock.algorithms.evaluation import evaluate

        evaluate(parameters, environment, _log)
        return
    let_idle_threads_sleep()
    from threadpoolctl import threadpool_limits

    from penstock.algorithms.training import train

    # A forked worker inherits pools sized before its limits were known, so the environment variable is not enough.
    with threadpool_limits(limits=environment.threads):
        train(chosen, parameters, environment, _log)


def _given(path: Path | None) -> dict[str, Any]:
    """The parameters that the job was given: an object, or nothing."""
    if path is None or not path.exists():
        return {}
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidArgument(f"parameters: not JSON: {error}", field="parameters") from error
    if not isinstance(given, dict):
        raise InvalidArgument("parameters: not a JSON object", field="parameters")
    return given


def _log(text: str) -> None:
    print(text, flush=True)
