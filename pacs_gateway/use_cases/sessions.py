"""Upload sessions: made, looked at, completed with a receipt, expired.

A file is held against its session when all of it has come and its entry, with the digests, is on disk, but before its
end goes to Orthanc. A session is completed while nobody does that: so no file is stored in it afterwards that its
receipt does not name.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import structlog

from pacs_gateway.domain.ledger import LedgerFile, Step
from pacs_gateway.domain.sessions import (
    ExpectedFile,
    Progress,
    SessionFile,
    SessionState,
    UploadSession,
    broken_off,
    no_such_session,
    not_expected,
    receipt_claims,
    session_changed,
    session_incomplete,
)
from pacs_gateway.domain.upload import UploadOptions
from pacs_gateway.use_cases.ports import Clock, Database, Pacs, ReceiptSigner, UnitOfWork
from service_runtime.errors import Reason, ServiceError

log = structlog.get_logger()

# How many questions to Orthanc are under way for one session that is completed.
_ASKED_AT_ONCE = 8
# How often a session is looked at whose files change while it is completed.
_ATTEMPTS = 3


class Sessions:
    """The sessions. Without a signer there are none."""

    def __init__(
        self,
        *,
        database: Database,
        pacs: Pacs,
        clock: Clock,
        signer: ReceiptSigner | None,
        issuer: str,
        keep_seconds: float,
        max_files: int,
    ) -> None:
        """Receipts are signed in the name of `issuer`; a session is open for `keep_seconds`, and has `max_files` at
        most.
        """
        self.max_files = max_files
        self._database = database
        self._pacs = pacs
        self._clock = clock
        self._signer = signer
        self._issuer = issuer
        self._keep = timedelta(seconds=keep_seconds)

    @property
    def receipt_keys(self) -> bytes:
        """The JWKS that receipts are checked with."""
        return self._signer.keys if self._signer is not None else b'{"keys":[]}'

    async def create(
        self, options: UploadOptions, *, files: Sequence[ExpectedFile], number_of_files: int, by: UUID
    ) -> Progress:
        """A new session of a user, for these files, each once, or for so many. What the options name must be there.

        Raises RECEIPTS_NOT_CONFIGURED.
        """
        self._expect_signer()
        session_id, now = uuid4(), self._clock()
        session = UploadSession(
            id=session_id,
            created_by_id=by,
            created_at=now,
            expires_at=now + self._keep,
            options=replace(options, session_id=session_id),
            number_of_files=len(files) or number_of_files,
            lists_files=bool(files),
        )
        async with self._database.begin() as work:
            await work.sessions.add(session, files)
            await work.commit()
        expected = sorted(files, key=lambda file: file.sha256)
        return Progress(session, [SessionFile(file) for file in expected])

    async def get(self, session_id: UUID, *, by: UUID, reads_all: bool = False) -> Progress:
        """A session and what has become of its files. Raises SESSION_NOT_FOUND for one of another user, unless the
        caller reads all of them.
        """
        async with self._database.begin() as work:
            session = await _own(work, session_id, by=None if reads_all else by)
            progress = Progress(session, await work.sessions.files(session))
        return replace(progress, session=replace(session, state=session.state_at(self._clock())))

    async def open(self, session_id: UUID, *, by: UUID) -> UploadSession:
        """A session that takes files of this user. Raises SESSION_NOT_FOUND, SESSION_EXPIRED, SESSION_COMPLETED."""
        async with self._database.begin() as work:
            session = await _own(work, session_id, by=by)
        session.expect_open(self._clock())
        return session

    async def complete(self, session_id: UUID, *, by: UUID) -> Progress:
        """The session with its receipt, which says only what the PACS holds. Completed again, it is the very same.

        Raises SESSION_NOT_FOUND, SESSION_EXPIRED, SESSION_INCOMPLETE, RECEIPTS_NOT_CONFIGURED.
        """
        for _ in range(_ATTEMPTS):
            progress = await self.get(session_id, by=by)
            if progress.session.state is SessionState.COMPLETED:
                return progress
            progress.session.expect_open(self._clock())
            progress.expect_complete()
            await self._expect_held(progress)
            completed = await self._complete_unless_changed(progress)
            if completed is not None:
                return completed
        raise session_changed()

    async def _complete_unless_changed(self, seen: Progress) -> Progress | None:
        """Signs and keeps the receipt, while the session takes no file. None where its files are others by now than
        those that were seen.
        """
        signer = self._expect_signer()
        async with self._database.begin() as work:
            session = await work.sessions.hold(seen.session.id)
            if session is None:
                raise no_such_session(seen.session.id)
            if session.state is SessionState.COMPLETED:
                return Progress(session, seen.files)
            session.expect_open(self._clock())
            now = Progress(session, await work.sessions.files(session))
            if now.contents != seen.contents:
                return None
            at = self._clock()
            # A receipt of thousands of files is megabytes of JSON.
            receipt = await asyncio.to_thread(lambda: signer.sign(receipt_claims(now, issuer=self._issuer, at=at)))
            done = replace(session, state=SessionState.COMPLETED, completed_at=at, receipt=receipt)
            await work.sessions.complete(done)
            for entry in await work.sessions.settled_by(done):
                await work.ledger.forget_entry(entry)
            await work.commit()
        log.info("session completed", session_id=str(done.id), files=len(now.stored))
        return replace(now, session=done)

    async def _expect_held(self, progress: Progress) -> None:
        """Asks Orthanc for each file. What it holds no more, or with another content, the ledger forgets, so that it
        shows as deleted and can be sent again. Raises SESSION_INCOMPLETE.
        """
        waiting = iter([one.entry for one in progress.stored if one.entry is not None])
        gone: dict[UUID, LedgerFile] = {}

        async def ask() -> None:
            for entry in waiting:
                if not await self._holds(entry):
                    gone[entry.id] = entry

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(_ASKED_AT_ONCE):
                    tasks.create_task(ask())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        forgotten = [entry for entry in gone.values() if await self._forget(entry)]
        if forgotten:
            raise session_incomplete(len(forgotten))

    async def _forget(self, entry: LedgerFile) -> bool:
        """Has no log count an instance that is not there, while nobody else changes its study. False where it is there
        by now.
        """
        async with self._database.begin() as work:
            await work.lock_study(entry.study_instance_uid)
            if await self._holds(entry):
                return False
            await work.ledger.forget_instance(entry.orthanc_id)
            await work.commit()
        log.warning("instance gone", ledger_entry_id=str(entry.id))
        return True

    async def _holds(self, entry: LedgerFile) -> bool:
        return await self._pacs.fingerprint(entry.orthanc_id, read_again=False) == entry.stored.fingerprint

    def _expect_signer(self) -> ReceiptSigner:
        if self._signer is None:
            raise ServiceError(
                Reason.RECEIPTS_NOT_CONFIGURED,
                "The gateway has no key to sign receipts with (RECEIPT_KEY_FILE), and so no sessions.",
            )
        return self._signer


async def expire_sessions(database: Database, clock: Clock, *, limit: int) -> int:
    """Has sessions expire whose time is over, so many at most, and the logs say what never came; how many it was."""
    async with database.begin() as work:
        due = await work.sessions.due(now=clock(), limit=limit)
    expired = 0
    for session_id in due:
        async with database.begin() as work:
            session = await work.sessions.hold(session_id)
            if session is None or session.state is not SessionState.OPEN:
                continue
            progress = Progress(session, await work.sessions.files(session))
            if progress.is_moving:
                # It takes no more already. What never came is said when that is known of all of it.
                continue
            await work.sessions.expire(replace(session, state=SessionState.EXPIRED))
            for entry in broken_off(progress, at=clock()):
                await work.ledger.write(Step(entry))
            await work.commit()
        expired += 1
        log.info("session expired", session_id=str(session_id), missing=progress.number_missing)
    return expired


async def expect_in_session(database: Database, entry: LedgerFile, *, now: datetime) -> None:
    """Raises unless the entry's session takes its file: FILE_NOT_EXPECTED, SESSION_EXPIRED, SESSION_COMPLETED.

    All of the file must have come, and the entry be on disk: of two that would both be the last to fit, each then sees
    the other.
    """
    assert entry.session_id is not None  # noqa: S101 - asked for an entry of a session
    async with database.begin() as work:
        found = await work.sessions.share(entry.session_id, entry.source)
    if found is None:
        raise no_such_session(entry.session_id)
    session, is_expected = found
    session.expect_open(now)
    if not is_expected:
        raise not_expected()


async def _own(work: UnitOfWork, session_id: UUID, *, by: UUID | None) -> UploadSession:
    """The session, of this user or of any. Raises SESSION_NOT_FOUND."""
    session = await work.sessions.get(session_id)
    if session is None or by not in {None, session.created_by_id}:
        raise no_such_session(session_id)
    return session
