"""docs/reference/cli.md: every command, from the click tree."""

from __future__ import annotations

from collections.abc import Iterator

import click

from docgen.markdown import item, paragraph
from docgen.markdown import page as make_page
from penstock.cli.main import cli

# Every command that talks to the platform has these; they are told once.
COMMON = ("output", "project", "url", "token")

_INTRODUCTION = """`penstock COMMAND --help` says the same at the terminal. Progress and notes go to
standard error, results to standard output. Ctrl-C ends the command, not the work: it says how to follow
it."""

_EXIT_CODES = """| code | meaning |
|---|---|
| 0 | done |
| 1 | what was asked for failed: a run, a study, a verdict, a deployment |
| 2 | wrong usage or input: the message names the field |
| 3 | the platform cannot be reached, or a part of it does not answer |
| 4 | not allowed: no token, a wrong or expired one, or one without the role |
| 130 | interrupted by ctrl-C |"""

_OPTIONS = """`--output table|json` (`-o`): how to print; `json` is the API's resource, or `{"items":
[…]}` for a list. `--project PROJECT`, `--url URL` and `--token TOKEN`: where and as whom; see
[Settings](settings.md). Every command takes the first two, and every one that talks to the platform all four; they
stand after the command: `penstock runs list -o json`. What concerns a home as a whole (`setup`, `down`, `status`) is
the same with any project; `up` makes the project unless it is there."""


def page() -> str:
    """The page."""
    blocks = ["## Exit codes", _EXIT_CODES, "## Common options", paragraph(_OPTIONS)]
    for path, command in _commands(cli, ()):
        blocks += _command(path, command)
    return make_page("Command line", _INTRODUCTION, *blocks)


def _commands(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))


def _command(path: tuple[str, ...], command: click.Command) -> list[str]:
    help_text = paragraph(command.help or "")
    if isinstance(command, click.Group):
        return [f"{'#' * (len(path) + 1)} penstock {' '.join(path)}", help_text]
    options = [o for o in command.params if isinstance(o, click.Option) and not (o.name in COMMON and o.help)]
    options += [o for o in command.params if isinstance(o, click.Option) and o.name in COMMON and not o.help]
    lines = "\n".join(item(_option(option)) for option in options if option.name not in COMMON)
    return [f"{'#' * (len(path) + 1)} penstock {' '.join(path)}", f"    {_usage(path, command)}", help_text, lines]


def _usage(path: tuple[str, ...], command: click.Command) -> str:
    words = ["penstock", *path]
    context = click.Context(command)
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            words.append(parameter.make_metavar(context))
        elif isinstance(parameter, click.Option) and parameter.required:
            words += [parameter.opts[0], parameter.make_metavar(context)]
    return " ".join([*words, "[OPTIONS]"])


def _option(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in option.opts)
    if not option.is_flag:
        names += f" `{option.make_metavar(click.Context(click.Command('-')))}`"
    facts = []
    if option.required:
        facts.append("required")
    if option.multiple:
        facts.append("may be given several times")
    if option.show_default and isinstance(option.default, (str, int, float)):
        facts.append(f"default `{option.default}`")
    told = names + (f" ({', '.join(facts)})" if facts else "")
    return told + (f": {option.help}" if option.help else "")
