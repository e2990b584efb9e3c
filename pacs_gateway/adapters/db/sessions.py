"""Upload sessions: what is expected, and what the ledger's entries say has come."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, select, text, update
from sqlalchemy.dialects.postgresql import insert

from pacs_gateway.adapters.db.ledger import entry_of
from pacs_gateway.adapters.db.models import upload_session_files as expected
from pacs_gateway.adapters.db.models import upload_sessions as sessions
from pacs_gateway.adapters.db.session import Session
from pacs_gateway.adapters.db.texts import fitted
from pacs_gateway.domain.ledger import Content, LedgerFile
from pacs_gateway.domain.sessions import ExpectedFile, SessionFile, SessionState, UploadSession
from pacs_gateway.domain.upload import OnConflict, PatientMatch, UploadOptions, UploadSource

# What is shown of a session that lists no files, at most: so many times as many as it expects. More than it expects can
# have come where some were deleted since.
_SHOWN_TIMES: Final = 2
_ROWS_AT_A_TIME: Final = 200

# Of the entries of one file the one that says most: it is held, on its way, was held once, failed; of these the last.
# An upload of the same file outside of the session takes the entry's place in the log, and means no less.
_CAME: Final = """
SELECT DISTINCT ON (file.source_sha256) file.*, held.is_held
  FROM dicom_upload_files file
 CROSS JOIN LATERAL (
       SELECT file.state = 'verified' AND EXISTS (
              SELECT 1 FROM dicom_upload_files current
               WHERE current.orthanc_id = file.orthanc_id AND current.stored_sha256 = file.stored_sha256
                 AND current.is_current AND current.state = 'verified') AS is_held) held
 WHERE file.session_id = :session AND file.source_sha256 <> ''
 ORDER BY file.source_sha256, held.is_held DESC, file.state IN ('received', 'stored') DESC,
          file.state = 'verified' DESC, file.received_at DESC
"""
_LISTED: Final = text(f"""
WITH came AS ({_CAME})
SELECT expected.sha256, expected.size_bytes, expected.name, came.*
  FROM upload_session_files expected LEFT JOIN came ON came.source_sha256 = expected.sha256
 WHERE expected.session_id = :session ORDER BY expected.sha256
""")  # noqa: S608 - the statement is ours
_UNLISTED: Final = text(f"""
WITH came AS ({_CAME})
SELECT came.source_sha256 AS sha256, came.source_size_bytes AS size_bytes, came.filename AS name, came.*
  FROM came WHERE came.state NOT IN ('failed', 'quarantined')
 ORDER BY came.is_held DESC, came.source_sha256 LIMIT :limit
""")  # noqa: S608
# Where it waits for who holds the session, it has the session as that left it.
_SHARE: Final = text("""
SELECT session.*, CASE WHEN session.lists_files THEN EXISTS (
           SELECT 1 FROM upload_session_files expected
            WHERE expected.session_id = session.id AND expected.sha256 = :sha256 AND expected.size_bytes = :size)
       ELSE session.number_of_files > (
           SELECT count(DISTINCT other.source_sha256) FROM dicom_upload_files other
            WHERE other.session_id = session.id AND other.source_sha256 NOT IN ('', :sha256)
              AND other.state NOT IN ('failed', 'quarantined')) END AS is_expected
  FROM upload_sessions session WHERE session.id = :session FOR SHARE OF session
""")
# Sessions that expired are found by a file that they list like this one, else by a study that both have files of.
_SETTLED: Final = text("""
WITH akin AS (
    SELECT other.session_id FROM upload_session_files mine JOIN upload_session_files other ON other.sha256 = mine.sha256
     WHERE mine.session_id = :session
     UNION
    SELECT mark.session_id FROM dicom_upload_files mine
      JOIN dicom_upload_files mark ON mark.upload_log_id = mine.upload_log_id AND mark.is_current
       AND mark.state = 'failed' AND mark.error = 'SESSION_EXPIRED'
     WHERE mine.session_id = :session AND mine.state = 'verified'),
settled AS (
    SELECT session.id FROM upload_sessions session JOIN akin ON akin.session_id = session.id
     WHERE session.state = 'expired' AND NOT EXISTS (
           SELECT 1 FROM upload_session_files expected
            WHERE expected.session_id = session.id
              AND NOT EXISTS (
                  SELECT 1 FROM dicom_upload_files file
                   WHERE file.session_id = session.id AND file.source_sha256 = expected.sha256
                     AND file.state = 'verified')
              AND NOT EXISTS (
                  SELECT 1 FROM upload_session_files other JOIN upload_sessions later ON later.id = other.session_id
                   WHERE other.sha256 = expected.sha256 AND later.state = 'completed')))
SELECT mark.* FROM dicom_upload_files mark JOIN settled ON settled.id = mark.session_id
 WHERE mark.is_current AND mark.state = 'failed' AND mark.error = 'SESSION_EXPIRED'
 ORDER BY mark.upload_log_id
