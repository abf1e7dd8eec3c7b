"""Logs are JSON lines without secrets, from structlog and logging alike."""

from __future__ import annotations

import json
import logging
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from penstock.rpc.keys import Keys
from penstock.rpc.tokens import Tokens
from penstock.runtime import logs


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logs.configure(file=tmp_path / "log.jsonl")
    yield tmp_path / "log.jsonl"
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    logs._known.clear()


def lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_both_ways_of_logging_give_the_same_lines(file: Path) -> None:
    structlog.get_logger("penstock.a").info("hello", rows=3)
    logging.getLogger("penstock.b").warning("bye %s", "now")
    first, second = lines(file)
    assert (first["event"], first["rows"], first["level"], first["logger"]) == ("hello", 3, "info", "penstock.a")
    assert (second["event"], second["level"], second["logger"]) == ("bye now", "warning", "penstock.b")
    assert str(first["timestamp"]).endswith("Z")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_an_exception_is_one_line_with_its_traceback(file: Path) -> None:
    try:
        raise ValueError("broken")
    except ValueError as error:
        structlog.get_logger().error("failed", exc_info=error)
        logging.getLogger("x").exception("failed too")
    for line in lines(file):
        assert "ValueError: broken" in str(line["exception"])


def test_secrets_never_reach_the_log_wherever_they_stand(file: Path) -> None:
    token = Tokens(Keys.generate()).mint("ann", "vision", "admin", 60)
    secret = 'quoted "and" long'
    logs.add_secrets([secret, "x"])
    log = structlog.get_logger()
    log.info(f"got {token}", authorization="Bearer abc", data={"inner": f"Bearer {token}"}, api_token="plain-one")
    log.info("mongodb://user:pa55word@host/db", value=secret)
    logging.getLogger("nats").error("seed %s", "SU" + "A" * 56)
    try:
        raise RuntimeError(f"with {secret} and {token}")
    except RuntimeError as error:
        log.error("failed", exc_info=error)
    text = file.read_text()
    for hidden in (token, "Bearer abc", "plain-one", "pa55word", secret, json.dumps(secret)[1:-1], "SUAAAA"):
        assert hidden not in text
    assert "mongodb://user:" in text and "@host/db" in text
    assert all(lines(file)), "still JSON"


def test_without_redaction_the_token_would_be_there(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of the test above."""
    monkeypatch.setattr(logs, "redact", lambda text: text)
    token = Tokens(Keys.generate()).mint("ann", "vision", "admin", 60)
    structlog.get_logger().info(f"got {token}")
    assert token in file.read_text()


def test_levels_below_the_chosen_one_are_left_out(file: Path) -> None:
    structlog.get_logger().debug("no")
    structlog.get_logger().info("yes")
    assert [line["event"] for line in lines(file)] == ["yes"]
