"""Lists of records: filters and orders over partitions, newer plans and drafts; pages that fit together."""

from __future__ import annotations

import asyncio
import io
import json
import random
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.api.dataset.v1 import dataset_service_pb2 as pb
from penstock.errors import InvalidArgument, PenstockError
from services.dataset.filters import bind, holds, parse
from services.dataset.partitions import manifest as manifests
from services.dataset.query.order import Order, position
from services.dataset.values import Cleaner, Record, row_hash
from tests.support.dataset_platform import Client, DatasetPlatform

Rows = dict[str, Record]
FILTERS = [
    "",
    "n > 3",
    "n >= 2.5 AND NOT has(tags)",
    'mixed = 7 OR mixed:"x"',
    "mixed > 1",
    'NOT mixed = "7"',
    "tags:new",
    "deep.x.y = true",
    "flag",
    "-flag AND word < m",
    'word:"a" OR n = 3',
    '"odd.name" != 1',
    "mixed:*",
    "n != 3",
]
ORDERS = ["", "n", "n desc", "mixed", "mixed desc", "word desc", "flag", "tags"]


def random_record(rng: random.Random, key: str) -> Record:
    record: dict[str, Any] = {"id": key}
    choices: dict[str, Callable[[], Any]] = {
        "n": lambda: rng.choice([0, 1, 2.5, 3, 4, 100]),
        "mixed": lambda: rng.choice([1, 7, "7", "x", "xx", True, None, [7, "x"], {"x": 1}, 2**53]),
        "word": lambda: rng.choice(["a", "bab", "m", "zebra", "é", ""]),
        "tags": lambda: rng.choice([["new"], ["old", "new"], []]),
        "flag": lambda: rng.random() < 0.5,
        "deep": lambda: {"x": {"y": rng.choice([True, False, "true"])}},
        "odd.name": lambda: rng.choice([1, 2]),
    }
    for name, make in choices.items():
        if rng.random() < 0.7:
            record[name] = make()
    return Cleaner().record(record)


def expected(rows: Rows, filter: str, order_by: str) -> list[str]:
    """What a list must give, by Python alone."""
    expression = parse(filter)
    columns = {name for row in rows.values() for name in row}
    if expression is not None:
        bound = bind(expression, columns)
        rows = {key: row for key, row in rows.items() if holds(bound, row)}
    order = Order.parse(order_by)
    places = {key: position(row, key, order, None) for key, row in rows.items()}
    missing = sorted(key for key, place in places.items() if place.rank == 9)
    present = sorted(key for key in places if places[key].rank != 9)
    present.sort(key=lambda key: (places[key].rank, places[key].value), reverse=order.descending)
    return present + missing if order.field else sorted(rows)


async def listed(client: Client, name: str, filter: str, order_by: str, size: int, **fields: Any) -> list[str]:
    """The keys of all pages."""
    records = await client.records(name, page_size=size, filter=filter, order_by=order_by, **fields)
    return [record.key for record in records]


async def test_filters_and_orders_give_what_python_gives_wherever_the_data_is(
    platform: DatasetPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifests, "TARGET_ROWS", 16)
    instance = await platform.start(loops=False)
    datasets, client = instance.datasets, platform.client()
    rng = random.Random(7)
    name = await client.create("data")
    rows: Rows = {}

    async def change(draft: str, count: int) -> Rows:
        changed = dict(rows)
        for key in (f"k{rng.randrange(70):02d}" for _ in range(count)):
            if rng.random() < 0.2 and key in changed:
                del changed[key]
                await client.edit(name, delete=[key], draft=draft)
            else:
                changed[key] = random_record(rng, key)
                await client.edit(name, put={key: changed[key]}, draft=draft)
        return changed

    async def committed(count: int) -> None:
        nonlocal rows
        rows = await change("work", count)
        await client.stub.CommitDraft(pb.CommitDraftRequest(name=f"{name}/drafts/work", message="m"))
        await datasets.committer.visit(name)

    async def agree(wanted: Rows, **fields: Any) -> None:
        for filter in FILTERS:
            order_by = rng.choice(ORDERS)
            found = await listed(client, name, filter, order_by, rng.choice([7, 20, 50]), **fields)
            assert found == expected(wanted, filter, order_by), (filter, order_by, fields)

    await committed(60)
    await agree(rows)  # no partitions: all from the plan
    await datasets.partitions.visit(name)
    await agree(rows)  # all from partitions
    first = dict(rows)
    await committed(10)
    await committed(6)
    await agree(rows)  # partitions of version 1 under the plans of 2 and 3
    draft = await change("mine", 8)
    await agree(draft, draft="mine")
    await agree(first, version=1)
    await datasets.partitions.visit(name)
    await agree(rows)
    await agree(draft, draft="mine")
    assert await client.rows(name) == await client.rows(name, filter="id:*")  # by key, and by scan


@pytest.mark.parametrize(("filter", "order_by"), [("", ""), ("v >= 0", ""), ("", "v desc"), ("v >= 0", "word")])
async def test_pages_stay_those_of_the_first_while_others_edit(client: Client, filter: str, order_by: str) -> None:
    name = await client.create("data")
    await client.import_rows(name, [{"id": f"k{n:02d}", "v": n % 7, "word": "x" * (n % 3)} for n in range(30)])
    await client.edit(name, patch={"k05": {"v": 50}})
    drafts: list[dict[str, Any]] = [{}, {"draft": "mine"}]
    for fields in drafts:
        whole = [r.key for r in await client.records(name, filter=filter, order_by=order_by, **fields)]
        keys: list[str] = []
        turn = 0
        async for page in client.pages(name, 7, filter=filter, order_by=order_by, **fields):
            keys += [record.key for record in page]
            turn += 1
            draft = f"other{turn}{len(fields)}"
            await client.edit(name, patch={"k20": {"v": 60 + turn}}, delete=[f"k{25 - turn}"], draft=draft)
            await client.commit(name, draft=draft)
            await client.edit(name, put={f"a{turn}": {"id": f"a{turn}", "v": 1}}, draft="mine")
        assert keys == whole and turn == 5
        await client.import_rows(name, [{"id": f"k{n:02d}", "v": n % 7, "word": "x" * (n % 3)} for n in range(30)])


