"""Storing files under the right patient and order, with a log of it.

The way of a file, in `Upload.store`: its tags are read, the edits are made, its patient and order are found and
checked, the log says `in_progress`, Orthanc stores it, it is read back and compared, and the log and the order are
brought up to date in one transaction. Whoever holds the lock of a study changes what is known of it; it is not held
while the bytes travel.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterable
from contextlib import aclosing
from dataclasses import dataclass, replace
from uuid import UUID

import structlog

from pacs_gateway.domain.matching import (
    edits_of,
    expect_filed_as,
    expect_identifiers,
    expect_of_patient,
    is_study_of,
    other_patient,
    provisional_patient,
)
from pacs_gateway.domain.registry import Order, OrderStudy, Patient
from pacs_gateway.domain.study import Fingerprint, StoredInstance, StudyFilter
from pacs_gateway.domain.tags import DicomTags
from pacs_gateway.domain.upload import FileStatus, PatientMatch, StoredFile, UnknownPatients, UploadOptions
from pacs_gateway.domain.upload_log import LoggedFile, UploadLog
from pacs_gateway.use_cases.ports import Clock, Database, Pacs, TagService, UnitOfWork
from pacs_gateway.use_cases.streams import Keeping, Measured, Replayable, to_the_end
from service_runtime.errors import Reason, ServiceError, not_found

log = structlog.get_logger()

# What the log says of a file whose sender went away.
CANCELLED = "CANCELLED"
# A StudyInstanceUID under more than a few PatientIDs is wrong anyway.
_SAME_UID = 10
# Of a file that never set out, nothing was sent.
_NOTHING = Fingerprint(0, "")


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
    ) -> None:
        self.database = database
        self.pacs = pacs
        self.tag_service = tag_service
        self.clock = clock
        self.unknown = unknown
        self.keeping = keeping

    async def open(self, options: UploadOptions, *, by: UUID) -> "Upload":
        """An upload of one or more files by a user.

        Raises PATIENT_NOT_FOUND, ORDER_NOT_FOUND and ORDER_PATIENT_MISMATCH for what the options name.
        """
        patient = order = None
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
        return Upload(self, options, by=by, patient=patient, order=order)


@dataclass(frozen=True, slots=True)
class _Accepted:
    """A file that may be stored: its name, its tags as it came and as they will be stored, and where it belongs."""

    name: str
    original: DicomTags
    tags: DicomTags
    patient: Patient
    order: Order | None
    log_id: UUID
    began: float


class Upload:
    """Stores the files of one upload, one after the other."""

    def __init__(
        self, uploads: Uploads, options: UploadOptions, *, by: UUID, patient: Patient | None, order: Order | None
    ) -> None:
        self._database = uploads.database
        self._pacs = uploads.pacs
        self._tag_service = uploads.tag_service
        self._clock = uploads.clock
        self._unknown = uploads.unknown
        self._keeping = uploads.keeping
        self._options = options
        self._by = by
        self._patient = patient
        self._order = order
        self._edits = edits_of(options, patient)

    async def store(self, name: str, chunks: AsyncIterable[bytes]) -> StoredFile:
        """Stores one file, whose sender calls it `name`. Raises what ris.pacs.v1.UploadService.Upload documents; then
        nothing of the file is in the PACS, unless the error says UNAVAILABLE, which asks for sending it again.
        """
        began = time.monotonic()
        async with aclosing(Replayable(chunks, self._keeping)) as source:
            original = await self._tag_service.read_tags(source.beginning())
            # Also without edits: tag_service sees to the end of the file, and so finds one that is cut short.
            edited = self._tag_service.modify(source.whole(), self._edits)
            async with aclosing(edited), aclosing(Replayable(edited, self._keeping)) as body:
                tags = original if self._edits.is_empty else await self._tag_service.read_tags(body.beginning())
                accepted = await self._accept(name, original, tags, began)
                measured = Measured(body.whole())
                # Once Orthanc has been sent all of it, it may have stored it: what follows is then done even if the
                # sender goes away. Before that, the file is broken off with its sender.
                return await to_the_end(self._store(accepted, measured), unless=lambda: not measured.complete)

    async def _accept(self, name: str, original: DicomTags, tags: DicomTags, began: float) -> _Accepted:
        """Finds the patient and the order, checks them, and writes to the log that the file is on its way."""
        expect_identifiers(tags)
        accepted: _Accepted | None = None
        try:
            async with self._database.begin() as work:
                await work.lock_study(tags.study_instance_uid)
                patient = await self._patient_of(work, tags)
                order = await self._order_of(work, patient, tags)
                known = await self._known_log(work, tags.study_instance_uid)
                await self._expect_same_patient(known, patient, tags)
                begun = self._log_for(known, patient, original, study_uid=tags.study_instance_uid).begun(
                    by=self._by,
                    at=self._clock(),
                    source=self._options.source,
                    order_id=order.id if order else None,
                )
                await work.upload_logs.save(begun)
                accepted = _Accepted(name, original, tags, patient, order, begun.id, began)
                await work.commit()
        except BaseException as error:
            # Broken off around the commit, which may have been done: then nothing is on its way, as the log says.
            if accepted is not None:
                await to_the_end(self._log_failure(accepted, _NOTHING, _reason_of(error)))
            raise
        return accepted

    async def _patient_of(self, work: UnitOfWork, tags: DicomTags) -> Patient:
        """The patient that the upload names, else the one of the RIS with the file's PatientID, else a new one."""
        if self._patient is not None:
            # Also after COERCE, which an edit may have undone.
            if self._options.patient_match is not PatientMatch.ACCEPT and tags.patient_id != self._patient.mrn:
                raise ServiceError(
                    Reason.PATIENT_MISMATCH,
                    "The file's PatientID is not the MRN of the patient that the upload names. Check whose file it is; "
                    "patient_match=COERCE rewrites it to this patient's.",
                )
            return await _as_it_is_now(work, self._patient)
        if not tags.patient_id:
            raise ServiceError(
                Reason.PATIENT_ID_MISSING, "The file carries no PatientID. Name its patient with patient_id."
            )
        known = (await work.patients.by_mrn([tags.patient_id])).get(tags.patient_id)
        if known is not None:
            return known
        if self._unknown is UnknownPatients.REJECT:
            raise ServiceError(
                Reason.PATIENT_UNKNOWN,
                "The RIS has no patient with the file's PatientID. Register the patient first, or name one with "
                "patient_id.",
            )
        return await work.patients.make_provisional(provisional_patient(tags))

    async def _order_of(self, work: UnitOfWork, patient: Patient, tags: DicomTags) -> Order | None:
        """The order that the upload names, else the one with the file's AccessionNumber. Both must be the patient's."""
        by_accession = await work.orders.by_accession(tags.accession_number) if tags.accession_number else None
        named = await work.orders.get(self._order.id) if self._order is not None else None
        for order in (by_accession, named):
            if order is not None:
                expect_of_patient(order, patient)
        return named or by_accession

    async def _known_log(self, work: UnitOfWork, uid: str) -> UploadLog | None:
        """The study's log. Where a deletion took the study away and broke off before it said so, this says so."""
        known = (await work.upload_logs.by_study([uid])).get(uid)
        if known is None or not known.holds_files or await work.upload_logs.open_deletion(uid) is None:
            return known
        held = await self._pacs.find_studies(StudyFilter(study_instance_uid=uid), limit=_SAME_UID)
        return known if held else replace(known, is_deleted=True)

    async def _expect_same_patient(self, known: UploadLog | None, patient: Patient, tags: DicomTags) -> None:
        """A study is one patient's, in the RIS and in the PACS, where another PatientID would make it two studies."""
        if known is not None and known.holds_files:
            same = is_study_of(known, patient, tags)
        else:
            uid = tags.study_instance_uid
            held = await self._pacs.find_studies(StudyFilter(study_instance_uid=uid), limit=_SAME_UID)
            same = all(study.patient_id == tags.patient_id for study in held)
        if not same:
            raise other_patient()

    def _log_for(self, known: UploadLog | None, patient: Patient, original: DicomTags, *, study_uid: str) -> UploadLog:
        """The study's log, for this patient. It starts anew where none of the study's files is stored: nothing is the
        study's patient, order or first file before. It counts as deleted as long as it did.
        """
        if known is not None and known.holds_files:
            return known
        fresh = UploadLog(
            id=known.id if known else uuid.uuid4(),
            patient_id=patient.id,
            order_id=None,
            uploaded_by_id=self._by,
            study_instance_uid=study_uid,
            upload_source=self._options.source,
            uploaded_at=self._clock(),
            original_patient_id=original.patient_id,
            original_patient_name=original.patient_name,
            original_accession_number=original.accession_number,
            original_study_date=original.study_date,
            original_modality=original.modality,
            is_deleted=known is not None and known.is_deleted,
        )
        if known is None or known.is_deleted or known.patient_id != patient.id:
            return fresh
        return replace(fresh, files=known.files, upload_duration_seconds=known.upload_duration_seconds)

    async def _store(self, accepted: _Accepted, measured: Measured) -> StoredFile:
        """Has Orthanc store the file, and logs what became of it."""
        try:
            stored = await self._pacs.store(measured)
        except BaseException as error:
            await self._log_failure(accepted, measured.fingerprint, _reason_of(error))
            raise
        return await self._verify_and_log(accepted, stored, measured.fingerprint)

    async def _verify_and_log(self, file: _Accepted, stored: StoredInstance, sent: Fingerprint) -> StoredFile:
        """Compares what Orthanc holds with what was sent, and logs it. Under the study's lock, so that no deletion
        comes between the two.
        """
        try:
            async with self._database.begin() as work:
                await work.lock_study(file.tags.study_instance_uid)
                await self._verify(file.tags, stored, sent)
                logged = await self._log_success(work, file, stored, sent)
                await work.commit()
        except Exception as error:
            failure = await self._take_back(file, stored, error)
            await self._log_failure(file, sent, _reason_of(failure))
            if failure is error:
                raise
            raise failure from error
        return StoredFile(
            status=FileStatus.ALREADY_STORED if stored.already_stored else FileStatus.STORED,
            orthanc_id=stored.orthanc_id,
            tags=file.tags,
            patient_id=logged.patient_id,
            order_id=file.order.id if file.order else None,
            upload_log_id=logged.id,
        )

    async def _verify(self, tags: DicomTags, stored: StoredInstance, sent: Fingerprint) -> None:
        expect_filed_as(tags, stored)
        held = await self._pacs.fingerprint(stored.orthanc_id)
        if held == sent:
            return
        if stored.already_stored and held is not None:
            raise ServiceError(
                Reason.INSTANCE_CONFLICT,
                "The PACS holds an instance with this SOPInstanceUID and other content, and keeps it. Give the file a "
                "new SOPInstanceUID, or delete the study first.",
            )
        raise _unverified()

    async def _log_success(
        self, work: UnitOfWork, file: _Accepted, stored: StoredInstance, sent: Fingerprint
    ) -> UploadLog:
        """The study's log with this file, and its order filled. What the patient, the order and the study were when the
        file was accepted may have changed while its bytes travelled.
        """
        uid = file.tags.study_instance_uid
        patient = await _as_it_is_now(work, file.patient)
        known = (await work.upload_logs.by_study([uid])).get(uid)
        if known is not None and known.holds_files and not is_study_of(known, patient, file.tags):
            raise other_patient()
        entry = self._log_for(known, patient, file.original, study_uid=uid)
        entry = replace(
            entry,
            orthanc_study_id=stored.orthanc_study_id,
            order_id=file.order.id if file.order else entry.order_id,
        )
        if not self._options.edits.is_empty or file.tags != file.original:
            entry = entry.with_edits(file.tags)
        logged = LoggedFile(file.tags.sop_instance_uid, file.name, sent.size_bytes)
        entry = entry.with_file(logged, seconds=time.monotonic() - file.began)
        await work.upload_logs.save(entry)
        if file.order is not None:
            await self._fill_order(work, file.order, patient, file.tags, stored)
        return entry

    async def _fill_order(
        self, work: UnitOfWork, order: Order, patient: Patient, tags: DicomTags, stored: StoredInstance
    ) -> None:
        expect_of_patient(await work.orders.get(order.id) or order, patient)
        counts = (await self._pacs.counts([tags.study_instance_uid])).get(tags.study_instance_uid)
        if counts is None:
            raise _unverified()
        await work.orders.fill(
            order.id,
            OrderStudy(
                study_instance_uid=tags.study_instance_uid,
                orthanc_study_id=stored.orthanc_study_id,
                number_of_series=counts.number_of_series,
                number_of_images=counts.number_of_instances,
                study_date=tags.study_date,
                study_time=tags.study_time,
                uploaded_by_id=self._by,
                uploaded_at=self._clock(),
                upload_source=self._options.source,
            ),
        )

    async def _take_back(self, file: _Accepted, stored: StoredInstance, error: Exception) -> Exception:
        """Deletes the instance that this upload brought, unless the file is to be sent again, or the study's log counts
        it: then another upload stored it, too. The error to tell, which is Orthanc's where it cannot be deleted.
        """
        if stored.already_stored or (isinstance(error, ServiceError) and error.retry_after is not None):
            return error
        uid, sop_instance_uid = file.tags.study_instance_uid, file.tags.sop_instance_uid
        try:
            async with self._database.begin() as work:
                await work.lock_study(uid)
                known = (await work.upload_logs.by_study([uid])).get(uid)
                if (
                    known is None
                    or known.stored_patient_id != file.tags.patient_id
                    or not known.counts(sop_instance_uid)
                ):
                    await self._pacs.delete_instance(stored.orthanc_id)
        except ServiceError as failure:
            return failure
        return error

    async def _log_failure(self, file: _Accepted, sent: Fingerprint, reason: str) -> None:
        """Notes a failure. Where not even that can be done, the log goes on to say `in_progress`, which is true. What
        has become another patient's study takes no note of it.
        """
        uid = file.tags.study_instance_uid
        logged = LoggedFile(file.tags.sop_instance_uid, file.name, sent.size_bytes, error=reason)
        try:
            async with self._database.begin() as work:
                await work.lock_study(uid)
                patient = await _as_it_is_now(work, file.patient)
                known = (await work.upload_logs.by_study([uid])).get(uid)
                if known is not None and known.patient_id == patient.id:
                    await work.upload_logs.save(known.with_file(logged, seconds=time.monotonic() - file.began))
                    await work.commit()
        except ServiceError as error:
            log.warning("upload log not updated", upload_log_id=str(file.log_id), reason=error.reason)


async def _as_it_is_now(work: UnitOfWork, patient: Patient) -> Patient:
    """The patient; one that was provisional may have taken on the id that the RIS gave it."""
    if not patient.is_provisional:
        return patient
    return (await work.patients.by_mrn([patient.mrn])).get(patient.mrn, patient)


def _unverified() -> ServiceError:
    return ServiceError(
        Reason.STORE_UNVERIFIED, "What Orthanc holds after storing is not what was sent. Send the file again."
    )


def _reason_of(error: BaseException) -> str:
    if isinstance(error, ServiceError):
        return error.reason
    return CANCELLED if isinstance(error, asyncio.CancelledError) else Reason.INTERNAL_ERROR
