"""The 20 attributes of ris.tags.v1.DicomTags: which they are, and what their values say."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from tag_service.domain.parsing.tokenizer import Tokenizer
from tag_service.domain.standard.charset import TEXT_VRS, Charsets
from tag_service.domain.standard.dictionary import implicit_vr
from tag_service.domain.standard.problems import Problem, ProblemCode
from tag_service.domain.standard.text import text_of


class DicomTags(NamedTuple):
    """The attributes that identify and describe an instance, as text; "" for one that is absent or empty."""

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
class Header:
    """What the header says, and what is odd about it."""

    tags: DicomTags
    problems: tuple[Problem, ...]


# The field of each tag.
FIELDS: Final = {
    0x00080018: "sop_instance_uid",
    0x00080020: "study_date",
    0x00080030: "study_time",
    0x00080050: "accession_number",
    0x00080060: "modality",
    0x00080080: "institution_name",
    0x00080081: "institution_address",
    0x00080090: "referring_physician_name",
    0x00081030: "study_description",
    0x0008103E: "series_description",
    0x00081050: "performing_physician_name",
    0x00100010: "patient_name",
    0x00100020: "patient_id",
    0x00100030: "patient_birth_date",
    0x00100040: "patient_sex",
    0x00101010: "patient_age",
    0x0020000D: "study_instance_uid",
    0x0020000E: "series_instance_uid",
    0x00200011: "series_number",
    0x00200013: "instance_number",
}
HIGHEST: Final = max(FIELDS)
_ROWS: Final = tuple((tag, name, implicit_vr(tag)) for tag, name in FIELDS.items())
# What every instance has.
IDENTIFYING: Final = (0x00080018, 0x00100020, 0x0020000D, 0x0020000E)


def decode_tags(values: Mapping[int, bytes], charsets: Charsets, tokenizer: Tokenizer) -> DicomTags:
    """The attributes with these values, by tag. Notes which of them are a best guess."""
    texts = {}
    for tag, name, vr in _ROWS:
        value = values.get(tag)
        if value:
            texts[name], exact = text_of(value, vr, charsets)
            if not exact:
                tokenizer.note(ProblemCode.UNDECLARED_CHARSET, undecodable(vr), tag)
    return DicomTags(**texts)


def undecodable(vr: str) -> str:
    """The message for text that is no text in its character set."""
    if vr in TEXT_VRS:
        return "The text holds bytes that the declared character set does not explain; it is a best guess."
    return "The value holds characters that its VR does not allow; it is a best guess."
