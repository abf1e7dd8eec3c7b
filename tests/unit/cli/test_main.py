"""The command line without a platform: help, exit codes, errors, and how things are printed."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from penstock import errors
from penstock.api.training.v1 import training_service_pb2 as pb
from penstock.backing.ports import free_port
from penstock.cli import main as cli
from penstock.cli import platform
from penstock.cli.common import Session
from penstock.cli.train import logs
from penstock.runtime.settings import data_directory
from penstock.store import database


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, output, errors."""
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    printed = capsys.readouterr()
    return int(left.value.code or 0), printed.out, printed.err


def test_help_imports_neither_grpc_nor_rich_and_is_quick() -> None:
    code = (
        "import sys\n"
        "from penstock.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as left:\n    assert not left.code\n"
        "heavy = {'grpc', 'rich', 'google.protobuf', 'yaml', 'pyarrow', 'numpy'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))\n"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout
    assert all(name in done.stdout for name in cli.COMMANDS)
    assert time.monotonic() - began < 10  # a hang, not a budget: bench/ measures


def test_the_help_of_a_command_imports_no_grpc() -> None:
    code = (
        "import sys\nfrom penstock.cli.main import main\n"
        "try:\n    main(['pipeline', 'apply', '--help'])\nexcept SystemExit:\n    pass\n"
        "print('HEAVY', sorted({'grpc', 'rich', 'pyarrow'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_exists(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, name, "--help")
    assert code == 0
    assert "Usage" in out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.PenstockError("x"), 1),
        (errors.Conflict("x"), 1),
        (errors.ResourceExhausted("x"), 1),
        (errors.InvalidArgument("x"), 2),
        (errors.NotFound("x"), 2),
        (errors.AlreadyExists("x"), 2),
        (errors.FailedPrecondition("x"), 2),
        (errors.Unavailable("x"), 3),
        (errors.PermissionDenied("x"), 4),
        (errors.Unauthenticated("x"), 4),
    ],
)
def test_each_error_has_its_exit_code(error: errors.PenstockError, code: int) -> None:
    assert cli.exit_code(error) == code


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        else:
            yield " ".join((*path, name)), command


def test_every_command_takes_output_and_project() -> None:
    found = dict(commands(cli.cli))
    assert {"up", "status", "admin dead-letters drop"} <= set(found)
    for name, command in found.items():
        options = {option for parameter in command.params for option in parameter.opts}
        assert {"--output", "-o", "--project"} <= options, name


