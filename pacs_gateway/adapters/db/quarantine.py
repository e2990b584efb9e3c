"""The files in the quarantine, and what was done with each."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, Select, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql import ColumnElement

from pacs_gateway.adapters.db.failures import constraint, overtaken
from pacs_gateway.adapters.db.models import dicom_quarantine as files
from pacs_gateway.adapters.db.models import dicom_quarantine_events as events
from pacs_gateway.adapters.db.models import users
from pacs_gateway.adapters.db.pages import count, page_of, time_and_id
from pacs_gateway.adapters.db.session import Session
from pacs_gateway.adapters.db.texts import cleaned, fitted
from pacs_gateway.adapters.db.upserts import one_of
from pacs_gateway.domain.ledger import Content
from pacs_gateway.domain.paging import Page, PageRequest
from pacs_gateway.domain.quarantine import (
    OPEN_STATES,
    QuarantineAction,
    QuarantinedFile,
    QuarantineEntry,
    QuarantineEvent,
    QuarantineFilter,
    QuarantineState,
    quarantine_full,
)

_MOST_EVENTS: Final = 100
# What the file says of itself, which may be anything: cut to the columns' length.
_QUOTED: Final = (
    "study_instance_uid",
    "series_instance_uid",
    "sop_instance_uid",
    "original_patient_id",
    "original_patient_name",
    "original_accession_number",
    "original_study_date",
    "original_modality",
)
_PLAIN: Final = (
    "id",
    "reason",
    "patient_id",
    "order_id",
    "uploaded_by_id",
    "upload_source",
    "quarantined_at",
    "refused_at",
    "refusals",
)
# What a further refusal of the same bytes says anew.
_NEWEST: Final = (
    "state",
    "reason",
    "patient_id",
    "order_id",
    "uploaded_by_id",
    "upload_source",
    "filename",
    "refused_at",
)
_SHOWN: Final = tuple(column for column in files.columns if column.name not in {"gateway_id", "claimed_at"})
_OPEN: Final = files.c.state.in_([state.value for state in OPEN_STATES])
# Free: no gateway tries to store it, or one that gave no sign of life for so long, or for longer than any try takes.
_FREE: Final = """
(gateway_id IS NULL OR claimed_at < now() - interval '1 hour'
 OR NOT EXISTS (SELECT 1 FROM gateways
                 WHERE gateways.id = dicom_quarantine.gateway_id AND seen_at > now() - make_interval(secs => :lease)))
"""
_CLAIM: Final = text(f"""
UPDATE dicom_quarantine SET gateway_id = :gateway, claimed_at = now()
 WHERE id = :id AND state IN ('quarantined', 'lost') AND (gateway_id = :gateway OR {_FREE})
RETURNING *
""")  # noqa: S608 - a condition of this module
_EXPIRE: Final = text(f"""
UPDATE dicom_quarantine SET state = 'expired'
 WHERE id IN (SELECT id FROM dicom_quarantine
               WHERE state IN ('quarantined', 'lost') AND refused_at < :before AND {_FREE}
               ORDER BY refused_at LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED)
