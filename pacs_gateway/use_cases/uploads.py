"""Storing files under the right patient and order, with a ledger of them.

The way of a file, in `Upload.store`: its tags are read, the edits are made, its patient and order are found and checked
(`filing`), Orthanc stores it with its entry in the ledger a step ahead, it is read back and compared, and the log and
the order are brought up to date (`storing`).
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterable, Callable
from contextlib import aclosing
from uuid import UUID

from pacs_gateway.domain.identifiers import orthanc_id
from pacs_gateway.domain.ledger import LedgerFile, digest_of
from pacs_gateway.domain.matching import edits_of, expect_of_patient
from pacs_gateway.domain.quarantine import Refused
from pacs_gateway.domain.registry import Order, Patient
from pacs_gateway.domain.tags import DicomTags
from pacs_gateway.domain.upload import StoredFile, UnknownPatients, UploadOptions
from pacs_gateway.use_cases.filing import Accepted, Filing
from pacs_gateway.use_cases.media import DirectoryReader
from pacs_gateway.use_cases.ports import Clock, Database, Pacs, TagService
from pacs_gateway.use_cases.quarantine import Quarantine
from pacs_gateway.use_cases.storing import Storing
from pacs_gateway.use_cases.streams import Incoming, Keeping, Replayable, to_the_end
from service_runtime.errors import Reason, ServiceError, not_found


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
        quarantine: Quarantine | None = None,
    ) -> None:
        """`quarantine` keeps what is refused for whose it is; None: nothing is kept."""
        self.database = database
        self.pacs = pacs
        self.tag_service = tag_service
        self.clock = clock
        self.unknown = unknown
        self.keeping = keeping
        self.quarantine = quarantine
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
    """Stores the files of one upload, one after the other."""

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
        self._uploads = uploads
        self._options = options
        self._by = by
        self._quarantine = quarantine
        self._edits = edits_of(options, patient)
        self._edits_sha256 = digest_of(self._edits)
        self._filing = Filing(
            database=uploads.database,
            pacs=uploads.pacs,
            unknown=uploads.unknown,
            options=options,
            patient=patient,
            order=order,
        )

    async def store(self, name: str, chunks: AsyncIterable[bytes]) -> StoredFile:
        """Stores one file, whose sender calls it `name`. Raises what ris.pacs.v1.UploadService.Upload documents."""
        if self._quarantine is None:
            return await self._store(name, chunks)
        watched = self._quarantine.watch(chunks)
        try:
            return await self._store(name, watched, accepted=watched.forget)
        except ServiceError as error:
            await self._quarantine.take(error, watched, self._refused(name))
            raise
        finally:
            watched.forget()

    async def _store(
        self, name: str, chunks: AsyncIterable[bytes], *, accepted: Callable[[], None] = lambda: None
    ) -> StoredFile:
        """Stores one file. `accepted` is called once it is known whose it is, and that it may be stored."""
        began = time.monotonic()
        tag_service, keeping = self._uploads.tag_service, self._uploads.keeping
        incoming = Incoming(chunks)
        async with aclosing(Replayable(incoming, keeping)) as source:
            original = await tag_service.read_tags(source.beginning())
            # Also without edits: tag_service sees to the end of the file, and so finds one that is cut short.
            edited = tag_service.modify(source.whole(), self._edits)
            async with aclosing(edited), aclosing(Replayable(edited, keeping)) as body:
                tags = original if self._edits.is_empty else await tag_service.read_tags(body.beginning())
                belongs = await self._accept(name, original, tags, incoming, began)
                accepted()
                storing = self._storing(belongs, incoming, began)
                # Once Orthanc has been sent all of it, it may have stored it: what follows is then done even if the
                # sender goes away. Before that, the file is broken off with its sender.
                return await to_the_end(storing.run(body.whole()), unless=lambda: not storing.past_return)

    async def _accept(
        self, name: str, original: DicomTags, tags: DicomTags, incoming: Incoming, began: float
    ) -> Accepted:
        """Where the file belongs. Broken off around its entry in the ledger, which may be made, that is closed."""
        entry = self._entry_of(name, tags)
        filing = asyncio.ensure_future(self._filing.accept(original, tags, entry))
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
                await to_the_end(self._storing(accepted, incoming, began).give_up(error))
            raise

    def _refused(self, name: str) -> Refused:
        return Refused(
            name=name,
            upload_id=self.id,
            uploaded_by_id=self._by,
            options=self._options,
            edits_sha256=self._edits_sha256,
        )

    def _entry_of(self, name: str, tags: DicomTags) -> LedgerFile:
        identifiers = (tags.study_instance_uid, tags.series_instance_uid, tags.sop_instance_uid)
        return LedgerFile(
            id=uuid.uuid4(),
            upload_id=self.id,
            upload_log_id=None,
            uploaded_by_id=self._by,
            upload_source=self._options.source,
            study_instance_uid=tags.study_instance_uid,
            series_instance_uid=tags.series_instance_uid,
            sop_instance_uid=tags.sop_instance_uid,
            orthanc_id=orthanc_id(tags.patient_id, *identifiers),
            filename=name,
            edits_sha256=self._edits_sha256,
            received_at=self._uploads.clock(),
            session_id=self._options.session_id,
        )

    def _storing(self, accepted: Accepted, incoming: Incoming, began: float) -> Storing:
        return Storing(
            accepted,
            incoming,
            database=self._uploads.database,
            pacs=self._uploads.pacs,
            tag_service=self._uploads.tag_service,
            clock=self._uploads.clock,
            on_conflict=self._options.on_conflict,
            edited=not self._edits.is_empty,
            began=began,
        )


async def _outcome_of(filing: "asyncio.Future[Accepted]") -> Accepted | None:
    """What accepting came to; None where it failed."""
    await asyncio.wait([filing])
    return None if filing.cancelled() or filing.exception() is not None else filing.result()
