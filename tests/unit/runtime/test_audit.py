"""The file of waiting audit records: whatever became of it, a start goes on with what can be read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from penstock.api.project.v1.project_service_pb2 import AuditEntry
from penstock.rpc.caller import Caller
from penstock.rpc.calls import AuditRecord
from penstock.runtime.audit import AuditTrail


async def record(file: Path, *resources: str) -> None:
    """What a life leaves that never sent anything."""
    trail = AuditTrail(file, _never)
    for resource in resources:
        caller = Caller("ann", "vision", "editor", token_id="t1")
        await trail.record(AuditRecord(caller, "Service.Method", resource, "OK", "r1", 1.0))
    trail.close()


async def sent(file: Path) -> list[str]:
    """What the next life sends."""
    found: list[str] = []

    async def send(entries: Sequence[AuditEntry]) -> None:
        found.extend(entry.resource for entry in entries)

    trail = AuditTrail(file, send)
    await trail.flush()
    trail.close()
    return found


async def _never(entries: Sequence[AuditEntry]) -> None:
    raise AssertionError(entries)


@pytest.mark.parametrize("line", [b"{\n", b'"zz"\n', b'"ff"\n', b"17\n", b"\0\0\n", b"\xff\n"])
async def test_a_damaged_line_costs_no_other_one(tmp_path: Path, line: bytes) -> None:
    file = tmp_path / "all.pending"
    await record(file, "first")
    with file.open("ab") as damaged:
        damaged.write(line)
    await record(file, "second")
    assert await sent(file) == ["first", "second"]


async def test_a_record_after_a_line_that_was_cut_short_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "all.pending"
    await record(file, "first", "cut")
    file.write_bytes(file.read_bytes()[:-10])
    await record(file, "second")
    assert await sent(file) == ["first", "second"]
