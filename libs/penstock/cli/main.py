"""The entry point: which command lives where, and how errors become exit codes."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

import click

from penstock import __version__, errors
from penstock.runtime import settings

# name -> (module:attribute, one line of help). The lines stand here so that `--help` imports nothing else.
COMMANDS: dict[str, tuple[str, str]] = {
    "setup": ("penstock.cli.platform:setup", "Install what pip cannot: Triton's own environment."),
    "up": ("penstock.cli.platform:up", "Start the platform on this machine."),
    "down": ("penstock.cli.platform:down", "Stop the platform of a home directory."),
    "status": ("penstock.cli.platform:status", "What runs, and whether it is well."),
    "demo": ("penstock.cli.demo:demo", "Close the whole loop once, on handwritten digits."),
    "dataset": ("penstock.cli.dataset:dataset", "Import, edit, commit, compare and export datasets."),
    "train": ("penstock.cli.train:train", "Train a model on a dataset version."),
    "runs": ("penstock.cli.train:runs", "Look at training runs: state, logs, metrics."),
    "tune": ("penstock.cli.tune:tune", "Search hyper-parameters: start a study from a YAML file."),
    "studies": ("penstock.cli.tune:studies", "Look at studies and stop them."),
    "model": ("penstock.cli.model:model", "List, show and download models."),
    "evaluate": ("penstock.cli.evaluate:evaluate", "Evaluate a model version on a dataset version."),
    "evaluations": ("penstock.cli.evaluate:evaluations", "Look at evaluations and their verdicts."),
    "endpoint": ("penstock.cli.endpoint:endpoint", "Deploy models, roll back, predict."),
    "predict": ("penstock.cli.endpoint:predict", "Send a KServe v2 request to an endpoint."),
    "pipeline": ("penstock.cli.pipeline:pipeline", "Apply pipelines, see their runs and why they ran."),
    "lineage": ("penstock.cli.lineage:lineage", "Trace a prediction; see what a record led to."),
    "events": ("penstock.cli.events:events", "Follow and publish events."),
    "admin": ("penstock.cli.admin:admin", "Projects, tokens, publishers, audit log, dead letters, replay."),
}

EXIT_FAILED, EXIT_USAGE, EXIT_UNREACHABLE, EXIT_DENIED = 1, 2, 3, 4

EXIT_CODES: tuple[tuple[type[errors.PenstockError], int], ...] = (
    (errors.Unavailable, EXIT_UNREACHABLE),
    (errors.PermissionDenied, EXIT_DENIED),
    (errors.Unauthenticated, EXIT_DENIED),
    (errors.InvalidArgument, EXIT_USAGE),
    (errors.NotFound, EXIT_USAGE),
    (errors.AlreadyExists, EXIT_USAGE),
    (errors.FailedPrecondition, EXIT_USAGE),
    (errors.PenstockError, EXIT_FAILED),
)


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the order of the loop, not of the alphabet."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with their one-line help, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 done, 1 failed (a run, a verdict), 2 wrong usage or input, "
    "3 the platform cannot be reached, 4 not allowed.",
)
@click.version_option(__version__, prog_name="penstock")
def cli() -> None:
    """Penstock: from a corrected label to a better served model, with nobody asking."""


def exit_code(error: errors.PenstockError) -> int:
    """The documented exit code for an error."""
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code; errors are one message on stderr, never a traceback."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    settings.forbid_telemetry()
    try:
        check_text(given)
        code = cli.main(args=given, standalone_mode=False)
    except click.exceptions.Abort:
        code = 130
    except click.ClickException as error:
        error.show()
        code = EXIT_USAGE
    except errors.PenstockError as error:
        show_error(error)
        code = exit_code(error)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    except OSError as error:  # a file that cannot be written, a full disk
        click.echo(f"error: {error}", err=True)
        code = EXIT_FAILED
    except Exception as error:  # noqa: BLE001 (a fault of the command itself)
        show_fault(error)
        code = EXIT_FAILED
    _flush()
    sys.exit(code if isinstance(code, int) else 0)


def _flush() -> None:
    """Write what is left; where that is impossible (a full disk), forget it: Python itself would exit with 120."""
    for stream in (sys.stdout, sys.stderr):
        if stream.closed:
            continue
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def check_text(arguments: Sequence[str]) -> None:
    """Raise UsageError for an argument that is not UTF-8: nothing of Penstock can say it."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise click.UsageError(f"The argument {argument.encode(errors='replace').decode()} is not UTF-8.") from None


def show_fault(error: Exception) -> None:
    """Say that the command itself is at fault; where, to those who ask for it."""
    if settings.debugging():
        traceback.print_exception(error)
    click.echo(
        f"error: Penstock failed where it should not: {type(error).__name__}: {str(error)[:300]}\n"
        "  Please report it with what the same command prints with PENSTOCK_LOG_LEVEL=debug.",
        err=True,
    )


def show_error(error: errors.PenstockError) -> None:
    """Print an error with the fields that it names."""
    click.echo(f"error: {error.message}", err=True)
    for violation in error.violations:
        if violation.description != error.message:
            click.echo(f"  {violation.field}: {violation.description}", err=True)
        else:
            click.echo(f"  (field: {violation.field})", err=True)
