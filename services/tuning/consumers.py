"""What tuning does with events: a run of a trial that has ended tells the trial. A hint; the reconciler asks too."""

from __future__ import annotations

import structlog

from penstock.api.event.v1 import events_pb2 as events
from penstock.errors import NotFound
from penstock.events import Event, Handler
from services.tuning.commands import Commands
from services.tuning.model import Told
from services.tuning.trainings import told_by_metrics

KINDS = ("training.run",)
log = structlog.get_logger(__name__)


def handler(commands: Commands) -> Handler:
    """Event -> command."""

    async def handle(event: Event) -> None:
        message = event.message() if event.type in _TYPES else None
        trial: str = getattr(message, "trial", "")
        if not trial:
            return
        try:
            await commands.tell(trial, await _told(commands, trial, message))
        except NotFound:
            log.warning("an event names a trial that does not exist", trial=trial, event=event.id)

    return handle


_TYPES = ("training.run.succeeded", "training.run.failed", "training.run.cancelled")


async def _told(commands: Commands, trial: str, message: object) -> Told:
    if isinstance(message, events.RunSucceeded):
        repository = commands.repository
        study = (await repository.studies.get((await repository.trials.get(trial)).value.study)).value
        return told_by_metrics(study.metric, dict(message.metrics))
    reason: str = getattr(message, "reason", "")
    return Told(reason=reason, cancelled=isinstance(message, events.RunCancelled))