def test_a_command_without_a_connection_prints_one_json_object(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(platform, "ensure_setup", lambda: None)
    code, out, _ = run(capsys, "setup", "-o", "json", "--project", "any")
    assert (code, json.loads(out)) == (0, {"triton": str(data_directory())})
    code, out, _ = run(capsys, "down", "--home", str(tmp_path), "-o", "json", "--project", "any")
    assert (code, json.loads(out)) == (0, {"home": str(tmp_path), "stopped": True})
    code, out, _ = run(capsys, "status", "--home", str(tmp_path), "-o", "json", "--project", "any")
    assert (code, json.loads(out)["ready"]) == (3, False)
    code, out, err = run(capsys, "up", "--project", "Not An Id")
    assert (code, out) == (2, "") and "(field: project)" in err


WITHOUT_THE_EXTRA = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("click", "rich", "yaml"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from penstock.cli.entry import main
main()
"""


def test_the_base_install_says_what_the_command_line_needs() -> None:
    root = Path(__file__).parents[3]
    scripts = tomllib.loads((root / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"penstock": "penstock.cli.entry:main"}
    done = subprocess.run([sys.executable, "-c", WITHOUT_THE_EXTRA], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: the command line needs 'click': pip install 'penstock[cli]'\n"
    whole = [sys.executable, "-c", "from penstock.cli.entry import main; main()", "--version"]
    assert subprocess.run(whole, capture_output=True, text=True, check=True).stdout.startswith("penstock")


def test_wrong_usage_is_2_and_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["nonsense"], ["pipeline", "apply"], ["pipeline", "list", "--output", "xml"]):
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (2, "")
        assert err


def test_an_error_names_its_field_on_stderr(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("kind: Pipeline\nname: p\non: {event: a.b}\nsteps: [{fly: {}}]\n")
    code, out, err = run(capsys, "pipeline", "apply", "-f", str(file), "--url", "http://127.0.0.1:1", "--token", "t")
    assert (code, out) == (2, "")
    assert "error: steps[0] must have" in err
    assert "(field: steps[0])" in err
    assert "Traceback" not in err


HUGE = "9" * 25


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train", "d@1", "--code", ".", "--command", "python 'x"), "(field: command)"),
        (("train", "d@1", "--algorithm", "mlp", "--memory", HUGE), "--memory"),
        (("train", "d@1", "--algorithm", "mlp", "--timeout", HUGE), "--timeout"),
        (("train", "d@1", "--algorithm", "mlp", "--cpu", "-1"), "--cpu"),
        (("runs", "logs", "r", "--tail", HUGE), "--tail"),
        (("runs", "logs", "r", "--attempt", HUGE), "--attempt"),
        (("runs", "list", "--limit", "-3"), "--limit"),
        (("admin", "audit", "--limit", "0"), "--limit"),
        (("dataset", "records", "d", "--limit", "-3"), "--limit"),
        (("lineage", "trace", "x", "--records", "-3"), "--records"),
        (("dataset", "diff", "d", HUGE, "1"), "'A'"),
        (("dataset", "patch", "d", "k", "x"), "'x' is not FIELD=VALUE"),
        (("dataset", "patch", "d", "k", "x=" + "[" * 300 + "]" * 300), "nested deeper than 32 levels"),
        (("dataset", "patch", "d", "k", "x=" + "[" * 5000 + "]" * 5000), "nested too deeply"),
        (("events", "publish", "a.b", "--data", "[" * 5000 + "]" * 5000), "(field: data)"),
        (("dataset", "show", "d\udcff"), "is not UTF-8"),
        (("endpoint", "deploy", "e", "m@1", "--hold", "nan"), "(field: hold)"),
        (("endpoint", "deploy", "e", "m@1", "--hold", "inf"), "(field: hold)"),
        (("endpoint", "deploy", "e", "m@1", "--hold", "1e30"), "(field: hold)"),
        (("endpoint", "deploy", "e", "m@1", "--steps", f"{HUGE},100"), "(field: steps[0])"),
        (("dataset", "list", "--url", "http://127.0.0.1:99999"), "(field: url)"),
        (("dataset", "list", "--url", "http://127.0.0.1:abc"), "(field: url)"),
        (("dataset", "list", "--url", "http://[::1"), "(field: url)"),
        (("dataset", "list", "--token", "two\nlines"), "(field: token)"),
        (("admin", "token", "create", "--subject", "a", "--role", "viewer", "--ttl", "99999d"), "at most 36500d"),
        (("up", "--port", "99999"), "--port"),
        (("up", "--port", "0"), "--port"),
        (("demo", "--port", "-1"), "--port"),
        (("up", "--home", "/proc/x", "--port", str(free_port())), "/proc/x must be a folder that"),
        (("demo", "--to", "/proc/x"), "/proc/x cannot be written"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_name(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("PENSTOCK_TOKEN", "t")
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, ""), err
    assert said in err
    assert "Traceback" not in err


def test_a_port_in_use_and_a_database_that_is_not_there_are_found_before_anything_is_made(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for more in ((), ("--detach",)):
            code, out, err = run(capsys, "up", "--home", str(home), "--port", str(port), *more)
            assert (code, out) == (2, "")
            assert err.startswith(f"error: Port {port} is in use")
    monkeypatch.setitem(database._OPTIONS, "connectTimeoutMS", 300)
    for uri in ("nonsense", f"mongodb://127.0.0.1:{port}"):
        monkeypatch.setenv("PENSTOCK_MONGODB_URI", uri)
        code, out, err = run(capsys, "up", "--home", str(home), "--port", str(port))
        assert (code, out) == (2, "")
        assert "(field: PENSTOCK_MONGODB_URI)" in err
    assert not home.exists()


def test_a_fault_of_the_command_is_one_message_and_a_traceback_for_those_who_ask(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: Any) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(cli.cli, "main", fail)
    code, out, err = run(capsys, "model")
    assert (code, out) == (1, "")
    assert "RuntimeError: boom" in err and "PENSTOCK_LOG_LEVEL=debug" in err and "Traceback" not in err
    monkeypatch.setenv("PENSTOCK_LOG_LEVEL", "debug")
    assert "Traceback" in run(capsys, "model")[2]


def test_who_stops_following_a_log_hears_that_the_run_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_: Any) -> Iterator[Any]:
        raise KeyboardInterrupt
        yield

    session = Session("http://127.0.0.1:1", "t", None, "table")
    session.client.training.ReadLog = interrupted  # type: ignore[assignment]
    with session.client, pytest.raises(KeyboardInterrupt):
        logs.callback.__wrapped__(session, "r1", True, 0, 0)  # type: ignore[union-attr]
    assert "The run goes on. To stop it: penstock runs cancel r1" in capsys.readouterr().err


def test_a_log_is_gone_on_with_where_it_broke(capfd: pytest.CaptureFixture[str]) -> None:
    asked: list[Any] = []

    def stream(request: Any) -> Iterator[Any]:
        asked.append((request.attempt, request.offset, request.tail))
        if len(asked) == 1:
            yield pb.ReadLogResponse(data=b"one ", offset=44, attempt=3)
            raise errors.Unavailable("restarting")
        yield pb.ReadLogResponse(data=b"two", offset=47, attempt=3)

    session = Session("http://127.0.0.1:1", "t", None, "table")
    session.client.training.ReadLog = stream  # type: ignore[assignment]
    session.client._session._answered = True
    with session.client:
        logs.callback.__wrapped__(session, "r1", True, 5, 0)  # type: ignore[union-attr]
    assert capfd.readouterr().out == "one two"
    assert asked == [(0, 0, 5), (3, 44, 0)]


def test_a_platform_that_cannot_be_reached_is_3(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "pipeline", "list", "--url", "http://127.0.0.1:1", "--token", "t")
    assert code == 3
    assert "penstock status" in err


def test_a_file_that_cannot_be_written_is_an_error_without_a_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: Any) -> None:
        raise PermissionError(13, "Permission denied", "/out/x")

    monkeypatch.setattr(cli.cli, "main", fail)
    assert run(capsys, "model") == (1, "", "error: [Errno 13] Permission denied: '/out/x'\n")
