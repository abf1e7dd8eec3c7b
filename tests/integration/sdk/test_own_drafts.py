"""Two people at one machine, under one login: each token has a draft of its own, in the SDK, the CLI and the API."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from penstock.api.dataset.v1 import dataset_service_pb2 as pb
from penstock.errors import InvalidArgument, NotFound
from penstock.rpc.structs import from_struct
from penstock.sdk.client import Client
from services.dataset import servicer
from tests.support.dataset_platform import PROJECT, DatasetPlatform

ROWS = [{"id": key, "v": 0} for key in ("a", "b", "c")]


class Person:
    """A token, and what is done with it: by the SDK, in a thread, and by the CLI, in a process."""

    def __init__(self, platform: DatasetPlatform, subject: str) -> None:
        url = f"http://{platform.addresses['dataset']}"
        token = platform.tokens.mint(subject, PROJECT, "editor", ttl=3600)
        self._environment = {**os.environ, "PENSTOCK_URL": url, "PENSTOCK_TOKEN": token, "PENSTOCK_PROJECT": PROJECT}
        self.client = Client(url, token, PROJECT)
        self.data = self.client.dataset("teas")
        self.rpc = platform.client(subject)

    async def cli(self, *arguments: str, code: int = 0) -> str:
        """What a command prints."""
        command = [sys.executable, "-m", "penstock.cli", "dataset", *arguments]
        done = await asyncio.to_thread(
            subprocess.run, command, env=self._environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    async def values(self, **where: Any) -> dict[str, Any]:
        """The field `v` by key, as the SDK reads it."""
        found = await asyncio.to_thread(lambda: list(self.data.records(**where)))
        return {record.key: from_struct(record.data)["v"] for record in found}


@pytest.fixture
async def platform(tmp_path: Path, mongodb_uri: str) -> AsyncIterator[DatasetPlatform]:
    running = DatasetPlatform.open(tmp_path, mongodb_uri)
    try:
        await running.start()
        first = running.client("home")
        await first.import_rows(await first.create("teas"), ROWS)
        yield running
    finally:
        await running.close()


@pytest.fixture
async def two(platform: DatasetPlatform) -> AsyncIterator[tuple[Person, Person]]:
    """Ann and Ben."""
    both = Person(platform, "ann"), Person(platform, "ben@example.org")
    yield both
    for person in both:
        await asyncio.to_thread(person.client.close)


async def neither_meets_the_other(ann: Person, ben: Person) -> None:
    """Both edit and one commits: what ought to be there of whom."""
    mine = await asyncio.to_thread(ann.data.patch, "a", {"v": 1})
    theirs = await asyncio.to_thread(ben.data.patch, "b", {"v": 2})
    assert (mine.name, mine.owner) == ("projects/library/datasets/teas/drafts/draft-ann", "ann")
    assert theirs.name.startswith("projects/library/datasets/teas/drafts/draft-ben-example-org--")
    assert (mine.change_count, theirs.change_count) == (1, 1)
    assert await ann.values(draft="-") == {"a": 1, "b": 0, "c": 0}
    assert await ben.values(draft="-") == {"a": 0, "b": 2, "c": 0}
    done = await asyncio.to_thread(ann.data.commit, "Ann's")
    assert (done.name, done.change_count, done.state) == (mine.name, 1, pb.Draft.COMMITTED)
    assert await ben.values() == {"a": 1, "b": 0, "c": 0}
    assert await ben.values(draft="-") == {"a": 0, "b": 2, "c": 0}
    await asyncio.to_thread(ben.data.commit, "Ben's")
    assert await ann.values() == {"a": 1, "b": 2, "c": 0}


async def test_by_the_sdk_neither_sees_nor_commits_what_the_other_edits(two: tuple[Person, Person]) -> None:
    await neither_meets_the_other(*two)


async def test_control_one_draft_for_a_login_mixes_them(
    two: tuple[Person, Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servicer, "draft_name", lambda asked: asked.replace("/drafts/-", "/drafts/draft-login"))
    monkeypatch.setattr(servicer, "draft_id", lambda asked: asked and "draft-login")
    with pytest.raises(AssertionError):
        await neither_meets_the_other(*two)


async def test_by_the_cli_too_and_it_says_which_draft_it_was(two: tuple[Person, Person], tmp_path: Path) -> None:
    ann, ben = two
    assert "patched a in draft-ann (1 change;" in await ann.cli("patch", "teas", "a", "v=1")
    assert "removed 1 in draft-ben-example-org--" in await ben.cli("delete", "teas", "b")
    await ann.cli("delete", "teas", "c", "--draft", "-")
    file = tmp_path / "more.jsonl"
    file.write_text('{"id": "d", "v": 4}\n')
    assert "into draft draft-ben-example-org--" in await ben.cli(
        "import", "teas", "--from", str(file), "--key", "id", "--draft", "-"
    )
    assert len((await ben.cli("records", "teas", "--draft", "-")).splitlines()) == 1 + 3
    assert "committed teas@2 (2 changes)" in await ann.cli("commit", "teas", "-m", "Ann's")
    assert "committed teas@3 (2 changes)" in await ben.cli("commit", "teas", "-m", "Ben's")
    assert await ann.values() == {"a": 1, "d": 4}


async def test_who_has_edited_nothing_has_nothing_to_commit_or_read(two: tuple[Person, Person]) -> None:
    ann, ben = two
    await asyncio.to_thread(ann.data.patch, "a", {"v": 1})
    with pytest.raises(NotFound, match="no draft of yours in teas"):
        await asyncio.to_thread(ben.data.commit, "nothing")
    with pytest.raises(NotFound, match="draft-ben-example-org--"):
        await ben.values(draft="-")
    assert "draft of yours" in await ben.cli("commit", "teas", "-m", "nothing", code=2)


async def test_every_request_about_a_draft_takes_the_callers_own(two: tuple[Person, Person]) -> None:
    ann, ben = two
    teas = ann.data.name
    own = f"{teas}/drafts/-"
    await ann.rpc.edit(teas, patch={"a": {"v": 1}}, draft="-")
    await ben.rpc.edit(teas, patch={"a": {"v": 2}}, delete=["b"], draft="-")
    got = await ben.rpc.stub.GetDraft(pb.GetDraftRequest(name=own))
    assert (got.owner, got.change_count) == ("ben@example.org", 2)
    assert (await ben.rpc.diff(teas, draft="-")).removed == 1 and not (await ann.rpc.diff(teas, draft="-")).removed
    record = await ann.rpc.stub.GetRecord(pb.GetRecordRequest(name=f"{teas}/records/a", draft="-"))
    assert from_struct(record.data)["v"] == 1
    watched = ben.rpc.stub.WatchDraft(pb.WatchDraftRequest(name=own))
    assert (await anext(watched)).name == got.name
    await watched.aclose()
    await ben.rpc.stub.DeleteDraft(pb.DeleteDraftRequest(name=own))
    assert (await ann.rpc.stub.GetDraft(pb.GetDraftRequest(name=own))).owner == "ann"
    with pytest.raises(NotFound):
        await ben.rpc.stub.GetDraft(pb.GetDraftRequest(name=own))


async def test_a_page_token_of_ones_own_draft_is_no_key_to_anothers(two: tuple[Person, Person]) -> None:
    ann, ben = two
    for person in two:
        await person.rpc.edit(ann.data.name, patch={"a": {"v": 1}}, draft="-")
    asked = pb.ListRecordsRequest(parent=ann.data.name, draft="-", page_size=1)
    asked.page_token = (await ann.rpc.stub.ListRecords(asked)).next_page_token
    assert [record.key for record in (await ann.rpc.stub.ListRecords(asked)).records] == ["b"]
    with pytest.raises(InvalidArgument, match="page_token"):
        await ben.rpc.stub.ListRecords(asked)
