"""Studies as the PACS holds them, and as the gateway shows them with what the RIS knows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID


@dataclass(frozen=True, slots=True)
class PacsStudy:
    """A study of the PACS, with the main attributes of it and its patient."""

    study_instance_uid: str
    orthanc_study_id: str
    patient_id: str
    patient_name: str
    study_date: str
    study_time: str
    study_description: str
    accession_number: str


@dataclass(frozen=True, slots=True)
class PacsSeries:
    """A series of the PACS."""

    series_instance_uid: str
    orthanc_series_id: str
    series_number: str
    series_description: str
    modality: str
    number_of_instances: int


@dataclass(frozen=True, slots=True)
class Counts:
    """What a study holds: its modalities are sorted."""

    modalities: tuple[str, ...]
    number_of_series: int
    number_of_instances: int


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """Orthanc's answer to storing: its ids, and whether it held an instance with these identifiers before."""

    orthanc_id: str
    orthanc_study_id: str
    already_stored: bool


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The size in bytes and the MD5 (hex) of a file."""

    size_bytes: int
    md5: str


@dataclass(frozen=True, slots=True)
class StudyFilter:
    """Which studies: None for any. All is compared exactly, but for the name, which is the beginning, in any case."""

    study_instance_uid: str | None = None
    patient_id: str | None = None
    patient_name: str | None = None
    accession_number: str | None = None
    modality: str | None = None
    study_date_from: str | None = None
    study_date_until: str | None = None


StudyKey = Literal["study_date", "study_time", "patient_name", "patient_id", "accession_number"]


@dataclass(frozen=True, slots=True)
class StudyOrder:
    """What a list of studies is sorted by."""

    attribute: StudyKey
    descending: bool = False

    def key(self, study: PacsStudy) -> str:
        """The value that the study is sorted by; names without regard to case."""
        value: str = getattr(study, self.attribute)
        return value.casefold() if self.attribute == "patient_name" else value


def in_order(studies: Iterable[PacsStudy], order: Sequence[StudyOrder]) -> Sequence[PacsStudy]:
    """The studies, sorted by the last key first, for sorting is stable; the UIDs make the order complete."""
    found = sorted(studies, key=lambda study: (study.study_instance_uid, study.orthanc_study_id))
    for by in reversed(order):
        found.sort(key=by.key, reverse=by.descending)
    return found


@dataclass(frozen=True, slots=True)
class StudyLink:
    """The patient and the order of the RIS that a study was uploaded for."""

    patient_id: UUID
    order_id: UUID | None


@dataclass(frozen=True, slots=True)
class Study:
    """A study with what the RIS knows of it."""

    pacs: PacsStudy
    counts: Counts
    patient_id: UUID | None = None
    patient_full_name: str = ""
    order_id: UUID | None = None
    order_status: str = ""
    series: Sequence[PacsSeries] = ()
