"""The upload logs and the traces of deletions."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg
from sqlalchemy import Row, Select, String, any_, bindparam, exists, func, or_, select, text, true, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.sql import ColumnElement

from pacs_gateway.adapters.db.failures import overtaken
from pacs_gateway.adapters.db.models import dicom_upload_files as files
from pacs_gateway.adapters.db.models import dicom_upload_logs as logs
from pacs_gateway.adapters.db.models import study_deletions as deletions
from pacs_gateway.adapters.db.models import users
from pacs_gateway.adapters.db.pages import EMPTY, count, page_of, time_and_id
from pacs_gateway.adapters.db.prepared import Prepared, Record, setting
from pacs_gateway.adapters.db.session import SHARE_REGISTRY, Session
from pacs_gateway.adapters.db.texts import cleaned, fitted, storable
from pacs_gateway.domain.paging import Page, PageRequest
from pacs_gateway.domain.study import StudyLink
from pacs_gateway.domain.upload_log import (
    Deletion,
    Difference,
    UploadLog,
    UploadLogEntry,
    UploadLogFilter,
    UploadStatus,
)

# What a file says of itself, which may be anything: cut to the columns' length, for no upload may be lost over it.
_QUOTED: Final = (
    "original_patient_id",
    "original_patient_name",
    "original_accession_number",
    "original_study_date",
    "original_modality",
    "modified_patient_id",
    "modified_patient_name",
    "modified_accession_number",
)
_PLAIN: Final = (
    "id",
    "patient_id",
    "order_id",
    "uploaded_by_id",
    "study_instance_uid",
    "orthanc_study_id",
    "number_of_files",
    "total_size_bytes",
    "tags_modified",
    "uploaded_at",
    "upload_source",
    "upload_duration_seconds",
    "is_deleted",
    "instances_missing",
    "instances_unlogged",
)
# A list of thousands of files is long, and nobody here asks for it.
_HIDDEN: Final = frozenset({"file_names", "file_names_stale", "compared_at"})
SHOWN: Final = tuple(column for column in logs.columns if column.name not in _HIDDEN)
_COMPARED: Final = (
    update(logs)
    .where(logs.c.id == bindparam("log"))
    .values(instances_missing=bindparam("missing"), instances_unlogged=bindparam("unlogged"), compared_at=func.now())
)
_LIST_FILES: Final = text("""
UPDATE dicom_upload_logs log
   SET file_names_stale = false,
       file_names = (SELECT coalesce(json_agg(json_build_object(
                                'sop_instance_uid', file.sop_instance_uid, 'name', file.filename,
                                'size_bytes', file.stored_size_bytes, 'error', file.error)
                                ORDER BY file.received_at, file.id), '[]'::json)
                       FROM dicom_upload_files file WHERE file.upload_log_id = log.id AND file.is_current)
 WHERE log.id IN (SELECT id FROM dicom_upload_logs WHERE file_names_stale AND upload_status <> 'in_progress'
                   ORDER BY id LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED)
""")
_OF_STUDIES: Final = Prepared(
    select(*SHOWN).where(logs.c.study_instance_uid == any_(bindparam("study_uids", type_=ARRAY(String))))
)
# As the ledger locks logs before it counts.
_HOLD: Final = Prepared(f"""
SELECT {", ".join(column.name for column in SHOWN)} FROM dicom_upload_logs
 WHERE study_instance_uid = ANY(CAST(:study_uids AS text[])) AND ({SHARE_REGISTRY})::text IS NOT NULL
 ORDER BY id FOR NO KEY UPDATE
""")  # noqa: S608 - the names are those of the table
_SAVED: Final = (*_PLAIN, *_QUOTED, "upload_status", "error_message")
_SAVE: Final = Prepared(f"""
INSERT INTO dicom_upload_logs ({", ".join(_SAVED)}) VALUES (:{", :".join(_SAVED)})
    ON CONFLICT (id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _SAVED)}
