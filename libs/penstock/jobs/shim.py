"""The process that is an attempt on this machine: `python -m penstock.jobs.shim FOLDER`, detached from any service.

It holds the attempt's lock for as long as it lives, so that a service that restarts knows at once whether it does.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from penstock.jobs.attempt import Attempt
from penstock.jobs.spec import JobSpec
from penstock.objects import ObjectStore
from penstock.runner.job import Place, run_job
from penstock.runner.processes import Identity, become_subreaper
from penstock.runner.reporter import GrpcReporter
from penstock.runner.workspace import Workspace

DONE, LEFT = 0, 3
_logger = logging.getLogger(__name__)


def run(folder: Path, *, owner: bool = True, warm: bool = False) -> int:
    """Do the attempt in `folder`, if it is nobody else's; returns 0, or 3 if it had to leave."""
    attempt = Attempt(folder)
    found = attempt.job()
    if found is None:
        return LEFT
    spec, objects = found
    lock = claim(attempt, spec, objects)
    if lock is None:
        return LEFT
    if owner:
        become_subreaper()
    workspace = Workspace(attempt.work, attempt.checkpoint)
    place = Place(workspace, attempt.log, attempt.mark(), attempt.users, owner=owner, warm=warm)
    reporter = GrpcReporter(spec.resource, spec.attempt, attempt.report) if attempt.report() else None
    try:
        run_job(spec, objects, place, _FolderControl(attempt), reporter)
    finally:
        os.close(lock)
    return DONE


def claim(attempt: Attempt, spec: JobSpec, objects: ObjectStore) -> int | None:
    """Become the one process of an attempt: the lock's descriptor; None if it is taken, was started, or has ended."""
    try:
        lock = attempt.lock()
    except FileNotFoundError:
        return None
    if lock is None:
        return None
    if attempt.started() or objects.get_named(spec.ref.result_key) is not None or not attempt.record_start():
        os.close(lock)
        return None
    return lock


class _FolderControl:
    """Control through the attempt's folder: it outlives whoever writes into it."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def cancelled(self) -> float | None:
        return self._attempt.cancelled()

    def record(self, identity: Identity) -> None:
        self._attempt.record_command(identity)


def main() -> None:
    """The command line: the attempt's folder."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    code = 1
    try:
        code = run(Path(sys.argv[1]))
    except Exception:  # without a result the attempt is lost; why is in shim.log
        _logger.exception("the attempt in %s is lost", sys.argv[1:])
    finally:
        # Not sys.exit: a thread that still waits for a service must not keep the lock.
        logging.shutdown()
        os._exit(code)


if __name__ == "__main__":
    main()
