"""Studies from a YAML document (`kind: Study`), as people write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from penstock.api.tuning.v1 import tuning_service_pb2 as pb
from penstock.errors import InvalidArgument
from penstock.sdk.code import code_source
from penstock.sdk.datasets import to_struct

if TYPE_CHECKING:
    from penstock.sdk.client import Client

KNOWN = {
    "kind", "name", "dataset", "algorithm", "code", "command", "parameters", "space", "objective", "trials",
    "parallelism", "sampler", "model", "resources",
}  # fmt: skip


def parse_space(space: Any) -> list[pb.ParameterSpace]:
    """`{learning_rate: {float: [0.001, 1], log: true}, depth: {int: [2, 8]}, kind: {categorical: [a, b]}}`."""
    if not isinstance(space, Mapping) or not space:
        raise InvalidArgument("A study needs a `space` with at least one parameter.", field="space")
    return [_parameter(str(name), rule) for name, rule in space.items()]


def _parameter(name: str, rule: Any) -> pb.ParameterSpace:
    field = f"space.{name}"
    kinds = [kind for kind in ("float", "int", "categorical") if isinstance(rule, Mapping) and kind in rule]
    if len(kinds) != 1 or set(rule) - {kinds[0], "log"}:
        raise InvalidArgument(
            f"{field} must be one of {{float: [low, high]}}, {{int: [low, high]}} (each with log: true if wanted), "
            "{categorical: [values]}.",
            field=field,
        )
    kind, values = kinds[0], rule[kinds[0]]
    if kind == "categorical":
        if not isinstance(values, list) or not values:
            raise InvalidArgument(f"{field}.categorical must be a list of at least one value.", field=field)
        return json_format.ParseDict({"name": name, "categorical": {"values": values}}, pb.ParameterSpace())
    numbers = (
        isinstance(values, list)
        and len(values) == 2
        and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    )
    if not numbers or (kind == "int" and any(int(v) != v for v in values)):
        raise InvalidArgument(
            f"{field}.{kind} must be [low, high] with {'whole ' * (kind == 'int')}numbers.", field=field
        )
    low, high, log = values[0], values[1], bool(rule.get("log", False))
    if kind == "int":
        return pb.ParameterSpace(name=name, int=pb.IntRange(low=int(low), high=int(high), log=log))
    return pb.ParameterSpace(name=name, float=pb.FloatRange(low=low, high=high, log=log))


def parse_objective(objective: Any) -> pb.Objective:
    """`{metric: accuracy, direction: maximize}`."""
    direction = str(objective.get("direction", "maximize")).upper() if isinstance(objective, Mapping) else ""
    if not isinstance(objective, Mapping) or not objective.get("metric") or direction not in ("MAXIMIZE", "MINIMIZE"):
        raise InvalidArgument("`objective` must be {metric: NAME, direction: maximize|minimize}.", field="objective")
    return pb.Objective(metric=objective["metric"], direction=pb.Objective.Direction.Value(direction))


def parse_sampler(sampler: Any) -> pb.Sampler:
    """`{kind: tpe|random, seed: 1}`, or nothing."""
    sampler = sampler or {}
    kind = str(sampler.get("kind", "tpe")).upper()
    if kind not in ("TPE", "RANDOM"):
        raise InvalidArgument(f"sampler.kind is tpe or random, not '{sampler.get('kind')}'.", field="sampler.kind")
    return pb.Sampler(kind=pb.Sampler.Kind.Value(kind), seed=int(sampler.get("seed", 0)))


def parse_study(client: Client, document: Any) -> tuple[str, pb.Study]:
    """The study id (may be empty) and the study of a YAML document; raises InvalidArgument naming the field."""
    if not isinstance(document, Mapping) or document.get("kind") != "Study":
        raise InvalidArgument("The file must be a YAML mapping with `kind: Study`.", field="kind")
    unknown = set(document) - KNOWN
    if unknown:
        raise InvalidArgument(
            f"Unknown field '{sorted(unknown)[0]}'; known: {', '.join(sorted(KNOWN))}.", field=sorted(unknown)[0]
        )
    dataset, _, number = str(document.get("dataset", "")).partition("@")
    if not dataset:
        raise InvalidArgument("A study needs `dataset: NAME@N`.", field="dataset")
    algorithm, code = document.get("algorithm"), document.get("code")
    if bool(algorithm) == bool(code):
        raise InvalidArgument("A study needs either `algorithm` or `code`.", field="algorithm")
    study = pb.Study(
        dataset_version=client.dataset(dataset).version_name(int(number) if number else None),
        command=list(document.get("command", [])),
        parameters=to_struct(document.get("parameters") or {}),
        space=parse_space(document.get("space")),
        objective=parse_objective(document.get("objective")),
        max_trials=int(document.get("trials", 20)),
        parallelism=int(document.get("parallelism", 1)),
        sampler=parse_sampler(document.get("sampler")),
        model=str(document.get("model", dataset)),
    )
    if algorithm:
        study.code.algorithm = algorithm
    else:
        study.code.CopyFrom(code_source(client, str(code)))
    return str(document.get("name", "")), study