async def test_an_unknown_column_is_named_with_those_there_are(client: Client) -> None:
    name = await client.create("data")
    await client.import_rows(name, [{"id": "a", "price": 1}])
    asked: list[tuple[dict[str, Any], str]] = [
        ({"filter": "prise > 3"}, "filter"),
        ({"order_by": "prise desc"}, "order_by"),
    ]
    for fields, field in asked:
        for _ in range(2):
            with pytest.raises(InvalidArgument, match="'prise': the columns are id, price") as caught:
                await client.records(name, **fields)
            assert caught.value.violations[0].field == field
            await client.manifest(name, 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"filter": "a ="},
        {"order_by": "a b c"},
        {"page_size": -1},
        {"page_token": "x"},
        {"version": 1, "draft": "mine"},
        {"version": -1},
    ],
)
async def test_a_list_that_cannot_be_is_refused(client: Client, fields: dict[str, Any]) -> None:
    name = await client.create("data")
    await client.import_rows(name, [{"id": "a"}])
    with pytest.raises(PenstockError):
        await client.stub.ListRecords(pb.ListRecordsRequest(parent=name, **fields))


async def test_pages_are_cut_where_messages_would_grow_too_large(client: Client) -> None:
    name = await client.create("data")
    await client.import_rows(name, [{"id": f"k{n}", "text": "x" * 1_500_000} for n in range(7)])
    sizes = [len(page) async for page in client.pages(name, 1000)]
    assert sum(sizes) == 7 and max(sizes) == 2


async def read_all(client: Client, manifest: pb.Manifest) -> tuple[pa.Table, dict[str, pa.Table]]:
    """All files of a manifest, as one table and by path."""
    tables = {}
    for file in manifest.files:
        request = pb.ReadPartitionRequest(name=manifest.version, path=file.path)
        content = b"".join([part.data async for part in client.stub.ReadPartition(request)])
        assert len(content) == file.size
        tables[file.path] = pq.read_table(io.BytesIO(content))
        assert tables[file.path].num_rows == file.records
    return pa.concat_tables(list(tables.values())), tables


async def test_partitions_hold_the_version_and_only_touched_ones_are_rewritten(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifests, "TARGET_ROWS", 32)
    name = await client.create("data")
    rng = random.Random(3)
    rows = {f"k{n:03d}": random_record(rng, f"k{n:03d}") for n in range(300)}
    await client.import_rows(name, rows.values(), label_field="n")
    one = await client.manifest(name, 1)
    assert len(one.files) > 8 and one.records == 300 and (one.key_field, one.label_field) == ("id", "n")
    await client.edit(name, patch={"k001": {"n": 55}}, delete=["k002"])
    await client.commit(name)
    two = await client.manifest(name, 2)
    before, after = ({file.path: file.digest for file in each.files} for each in (one, two))
    changed = {path for path in before if before[path] != after.get(path)}
    assert 1 <= len(changed) <= 2
    whole, tables = await read_all(client, two)  # of one schema, or they would not be one table
    rows["k001"]["n"] = 55
    del rows["k002"]
    read = {}
    for row in whole.to_pylist():
        key, revision = row.pop("_key"), row.pop("_revision")
        assert revision == (f"{key}/2" if key == "k001" else f"{key}/1")
        read[key] = Cleaner().record(
            {k: json.loads(v) if k in two.json_columns else v for k, v in row.items() if v is not None}
        )
    assert read == rows and all(
        t.column("_key").to_pylist() == sorted(t.column("_key").to_pylist()) for t in tables.values()
    )
    assert set(two.json_columns) == {"mixed", "tags", "deep"}
    total = sum(row_hash(key, Cleaner().text(row)) for key, row in rows.items()) % 2**256
    assert two.rows_digest == f"rows-sha256:{total:064x}"
    version = await client.stub.GetVersion(pb.GetVersionRequest(name=f"{name}/versions/2"))
    assert (version.manifest, version.rows_digest) == (two.digest, two.rows_digest)


async def test_the_first_of_two_manifests_wins_and_the_other_is_adopted(platform: DatasetPlatform) -> None:
    instance = await platform.start(loops=False)
    client = platform.client()
    name = await client.create("data", key_field="id")
    await client.edit(name, put={"a": {"id": "a"}})
    await client.stub.CommitDraft(pb.CommitDraftRequest(name=f"{name}/drafts/mine", message="m"))
    await instance.datasets.committer.visit(name)
    with pytest.raises(PenstockError, match="still being written"):
        await client.stub.GetManifest(pb.GetManifestRequest(name=f"{name}/versions/1"))
    waiting = asyncio.create_task(client.manifest(name, 1))
    writers = [platform.parts().partitions for _ in range(3)]
    await asyncio.gather(*(writer.visit(name) for writer in writers))
    manifest = await waiting
    assert await writers[0].set_manifest(f"{name}/versions/1", "sha256:" + "0" * 64) == manifest.digest
