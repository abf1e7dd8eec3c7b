"""Etags and request ids of a draft's requests."""

from __future__ import annotations

import pytest

from penstock.api.dataset.v1 import dataset_service_pb2 as pb
from penstock.errors import AlreadyExists, Conflict, NotFound
from tests.support.dataset_platform import PROJECT, Client, DatasetPlatform


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


async def test_a_request_is_one_of_its_caller_and_its_command(platform: DatasetPlatform) -> None:
    await platform.start()
    ann, ben = platform.client("ann"), platform.client("ben")
    books = await ann.create("books", key_field="id")
    for client, key in ((ann, "a"), (ben, "b"), (ann, "a"), (ben, "b")):
        await client.edit(books, put={key: {"id": key}}, request_id="same")
    draft = f"{books}/drafts/mine"
    assert (await ann.stub.GetDraft(pb.GetDraftRequest(name=draft))).change_count == 2
    committed = await ann.stub.CommitDraft(pb.CommitDraftRequest(name=draft, message="m", request_id="same"))
    assert committed.state != pb.Draft.OPEN
    request = pb.CreateDatasetRequest(
        parent=f"projects/{PROJECT}", dataset_id="poems", dataset=pb.Dataset(), request_id="r"
    )
    assert await ann.stub.CreateDataset(request) == await ann.stub.CreateDataset(request)
    with pytest.raises(AlreadyExists):
        await ben.stub.CreateDataset(request)
