"""The ledger: an entry for each file of each upload, and what the logs of the studies count by them.

A group of steps is written with a few statements, however many files and studies it is of. The logs' rows are locked
first, in one order, so that whoever writes sees what all others have written to the same logs.
"""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, and_, bindparam, exists, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert

from pacs_gateway.adapters.db.models import dicom_upload_files as files
from pacs_gateway.adapters.db.models import dicom_upload_logs as logs
from pacs_gateway.adapters.db.orders import PostgresOrders
from pacs_gateway.adapters.db.session import Session
from pacs_gateway.adapters.db.texts import cleaned, fitted
from pacs_gateway.adapters.db.upserts import one_of
from pacs_gateway.domain.ledger import OPEN, Content, FileState, LedgerFile, Step
from pacs_gateway.domain.upload_log import Standing, UploadStatus

# Other entries of an instance that are looked at; one that was sent more often is no longer sent by mistake.
_MOST_ENTRIES: Final = 100

_LOCK_LOGS: Final = text(
    "SELECT id FROM dicom_upload_logs WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR NO KEY UPDATE"
)
# What is known last of an instance counts, but a failure to store again what is stored does not unstore it.
_COUNT: Final = text("""
WITH new AS (
    SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:logs AS uuid[]), CAST(:uids AS text[]), CAST(:verified AS bool[]))
        AS new (id, log, uid, verified)),
replaced AS (
    UPDATE dicom_upload_files file SET is_current = false FROM new
     WHERE file.is_current AND file.upload_log_id = new.log AND file.sop_instance_uid = new.uid AND file.id <> new.id
       AND (file.state <> 'verified' OR new.verified)
    RETURNING file.upload_log_id, file.state, file.stored_size_bytes),
promoted AS (
    UPDATE dicom_upload_files file SET is_current = true FROM new
     WHERE file.id = new.id AND NOT file.is_current AND (file.state = 'verified') = new.verified
       AND (new.verified OR NOT EXISTS (
            SELECT 1 FROM dicom_upload_files held
             WHERE held.is_current AND held.upload_log_id = new.log AND held.sop_instance_uid = new.uid
               AND held.state = 'verified'))
    RETURNING file.upload_log_id, file.state, file.stored_size_bytes),
change AS (
    SELECT upload_log_id, sum(number) AS number, sum(number * stored_size_bytes) AS size
      FROM (SELECT upload_log_id, 1 AS number, stored_size_bytes FROM promoted WHERE state = 'verified'
            UNION ALL
            SELECT upload_log_id, -1, stored_size_bytes FROM replaced WHERE state = 'verified') AS counted
     GROUP BY upload_log_id)
UPDATE dicom_upload_logs log
   SET number_of_files = CASE WHEN log.is_deleted THEN 0 ELSE log.number_of_files END + change.number,
       total_size_bytes = CASE WHEN log.is_deleted THEN 0 ELSE log.total_size_bytes END + change.size,
       is_deleted = false
  FROM change WHERE log.id = change.upload_log_id
""")
# What was left open has come to nothing, where another upload of the instance is seen in the PACS.
_SETTLE: Final = (
    update(files)
    .where(
        files.c.orthanc_id == bindparam("instance"),
        files.c.state.in_([state.value for state in OPEN]),
        files.c.gateway_id.is_(None),
    )
    .values(state=FileState.FAILED.value, finished_at=bindparam("at"))
)
_FORGET_INSTANCE: Final = text("""
WITH gone AS (
    UPDATE dicom_upload_files SET is_current = false
     WHERE orthanc_id = :orthanc_id AND is_current AND state = 'verified'
    RETURNING upload_log_id, stored_size_bytes)
UPDATE dicom_upload_logs log
   SET number_of_files = log.number_of_files - 1, total_size_bytes = log.total_size_bytes - gone.stored_size_bytes,
       file_names_stale = true
  FROM gone WHERE log.id = gone.upload_log_id AND NOT log.is_deleted
""")
_STANDING: Final = text("""
SELECT log.id, log.number_of_files, log.total_size_bytes, log.is_deleted, failed.number AS failed, failed.reasons,
       EXISTS (SELECT 1 FROM dicom_upload_files file
                WHERE file.upload_log_id = log.id AND file.state IN ('received', 'stored')) AS open
  FROM dicom_upload_logs log
  LEFT JOIN LATERAL (
       SELECT count(*) AS number, array_agg(DISTINCT file.error ORDER BY file.error) AS reasons
         FROM dicom_upload_files file
        WHERE file.upload_log_id = log.id AND file.is_current AND file.state = 'failed') failed ON true
 WHERE log.id = ANY(CAST(:ids AS uuid[]))
""")
_STAND: Final = (
    update(logs)
    .where(logs.c.id == bindparam("log"))
    .values(
        number_of_files=bindparam("number"),
        total_size_bytes=bindparam("size"),
        upload_status=bindparam("status"),
        error_message=bindparam("message"),
        upload_duration_seconds=logs.c.upload_duration_seconds + bindparam("seconds"),
        file_names_stale=True,
    )
)
_BEGIN: Final = (
    update(logs)
    .where(
        logs.c.id == bindparam("log"),
        exists().where(files.c.id == bindparam("file"), files.c.state.in_([state.value for state in OPEN])),
    )
    .values(
        upload_status=UploadStatus.IN_PROGRESS.value,
        uploaded_at=bindparam("at"),
        uploaded_by_id=bindparam("by"),
        upload_source=bindparam("source"),
    )
)
_insert = insert(files)
_UPSERT: Final = _insert.on_conflict_do_update(
    index_elements=["id"],
    set_={
        column.name: _insert.excluded[column.name]
        for column in files.columns
        if column.name not in {"id", "is_current"}
    },
    # What was seen in the PACS is not unseen by a gateway that does not know of it.
    where=or_(files.c.state != FileState.VERIFIED.value, _insert.excluded.state == FileState.VERIFIED.value),
)


