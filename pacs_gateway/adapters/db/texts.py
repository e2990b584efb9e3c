"""What PostgreSQL can hold of the texts that hostile files and callers bring: no NUL, no lone surrogate, no more than
the column's length.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Column, String, Table

from service_runtime.errors import InvalidFieldError, Violation

_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"


def storable(value: str) -> bool:
    """Whether a row can hold this text; what no row can hold is found in none."""
    return _UNSTORABLE.search(value) is None


def cleaned(value: str) -> str:
    """The text with U+FFFD for each character that PostgreSQL refuses."""
    return _UNSTORABLE.sub(_REPLACEMENT, value)


def fitted(column: Column[Any], value: str) -> str:
    """The cleaned text, cut to the column's length. For what is shown, never for what is looked up."""
    kind = column.type
    assert isinstance(kind, String)  # noqa: S101 - the callers name columns of text
    return cleaned(value)[: kind.length]


def refuse_unstorable(kind: str, entries: Sequence[Any], table: Table) -> None:
    """Raises INVALID_FIELD with one violation for each text of `entries` that its column of `table` cannot hold.

    `kind` is what a request calls the entries: the violations are of `kind[position].field`.
    """
    lengths = {column.name: column.type.length for column in table.columns if isinstance(column.type, String)}
    violations = [
        Violation(f"{kind}[{position}].{name}", problem)
        for position, entry in enumerate(entries)
        for name, length in lengths.items()
        if (problem := _problem(getattr(entry, name, ""), length))
    ]
    if violations:
        raise InvalidFieldError(*violations)


def _problem(value: str, length: int | None) -> str:
    if not storable(value):
        return "holds a character that cannot be stored"
    if length is not None and len(value) > length:
        return f"is longer than {length} characters"
    return ""
