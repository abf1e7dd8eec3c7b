"""Files in, records or a clear error out. The chunks are tiny, so that everything straddles them."""

from __future__ import annotations

import datetime
import io
import json
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.objects import ObjectStore
from penstock.store import now
from services.dataset.imports import Format, Import
from services.dataset.ingest import Staging, read_part
from services.dataset.ingest.rows import BadFile


def stage(
    objects: ObjectStore, content: bytes | str, format: str, *, chunk: int = 0, **fields: Any
) -> tuple[dict[str, Any], int]:
    """The records by key, and how many values were missing as NaN."""
    raw = content.encode() if isinstance(content, str) else content
    size = chunk or max(7, len(raw) // 40)
    chunks = [raw[at : at + size] for at in range(0, len(raw), size)]
    digests = tuple(objects.put_bytes(chunk).digest for chunk in chunks)
    spec = Import(
        "projects/p/datasets/d", "i", "ana", "file", Format(format), "id", len(raw), now(),
        chunks=digests, chunk_sizes=tuple(map(len, chunks)), **fields,
    )  # fmt: skip
    staging = Staging(objects, spec)
    found: dict[str, Any] = {}
    while (part := staging.next_part()) is not None:
        rows = read_part(objects, part.digest)
        found |= {key: json.loads(text or "") for key, text in zip(rows.keys, rows.texts, strict=True)}
    return found, staging.missing


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    return ObjectStore.open(tmp_path.as_uri())


def parquet(**columns: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def test_csv_types_are_those_of_the_whole_column(objects: ObjectStore) -> None:
    text = (
        "\ufeffid,int,float,zip,mixed,flag,day,note,empty,long\r\n"
        '7,1,1.5,01234,1,true,2024-01-01,"two\nlines",,99999999999999999999\r\n'
        '008,-2,NaN,94110,x,False,12:30,"say ""hi""",,1\r\n'
        'x,,2,,,,,5" pipe,,\r\n'
    )
    found, missing = stage(objects, text, "csv")
    assert missing == 1
    assert found == {
        "7": {
            "id": "7", "int": 1, "float": 1.5, "zip": "01234", "mixed": "1", "flag": True, "day": "2024-01-01",
            "note": "two\nlines", "long": "99999999999999999999",
        },
        "008": {
            "id": "008", "int": -2, "zip": "94110", "mixed": "x", "flag": False, "day": "12:30", "note": 'say "hi"',
            "long": "1",
        },
        "x": {"id": "x", "float": 2, "note": '5" pipe'},
    }  # fmt: skip


def test_csv_marks_of_missing_numbers_are_missing_in_numbers_and_text_in_text(objects: ObjectStore) -> None:
    found, _ = stage(objects, "id,n,country\na,1,NA\nb,NA,SE\n", "csv")
    assert found == {"a": {"id": "a", "n": 1, "country": "NA"}, "b": {"id": "b", "country": "SE"}}


def test_csv_of_many_blocks(objects: ObjectStore) -> None:
    rng = random.Random(1)
    rows = {str(n): {"id": str(n), "x": n, "t": "y" * rng.randrange(40)} for n in range(12_000)}
    lines = "".join(f"{r['id']},{r['x']},{r['t']}\n" for r in rows.values())
    found, _ = stage(objects, "id,x,t\n" + lines, "csv")
    assert found == {key: {name: v for name, v in row.items() if v != ""} for key, row in rows.items()}


def test_jsonl_keeps_what_json_says(objects: ObjectStore) -> None:
    lines = [
        '{"id": "a", "n": NaN, "l": [NaN, 1.0], "o": {"x": NaN, "y": null}, "gone": null}',
        "",
        '{"id": 2, "big": 9223372036854775807, "small": -9223372036854775808, "$set": {"a.b": []}}',
    ]
    found, missing = stage(objects, "\n".join(lines), "jsonl")
    assert missing == 3
    assert found == {
        "a": {"id": "a", "l": [None, 1], "o": {"y": None}},
        "2": {"id": 2, "big": 2**63 - 1, "small": -(2**63), "$set": {"a.b": []}},
    }


def test_parquet_of_every_type(objects: ObjectStore) -> None:
    content = parquet(
        id=[1, 2],
        f=[1.5, float("nan")],
        day=[datetime.date(2024, 1, 1), None],
        at=pa.array([datetime.datetime(2024, 1, 1, 12), None], pa.timestamp("us", "UTC")),
        l=[[1, 2], []],
        s=[{"a": 1}, None],
        m=pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64())),
        d=[Decimal("1.50"), None],
        u=pa.array([2**63 - 1, None], pa.uint64()),
        c=pa.array(["x", "y"]).dictionary_encode(),
    )
    found, missing = stage(objects, content, "parquet")
    assert missing == 1
    assert found == {
        "1": {
            "id": 1, "f": 1.5, "day": "2024-01-01", "at": "2024-01-01T12:00:00+00:00", "l": [1, 2], "s": {"a": 1},
            "m": {"k": 1}, "d": "1.50", "u": 2**63 - 1, "c": "x",
        },
        "2": {"id": 2, "l": [], "m": {}, "c": "y"},
    }  # fmt: skip


