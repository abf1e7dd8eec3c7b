"""`penstock setup | up | down | status`: the platform of this machine."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock import names
from penstock.cli.common import any_project, output_option, show_facts, table
from penstock.cli.progress import Progress
from penstock.errors import FailedPrecondition, PenstockError, Unavailable
from penstock.runtime.settings import ClientSettings, Settings, data_directory, home_directory, mongodb_uri

if TYPE_CHECKING:
    from penstock.backing.process import ManagedProcess

DEFAULT_PORT = 8420
_HOME = click.option(
    "--home", type=click.Path(path_type=Path, file_okay=False), help="The home [PENSTOCK_HOME, or ~/.penstock]."
)
_DETACH_PATIENCE = 90.0  # seconds
_DYING_SECONDS = 0.1  # in which a process that was just killed is gone, or seen to be dying
_DEAD_WITHIN = 30.0  # seconds for one that is


@click.command()
@output_option
@any_project
def setup(output: str) -> None:
    """Install what pip cannot: Triton's own environment (shared by all homes). Does nothing if it is there."""
    ensure_setup()
    show_facts(output, {"triton": str(data_directory())}, f"Triton is in {data_directory()}")


def ensure_setup() -> None:
    """Make Triton's environment unless it is there, with progress."""
    from penstock.backing.triton_environment import find_environment, setup_environment

    if find_environment(data_directory()) is not None:
        return
    progress = Progress()
    setup_environment(data_directory(), lambda text, done: progress.show(f"Triton: {text}", done))
    progress.done()


@click.command()
@_HOME
@click.option(
    "--port",
    default=None,
    type=click.IntRange(1, 65535),
    help=f"The one port [{DEFAULT_PORT}, or the home's last one].",
)
@click.option("--detach", is_flag=True, help="Return when it is ready, and leave it running.")
@click.option("--project", metavar="PROJECT", help="A project to begin with [PENSTOCK_PROJECT, or default].")
@output_option
def up(home: Path | None, port: int | None, detach: bool, project: str | None, output: str) -> None:
    """Start the platform on this machine: real servers, on loopback, all state under one home directory."""
    project = names.check_id(project, "project") if project else None
    home = (home or home_directory()).expanduser().absolute()
    if _runs_already(home, port, detach, output):
        return
    port = port or _last_port(home) or DEFAULT_PORT
    _check_start(home, port)
    ensure_setup()
    if detach:
        _say_ready(home, start_detached(home, port, project), "stop it with `penstock down`", output)
        return
    asyncio.run(_supervise(home, port, project, output))


def _check_start(home: Path, port: int) -> None:
    """Raise PenstockError for what would stop the start, before there is anything of it."""
    from penstock.backing.embedded import check_port, prepare_home

    check_port(home, port)
    if (uri := mongodb_uri()) is not None:
        from penstock.store.database import check_given  # the driver is slow to import, and rarely needed here

        check_given(uri)
    prepare_home(home)


def _say_ready(home: Path, url: str, how_to_stop: str, output: str) -> None:
    """The commands find the default home by themselves; any other they must be told."""
    lines = [f"token in {home / 'token'}; {how_to_stop}", f"ready {url}"]
    if home != home_directory().expanduser().absolute():
        lines.insert(0, f"for other commands: export PENSTOCK_HOME={shlex.quote(str(home))}")
    facts = {"home": str(home), "url": url, "token_file": str(home / "token"), "ready": True}
    show_facts(output, facts, *lines)


def _runs_already(home: Path, port: int | None, wait: bool, output: str) -> bool:
    """Whether there is nothing to start, which is said; with `wait`, a platform that is still starting is no reason.

    Raises Unavailable if a part of it is down, FailedPrecondition if it has another port than the wanted one.
    """
    from penstock.backing.readiness import what_is_down

    supervisor = _supervisor(home)
    if supervisor is None:
        return False
    url = f"http://127.0.0.1:{supervisor.facts['port']}"
    if port not in (None, supervisor.facts["port"]):
        raise FailedPrecondition(f"The platform of {home} runs at {url}: stop it before you give it another port.")
    if not _ready_file(home).exists():
        if wait:
            return False
        raise Unavailable(
            f"Process {supervisor.identity.pid} is starting it: `penstock status` tells when it is ready."
        )
    down = asyncio.run(what_is_down(home))
    if down:
        raise Unavailable("\n  ".join(["The platform runs already, but not all of it:", *down]))
    facts = {"home": str(home), "url": url, "token_file": str(home / "token"), "ready": True}
    show_facts(output, facts, f"already ready at {url}")
    return True


def _supervisor(home: Path) -> ManagedProcess | None:
    """Who keeps the platform of a home up, unless it is this process. One that was just killed is gone in a moment."""
    from penstock.backing.process import ManagedProcess
    from penstock.backing.records import SUPERVISOR

    found = ManagedProcess.adopt(home, SUPERVISOR)
    if found is None or found.identity.pid == os.getpid() or found.identity.wait(_DYING_SECONDS):
        return None
    if found.identity.doomed() and found.identity.wait(_DEAD_WITHIN):
        return None
    return found


def _ready_file(home: Path) -> Path:
    return home / "run" / "platform.ready"


def _last_port(home: Path) -> int | None:
    try:
        return int((home / "url").read_text().strip().rpartition(":")[2])
    except (OSError, ValueError):
        return None


