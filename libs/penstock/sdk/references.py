"""Resources as people write them: `digits@3` for version 3 of digits, an id or a full name for the others."""

from __future__ import annotations

from collections.abc import Sequence

from penstock import names
from penstock.errors import InvalidArgument


def ids_of(kind: str, project: str, ids: Sequence[str | int]) -> tuple[str | int, ...]:
    """The ids of a name of `kind` below its project, where the first of them may be a full name (as JSON shows it).

    Raises InvalidArgument for a name of something else, or of another project.
    """
    first = ids[0] if ids else ""
    if not isinstance(first, str) or not first.startswith("projects/"):
        return tuple(ids)
    name = names.parse(first, field=kind)
    variables = [variable for variable, _ in name.ids]
    whole = names.variables(kind)
    if variables != whole[: len(variables)] or len(variables) + len(ids) - 1 != len(whole):
        raise InvalidArgument(f"'{first[:200]}' is not the name of a {kind.replace('_', ' ')}.", field=kind)
    if name.project != project:
        raise InvalidArgument(f"'{first[:200]}' is of another project: use --project {name.project}.", field="project")
    return *(value for _, value in name.ids[1:]), *ids[1:]


def versioned(text: str, what: str) -> tuple[str, int | None]:
    """Split `digits@3` into id and number; without `@`, the number is None (the newest). Raises InvalidArgument.

    A version's full name is taken, too; its base is then the full name of what it is a version of.
    """
    if text.startswith("projects/") and "/versions/" in text:
        name = names.parse(text, field=what)
        return name.parent, name.number
    base, at, number = text.partition("@")
    if not at:
        return base, None
    if not (base and number.isascii() and number.isdigit() and len(number) < 13 and int(number) > 0):
        raise InvalidArgument(
            f"'{text}' is not {what.upper()}@N with a number, such as {base or 'digits'}@3.", field=what
        )
    return base, int(number)
