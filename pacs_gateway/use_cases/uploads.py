"""Storing files under the right patient and order, with a ledger of them.

The way of a file: it is taken in (`Upload.take`), as a whole where it is small. In `FileUpload.store` its tags are read
and the edits are made, its patient and order are found and checked (`filing`), Orthanc stores it with its entry in the
ledger a step ahead (`storing`), what Orthanc holds is compared with what was sent, and the log and the order are
brought up to date (`confirming`).
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterable
from contextlib import aclosing, suppress
from uuid import UUID

from pacs_gateway.domain.identifiers import orthanc_id
from pacs_gateway.domain.ledger import LedgerFile, digest_of
from pacs_gateway.domain.matching import edits_of, expect_of_patient
from pacs_gateway.domain.quarantine import Refused
from pacs_gateway.domain.registry import Order, Patient
from pacs_gateway.domain.tags import DicomTags, HeaderEdit
from pacs_gateway.domain.upload import StoredFile, UnknownPatients, UploadOptions
from pacs_gateway.use_cases.confirming import Confirming
from pacs_gateway.use_cases.filing import Accepted, Filing, Lookups
from pacs_gateway.use_cases.media import DirectoryReader
from pacs_gateway.use_cases.ports import Clock, Database, Pacs, Spool, TagService
from pacs_gateway.use_cases.quarantine import Quarantine, Retraceable
from pacs_gateway.use_cases.storing import Storing
from pacs_gateway.use_cases.streams import Incoming, Keeping, Replayable, SenderLeftError, Whole, to_the_end
from pacs_gateway.use_cases.turns import Turns
from service_runtime.errors import Reason, ServiceError, not_found

# A file of at most this size is taken in before anything is done with it: most files of most studies are shorter.
_HELD_BYTES = 1024 * 1024
# What tag_service is sent of it: hardly a header is longer, and hardly more stands behind the pixels.
_BEGINNING_BYTES = 64 * 1024
_ENDING_BYTES = 1024


class Uploads:
    """Opens uploads."""

    def __init__(
        self,
        *,
        database: Database,
        pacs: Pacs,
        tag_service: TagService,
        clock: Clock,
        unknown: UnknownPatients,
        keeping: Keeping,
        spool: Spool,
        quarantine: Quarantine | None = None,
    ) -> None:
        """`quarantine` keeps what is refused for whose it is; None: nothing is kept."""
        self.database = database
        self.pacs = pacs
        self.tag_service = tag_service
        self.clock = clock
        self.unknown = unknown
        self.keeping = keeping
        self.spool = spool
        self.quarantine = quarantine
        self.lookups = Lookups(database)
        self.confirming = Confirming(database=database, pacs=pacs, clock=clock)
        self.directories = DirectoryReader(tag_service, keeping)

    async def open(self, options: UploadOptions, *, by: UUID, keeps_refused: bool = True) -> "Upload":
        """An upload of one or more files by a user. `keeps_refused`: the quarantine takes what is refused.

        Raises PATIENT_NOT_FOUND, ORDER_NOT_FOUND and ORDER_PATIENT_MISMATCH for what the options name.
        """
        patient, order = await self.named_by(options)
        quarantine = self.quarantine if keeps_refused else None
        return Upload(self, options, by=by, patient=patient, order=order, quarantine=quarantine)

    async def named_by(self, options: UploadOptions) -> tuple[Patient | None, Order | None]:
        """The patient and the order that the options name. Raises as `open`."""
        patient = order = None
        if options.patient_id is None and options.order_id is None:
            return None, None
        async with self.database.begin() as work:
            if options.patient_id is not None:
                patient = await work.patients.get(options.patient_id)
                if patient is None:
                    raise not_found(Reason.PATIENT_NOT_FOUND, "patient", str(options.patient_id))
            if options.order_id is not None:
                order = await work.orders.get(options.order_id)
                if order is None:
                    raise not_found(Reason.ORDER_NOT_FOUND, "order", str(options.order_id))
        if patient is not None and order is not None:
            expect_of_patient(order, patient)
        return patient, order


class Upload:
    """Stores the files of one upload."""

    def __init__(
        self,
        uploads: Uploads,
        options: UploadOptions,
        *,
        by: UUID,
        patient: Patient | None,
        order: Order | None,
        quarantine: Quarantine | None,
    ) -> None:
        self.id = uuid.uuid4()
        self.uploads = uploads
        self.options = options
        self.by = by
        self.quarantine = quarantine
        self.edits = edits_of(options, patient)
        self.edits_sha256 = digest_of(self.edits)
        self.turns = Turns()
        self.filing = Filing(
            database=uploads.database,
            lookups=uploads.lookups,
            pacs=uploads.pacs,
            unknown=uploads.unknown,
            options=options,
            patient=patient,
            order=order,
        )

    async def store(self, name: str, chunks: AsyncIterable[bytes]) -> StoredFile:
        """Stores one file, whose sender calls it `name`. Raises what ris.pacs.v1.UploadService.Upload documents."""
        async with aclosing(await self.take(name, chunks)) as file:
            return await file.store()

    async def take(self, name: str, chunks: AsyncIterable[bytes]) -> "FileUpload":
        """Takes a file in: all of it where it is small. To be stored, and closed."""
        began = time.monotonic()
        watched = self.quarantine.watch(chunks) if self.quarantine is not None else None
        incoming = Incoming(watched or chunks)
        source = Replayable(incoming, self.uploads.keeping)
        try:
            whole = await source.hold(_HELD_BYTES)
        except BaseException as error:
            await to_the_end(self._broken_off(name, source, error))
            if watched is not None:
                watched.forget()
            raise
        return FileUpload(self, name, incoming, source, whole=whole, began=began, watched=watched)

    async def _broken_off(self, name: str, source: Replayable, error: BaseException) -> None:
        """A file that breaks off while it is taken in fails in its study's log, as one that breaks off later does."""
        reason = error if isinstance(error, ServiceError) else SenderLeftError()
        filed = asyncio.Event()
        incoming = Incoming(source.breaking_off(reason, after=filed))
        cut = Replayable(incoming, self.uploads.keeping)
        file = FileUpload(self, name, incoming, cut, whole=None, began=time.monotonic(), filed=filed)
        async with aclosing(source), aclosing(file):
            with suppress(ServiceError, SenderLeftError):
                await file.store()


