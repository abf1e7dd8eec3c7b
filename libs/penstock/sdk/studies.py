"""Studies from a YAML document (`kind: Study`), as people write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from penstock.api.training.v1 import training_service_pb2 as training_pb
from penstock.api.tuning.v1 import tuning_service_pb2 as pb
from penstock.errors import InvalidArgument
from penstock.rpc.structs import to_value
from penstock.sdk.code import code_source
from penstock.sdk.documents import check_fields, parse_command, parse_flag, parse_mapping, parse_text, parse_whole
from penstock.sdk.references import versioned

if TYPE_CHECKING:
    from penstock.sdk.client import Client

KNOWN = {
    "kind", "name", "dataset", "algorithm", "code", "command", "parameters", "space", "objective", "trials",
    "parallelism", "sampler", "model", "resources",
}  # fmt: skip
_EXACT = 2**53  # whole numbers up to here are the same in JSON
_LARGEST = 1e308


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
        choices = [to_value(value, field=f"{field}.categorical[{index}]") for index, value in enumerate(values)]
        return pb.ParameterSpace(name=name, categorical=pb.Categories(values=choices))
    numbers = (
        isinstance(values, list)
        and len(values) == 2
        and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    )
    largest = _EXACT if kind == "int" else _LARGEST
    if (
        not numbers
        or not all(-largest <= value <= largest for value in values)
        or (kind == "int" and any(int(value) != value for value in values))
    ):
        whole = f"whole numbers up to {_EXACT:,}" if kind == "int" else "numbers"
        raise InvalidArgument(f"{field}.{kind} must be [low, high] with {whole}.", field=field)
    low, high, log = values[0], values[1], parse_flag(rule.get("log", False), f"{field}.log")
    if kind == "int":
        return pb.ParameterSpace(name=name, int=pb.IntRange(low=int(low), high=int(high), log=log))
    return pb.ParameterSpace(name=name, float=pb.FloatRange(low=low, high=high, log=log))


def parse_objective(objective: Any) -> pb.Objective:
    """`{metric: accuracy, direction: maximize}`."""
    direction = str(objective.get("direction", "maximize")).upper() if isinstance(objective, Mapping) else ""
    if not isinstance(objective, Mapping) or not objective.get("metric") or direction not in ("MAXIMIZE", "MINIMIZE"):
        raise InvalidArgument("`objective` must be {metric: NAME, direction: maximize|minimize}.", field="objective")
    metric = parse_text(objective["metric"], "objective.metric")
    return pb.Objective(metric=metric, direction=pb.Objective.Direction.Value(direction))


def parse_sampler(sampler: Any) -> pb.Sampler:
    """`{kind: tpe|random, seed: 1}`, or nothing."""
    sampler = sampler or {}
    if not isinstance(sampler, Mapping):
        raise InvalidArgument("`sampler` must be {kind: tpe|random, seed: NUMBER}.", field="sampler")
    kind = str(sampler.get("kind", "tpe")).upper()
    if kind not in ("TPE", "RANDOM"):
        raise InvalidArgument(f"sampler.kind is tpe or random, not '{sampler.get('kind')}'.", field="sampler.kind")
    return pb.Sampler(kind=pb.Sampler.Kind.Value(kind), seed=parse_whole(sampler.get("seed", 0), "sampler.seed"))


def parse_study(client: Client, document: Any) -> tuple[str, pb.Study]:
    """The study id (may be empty) and the study of a YAML document; raises InvalidArgument naming the field."""
    if not isinstance(document, Mapping) or document.get("kind") != "Study":
        raise InvalidArgument("The file must be a YAML mapping with `kind: Study`.", field="kind")
    document = {str(key): value for key, value in document.items()}
    check_fields(document, KNOWN)
    dataset, number = versioned(parse_text(document.get("dataset"), "dataset"), "dataset")
    if not dataset:
        raise InvalidArgument("A study needs `dataset: NAME@N`.", field="dataset")
    algorithm, code = document.get("algorithm"), document.get("code")
    if bool(algorithm) == bool(code):
        raise InvalidArgument("A study needs either `algorithm` or `code`.", field="algorithm")
    study = pb.Study(
        command=_command(document.get("command")),
        parameters=parse_mapping(document.get("parameters"), "parameters"),
        space=parse_space(document.get("space")),
        objective=parse_objective(document.get("objective")),
        max_trials=parse_whole(document.get("trials", 20), "trials"),
        parallelism=parse_whole(document.get("parallelism", 1), "parallelism"),
        sampler=parse_sampler(document.get("sampler")),
        model=parse_text(document.get("model", dataset), "model"),
        resources=_resources(document.get("resources")),
    )
    # What asks the platform, or sends it something, comes when all the rest is right.
    study.dataset_version = client.dataset(dataset).version_name(number)
    if algorithm:
        study.code.algorithm = parse_text(algorithm, "algorithm")
    else:
        study.code.CopyFrom(code_source(client, parse_text(code, "code")))
    return parse_text(document.get("name"), "name"), study


def _command(value: Any) -> list[str]:
    """A list of words, or a line that is split as a shell would."""
    if isinstance(value, str):
        return parse_command(value)
    if value is not None and not isinstance(value, list):
        raise InvalidArgument("`command` must be a line or a list of words.", field="command")
    return [parse_text(word, f"command[{index}]") for index, word in enumerate(value or ())]


def _resources(value: Any) -> training_pb.Resources | None:
    """As in the API's JSON, such as `{cpu: 2, memory: "1073741824", timeout: 600s}`."""
    if value is None:
        return None
    known = training_pb.Resources.DESCRIPTOR.fields_by_name
    if not isinstance(value, Mapping):
        raise InvalidArgument(f"`resources` must be a mapping of {', '.join(known)}.", field="resources")
    resources = training_pb.Resources()
    for name, amount in value.items():
        field = f"resources.{name}"
        if name not in known:
            raise InvalidArgument(f"`resources` has {', '.join(known)}, not '{name}'.", field=field)
        try:
            json_format.ParseDict({name: amount}, resources)
        except (json_format.ParseError, OverflowError, ValueError):
            raise InvalidArgument(
                f"{field}: '{amount}' is not right: cpu is a number of cores, memory one of bytes, timeout as 600s.",
                field=field,
            ) from None
    return resources