BAD_CSV = [
    ("id,v\na,1\nb,2,3\n", "line 3: 3 columns instead of 2"),
    ("id,v\na,1\n\n\nb,2\nc\n", "line 6: 1 columns instead of 2"),
    ('id,v\na,1\n"b\nx",2\nc\n', "line 5: 1 columns"),
    ('id,v\na,"1\nb,2\nc,3\n', "line 2: a quoted value does not end"),
    (b"id,v\na,1\nb,\xff\n", "line 3 is not UTF-8"),
    ("id,id\na,1\n", "'id' is there twice"),
    ("id,\na,1\n", "column 2 has no name"),
    ("\n", "empty"),
    ("id,v\n", "holds no records"),
    ("x,v\n1,2\n", "no key column 'id': the columns are x, v"),
    ("id,v\na,1\n,2\n", "line 3: the key field 'id' is missing"),
    ("id,v\na,x\nb,y\n\na,z\n", "key 'a' is there twice: line 2 and line 5"),
    ("id,v\na,1\nb,inf\n", "line 3: field 'v': Infinity"),
    ("id,_key\na,1\n", "line 2: field '_key'"),
]
BAD_JSONL = [
    ('{"id":"a"}\n{"id":"b"', "line 2, column 10"),
    ('{"id":"a"}\n{"id":"b","x":1,"x":2}\n', "line 2: the field 'x' is there twice"),
    ('{"id":"a","in":[{"y":1,"y":1}]}\n', "the field 'y' is there twice"),
    ('{"id":"a"}\n{"id":\n', "line 2, column 7"),
    ('{"id":"a"}\n[1]\n', "line 2 holds a list"),
    ('{"id":"a","v":{"z":[Infinity]}}\n', r"line 1: field 'v.z\[0\]': Infinity"),
    ('{"id":"a","v":1e999}\n', "line 1: field 'v': Infinity"),
    ('{"id":"a","v":9223372036854775808}\n', "line 1: field 'v'.*64 bits"),
    ('{"v":1}\n', "line 1: the key field 'id' is missing; the fields are v"),
    ('{"id":1.5}\n', "line 1: field 'id'"),
    ('{"id":""}\n', "line 1: field 'id'"),
    ('{"id":"%s"}\n' % ("x" * 1025), "1024 bytes"),
    ('{"id":"a"}\n\n{"id":"a"}\n', "key 'a' is there twice: line 1 and line 3"),
    ('{"id":1}\n{"id":"1"}\n', "key '1' is there twice"),
    ('{"id":"a","x":"\\ud800"}\n', "surrogate"),
    ('{"id":"a","x":' + "[" * 40 + "]" * 40 + "}\n", "nested deeper"),
    ('{"id":"a","x":' + "[" * 200_000 + "]" * 200_000 + "}\n", "nested too deeply"),
    (b'{"id":"\xff"}\n', "line 1 is not UTF-8"),
    ("1" * 6000, "line 1: .*digits"),
    (b'{"id":"a","v":"' + b"x" * (17 << 20) + b'"}\n', "line 1 is longer than"),
]
WHOLE = parquet(id=[str(n) for n in range(5000)])
BAD_PARQUET: list[tuple[bytes, str]] = [
    (b"hello", "damaged or not Parquet"),
    (WHOLE[:-4] + b"XXXX", "damaged or not Parquet"),
    (WHOLE[: len(WHOLE) // 2], "damaged or not Parquet"),
    (WHOLE[:200] + bytes(60) + WHOLE[260:], "damaged or not Parquet"),
    (parquet(id=["a"], b=[b"x"]), "column 'b' is binary"),
    (parquet(id=["a"], u=pa.array([2**63], pa.uint64())), "row 1: field 'u'.*64 bits"),
    (parquet(id=["a", "a"]), "key 'a' is there twice: row 1 and row 2"),
    (parquet(id=["a"], at=pa.array([1], pa.timestamp("ns"))), "After row 0, .*Nanosecond"),
    (parquet(id=["a"], at=pa.array([2**50], pa.timestamp("ms"))), "After row 0, "),
    (
        parquet(id=["a"], m=pa.array([[("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int64()))),
        "After row 0, .*[dD]uplicate",
    ),
    (parquet(id=["a", None]), "row 2: the key field 'id' is missing"),
    (parquet(x=["a"]), "no key column 'id'"),
    (parquet(id=["a"], v=[float("inf")]), "row 1: field 'v': Infinity"),
]


@pytest.mark.parametrize(
    ("format", "content", "said"),
    [("csv", *case) for case in BAD_CSV]
    + [("jsonl", *case) for case in BAD_JSONL]
    + [("parquet", *case) for case in BAD_PARQUET],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_a_bad_file_is_refused_with_the_place(objects: ObjectStore, format: str, content: Any, said: str) -> None:
    with pytest.raises(BadFile, match=said):
        stage(objects, content, format)


def test_a_parquet_file_that_unfolds_to_more_than_memory_is_refused(objects: ObjectStore) -> None:
    """A dictionary of one long text, which each row has: some kilobytes, and 4 GB as rows."""
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 2_000, pa.int32()), pa.array(["x" * (2 << 20)]))
    content = parquet(id=[str(number) for number in range(2_000)], v=column)
    assert len(content) < 200_000
    with pytest.raises(BadFile, match="more than the memory"):
        stage(objects, content, "parquet")


def test_parquet_whose_text_is_no_utf8_is_refused(objects: ObjectStore) -> None:
    bad = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"], pa.binary()).buffers())
    with pytest.raises(BadFile, match=r"After row 0, .*utf-8"):
        stage(objects, parquet(id=["a"], v=bad), "parquet")


def test_bytes_that_are_not_those_announced_are_refused(objects: ObjectStore) -> None:
    with pytest.raises(BadFile, match="digest"):
        stage(objects, '{"id":"a"}\n', "jsonl", digest="sha256:" + "0" * 64)


def test_a_label_field_that_no_record_has_is_refused(objects: ObjectStore) -> None:
    with pytest.raises(BadFile, match="label field 'lable'"):
        stage(objects, '{"id":"a","label":1}\n', "jsonl", label_field="lable")


def test_what_is_no_utf8_is_told_by_its_line_however_much_is_read_at_once(objects: ObjectStore) -> None:
    for content, line in ((b"id,v\na,1\nb,\xff\n", 3), (b"id,\xff\na,1\n", 1)):
        with pytest.raises(BadFile, match=f"line {line} is not UTF-8"):
            stage(objects, content, "csv", chunk=1000)