class FileUpload:
    """A file of an upload that has begun to come. Use `store` once, then `aclose`."""

    def __init__(
        self,
        upload: Upload,
        name: str,
        incoming: Incoming,
        source: Replayable,
        *,
        whole: bytes | None,
        began: float,
        filed: asyncio.Event | None = None,
        watched: Retraceable | None = None,
    ) -> None:
        """`whole` is all of it, None of one that still comes from `source`. `filed` is set once it is known whose it
        is; `watched` is what the quarantine takes where it is refused for that.
        """
        self._upload = upload
        self._uploads = upload.uploads
        self._name = name
        self._incoming = incoming
        self._source = source
        self._whole = whole
        self._began = began
        self._filed = filed
        self._watched = watched
        self._turn = upload.turns.take()

    @property
    def has_come(self) -> bool:
        """Whether all of it is here: to store it, nothing is read of its sender."""
        return self._whole is not None

    async def aclose(self) -> None:
        """Keeps nothing of it any more."""
        self._turn.end()
        if self._watched is not None:
            self._watched.forget()
        await self._source.aclose()

    async def store(self) -> StoredFile:
        """Stores it, or has the quarantine keep it. Raises what Upload.store does."""
        try:
            return await self._pass_through()
        except ServiceError as error:
            if self._watched is not None and self._upload.quarantine is not None:
                # From here on nobody else waits for the sender.
                await self._source.aclose()
                await self._upload.quarantine.take(error, self._watched, self._refused())
            raise

    async def _pass_through(self) -> StoredFile:
        """Has its header edited, by its ends where these tell, else on its way through tag_service."""
        if self._whole is not None:
            edit = await self._header_of(self._whole)
            if edit is not None and edit.original is not None and edit.tags is not None:
                edited = await Whole.of(edit.header + self._whole[edit.header_size :])
                return await self._store(edit.original, edit.tags, edited)
        edits, tag_service = self._upload.edits, self._uploads.tag_service
        original = await tag_service.read_tags(self._source.beginning())
        # Also without edits: tag_service sees to the end of the file, and so finds one that is cut short.
        modified = tag_service.modify(self._source.whole(), edits)
        async with aclosing(modified), aclosing(Replayable(modified, self._uploads.keeping)) as body:
            tags = original if edits.is_empty else await tag_service.read_tags(body.beginning())
            return await self._store(original, tags, body.whole())

    async def _header_of(self, whole: bytes) -> HeaderEdit | None:
        """The file's header as edited; None where its ends do not tell, or something is wrong with it: sent through
        tag_service as a whole, it is known by then to which study the failure belongs.
        """
        beginning, ending = whole[:_BEGINNING_BYTES], whole[_BEGINNING_BYTES:][-_ENDING_BYTES:]
        try:
            edit = await self._uploads.tag_service.modify_header(
                beginning, len(whole), self._upload.edits, ending=ending
            )
        except ServiceError as error:
            if error.retry_after is not None:
                raise
            return None
        return None if edit.needs_whole_file else edit

    async def _store(self, original: DicomTags, tags: DicomTags, file: Whole | AsyncIterable[bytes]) -> StoredFile:
        entry = self._entry_of(tags)
        await self._turn.come(entry.orthanc_id)
        accepted = await self._accept(original, tags, entry)
        if self._filed is not None:
            self._filed.set()
        if self._watched is not None:
            self._watched.forget()
        storing = self._storing(accepted)
        # Once Orthanc has been sent all of it, it may have stored it: what follows is then done even if the sender
        # goes away. Before that, the file is broken off with its sender.
        return await to_the_end(storing.run(file), unless=lambda: not storing.past_return)

    async def _accept(self, original: DicomTags, tags: DicomTags, entry: LedgerFile) -> Accepted:
        """Where the file belongs. Broken off around its entry in the ledger, which may be made, that is closed."""
        filing = asyncio.ensure_future(self._upload.filing.accept(original, tags, entry))
        try:
            return await asyncio.shield(filing)
        except ServiceError as error:
            # The database may have kept the entry and gone away before it said so.
            if error.retry_after is not None:
                self._uploads.database.ledger.abandon(entry.id)
            raise
        except asyncio.CancelledError as error:
            # A transaction is short: to see it through is simpler than to find out how far it came.
            accepted = await to_the_end(_outcome_of(filing))
            if accepted is not None and accepted.known_to_ledger:
                await to_the_end(self._storing(accepted).give_up(error))
            raise

    def _refused(self) -> Refused:
        return Refused(
            name=self._name,
            upload_id=self._upload.id,
            uploaded_by_id=self._upload.by,
            options=self._upload.options,
            edits_sha256=self._upload.edits_sha256,
        )

    def _entry_of(self, tags: DicomTags) -> LedgerFile:
        identifiers = (tags.study_instance_uid, tags.series_instance_uid, tags.sop_instance_uid)
        return LedgerFile(
            id=uuid.uuid4(),
            upload_id=self._upload.id,
            upload_log_id=None,
            uploaded_by_id=self._upload.by,
            upload_source=self._upload.options.source,
            study_instance_uid=tags.study_instance_uid,
            series_instance_uid=tags.series_instance_uid,
            sop_instance_uid=tags.sop_instance_uid,
            orthanc_id=orthanc_id(tags.patient_id, *identifiers),
            filename=self._name,
            edits_sha256=self._upload.edits_sha256,
            received_at=self._uploads.clock(),
            session_id=self._upload.options.session_id,
        )

    def _storing(self, accepted: Accepted) -> Storing:
        return Storing(
            accepted,
            self._incoming,
            database=self._uploads.database,
            pacs=self._uploads.pacs,
            tag_service=self._uploads.tag_service,
            confirming=self._uploads.confirming,
            spool=self._uploads.spool,
            clock=self._uploads.clock,
            on_conflict=self._upload.options.on_conflict,
            edited=not self._upload.edits.is_empty,
            began=self._began,
        )


async def _outcome_of(filing: "asyncio.Future[Accepted]") -> Accepted | None:
    """What accepting came to; None where it failed."""
    await asyncio.wait([filing])
    return None if filing.cancelled() or filing.exception() is not None else filing.result()
