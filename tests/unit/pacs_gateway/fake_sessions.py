"""The upload sessions in memory, for the fake database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pacs_gateway.domain.ledger import Content, FileState, LedgerFile
from pacs_gateway.domain.sessions import Arrival, ExpectedFile, SessionFile, SessionState, UploadSession
from service_runtime.errors import Reason

if TYPE_CHECKING:
    from tests.unit.pacs_gateway.fake_database import FakeUnitOfWork

_NOT_STORED = {FileState.FAILED, FileState.QUARANTINED}
_MOST_SAYING = (Arrival.STORED, Arrival.IN_PROGRESS, Arrival.DELETED, Arrival.FAILED)


class FakeSigner:
    """The port `ReceiptSigner`: keeps the claims, and gives a number for a receipt."""

    def __init__(self) -> None:
        self.signed: list[Any] = []
        self.keys = b'{"keys":[{}]}'

    def sign(self, claims: Any) -> str:
        """Keeps the claims."""
        self.signed.append(claims)
        return f"receipt {len(self.signed)}"


class FakeSessions:
    """The port `UploadSessions`."""

    def __init__(self, work: FakeUnitOfWork) -> None:
        self._work = work
        self._database = work.database

    async def add(self, session: UploadSession, files: Sequence[ExpectedFile]) -> None:
        """Adds a session."""
        await self._database.hooks.reach("statement")
        self._work.changes.sessions[session.id] = session
        self._database.expected[session.id] = list(files)

    async def get(self, session_id: UUID) -> UploadSession | None:
        """The session with this id."""
        return (await self._work.rows("sessions")).get(session_id)

    async def hold(self, session_id: UUID) -> UploadSession | None:
        """The session with this id, held."""
        await self._work.hold(f"session {session_id}")
        return await self.get(session_id)

    async def share(self, session_id: UUID, content: Content) -> tuple[UploadSession, bool] | None:
        """The session with this id, shared, and whether it expects the file."""
        await self._work.hold(f"session {session_id}", alone=False)
        session = await self.get(session_id)
        if session is None:
            return None
        if session.lists_files:
            listed = self._database.expected[session_id]
            return session, any((one.sha256, one.size_bytes) == (content.sha256, content.size_bytes) for one in listed)
        entries = await self._entries(session_id)
        others = {one.source.sha256 for one in entries if one.state not in _NOT_STORED}
        return session, len(others - {content.sha256}) < session.number_of_files

    async def files(self, session: UploadSession) -> Sequence[SessionFile]:
        """The files that are listed, else those that have come."""
        entries = await self._entries(session.id)
        if session.lists_files:
            expected = self._database.expected[session.id]
        else:
            came = {one.source.sha256: one for one in entries if one.state not in _NOT_STORED}
            expected = [ExpectedFile(sha, one.source.size_bytes, one.filename) for sha, one in came.items()]
        return sorted((self._file(one, entries) for one in expected), key=lambda file: file.expected.sha256)

    async def complete(self, session: UploadSession) -> None:
        """Keeps that it is completed."""
        assert f"session {session.id}" in self._work.held.keys() - self._work.shared, "the session must be held"
        self._work.changes.sessions[session.id] = session

    async def due(self, *, now: datetime, limit: int) -> Sequence[UUID]:
        """Open sessions whose time is over."""
        rows = await self._work.rows("sessions")
        return [one.id for one in rows.values() if one.state_at(now) is not one.state][:limit]

    async def expire(self, session: UploadSession) -> None:
        """Keeps that it is expired."""
        assert session.state is SessionState.EXPIRED
        await self.complete(session)

    async def settled_by(self, session: UploadSession) -> Sequence[LedgerFile]:
        """The entries for what never came into sessions that list no more than this one does."""
        expected = self._database.expected
        listed = {one.sha256 for one in expected[session.id]}
        settled = {one for one in expected if {file.sha256 for file in expected[one]} <= listed}
        files = (await self._work.rows("files")).values()
        return [one for one in files if one.session_id in settled and one.error == Reason.SESSION_EXPIRED]

    async def _entries(self, session_id: UUID) -> list[LedgerFile]:
        files = (await self._work.rows("files")).values()
        return [one for one in files if one.session_id == session_id and one.source.sha256]

    def _file(self, expected: ExpectedFile, entries: Sequence[LedgerFile]) -> SessionFile:
        files = [
            SessionFile(expected, one, is_held=self._is_held(one))
            for one in entries
            if one.source.sha256 == expected.sha256
        ]
        found = min(files, key=lambda file: _MOST_SAYING.index(file.arrival), default=None)
        return found or SessionFile(expected)

    def _is_held(self, entry: LedgerFile) -> bool:
        current = (self._database.tables.files[one] for one in self._database.current)
        return entry.state is FileState.VERIFIED and any(
            one.state is FileState.VERIFIED
            and (one.orthanc_id, one.stored.sha256) == (entry.orthanc_id, entry.stored.sha256)
            for one in current
        )
