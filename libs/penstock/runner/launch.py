"""Starts the user's command: a session of its own, a clean environment, no descriptor of ours, limits, fewer rights.

Plain fork instead of `subprocess`, for two reasons: what is started may be a function of this (warm) interpreter, and
the child itself records who it is before it becomes the command, so that no kill can leave it running unrecorded.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from penstock.runner import processes
from penstock.runner.isolation import Isolation

# A process may map more than it uses. The limit on its use is watched from outside (see supervise); this one is only to
# stop a single huge allocation, which would be faster than the watch.
MAPPED_HEADROOM = 1 << 30

CANNOT_RUN, NOT_FOUND = 126, 127  # exit codes, as shells have them


@dataclass(frozen=True)
class Command:
    """What to start: an argument vector, or a function of this interpreter that returns an exit code."""

    argv: Sequence[str] = ()
    function: Callable[[], int] | None = None


@dataclass(frozen=True)
class Surroundings:
    """Where and how it runs. `output` is the descriptor that becomes stdout and stderr; `memory` in bytes, or 0."""

    folder: Path
    environment: Mapping[str, str]
    output: int
    isolation: Isolation
    memory: int = 0


def launch(command: Command, surroundings: Surroundings, record: Callable[[processes.Identity], None]) -> int:
    """Start the command and return its pid. `record` is called inside the child, before the command has a say.

    Call from a process with one thread. What cannot be started ends with code 126 or 127 and says why on its output.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _child(command, surroundings, record, parent)
    return pid


def _child(
    command: Command, surroundings: Surroundings, record: Callable[[processes.Identity], None], parent: int
) -> NoReturn:
    code = CANNOT_RUN
    try:
        os.setsid()
        _descriptors(surroundings.output)
        _signals()
        record(processes.identity_of(os.getpid()))
        _limits(surroundings, in_process=command.function is not None)
        surroundings.isolation.enter()
        processes.no_new_privileges()
        # Last: a change of user would clear it.
        processes.die_with_parent(parent)
        os.chdir(surroundings.folder)
        code = _become(command, dict(surroundings.environment))
    except OSError as error:
        code = NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_RUN
        _say(f"cannot start '{command.argv[0]}': {error.strerror}")
    except BaseException:  # noqa: BLE001 - a forked child must never return into its parent's code
        _say(traceback.format_exc())
    finally:
        os._exit(code)


def _become(command: Command, environment: dict[str, str]) -> int:
    if command.function is None:
        os.execvpe(command.argv[0], list(command.argv), environment)
    gc.enable()
    os.environ.clear()
    os.environ.update(environment)
    # This interpreter's own streams may be bound elsewhere, or hold what it has not printed yet.
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    _fresh_randomness()
    try:
        return command.function()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 - what an interpreter does with an exception that nobody caught
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _descriptors(output: int) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    # Everything else goes: above all the lock, which a plain fork would keep for a dead shim.
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _signals() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _limits(surroundings: Surroundings, *, in_process: bool) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A warm interpreter has mapped its libraries already; how much is no matter of this job.
    if surroundings.memory and not in_process:
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        wanted = surroundings.memory + MAPPED_HEADROOM
        if hard == resource.RLIM_INFINITY or wanted < hard:
            resource.setrlimit(resource.RLIMIT_DATA, (wanted, wanted))


def _fresh_randomness() -> None:
    # Children of one warm interpreter would all draw the same numbers. (`random` reseeds itself at a fork.)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()


def _say(text: str) -> None:
    os.write(2, f"[penstock] {text}\n".encode("utf-8", "replace"))
