"""The demo's users, patients and orders. Their ids are fixed, so tokens and examples hold from one run to the next."""

from dataclasses import dataclass
from uuid import UUID


def _id(number: int) -> str:
    return str(UUID(int=number, version=4))


@dataclass(frozen=True, slots=True)
class DemoUser:
    """A user of the RIS; `role` is also how `make token ROLE=...` names the user."""

    id: str
    username: str
    full_name: str
    role: str


@dataclass(frozen=True, slots=True)
class DemoPatient:
    """A patient of the RIS; `mrn` is the PatientID of a sample file in pydicom's wheel."""

    id: str
    mrn: str
    full_name: str
    birth_date: str
    sex: str


@dataclass(frozen=True, slots=True)
class DemoOrder:
    """An order of the RIS for one of the patients."""

    id: str
    patient_id: str
    accession_number: str
    modality: str
    status: str


USERS = (
    DemoUser(_id(0x1001), "ada.admin", "Ada Admin", "admin"),
    DemoUser(_id(0x1002), "rita.reads", "Dr Rita Reads", "radiologist"),
    DemoUser(_id(0x1003), "tom.scans", "Tom Scans", "technologist"),
    DemoUser(_id(0x1004), "vera.views", "Vera Views", "viewer"),
    DemoUser(_id(0x1005), "ris.backend", "RIS back end", "service"),
)
CT_PATIENT = DemoPatient(_id(0x2001), "1CT1", "CompressedSamples^CT1", "1961-04-12", "O")
MR_PATIENT = DemoPatient(_id(0x2002), "4MR1", "CompressedSamples^MR1", "1970-01-01", "F")
PATIENTS = (CT_PATIENT, MR_PATIENT)
CT_ORDER = DemoOrder(_id(0x3001), CT_PATIENT.id, "DEMO-CT-1", "CT", "scheduled")
MR_ORDER = DemoOrder(_id(0x3002), MR_PATIENT.id, "DEMO-MR-1", "MR", "scheduled")
ORDERS = (CT_ORDER, MR_ORDER)


def user_with_role(role: str) -> DemoUser:
    """The demo user with that role. Raises ValueError for a role that there is not."""
    for user in USERS:
        if user.role == role:
            return user
    raise ValueError(f"There is no role {role}; roles are {', '.join(user.role for user in USERS)}.")