RETURNING id
""")  # noqa: S608


class PostgresQuarantine:
    """The port `QuarantineEntries`."""

    def __init__(self, session: Session, gateway_id: UUID) -> None:
        self._session = session
        self._gateway_id = gateway_id

    async def total_bytes(self) -> int:
        """The size of all open files together."""
        total = select(func.coalesce(func.sum(files.c.source_size_bytes), 0)).where(_OPEN)
        return int((await self._session.execute(total)).scalar_one())

    async def add(self, file: QuarantinedFile, *, max_bytes: int) -> UUID:
        """Adds a file, or counts another refusal of the one with the same bytes; its id. Raises QUARANTINE_FULL."""
        await self._session.share_registry()
        await self._session.own_quarantine()
        row = _row(file)
        same = select(files.c.id).where(files.c.source_sha256 == file.source.sha256, _OPEN).with_for_update()
        try:
            known: UUID | None = (await self._session.execute(same)).scalar_one_or_none()
            if known is not None:
                newest: dict[str, Any] = {name: row[name] for name in _NEWEST} | {"refusals": files.c.refusals + 1}
                await self._session.execute(update(files).where(files.c.id == known).values(newest))
                return known
            if await self.total_bytes() + file.source.size_bytes > max_bytes:
                raise quarantine_full()
            await self._session.execute(insert(files).values(row))
        except IntegrityError as error:
            if constraint(error) == "fk_dicom_quarantine_patient_id_patients":
                raise overtaken() from error
            raise
        await self._note(file.id, QuarantineEvent(QuarantineAction.QUARANTINED, file.quarantined_at))
        return file.id

    async def entry(self, file_id: UUID) -> QuarantineEntry | None:
        """The file with this id, with the last of what was done with it."""
        row = (await self._session.execute(_entries().where(files.c.id == file_id))).one_or_none()
        if row is None:
            return None
        done = select(events, users.c.full_name).outerjoin(users, users.c.id == events.c.by_id)
        done = done.where(events.c.file_id == file_id).order_by(events.c.id.desc()).limit(_MOST_EVENTS)
        rows = (await self._session.execute(done)).all()
        return QuarantineEntry(_file(row), row.uploaded_by, tuple(map(_event, reversed(rows))))

    async def page(self, request: PageRequest, wanted: QuarantineFilter) -> Page[QuarantineEntry]:
        """A page of files, those refused last first; of those of one time, by id."""
        where = _where(wanted)
        statement = _entries().where(*where).order_by(files.c.refused_at.desc(), files.c.id).limit(request.limit + 1)
        if request.after:
            statement = statement.where(time_and_id(request, files.c.refused_at, files.c.id))
        rows = (await self._session.execute(statement)).all()
        total = await count(self._session, files, where)
        return page_of(rows, request, total, _entry, last=lambda row: (row.refused_at.isoformat(), str(row.id)))

    async def claim(self, file_id: UUID, *, lease_seconds: float) -> QuarantinedFile | None:
        """Takes an open file for this gateway; None where it is not open, or another has it."""
        await self._session.share_registry()
        values = {"gateway": self._gateway_id, "id": file_id, "lease": lease_seconds}
        row = (await self._session.execute(_CLAIM, values)).one_or_none()
        return _file(row) if row is not None else None

    async def settle(self, file: QuarantinedFile, event: QuarantineEvent | None = None) -> None:
        """Says how a file stands that this gateway took, and what was done with it, and lets it go."""
        await self._session.share_registry()
        values = {"state": file.state.value, "reason": file.reason, "gateway_id": None, "claimed_at": None}
        mine = (files.c.id == file.id, files.c.gateway_id == self._gateway_id)
        done = await self._session.execute(update(files).where(*mine).values(values))
        if done.rowcount and event is not None:
            await self._note(file.id, event)

    async def expire(self, *, before: datetime, at: datetime, lease_seconds: float, limit: int) -> Sequence[UUID]:
        """Closes open files whose last refusal lies before then; which they are."""
        await self._session.share_registry()
        values = {"before": before, "limit": limit, "lease": lease_seconds}
        expired = (await self._session.execute(_EXPIRE, values)).scalars().all()
        for file_id in expired:
            await self._note(file_id, QuarantineEvent(QuarantineAction.EXPIRED, at))
        return expired

    async def states(self, file_ids: Collection[UUID]) -> Mapping[UUID, QuarantineState]:
        """How those of the files stand that there are."""
        found = select(files.c.id, files.c.state).where(one_of(files.c.id, file_ids))
        return {row.id: QuarantineState(row.state) for row in (await self._session.execute(found)).all()}

    async def open_files(self, *, after: UUID | None, limit: int) -> Sequence[QuarantinedFile]:
        """Open files by id, those after one."""
        found = select(*_SHOWN).where(_OPEN).order_by(files.c.id).limit(limit)
        if after is not None:
            found = found.where(files.c.id > after)
        return [_file(row) for row in (await self._session.execute(found)).all()]

    async def mark(self, file_ids: Collection[UUID], state: QuarantineState, event: QuarantineEvent) -> None:
        """Says that open files are lost, or are not."""
        await self._session.share_registry()
        other = (one_of(files.c.id, file_ids), _OPEN, files.c.state != state.value)
        marked = await self._session.execute(
            update(files).where(*other).values(state=state.value).returning(files.c.id)
        )
        for file_id in marked.scalars().all():
            await self._note(file_id, event)

    async def _note(self, file_id: UUID, event: QuarantineEvent) -> None:
        values = {
            "file_id": file_id,
            "action": event.action.value,
            "at": event.at,
            "by_id": event.by_id,
            "reason": cleaned(event.reason),
        }
        await self._session.execute(insert(events).values(values))


def _entries() -> Select[Any]:
    """Files with their sender's name."""
    return select(*_SHOWN, users.c.full_name.label("uploaded_by")).join(users, users.c.id == files.c.uploaded_by_id)


def _where(wanted: QuarantineFilter) -> list[ColumnElement[bool]]:
    where = [_OPEN if wanted.state is None else files.c.state == wanted.state.value]
    if wanted.reason is not None:
        where.append(files.c.reason == wanted.reason)
    if wanted.patient_id is not None:
        where.append(files.c.patient_id == wanted.patient_id)
    if wanted.uploaded_from is not None:
        where.append(files.c.refused_at >= wanted.uploaded_from)
    if wanted.uploaded_until is not None:
        where.append(files.c.refused_at < wanted.uploaded_until)
    return where


def _row(file: QuarantinedFile) -> dict[str, Any]:
    values = {name: getattr(file, name) for name in _PLAIN}
    values |= {name: fitted(files.c[name], getattr(file, name)) for name in _QUOTED}
    return values | {
        "state": file.state.value,
        "filename": cleaned(file.filename),
        "source_sha256": file.source.sha256,
        "source_size_bytes": file.source.size_bytes,
    }


def _file(row: Row[Any]) -> QuarantinedFile:
    values = {name: getattr(row, name) for name in (*_PLAIN, *_QUOTED, "filename")}
    source = Content(row.source_size_bytes, row.source_sha256)
    return QuarantinedFile(state=QuarantineState(row.state), source=source, **values)


def _entry(row: Row[Any]) -> QuarantineEntry:
    return QuarantineEntry(_file(row), row.uploaded_by)


def _event(row: Row[Any]) -> tuple[QuarantineEvent, str]:
    return QuarantineEvent(QuarantineAction(row.action), row.at, row.by_id, row.reason), row.full_name or ""
