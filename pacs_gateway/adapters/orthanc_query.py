"""What is looked for, in the terms of Orthanc's /tools/find, and what of its answer is truly it."""

import re
import unicodedata
from typing import Final

from pacs_gateway.domain.study import PacsStudy, StudyFilter
from service_runtime.errors import InvalidFieldError, Violation

# (0008,0061), (0020,1206), (0020,1208): PS3.4 C.6.2.1.2, attributes that an archive computes.
STUDY_COUNTS: Final = ("ModalitiesInStudy", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances")


def query_of(wanted: StudyFilter) -> dict[str, str]:
    """The query. Raises INVALID_FIELD for a value that would mean more than itself."""
    exact = {
        "StudyInstanceUID": wanted.study_instance_uid,
        "PatientID": wanted.patient_id,
        "AccessionNumber": wanted.accession_number,
        "ModalitiesInStudy": wanted.modality,
    }
    query = {keyword: literal(value, keyword) for keyword, value in exact.items() if value is not None}
    if wanted.patient_name is not None:
        query["PatientName"] = literal(wanted.patient_name, "PatientName") + "*"
    if wanted.study_date_from is not None or wanted.study_date_until is not None:
        query["StudyDate"] = f"{_date(wanted.study_date_from)}-{_date(wanted.study_date_until)}"
    return query


def is_broad(wanted: StudyFilter) -> bool:
    """Whether the query names no identifier, which Orthanc is quick to find, nor what it computes."""
    return all(
        value is None
        for value in (wanted.study_instance_uid, wanted.patient_id, wanted.accession_number, wanted.modality)
    )


def literal(value: str, keyword: str) -> str:
    """The value, which must mean itself to Orthanc: an empty one, or one with a wildcard (PS3.4 C.2.2.2), would match
    other studies, or all. Raises INVALID_FIELD.
    """
    if not is_literal(value):
        raise InvalidFieldError(Violation(keyword, "Must not be empty, nor hold *, ?, \\ or control characters."))
    return value


def is_literal(value: str) -> bool:
    """Whether the value means itself to Orthanc."""
    return bool(value.strip()) and not any(
        char in "*?\\" or unicodedata.category(char) in {"Cc", "Cs"} for char in value
    )


def matches(study: PacsStudy, wanted: StudyFilter) -> bool:
    """Whether the study is wanted, but for its modality, which takes another query to know."""
    exact = (
        (wanted.study_instance_uid, study.study_instance_uid),
        (wanted.patient_id, study.patient_id),
        (wanted.accession_number, study.accession_number),
    )
    return (
        all(value is None or value == found for value, found in exact)
        and (wanted.patient_name is None or _folded(study.patient_name).startswith(_folded(wanted.patient_name)))
        and (wanted.study_date_from is None or _day(study) >= wanted.study_date_from)
        and (wanted.study_date_until is None or "" < _day(study) <= wanted.study_date_until)
    )


def _date(value: str | None) -> str:
    if value is not None and not re.fullmatch("[0-9]{8}", value):
        raise InvalidFieldError(Violation("StudyDate", "Must be YYYYMMDD."))
    return value or ""


def _day(study: PacsStudy) -> str:
    """The StudyDate, also of an old file (YYYY.MM.DD, PS3.5 6.2, DA)."""
    return study.study_date.replace(".", "")


def _folded(value: str) -> str:
    return unicodedata.normalize("NFC", value).casefold()