""")


class PostgresSessions:
    """The port `UploadSessions`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, session: UploadSession, files: Sequence[ExpectedFile]) -> None:
        """Adds a session, with the files that it lists."""
        await self._session.share_registry()
        await self._session.execute(insert(sessions).values(_row(session)))
        if files:
            rows = [
                {
                    "session_id": session.id,
                    "sha256": file.sha256,
                    "size_bytes": file.size_bytes,
                    "name": fitted(expected.c.name, file.name),
                }
                for file in files
            ]
            await self._session.execute(insert(expected), rows)

    async def get(self, session_id: UUID) -> UploadSession | None:
        """The session with this id."""
        row = (await self._session.execute(select(sessions).where(sessions.c.id == session_id))).one_or_none()
        return _session(row) if row is not None else None

    async def hold(self, session_id: UUID) -> UploadSession | None:
        """The session with this id, which nobody else holds, or shares, until the end of the transaction.

        The ledger may be written meanwhile, whose entries refer to it: that takes a weaker lock yet.
        """
        await self._session.share_registry()
        held = select(sessions).where(sessions.c.id == session_id).with_for_update(key_share=True)
        row = (await self._session.execute(held)).one_or_none()
        return _session(row) if row is not None else None

    async def share(self, session_id: UUID, content: Content) -> tuple[UploadSession, bool] | None:
        """The session with this id, once nobody holds it, and whether it expects a file of this SHA-256 and size: it
        lists it, or fewer others than it is for are in it or on their way.
        """
        values = {"session": session_id, "sha256": content.sha256, "size": content.size_bytes}
        row = (await self._session.execute(_SHARE, values)).one_or_none()
        return (_session(row), bool(row.is_expected)) if row is not None else None

    async def files(self, session: UploadSession) -> Sequence[SessionFile]:
        """The files that the session lists, else those that have come and did not fail, by SHA-256."""
        if session.lists_files:
            rows = (await self._session.execute(_LISTED, {"session": session.id})).all()
        else:
            limit = _SHOWN_TIMES * session.number_of_files
            rows = (await self._session.execute(_UNLISTED, {"session": session.id, "limit": limit})).all()
        files: list[SessionFile] = []
        for start in range(0, len(rows), _ROWS_AT_A_TIME):
            files += map(_file, rows[start : start + _ROWS_AT_A_TIME])
            # Thousands of rows would hold others up for a tenth of a second.
            await asyncio.sleep(0)
        return sorted(files, key=lambda file: file.expected.sha256)

    async def complete(self, session: UploadSession) -> None:
        """Keeps that a session is completed, and its receipt. It must be held."""
        done = {"state": session.state.value, "completed_at": session.completed_at, "receipt": session.receipt}
        await self._session.execute(update(sessions).where(sessions.c.id == session.id).values(done))

    async def due(self, *, now: datetime, limit: int) -> Sequence[UUID]:
        """Open sessions whose time is over, so many at most."""
        found = select(sessions.c.id).where(sessions.c.state == SessionState.OPEN.value, sessions.c.expires_at <= now)
        found = found.order_by(sessions.c.expires_at, sessions.c.id).limit(limit)
        return (await self._session.execute(found)).scalars().all()

    async def expire(self, session: UploadSession) -> None:
        """Keeps that a session is expired. It must be held."""
        changed = update(sessions).where(sessions.c.id == session.id).values(state=session.state.value)
        await self._session.execute(changed)

    async def settled_by(self, session: UploadSession) -> Sequence[LedgerFile]:
        """The entries for what never came into expired sessions, of which all has come with this one that is complete:
        where they list files, these and those that completed sessions list; else files of the same study.
        """
        return [entry_of(row) for row in (await self._session.execute(_SETTLED, {"session": session.id})).all()]


def _row(session: UploadSession) -> dict[str, Any]:
    return {
        "id": session.id,
        "created_by_id": session.created_by_id,
        "created_at": session.created_at,
        "expires_at": session.expires_at,
        "patient_id": session.options.patient_id,
        "order_id": session.options.order_id,
        "upload_source": session.options.source.value,
        "patient_match": session.options.patient_match.value,
        "on_conflict": session.options.on_conflict.value,
        "number_of_files": session.number_of_files,
        "lists_files": session.lists_files,
        "state": session.state.value,
        "completed_at": session.completed_at,
        "receipt": session.receipt,
    }


def _session(row: Row[Any]) -> UploadSession:
    options = UploadOptions(
        patient_id=row.patient_id,
        order_id=row.order_id,
        source=UploadSource(row.upload_source),
        patient_match=PatientMatch(row.patient_match),
        on_conflict=OnConflict(row.on_conflict),
        session_id=row.id,
    )
    return UploadSession(
        id=row.id,
        created_by_id=row.created_by_id,
        created_at=row.created_at,
        expires_at=row.expires_at,
        options=options,
        number_of_files=row.number_of_files,
        lists_files=row.lists_files,
        state=SessionState(row.state),
        completed_at=row.completed_at,
        receipt=row.receipt,
    )


def _file(row: Row[Any]) -> SessionFile:
    file = ExpectedFile(row.sha256, row.size_bytes, row.name)
    return SessionFile(file) if row.id is None else SessionFile(file, entry_of(row), is_held=row.is_held)
