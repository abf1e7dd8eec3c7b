"""Drafts that change the same: what is merged, what is a conflict, and how one is resolved."""

from __future__ import annotations

import pytest

from penstock.api.dataset.v1 import dataset_service_pb2 as pb
from penstock.rpc.structs import from_struct
from tests.support.dataset_platform import Client

BOOKS = [{"id": f"b{n:03d}", "title": f"Book {n}", "price": n / 4, "tags": ["new"] * (n % 2)} for n in range(30)]


async def test_drafts_that_change_different_fields_are_both_kept(client: Client) -> None:
    books = await client.create("books")
    await client.import_rows(books, BOOKS)
    await client.edit(books, patch={"b001": {"price": 1}, "b002": {"price": 2}}, draft="one")
    await client.edit(books, patch={"b001": {"title": "T"}, "b003": {"price": 3}}, draft="two")
    await client.commit(books, draft="one")
    done = await client.commit(books, draft="two")
    assert done.state == pb.Draft.COMMITTED
    rows = await client.rows(books)
    assert (rows["b001"]["price"], rows["b001"]["title"]) == (1, "T")
    assert (rows["b002"]["price"], rows["b003"]["price"]) == (2, 3)


async def test_a_conflict_names_the_record_and_the_fields_and_is_resolved_by_editing_again(client: Client) -> None:
    books = await client.create("books")
    await client.import_rows(books, BOOKS)
    await client.edit(books, patch={"b001": {"price": 1, "title": "one"}}, draft="one")
    await client.edit(books, patch={"b001": {"price": 2}, "b004": {"price": 5}}, draft="two")
    await client.commit(books, draft="one")
    done = await client.commit(books, draft="two")
    assert done.state == pb.Draft.CONFLICTED and "1 records" in done.reason
    [conflict] = done.conflicts
    assert (conflict.key, list(conflict.fields), conflict.version) == ("b001", ["price"], 2)
    prices = [from_struct(each)["price"] for each in (conflict.base, conflict.theirs, conflict.mine)]
    assert prices == [0.25, 1, 2]
    assert len(await client.versions(books)) == 2
    assert (await client.commit(books, draft="two")).state == pb.Draft.CONFLICTED  # nothing was decided yet
    reopened = await client.edit(books, patch={"b001": {"price": 3}}, draft="two")
    assert reopened.state == pb.Draft.OPEN
    assert (await client.commit(books, draft="two")).state == pb.Draft.COMMITTED
    rows = await client.rows(books)
    assert (rows["b001"]["price"], rows["b001"]["title"], rows["b004"]["price"]) == (3, "one", 5)


@pytest.mark.parametrize("deleter", ["one", "two"])
async def test_deleting_what_another_changed_is_a_conflict_without_fields(client: Client, deleter: str) -> None:
    books = await client.create("books")
    await client.import_rows(books, BOOKS)
    for draft in ("one", "two"):
        if draft == deleter:
            await client.edit(books, delete=["b001"], draft=draft)
        else:
            await client.edit(books, patch={"b001": {"price": 1}}, draft=draft)
    await client.commit(books, draft="one")
    done = await client.commit(books, draft="two")
    assert done.state == pb.Draft.CONFLICTED and list(done.conflicts[0].fields) == []
    await client.edit(books, put={"b001": {"id": "b001", "price": 7}}, draft="two")
    assert (await client.commit(books, draft="two")).state == pb.Draft.COMMITTED
    assert (await client.rows(books))["b001"] == {"id": "b001", "price": 7}


async def test_the_same_edit_by_two_is_no_conflict_and_no_version(client: Client) -> None:
    books = await client.create("books")
    await client.import_rows(books, BOOKS)
    await client.edit(books, patch={"b001": {"price": 1}}, draft="one")
    await client.edit(books, patch={"b001": {"price": 1}}, draft="two")
    await client.commit(books, draft="one")
    done = await client.commit(books, draft="two")
    assert done.state == pb.Draft.COMMITTED and done.version.endswith("/versions/2")
    assert len(await client.versions(books)) == 2