""")  # noqa: S608 - the names are those of the table
_LINKS: Final = Prepared(
    select(logs.c.orthanc_study_id, logs.c.patient_id, logs.c.order_id).where(
        logs.c.orthanc_study_id == any_(bindparam("orthanc_study_ids", type_=ARRAY(String))), ~logs.c.is_deleted
    )
)
_deleters = users.alias("deleters")


class PostgresUploadLogs:
    """The port `UploadLogs`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        # The logs that this transaction has read or saved: of these, only what changes is written. Others count files
        # meanwhile, and the patient may have got another id since.
        self._known: dict[UUID, UploadLog] = {}

    async def by_study(self, study_uids: Collection[str]) -> Mapping[str, UploadLog]:
        """The logs of these studies, by StudyInstanceUID."""
        wanted = [uid for uid in study_uids if uid and storable(uid)]
        rows = await self._session.run(_OF_STUDIES, study_uids=wanted) if wanted else []
        found = [log_of(row) for row in rows]
        self.read(found)
        return {log.study_instance_uid: log for log in found}

    async def hold(self, study_uids: Collection[str]) -> Mapping[str, UploadLog]:
        """The logs of these studies, by StudyInstanceUID. To the end of the transaction nobody else changes them, and
        the RIS changes no patient and no order.
        """
        wanted = [uid for uid in study_uids if uid and storable(uid)]
        found = [log_of(row) for row in await self._session.run_sharing(_HOLD, study_uids=wanted)]
        self._session.held_logs.update(log.id for log in found)
        self.read(found)
        return {log.study_instance_uid: log for log in found}

    def read(self, found: Iterable[UploadLog]) -> None:
        """These logs were read in this transaction, by another statement than those here."""
        self._known |= {log.id: log for log in found}

    async def links(self, orthanc_study_ids: Collection[str]) -> Mapping[str, StudyLink]:
        """What these studies were uploaded for, by Orthanc's id, for one StudyInstanceUID may stand under several
        PatientIDs; nothing for those that were deleted since.
        """
        rows = await self._session.run(_LINKS, orthanc_study_ids=list(filter(storable, orthanc_study_ids)))
        return {row.orthanc_study_id: StudyLink(row.patient_id, row.order_id) for row in rows}

    async def save(self, log: UploadLog) -> None:
        """Adds or replaces the log with this id. The study must be locked.

        What the file says of itself is cut to the columns' length, and what cannot be stored of it shows as U+FFFD.
        Raises DATABASE_UNAVAILABLE, to be retried, also when a new log's patient got another id since it was read.
        """
        await self._session.share_registry()
        known = self._known.get(log.id)
        values = _row(log)
        try:
            if known is None:
                await self._session.run(_SAVE, **values)
            else:
                before = _row(known)
                changed = {name: value for name, value in values.items() if before[name] != value}
                if changed:
                    await self._session.run(setting(logs.name, *changed), id=log.id, **changed)
        except asyncpg.IntegrityConstraintViolationError as error:
            if error.constraint_name == "fk_dicom_upload_logs_patient_id_patients":
                raise overtaken() from error
            raise
        self._known[log.id] = log

    async def entry(self, log_id: UUID) -> UploadLogEntry | None:
        """The log with this id, as it is shown."""
        row = (await self._session.execute(_entries().where(logs.c.id == log_id))).one_or_none()
        return _entry(row) if row is not None else None

    async def page(self, request: PageRequest, wanted: UploadLogFilter) -> Page[UploadLogEntry]:
        """A page of logs, newest first; of those of one time, by id."""
        if not storable(wanted.study_instance_uid or ""):
            return EMPTY
        where = _where(wanted)
        statement = _entries().where(*where).order_by(logs.c.uploaded_at.desc(), logs.c.id).limit(request.limit + 1)
        if request.after:
            statement = statement.where(time_and_id(request, logs.c.uploaded_at, logs.c.id))
        rows = (await self._session.execute(statement)).all()
        total = await count(self._session, logs, where)
        return page_of(rows, request, total, _entry, last=lambda row: (row.uploaded_at.isoformat(), str(row.id)))

    async def unfinished(self, *, lease_seconds: float, limit: int) -> Sequence[UploadLog]:
        """Logs that have been in progress for so long, and have no open entry."""
        open_entry = exists().where(files.c.upload_log_id == logs.c.id, files.c.state.in_(["received", "stored"]))
        found = select(*SHOWN).where(
            logs.c.upload_status == UploadStatus.IN_PROGRESS.value,
            logs.c.uploaded_at < func.now() - timedelta(seconds=lease_seconds),
            ~open_entry,
        )
        rows = (await self._session.execute(found.order_by(logs.c.uploaded_at).limit(limit))).all()
        return [log_of(row) for row in rows]

    async def to_compare(self, *, older_seconds: float, limit: int) -> Sequence[UploadLog]:
        """Logs of studies that are at rest and not deleted, and were not compared with the PACS for so long, or since
        they changed; the longest ones first.
        """
        due = or_(
            logs.c.compared_at.is_(None),
            logs.c.compared_at < logs.c.uploaded_at,
            logs.c.compared_at < func.now() - timedelta(seconds=older_seconds),
        )
        at_rest = logs.c.upload_status != UploadStatus.IN_PROGRESS.value
        found = select(*SHOWN).where(at_rest, ~logs.c.is_deleted, due)
        found = found.order_by(logs.c.compared_at.asc().nulls_first(), logs.c.id).limit(limit)
        return [log_of(row) for row in (await self._session.execute(found)).all()]

    async def compared(self, differences: Mapping[UUID, Difference]) -> None:
        """Notes how logs compare with what the PACS holds."""
        if not differences:
            return
        await self._session.share_registry()
        rows = [
            {"log": log_id, "missing": differences[log_id].missing, "unlogged": differences[log_id].unlogged}
            for log_id in sorted(differences)
        ]
        await self._session.execute(_COMPARED, rows)

    async def list_files(self, *, limit: int) -> int:
        """Brings the lists of files of logs at rest up to date, of so many; how many it was."""
        await self._session.share_registry()
        return (await self._session.execute(_LIST_FILES, {"limit": limit})).rowcount

    async def save_deletion(self, deletion: Deletion) -> None:
        """Adds or replaces the trace with this id."""
        values = {
            "id": deletion.id,
            "study_instance_uid": deletion.study_instance_uid,
            "orthanc_study_id": deletion.orthanc_study_id,
            "reason": cleaned(deletion.reason),
            "requested_by_id": deletion.requested_by_id,
            "requested_at": deletion.requested_at,
            "upload_log_id": deletion.upload_log_id,
            "completed_at": deletion.completed_at,
        }
        statement = insert(deletions).values(values)
        await self._session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))

    async def open_deletion(self, study_uid: str) -> Deletion | None:
        """The latest trace of the study, when it was never completed."""
        if not storable(study_uid):
            return None
        latest = select(deletions).where(deletions.c.study_instance_uid == study_uid)
        latest = latest.order_by(deletions.c.requested_at.desc(), deletions.c.id).limit(1)
        row = (await self._session.execute(latest)).one_or_none()
        return _deletion(row) if row is not None and row.completed_at is None else None


