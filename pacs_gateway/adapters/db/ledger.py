"""The ledger: an entry for each file of each upload, and what the logs of the studies count by them.

A group of steps is written with a few statements, however many files and studies it is of. Before a log is counted anew
its row is locked, those of a group in one order, so that whoever counts sees what all others have written.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from sqlalchemy import BigInteger, Boolean, DateTime, Row, Uuid

from pacs_gateway.adapters.db.models import dicom_upload_files as files
from pacs_gateway.adapters.db.models import dicom_upload_logs as logs
from pacs_gateway.adapters.db.orders import PostgresOrders
from pacs_gateway.adapters.db.prepared import Prepared, Record, setting
from pacs_gateway.adapters.db.session import SHARE_REGISTRY, Session
from pacs_gateway.adapters.db.texts import cleaned, fitted
from pacs_gateway.domain.ledger import Content, FileState, LedgerFile, Step

# Other entries of an instance that are looked at; one that was sent more often is no longer sent by mistake.
_MOST_ENTRIES: Final = 100

_TYPES: Final = {Uuid: "uuid", BigInteger: "bigint", Boolean: "bool", DateTime: "timestamptz"}
_WRITTEN: Final = tuple(column for column in files.columns if column.name != "is_current")
_NAMES: Final = ", ".join(column.name for column in _WRITTEN)
_ARRAYS: Final = ", ".join(f"CAST(:{column.name} AS {_TYPES.get(type(column.type), 'text')}[])" for column in _WRITTEN)
_CHANGED: Final = ", ".join(f"{column.name} = excluded.{column.name}" for column in _WRITTEN if column.name != "id")
# What was seen in the PACS is not unseen by a gateway that does not know of it.
_UNLESS_SEEN: Final = "WHERE dicom_upload_files.state <> 'verified' OR excluded.state = 'verified'"
# Files on their way. The others of their instances, which are read as they were before, come of other groups. The
# registry is shared first, as everywhere: without a column in it, its condition is looked at before any row is.
_BEGIN: Final = Prepared(f"""
WITH new AS (
    INSERT INTO dicom_upload_files ({_NAMES}) SELECT * FROM unnest({_ARRAYS}) WHERE ({SHARE_REGISTRY})::text IS NOT NULL
        ON CONFLICT (id) DO UPDATE SET {_CHANGED} {_UNLESS_SEEN}
    RETURNING *),
begun AS (
    UPDATE dicom_upload_logs log
       SET upload_status = 'in_progress', uploaded_at = new.received_at, uploaded_by_id = new.uploaded_by_id,
           upload_source = new.upload_source
      FROM (SELECT DISTINCT ON (upload_log_id) * FROM new ORDER BY upload_log_id, received_at DESC) AS new
     WHERE log.id = new.upload_log_id AND new.state IN ('received', 'stored'))
SELECT file.* FROM dicom_upload_files file
 WHERE file.orthanc_id = ANY(CAST(:instances AS text[])) AND file.id <> ALL(CAST(:id AS uuid[]))
   AND file.stored_md5 <> '' AND (file.state IN ('received', 'stored') OR (file.is_current AND file.state = 'verified'))
 ORDER BY file.received_at DESC, file.id LIMIT {_MOST_ENTRIES}
""")  # noqa: S608
# Here, too, the registry is shared before a row is locked.
_LOCK_LOGS: Final = Prepared(f"""
SELECT id FROM dicom_upload_logs
 WHERE id = ANY(CAST(:logs AS uuid[])) AND ({SHARE_REGISTRY})::text IS NOT NULL
 ORDER BY id FOR NO KEY UPDATE
""")  # noqa: S608
# Files whose fate is known, of which at most one of each instance counts, and what their logs come to by them. The logs
# were locked by a statement before this one, which sees what was committed before it began. None of its parts sees what
# another one writes: so none writes a row that another one does, and each tells what it wrote, which is left out where
# the table is asked. The files that are counted as failed, or open, are those of the table besides.
#
# What is known last of an instance counts, but a failure to store again what is stored does not unstore it. What was
# left open has come to nothing, where another of its instance is in the PACS.
#
# Not EXISTS, but one row that there is or is not: planned while the tables are small, EXISTS would be asked of all rows
# at once, which is kept when there are many.
_SETTLE: Final = Prepared(f"""
WITH step AS (SELECT * FROM unnest({_ARRAYS}, CAST(:counts AS bool[])) AS step ({_NAMES}, counts)),
old AS (
    SELECT id FROM dicom_upload_files WHERE id = ANY(CAST(:id AS uuid[])) AND is_current AND state = 'verified'),
