"""Whose file it is: how a file's tags, the patients and orders of the RIS, and a study's log go together."""

import uuid
from datetime import UTC, date, datetime

from pacs_gateway.domain.identifiers import is_exact, is_uid, orthanc_id
from pacs_gateway.domain.registry import Order, Patient
from pacs_gateway.domain.study import StoredInstance
from pacs_gateway.domain.tags import DicomTags, Edits
from pacs_gateway.domain.upload import PatientMatch, UploadOptions
from pacs_gateway.domain.upload_log import UploadLog
from service_runtime.errors import Reason, ServiceError


def edits_of(options: UploadOptions, patient: Patient | None) -> Edits:
    """The edits that the options ask for, with those of COERCE to the named patient."""
    if options.patient_match is not PatientMatch.COERCE or patient is None:
        return options.edits
    return options.edits.coerced_to(
        patient_id=patient.mrn,
        name=patient.full_name,
        birth_date=birth_date_of(patient),
        sex=patient.sex,
    )


def birth_date_of(patient: Patient) -> str:
    """The patient's birth date as a DA value, "" where it is not known."""
    return f"{patient.birth_date:%Y%m%d}" if patient.birth_date else ""


def is_patients(tags: DicomTags, patient: Patient) -> bool:
    """Whether the file says that it is the patient's."""
    return tags.patient_id == patient.mrn


def expect_patients(tags: DicomTags, patient: Patient) -> None:
    """Raises PATIENT_MISMATCH where the file says that it is another patient's."""
    if not is_patients(tags, patient):
        raise ServiceError(
            Reason.PATIENT_MISMATCH,
            "The file's PatientID is not the MRN of the patient that the upload names. Check whose file it is; "
            "patient_match=COERCE rewrites it to this patient's.",
        )


def expect_identifiers(tags: DicomTags) -> None:
    """Raises IDENTIFIER_MISSING: without these Orthanc cannot store a file, or nobody finds it again."""
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


def expect_filed_as(tags: DicomTags, stored: StoredInstance) -> None:
    """Raises STORE_REFUSED where Orthanc reads other identifiers in the file than tag_service, by which it was matched:
    it would be found under another patient, or be a second study of the same UID.
    """
    identifiers = (tags.patient_id, tags.study_instance_uid, tags.series_instance_uid, tags.sop_instance_uid)
    if stored.orthanc_id != orthanc_id(*identifiers):
        raise ServiceError(
            Reason.STORE_REFUSED,
            "Orthanc reads another PatientID, or other UIDs, in the file than stand there: they are padded or encoded "
            "oddly. Set them anew by an edit, if only to what they are.",
        )


def expect_of_patient(order: Order, patient: Patient) -> None:
    """Raises ORDER_PATIENT_MISMATCH where the order is another patient's."""
    if order.patient_id != patient.id:
        raise ServiceError(
            Reason.ORDER_PATIENT_MISMATCH,
            "The order, named by order_id or by the file's AccessionNumber, is another patient's. Check both.",
            metadata={"order_id": str(order.id)},
        )


def is_study_of(known: UploadLog, patient: Patient, tags: DicomTags) -> bool:
    """Whether a log that holds files is this patient's, its files having the PatientID that this one has."""
    return known.patient_id == patient.id and known.stored_patient_id == tags.patient_id


def other_patient() -> ServiceError:
    """The error for a file whose study is another patient's."""
    return ServiceError(
        Reason.STUDY_PATIENT_MISMATCH,
        "The study is known under another patient, or another PatientID, already. Delete it first if it is wrong "
        "there.",
    )


def provisional_patient(tags: DicomTags) -> Patient:
    """The patient that a file tells of. Raises PATIENT_UNKNOWN where its PatientID can be no MRN."""
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
