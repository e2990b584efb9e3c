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
from datetime import UTC, date, datetime
from uuid import UUID

import structlog

from pacs_gateway.domain.identifiers import is_exact, is_uid
from pacs_gateway.domain.registry import Order, OrderStudy, Patient
from pacs_gateway.domain.study import Fingerprint, StoredInstance, StudyFilter
from pacs_gateway.domain.tags import DicomTags, Edits
from pacs_gateway.domain.upload import FileStatus, PatientMatch, StoredFile, UnknownPatients, UploadOptions
from pacs_gateway.domain.upload_log import LoggedFile, UploadLog
from pacs_gateway.use_cases.ports import Clock, Database, Pacs, TagService, UnitOfWork
from pacs_gateway.use_cases.streams import Measured, Replayable, to_the_end
from service_runtime.errors import Reason, ServiceError, not_found

log = structlog.get_logger()

# What the log says of a file whose sender went away.
CANCELLED = "CANCELLED"


class Uploads:
    """Opens uploads."""

    def __init__(
        self, *, database: Database, pacs: Pacs, tag_service: TagService, clock: Clock, unknown: UnknownPatients
    ) -> None:
        self.database = database
        self.pacs = pacs
        self.tag_service = tag_service
        self.clock = clock
        self.unknown = unknown

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
            _expect_of_patient(order, patient)
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
        self._options = options
        self._by = by
        self._patient = patient
        self._order = order
        self._edits = _edits_of(options, patient)

    async def store(self, name: str, chunks: AsyncIterable[bytes]) -> StoredFile:
        """Stores one file, whose sender calls it `name`. Raises what ris.pacs.v1.UploadService.Upload documents; then
        nothing of the file is in the PACS, unless the error says UNAVAILABLE, which asks for sending it again.
        """
        began = time.monotonic()
        source = Replayable(chunks)
        original = await self._tag_service.read_tags(source.beginning())
        # Also without edits: tag_service sees to the end of the file, and so finds one that is cut short.
        async with aclosing(self._tag_service.modify(source.whole(), self._edits)) as edited:
            body = Replayable(edited)
            tags = original if self._edits.is_empty else await self._tag_service.read_tags(body.beginning())
            accepted = await self._accept(name, original, tags, began)
            measured = Measured(body.whole())
            try:
                stored = await self._pacs.store(measured)
            except BaseException as error:
                await to_the_end(self._log_failure(accepted, measured.fingerprint, _reason_of(error)))
                raise
        # From here on Orthanc has the file: what follows is done even if the sender goes away.
        return await to_the_end(self._verify_and_log(accepted, stored, measured.fingerprint))

    async def _accept(self, name: str, original: DicomTags, tags: DicomTags, began: float) -> _Accepted:
        """Finds the patient and the order, checks them, and writes to the log that the file is on its way."""
        _expect_identifiers(tags)
        async with self._database.begin() as work:
            await work.lock_study(tags.study_instance_uid)
            patient = await self._patient_of(work, tags)
            order = await self._order_of(work, patient, tags)
            known = (await work.upload_logs.by_study([tags.study_instance_uid])).get(tags.study_instance_uid)
            await self._expect_same_patient(known, patient, tags)
            if known is None or known.is_deleted:
                # Of a study that was deleted, the log starts anew; it counts as deleted until a file is stored.
                fresh = self._new_log(patient, original, study_uid=tags.study_instance_uid)
                known = replace(fresh, id=known.id, is_deleted=True) if known else fresh
            begun = known.begun(
                by=self._by,
                at=self._clock(),
                source=self._options.source,
                order_id=order.id if order else None,
            )
            await work.upload_logs.save(begun)
            await work.commit()
        return _Accepted(name, original, tags, patient, order, begun.id, began)

    async def _patient_of(self, work: UnitOfWork, tags: DicomTags) -> Patient:
        """The patient that the upload names, else the one of the RIS with the file's PatientID, else a new one."""
        if self._patient is not None:
            if self._options.patient_match is PatientMatch.REQUIRE and tags.patient_id != self._patient.mrn:
                raise ServiceError(
                    Reason.PATIENT_MISMATCH,
                    "The file's PatientID is not the MRN of the patient that the upload names. Check whose file it is; "
                    "patient_match=COERCE rewrites it to this patient's.",
                )
            return self._patient
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
        return await work.patients.make_provisional(_provisional_patient(tags))

    async def _order_of(self, work: UnitOfWork, patient: Patient, tags: DicomTags) -> Order | None:
        """The order that the upload names, else the one with the file's AccessionNumber. Both must be the patient's."""
        by_accession = await work.orders.by_accession(tags.accession_number) if tags.accession_number else None
        if by_accession is not None:
            _expect_of_patient(by_accession, patient)
        return self._order or by_accession

    async def _expect_same_patient(self, known: UploadLog | None, patient: Patient, tags: DicomTags) -> None:
        """A study is one patient's, in the RIS and in the PACS, where another PatientID would make it two studies."""
        if known is not None and not known.is_deleted:
            same = known.patient_id == patient.id and (
                not known.number_of_files or known.stored_patient_id == tags.patient_id
            )
        else:
            held = await self._pacs.find_studies(StudyFilter(study_instance_uid=tags.study_instance_uid), limit=10)
            same = all(study.patient_id == tags.patient_id for study in held)
        if not same:
            raise ServiceError(
                Reason.STUDY_PATIENT_MISMATCH,
                "The study is known under another patient, or another PatientID, already. Delete it first if it is "
                "wrong there.",
            )

    def _new_log(self, patient: Patient, original: DicomTags, *, study_uid: str) -> UploadLog:
        """The log of a study that is new to the gateway."""
        return UploadLog(
            id=uuid.uuid4(),
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
        )

    async def _verify_and_log(self, file: _Accepted, stored: StoredInstance, sent: Fingerprint) -> StoredFile:
        """Compares what Orthanc holds with what was sent, and logs it. Under the study's lock, so that no deletion
        comes between the two.
        """
        try:
            async with self._database.begin() as work:
                await work.lock_study(file.tags.study_instance_uid)
                await self._verify(stored, sent)
                await self._log_success(work, file, stored, sent)
                await work.commit()
        except Exception as error:
            await self._log_failure(file, sent, _reason_of(error))
            raise
        return StoredFile(
            status=FileStatus.ALREADY_STORED if stored.already_stored else FileStatus.STORED,
            orthanc_id=stored.orthanc_id,
            tags=file.tags,
            patient_id=file.patient.id,
            order_id=file.order.id if file.order else None,
            upload_log_id=file.log_id,
        )

    async def _verify(self, stored: StoredInstance, sent: Fingerprint) -> None:
        held = await self._pacs.fingerprint(stored.orthanc_id)
        if held == sent:
            return
        if stored.already_stored and held is not None:
            raise ServiceError(
                Reason.INSTANCE_CONFLICT,
                "The PACS holds an instance with this SOPInstanceUID and other content, and keeps it. Give the file a "
                "new SOPInstanceUID, or delete the study first.",
            )
        if held is not None:
            await self._pacs.delete_instance(stored.orthanc_id)
        raise _unverified()

    async def _log_success(self, work: UnitOfWork, file: _Accepted, stored: StoredInstance, sent: Fingerprint) -> None:
        uid = file.tags.study_instance_uid
        logged = LoggedFile(file.tags.sop_instance_uid, file.name, sent.size_bytes)
        entry = replace(await self._log_of(work, file), orthanc_study_id=stored.orthanc_study_id)
        if not self._options.edits.is_empty or file.tags != file.original:
            entry = entry.with_edits(file.tags)
        await work.upload_logs.save(entry.with_file(logged, seconds=time.monotonic() - file.began))
        if file.order is None:
            return
        counts = (await self._pacs.counts([uid])).get(uid)
        if counts is None:
            raise _unverified()
        await work.orders.fill(
            file.order.id,
            OrderStudy(
                study_instance_uid=uid,
                orthanc_study_id=stored.orthanc_study_id,
                number_of_series=counts.number_of_series,
                number_of_images=counts.number_of_instances,
                study_date=file.tags.study_date,
                study_time=file.tags.study_time,
                uploaded_by_id=self._by,
                uploaded_at=self._clock(),
                upload_source=self._options.source,
            ),
        )

    async def _log_failure(self, file: _Accepted, sent: Fingerprint, reason: str) -> None:
        """Notes a failure. Where not even that can be done, the log goes on to say `in_progress`, which is true."""
        logged = LoggedFile(file.tags.sop_instance_uid, file.name, sent.size_bytes, error=reason)
        try:
            async with self._database.begin() as work:
                await work.lock_study(file.tags.study_instance_uid)
                entry = await self._log_of(work, file)
                await work.upload_logs.save(entry.with_file(logged, seconds=time.monotonic() - file.began))
                await work.commit()
        except ServiceError as error:
            log.warning("upload log not updated", upload_log_id=str(file.log_id), reason=error.reason)

    async def _log_of(self, work: UnitOfWork, file: _Accepted) -> UploadLog:
        uid = file.tags.study_instance_uid
        return (await work.upload_logs.by_study([uid]))[uid]


