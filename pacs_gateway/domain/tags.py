"""The attributes of a file that the gateway reads, and the edits it can ask for. It never sees DICOM bytes as such."""

from dataclasses import dataclass, replace
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class DicomTags:
    """The attributes of ris.tags.v1.DicomTags; "" for one that is absent or empty."""

    patient_id: str = ""
    patient_name: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    patient_age: str = ""
    study_instance_uid: str = ""
    study_date: str = ""
    study_time: str = ""
    study_description: str = ""
    accession_number: str = ""
    series_instance_uid: str = ""
    series_number: str = ""
    series_description: str = ""
    modality: str = ""
    sop_instance_uid: str = ""
    instance_number: str = ""
    institution_name: str = ""
    institution_address: str = ""
    referring_physician_name: str = ""
    performing_physician_name: str = ""


@dataclass(frozen=True, slots=True)
class HeaderEdit:
    """What editing a file by its ends came to.

    The edited file is `header`, and behind it the file from `header_size` on; also without edits there is a header.
    `original` are the attributes of the file, `tags` those of the edited one. Where the ends do not tell
    (`needs_whole_file`) there is neither header nor `tags`, and `original` only where it was to be found.
    """

    original: DicomTags | None
    tags: DicomTags | None
    header: bytes
    header_size: int
    needs_whole_file: bool


class RecordReason(StrEnum):
    """Why a file's values before its edits are recorded in it (PS3.3 C.12.1.1.9): to fit them, or to mend them."""

    COERCE = "COERCE"
    CORRECT = "CORRECT"


@dataclass(frozen=True, slots=True)
class Edits:
    """The edits of ris.tags.v1.ModifyTagsRequest. None leaves an attribute alone, "" empties it.

    `record_original` is why the values before are recorded in the file, None where they are not.
    """

    patient_id: str | None = None
    patient_name: str | None = None
    patient_birth_date: str | None = None
    patient_sex: str | None = None
    accession_number: str | None = None
    study_date: str | None = None
    study_description: str | None = None
    remove_private_tags: bool = False
    set: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    force: bool = False
    record_original: RecordReason | None = None

    def coerced_to(self, *, patient_id: str, name: str, birth_date: str, sex: str) -> "Edits":
        """These edits, with the patient's attributes replaced, and what they were recorded in the file."""
        return replace(
            self,
            patient_id=patient_id,
            patient_name=name,
            patient_birth_date=birth_date,
            patient_sex=sex,
            record_original=RecordReason.COERCE,
        )

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked for."""
        return replace(self, force=False, record_original=None) == Edits()
