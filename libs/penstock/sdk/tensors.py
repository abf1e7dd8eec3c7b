"""The body of a KServe v2 request in JSON, looked at before it is sent: a model server tells less, and later."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from penstock.errors import InvalidArgument


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_whole(value) or isinstance(value, float)  # NaN too: it stands for a missing number


_WHOLE = {f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)}
# datatype -> (what its elements are, in words, and the test of one)
_ELEMENTS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "BOOL": ("true or false", lambda value: isinstance(value, (bool, int))),
    "BYTES": ("texts", lambda value: isinstance(value, str)),
    **{name: ("whole numbers", _is_whole) for name in sorted(_WHOLE)},
    **{name: ("numbers", _is_number) for name in ("FP16", "BF16", "FP32", "FP64")},
}


def check_request(body: Any) -> None:
    """Raise InvalidArgument, naming the field (`inputs[0].data`), for what is no KServe v2 request in JSON."""
    inputs = body.get("inputs") if isinstance(body, Mapping) else None
    if not _is_list(inputs) or not inputs:
        raise InvalidArgument(
            'The request must be an object like {"inputs": [{"name", "shape", "datatype", "data"}]}.', field="inputs"
        )
    for index, tensor in enumerate(inputs):
        _check_input(tensor, f"inputs[{index}]")
    _check_outputs(body)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _check_input(tensor: Any, field: str) -> None:
    if not isinstance(tensor, Mapping):
        raise InvalidArgument(f"{field} must be an object with name, shape, datatype and data.", field=field)
    for name in ("name", "shape", "datatype", "data"):
        if name not in tensor:
            raise InvalidArgument(f"{field} has no `{name}`.", field=f"{field}.{name}")
    if not isinstance(tensor["name"], str):
        raise InvalidArgument(f"{field}.name must be a text.", field=f"{field}.name")
    shape, datatype, data = tensor["shape"], tensor["datatype"], tensor["data"]
    if not _is_list(shape) or not all(_is_whole(size) and size >= 0 for size in shape):
        raise InvalidArgument(f"{field}.shape must be a list of sizes such as [1, 64].", field=f"{field}.shape")
    words, fits = _ELEMENTS.get(datatype, ("", None)) if isinstance(datatype, str) else ("", None)
    if fits is None:
        known = ", ".join(_ELEMENTS)
        raise InvalidArgument(f"{field}.datatype '{datatype}' is none of {known}.", field=f"{field}.datatype")
    if not _is_list(data):
        raise InvalidArgument(f"{field}.data must be a list of {words}.", field=f"{field}.data")
    elements = list(_flat(data))
    wrong = next((value for value in elements if not fits(value)), None)
    if wrong is not None or None in elements:
        raise InvalidArgument(
            f"{field}.data must hold {words} for {datatype}, not {wrong!r:.80}.", field=f"{field}.data"
        )
    if len(elements) != math.prod(shape):
        raise InvalidArgument(
            f"{field}.data has {len(elements)} values, its shape {list(shape)} takes {math.prod(shape)}.",
            field=f"{field}.data",
        )


def _flat(data: Sequence[Any]) -> Iterator[Any]:
    """The elements of lists in lists, row by row."""
    for value in data:
        if _is_list(value):
            yield from _flat(value)
        else:
            yield value


def _check_outputs(body: Mapping[str, Any]) -> None:
    """The answer is read as JSON."""
    outputs = body.get("outputs", [])
    if not _is_list(outputs) or not all(isinstance(tensor, Mapping) for tensor in outputs):
        raise InvalidArgument('outputs must be a list of objects like {"name"}.', field="outputs")
    asked = [(body, "binary_data_output", "parameters")]
    asked += [(tensor, "binary_data", f"outputs[{index}].parameters") for index, tensor in enumerate(outputs)]
    for holder, name, field in asked:
        parameters = holder.get("parameters")
        if isinstance(parameters, Mapping) and parameters.get(name):
            raise InvalidArgument(f"{field}.{name}: answers are read as JSON here.", field=f"{field}.{name}")
