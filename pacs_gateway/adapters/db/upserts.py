"""Upserts: which row each entry of a request is, and the statements that make it so."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Column, String, Table, Uuid, any_, func, literal, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.sql import ColumnElement

from pacs_gateway.adapters.db.session import Session
from service_runtime.errors import Reason, ServiceError


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an entry says of its row: an id, or none, and the natural key (MRN, accession number, username)."""

    id: UUID | None
    key: str


@dataclass(frozen=True, slots=True)
class Known:
    """A row that has the id or the key of an entry."""

    id: UUID
    key: str
    is_provisional: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What an upsert does.

    `ids` are the rows that the entries become, in order. `renamed` are provisional rows that take on a new id;
    `merged` those whose key goes to another row, which takes over what hangs on them. `rekeyed` are rows that get
    another key.
    """

    ids: tuple[UUID, ...]
    renamed: Mapping[UUID, UUID]
    merged: Mapping[UUID, UUID]
    rekeyed: frozenset[UUID]


def plan(kind: str, wanted: Sequence[Wanted], known: Iterable[Known]) -> Plan:
    """The plan for these entries, from all rows that have an id or a key of theirs.

    What counts is how the rows stand after the request: two rows may swap their keys in it. Raises REGISTRY_CONFLICT.
    """
    by_id = {row.id: row for row in known}
    by_key = {row.key: row for row in by_id.values()}
    ids = tuple(entry.id or _id_of(by_key.get(entry.key)) for entry in wanted)
    _refuse_repeats(kind, [entry.key for entry in wanted])
    _refuse_repeats(kind, ids)
    renamed: dict[UUID, UUID] = {}
    merged: dict[UUID, UUID] = {}
    for position, (row_id, entry) in enumerate(zip(ids, wanted, strict=True)):
        holder = by_key.get(entry.key)
        # A holder that the request names, too, gets another key by it.
        if holder is None or holder.id == row_id or holder.id in ids:
            continue
        if not holder.is_provisional:
            raise _conflict(kind, position, "has its key under another id. Get that one, and use its id.")
        (merged if row_id in by_id else renamed)[holder.id] = row_id
    rekeyed = (i for i, entry in zip(ids, wanted, strict=True) if i in by_id and by_id[i].key != entry.key)
    return Plan(ids, renamed, merged, frozenset(rekeyed))


async def write(
    session: Session, key: "Column[str]", rekeyed: frozenset[UUID], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Inserts the rows, or updates those whose id is there, in their table. `key` is the column of the natural key."""
    table = key.table
    assert isinstance(table, Table)  # noqa: S101 - the callers name columns of tables
    if rekeyed:
        # While keys move from row to row, none may be there twice. No key of the RIS begins with a control character.
        parked = func.chr(1).concat(func.left(func.md5(table.c.id.cast(String)), 15))
        await session.execute(update(table).where(one_of(table.c.id, rekeyed)).values({key: parked}))
    statement = insert(table)
    changed = {name: statement.excluded[name] for name in rows[0] if name != "id"}
    await session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=changed), rows)


def one_of(column: Column[Any], values: Iterable[Any]) -> ColumnElement[bool]:
    """Whether the column (uuid or text) is one of the values: one parameter, however many they are."""
    kind = Uuid() if isinstance(column.type, Uuid) else String()
    return column == any_(literal(list(values), ARRAY(kind)))


def _id_of(row: Known | None) -> UUID:
    return row.id if row is not None else uuid4()


def _refuse_repeats(kind: str, values: Sequence[object]) -> None:
    counts = Counter(values)
    for position, value in enumerate(values):
        if counts[value] > 1:
            raise _conflict(kind, position, "is in the request more than once, by its id or its key.")


def _conflict(kind: str, position: int, problem: str) -> ServiceError:
    return ServiceError(
        Reason.REGISTRY_CONFLICT,
        f"{kind}[{position}] {problem} Nothing was changed.",
        metadata={"entry": f"{kind}[{position}]"},
    )
