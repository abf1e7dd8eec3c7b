"""Freeze a draft, which queues it to become the next version; or throw it away."""

from __future__ import annotations

from collections.abc import Callable

from penstock.errors import FailedPrecondition, InvalidArgument
from penstock.store import Cause, Stored, current_cause, now
from services.dataset.model import Draft, DraftState
from services.dataset.repository import Repository

MAX_MESSAGE = 4096


async def commit_draft(
    repository: Repository,
    name: str,
    message: str,
    committer: str,
    request: str,
    wake: Callable[[str], None],
    etag: str = "",
) -> Stored[Draft]:
    """Step (a) of a commit. Raises NotFound, FailedPrecondition (frozen already, no changes), InvalidArgument.

    With the `etag` of what is meant to be committed: raises Conflict if it is another one by now.
    """
    if not message.strip() or len(message) > MAX_MESSAGE:
        raise InvalidArgument(f"Say in 1 to {MAX_MESSAGE} characters what the version is for.", field="message")
    cause = current_cause.get() or Cause()
    stored = await repository.drafts.change(
        name, lambda draft: draft.freeze(message, committer, cause, now()), request_id=request or None, etag=etag
    )
    wake(stored.value.dataset)
    return stored


async def delete_draft(repository: Repository, name: str, etag: str = "") -> None:
    """Throw a draft away. Raises NotFound, FailedPrecondition while it is being committed, Conflict (or other etag)."""
    stored = await repository.drafts.get(name)
    stored.check_etag(etag)
    if stored.value.state is DraftState.FROZEN:
        raise FailedPrecondition(f"The draft {stored.value.id} is being committed: wait until that has ended.")
    await repository.drafts.delete(stored)
