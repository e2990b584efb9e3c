"""Every field of every message that the mapping fills is filled, with the right value."""

from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from google.protobuf.json_format import MessageToDict

from pacs_gateway.api.mapping import (
    failure_to_proto,
    log_to_proto,
    order_to_proto,
    patient_to_proto,
    stored_to_fields,
    study_to_proto,
    tags_to_proto,
    user_to_proto,
)
from pacs_gateway.domain.registry import Order, OrderStudy, Patient, Role, User
from pacs_gateway.domain.study import Counts, PacsSeries, PacsStudy, Study
from pacs_gateway.domain.tags import DicomTags
from pacs_gateway.domain.upload import FileStatus, StoredFile
from pacs_gateway.domain.upload_log import Deletion, UploadLog, UploadLogEntry, UploadStatus
from ris.pacs.v1 import upload_service_pb2
from ris.tags.v1 import dicom_tags_pb2
from service_runtime.errors import InvalidFieldError, Reason, ServiceError, Violation
from service_runtime.status import CODE_OF

TAGS = DicomTags(**{name: f"<{name}>" for name in DicomTags.__dataclass_fields__})
TAGS_TOLD = {("dicom_patient_id" if name == "patient_id" else name): f"<{name}>" for name in TAGS.__dataclass_fields__}
AT, LATER = datetime(2024, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC), datetime(2024, 2, 3, tzinfo=UTC)
ID, PATIENT_ID, ORDER_ID, USER_ID = (UUID(int=n) for n in range(1, 5))


def told(message: Any) -> dict[str, Any]:
    """What a message says, by the names of the proto."""
    return MessageToDict(message, preserving_proto_field_name=True)


def is_full(message: Any) -> bool:
    """Whether no field of the message has been left out."""
    return {field.name for field in message.DESCRIPTOR.fields} == set(told(message))


def test_tags() -> None:
    """All 20 attributes are told, each as itself."""
    message = tags_to_proto(TAGS)
    assert is_full(message)
    assert told(message) == TAGS_TOLD
    assert len(dicom_tags_pb2.DicomTags.DESCRIPTOR.fields) == 20


def test_a_stored_file() -> None:
    """A success fills all but the error, in both answers alike."""
    file = StoredFile(FileStatus.STORED, "orthanc-id", TAGS, PATIENT_ID, ORDER_ID, ID)
    fields = stored_to_fields("a.dcm", file)
    for kind in (upload_service_pb2.UploadResponse, upload_service_pb2.UploadMultipleResponse):
        answer = told(kind(**fields))
        assert {field.name for field in kind.DESCRIPTOR.fields} - set(answer) - {"directory"} == {"error"}
        assert answer.pop("message")
        assert answer == {
            "success": True,
            "orthanc_id": "orthanc-id",
            "study_uid": "<study_instance_uid>",
            "tags": TAGS_TOLD,
            "filename": "a.dcm",
            "sop_instance_uid": "<sop_instance_uid>",
            "status": "stored",
            "patient_id": str(PATIENT_ID),
            "order_id": str(ORDER_ID),
            "upload_log_id": str(ID),
        }


def test_a_file_that_was_there_already() -> None:
    """It says so, and an order that is not there is empty."""
    file = StoredFile(FileStatus.ALREADY_STORED, "orthanc-id", TAGS, PATIENT_ID, None, ID)
    fields = stored_to_fields("a.dcm", file)
    assert (fields["success"], fields["status"], fields["order_id"]) == (True, "already_stored", "")
    assert fields["message"] != stored_to_fields("", StoredFile(FileStatus.STORED, "", TAGS, ID, None, ID))["message"]


def test_a_failed_file() -> None:
    """A failure says what google.rpc.Status would, and nothing that sounds like success."""
    error = ServiceError(Reason.FILE_TOO_LARGE, "Too large.", metadata={"limit": "MAX_DICOM_FILE_SIZE_MB"})
    assert told(failure_to_proto("a.dcm", error)) == {
        "message": "Too large.",
        "filename": "a.dcm",
        "status": "failed",
        "error": {
            "code": CODE_OF[Reason.FILE_TOO_LARGE].value[0],
            "reason": "FILE_TOO_LARGE",
            "message": "Too large.",
            "metadata": {"limit": "MAX_DICOM_FILE_SIZE_MB"},
        },
    }


