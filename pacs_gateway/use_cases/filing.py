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
from pacs_gateway.domain.whose import Claims, Known
from pacs_gateway.use_cases.grouping import Grouping
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


class Lookups:
    """What the RIS knows of the files of all uploads, asked together."""

    def __init__(self, database: Database) -> None:
        self._together: Grouping[Claims, Known] = Grouping(database.look_up)

    async def of(self, claims: Claims) -> Known:
        """What is known. Raises DATABASE_UNAVAILABLE, OVERLOADED."""
        return await self._together.do(claims)


class Filing:
    """Finds out whose files are, for the uploads of one request."""

    def __init__(
        self,
        *,
        database: Database,
        lookups: Lookups,
        pacs: Pacs,
        unknown: UnknownPatients,
        options: UploadOptions,
        patient: Patient | None,
        order: Order | None,
    ) -> None:
        """`patient` and `order` are those that the options name."""
        self._database = database
        self._lookups = lookups
        self._pacs = pacs
        self._unknown = unknown
        self._options = options
        self._patient = patient
        self._order = order

    async def accept(self, original: DicomTags, tags: DicomTags, entry: LedgerFile) -> Accepted:
        """Where the file belongs. A study of which nothing is stored gets its log begun, with this file's entry."""
        self._expect_named(tags)
        known = await self._lookups.of(self._claims(tags))
        patient = self._patient_of(known)
        order = self._order_of(known, patient) if patient is not None else None
        log = await self._log_of(known)
        if patient is None or log is None or not log.holds_files:
            return await self._begin_study(original, tags, entry)
        if not is_study_of(log, patient, tags):
            raise other_patient()
        return Accepted(replace(entry, upload_log_id=log.id), original, tags, patient, order, known_to_ledger=False)

    async def expect_acceptable(self, tags: DicomTags) -> None:
        """Raises what `accept` would of a file with these tags as edited, and writes nothing."""
        self._expect_named(tags)
        known = await self._lookups.of(self._claims(tags))
        patient = self._patient_of(known) or self._new_patient(tags)
        self._order_of(known, patient)
        await self._expect_same_patient(await self._log_of(known), patient, tags)

    async def candidates(self, tags: DicomTags) -> tuple[Patient | None, Order | None]:
        """The patient and the order that a file with these tags would be held against, whether it fits them or not."""
        known = await self._lookups.of(self._claims(tags))
        return self._patient or known.patient, self._order or known.by_accession

    def _claims(self, tags: DicomTags) -> Claims:
        return Claims(
            mrn=self._patient.mrn if self._patient is not None else tags.patient_id,
            accession_number=tags.accession_number,
            order_id=self._order.id if self._order is not None else None,
            study_instance_uid=tags.study_instance_uid,
        )

    async def _begin_study(self, original: DicomTags, tags: DicomTags, entry: LedgerFile) -> Accepted:
        async with self._database.begin() as work:
            await work.lock_study(tags.study_instance_uid)
            (known,) = await work.look_up([self._claims(tags)])
            patient = self._patient_of(known)
            if patient is None:
                patient = await work.patients.make_provisional(self._new_patient(tags))
            order = self._order_of(known, patient)
            log = await self._log_of(known)
            await self._expect_same_patient(log, patient, tags)
            begun = begun_log(log, patient, original, entry)
            if not begun.holds_files:
                # Until one of its files is stored, a study is not taken from the order that it has.
                kept = log.order_id if log and log.patient_id == patient.id and not log.is_deleted else None
                begun = replace(begun, order_id=order.id if order else kept)
            await work.upload_logs.save(begun)
            if log is not None and (log.is_deleted or log.patient_id != patient.id):
                await work.ledger.forget(log.id)
            entry = replace(entry, upload_log_id=begun.id)
            await work.ledger.write(Step(entry))
            await work.commit()
        return Accepted(entry, original, tags, patient, order, known_to_ledger=True)

    def _expect_named(self, tags: DicomTags) -> None:
        """Raises where the file's identifiers are missing, or name another patient than the upload does."""
        expect_identifiers(tags)
        if self._patient is None:
            if not tags.patient_id:
                raise ServiceError(
                    Reason.PATIENT_ID_MISSING, "The file carries no PatientID. Name its patient with patient_id."
                )
        # Also after COERCE, which an edit may have undone.
        elif self._options.patient_match is not PatientMatch.ACCEPT:
            expect_patients(tags, self._patient)

    def _patient_of(self, known: Known) -> Patient | None:
        """The patient that the upload names, else the one of the RIS with the file's PatientID, if there is one."""
        named = self._patient
        if named is None or (named.is_provisional and known.patient is not None):
            # A provisional one may have taken on the id that the RIS gave it.
            return known.patient
        return named

    def _new_patient(self, tags: DicomTags) -> Patient:
        if self._unknown is UnknownPatients.REJECT:
            raise ServiceError(
                Reason.PATIENT_UNKNOWN,
                "The RIS has no patient with the file's PatientID. Register the patient first, or name one with "
                "patient_id.",
            )
        return provisional_patient(tags)

    @staticmethod
    def _order_of(known: Known, patient: Patient) -> Order | None:
        """The order that the upload names, else the one with the file's AccessionNumber. Both must be the patient's."""
        for order in (known.by_accession, known.named_order):
            if order is not None:
                expect_of_patient(order, patient)
        return known.named_order or known.by_accession

    async def _log_of(self, known: Known) -> UploadLog | None:
        """The study's log. Where a deletion took the study away and broke off before it said so, this says so."""
        log = known.log
        if log is None or not log.holds_files or not known.is_being_deleted:
            return log
        wanted = StudyFilter(study_instance_uid=log.study_instance_uid)
        return log if await self._pacs.find_studies(wanted, limit=_SAME_UID) else replace(log, is_deleted=True)

    async def _expect_same_patient(self, log: UploadLog | None, patient: Patient, tags: DicomTags) -> None:
        """A study is one patient's, in the RIS and in the PACS, where another PatientID would make it two studies."""
        if log is not None and log.holds_files:
            same = is_study_of(log, patient, tags)
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
