"""Edits become versions; versions are read, compared and kept."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock.api.dataset.v1 import dataset_service_pb2 as pb
from penstock.errors import FailedPrecondition, InvalidArgument, NotFound, PenstockError
from penstock.rpc.structs import from_struct
from tests.support.dataset_platform import PARENT, Client, DatasetPlatform

BOOKS = [{"id": f"b{n:03d}", "title": f"Book {n}", "price": n / 4, "tags": ["new"] * (n % 2)} for n in range(30)]


async def test_an_import_makes_a_version_named_after_its_source(client: Client) -> None:
    books = await client.create("books", description="what sells")
    done = await client.import_rows(books, BOOKS, source="books.jsonl", label_field="price")
    assert done.version == f"{books}/versions/1"
    dataset = await client.stub.GetDataset(pb.GetDatasetRequest(name=books))
    assert (dataset.head, dataset.record_count, dataset.key_field, dataset.label_field) == (1, 30, "id", "price")
    [version] = await client.versions(books)
    assert (version.message, version.author, version.added, version.origin) == ("books.jsonl", "ana", 30, "import")
    assert await client.rows(books) == {book["id"]: book for book in BOOKS}


async def test_an_edit_is_seen_in_its_draft_and_after_the_commit_in_the_next_version_only(client: Client) -> None:
    books = await client.create("books")
    await client.import_rows(books, BOOKS)
    await client.edit(
        books,
        put={"new": {"id": "new", "title": "New"}},
        patch={"b001": {"price": 9}},
        delete=["b002"],
        why="the list was old",
    )
    head, draft = await client.rows(books), await client.rows(books, draft="mine")
    assert head == {book["id"]: book for book in BOOKS}
    expected = {**head, "new": {"id": "new", "title": "New"}, "b001": {**head["b001"], "price": 9}}
    del expected["b002"]
    assert draft == expected
    done = await client.commit(books, "corrected")
    assert done.state == pb.Draft.COMMITTED and done.version == f"{books}/versions/2"
    assert await client.rows(books) == draft and await client.rows(books, version=2) == draft
    assert await client.rows(books, version=1) == head
    diff = await client.diff(books, 1, 2)
    assert (diff.added, diff.changed, diff.removed) == (1, 1, 1)
    kinds = {change.key: (pb.Change.Kind.Name(change.kind), list(change.fields)) for change in diff.changes}
    assert kinds["b001"] == ("CHANGED", ["price"]) and kinds["new"][0] == "ADDED" and kinds["b002"][0] == "REMOVED"
    assert {change.edit.author for change in diff.changes} == {"ana"}
    assert {change.edit.why for change in diff.changes} == {"the list was old"}


async def test_a_records_history_says_what_it_was_and_who_made_it_so(client: Client, platform: DatasetPlatform) -> None:
    books = await client.create("books")
    await client.import_rows(books, BOOKS, source="first.jsonl")
    ben = platform.client("ben")
    await ben.edit(books, patch={"b001": {"price": 1}}, why="cheaper", draft="bens")
    await ben.commit(books, draft="bens")
    answer = await client.stub.ListRecordRevisions(pb.ListRecordRevisionsRequest(name=f"{books}/records/b001"))
    newest, oldest = answer.records
    assert (newest.revision, newest.end_revision, newest.edit.author, newest.edit.why) == (2, 0, "ben", "cheaper")
    assert (oldest.revision, oldest.end_revision, oldest.edit.origin) == (1, 2, "import")
    assert from_struct(oldest.data)["price"] == 0.25 and from_struct(newest.data)["price"] == 1


async def test_a_draft_is_opened_again_over_the_head_after_its_commit(client: Client) -> None:
    books = await client.create("books")
    await client.import_rows(books, BOOKS)
    await client.edit(books, patch={"b001": {"price": 1}})
    await client.commit(books)
    reopened = await client.edit(books, patch={"b001": {"price": 2}})
    assert (reopened.state, reopened.base_version, reopened.change_count) == (pb.Draft.OPEN, 2, 1)
    assert (await client.commit(books)).version.endswith("/versions/3")


async def test_the_same_request_edits_once(client: Client) -> None:
    books = await client.create("books")
    await client.import_rows(books, BOOKS)
    first = await client.edit(books, delete=["b001"], request_id="r1")
    again = await client.edit(books, delete=["b001"], request_id="r1")
    assert first == again and again.change_count == 1
    with pytest.raises(PenstockError) as caught:
        await client.edit(books, delete=["b001"], request_id="r2")
    assert isinstance(caught.value, NotFound) and "b001" in caught.value.message


async def test_many_may_edit_and_commit_at_once_and_nothing_is_lost(client: Client) -> None:
    books = await client.create("books")
    await client.import_rows(books, BOOKS)

    async def work(n: int) -> pb.Draft:
        draft = f"d{n}"
        await client.edit(books, patch={f"b{n:03d}": {"price": 100 + n}}, draft=draft)
        return await client.commit(books, f"by {n}", draft=draft)

    done = await asyncio.gather(*(work(n) for n in range(12)), client.edit(books, patch={"b020": {"price": 1}}))
    assert {each.state for each in done[:-1]} == {pb.Draft.COMMITTED}
    versions = await client.versions(books)
    assert [version.number for version in versions] == list(range(13, 0, -1))
    rows = await client.rows(books)
    assert all(rows[f"b{n:03d}"]["price"] == 100 + n for n in range(12))


async def test_concurrent_edits_of_one_draft_all_count(client: Client) -> None:
    books = await client.create("books")
    await client.import_rows(books, BOOKS)
    await asyncio.gather(*(client.edit(books, patch={f"b{n:03d}": {"price": 50 + n}}) for n in range(20)))
    draft = await client.stub.GetDraft(pb.GetDraftRequest(name=f"{books}/drafts/mine"))
    assert draft.change_count == 20
    diff = await client.diff(books, draft="mine")
    assert {change.key for change in diff.changes} == {f"b{n:03d}" for n in range(20)} and diff.changed == 20


async def test_names_and_values_of_any_kind_survive(client: Client) -> None:
    odd = await client.create("odd", key_field="id")
    record = {
        "id": "a.b/$c %é\U0001f600",
        "$set": {"a.b": {"$gt": [1, None, True, 1.5, "x"]}},
        "x/y~1": "2026-11-20T00:00:00Z",
        "A": 1,
        "a": "1",
        'quo"te': {},
        "big": 2**53,
        "list": [[], [[1]], {}],
    }
    await client.edit(odd, put={str(record["id"]): record})
    await client.commit(odd)
    assert await client.rows(odd) == {record["id"]: record}
    [listed] = await client.records(odd)
    got = await client.stub.GetRecord(pb.GetRecordRequest(name=listed.name))
    assert from_struct(got.data) == record
    await client.manifest(odd, 1)
    assert await client.rows(odd, filter='"$set"."a.b":* AND A = 1 AND a = "1"') == {record["id"]: record}


async def test_whole_numbers_beyond_2_53_are_refused_on_the_wire_and_kept_from_files(client: Client) -> None:
    big = await client.create("big")
    with pytest.raises(PenstockError) as caught:
        await client.edit(big, put={"a": {"id": "a", "n": float(2**60)}})
    assert isinstance(caught.value, InvalidArgument) and "2^53" in caught.value.message
    await client.import_rows(big, [{"id": "a", "n": 2**63 - 1}, {"id": "b", "n": -(2**63)}])
    assert (await client.rows(big))["a"]["n"] == str(2**63 - 1)
    await client.manifest(big, 1)
    assert list(await client.rows(big, filter=f"n = {2**63 - 1}")) == ["a"]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ({"patch": {"nope": {"price": 1}}}, "no record 'nope'"),
        ({"put": {"b001": {"id": "b002"}}}, "must be 'b001'"),
        ({"put": {"b001": {"price": 1}}}, "'id' is its key"),
        ({"patch": {"b001": {"_key": 1}}}, "reserved"),
        ({"patch": {"b001": {"": 1}}}, "field name"),
        ({"put": {"": {"id": ""}}}, "key"),
        ({}, "1 to 500 edits"),
    ],
)
async def test_an_edit_that_cannot_be_is_refused_and_nothing_of_it_is_done(
    client: Client,
    edit: dict[str, Any],
    said: str,
) -> None:
    books = await client.create("books")
    await client.import_rows(books, BOOKS)
    with pytest.raises(PenstockError) as caught:
        await client.edit(books, **edit)
    assert said in caught.value.message
    assert await client.rows(books) == {book["id"]: book for book in BOOKS}
    drafts = (await client.stub.ListDrafts(pb.ListDraftsRequest(parent=books))).drafts
    assert all(draft.state == pb.Draft.COMMITTED or not draft.change_count for draft in drafts)


async def test_a_draft_that_waits_for_its_commit_is_neither_edited_nor_deleted(platform: DatasetPlatform) -> None:
    await platform.start(loops=False)
    client = platform.client()
    books = await client.create("books", key_field="id")
    await client.edit(books, put={"a": {"id": "a"}})
    name = f"{books}/drafts/mine"
    await client.stub.CommitDraft(pb.CommitDraftRequest(name=name, message="m", request_id="c1"))
    again = await client.stub.CommitDraft(pb.CommitDraftRequest(name=name, message="m", request_id="c1"))
    assert again.state == pb.Draft.FROZEN
    for call in (
        client.edit(books, put={"b": {"id": "b"}}),
        client.stub.DeleteDraft(pb.DeleteDraftRequest(name=name)),
        client.stub.CommitDraft(pb.CommitDraftRequest(name=name, message="m", request_id="c2")),
    ):
        with pytest.raises(PenstockError) as caught:
            await call
        assert isinstance(caught.value, FailedPrecondition)


async def test_a_draft_thrown_away_leaves_nothing_and_its_name_is_free(client: Client) -> None:
    books = await client.create("books")
    await client.import_rows(books, BOOKS)
    await client.edit(books, patch={"b001": {"price": 1}})
    await client.stub.DeleteDraft(pb.DeleteDraftRequest(name=f"{books}/drafts/mine"))
    with pytest.raises(PenstockError) as caught:
        await client.rows(books, draft="mine")
    assert isinstance(caught.value, NotFound)
    again = await client.edit(books, patch={"b002": {"price": 1}})
    assert again.change_count == 1


async def test_what_does_not_exist_is_not_found(client: Client) -> None:
    books = await client.create("books")
    calls = [
        client.stub.GetDataset(pb.GetDatasetRequest(name=f"{PARENT}/datasets/none")),
        client.stub.GetVersion(pb.GetVersionRequest(name=f"{books}/versions/1")),
        client.records(books, version=3),
        client.stub.GetRecord(pb.GetRecordRequest(name=f"{books}/records/x")),
        client.stub.GetManifest(pb.GetManifestRequest(name=f"{books}/versions/1")),
        client.diff(books, 0, 4),
    ]
    for call in calls:
        with pytest.raises(PenstockError) as caught:
            await call
        assert isinstance(caught.value, NotFound)
    assert await client.rows(books) == {} and await client.rows(books, filter="a = 1") == {}


async def test_diffs_are_paged_by_key_and_go_both_ways(client: Client) -> None:
    books = await client.create("books")
    await client.import_rows(books, BOOKS)
    await client.edit(books, patch={f"b{n:03d}": {"price": -n} for n in range(1, 11)})
    await client.commit(books)
    await client.edit(books, patch={"b001": {"price": BOOKS[1]["price"]}}, delete=["b005"])
    await client.commit(books)
    request = pb.DiffVersionsRequest(parent=books, from_version=1, to_version=3, page_size=4)
    keys, first = [], await client.stub.DiffVersions(request)
    assert (first.added, first.changed, first.removed) == (0, 8, 1)
    answer = first
    while True:
        keys += [change.key for change in answer.changes]
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
        answer = await client.stub.DiffVersions(request)
    assert keys == [f"b{n:03d}" for n in range(2, 11)]  # b001 is again what it was
    back = await client.diff(books, 3, 1)
    assert (back.added, back.changed, back.removed) == (1, 8, 0)
    whole = await client.diff(books, 0, 3)
    assert whole.added == 29
