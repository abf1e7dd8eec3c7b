import json
from pathlib import Path

from penstock.edge import access_log
from penstock.edge.access_log import Position


def line(request_id: str, **changes: object) -> str:
    fields = {
        "time": "2026-11-21T01:18:49.258Z",
        "method": "POST",
        "path": "/v2/models/clf/infer",
        "status": 200,
        "grpc_status": None,
        "duration": 2,
        "attempts": 1,
        "host": "127.0.0.1:1",
        "project": "alpha",
        "endpoint": "clf",
        "revision": "projects/alpha/endpoints/clf/revisions/12",
        "request_id": request_id,
        "flags": "-",
    }
    return json.dumps({**fields, **changes}) + "\n"


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def ids(path: Path, since: Position) -> tuple[str, Position]:
    records, position = access_log.read(path, since)
    return "".join(record.request_id for record in records), position


def test_a_record_has_its_revision_and_seconds(tmp_path: Path) -> None:
    append(tmp_path / "log", line("a", grpc_status=14))
    (record,), _ = access_log.read(tmp_path / "log", Position())
    assert (record.revision, record.duration, record.grpc_status) == (12, 0.002, 14)


def test_a_log_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert access_log.read(tmp_path / "log", Position()) == ([], Position())
    assert access_log.end(tmp_path / "log") == Position()


def test_each_record_is_read_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    append(log, line("a") + line("b"))
    seen, position = ids(log, Position())
    append(log, line("c"))
    assert (seen, ids(log, position)[0]) == ("ab", "c")


def test_an_unfinished_line_waits(tmp_path: Path) -> None:
    log = tmp_path / "log"
    append(log, line("a") + line("b")[:30])
    seen, position = ids(log, Position())
    append(log, line("b")[30:])
    assert (seen, ids(log, position)[0]) == ("a", "b")


def test_a_rotated_log_is_read_to_its_end_first(tmp_path: Path) -> None:
    log = tmp_path / "log"
    append(log, line("a"))
    _, position = ids(log, Position())
    append(log, line("b"))
    access_log.rotate(log)
    assert ids(log, position)[0] == "b"
    append(log, line("c"))
    seen, position = ids(log, position)
    assert seen == "bc"
    append(log, line("d"))
    assert ids(log, position)[0] == "d"


def test_a_log_that_was_cut_is_read_from_its_beginning(tmp_path: Path) -> None:
    log = tmp_path / "log"
    append(log, line("a") * 3)
    _, position = ids(log, Position())
    log.write_text(line("b"))
    assert ids(log, position)[0] == "b"


def test_lines_that_are_no_records_are_passed_over(tmp_path: Path) -> None:
    log = tmp_path / "log"
    append(log, '{"half": \n' + line("a", endpoint=None) + line("b", revision=None))
    (record,), _ = access_log.read(log, Position())
    assert (record.request_id, record.revision) == ("b", None)
