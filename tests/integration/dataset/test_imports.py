"""Files become versions whole or not at all, and an import cut short is taken up again."""

from __future__ import annotations

import asyncio
import hashlib
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.api.dataset.v1 import dataset_service_pb2 as pb
from penstock.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, PenstockError
from services.dataset.ingest import stage
from tests.support.dataset_platform import Client, DatasetPlatform, jsonl
from tests.support.dataset_state import events_of

ROWS = [{"id": f"k{n:02d}", "v": n, "kind": "even" if n % 2 == 0 else "odd"} for n in range(40)]
BY_KEY = {str(row["id"]): row for row in ROWS}
CSV = "id,v,kind\n" + "".join(f"{row['id']},{row['v']},{row['kind']}\n" for row in ROWS)


def parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("format", "content"), [("JSONL", jsonl(ROWS)), ("CSV", CSV.encode()), ("PARQUET", parquet())], ids=str
)
async def test_every_format_gives_the_same_records(client: Client, format: str, content: bytes) -> None:
    name = await client.create("data")
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    done = await client.import_bytes(name, content, chunk=97, format=format, digest=digest, label_field="kind")
    assert (done.state, done.records, done.received) == (pb.Import.SUCCEEDED, 40, len(content)), done.reason
    assert await client.rows(name) == BY_KEY
    dataset = await client.stub.GetDataset(pb.GetDatasetRequest(name=name))
    assert (dataset.key_field, dataset.label_field) == ("id", "kind")


async def test_an_import_changes_only_what_differs_from_the_head(client: Client) -> None:
    name = await client.create("data")
    await client.import_rows(name, ROWS)
    await client.import_rows(name, [{**ROWS[3], "v": 100}, *ROWS[4:9], {"id": "new", "v": 1}])
    [version, _] = await client.versions(name)
    assert (version.added, version.changed, version.removed, version.record_count) == (1, 1, 0, 41)
    diff = await client.diff(name, 1, 2)
    assert {change.key for change in diff.changes} == {"k03", "new"}


async def test_an_import_without_a_change_succeeds_and_makes_no_version(client: Client) -> None:
    name = await client.create("data")
    await client.import_rows(name, ROWS)
    again = await client.import_rows(name, ROWS)
    assert again.version == f"{name}/versions/1" and len(await client.versions(name)) == 1


async def test_a_forgotten_label_comes_with_an_import_of_the_same_records(client: Client) -> None:
    name = await client.create("data")
    await client.import_rows(name, ROWS)
    again = await client.import_rows(name, ROWS, label_field="kind")
    assert again.version == f"{name}/versions/2"
    [version, _] = await client.versions(name)
    assert (version.added, version.changed, version.removed, version.record_count) == (0, 0, 0, 40)
    dataset = await client.stub.GetDataset(pb.GetDatasetRequest(name=name))
    manifest = await client.stub.GetManifest(pb.GetManifestRequest(name=again.version, wait=True))
    assert (dataset.label_field, manifest.label_field, manifest.records) == ("kind", "kind", 40)
    assert (await client.import_rows(name, ROWS, label_field="kind")).version == again.version


async def test_an_import_into_a_draft_is_committed_with_it(client: Client) -> None:
    name = await client.create("data")
    done = await client.import_rows(name, ROWS, draft="mine")
    assert done.version == "" and await client.rows(name) == {} and await client.rows(name, draft="mine") == BY_KEY
    await client.edit(name, patch={"k01": {"v": -1}})
    committed = await client.commit(name)
    assert (committed.change_count, committed.version) == (40, f"{name}/versions/1")
    assert (await client.rows(name))["k01"]["v"] == -1 and len(await client.rows(name)) == 40
    dataset = await client.stub.GetDataset(pb.GetDatasetRequest(name=name))
    assert dataset.key_field == "id"


@pytest.mark.parametrize(
    ("fields", "content", "said"),
    [
        ({}, b'{"id":"a"}\n{"id":\n', "line 2, column"),
        ({}, b'{"id":"a"}\n{"id":"a"}\n', "line 1 and line 2"),
        ({"format": "CSV"}, b"id,v\na,1\nb,2,3\n", "line 3"),
        ({"format": "PARQUET"}, b"PAR1 no", "damaged"),
        ({"digest": "sha256:" + "0" * 64}, b'{"id":"a"}\n', "digest"),
        ({"label_field": "x"}, b'{"id":"a"}\n', "label field 'x'"),
    ],
)
async def test_a_bad_file_fails_with_the_reason_and_leaves_nothing(
    platform: DatasetPlatform,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    fields: dict[str, Any],
    content: bytes,
    said: str,
) -> None:
    monkeypatch.setattr(stage, "PART_ROWS", 1)  # so that good parts were staged before the bad line
    name = await client.create("data")
    done = await client.import_bytes(name, content, **fields)
    assert done.state == pb.Import.FAILED and said in done.reason
    dataset = await client.stub.GetDataset(pb.GetDatasetRequest(name=name))
    assert (dataset.head, dataset.key_field) == (0, "") and await client.rows(name) == {}
    assert not (await client.stub.ListDrafts(pb.ListDraftsRequest(parent=name))).drafts
    assert await events_of(platform.instances[0].datasets.repository, name) == [(1, "dataset.import.failed", 0)]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"format": "FORMAT_UNSPECIFIED"}, "import.format"),
        ({"key_field": ""}, "import.key_field"),
        ({"key_field": "v"}, "import.key_field"),
        ({"size": 0}, "import.size"),
        ({"draft": "No!"}, "import.draft"),
    ],
)
async def test_an_import_that_cannot_work_is_refused_at_once(
    client: Client, fields: dict[str, Any], field: str
) -> None:
    name = await client.create("data", key_field="id")
    with pytest.raises(InvalidArgument) as caught:
        await client.begin(name, b"x", **fields)
    assert field in [violation.field for violation in caught.value.violations]


