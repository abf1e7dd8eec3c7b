"""Frozen dataclasses to stored trees and back, by cattrs.

Fields that are None are left out, stored fields that a class does not know are ignored: both let a class grow or
shrink by an optional field without a migration.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn
from cattrs.strategies import configure_union_passthrough

from penstock.store.codec import Document, decode_tree, encode_tree, format_time, parse_time

V = TypeVar("V")


def to_document(value: Any) -> Document:
    """The stored form of a dataclass instance."""
    document: Document = encode_tree(_CONVERTER.unstructure(value))
    return document


def from_document(document: Document, kind: type[V]) -> V:
    """The dataclass instance of a stored form. Raises cattrs' ClassValidationError if the form does not fit."""
    return _CONVERTER.structure(decode_tree(document), kind)


def _takes_none(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint)


def _unstructure_factory(kind: Any, converter: Converter) -> Callable[[Any], Document]:
    unstructure = make_dict_unstructure_fn(kind, converter)
    names = [field.name for field in dataclasses.fields(kind)]

    def without_none(value: Any) -> Document:
        document = unstructure(value)
        for name in names:
            if getattr(value, name) is None:
                document.pop(name, None)
        return document

    return without_none


def _structure_factory(kind: Any, converter: Converter) -> Callable[[Document, Any], Any]:
    structure = make_dict_structure_fn(kind, converter)
    hints = get_type_hints(kind)
    # An optional field without a default was left out when it was None.
    absent = {
        field.name: None
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
        and _takes_none(hints[field.name])
    }
    if not absent:
        return structure
    return lambda document, hint: structure({**absent, **document}, hint)


def _make() -> Converter:
    converter = Converter()
    converter.register_unstructure_hook(datetime, format_time)
    converter.register_structure_hook(datetime, lambda text, _: parse_time(text))
    configure_union_passthrough(Union[str, bool, int, float, None], converter)  # noqa: UP007 (cattrs takes this form)
    converter.register_unstructure_hook_factory(_is_dataclass, _unstructure_factory)
    converter.register_structure_hook_factory(_is_dataclass, _structure_factory)
    return converter


def _is_dataclass(kind: Any) -> bool:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


_CONVERTER = _make()