new AS (
    INSERT INTO dicom_upload_files ({_NAMES}, is_current)
    SELECT {_NAMES}, counts AND (state = 'verified' OR (
           SELECT held.id FROM dicom_upload_files held
            WHERE held.is_current AND held.upload_log_id = step.upload_log_id
              AND held.sop_instance_uid = step.sop_instance_uid AND held.state = 'verified' LIMIT 1) IS NULL)
      FROM step
        ON CONFLICT (id) DO UPDATE
       SET {_CHANGED}, is_current = dicom_upload_files.is_current OR excluded.is_current
     {_UNLESS_SEEN}
    RETURNING *),
lost AS (
    UPDATE dicom_upload_files file SET state = 'failed', finished_at = new.finished_at FROM new
     WHERE new.state = 'verified' AND file.orthanc_id = new.orthanc_id AND file.id <> ALL(CAST(:id AS uuid[]))
       AND file.state IN ('received', 'stored') AND file.gateway_id IS NULL AND NOT file.is_current
    RETURNING file.id),
replaced AS (
    UPDATE dicom_upload_files file SET is_current = false FROM new
     WHERE new.is_current AND file.is_current
       AND file.upload_log_id = new.upload_log_id AND file.sop_instance_uid = new.sop_instance_uid
       AND file.id <> ALL(CAST(:id AS uuid[])) AND (file.state <> 'verified' OR new.state = 'verified')
    RETURNING file.id, file.upload_log_id, file.state, file.stored_size_bytes),
change AS (
    SELECT upload_log_id, sum(number) AS number, sum(number * stored_size_bytes) AS size
      FROM (SELECT upload_log_id, 1 AS number, stored_size_bytes FROM new
             WHERE is_current AND state = 'verified' AND id NOT IN (SELECT id FROM old)
            UNION ALL
            SELECT upload_log_id, -1, stored_size_bytes FROM replaced WHERE state = 'verified') counted
     GROUP BY upload_log_id),
total AS (
    SELECT log.id, told.seconds, log.is_deleted AND change.number IS NULL AS is_deleted,
           CASE WHEN log.is_deleted THEN 0 ELSE log.number_of_files END + coalesce(change.number, 0) AS stored,
           CASE WHEN log.is_deleted THEN 0 ELSE log.total_size_bytes END + coalesce(change.size, 0) AS size,
           failed.number AS failed, failed.reasons,
           (SELECT file.id FROM dicom_upload_files file
             WHERE file.upload_log_id = log.id AND file.state IN ('received', 'stored')
               AND file.id <> ALL(CAST(:id AS uuid[])) AND file.id NOT IN (SELECT id FROM lost)
             LIMIT 1) IS NOT NULL AS is_open
      FROM unnest(CAST(:logs AS uuid[]), CAST(:seconds AS float8[])) AS told (id, seconds)
      JOIN dicom_upload_logs log ON log.id = told.id
      LEFT JOIN change ON change.upload_log_id = log.id
      CROSS JOIN LATERAL (
           SELECT count(*) AS number, string_agg(DISTINCT error, ', ' ORDER BY error) AS reasons
             FROM (SELECT file.error FROM dicom_upload_files file
                    WHERE file.upload_log_id = log.id AND file.is_current AND file.state = 'failed'
                      AND file.id <> ALL(CAST(:id AS uuid[])) AND file.id NOT IN (SELECT id FROM replaced)
                   UNION ALL
                   SELECT error FROM new WHERE upload_log_id = log.id AND is_current AND state = 'failed') counted
           ) failed)
UPDATE dicom_upload_logs log
   SET number_of_files = total.stored, total_size_bytes = total.size, is_deleted = total.is_deleted,
       upload_status = CASE WHEN total.is_open THEN 'in_progress' WHEN total.failed = 0 THEN 'success'
                            WHEN total.stored > 0 THEN 'partial' ELSE 'failed' END,
       error_message = CASE WHEN total.failed = 0 THEN '' ELSE
           format('%s of %s files failed: %s', total.failed, total.stored + total.failed, total.reasons) END,
       upload_duration_seconds = log.upload_duration_seconds + total.seconds, file_names_stale = true
  FROM total WHERE log.id = total.id
""")  # noqa: S608
_RECOUNT: Final = Prepared("""
UPDATE dicom_upload_logs log
   SET number_of_files = counted.number, total_size_bytes = counted.size
  FROM (SELECT count(*) AS number, coalesce(sum(stored_size_bytes), 0) AS size FROM dicom_upload_files
         WHERE upload_log_id = :log AND is_current AND state = 'verified') counted
 WHERE log.id = :log
