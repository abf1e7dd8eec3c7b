"""Domain errors: what can go wrong, said once, from the store to the wire.

They carry no transport codes: `penstock.rpc.errors` maps each class to a gRPC status and back.
A message is for the user: it says what is wrong and what to do about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class FieldViolation:
    """One field of a request that is not acceptable: its path, as in the proto, and what to do."""

    field: str
    description: str


class PenstockError(Exception):
    """The base of all domain errors.

    `violations` name the fields of the request that are at fault (`field` is the short form for one);
    `metadata` are machine-readable facts (string to string) that travel in ErrorInfo.
    """

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        violations: Sequence[FieldViolation] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        named = (FieldViolation(field, message),) if field else ()
        self.violations: tuple[FieldViolation, ...] = (*named, *violations)
        self.metadata: dict[str, str] = dict(metadata or {})


class NotFound(PenstockError):
    """The named resource does not exist (or never did)."""


class AlreadyExists(PenstockError):
    """A resource of that name exists already, and was not made by this request."""


class Conflict(PenstockError):
    """Somebody else changed the resource first: read it again and retry."""


class Unauthenticated(PenstockError):
    """No token, or one that is malformed, expired or revoked."""


class PermissionDenied(PenstockError):
    """The caller is known and may not do this."""


class FailedPrecondition(PenstockError):
    """The resource is not in a state in which this can be done."""


class InvalidArgument(PenstockError):
    """The request itself is wrong, whatever the state of the platform."""


class ResourceExhausted(PenstockError):
    """A limit was reached: a quota, a full disk, a message that is too large."""


class Unavailable(PenstockError):
    """A part that is needed does not answer now; the same request may work later."""


class DataCorrupt(PenstockError):
    """Stored bytes do not have the digest under which they were stored."""
