"""How the log of a study counts."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from pacs_gateway.domain.tags import DicomTags, Edits, RecordReason
from pacs_gateway.domain.upload_log import UploadLog, UploadStatus, log_for

NOW = datetime(2024, 1, 1, tzinfo=UTC)
PATIENT, USER, ORDER = UUID(int=2), UUID(int=3), UUID(int=4)


def log_of(**changed: object) -> UploadLog:
    """A log."""
    values = {"patient_id": PATIENT, "order_id": None} | changed
    return UploadLog(
        id=UUID(int=1),
        uploaded_by_id=USER,
        study_instance_uid="1.2",
        upload_source="manual",
        uploaded_at=NOW,
        **values,
    )


def test_a_log_holds_files_as_long_as_they_are_in_the_pacs() -> None:
    """A log without files, and a deleted one, hold none."""
    assert log_of(number_of_files=1).holds_files
    assert not log_of().holds_files
    assert not log_of(number_of_files=1, is_deleted=True).holds_files


TAGS = DicomTags(patient_id="P", patient_name="N", accession_number="A", study_date="20240101", modality="CT")


def anew(known: UploadLog | None, patient_id: UUID = PATIENT) -> UploadLog:
    """The log when a file is on its way to the study."""
    return log_for(known, patient_id, TAGS, study_uid="1.2", by=UUID(int=9), source="api", at=NOW)


def test_a_study_without_a_log_gets_one_that_tells_of_its_first_file() -> None:
    """What the first file says of itself is in the log from the beginning."""
    log = anew(None)
    assert (log.original_patient_id, log.original_patient_name, log.original_accession_number) == ("P", "N", "A")
    assert (log.original_study_date, log.original_modality) == ("20240101", "CT")
    assert (log.uploaded_by_id, log.upload_source, log.uploaded_at) == (UUID(int=9), "api", NOW)
    assert log.upload_status is UploadStatus.IN_PROGRESS


def test_a_log_that_holds_files_goes_on() -> None:
    """A further file changes nothing of what the log says of the first one."""
    known = log_of(number_of_files=1, original_patient_id="OTHER", order_id=ORDER)
    assert anew(known, UUID(int=7)) == known


@pytest.mark.parametrize("known", [log_of(number_of_files=3, is_deleted=True), log_of(patient_id=UUID(int=8))])
def test_a_log_of_which_nothing_is_stored_starts_anew(known: UploadLog) -> None:
    """It keeps its id, and that it is deleted, and nothing else of a deleted study or another patient's."""
    log = anew(replace(known, error_message="x", upload_duration_seconds=9, original_patient_id="OLD"))
    assert (log.id, log.is_deleted, log.number_of_files) == (known.id, known.is_deleted, 0)
    assert (log.original_patient_id, log.error_message, log.upload_duration_seconds) == ("P", "", 0)


def test_a_log_of_the_same_patient_remembers_what_failed() -> None:
    """Where nothing was stored yet, failures and the time that was spent stay."""
    log = anew(log_of(error_message="x", upload_duration_seconds=9))
    assert (log.error_message, log.upload_duration_seconds) == ("x", 9)


@pytest.mark.parametrize(("had", "given", "order_id"), [(None, ORDER, ORDER), (ORDER, None, ORDER)])
def test_a_stored_file_puts_its_study_under_its_order(
    had: UUID | None, given: UUID | None, order_id: UUID | None
) -> None:
    """A file without an order leaves the study under the one that it has."""
    log = log_of(order_id=had)
    facts = log.facts_of(TAGS, orthanc_study_id="o", order_id=given, edited=False)
    log = log.with_facts(facts)
    assert (log.order_id, log.orthanc_study_id, log.tags_modified) == (order_id, "o", False)


def test_only_what_was_changed_is_told_as_modified() -> None:
    """The modified attributes are those that are stored otherwise than they came."""
    log = log_of(original_patient_id="A", original_patient_name="N", original_accession_number="1")
    stored = DicomTags(patient_id="B", patient_name="N", accession_number="2")
    log = log.with_facts(log.facts_of(stored, orthanc_study_id="o", order_id=None, edited=True))
    assert log.tags_modified
    assert (log.modified_patient_id, log.modified_patient_name, log.modified_accession_number) == ("B", "", "2")
    assert log.stored_patient_id == "B"
    assert log_of(original_patient_id="A").stored_patient_id == "A"


@pytest.mark.parametrize(
    ("edits", "empty"),
    [
        (Edits(), True),
        (Edits(force=True), True),
        (Edits(patient_sex=""), False),
        (Edits(remove_private_tags=True), False),
        (Edits(set=("A=B",)), False),
        (Edits(remove=("A",)), False),
    ],
)
def test_edits_are_empty_when_they_change_nothing(edits: Edits, empty: bool) -> None:  # noqa: FBT001 - a parameter
    """Emptying an attribute is an edit; `force` alone is none."""
    assert edits.is_empty == empty


def test_coercion_keeps_the_other_edits() -> None:
    """Only what names the patient is replaced, and that is recorded."""
    edits = Edits(study_date="20240101", remove=("A",), patient_id="X").coerced_to(
        patient_id="M", name="N", birth_date="", sex="F"
    )
    coerced = Edits("M", "N", "", "F", study_date="20240101", remove=("A",), record_original=RecordReason.COERCE)
    assert edits == coerced