async def test_an_upload_goes_on_where_it_was_cut(platform: DatasetPlatform) -> None:
    content = jsonl(ROWS)
    first = await platform.start()
    client = platform.client()
    name = await client.create("data")
    begun = await client.begin(name, content, request_id="once")
    await client.stub.WriteImport(pb.WriteImportRequest(name=begun.name, offset=0, data=content[:100]))
    await first.kill()
    await platform.start()
    client = platform.client()
    again = await client.begin(name, content, request_id="once")
    assert (again.name, again.received, again.state) == (begun.name, 100, pb.Import.UPLOADING)
    repeated = await client.stub.WriteImport(pb.WriteImportRequest(name=begun.name, offset=0, data=content[:100]))
    assert repeated.received == 100
    with pytest.raises(InvalidArgument, match="go to offset 100"):
        await client.stub.WriteImport(pb.WriteImportRequest(name=begun.name, offset=50, data=content[50:200]))
    with pytest.raises(FailedPrecondition, match="was said to have"):
        await client.stub.WriteImport(pb.WriteImportRequest(name=begun.name, offset=100, data=content + b"x"))
    await client.upload(begun.name, content, start=100, chunk=150)
    assert (await client.ended(begun.name)).state == pb.Import.SUCCEEDED
    assert await client.rows(name) == BY_KEY
    assert (await client.begin(name, content, request_id="once")).state == pb.Import.SUCCEEDED
    for other in ({"label_field": "b"}, {"digest": f"sha256:{'0' * 64}"}):
        with pytest.raises(AlreadyExists, match="request id was used for something else"):
            await client.begin(name, content, request_id="once", **other)


async def test_a_killed_service_finishes_staging_and_committing_after_its_restart(
    platform: DatasetPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "PART_ROWS", 5)
    waiting = await platform.start(loops=False)
    client = platform.client()
    name = await client.create("data")
    begun = await client.begin(name, jsonl(ROWS))
    await client.upload(begun.name, jsonl(ROWS))
    staging = asyncio.create_task(waiting.datasets.importer.visit(begun.name))
    async for each in client.stub.WatchImport(pb.WatchImportRequest(name=begun.name)):
        if each.records:
            break
    staging.cancel()
    await waiting.kill()
    await platform.start()
    client = platform.client()
    assert (await client.ended(begun.name)).state == pb.Import.SUCCEEDED
    assert await client.rows(name) == BY_KEY


async def test_progress_is_seen_while_it_runs(
    platform: DatasetPlatform, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "PART_ROWS", 10)
    name = await client.create("data")
    begun = await client.begin(name, jsonl(ROWS))
    seen: list[pb.Import] = []

    watching = asyncio.Event()

    async def follow() -> None:
        async for each in client.stub.WatchImport(pb.WatchImportRequest(name=begun.name)):
            seen.append(each)
            watching.set()

    following = asyncio.create_task(follow())
    await watching.wait()
    await client.upload(begun.name, jsonl(ROWS), chunk=100)
    await following
    assert seen[-1].state == pb.Import.SUCCEEDED and seen[-1].HasField("end_time")
    received = [each.received for each in seen]
    assert received == sorted(received) and len(set(received)) > 2


async def test_a_cancelled_import_takes_no_more_bytes_and_leaves_nothing(client: Client) -> None:
    name = await client.create("data")
    begun = await client.begin(name, jsonl(ROWS))
    await client.stub.WriteImport(pb.WriteImportRequest(name=begun.name, offset=0, data=jsonl(ROWS)[:10]))
    for _ in range(2):
        cancelled = await client.stub.CancelImport(pb.CancelImportRequest(name=begun.name))
        assert cancelled.state == pb.Import.CANCELLED
    with pytest.raises(FailedPrecondition, match="cancelled"):
        await client.upload(begun.name, jsonl(ROWS))
    assert await client.rows(name) == {}
    done = await client.import_rows(name, ROWS)
    with pytest.raises(FailedPrecondition, match="succeeded"):
        await client.stub.CancelImport(pb.CancelImportRequest(name=done.name))


async def test_two_first_imports_with_different_keys_do_not_both_succeed(platform: DatasetPlatform) -> None:
    await platform.start()
    client = platform.client()
    name = await client.create("data")
    one, two = await asyncio.gather(
        client.import_bytes(name, jsonl(ROWS)), client.import_bytes(name, jsonl(ROWS), key_field="v")
    )
    assert {one.state, two.state} == {pb.Import.SUCCEEDED, pb.Import.FAILED}
    assert "key field" in (one.reason or two.reason) and len(await client.versions(name)) == 1


async def test_others_are_refused(platform: DatasetPlatform, client: Client, tmp_path: Path) -> None:
    name = await client.create("data")
    with pytest.raises(PenstockError):
        await platform.client("eve", "elsewhere").rows(name)
    with pytest.raises(PenstockError):
        await platform.client("vic", role="viewer").edit(name, put={"a": {"id": "a"}})
    with pytest.raises(NotFound):
        await client.begin("projects/library/datasets/none", b"x")
