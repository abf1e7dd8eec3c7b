"""event -> decision, nothing else."""

from __future__ import annotations

from penstock.events import Consumer, ExternalIntake
from penstock.runtime.service import Context
from services.pipeline.trigger import Triggers

NAME = "pipeline-triggers"


def own(context: Context, triggers: Triggers) -> Consumer:
    """Every event of Penstock, of every kind."""
    return Consumer(context.bus, context.database(), NAME, None, triggers.handle, fetch_history=context.fetch_history)


def outside(context: Context, triggers: Triggers) -> ExternalIntake:
    """Events of programs outside."""
    return ExternalIntake(context.bus, context.database(), triggers.handle)
