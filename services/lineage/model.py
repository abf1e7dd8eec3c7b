"""What an event adds to the graph: nodes, and edges from what something came from to what came of it. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock import names
from penstock.events import Event
from penstock.store import format_time

EMITTED = "emitted"
EVENT = "event"  # the kind of nodes that stand for events, which connect a pipeline run with its causes


@dataclass(frozen=True)
class Node:
    """Something that has a history; `attributes` are added to those known from earlier events.

    All events about it are of one aggregate; `sequence` is that of the one that says this.
    """

    name: str
    kind: str
    project: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    time: str = ""
    sequence: int = 0


@dataclass(frozen=True)
class Edge:
    """`target` came from `source`."""

    source: str
    target: str
    relation: str


@dataclass(frozen=True)
class Facts:
    """What one event says."""

    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()


def node_of(name: str, event: Event, **attributes: Any) -> Node:
    """A node for a resource, with what an event says of it; empty values are left out."""
    parsed = names.parse(name)
    known = {key: value for key, value in attributes.items() if value not in ("", None, {}, [], ())}
    return Node(name, parsed.kind, parsed.project, known, format_time(event.time), event.sequence)


def _edges(*triples: tuple[str, str, str]) -> tuple[Edge, ...]:
    return tuple(Edge(source, target, relation) for source, target, relation in triples if source and target)


def _text(data: Mapping[str, Any], key: str) -> str:
    return str(data.get(key) or "")


def _version_committed(event: Event) -> Facts:
    d = event.data
    version = _text(d, "version")
    node = node_of(
        version,
        event,
        number=int(d.get("number", 0)),
        message=d.get("message"),
        author=d.get("author"),
        origin=d.get("origin"),
        records=int(d.get("records", 0)),
        added=int(d.get("added", 0)),
        changed=int(d.get("changed", 0)),
        removed=int(d.get("removed", 0)),
        correlation_id=event.correlation_id,
    )
    return Facts((node,))


def _event_node(event: Event) -> Node:
    attributes = {"type": event.type, "correlation_id": event.correlation_id}
    return Node(event.id, EVENT, event.project, attributes, format_time(event.time), event.sequence)


def _run_queued(event: Event) -> Facts:
    d = event.data
    run = _text(d, "run")
    node = node_of(
        run,
        event,
        algorithm=d.get("algorithm"),
        code_source=d.get("codeSource"),
        parameters=d.get("parameters"),
        author=d.get("subject"),
        dataset_version=d.get("datasetVersion"),
        correlation_id=event.correlation_id,
        state="queued",
    )
    return Facts((node,), _edges((_text(d, "datasetVersion"), run, "trained_on"), (_text(d, "trial"), run, "proposed")))


def _run_succeeded(event: Event) -> Facts:
    d = event.data
    node = node_of(
        _text(d, "run"),
        event,
        state="succeeded",
        attempt=d.get("attempt"),
        code_commit=d.get("codeCommit"),
        manifest=d.get("manifest"),
        metrics=d.get("metrics"),
        artifact=d.get("artifact"),
    )
    return Facts((node,))


def _run_ended(event: Event) -> Facts:
    state = event.type.rsplit(".", 1)[1]
    return Facts((node_of(_text(event.data, "run"), event, state=state, reason=event.data.get("reason")),))


def _model_registered(event: Event) -> Facts:
    d = event.data
    version = _text(d, "modelVersion")
    node = node_of(
        version,
        event,
        run=d.get("run"),
        dataset_version=d.get("datasetVersion"),
        metrics=d.get("metrics"),
        artifact=d.get("artifact"),
        correlation_id=event.correlation_id,
    )
    return Facts((node,), _edges((_text(d, "run"), version, "produced"), (_text(d, "study"), version, "selected")))


def _study(event: Event) -> Facts:
    d = event.data
    study = _text(d, "study")
    node = node_of(
        study,
        event,
        state=event.type.rsplit(".", 1)[1],
        best_trial=d.get("bestTrial"),
        best_value=d.get("bestValue"),
        author=d.get("subject"),
        reason=d.get("reason"),
        correlation_id=event.correlation_id,
    )
    return Facts((node,), _edges((_text(d, "datasetVersion"), study, "searched_on")))


def _trial(event: Event) -> Facts:
    d = event.data
    trial = _text(d, "trial")
    node = node_of(
        trial, event, state=event.type.rsplit(".", 1)[1], value=d.get("value"), parameters=d.get("parameters")
    )
    return Facts((node,), _edges((_text(d, "study"), trial, "tried")))


def _evaluation(event: Event) -> Facts:
    d = event.data
    evaluation = _text(d, "evaluation")
    verdict = event.type.rsplit(".", 1)[1] if ".verdict." in event.type else None
    node = node_of(
        evaluation,
        event,
        metrics=d.get("metrics"),
        rule=d.get("rule"),
        verdict=verdict,
        baseline=d.get("baseline"),
        reason=d.get("reason"),
        correlation_id=event.correlation_id,
    )
    model, dataset = _text(d, "modelVersion"), _text(d, "datasetVersion")
    return Facts((node,), _edges((model, evaluation, "evaluated"), (dataset, evaluation, "evaluated_on")))


def _revision(event: Event) -> Facts:
    d = event.data
    revision = _text(d, "revision")
    node = node_of(
        revision,
        event,
        state=event.type.rsplit(".", 1)[1],
        model_version=d.get("modelVersion"),
        previous=d.get("previous"),
        reason=d.get("reason"),
        correlation_id=event.correlation_id,
    )
    return Facts((node,), _edges((_text(d, "modelVersion"), revision, "deployed_as")))


def _pipeline_run_started(event: Event) -> Facts:
    d = event.data
    run = _text(d, "run")
    causes = [str(cause) for cause in d.get("causes", ())]
    node = node_of(run, event, state="started", pipeline=d.get("pipeline"), correlation_id=event.correlation_id)
    return Facts((node,), _edges(*((cause, run, "caused") for cause in causes)))


def _pipeline_step(event: Event) -> Facts:
    d = event.data
    return Facts((), _edges((_text(d, "run"), _text(d, "resource"), "made")))


def _pipeline_run_ended(event: Event) -> Facts:
    d = event.data
    node = node_of(_text(d, "run"), event, state=event.type.rsplit(".", 1)[1], reason=d.get("reason"))
    return Facts((node,))


READERS: Mapping[str, Callable[[Event], Facts]] = {
    "dataset.version.committed": _version_committed,
    "training.run.queued": _run_queued,
    "training.run.succeeded": _run_succeeded,
    "training.run.failed": _run_ended,
    "training.run.cancelled": _run_ended,
    "training.model.registered": _model_registered,
    "tuning.study.started": _study,
    "tuning.study.completed": _study,
    "tuning.study.failed": _study,
    "tuning.trial.completed": _trial,
    "tuning.trial.failed": _trial,
    "evaluation.completed": _evaluation,
    "evaluation.failed": _evaluation,
    "evaluation.verdict.passed": _evaluation,
    "evaluation.verdict.failed": _evaluation,
    "serving.revision.ready": _revision,
    "serving.revision.failed": _revision,
    "pipeline.run.started": _pipeline_run_started,
    "pipeline.run.step_ended": _pipeline_step,
    "pipeline.run.succeeded": _pipeline_run_ended,
    "pipeline.run.failed": _pipeline_run_ended,
    "pipeline.run.cancelled": _pipeline_run_ended,
}


def read(event: Event) -> Facts:
    """What an event says; nothing for types that make no history.

    The event itself is a node too: any of them may cause a pipeline run.
    """
    reader = READERS.get(event.type)
    if reader is None:
        return Facts()
    facts = reader(event)
    emitted = tuple(Edge(node.name, event.id, EMITTED) for node in facts.nodes)
    return Facts((*facts.nodes, _event_node(event)), (*facts.edges, *emitted)) if emitted else facts


def without_idle_events(edges: Sequence[Edge]) -> list[Edge]:
    """Edges without those to events that caused nothing."""
    sources = {edge.source for edge in edges}
    return [edge for edge in edges if edge.relation != EMITTED or edge.target in sources]


def inside(name: str, project: str) -> bool:
    """Whether a node is a project's. Names of causes come from outside too, and could name anything."""
    return name.startswith(f"projects/{project}/") or not name.startswith("projects/")


def unique(edges: Iterable[Edge]) -> list[Edge]:
    """Edges without repetitions, in their order."""
    return list(dict.fromkeys(edges))
