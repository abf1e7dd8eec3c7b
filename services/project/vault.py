"""Secrets at rest: encrypted under a key that is not in the database, so a copy of the database tells none."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from penstock.errors import DataCorrupt


class Vault:
    """Seals and opens values with the key in `path`, made at first use with mode 0600."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(Fernet.generate_key())
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            pass  # made at an earlier start
        self._fernet = Fernet(path.read_bytes())

    def seal(self, value: bytes) -> str:
        """The encrypted text of a value."""
        return self._fernet.encrypt(value).decode()

    def open(self, sealed: str) -> bytes:
        """The value again; raises DataCorrupt if it was sealed by another key or changed."""
        try:
            return self._fernet.decrypt(sealed.encode())
        except InvalidToken:
            raise DataCorrupt("The secret was sealed with another key: restore the key, or store it again.") from None