def _edits_of(options: UploadOptions, patient: Patient | None) -> Edits:
    if options.patient_match is not PatientMatch.COERCE or patient is None:
        return options.edits
    return options.edits.coerced_to(
        patient_id=patient.mrn,
        name=patient.full_name,
        birth_date=f"{patient.birth_date:%Y%m%d}" if patient.birth_date else "",
        sex=patient.sex,
    )


def _expect_identifiers(tags: DicomTags) -> None:
    """Without these Orthanc cannot store a file, or nobody finds it again."""
    uids = {
        "StudyInstanceUID": tags.study_instance_uid,
        "SeriesInstanceUID": tags.series_instance_uid,
        "SOPInstanceUID": tags.sop_instance_uid,
    }
    wrong = [keyword for keyword, value in uids.items() if not is_uid(value)]
    if wrong:
        raise ServiceError(
            Reason.IDENTIFIER_MISSING,
            f"The file has no well-formed {', '.join(wrong)}.",
            metadata={"attributes": ",".join(wrong)},
        )


def _expect_of_patient(order: Order, patient: Patient) -> None:
    if order.patient_id != patient.id:
        raise ServiceError(
            Reason.ORDER_PATIENT_MISMATCH,
            "The order, named by order_id or by the file's AccessionNumber, is another patient's. Check both.",
            metadata={"order_id": str(order.id)},
        )


