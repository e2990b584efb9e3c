"""How the log of a study counts."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from pacs_gateway.domain.tags import DicomTags, Edits
from pacs_gateway.domain.upload_log import LoggedFile, UploadLog, UploadStatus

NOW = datetime(2024, 1, 1, tzinfo=UTC)
USER, ORDER, OTHER_ORDER = UUID(int=3), UUID(int=4), UUID(int=5)


def log_of(*files: LoggedFile, **changed: object) -> UploadLog:
    """A log that has been told of these files, in order."""
    log = UploadLog(UUID(int=1), UUID(int=2), None, USER, "1.2", "manual", NOW, **changed)
    for file in files:
        log = log.with_file(file, seconds=1.5)
    return log


def stored(uid: str, size: int = 100) -> LoggedFile:
    """A file that is stored."""
    return LoggedFile(uid, f"{uid}.dcm", size)


def failed(uid: str, error: str = "STORE_REFUSED") -> LoggedFile:
    """A file that failed."""
    return LoggedFile(uid, f"{uid}.dcm", 100, error)


@pytest.mark.parametrize(
    ("files", "status", "number", "message"),
    [
        ((), UploadStatus.IN_PROGRESS, 0, ""),
        ((stored("1"),), UploadStatus.SUCCESS, 1, ""),
        ((stored("1"), stored("2")), UploadStatus.SUCCESS, 2, ""),
        ((stored("1"), stored("1")), UploadStatus.SUCCESS, 1, ""),
        ((failed("1"),), UploadStatus.FAILED, 0, "1 of 1 files failed: STORE_REFUSED"),
        ((failed("1"), failed("1", "EMPTY_FILE")), UploadStatus.FAILED, 0, "1 of 1 files failed: EMPTY_FILE"),
        ((failed("1"), failed("2", "A")), UploadStatus.FAILED, 0, "2 of 2 files failed: A, STORE_REFUSED"),
        ((stored("1"), failed("2")), UploadStatus.PARTIAL, 1, "1 of 2 files failed: STORE_REFUSED"),
        ((failed("2"), stored("1")), UploadStatus.PARTIAL, 1, "1 of 2 files failed: STORE_REFUSED"),
        ((failed("1"), stored("1")), UploadStatus.SUCCESS, 1, ""),
        ((stored("1"), failed("1")), UploadStatus.SUCCESS, 1, ""),
    ],
)
def test_the_status_follows_from_the_files(
    files: tuple[LoggedFile, ...], status: UploadStatus, number: int, message: str
) -> None:
    """Each instance counts once, with what is known of it last; a failure to store again does not unstore."""
    log = log_of(*files)
    assert (log.upload_status, log.number_of_files, log.error_message) == (status, number, message)
    assert log.upload_duration_seconds == 1.5 * len(files)


def test_the_size_is_of_what_is_stored() -> None:
    """Failed files have no size, and a file that is replaced in the log has its last one."""
    assert log_of(stored("1", 10), stored("2", 30), failed("3"), stored("2", 20)).total_size_bytes == 30


def test_a_deleted_log_starts_anew_with_the_next_stored_file() -> None:
    """What was stored before a deletion counts no more."""
    log = log_of(stored("1"), stored("2"))
    revived = log_of(stored("3"), files=log.files, is_deleted=True)
    assert not revived.is_deleted
    assert [file.sop_instance_uid for file in revived.files] == ["3"]


def test_a_deleted_log_stays_deleted_with_a_failure() -> None:
    """A failure does not revive a study, nor make its old files count."""
    log = log_of(failed("3"), files=(stored("1"),), is_deleted=True)
    assert log.is_deleted
    assert (log.number_of_files, log.upload_status) == (0, UploadStatus.FAILED)


def test_a_log_holds_files_as_long_as_they_are_in_the_pacs() -> None:
    """Failed files and deleted ones are not held."""
    assert log_of(stored("1")).holds_files
    assert not log_of().holds_files
    assert not log_of(failed("1")).holds_files
    assert not log_of(files=(stored("1"),), is_deleted=True).holds_files


def test_a_log_counts_what_is_stored() -> None:
    """Neither a failed nor an unknown nor a deleted instance is counted."""
    log = log_of(stored("1"), failed("2"))
    assert [log.counts(uid) for uid in ("1", "2", "3")] == [True, False, False]
    assert not log_of(files=(stored("1"),), is_deleted=True).counts("1")


def test_a_file_on_its_way_makes_the_log_in_progress() -> None:
    """Who sends it, when and from where is known at once; what is stored stays counted."""
    later = datetime(2024, 2, 2, tzinfo=UTC)
    log = log_of(stored("1")).begun(by=UUID(int=9), at=later, source="api", order_id=None)
    assert (log.uploaded_by_id, log.uploaded_at, log.upload_source) == (UUID(int=9), later, "api")
    assert (log.upload_status, log.number_of_files) == (UploadStatus.IN_PROGRESS, 1)


@pytest.mark.parametrize(
    ("files", "had", "given", "order_id"),
    [
        ((), None, ORDER, ORDER),
        ((), ORDER, None, ORDER),
        ((), ORDER, OTHER_ORDER, OTHER_ORDER),
        ((stored("1"),), ORDER, OTHER_ORDER, ORDER),
        ((stored("1"),), None, ORDER, None),
    ],
)
def test_a_file_on_its_way_does_not_move_a_study_to_its_order(
    files: tuple[LoggedFile, ...], had: UUID | None, given: UUID | None, order_id: UUID | None
) -> None:
    """Only what is stored puts a study that holds files under another order."""
    log = UploadLog(UUID(int=1), UUID(int=2), had, USER, "1.2", "manual", NOW, files=files)
    assert log.begun(by=USER, at=NOW, source="api", order_id=given).order_id == order_id


def test_only_what_was_changed_is_told_as_modified() -> None:
    """The modified attributes are those that are stored otherwise than they came."""
    log = log_of(original_patient_id="A", original_patient_name="N", original_accession_number="1")
    log = log.with_edits(DicomTags(patient_id="B", patient_name="N", accession_number="2"))
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
    """Only what names the patient is replaced."""
    edits = Edits(study_date="20240101", remove=("A",), patient_id="X").coerced_to(
        patient_id="M", name="N", birth_date="", sex="F"
    )
    assert edits == Edits("M", "N", "", "F", study_date="20240101", remove=("A",))
