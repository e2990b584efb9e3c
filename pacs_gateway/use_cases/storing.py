"""Getting an accepted file into the PACS, with its entry in the ledger a step ahead.

The end of the file is held back until its entry, with all digests, is on disk; so nothing can be stored that the ledger
does not tell of. What Orthanc then holds is read back and compared, while nobody can delete the study; only after that
the entry says `verified`. What may be stored, or not, is left open for the reconciler.
"""

import asyncio
import time
from collections.abc import AsyncIterable, Sequence
from contextlib import aclosing
from dataclasses import replace

import structlog

from pacs_gateway.domain.identifiers import orthanc_id
from pacs_gateway.domain.ledger import KEPT, Content, FileState, LedgerFile, Step
from pacs_gateway.domain.registry import Patient
from pacs_gateway.domain.study import Fingerprint, StoredInstance
from pacs_gateway.domain.tags import DicomTags
from pacs_gateway.domain.upload import FileStatus, OnConflict, StoredFile
from pacs_gateway.use_cases.confirming import Confirming, HeldError, Sent, conflict, unverified
from pacs_gateway.use_cases.filing import Accepted, as_it_is_now, order_of
from pacs_gateway.use_cases.ports import Clock, Database, Pacs, Spool, TagService, is_fate_unknown
from pacs_gateway.use_cases.replacing import Replacing
from pacs_gateway.use_cases.sessions import expect_in_session
from pacs_gateway.use_cases.streams import Incoming, Outgoing, SenderLeftError, Whole
from service_runtime.errors import Reason, ServiceError

log = structlog.get_logger()

# What the ledger says of a file whose sender went away.
CANCELLED = "CANCELLED"
# How long a file waits for another upload of the same file, which is ahead. Orthanc hangs up on a request on which
# nothing comes for a second, so one that has begun waits less.
_WAIT_SECONDS = 10.0
_WAIT_BEGUN_SECONDS = 0.5
_POLL_SECONDS = (0.02, 0.5)