def test_every_reason_can_be_a_files() -> None:
    """No reason lacks a code."""
    for reason in Reason:
        error = failure_to_proto("", ServiceError(reason, "x")).error
        assert (error.reason, error.code) == (reason.value, CODE_OF[reason].value[0])


def test_a_file_that_failed_for_its_edits() -> None:
    """Which values were wrong is told beside the reason."""
    error = InvalidFieldError(Violation("StudyDate", "is no date"), Violation("set[1]", "names no attribute"))
    assert dict(failure_to_proto("a.dcm", error).error.metadata) == {
        "StudyDate": "is no date",
        "set[1]": "names no attribute",
    }


def study_of(**changed: Any) -> Study:
    """A study with everything."""
    pacs = PacsStudy("1.2", "o-study", "MRN", "Name", "20240101", "1011", "Chest", "ACC")
    series = PacsSeries("1.2.1", "o-series", "7", "Axial", "CT", 30)
    all_of_it: dict[str, Any] = {
        "pacs": pacs,
        "counts": Counts(("CT", "SR"), 2, 31),
        "patient_id": PATIENT_ID,
        "patient_full_name": "Full Name",
        "order_id": ORDER_ID,
        "order_status": "done",
        "series": (series,),
    }
    return Study(**all_of_it | changed)


def test_a_study() -> None:
    """A study tells all that the PACS and the RIS know."""
    message = study_to_proto(study_of())
    assert is_full(message)
    assert is_full(message.series[0])
    assert told(message) == {
        "study_instance_uid": "1.2",
        "orthanc_study_id": "o-study",
        "dicom_patient_id": "MRN",
        "patient_name": "Name",
        "study_date": "20240101",
        "study_time": "1011",
        "study_description": "Chest",
        "accession_number": "ACC",
        "modality": "CT",
        "modalities_in_study": ["CT", "SR"],
        "number_of_series": 2,
        "number_of_instances": 31,
        "patient_id": str(PATIENT_ID),
        "patient_full_name": "Full Name",
        "order_id": str(ORDER_ID),
        "order_status": "done",
        "series": [
            {
                "series_instance_uid": "1.2.1",
                "orthanc_series_id": "o-series",
                "series_number": "7",
                "series_description": "Axial",
                "modality": "CT",
                "number_of_instances": 30,
            }
        ],
    }


def test_a_study_that_nobody_knows() -> None:
    """What is not known is empty, and no word such as None."""
    message = study_to_proto(study_of(counts=Counts((), 0, 0), patient_id=None, order_id=None, series=()))
    assert (message.modality, message.patient_id, message.order_id) == ("", "", "")
    assert "None" not in str(message)


def log_of() -> UploadLog:
    """A log with everything."""
    quoted = (
        "original_patient_id original_patient_name original_accession_number original_study_date original_modality "
        "modified_patient_id modified_patient_name modified_accession_number"
    )
    return UploadLog(
        id=ID,
        patient_id=PATIENT_ID,
        order_id=ORDER_ID,
        uploaded_by_id=USER_ID,
        study_instance_uid="1.2",
        upload_source="api",
        uploaded_at=AT,
        orthanc_study_id="o-study",
        number_of_files=1,
        instances_missing=2,
        instances_unlogged=3,
        total_size_bytes=5_000_000_000,
        tags_modified=True,
        upload_status=UploadStatus.PARTIAL,
        error_message="1 of 2 files failed",
        upload_duration_seconds=1.25,
        is_deleted=True,
        **{name: f"<{name}>" for name in quoted.split()},
    )