class PostgresLedger:
    """The port `LedgerEntries`, over one transaction."""

    def __init__(self, session: Session, gateway_id: UUID) -> None:
        self._session = session
        self._gateway_id = gateway_id

    async def write(self, step: Step) -> None:
        """Adds the step. Raises DATABASE_UNAVAILABLE."""
        await write_steps(self._session, [step], self._gateway_id)

    async def of_instance(self, orthanc_id: str) -> Sequence[LedgerFile]:
        """Entries of an instance of which all has come, the newest first."""
        return await _of_instances(self._session, [orthanc_id], live_only=False)

    async def counts(self, orthanc_id: str) -> bool:
        """Whether a log counts the instance as stored."""
        found = select(files.c.id).where(
            files.c.orthanc_id == orthanc_id, files.c.is_current, files.c.state == FileState.VERIFIED.value
        )
        return (await self._session.execute(found.limit(1))).first() is not None

    async def forget(self, upload_log_id: UUID) -> None:
        """Has the log count no file any more. What it says itself changes with its next file."""
        await self._session.share_registry()
        counted = and_(files.c.upload_log_id == upload_log_id, files.c.is_current)
        await self._session.execute(update(files).where(counted).values(is_current=False))

    async def forget_instance(self, orthanc_id: str) -> None:
        """Has no log count the instance any more."""
        await self._session.share_registry()
        await self._session.execute(_FORGET_INSTANCE, {"orthanc_id": orthanc_id})


async def write_steps(session: Session, steps: Sequence[Step], gateway_id: UUID) -> list[list[LedgerFile]]:
    """Adds steps, in order. For each the other entries of its instance that are open, or counted as stored, and of
    which all has come; () for one that is finished.
    """
    await session.share_registry()
    await session.execute(_LOCK_LOGS, {"ids": sorted({log for step in steps if (log := step.file.upload_log_id)})})
    await session.execute(_UPSERT, [_row(step.file, gateway_id) for step in steps])
    begun = {log: step.file for step in steps if step.file.is_open and (log := step.file.upload_log_id)}
    if begun:
        await session.execute(_BEGIN, [_begin(log, begun[log]) for log in sorted(begun)])
    await _write_facts(session, steps)
    if verified := [step.file for step in steps if step.file.state is FileState.VERIFIED]:
        await session.execute(_SETTLE, [{"instance": file.orthanc_id, "at": file.finished_at} for file in verified])
    await _count(session, [step for step in steps if not step.file.is_open])
    instances = {step.file.orthanc_id for step in steps if step.file.is_open and step.file.stored.md5}
    rivals = await _of_instances(session, sorted(instances), live_only=True) if instances else []
    return [
        [one for one in rivals if one.orthanc_id == step.file.orthanc_id and one.id != step.file.id]
        if step.file.is_open
        else []
        for step in steps
    ]


async def _write_facts(session: Session, steps: Sequence[Step]) -> None:
    """What the files tell of their studies and orders, which few files do."""
    for step in steps:
        if step.facts is not None and step.file.upload_log_id is not None:
            facts = step.facts
            values: dict[str, Any] = {"orthanc_study_id": facts.orthanc_study_id, "order_id": facts.order_id}
            if facts.tags_modified:
                names = ("modified_patient_id", "modified_patient_name", "modified_accession_number")
                values |= {name: fitted(logs.c[name], getattr(facts, name)) for name in names}
                values |= {"tags_modified": True}
            await session.execute(update(logs).where(logs.c.id == step.file.upload_log_id).values(values))
        if step.order_id is not None and step.order_study is not None:
            await PostgresOrders(session).fill(step.order_id, step.order_study)