""")
_ORPHANS: Final = Prepared("""
SELECT file.* FROM dicom_upload_files file
 WHERE file.state IN ('received', 'stored')
   AND (file.received_at < now() - interval '1 hour'
        OR NOT EXISTS (SELECT 1 FROM gateways gateway
                        WHERE gateway.id = file.gateway_id AND gateway.seen_at > now() - make_interval(secs => :lease)))
 ORDER BY file.received_at, file.id LIMIT :limit
""")
_ENTRY: Final = Prepared("SELECT * FROM dicom_upload_files WHERE id = :id")
_OF_INSTANCE: Final = Prepared(f"""
SELECT * FROM dicom_upload_files WHERE orthanc_id = :orthanc_id AND stored_md5 <> ''
 ORDER BY received_at DESC, id LIMIT {_MOST_ENTRIES}
""")  # noqa: S608
_COUNTED: Final = Prepared("""
SELECT 1 FROM dicom_upload_files WHERE orthanc_id = :orthanc_id AND is_current AND state = 'verified' LIMIT 1
""")
_FORGET: Final = Prepared("UPDATE dicom_upload_files SET is_current = false WHERE upload_log_id = :log AND is_current")
_FORGET_INSTANCE: Final = Prepared("""
WITH gone AS (
    UPDATE dicom_upload_files SET is_current = false
     WHERE orthanc_id = :orthanc_id AND is_current AND state = 'verified'
    RETURNING upload_log_id, stored_size_bytes)
UPDATE dicom_upload_logs log
   SET number_of_files = log.number_of_files - 1, total_size_bytes = log.total_size_bytes - gone.stored_size_bytes,
       file_names_stale = true
  FROM gone WHERE log.id = gone.upload_log_id AND NOT log.is_deleted
""")


class PostgresLedger:
    """The port `LedgerEntries`, over one transaction."""

    def __init__(self, session: Session, gateway_id: UUID) -> None:
        self._session = session
        self._gateway_id = gateway_id

    async def write(self, *steps: Step) -> None:
        """Adds the steps. Raises DATABASE_UNAVAILABLE."""
        await write_steps(self._session, steps, self._gateway_id)

    async def of_instance(self, orthanc_id: str) -> Sequence[LedgerFile]:
        """Entries of an instance of which all has come, the newest first."""
        return [entry_of(row) for row in await self._session.run(_OF_INSTANCE, orthanc_id=orthanc_id)]

    async def get(self, entry_id: UUID) -> LedgerFile | None:
        """The entry with this id."""
        rows = await self._session.run(_ENTRY, id=entry_id)
        return entry_of(rows[0]) if rows else None

    async def orphans(self, *, lease_seconds: float, limit: int) -> Sequence[LedgerFile]:
        """Open entries of which no gateway says any more what becomes of them, the oldest first. One that is older than
        any upload lasts is none of a living gateway's either.
        """
        found = await self._session.run(_ORPHANS, lease=lease_seconds, limit=limit)
        return [entry_of(row) for row in found]

    async def recount(self, upload_log_id: UUID) -> None:
        """Has the log say what its entries come to."""
        await self._session.run_sharing(_LOCK_LOGS, logs=[upload_log_id])
        await self._session.run(_RECOUNT, log=upload_log_id)
        await _settle(self._session, [], {upload_log_id: 0.0}, self._gateway_id)

    async def counts(self, orthanc_id: str) -> bool:
        """Whether a log counts the instance as stored."""
        return bool(await self._session.run(_COUNTED, orthanc_id=orthanc_id))

    async def forget(self, upload_log_id: UUID) -> None:
        """Has the log count no file any more. What it says itself changes with its next file."""
        await self._session.share_registry()
        await self._session.run(_FORGET, log=upload_log_id)

    async def forget_instance(self, orthanc_id: str) -> None:
        """Has no log count the instance any more."""
        await self._session.share_registry()
        await self._session.run(_FORGET_INSTANCE, orthanc_id=orthanc_id)

    async def forget_entry(self, entry: LedgerFile) -> None:
        """Has the entry's log count it no more."""
        assert entry.upload_log_id is not None  # noqa: S101 - a log counts it
        await self._session.run_sharing(_LOCK_LOGS, logs=[entry.upload_log_id])
        await self._session.run(setting(files.name, "is_current"), id=entry.id, is_current=False)
        await self.recount(entry.upload_log_id)