class Storing:
    """Stores one file. Use `run` once."""

    def __init__(
        self,
        accepted: Accepted,
        incoming: Incoming,
        *,
        database: Database,
        pacs: Pacs,
        tag_service: TagService,
        confirming: Confirming,
        spool: Spool,
        clock: Clock,
        on_conflict: OnConflict,
        edited: bool,
        began: float,
    ) -> None:
        """`incoming` has come to its end when what is stored has. `edited`: edits were asked for. `began` is when the
        file began to come, in seconds of the monotonic clock.
        """
        # From here on the file may be stored, or another deleted for it: it is seen through even if its sender leaves.
        self.past_return = False
        self._accepted = accepted
        self._entry = accepted.entry
        self._incoming = incoming
        self._database = database
        self._pacs = pacs
        self._tag_service = tag_service
        self._confirming = confirming
        self._clock = clock
        self._on_conflict = on_conflict
        self._edited = edited
        self._began = began
        self._request_begun = False
        self._replacing = Replacing(database=database, pacs=pacs, spool=spool)

    async def run(self, file: Whole | AsyncIterable[bytes]) -> StoredFile:
        """Stores the file, which is here as a whole, or still comes. Raises INSTANCE_CONFLICT, STUDY_PATIENT_MISMATCH,
        STORE_REFUSED, STORE_UNVERIFIED, what reading it raises, and what says that a part is away.
        """
        async with aclosing(self._replacing):
            return await self._run(file)

    async def _run(self, file: Whole | AsyncIterable[bytes]) -> StoredFile:
        try:
            if isinstance(file, Whole):
                await self._note_all(file.content)
                stored = await self._pacs.store_whole(file.data)
            else:
                stored = await self._pacs.store(Outgoing(file, first=self._note_begin, last=self._note_all))
        except HeldError as held:
            if held.status is FileStatus.KEPT:
                return await self._keep()
            stored = self._as_held()
        except BaseException as error:
            defect = self.past_return and not isinstance(error, ServiceError)
            unknown = defect or self._replacing.room_made or is_fate_unknown(error)
            unknown = unknown and not await self._replacing.put_back(self._entry)
            await self.give_up(error, state=FileState.RECEIVED if unknown else None)
            raise
        return await self._confirm_or_take_back(stored)

    async def give_up(self, error: BaseException, *, state: FileState | None = None) -> None:
        """Notes that the file failed; with a state, that it came so far and nobody knows if it is stored. Where not
        even that can be noted, the entry goes on to say what it said, which the reconciler looks into.

        What has become another patient's study does not count the file.
        """
        reason = _reason_of(error)
        file = (
            self._entry.failed(reason, at=self._clock())
            if state is None
            else self._entry.left_open(reason, state=state)
        )
        try:
            async with self._database.begin() as work:
                patient = await as_it_is_now(work, self._accepted.patient)
                known = (await work.upload_logs.by_study([file.study_instance_uid])).get(file.study_instance_uid)
            counts = known is not None and known.patient_id == patient.id
            await self._database.ledger.write(Step(file, seconds=time.monotonic() - self._began, counts=counts))
        except ServiceError as failure:
            self._database.ledger.abandon(file.id)
            log.warning("ledger not updated", ledger_entry_id=str(file.id), reason=failure.reason)

    async def _note_begin(self) -> None:
        """Before the first byte goes to Orthanc."""
        self._request_begun = True
        if not self._accepted.known_to_ledger:
            await self._database.ledger.write(Step(self._entry))
        if self._on_conflict is OnConflict.OVERWRITE:
            # There is no time for it once Orthanc waits for the end of the file.
            await self._replacing.set_aside(self._entry.orthanc_id)

    async def _note_all(self, content: Content) -> None:
        """Before the last byte goes to Orthanc. Raises HeldError where that is not to be, INSTANCE_CONFLICT, and what
        the file's session refuses it for.
        """
        self._entry = self._entry.sent(await self._incoming.content(), content)
        rivals = await self._without_same_ahead(await self._database.ledger.write(Step(self._entry)))
        if self._entry.session_id is not None:
            await expect_in_session(self._database, self._entry, now=self._clock())
        if rivals or self._on_conflict is not OnConflict.REJECT:
            held = await self._pacs.fingerprint(self._entry.orthanc_id, read_again=False)
            if held is not None:
                await self._meet(held, rivals)
        self.past_return = True

    async def _without_same_ahead(self, rivals: Sequence[LedgerFile]) -> Sequence[LedgerFile]:
        """The rivals, once no other upload of the same file is on its way before this one, or the wait is too long."""
        least, pause = self._ahead(self._entry), _POLL_SECONDS[0]
        until = time.monotonic() + (_WAIT_BEGUN_SECONDS if self._request_begun else _WAIT_SECONDS)
        while time.monotonic() < until and any(
            rival.is_open and not rival.error and self._entry.is_same_upload(rival) and self._ahead(rival) < least
            for rival in rivals
        ):
            await asyncio.sleep(pause)
            pause = min(2 * pause, _POLL_SECONDS[1])
            async with self._database.begin() as work:
                entries = await work.ledger.of_instance(self._entry.orthanc_id)
            rivals = [one for one in entries if one.id != self._entry.id and one.state is not FileState.FAILED]
        return rivals

    @staticmethod
    def _ahead(file: LedgerFile) -> tuple[object, ...]:
        return (file.received_at, file.id)

    async def _meet(self, held: Fingerprint, rivals: Sequence[LedgerFile]) -> None:
        """The PACS holds an instance with the file's identifiers. Raises unless the file is to take its place."""
        if held == self._entry.stored.fingerprint or self._entry.same_as(held, rivals) is not None:
            raise HeldError(FileStatus.ALREADY_STORED)
        if self._on_conflict is OnConflict.KEEP:
            raise HeldError(FileStatus.KEPT)
        if self._on_conflict is OnConflict.REJECT:
            raise conflict()
        await self._make_room(held)

    async def _make_room(self, held: Fingerprint) -> None:
        """Deletes what the PACS holds, after the ledger says so."""
        self._entry = replace(self._entry, overwrites=True)
        await self._database.ledger.write(Step(self._entry))
        self.past_return = True
        await self._replacing.make_room(self._entry, held)

    async def _confirm_or_take_back(self, stored: StoredInstance) -> StoredFile:
        sent = Sent(self._accepted, self._entry, stored, self._on_conflict, self._edited, self._began)
        try:
            confirmed = await self._confirming.confirm(sent)
        except HeldError:
            return await self._keep()
        except Exception as error:
            failure = await self._take_back(stored, error)
            await self.give_up(failure, state=FileState.STORED if _is_unknown(failure) else None)
            if failure is error:
                raise
            raise failure from error
        status = FileStatus.ALREADY_STORED if stored.already_stored else FileStatus.STORED
        return self._outcome(status, self._accepted.tags, confirmed.file, confirmed.patient)

    async def _take_back(self, stored: StoredInstance, error: Exception) -> Exception:
        """Deletes the instance that this upload brought, unless the file is to be sent again, or a log counts it: then
        another upload stored it, too. The error to tell, which is Orthanc's where it cannot be deleted.
        """
        if stored.already_stored or _is_unknown(error):
            return error
        try:
            async with self._database.begin() as work:
                await work.lock_study(self._entry.study_instance_uid)
                if not await work.ledger.counts(stored.orthanc_id):
                    await self._pacs.delete_instance(stored.orthanc_id)
        except ServiceError as failure:
            return failure
        await self._replacing.put_back(self._entry)
        return error

    async def _keep(self) -> StoredFile:
        """Leaves what the PACS holds, and tells what that is. Raises STORE_UNVERIFIED where it is gone meanwhile."""
        try:
            async with aclosing(self._pacs.file(self._entry.orthanc_id)) as held:
                tags = await self._tag_service.read_tags(held)
        except BaseException as error:
            await self.give_up(error)
            if isinstance(error, ServiceError) and error.reason is Reason.EMPTY_FILE:
                raise unverified() from error
            raise
        file = self._entry.failed(KEPT, at=self._clock())
        await self._database.ledger.write(Step(file, seconds=time.monotonic() - self._began, counts=False))
        return self._outcome(FileStatus.KEPT, tags, file, self._accepted.patient)

    def _as_held(self) -> StoredInstance:
        """What Orthanc would answer of an instance that it holds."""
        tags = self._accepted.tags
        study = orthanc_id(tags.patient_id, tags.study_instance_uid)
        return StoredInstance(self._entry.orthanc_id, study, already_stored=True)

    def _outcome(self, status: FileStatus, tags: DicomTags, file: LedgerFile, patient: Patient) -> StoredFile:
        assert file.upload_log_id is not None  # noqa: S101 - an accepted file has a log
        return StoredFile(
            status=status,
            orthanc_id=file.orthanc_id,
            tags=tags,
            patient_id=patient.id,
            order_id=order_of(self._accepted),
            upload_log_id=file.upload_log_id,
        )


def _is_unknown(error: BaseException) -> bool:
    """Whether a part went away, so that what became of the file is not known."""
    return isinstance(error, ServiceError) and error.retry_after is not None


def _reason_of(error: BaseException) -> str:
    if isinstance(error, ServiceError):
        return error.reason
    return CANCELLED if isinstance(error, asyncio.CancelledError | SenderLeftError) else Reason.INTERNAL_ERROR
