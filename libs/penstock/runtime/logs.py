"""Structured logs: one JSON object a line, from structlog and from `logging` alike, with secrets taken out.

Redaction is done on the finished line, so that it does not matter where in a message or traceback a secret stands.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

REDACTED = "[redacted]"
MIN_SECRET_CHARS = 6  # anything shorter would blank half of the log
# Tokens (JWT), NATS seeds, and the password in a URL.
_PATTERNS = (
    re.compile(r"eyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]+"),
    re.compile(r"\bS[UAON][A-Z2-7]{48,}\b"),
    re.compile(r"(?<=://)([^/\s:@\"]*:)[^/\s@\"]+(?=@)"),
)
_SENSITIVE = re.compile(r"(authorization|password|passwd|secret|token|credential|private_?key)$", re.IGNORECASE)
_known: set[str] = set()


def add_secrets(values: Iterable[str]) -> None:
    """Never log these values from now on, such as a secret of a project that a job gets."""
    for value in values:
        if len(value) >= MIN_SECRET_CHARS:
            _known.update((value, json.dumps(value)[1:-1]))


def redact(text: str) -> str:
    """The text without tokens, NATS seeds, passwords in URLs and known secrets."""
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, REDACTED)
    text = _PATTERNS[0].sub(REDACTED, text)
    text = _PATTERNS[1].sub(REDACTED, text)
    return _PATTERNS[2].sub(rf"\1{REDACTED}", text)


def _hide_fields(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Blank fields whose name says that they are secret."""
    for key in event:
        if _SENSITIVE.search(key) and event[key]:
            event[key] = REDACTED
    return event


class _RedactingFormatter(structlog.stdlib.ProcessorFormatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def configure(*, level: str = "info", json_lines: bool = True, file: Path | None = None) -> None:
    """Log to standard error, or to `file` (appended, mode 0600), from now on."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _hide_fields,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = _handler(file)
    handler.setFormatter(_RedactingFormatter(foreign_pre_chain=shared, processors=_rendering(json_lines)))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for chatty in ("pymongo", "nats", "asyncio", "grpc"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))


def _handler(file: Path | None) -> logging.Handler:
    if file is None:
        return logging.StreamHandler(sys.stderr)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    return logging.FileHandler(file, encoding="utf-8")


def _rendering(json_lines: bool) -> list[Any]:
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if not json_lines:
        return [remove, structlog.dev.ConsoleRenderer(colors=False)]
    return [remove, structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