async def write_steps(session: Session, steps: Sequence[Step], gateway_id: UUID) -> list[list[LedgerFile]]:
    """Adds steps, in order. For each the other entries of its instance that are open, or counted as stored, and of
    which all has come; none for one that is finished.
    """
    begun = [step.file for step in steps if step.file.is_open]
    finished = [step for step in steps if not step.file.is_open]
    if begun and finished:
        # All at once, for both lock logs: who locked some, and then others, would wait for one who waits for him.
        await _lock_logs(session, {step.file.upload_log_id for step in steps})
    rivals = await _begin(session.run_sharing, begun, gateway_id)
    await _finish(session, finished, gateway_id)
    return _of_each(steps, rivals)


async def write_begun(session: Session, steps: Sequence[Step], gateway_id: UUID) -> list[list[LedgerFile]]:
    """As `write_steps` and a commit, of files that are all on their way: with one statement."""
    return _of_each(steps, await _begin(session.run_alone, [step.file for step in steps], gateway_id))


def _of_each(steps: Sequence[Step], rivals: Sequence[LedgerFile]) -> list[list[LedgerFile]]:
    return [
        [one for one in rivals if one.orthanc_id == step.file.orthanc_id and one.id != step.file.id]
        if step.file.is_open and step.file.stored.md5
        else []
        for step in steps
    ]


async def _begin(
    run: Callable[..., Awaitable[Sequence[Record]]], begun: Sequence[LedgerFile], gateway_id: UUID
) -> list[LedgerFile]:
    """Adds files on their way; all entries that are rivals of any of them, themselves too."""
    if not begun:
        return []
    complete = [file for file in begun if file.stored.md5]
    instances = sorted({file.orthanc_id for file in complete})
    found = await run(_BEGIN, **_columns(begun, gateway_id), instances=instances)
    return [*complete, *map(entry_of, found)]


async def _finish(session: Session, steps: Sequence[Step], gateway_id: UUID) -> None:
    """Adds files whose fate is known, and brings their logs up to date."""
    if not steps:
        return
    seconds: dict[UUID, float] = {}
    for step in steps:
        if (log := step.file.upload_log_id) is not None:
            seconds[log] = seconds.get(log, 0.0) + step.seconds
    if not seconds or not session.held_logs.issuperset(seconds):
        await _lock_logs(session, seconds)
    await _write_facts(session, steps)
    beside, counting = _by_instance(steps)
    if beside:
        await _settle(session, beside, dict.fromkeys(seconds, 0.0), gateway_id)
    await _settle(session, counting, seconds, gateway_id)


async def _lock_logs(session: Session, log_ids: Iterable[UUID | None]) -> None:
    wanted = sorted(log_id for log_id in log_ids if log_id is not None)
    await session.run_sharing(_LOCK_LOGS, logs=wanted)
    session.held_logs.update(wanted)


def _by_instance(steps: Sequence[Step]) -> tuple[list[Step], list[Step]]:
    """Of several steps of one instance, those that do not count, for another does: the last one that is stored, else
    the last. And all other steps.
    """
    counting = {
        _instance_of(step): step
        for step in sorted(steps, key=lambda step: step.file.state is FileState.VERIFIED)
        if step.counts
    }
    beside, others = [], []
    for step in steps:
        if counting.get(_instance_of(step), step) is step:
            others.append(step)
        else:
            beside.append(replace(step, counts=False))
    return beside, others


def _instance_of(step: Step) -> tuple[UUID | None, str]:
    return step.file.upload_log_id, cleaned(step.file.sop_instance_uid)


async def _settle(session: Session, steps: Sequence[Step], seconds: Mapping[UUID, float], gateway_id: UUID) -> None:
    """Writes steps, of which at most one of each instance counts, and has logs, which took so long and are locked, say
    what their entries come to.
    """
    await session.run(
        _SETTLE,
        **_columns([step.file for step in steps], gateway_id),
        counts=[step.counts and step.file.upload_log_id is not None for step in steps],
        logs=list(seconds),
        seconds=list(seconds.values()),
    )


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
            await session.run(setting(logs.name, *values), id=step.file.upload_log_id, **values)
        if step.order_id is not None and step.order_study is not None:
            await PostgresOrders(session).fill(step.order_id, step.order_study)


def _columns(entries: Sequence[LedgerFile], gateway_id: UUID) -> dict[str, Any]:
    """The values of each column, one for each entry."""
    rows = [_row(file, gateway_id) for file in entries]
    return {column.name: [row[column.name] for row in rows] for column in _WRITTEN}


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
        "session_id": file.session_id,
    }


def entry_of(row: Row[Any] | Record) -> LedgerFile:
    """The entry of a row that has the columns of the table."""
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
        session_id=row.session_id,
    )
