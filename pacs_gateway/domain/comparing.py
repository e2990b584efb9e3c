"""How a file's tags compare with the patient and the order of the RIS, and with what edits make of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum

from pacs_gateway.domain.matching import birth_date_of, is_patients
from pacs_gateway.domain.registry import Order, Patient
from pacs_gateway.domain.tags import DicomTags, Edits


class Match(StrEnum):
    """How a tag compares; UNKNOWN where one of the two sides says nothing."""

    MATCH = "MATCH"
    MISMATCH = "MISMATCH"
    UNKNOWN = "UNKNOWN"


class Against(StrEnum):
    """What a tag is compared with."""

    PATIENT = "patient"
    ORDER = "order"


@dataclass(frozen=True, slots=True)
class TagMatch:
    """How one tag compares; its name is the field's of DicomTags."""

    name: str
    against: Against
    match: Match


@dataclass(frozen=True, slots=True)
class TagChange:
    """One tag that edits name, or change: what it is in the file, and what it becomes."""

    name: str
    before: str
    after: str


def compare(tags: DicomTags, patient: Patient | None, order: Order | None) -> Sequence[TagMatch]:
    """Each tag that says whose file it is, against the patient and the order, where there are any."""
    matches: list[TagMatch] = []
    if patient is not None:
        told = Match.UNKNOWN if not tags.patient_id else _match(equal=is_patients(tags, patient))
        matches.append(TagMatch("patient_id", Against.PATIENT, told))
        for name, mine, theirs in (
            ("patient_name", _name_of(tags.patient_name), _name_of(patient.full_name)),
            ("patient_birth_date", tags.patient_birth_date, birth_date_of(patient)),
            ("patient_sex", tags.patient_sex, patient.sex),
        ):
            matches.append(TagMatch(name, Against.PATIENT, _of(mine, theirs)))
    if order is not None:
        for name, mine, theirs in (
            ("accession_number", tags.accession_number, order.accession_number),
            ("modality", tags.modality, order.modality),
        ):
            matches.append(TagMatch(name, Against.ORDER, _of(mine, theirs)))
    return matches


def changes(before: DicomTags, after: DicomTags, edits: Edits) -> Iterator[TagChange]:
    """The tags that become another by edits, and those that edits name, in the order of DicomTags."""
    for field in fields(DicomTags):
        name = field.name
        old, new = getattr(before, name), getattr(after, name)
        if old != new or getattr(edits, name, None) is not None:
            yield TagChange(name, old, new)


def _of(mine: str, theirs: str) -> Match:
    return _match(equal=mine == theirs) if mine and theirs else Match.UNKNOWN


def _match(*, equal: bool) -> Match:
    return Match.MATCH if equal else Match.MISMATCH


def _name_of(name: str) -> str:
    """What of a name can be compared (PS3.5 6.2.1.1): its first group, without regard to case, and to spaces and
    delimiters that say nothing.
    """
    components = [component.strip() for component in name.partition("=")[0].split("^")]
    return "^".join(components).rstrip("^").casefold()
