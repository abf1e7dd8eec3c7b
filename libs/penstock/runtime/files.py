"""Small files by which processes tell each other things: a reader meanwhile sees the old text or the new one."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Make the file at `path` hold `text`, in one step, readable by its owner alone. Not durable: it is not synced."""
    draft = path.with_name(f".{path.name}-{secrets.token_hex(6)}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
