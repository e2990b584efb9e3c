"""What the gateway lets Orthanc look for, and what it takes from the answer."""

import pytest

from pacs_gateway.adapters.orthanc_query import literal, matches, query_of
from pacs_gateway.domain.study import PacsStudy, StudyFilter
from service_runtime.errors import InvalidFieldError, Reason

_STUDY = PacsStudy(
    study_instance_uid="1.2.3",
    orthanc_study_id="",
    patient_id="A",
    patient_name="Möller^Zoë",
    study_date="20200131",
    study_time="",
    study_description="",
    accession_number="ACC",
)

_PATTERNS = ["", " ", "\t", "*", "A*", "?", "A?B", "\\", "A\\B", "A\x00", "A\n", "\ud800"]


@pytest.mark.parametrize("value", _PATTERNS)
@pytest.mark.parametrize("field", ["study_instance_uid", "patient_id", "accession_number", "modality", "patient_name"])
def test_a_value_that_would_match_more_than_itself_is_refused(field: str, value: str) -> None:
    """An empty value, a wildcard, a list and a control character are an error of the field, in every field."""
    with pytest.raises(InvalidFieldError) as error:
        query_of(StudyFilter(**{field: value}))
    assert error.value.reason is Reason.INVALID_FIELD
    assert error.value.violations[0].field in {
        "StudyInstanceUID",
        "PatientID",
        "AccessionNumber",
        "ModalitiesInStudy",
        "PatientName",
    }


@pytest.mark.parametrize("value", ["A", "A B", "é", "山田\u3000太郎", "A-1", "A^B=C"])
def test_a_value_that_means_itself_passes_unchanged(value: str) -> None:
    """Spaces, other scripts, hyphens and component delimiters are no patterns."""
    assert literal(value, "PatientID") == value


@pytest.mark.parametrize("value", ["", "2020", "2020-01-01", "*", "20200101-", "2020010\uff11"])
@pytest.mark.parametrize("field", ["study_date_from", "study_date_until"])
def test_a_date_that_is_none_is_refused(field: str, value: str) -> None:
    """What is not YYYYMMDD never becomes part of a range."""
    with pytest.raises(InvalidFieldError):
        query_of(StudyFilter(**{field: value}))


@pytest.mark.parametrize(
    ("wanted", "query"),
    [
        (StudyFilter(), {}),
        (StudyFilter(patient_id="A"), {"PatientID": "A"}),
        (StudyFilter(patient_name="Do"), {"PatientName": "Do*"}),
        (StudyFilter(study_date_from="20200101"), {"StudyDate": "20200101-"}),
        (StudyFilter(study_date_until="20200101"), {"StudyDate": "-20200101"}),
        (StudyFilter(modality="CT", accession_number="1"), {"AccessionNumber": "1", "ModalitiesInStudy": "CT"}),
    ],
)
def test_a_filter_becomes_a_query(wanted: StudyFilter, query: dict[str, str]) -> None:
    """Only what is asked for is in the query; a name is the beginning of one."""
    assert query_of(wanted) == query


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (StudyFilter(), True),
        (StudyFilter(patient_id="A"), True),
        (StudyFilter(patient_id="a"), False),
        (StudyFilter(accession_number="acc"), False),
        (StudyFilter(study_instance_uid="1.2.3"), True),
        (StudyFilter(study_instance_uid="1.2.30"), False),
        (StudyFilter(patient_name="mÖLLER^z"), True),
        (StudyFilter(patient_name="Mo\u0308ller"), True),
        (StudyFilter(patient_name="Moller"), False),
        (StudyFilter(study_date_from="20200131", study_date_until="20200131"), True),
        (StudyFilter(study_date_from="20200201"), False),
        (StudyFilter(study_date_until="20200130"), False),
    ],
)
def test_identifiers_match_exactly_and_names_by_their_beginning_in_any_case(
    wanted: StudyFilter, *, expected: bool
) -> None:
    """Identifiers differ by case; names match without it, also where an accent is a character of its own."""
    assert matches(_STUDY, wanted) is expected


def test_a_study_without_a_date_is_in_no_range() -> None:
    """An empty StudyDate is neither before nor after any day."""
    undated = PacsStudy("1.2", "", "A", "", "", "", "", "")
    assert not matches(undated, StudyFilter(study_date_until="20991231"))
    assert not matches(undated, StudyFilter(study_date_from="19000101"))


def test_a_date_of_an_old_file_is_compared_as_a_day() -> None:
    """YYYY.MM.DD, as ACR-NEMA wrote it, falls into its range."""
    old = PacsStudy("1.2", "", "A", "", "1993.08.22", "", "", "")
    assert matches(old, StudyFilter(study_date_from="19930822", study_date_until="19930822"))
    assert not matches(old, StudyFilter(study_date_until="19930821"))
