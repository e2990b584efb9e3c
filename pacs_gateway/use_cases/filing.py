"""Whose a file is: its patient, its order, its study's log, found and checked before any of it goes to the PACS."""

from dataclasses import dataclass, replace
from uuid import UUID

from pacs_gateway.domain.ledger import LedgerFile, Step
from pacs_gateway.domain.matching import (
    expect_identifiers,
    expect_of_patient,
    expect_patients,
    is_study_of,
    other_patient,
    provisional_patient,
)
from pacs_gateway.domain.registry import Order, Patient
from pacs_gateway.domain.study import StudyFilter
from pacs_gateway.domain.tags import DicomTags
from pacs_gateway.domain.upload import PatientMatch, UnknownPatients, UploadOptions
from pacs_gateway.domain.upload_log import UploadLog, log_for
from pacs_gateway.use_cases.ports import Database, Pacs, UnitOfWork
from service_runtime.errors import Reason, ServiceError

# A StudyInstanceUID under more than a few PatientIDs is wrong anyway.
_SAME_UID = 10


@dataclass(frozen=True, slots=True)
class Accepted:
    """A file that may be stored: its entry, its tags as it came and as they will be stored, and where it belongs.

    `known_to_ledger`: its entry is on disk already.
    """

    entry: LedgerFile
    original: DicomTags
    tags: DicomTags
    patient: Patient
    order: Order | None
    known_to_ledger: bool


class Filing:
    """Finds out whose files are, for the uploads of one request."""

    def __init__(
        self,
        *,
        database: Database,
        pacs: Pacs,
        unknown: UnknownPatients,
        options: UploadOptions,
        patient: Patient | None,
        order: Order | None,
    ) -> None:
        """`patient` and `order` are those that the options name."""
        self._database = database
        self._pacs = pacs
        self._unknown = unknown
        self._options = options
        self._patient = patient
        self._order = order

    async def accept(self, original: DicomTags, tags: DicomTags, entry: LedgerFile) -> Accepted:
        """Where the file belongs. A study of which nothing is stored gets its log begun, with this file's entry."""
        expect_identifiers(tags)
        async with self._database.begin() as work:
            patient = await self._known_patient(work, tags)
            order = await self._order_of(work, patient, tags) if patient is not None else None
            known = await self._known_log(work, tags.study_instance_uid)
        if patient is None or known is None or not known.holds_files:
            return await self._begin_study(original, tags, entry)
        if not is_study_of(known, patient, tags):
            raise other_patient()
        return Accepted(replace(entry, upload_log_id=known.id), original, tags, patient, order, known_to_ledger=False)

    async def expect_acceptable(self, tags: DicomTags) -> None:
        """Raises what `accept` would of a file with these tags as edited, and writes nothing."""
        expect_identifiers(tags)
        async with self._database.begin() as work:
            patient = await self._known_patient(work, tags) or self._new_patient(tags)
            await self._order_of(work, patient, tags)
            await self._expect_same_patient(await self._known_log(work, tags.study_instance_uid), patient, tags)

    async def candidates(self, tags: DicomTags) -> tuple[Patient | None, Order | None]:
        """The patient and the order that a file with these tags would be held against, whether it fits them or not."""
        async with self._database.begin() as work:
            patient, order = self._patient, self._order
            if patient is None and tags.patient_id:
                patient = (await work.patients.by_mrn([tags.patient_id])).get(tags.patient_id)
            if order is None and tags.accession_number:
                order = await work.orders.by_accession(tags.accession_number)
        return patient, order

    async def _begin_study(self, original: DicomTags, tags: DicomTags, entry: LedgerFile) -> Accepted:
        uid = tags.study_instance_uid
        async with self._database.begin() as work:
            await work.lock_study(uid)
            patient = await self._known_patient(work, tags)
            if patient is None:
                patient = await work.patients.make_provisional(self._new_patient(tags))
            order = await self._order_of(work, patient, tags)
            known = await self._known_log(work, uid)
            await self._expect_same_patient(known, patient, tags)
            begun = begun_log(known, patient, original, entry)
            if not begun.holds_files:
                # Until one of its files is stored, a study is not taken from the order that it has.
                kept = known.order_id if known and known.patient_id == patient.id and not known.is_deleted else None
                begun = replace(begun, order_id=order.id if order else kept)
            await work.upload_logs.save(begun)
            if known is not None and (known.is_deleted or known.patient_id != patient.id):
                await work.ledger.forget(known.id)
            entry = replace(entry, upload_log_id=begun.id)
            await work.ledger.write(Step(entry))
            await work.commit()
        return Accepted(entry, original, tags, patient, order, known_to_ledger=True)

    async def _known_patient(self, work: UnitOfWork, tags: DicomTags) -> Patient | None:
        """The patient that the upload names, else the one of the RIS with the file's PatientID, if there is one."""
        if self._patient is not None:
            # Also after COERCE, which an edit may have undone.
            if self._options.patient_match is not PatientMatch.ACCEPT:
                expect_patients(tags, self._patient)
            return await as_it_is_now(work, self._patient)
        if not tags.patient_id:
            raise ServiceError(
                Reason.PATIENT_ID_MISSING, "The file carries no PatientID. Name its patient with patient_id."
            )
        return (await work.patients.by_mrn([tags.patient_id])).get(tags.patient_id)

    def _new_patient(self, tags: DicomTags) -> Patient:
        if self._unknown is UnknownPatients.REJECT:
            raise ServiceError(
                Reason.PATIENT_UNKNOWN,
                "The RIS has no patient with the file's PatientID. Register the patient first, or name one with "
                "patient_id.",
            )
        return provisional_patient(tags)

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


def begun_log(known: UploadLog | None, patient: Patient, original: DicomTags, entry: LedgerFile) -> UploadLog:
    """The study's log with a file of this patient on its way to it."""
    return log_for(
        known,
        patient.id,
        original,
        study_uid=entry.study_instance_uid,
        by=entry.uploaded_by_id,
        source=entry.upload_source,
        at=entry.received_at,
    )


async def as_it_is_now(work: UnitOfWork, patient: Patient) -> Patient:
    """The patient; one that was provisional may have taken on the id that the RIS gave it."""
    if not patient.is_provisional:
        return patient
    return (await work.patients.by_mrn([patient.mrn])).get(patient.mrn, patient)


def order_of(accepted: Accepted) -> UUID | None:
    """The id of the file's order, if it has one."""
    return accepted.order.id if accepted.order is not None else None
