"""Secrets at rest: encrypted under a key that is not in the database, so a copy of the database tells none."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from penstock.errors import DataCorrupt, FailedPrecondition


class Vault:
    """Seals and opens values with the key in `path`, made at first use with mode 0600.

    Raises FailedPrecondition if the key is damaged.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _make_key(path)
        try:
            self._fernet = Fernet(path.read_bytes())
        except ValueError as error:
            raise FailedPrecondition(
                f"The key of all secrets, {path}, is damaged: restore it from a backup."
            ) from error

    def seal(self, value: bytes) -> str:
        """The encrypted text of a value."""
        return self._fernet.encrypt(value).decode()

    def open(self, sealed: str) -> bytes:
        """The value again; raises DataCorrupt if it was sealed by another key or changed."""
        try:
            return self._fernet.decrypt(sealed.encode())
        except InvalidToken:
            raise DataCorrupt(
                "The secret was sealed with another key: restore the key, or delete the secret and store it again."
            ) from None


def _make_key(path: Path) -> None:
    """Whole or not at all, and never over another one: secrets may be sealed with that already."""
    draft = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(Fernet.generate_key())
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass  # another process was first
    finally:
        draft.unlink()
