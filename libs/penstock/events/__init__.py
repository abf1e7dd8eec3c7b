"""CloudEvents over NATS JetStream: what happened, told once, in order, to whoever wants to know.

`penstock.events.registry` lists the types; it and `credentials` need no connection.
"""

from penstock.events.bus import Bus
from penstock.events.consumer import Consumer
from penstock.events.dead_letters import DeadLetter, DeadLetters, LetterState
from penstock.events.envelope import Event, NewEvent
from penstock.events.event_log import EventLog
from penstock.events.external import ExternalIntake
from penstock.events.external_form import external_event
from penstock.events.lane import FetchHistory, Handler
from penstock.events.registry import EVENT_TYPES, EventType, event_type
from penstock.events.relay import Relay
from penstock.events.replay import replay
from penstock.events.tail import tail
from penstock.store import Cause, current_cause

__all__ = [
    "Bus",
    "Cause",
    "Consumer",
    "DeadLetter",
    "DeadLetters",
    "EVENT_TYPES",
    "Event",
    "EventLog",
    "EventType",
    "ExternalIntake",
    "FetchHistory",
    "Handler",
    "LetterState",
    "NewEvent",
    "Relay",
    "current_cause",
    "event_type",
    "external_event",
    "replay",
    "tail",
]