def test_an_upload_log() -> None:
    """A log tells all of it, its sizes beyond 32 bits, and the deletion after it."""
    deletion = Deletion(UUID(int=9), "1.2", "o-study", "wrong", USER_ID, AT, ID, completed_at=LATER)
    message = log_to_proto(UploadLogEntry(log_of(), "Up Loader", deletion, "De Leter"))
    assert is_full(message)
    assert told(message) == {
        "id": str(ID),
        "patient_id": str(PATIENT_ID),
        "order_id": str(ORDER_ID),
        "study_instance_uid": "1.2",
        "orthanc_study_id": "o-study",
        "number_of_files": 1,
        "total_size_bytes": "5000000000",
        "original_patient_id": "<original_patient_id>",
        "original_patient_name": "<original_patient_name>",
        "original_accession_number": "<original_accession_number>",
        "original_study_date": "<original_study_date>",
        "original_modality": "<original_modality>",
        "modified_patient_id": "<modified_patient_id>",
        "modified_patient_name": "<modified_patient_name>",
        "modified_accession_number": "<modified_accession_number>",
        "tags_modified": True,
        "upload_status": "partial",
        "error_message": "1 of 2 files failed",
        "uploaded_at": "2024-01-02T03:04:05.600Z",
        "uploaded_by": "Up Loader",
        "upload_source": "api",
        "upload_duration_seconds": 1.25,
        "is_deleted": True,
        "deleted_at": "2024-02-03T00:00:00Z",
        "deleted_by": "De Leter",
        "deletion_reason": "wrong",
        "instances_missing": 2,
        "instances_unlogged": 3,
    }


def test_an_upload_log_without_a_deletion() -> None:
    """A study that was never deleted, or whose deletion is not complete, has no time of it."""
    pending = Deletion(UUID(int=9), "1.2", "o-study", "wrong", USER_ID, AT, ID)
    for deletion in (None, pending):
        message = log_to_proto(UploadLogEntry(log_of(), "Up Loader", deletion))
        assert not message.HasField("deleted_at")
        assert message.deletion_reason == message.deleted_by == ""


def test_a_patient() -> None:
    """A patient is told whole; an unknown birth date is empty."""
    message = patient_to_proto(Patient(ID, "MRN", "Full^Name", date(1970, 1, 2), "F", is_provisional=True))
    assert is_full(message)
    assert told(message) == {
        "id": str(ID),
        "mrn": "MRN",
        "full_name": "Full^Name",
        "birth_date": "1970-01-02",
        "sex": "F",
        "is_provisional": True,
    }
    assert patient_to_proto(Patient(ID, "MRN", "Full^Name", None, "F")).birth_date == ""


def test_an_order() -> None:
    """An order is told whole, with its study; without one those fields are empty."""
    study = OrderStudy("1.2", "o-study", 2, 31, "20240101", "1011", USER_ID, AT, "api")
    message = order_to_proto(Order(ID, PATIENT_ID, "ACC", "CT", "done", study))
    assert is_full(message)
    whole = {
        "id": str(ID),
        "patient_id": str(PATIENT_ID),
        "accession_number": "ACC",
        "modality": "CT",
        "status": "done",
    }
    assert told(message) == whole | {
        "study_instance_uid": "1.2",
        "orthanc_study_id": "o-study",
        "number_of_series": 2,
        "number_of_images": 31,
        "study_date": "20240101",
        "study_time": "1011",
    }
    assert told(order_to_proto(Order(ID, PATIENT_ID, "ACC", "CT", "done"))) == whole


def test_a_user() -> None:
    """A user is told whole; one who is switched off is told as such, and not as unset."""
    message = user_to_proto(User(ID, "anna", "Anna", Role.VIEWER))
    assert is_full(message)
    assert told(message) == {
        "id": str(ID),
        "username": "anna",
        "full_name": "Anna",
        "role": "viewer",
        "is_active": True,
    }
    off = user_to_proto(User(ID, "anna", "Anna", Role.VIEWER, is_active=False))
    assert off.HasField("is_active")
    assert not off.is_active
