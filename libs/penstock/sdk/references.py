"""Resources as people write them: `digits@3` for version 3 of digits."""

from __future__ import annotations

from penstock.errors import InvalidArgument


def versioned(text: str, what: str) -> tuple[str, int | None]:
    """Split `digits@3` into id and number; without `@`, the number is None (the newest). Raises InvalidArgument."""
    base, at, number = text.partition("@")
    if not at:
        return base, None
    if not (base and number.isascii() and number.isdigit() and len(number) < 13 and int(number) > 0):
        raise InvalidArgument(
            f"'{text}' is not {what.upper()}@N with a number, such as {base or 'digits'}@3.", field=what
        )
    return base, int(number)
