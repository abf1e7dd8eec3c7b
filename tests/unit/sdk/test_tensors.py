"""Bodies of prediction requests: what no model could take is refused by the field's name."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.errors import InvalidArgument
from penstock.sdk.tensors import check_request

INPUT = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [[1, 2.5], [3, 4]]}


def body(**changed: Any) -> dict[str, Any]:
    return {"inputs": [INPUT, {**INPUT, **changed}]}


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"data": (1, 2, 3, 4)},
        {"data": [1, 2, 3, float("nan")]},
        {"datatype": "BYTES", "data": ["a", "b", "c", "d"]},
        {"datatype": "BOOL", "data": [True, False, True, True]},
        {"datatype": "UINT8", "shape": [0], "data": []},
        {"datatype": "INT64", "shape": [], "data": [7], "parameters": {"a": 1}},
    ],
)
def test_what_a_model_may_take_is_let_through(changed: dict[str, Any]) -> None:
    check_request({**body(**changed), "outputs": [{"name": "y"}], "id": "1"})


@pytest.mark.parametrize(
    ("request_body", "field"),
    [
        ({}, "inputs"),
        ([1], "inputs"),
        (None, "inputs"),
        ({"inputs": {}}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": [INPUT, 3]}, "inputs[1]"),
        ({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32"}]}, "inputs[0].data"),
        (body(name=3), "inputs[1].name"),
        (body(shape=4), "inputs[1].shape"),
        (body(shape=[-1, 4]), "inputs[1].shape"),
        (body(shape=["4"]), "inputs[1].shape"),
        (body(datatype="FLOAT"), "inputs[1].datatype"),
        (body(datatype=["FP32"]), "inputs[1].datatype"),
        (body(data="1234"), "inputs[1].data"),
        (body(data=[1, 2, 3]), "inputs[1].data"),
        (body(data=[1, 2, 3, "4"]), "inputs[1].data"),
        (body(data=[1, 2, 3, None]), "inputs[1].data"),
        (body(data=[1, 2, 3, True]), "inputs[1].data"),
        (body(datatype="INT32", data=[1, 2, 3, 4.5]), "inputs[1].data"),
        (body(datatype="BYTES"), "inputs[1].data"),
        ({**body(), "outputs": "y"}, "outputs"),
        ({**body(), "outputs": [{"parameters": {"binary_data": True}}]}, "outputs[0].parameters.binary_data"),
        ({**body(), "parameters": {"binary_data_output": True}}, "parameters.binary_data_output"),
    ],
)  # fmt: skip
def test_what_no_model_could_take_is_refused_by_its_field(request_body: Any, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_request(request_body)
    assert caught.value.violations[0].field == field
