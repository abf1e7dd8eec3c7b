"""Etags and request ids of a draft's requests."""

from __future__ import annotations

import pytest

from penstock.api.dataset.v1 import dataset_service_pb2 as pb
from penstock.errors import Conflict, NotFound
from tests.support.dataset_platform import Client


async def test_a_draft_that_somebody_edited_is_neither_committed_nor_thrown_away_over_what_was_read(
    client: Client,
) -> None:
    books = await client.create("books", key_field="id")
    read = await client.edit(books, put={"a": {"id": "a"}})
    edited = await client.edit(books, put={"b": {"id": "b"}})
    commit = pb.CommitDraftRequest(name=read.name, message="m", etag=read.etag, request_id="c1")
    for call in (
        client.stub.CommitDraft(commit),
        client.stub.DeleteDraft(pb.DeleteDraftRequest(name=read.name, etag=read.etag)),
    ):
        with pytest.raises(Conflict, match="changed since you read it"):
            await call
    assert await client.stub.GetDraft(pb.GetDraftRequest(name=read.name)) == edited
    commit.etag = edited.etag
    await client.stub.CommitDraft(commit)
    await client.stub.CommitDraft(commit)  # the same request, though its own first turn changed the draft
    await client.edit(books, draft="other", put={"c": {"id": "c"}})
    other = await client.edit(books, draft="other", put={"d": {"id": "d"}})
    await client.stub.DeleteDraft(pb.DeleteDraftRequest(name=other.name, etag=other.etag))
    with pytest.raises(NotFound):
        await client.stub.GetDraft(pb.GetDraftRequest(name=other.name))
