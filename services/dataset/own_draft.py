"""The draft that is a caller's own: what the draft id `-` stands for."""

from __future__ import annotations

import hashlib
import re

from penstock import names
from penstock.rpc.caller import caller

_PLAIN = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_PREFIX = "draft-"
_LONGEST = 63 - len(_PREFIX)
_DIGITS = 12  # of a hash; 48 bits


def own_draft(actor: str) -> str:
    """The id of an actor's own draft: `draft-ann` for ann, `draft-ann-example-org--<hash>` for ann@example.org.

    No two actors have the same: a hash tells apart what looks alike, and only what has a hash contains `--`.
    """
    if _PLAIN.fullmatch(actor) and len(actor) <= _LONGEST:
        return _PREFIX + actor
    slug = re.sub(r"[^a-z0-9]+", "-", actor.lower()).strip("-") or "me"
    slug = slug[: _LONGEST - _DIGITS - 2].rstrip("-")
    return f"{_PREFIX}{slug}--{hashlib.sha256(actor.encode('utf-8', 'surrogatepass')).hexdigest()[:_DIGITS]}"


def draft_id(asked: str) -> str:
    """The id of the draft that a request means, "" for none."""
    return own_draft(caller().actor) if asked == names.OWN_DRAFT else asked


def draft_name(asked: str) -> str:
    """The name of the draft that a request means. Raises InvalidArgument."""
    name = names.parse(asked, kind="draft")
    return f"{name.parent}/drafts/{draft_id(name.id)}"