async def _count(session: Session, steps: Sequence[Step]) -> None:
    """Brings the logs of files whose fate is known up to date."""
    counted = {
        (step.file.upload_log_id, step.file.sop_instance_uid): step.file
        # Of several of one instance, the last that is stored, else the last.
        for step in sorted(steps, key=lambda step: step.file.state is FileState.VERIFIED)
        if step.file.upload_log_id is not None and step.counts
    }
    if counted:
        last = list(counted.values())
        await session.execute(
            _COUNT,
            {
                "ids": [file.id for file in last],
                "logs": [file.upload_log_id for file in last],
                "uids": [cleaned(file.sop_instance_uid) for file in last],
                "verified": [file.state is FileState.VERIFIED for file in last],
            },
        )
    seconds: dict[UUID, float] = {}
    for step in steps:
        if (log := step.file.upload_log_id) is not None:
            seconds[log] = seconds.get(log, 0.0) + step.seconds
    if not seconds:
        return
    rows = (await session.execute(_STANDING, {"ids": sorted(seconds)})).all()
    await session.execute(_STAND, [_stand(row, seconds[row.id]) for row in sorted(rows, key=lambda row: row.id)])


def _stand(row: Row[Any], seconds: float) -> dict[str, Any]:
    number, size = (0, 0) if row.is_deleted else (row.number_of_files, row.total_size_bytes)
    standing = Standing(stored=number, failed=row.failed, open=int(row.open), reasons=tuple(row.reasons or ()))
    return {
        "log": row.id,
        "number": number,
        "size": size,
        "status": standing.status.value,
        "message": standing.error_message,
        "seconds": seconds,
    }


async def _of_instances(session: Session, orthanc_ids: Sequence[str], *, live_only: bool) -> list[LedgerFile]:
    found = select(files).where(one_of(files.c.orthanc_id, orthanc_ids), files.c.stored_md5 != "")
    if live_only:
        found = found.where(
            or_(
                files.c.state.in_([state.value for state in OPEN]),
                and_(files.c.is_current, files.c.state == FileState.VERIFIED.value),
            )
        )
    found = found.order_by(files.c.received_at.desc(), files.c.id).limit(_MOST_ENTRIES * len(orthanc_ids))
    return [_file(row) for row in (await session.execute(found)).all()]


def _begin(log: UUID, file: LedgerFile) -> dict[str, Any]:
    return {
        "log": log,
        "file": file.id,
        "at": file.received_at,
        "by": file.uploaded_by_id,
        "source": file.upload_source,
    }


def _row(file: LedgerFile, gateway_id: UUID) -> dict[str, Any]:
    return {
        "id": file.id,
        "upload_id": file.upload_id,
        "upload_log_id": file.upload_log_id,
        # Left open with a reason: nobody knows what becomes of it, so the reconciler may look at once.
        "gateway_id": gateway_id if file.is_open and not file.error else None,
        "uploaded_by_id": file.uploaded_by_id,
        "upload_source": file.upload_source,
        "study_instance_uid": cleaned(file.study_instance_uid),
        "series_instance_uid": cleaned(file.series_instance_uid),
        "sop_instance_uid": cleaned(file.sop_instance_uid),
        "orthanc_id": file.orthanc_id,
        "filename": cleaned(file.filename),
        "source_sha256": file.source.sha256,
        "source_size_bytes": file.source.size_bytes,
        "stored_sha256": file.stored.sha256,
        "stored_md5": file.stored.md5,
        "stored_size_bytes": file.stored.size_bytes,
        "edits_sha256": file.edits_sha256,
        "overwrites": file.overwrites,
        "state": file.state.value,
        "error": cleaned(file.error),
        "received_at": file.received_at,
        "finished_at": file.finished_at,
    }


def _file(row: Row[Any]) -> LedgerFile:
    return LedgerFile(
        id=row.id,
        upload_id=row.upload_id,
        upload_log_id=row.upload_log_id,
        uploaded_by_id=row.uploaded_by_id,
        upload_source=row.upload_source,
        study_instance_uid=row.study_instance_uid,
        series_instance_uid=row.series_instance_uid,
        sop_instance_uid=row.sop_instance_uid,
        orthanc_id=row.orthanc_id,
        filename=row.filename,
        edits_sha256=row.edits_sha256,
        received_at=row.received_at,
        source=Content(row.source_size_bytes, row.source_sha256),
        stored=Content(row.stored_size_bytes, row.stored_sha256, row.stored_md5),
        state=FileState(row.state),
        error=row.error,
        overwrites=row.overwrites,
        finished_at=row.finished_at,
    )