def _unverified() -> ServiceError:
    return ServiceError(
        Reason.STORE_UNVERIFIED, "What Orthanc holds after storing is not what was sent. Send the file again."
    )


def _provisional_patient(tags: DicomTags) -> Patient:
    if not is_exact(tags.patient_id):
        raise ServiceError(
            Reason.PATIENT_UNKNOWN,
            "The file's PatientID cannot serve as an MRN: it is longer than 64 characters, or holds * ? \\ or a "
            "control character. Name its patient with patient_id and patient_match=COERCE.",
        )
    return Patient(
        id=uuid.uuid4(),
        mrn=tags.patient_id,
        full_name=tags.patient_name[:255] or tags.patient_id,
        birth_date=_date_of(tags.patient_birth_date),
        sex=tags.patient_sex if tags.patient_sex in {"M", "F", "O"} else "",
        is_provisional=True,
    )


def _date_of(value: str) -> date | None:
    """A DA value (PS3.5 6.2) as a date; None where it is none."""
    try:
        return datetime.strptime(value, "%Y%m%d").replace(tzinfo=UTC).date()
    except ValueError:
        return None


def _reason_of(error: BaseException) -> str:
    if isinstance(error, ServiceError):
        return error.reason
    return CANCELLED if isinstance(error, asyncio.CancelledError) else Reason.INTERNAL_ERROR
