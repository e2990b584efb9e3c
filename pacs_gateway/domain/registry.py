"""Patients, orders and users as the RIS has them. The RIS owns them; the gateway keeps a copy in step."""

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from uuid import UUID


class Role(StrEnum):
    """What a user may do; pacs_gateway.api.roles says which rpcs that is."""

    ADMIN = "admin"
    RADIOLOGIST = "radiologist"
    TECHNOLOGIST = "technologist"
    VIEWER = "viewer"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class Patient:
    """A patient. `mrn` is the PatientID of the patient's files, compared exactly. `sex` is M, F, O or ""."""

    id: UUID
    mrn: str
    full_name: str
    birth_date: date | None
    sex: str
    is_provisional: bool = False


@dataclass(frozen=True, slots=True)
class OrderStudy:
    """The DICOM fields of an order: the study that was uploaded for it last."""

    study_instance_uid: str
    orthanc_study_id: str
    number_of_series: int
    number_of_images: int
    study_date: str
    study_time: str
    uploaded_by_id: UUID
    uploaded_at: datetime
    upload_source: str


@dataclass(frozen=True, slots=True)
class Order:
    """An order of a patient. `accession_number` is the AccessionNumber of its files, compared exactly."""

    id: UUID
    patient_id: UUID
    accession_number: str
    modality: str
    status: str
    study: OrderStudy | None = None


@dataclass(frozen=True, slots=True)
class User:
    """Whom a token speaks for."""

    id: UUID
    username: str
    full_name: str
    role: Role
    is_active: bool = True


@dataclass(frozen=True, slots=True)
class PatientEntry:
    """A patient as the RIS tells of one. Without an id the MRN finds it."""

    mrn: str
    full_name: str
    birth_date: date | None
    sex: str
    id: UUID | None = None


@dataclass(frozen=True, slots=True)
class OrderEntry:
    """An order as the RIS tells of one. Without an id the accession number finds it."""

    patient_id: UUID
    accession_number: str
    modality: str
    status: str
    id: UUID | None = None


@dataclass(frozen=True, slots=True)
class UserEntry:
    """A user as the RIS tells of one. Without an id the username finds it."""

    username: str
    full_name: str
    role: Role
    is_active: bool
    id: UUID | None = None
