"""What a step may be told, and what of it can never work: known when a pipeline is applied, before an event comes.

Settings with a `${…}` are known only when the step begins; those are left for then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from penstock import names
from penstock.algorithms.catalogue import CATALOGUE, EVALUATION_METRICS, Algorithm
from penstock.errors import InvalidArgument
from penstock.expressions import InvalidExpression, variables_of
from penstock.sdk.documents import parse_duration, parse_mapping, parse_text, parse_whole, parse_wholes
from penstock.sdk.studies import parse_objective, parse_sampler, parse_space

ACTIONS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    # action -> (settings it must have, settings it may have)
    "train": (frozenset({"dataset", "algorithm"}), frozenset({"parameters", "model"})),
    "tune": (
        frozenset({"dataset", "algorithm", "space", "objective"}),
        frozenset({"parameters", "trials", "parallelism", "sampler", "model"}),
    ),
    "evaluate": (frozenset({"model", "dataset"}), frozenset({"rule", "baseline"})),
    "deploy": (frozenset({"endpoint", "model"}), frozenset({"steps", "hold"})),
}
OUTPUTS: dict[str, frozenset[str]] = {
    # action -> what later steps may refer to, with what every step gives
    "train": frozenset({"run", "model_version", "metrics", "resource", "state"}),
    "tune": frozenset({"study", "model_version", "best_trial", "best_value", "resource", "state"}),
    "evaluate": frozenset({"evaluation", "passed", "metrics", "verdict", "resource", "state"}),
    "deploy": frozenset({"revision", "model_version", "resource", "state"}),
}
_TRAINERS = {name: found for name, found in CATALOGUE.items() if found.kind == "trainer"}
_WHOLE = 100  # per cent
_BASELINE = "baseline"  # in a rule: what the model is compared with


def check_settings(action: str, settings: Mapping[str, Any], field: str) -> None:
    """Raise InvalidArgument, naming it, for an unknown action, or a setting that is missing, unknown or of no use."""
    if action not in ACTIONS:
        raise InvalidArgument(f"{field}: '{action}' is none of {', '.join(ACTIONS)}.", field=f"{field}.action")
    needed, possible = ACTIONS[action]
    for name in sorted(needed - set(settings)):
        raise InvalidArgument(f"{field}: a {action} step needs `{name}`.", field=f"{field}.{action}.{name}")
    for name in sorted(set(settings) - needed - possible):
        known = ", ".join(sorted(needed | possible))
        raise InvalidArgument(
            f"{field}: a {action} step has no `{name}`; it has {known}.", field=f"{field}.{action}.{name}"
        )
    for name, value in settings.items():
        # What is optional and left empty is as if it were not there.
        if not has_reference(value) and (value or name in needed or name == "hold"):
            _CHECKS[action][name](value, f"{field}.{action}.{name}")
    if action in ("train", "tune"):
        _check_parameters(settings, f"{field}.{action}")


def has_reference(value: Any) -> bool:
    """Whether any text in a value is one with a `${`."""
    if isinstance(value, Mapping):
        return any(has_reference(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return any(has_reference(item) for item in value)
    return isinstance(value, str) and "${" in value


def _id(value: Any, field: str) -> None:
    names.check_id(parse_text(value, field), field)


def _version(kind: str) -> Callable[[Any, str], None]:
    """`digits@3`, `digits` or a full name."""

    def check(value: Any, field: str) -> None:
        text = parse_text(value, field)
        if text.startswith("projects/"):
            names.parse(text, kind=kind, field=field)
            return
        base, _, number = text.partition("@")
        names.check_id(base, field)
        if number:
            names.parse(names.build(kind, "p", base, number), field=field)

    return check


def _endpoint(value: Any, field: str) -> None:
    text = parse_text(value, field)
    if text.startswith("projects/"):
        names.parse(text, kind="endpoint", field=field)
    else:
        names.check_id(text, field)


def _baseline(value: Any, field: str) -> None:
    """A model version, or an endpoint; of a full name, the service that compares knows which."""
    text = parse_text(value, field)
    if text.startswith("projects/"):
        names.parse(text, field=field)
    elif "@" in text:
        _version("model_version")(text, field)
    else:
        names.check_id(text, field)


def _algorithm(value: Any, field: str) -> None:
    if parse_text(value, field) not in _TRAINERS:
        raise InvalidArgument(
            f"{field}: there is no built-in algorithm '{value}'; there are {', '.join(_TRAINERS)}.", field=field
        )


def _rule(value: Any, field: str) -> None:
    try:
        unknown = sorted(variables_of(parse_text(value, field)) - {*EVALUATION_METRICS, _BASELINE})
    except InvalidExpression as error:
        raise InvalidArgument(f"{field} is not CEL: {error}", field=field) from None
    if unknown:
        known = ", ".join(EVALUATION_METRICS)
        raise InvalidArgument(f"{field} names '{unknown[0]}'; there are {known}, and {_BASELINE}.", field=field)


def _steps(value: Any, field: str) -> None:
    steps = parse_wholes(value, field)
    ascending = all(before < after for before, after in zip([0, *steps], steps, strict=False))
    if steps and (not ascending or steps[-1] != _WHOLE):
        raise InvalidArgument(f"{field} are ascending per cents that end with 100, such as [10, 50, 100].", field=field)


def _document(parse: Callable[[Any], object]) -> Callable[[Any, str], None]:
    """A part of a study, whose errors name fields from that part on."""

    def check(value: Any, field: str) -> None:
        try:
            parse(value)
        except InvalidArgument as error:
            within = error.violations[0].field.partition(".")[2]
            raise InvalidArgument(f"{field}: {error.message}", field=f"{field}.{within}" if within else field) from None

    return check


def _parsed(parse: Callable[[Any, str], object]) -> Callable[[Any, str], None]:
    def check(value: Any, field: str) -> None:
        parse(value, field)

    return check


_TRAINING = {
    "dataset": _version("dataset_version"),
    "algorithm": _algorithm,
    "parameters": _parsed(parse_mapping),
    "model": _id,
}
_CHECKS: dict[str, Mapping[str, Callable[[Any, str], None]]] = {
    "train": _TRAINING,
    "tune": {
        **_TRAINING,
        "space": _document(parse_space),
        "objective": _document(parse_objective),
        "sampler": _document(parse_sampler),
        "trials": _parsed(parse_whole),
        "parallelism": _parsed(parse_whole),
    },
    "evaluate": {
        "model": _version("model_version"),
        "dataset": _version("dataset_version"),
        "rule": _rule,
        "baseline": _baseline,
    },
    "deploy": {
        "endpoint": _endpoint,
        "model": _version("model_version"),
        "steps": _steps,
        "hold": _parsed(parse_duration),
    },
}


def _check_parameters(settings: Mapping[str, Any], field: str) -> None:
    """The parameters that the algorithm has: names always, values where they are known."""
    algorithm: Algorithm | None = _TRAINERS.get(str(settings["algorithm"]))
    if algorithm is None:  # it is known only when the step begins
        return
    given, space = settings.get("parameters"), settings.get("space")
    if isinstance(given, Mapping):
        known = {name: None if has_reference(value) else value for name, value in given.items()}
        algorithm.parse(known, prefix=f"{field}.parameters")
    if isinstance(space, Mapping):
        for name in space:
            algorithm.parameter(name, prefix=f"{field}.space")
