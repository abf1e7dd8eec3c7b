"""Paging, masks, structs and request ids, on the API's own messages."""

from __future__ import annotations

import base64
import math
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import given
from hypothesis import strategies as st

from penstock.api.dataset.v1.dataset_service_pb2 import CreateDatasetRequest, Dataset, ListRecordsRequest
from penstock.api.training.v1.training_service_pb2 import Run
from penstock.errors import InvalidArgument
from penstock.rpc import paging
from penstock.rpc.caller import Caller, set_caller
from penstock.rpc.keys import Keys
from penstock.rpc.masks import apply_field_mask
from penstock.rpc.request_ids import request_id, resource_id
from penstock.rpc.structs import from_struct, to_struct

REQUEST = ListRecordsRequest(parent="projects/vision/datasets/digits", filter="label = '3'", page_size=10)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_structs_give_back_what_went_in(values: dict[str, Any]) -> None:
    assert from_struct(to_struct(values)) == values


@pytest.mark.parametrize("bad", [math.nan, math.inf, 2**60, b"bytes", object()])
def test_structs_refuse_what_json_cannot_say_and_name_where(bad: object) -> None:
    with pytest.raises(InvalidArgument) as caught:
        to_struct({"a": [1, {"b": bad}]}, field="parameters")
    assert caught.value.violations[0].field == "parameters.a[1].b"


def test_whole_numbers_come_back_as_int() -> None:
    values = from_struct(to_struct({"trees": 100.0, "rate": 0.5}))
    assert values == {"trees": 100, "rate": 0.5} and isinstance(values["trees"], int)


@given(st.lists(st.text() | st.integers(), max_size=3))
def test_page_tokens_give_back_the_position_even_when_the_page_size_changes(position: list[Any]) -> None:
    token = paging.encode_token(position, REQUEST)
    later = ListRecordsRequest()
    later.CopyFrom(REQUEST)
    later.page_size, later.page_token = 500, token
    assert paging.decode_token(token, later) == position


def test_a_page_token_is_good_for_its_own_request_only() -> None:
    token = paging.encode_token("k", REQUEST)
    other = ListRecordsRequest(parent=REQUEST.parent, filter="label = '4'")
    for request, text in ((other, token), (REQUEST, "junk!"), (REQUEST, "e30"), (REQUEST, token[:-4])):
        with pytest.raises(InvalidArgument) as caught:
            paging.decode_token(text, request)
        assert caught.value.violations[0].field == "page_token"
    assert paging.decode_token("", REQUEST) is None and paging.encode_token(None, REQUEST) == ""


def test_a_position_cannot_be_made_up_or_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    token = paging.encode_token(["k", 1], REQUEST)
    sealed = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    forged = base64.urlsafe_b64encode(sealed[:16] + b'["k",9]').decode().rstrip("=")
    with pytest.raises(InvalidArgument):
        paging.decode_token(forged, REQUEST)
    monkeypatch.setattr(paging, "_seal", lambda body, request: sealed[:16])  # without the mechanism it would pass
    assert paging.decode_token(forged, REQUEST) == ["k", 9]


def test_page_tokens_outlive_a_restart_and_not_a_change_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Keys.generate()
    monkeypatch.setattr(paging, "_key", b"")
    paging.seal_with(keys.derived("page tokens"))
    token = paging.encode_token("k", REQUEST)
    paging.seal_with(Keys(keys.live).derived("page tokens"))
    assert paging.decode_token(token, REQUEST) == "k"
    for other in (keys.derived("something else"), Keys.generate().derived("page tokens")):
        paging.seal_with(other)
        with pytest.raises(InvalidArgument):
            paging.decode_token(token, REQUEST)


def test_page_sizes_have_a_default_and_a_maximum() -> None:
    assert [paging.page_size(asked) for asked in (0, 7, 1000, 5000)] == [50, 7, 1000, 1000]
    with pytest.raises(InvalidArgument):
        paging.page_size(-1)


CURRENT = Dataset(name="projects/vision/datasets/digits", description="old", key_field="id", etag="e1")


def test_a_mask_takes_only_its_fields() -> None:
    patch = Dataset(description="new", key_field="key")
    assert apply_field_mask(FieldMask(paths=["description"]), patch, CURRENT).key_field == "id"
    assert apply_field_mask(FieldMask(), patch, CURRENT).description == "new"
    cleared = apply_field_mask(FieldMask(paths=["description"]), Dataset(), CURRENT)
    assert cleared.description == "" and CURRENT.description == "old"


def test_a_full_mask_replaces_all_but_the_name_and_what_only_the_server_writes() -> None:
    changed = apply_field_mask(FieldMask(paths=["*"]), Dataset(name="projects/x/datasets/y"), CURRENT)
    assert (changed.name, changed.description) == (CURRENT.name, "")


def test_a_mask_goes_into_messages_but_not_into_what_has_no_fields() -> None:
    run = Run(model="digits")
    run.code.algorithm = "mlp"
    patch = Run()
    patch.code.algorithm = "logistic"
    assert apply_field_mask(FieldMask(paths=["code.algorithm"]), patch, run).code.algorithm == "logistic"
    with pytest.raises(InvalidArgument, match="no fields of its own"):
        apply_field_mask(FieldMask(paths=["model.x"]), patch, run)


def test_an_unknown_path_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidArgument, match=r"'colour' is not a field of Dataset. It has: .*description"):
        apply_field_mask(FieldMask(paths=["colour"]), Dataset(), CURRENT)


def test_request_ids_make_creates_idempotent_per_caller_and_project() -> None:
    request = CreateDatasetRequest(request_id="abc")
    set_caller(Caller("ann", "vision", "editor", "t"))
    mine = resource_id(request, "vision")
    assert mine == resource_id(request, "vision") != resource_id(request, "other")
    assert resource_id(CreateDatasetRequest(), "vision") != resource_id(CreateDatasetRequest(), "vision")
    set_caller(Caller("bob", "vision", "editor", "t"))
    assert resource_id(request, "vision") != mine
    set_caller(None)
    for bad in ("with space", "ü", "x" * 129):
        with pytest.raises(InvalidArgument):
            request_id(CreateDatasetRequest(request_id=bad))