def _entries() -> Select[Any]:
    """Logs with their uploader's name, and with their study's last completed deletion and its author's name."""
    last = (
        select(*(column.label(f"deletion_{column.name}") for column in deletions.columns))
        .add_columns(_deleters.c.full_name.label("deleted_by"))
        .join(_deleters, _deleters.c.id == deletions.c.requested_by_id)
        .where(deletions.c.study_instance_uid == logs.c.study_instance_uid, deletions.c.completed_at.is_not(None))
        .order_by(deletions.c.completed_at.desc(), deletions.c.id)
        .limit(1)
        .lateral("last")
    )
    shown = select(*SHOWN, users.c.full_name.label("uploaded_by"), *last.columns)
    return shown.join(users, users.c.id == logs.c.uploaded_by_id).outerjoin(last, true())


def _where(wanted: UploadLogFilter) -> list[ColumnElement[bool]]:
    equal = {
        logs.c.patient_id: wanted.patient_id,
        logs.c.order_id: wanted.order_id,
        logs.c.study_instance_uid: wanted.study_instance_uid,
        logs.c.upload_status: wanted.upload_status and wanted.upload_status.value,
    }
    where = [column == value for column, value in equal.items() if value is not None]
    if wanted.uploaded_from is not None:
        where.append(logs.c.uploaded_at >= wanted.uploaded_from)
    if wanted.uploaded_until is not None:
        where.append(logs.c.uploaded_at < wanted.uploaded_until)
    return where


def _row(log: UploadLog) -> dict[str, Any]:
    """All columns that a log has fields for."""
    values = {name: getattr(log, name) for name in _PLAIN}
    values |= {name: fitted(logs.c[name], getattr(log, name)) for name in _QUOTED}
    return values | {"upload_status": log.upload_status.value, "error_message": cleaned(log.error_message)}


def log_of(row: Row[Any] | Record, prefix: str = "") -> UploadLog:
    """The log of a row, whose columns' names begin with `prefix`."""
    values = {name: getattr(row, prefix + name) for name in (*_PLAIN, *_QUOTED, "error_message")}
    return UploadLog(upload_status=UploadStatus(getattr(row, f"{prefix}upload_status")), **values)


def _deletion(row: Row[Any], prefix: str = "") -> Deletion:
    return Deletion(**{column.name: getattr(row, prefix + column.name) for column in deletions.columns})


def _entry(row: Row[Any]) -> UploadLogEntry:
    deleted = row.deletion_id is not None
    return UploadLogEntry(
        log=log_of(row),
        uploaded_by=row.uploaded_by,
        deletion=_deletion(row, "deletion_") if deleted else None,
        deleted_by=row.deleted_by if deleted else "",
    )
