"""Statements that are put together once, for the driver to run as they are.

SQLAlchemy puts a statement together, looks it up, wraps the driver and then the rows, at every execution: three to ten
times the work of the exchange with the server. What every upload asks and says is spared that.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import asyncpg
from sqlalchemy import ClauseElement, text
from sqlalchemy.dialects.postgresql import asyncpg as dialect

_DIALECT: Final = dialect.dialect()  # type: ignore[no-untyped-call]


class Prepared:
    """A statement as PostgreSQL wants it. Its parameters' types are those that the driver takes for what the server
    says of them: lists for arrays, no JSON.
    """

    def __init__(self, statement: ClauseElement | str) -> None:
        """A text names its parameters `:so`."""
        compiled = (text(statement) if isinstance(statement, str) else statement).compile(dialect=_DIALECT)
        self.sql = str(compiled)
        # In the order of $1, $2, ...; a name that stands in the statement twice is one parameter.
        self._names = tuple(compiled.positiontup or ())  # type: ignore[attr-defined]
        # Values that stand in the statement itself.
        self._fixed = {name: value for name, value in compiled.params.items() if value is not None}

    def arguments(self, values: Mapping[str, Any]) -> list[Any]:
        """The values of its parameters, in order."""
        return [values[name] if name in values else self._fixed[name] for name in self._names]


@cache
def setting(table: str, *columns: str) -> Prepared:
    """The statement that sets columns of the row with this id: `id` and each column are its parameters."""
    changed = ", ".join(f"{name} = :{name}" for name in columns)
    return Prepared(f"UPDATE {table} SET {changed} WHERE id = :id")  # noqa: S608 - names of the schema


class Record(asyncpg.Record):  # type: ignore[misc]
    """A row whose columns are attributes, as those of SQLAlchemy are."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None
