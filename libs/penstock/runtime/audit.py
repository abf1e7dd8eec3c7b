"""From every server to the audit log: records are written to a file at once and sent in batches by the side.

So an audited call does not wait for the project service, and neither its absence nor a kill loses a record; after a
kill one may be sent twice.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import structlog
from google.protobuf.message import DecodeError

from penstock.api.project.v1.project_service_pb2 import AuditEntry, RecordAuditEntriesRequest
from penstock.api.project.v1.project_service_pb2_grpc import ProjectServiceStub
from penstock.errors import PenstockError
from penstock.rpc.calls import AuditRecord
from penstock.rpc.channels import Channels

BATCH = 100
PAUSE_SECONDS = 0.1
RETRY_SECONDS = 1.0
log = structlog.get_logger(__name__)

Send = Callable[[Sequence[AuditEntry]], Awaitable[None]]


def send_to_project(channels: Channels) -> Send:
    """Sending by the project service's rpc."""

    async def send(entries: Sequence[AuditEntry]) -> None:
        stub = channels.stub(ProjectServiceStub, "project")
        await stub.RecordAuditEntries(RecordAuditEntriesRequest(audit_entries=entries), timeout=5)

    return send


class AuditTrail:
    """Records waiting for the audit log, in memory and in `file` (mode 0600), which holds what a last life left."""

    def __init__(self, file: Path, send: Send) -> None:
        self._path = file
        self._send = send
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.touch(mode=0o600)
        self._waiting = _read(file)
        torn = file.read_bytes()[-1:] not in (b"", b"\n")  # by a kill or a full disk
        self._file = file.open("ab")
        if torn:
            self._file.write(b"\n")  # else the next record would be a part of that line
        self._wake = asyncio.Event()

    async def record(self, record: AuditRecord) -> None:
        """Keep one record; it is sent later."""
        entry = _entry(record)
        self._file.write(_line(entry))
        self._file.flush()
        self._waiting.append(entry)
        self._wake.set()

    async def run(self) -> None:
        """Send for ever."""
        while True:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            await asyncio.sleep(PAUSE_SECONDS)  # lets a batch gather
            try:
                await self.flush()
            except PenstockError as error:
                log.warning("audit records wait", records=len(self._waiting), error=str(error))
                await asyncio.sleep(RETRY_SECONDS)

    async def flush(self) -> None:
        """Send what waits. Raises Unavailable and the like; what was not sent goes on waiting."""
        while self._waiting:
            batch = self._waiting[:BATCH]
            await self._send(batch)
            del self._waiting[: len(batch)]
        self._file.truncate(0)

    def close(self) -> None:
        """Close the file; what waits is sent by the next life."""
        self._file.close()


def _entry(record: AuditRecord) -> AuditEntry:
    entry = AuditEntry(
        subject=record.caller.subject,
        on_behalf_of=record.caller.on_behalf_of,
        token=record.caller.token_id,
        token_project="" if record.caller.platform else record.caller.project,
        method=record.method,
        resource=record.resource,
        outcome=record.outcome,
        request_id=record.request_id,
    )
    entry.time.FromNanoseconds(int(record.time * 1e9))
    return entry


def _line(entry: AuditEntry) -> bytes:
    return json.dumps(entry.SerializeToString().hex()).encode() + b"\n"


def _read(path: Path) -> list[AuditEntry]:
    """The records in a file, but for lines that a kill, a full disk or damage made no record."""
    found = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        try:
            found += [AuditEntry.FromString(bytes.fromhex(json.loads(line)))] if line else []
        except (ValueError, TypeError, DecodeError) as error:
            log.error("a waiting audit record cannot be read", file=str(path), line=number, error=str(error))
    return found
