"""Pages by key (AIP-158): each begins after the last entry of the one before, so none is lost or told twice while rows
come and go.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from uuid import UUID

from sqlalchemy import Column, Row, Table, and_, func, or_, select
from sqlalchemy.sql import ColumnElement

from pacs_gateway.adapters.db.session import Session
from pacs_gateway.domain.paging import Page, PageRequest
from service_runtime.errors import InvalidFieldError, Violation

EMPTY: Final[Page[Any]] = Page((), 0)
ItemT = TypeVar("ItemT")
KeyT = TypeVar("KeyT")


async def page_by_id(
    session: Session,
    table: Table,
    where: Sequence[ColumnElement[bool]],
    request: PageRequest,
    entry_of: Callable[[Row[Any]], ItemT],
) -> Page[ItemT]:
    """A page of the table's rows for which all of `where` holds, by id."""
    statement = select(table).where(*where).order_by(table.c.id).limit(request.limit + 1)
    if request.after:
        statement = statement.where(table.c.id > key_of(request, UUID, length=1))
    rows = (await session.execute(statement)).all()
    total = await count(session, table, where)
    return page_of(rows, request, total, entry_of, last=lambda row: (str(row.id),))


async def count(session: Session, table: Table, where: Sequence[ColumnElement[bool]]) -> int:
    """How many rows of the table there are for which all of `where` holds."""
    return int((await session.execute(select(func.count()).select_from(table).where(*where))).scalar_one())


def page_of(
    rows: Sequence[Row[Any]],
    request: PageRequest,
    total_size: int,
    entry_of: Callable[[Row[Any]], ItemT],
    *,
    last: Callable[[Row[Any]], tuple[str, ...]],
) -> Page[ItemT]:
    """The page from its rows, of which one more than its limit was asked for: it tells whether a page follows."""
    shown = rows[: request.limit]
    follows = len(rows) > request.limit
    return Page(tuple(map(entry_of, shown)), total_size, last(shown[-1]) if follows else ())


def key_of(request: PageRequest, parse: Callable[..., KeyT], *, length: int) -> KeyT:
    """What the page begins after. Raises INVALID_FIELD where that is no key of this list."""
    try:
        if len(request.after) == length:
            return parse(*request.after)
    except (ValueError, OverflowError):
        pass
    raise InvalidFieldError(Violation("page_token", "is not one that this list gave"))


def time_and_id(request: PageRequest, time: Column[datetime], key: Column[UUID]) -> ColumnElement[bool]:
    """What comes after the page before, where the newest come first, and those of one time by id. Raises
    INVALID_FIELD.
    """
    at, row_id = key_of(request, _position, length=2)
    return and_(time <= at, or_(time < at, key > row_id))


def _position(at: str, row_id: str) -> tuple[datetime, UUID]:
    time = datetime.fromisoformat(at)
    if time.tzinfo is None:
        raise ValueError
    return time.astimezone(UTC), UUID(row_id)
