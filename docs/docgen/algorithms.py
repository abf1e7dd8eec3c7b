"""docs/reference/algorithms.md: the built-in algorithms and their parameters, from the catalogue."""

from __future__ import annotations

from docgen.markdown import item, paragraph
from docgen.markdown import page as make_page
from penstock.algorithms.catalogue import CATALOGUE, Algorithm
from penstock.algorithms.parameters import Parameter

_INTRODUCTION = """Built-in algorithms train with scikit-learn and make an ONNX model that takes the
fields of a record as they are: scaling, missing numbers and the encoding of text are part of the model.
Choose one with `penstock train DATASET --algorithm NAME -p PARAMETER=VALUE`, or in a study or pipeline
with `algorithm` and `parameters`. Own code is described in [Use your own
code](../how-to/use-your-own-code.md)."""

_DATA = """Fields may be numbers (missing ones too), booleans, text, and lists of numbers of equal length,
such as the pixels of a small image. A field of another shape is left out, and the log says so. The label
may be text, a whole number or a boolean; records without a label are left out."""

_TYPES = {
    "bool": "true or false",
    "int": "whole number",
    "float": "number",
    "string": "text",
    "strings": "list of names",
}


def page() -> str:
    """The page."""
    blocks = [paragraph(_DATA)]
    for found in CATALOGUE.values():
        blocks += _algorithm(found)
    return make_page("Algorithms", _INTRODUCTION, *blocks)


def _algorithm(found: Algorithm) -> list[str]:
    use = "started by `penstock evaluate`, not by hand" if found.kind == "evaluator" else "for `penstock train`"
    lines = [item(_parameter(parameter)) for parameter in found.parameters]
    return [
        f"## {found.name}",
        paragraph(f"{found.description} Task: {found.task}; {use}; version {found.version}."),
        "\n".join(lines),
    ]


def _parameter(parameter: Parameter) -> str:
    facts = [_TYPES[parameter.type]]
    if parameter.minimum is not None and parameter.maximum is not None:
        facts.append(f"{_number(parameter.minimum)} to {_number(parameter.maximum)}")
    if parameter.choices:
        facts.append(" or ".join(f"`{choice}`" for choice in parameter.choices))
    facts.append(f"default {_default(parameter)}")
    if parameter.log:
        facts.append("search it on a logarithmic scale")
    return f"`{parameter.name}` ({', '.join(facts)}): {parameter.description}"


def _default(parameter: Parameter) -> str:
    if parameter.default in ("", ()):
        return "empty"
    if isinstance(parameter.default, bool):
        return str(parameter.default).lower()
    return _number(parameter.default) if isinstance(parameter.default, int | float) else str(parameter.default)


def _number(value: float) -> str:
    return f"{int(value):,}" if float(value).is_integer() else f"{value:g}"