def start_detached(home: Path, port: int, project: str | None = None) -> str:
    """Start the supervisor as a process of its own, unless there is one; answers the URL when the platform is ready."""
    from penstock.backing.embedded import prepare_home
    from penstock.backing.process import ManagedProcess, Program
    from penstock.backing.records import SUPERVISOR
    from penstock.runtime.settings import whole_environment

    prepare_home(home)
    ready = _ready_file(home)
    _supervisor(home)  # one that is about to go is no reason to start none

    def program() -> Program:
        ready.unlink(missing_ok=True)  # before anybody waits for it
        argv = [sys.executable, "-m", "penstock.cli", "up", "--home", str(home), "--port", str(port)]
        argv += ["--project", project] if project else []
        return Program(SUPERVISOR, argv, env=whole_environment(), facts={"port": port})

    process = ManagedProcess.ensure(home, SUPERVISOR, program)
    deadline = time.monotonic() + _DETACH_PATIENCE
    while not (url := _url_if_ready(home)):
        if not process.alive() and process.exit_status() is None:  # somebody else's, about to stop or failed to start
            process = ManagedProcess.ensure(home, SUPERVISOR, program)
        elif not process.alive():
            said = process.log_tail(12)
            # What it says of itself is what counts; without that, whatever it said last.
            raise FailedPrecondition(f"The platform did not start:\n{said.rpartition('error: ')[2]}")
        if time.monotonic() > deadline:
            raise Unavailable(f"The platform is not ready after {_DETACH_PATIENCE:g} s:\n{process.log_tail(12)}")
        time.sleep(0.05)
    return url


def _url_if_ready(home: Path) -> str:
    try:
        return _ready_file(home).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""


async def _supervise(home: Path, port: int, project: str | None, output: str) -> None:
    """Start everything, keep it up, and stop it in order at SIGTERM or ctrl-C."""
    from penstock.backing.embedded import Embedded, prepare_home
    from penstock.backing.process import ManagedProcess
    from penstock.backing.records import SUPERVISOR
    from penstock.backing.supervisor import Supervisor
    from penstock.runtime import logs
    from penstock.runtime.files import replace_text

    settings = Settings.from_environ(home=home)
    logs.configure(level=settings.log_level, json_lines=settings.log_format == "json" and not sys.stderr.isatty())
    prepare_home(home)
    ManagedProcess.become(home, SUPERVISOR, {"port": port})
    ready = _ready_file(home)
    ready.unlink(missing_ok=True)  # of a supervisor that was killed
    platform = Embedded(home, port, mongodb_uri(), project)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    progress = Progress()
    supervisor = Supervisor()
    ran = any(part["running"] for part in platform.status() if part["name"] != SUPERVISOR)
    stop = True
    try:
        starting = asyncio.create_task(platform.start(progress.show))
        asked = asyncio.create_task(stopping.wait())
        await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            stop = not ran or starting.exception() is None  # after a start that failed, what still serves goes on
            await starting
            progress.done()
            platform.supervise(supervisor)
            replace_text(ready, platform.url)
            _say_ready(home, platform.url, "ctrl-C stops the platform", output)
            ended = asyncio.create_task(supervisor.ended())
            await asyncio.wait({asked, ended}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done() and not asked.done():
                raise PenstockError(f"Nobody watched over {await ended} any more, so the platform was stopped.")
            ended.cancel()
        else:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
    finally:
        ready.unlink(missing_ok=True)
        await supervisor.close()
        if stop:
            await platform.stop(progress.show)
        else:
            click.echo("What ran before was left running: try again, or stop it with `penstock down`.", err=True)
        progress.done()


@click.command()
@_HOME
@output_option
@any_project
def down(home: Path | None, output: str) -> None:
    """Stop the platform of a home directory, whoever started it. Its data stays."""
    home = (home or home_directory()).expanduser().absolute()
    stop_platform(home)
    show_facts(output, {"home": str(home), "stopped": True}, "stopped")


def stop_platform(home: Path) -> None:
    """End the supervisor, and then what a dead one left."""
    from penstock.backing.embedded import Embedded
    from penstock.backing.process import ManagedProcess
    from penstock.backing.records import SUPERVISOR

    if not home.is_dir():
        raise FailedPrecondition(f"There is no home directory {home}; give the right one with --home.")
    supervisor = ManagedProcess.adopt(home, SUPERVISOR)
    if supervisor is not None:
        supervisor.stop(grace=45)
    asyncio.run(Embedded(home, _last_port(home) or DEFAULT_PORT, mongodb_uri()).stop())


@click.command()
@_HOME
@output_option
@any_project
def status(home: Path | None, output: str) -> None:
    """What runs of a home directory, and whether all of it answers. Exits with 3 if it does not, and says what."""
    from penstock.backing.embedded import Embedded
    from penstock.backing.readiness import what_is_down

    home = (home or ClientSettings.from_environ().home).expanduser().absolute()
    if not home.is_dir():
        raise Unavailable(f"There is no home directory {home}: start one with `penstock up --home {home}`.")
    port = _last_port(home) or DEFAULT_PORT
    parts = Embedded(home, port).status()
    down = asyncio.run(what_is_down(home))
    url = f"http://127.0.0.1:{port}"
    facts = {"home": str(home), "url": url, "ready": not down, "down": down, "processes": parts}
    show_facts(output, facts, f"{url}  {'not ready' if down else 'ready'}")
    if output == "table":
        table(
            ["PROCESS", "STATE", "PID", "PORT", "METRICS"],
            [
                [p["name"], "running" if p["running"] else "stopped", p["pid"], p.get("port", ""), p.get("metrics", "")]
                for p in parts
            ],
        )
    if not any(part["running"] for part in parts):
        raise Unavailable(f"The platform does not run: start it with `penstock up --home {home}`.")
    if down:
        raise Unavailable("\n  ".join(["The platform is not well:", *down]))
