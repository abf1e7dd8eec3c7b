"""Filters over records: the AIP-160 subset, evaluated in Python and compiled to DuckDB SQL with the same meaning."""

from services.dataset.filters.expression import Expression, Field, fields, holds
from services.dataset.filters.grammar import bind, parse

__all__ = ["Expression", "Field", "bind", "fields", "holds", "parse"]
