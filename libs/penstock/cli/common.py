"""What all commands share: the connection options, how resources are printed, and how long work is followed."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import click

from penstock.errors import InvalidArgument, NotFound
from penstock.sdk import references

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from penstock.sdk.client import Client

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Session:
    """The connection and output format of one command."""

    url: str | None
    token: str | None
    project: str | None
    output: str

    @cached_property
    def client(self) -> Client:
        """The connection, made when first used. Raises InvalidArgument if --project names none."""
        from penstock.sdk.client import Client  # grpc costs more than all of click: only those who call pay for it

        client = Client(self.url, self.token, self.project)
        try:
            if self.project is not None:
                _check_project(client)
        except Exception:
            client.close()
            raise
        return client

    def is_there(self) -> bool:
        """Whether the platform has answered, or is known to be kept up."""
        return self.client.is_there

    @property
    def json(self) -> bool:
        """Whether the output is for programs."""
        return self.output == "json"

    def show(self, resource: Message, text: str | None = None) -> None:
        """Print one resource: its JSON, or `text` (all its fields without one)."""
        if self.json:
            click.echo(json.dumps(to_dict(resource), indent=2, ensure_ascii=False))
        else:
            click.echo(text if text is not None else describe(to_dict(resource)))

    def show_list(self, resources: Iterable[Message], columns: Sequence[tuple[str, Callable[[Any], Any]]]) -> None:
        """Print resources: `{"items": [...]}`, or a table of `columns` (heading, value of a resource)."""
        items = list(resources)
        if self.json:
            click.echo(json.dumps({"items": [to_dict(item) for item in items]}, indent=2, ensure_ascii=False))
            return
        table([heading for heading, _ in columns], [[value(item) for _, value in columns] for item in items])

    def show_json(self, document: Any) -> None:
        """Print a JSON document that is no single resource."""
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))

    def show_gone(self, name: str, text: str) -> None:
        """Print that a resource was deleted: its name, or `text` apart from the output."""
        if self.json:
            self.show_json({"name": name})
        else:
            self.note(text)

    def note(self, text: str) -> None:
        """Say something to the person at the terminal, apart from the output."""
        click.echo(text, err=True)


def _check_project(client: Client) -> None:
    """The home's token may act in any project, and one that does not exist would look empty, and take data."""
    from penstock.api.project.v1.project_service_pb2 import GetProjectRequest

    try:
        client.projects.GetProject(GetProjectRequest(name=client.project))
    except NotFound:
        raise InvalidArgument(
            f"There is no project '{client.project_id}': `penstock admin project list` shows those that there are, "
            f"`penstock admin project create {client.project_id}` makes it.",
            field="project",
        ) from None


def output_option(function: F) -> F:
    """The option that every command has."""
    kinds = click.Choice(["table", "json"])
    return click.option("--output", "-o", type=kinds, default="table", help="How to print.")(function)


def any_project(function: F) -> F:
    """Take --project, as every command does, where it makes no difference: what is done is done for all projects."""
    text = "Makes no difference here: all projects share it."
    return click.option("--project", metavar="PROJECT", expose_value=False, help=text)(function)


def show_facts(output: str, facts: Mapping[str, Any], *lines: str) -> None:
    """Print what a command without a connection did: as one JSON object, or as `lines`."""
    for line in [json.dumps(facts, indent=2, ensure_ascii=False)] if output == "json" else lines:
        click.echo(line)


def connected(function: F) -> F:
    """Give a command the common options and a Session as its first argument."""

    @output_option
    @click.option("--project", metavar="PROJECT", help="The project (PENSTOCK_PROJECT; 'default').")
    @click.option("--url", metavar="URL", help="The platform (PENSTOCK_URL; the local home's).")
    @click.option("--token", metavar="TOKEN", help="Your token (PENSTOCK_TOKEN; the local home's).")
    @functools.wraps(function)
    def wrapper(*args: Any, output: str, project: str | None, url: str | None, token: str | None, **kwargs: Any) -> Any:
        session = Session(url, token, project, output)
        try:
            return function(session, *args, **kwargs)
        finally:
            if "client" in session.__dict__:
                session.client.close()

    return wrapper  # type: ignore[return-value]


def to_dict(message: Message) -> dict[str, Any]:
    """A resource as the API's JSON: every field, 64-bit numbers as text."""
    from google.protobuf import json_format

    document: dict[str, Any] = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    return {key: _whole(value) for key, value in document.items()}


def _whole(value: Any) -> Any:
    """A Struct knows doubles only: whole numbers of records and parameters are shown as they were written."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
        return int(value)
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value


def table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print aligned columns; plain text, so that it can be cut and searched."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max([len(h), *(len(row[i]) for row in cells)]) for i, h in enumerate(headings)]
    for row in [list(headings), *cells]:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    if not cells:
        click.echo("(none)", err=True)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = "" if value is None else str(value)
    return text if len(text) <= 80 or not sys.stdout.isatty() else text[:79] + "…"


def describe(document: Mapping[str, Any], indent: int = 0) -> str:
    """A resource's fields, one a line, without the empty ones."""
    lines = []
    for key, value in document.items():
        if value in ("", 0, "0", None, [], {}, False):
            continue
        if isinstance(value, Mapping):
            inner = describe(value, indent + 2)
            lines += [" " * indent + f"{key}:", inner] if inner else []
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            lines.append(" " * indent + f"{key}:")
            lines += [
                describe(item, indent + 4).replace(" " * (indent + 4), " " * (indent + 2) + "- ", 1) for item in value
            ]
        else:
            lines.append(
                " " * indent + f"{key}: {value if not isinstance(value, list) else ', '.join(map(str, value))}"
            )
    return "\n".join(lines)


def enum_name(message: Message, field: str) -> str:
    """The name of an enum field's value, as the API spells it."""
    descriptor = message.DESCRIPTOR.fields_by_name[field].enum_type
    return str(descriptor.values_by_number[getattr(message, field)].name)


def last_id(name: str) -> str:
    """The last id of a resource name."""
    return name.rsplit("/", 1)[-1]


def short(name: str) -> str:
    """A version's name as it is typed: `digits@3`."""
    words = name.split("/")
    return f"{words[-3]}@{words[-1]}" if len(words) == 6 else words[-1]


versioned = references.versioned


def assignments(pairs: Sequence[str], field: str, what: str = "KEY") -> dict[str, Any]:
    """`K=V` pairs as a dict; a value is JSON if it parses, else text. `what` is the K in an error."""
    result: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InvalidArgument(f"'{pair}' is not {what}=VALUE.", field=field)
        try:
            result[key] = json.loads(value)
        except ValueError:
            result[key] = value
        except RecursionError:
            raise InvalidArgument(f"The value of {key} is nested too deeply.", field=key) from None
    return result


def model_version(session: Session, text: str) -> str:
    """The name of `MODEL@V`, or of the newest version of `MODEL`."""
    from penstock.api.training.v1 import training_service_pb2 as pb

    base, number = versioned(text, "model")
    if number is None:
        number = session.client.training.GetModel(
            pb.GetModelRequest(name=session.client.name("model", base))
        ).latest_version
    return session.client.name("model_version", base, number)
