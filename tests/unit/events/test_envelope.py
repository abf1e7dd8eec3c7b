"""CloudEvents in headers and in the API's message, and back."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import InvalidArgument
from penstock.events import Event, external_event
from penstock.events.envelope import attributes_of, decode, encode
from penstock.events.external_form import decode_external

EVENT = Event(
    id="projects/p/runs/a@7",
    type="training.run.started",
    source="//penstock/training",
    subject="projects/p/runs/a",
    sequence=7,
    time=datetime(2026, 11, 20, 12, 0, 0, 5000, tzinfo=UTC),
    data={"run": "projects/p/runs/a", "attempt": 2, "é": ['"', None]},
    correlation_id="chain",
    causation_id="cause",
    traceparent="00-1-2-01",
    project="p",
)


def test_headers_are_those_of_the_standard() -> None:
    headers, body = encode(EVENT)
    assert headers == {
        "ce-specversion": "1.0",
        "ce-id": "projects/p/runs/a@7",
        "ce-type": "dev.penstock.training.run.started.v1",
        "ce-source": "//penstock/training",
        "ce-subject": "projects/p/runs/a",
        "ce-time": "2026-11-20T12:00:00.005Z",
        "ce-sequence": "7",
        "ce-correlationid": "chain",
        "ce-causationid": "cause",
        "ce-traceparent": "00-1-2-01",
        "content-type": "application/json",
    }
    assert decode(headers, body) == EVENT


def test_the_apis_message_comes_back() -> None:
    assert Event.from_proto(EVENT.to_proto()) == EVENT


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_any_text_survives_as_a_header(text: str) -> None:
    event = external_event("p", {"specversion": "1.0", "id": text, "source": text, "type": f"x.{text}"}, {})
    headers, body = encode(event)
    assert all(value.isascii() and value.isprintable() and " " not in value for value in headers.values())
    found = decode_external("penstock.p.external.s", headers, body)
    assert (found.id, found.source, found.type) == (text, text, f"x.{text}")


@pytest.mark.parametrize("missing", ["ce-id", "ce-sequence", "ce-time", "ce-subject"])
def test_what_is_no_event_is_refused(missing: str) -> None:
    headers, body = encode(EVENT)
    del headers[missing]
    with pytest.raises(InvalidArgument):
        decode(headers, body)


def test_a_body_that_is_no_json_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        decode(encode(EVENT)[0], b"{")


def test_attribute_names_have_no_case() -> None:
    assert attributes_of({"Ce-Id": "a%20b", "X": "y"}) == {"id": "a b"}


@given(
    st.binary(max_size=60), st.dictionaries(st.sampled_from(["ce-id", "ce-type", "content-type"]), st.text(max_size=9))
)
def test_no_message_from_outside_does_more_than_be_refused(body: bytes, headers: dict[str, str]) -> None:
    for given_headers in (headers, {**headers, "content-type": "application/cloudevents+json"}):
        try:
            decode_external("penstock.p.external.s", given_headers, body)
        except InvalidArgument:
            continue
