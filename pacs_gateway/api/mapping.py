"""From the domain to the messages of ris.pacs.v1, and back where that takes no checking."""

from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from pacs_gateway.domain.media import DIRECTORY_NAME, DirectoryReport
from pacs_gateway.domain.quarantine import QuarantineEntry
from pacs_gateway.domain.registry import Order, Patient, User
from pacs_gateway.domain.study import Study
from pacs_gateway.domain.tags import DicomTags
from pacs_gateway.domain.upload import FileStatus, StoredFile
from pacs_gateway.domain.upload_log import UploadLogEntry
from ris.pacs.v1 import quarantine_service_pb2, registry_service_pb2, study_service_pb2, upload_service_pb2
from ris.tags.v1 import dicom_tags_pb2
from service_runtime.errors import Reason, ServiceError
from service_runtime.status import code_of

_FAILED = "failed"
_SKIPPED = "skipped"
_MESSAGES = {
    FileStatus.STORED: "Stored, read back and logged.",
    FileStatus.ALREADY_STORED: "The PACS held the same file already; it is logged.",
    FileStatus.KEPT: "The PACS holds another content of this instance, which was kept; the file was not stored.",
}


def keyword_of(name: str) -> str:
    """The DICOM keyword of a field of DicomTags."""
    field = "dicom_patient_id" if name == "patient_id" else name
    keyword: str = dicom_tags_pb2.DicomTags.DESCRIPTOR.fields_by_name[field].json_name
    return keyword


def tags_to_proto(tags: DicomTags) -> dicom_tags_pb2.DicomTags:
    """The tags as a message."""
    fields = {name: getattr(tags, name) for name in DicomTags.__dataclass_fields__}
    return dicom_tags_pb2.DicomTags(dicom_patient_id=fields.pop("patient_id"), **fields)


def stored_to_fields(name: str, file: StoredFile) -> dict[str, Any]:
    """The fields that UploadResponse and UploadMultipleResponse share, of a file that did not fail."""
    return {
        "success": True,
        "orthanc_id": file.orthanc_id,
        "study_uid": file.tags.study_instance_uid,
        "tags": tags_to_proto(file.tags),
        "message": _MESSAGES[file.status],
        "filename": name,
        "sop_instance_uid": file.tags.sop_instance_uid,
        "status": file.status.value,
        "patient_id": str(file.patient_id),
        "order_id": str(file.order_id or ""),
        "upload_log_id": str(file.upload_log_id),
    }


def failure_to_proto(name: str, error: ServiceError) -> upload_service_pb2.UploadMultipleResponse:
    """What became of a file that failed."""
    return upload_service_pb2.UploadMultipleResponse(
        success=False, message=error.message, filename=name, status=_FAILED, error=error_to_proto(error)
    )


def skipped_to_proto(name: str, error: ServiceError) -> upload_service_pb2.UploadMultipleResponse:
    """What became of a file of an archive that is no DICOM file, as the error says."""
    return upload_service_pb2.UploadMultipleResponse(
        success=False,
        message="No DICOM file: it was passed over.",
        filename=name,
        status=_SKIPPED,
        error=error_to_proto(error),
    )


def directory_to_proto(report: DirectoryReport | ServiceError) -> upload_service_pb2.UploadMultipleResponse:
    """What a DICOMDIR came to: it is not stored, for the PACS makes its own; or why it could not be read."""
    if isinstance(report, ServiceError):
        return failure_to_proto(DIRECTORY_NAME, report)
    answer = upload_service_pb2.UploadMultipleResponse(
        success=False,
        message="The DICOMDIR agrees with the files; it is not stored itself.",
        filename=DIRECTORY_NAME,
        status=_SKIPPED,
    )
    if not report.agrees:
        answer.message = "The DICOMDIR and the files differ: check that the medium was copied whole."
        answer.error.CopyFrom(error_to_proto(ServiceError(Reason.DIRECTORY_MISMATCH, answer.message)))
        answer.directory.CopyFrom(
            upload_service_pb2.DirectoryReport(
                missing=report.missing,
                unlisted=report.unlisted,
                other_instances=report.other_instances,
                left_out=report.left_out,
            )
        )
    return answer


def error_to_proto(error: ServiceError) -> upload_service_pb2.UploadError:
    """The error of one file of many; its metadata also names the wrong values, where it is of that kind."""
    violations = {violation.field: violation.description for violation in error.violations}
    return upload_service_pb2.UploadError(
        code=code_of(error), reason=error.reason.value, message=error.message, metadata=error.metadata | violations
    )


def study_to_proto(study: Study) -> study_service_pb2.Study:
    """The study as a message."""
    return study_service_pb2.Study(
        study_instance_uid=study.pacs.study_instance_uid,
        orthanc_study_id=study.pacs.orthanc_study_id,
        dicom_patient_id=study.pacs.patient_id,
        patient_name=study.pacs.patient_name,
        study_date=study.pacs.study_date,
        study_time=study.pacs.study_time,
        study_description=study.pacs.study_description,
        accession_number=study.pacs.accession_number,
        modality=study.counts.modalities[0] if study.counts.modalities else "",
        modalities_in_study=study.counts.modalities,
        number_of_series=study.counts.number_of_series,
        number_of_instances=study.counts.number_of_instances,
        patient_id=str(study.patient_id or ""),
        patient_full_name=study.patient_full_name,
        order_id=str(study.order_id or ""),
        order_status=study.order_status,
        series=[
            study_service_pb2.Series(
                series_instance_uid=series.series_instance_uid,
                orthanc_series_id=series.orthanc_series_id,
                series_number=series.series_number,
                series_description=series.series_description,
                modality=series.modality,
                number_of_instances=series.number_of_instances,
            )
            for series in study.series
        ],
    )


def log_to_proto(entry: UploadLogEntry) -> upload_service_pb2.UploadLog:
    """The upload log as a message."""
    log, deletion = entry.log, entry.deletion
    message = upload_service_pb2.UploadLog(
        id=str(log.id),
        patient_id=str(log.patient_id),
        order_id=str(log.order_id or ""),
        study_instance_uid=log.study_instance_uid,
        orthanc_study_id=log.orthanc_study_id,
        number_of_files=log.number_of_files,
        total_size_bytes=log.total_size_bytes,
        original_patient_id=log.original_patient_id,
        original_patient_name=log.original_patient_name,
        original_accession_number=log.original_accession_number,
        original_study_date=log.original_study_date,
        original_modality=log.original_modality,
        modified_patient_id=log.modified_patient_id,
        modified_patient_name=log.modified_patient_name,
        modified_accession_number=log.modified_accession_number,
        tags_modified=log.tags_modified,
        upload_status=log.upload_status.value,
        error_message=log.error_message,
        uploaded_at=timestamp(log.uploaded_at),
        uploaded_by=entry.uploaded_by,
        upload_source=log.upload_source,
        upload_duration_seconds=log.upload_duration_seconds,
        is_deleted=log.is_deleted,
        instances_missing=log.instances_missing,
        instances_unlogged=log.instances_unlogged,
    )
    if deletion is not None and deletion.completed_at is not None:
        message.deleted_at.CopyFrom(timestamp(deletion.completed_at))
        message.deleted_by = entry.deleted_by
        message.deletion_reason = deletion.reason
    return message


def quarantined_to_proto(entry: QuarantineEntry, *, expires_at: datetime) -> quarantine_service_pb2.QuarantinedFile:
    """The file in the quarantine as a message; `expires_at` where nobody decides about it before."""
    file = entry.file
    return quarantine_service_pb2.QuarantinedFile(
        id=str(file.id),
        state=file.state.value,
        reason=file.reason,
        patient_id=str(file.patient_id or ""),
        order_id=str(file.order_id or ""),
        dicom_patient_id=file.original_patient_id,
        patient_name=file.original_patient_name,
        accession_number=file.original_accession_number,
        study_date=file.original_study_date,
        modality=file.original_modality,
        study_instance_uid=file.study_instance_uid,
        series_instance_uid=file.series_instance_uid,
        sop_instance_uid=file.sop_instance_uid,
        filename=file.filename,
        size_bytes=file.source.size_bytes,
        sha256=file.source.sha256,
        uploaded_by=entry.uploaded_by,
        upload_source=file.upload_source,
        quarantined_at=timestamp(file.quarantined_at),
        refused_at=timestamp(file.refused_at),
        refusals=file.refusals,
        expires_at=timestamp(expires_at) if file.is_open else None,
        events=[
            quarantine_service_pb2.QuarantineEvent(
                action=event.action.value, at=timestamp(event.at), by=by, reason=event.reason
            )
            for event, by in entry.events
        ],
    )


def patient_to_proto(patient: Patient) -> registry_service_pb2.Patient:
    """The patient as a message."""
    return registry_service_pb2.Patient(
        id=str(patient.id),
        mrn=patient.mrn,
        full_name=patient.full_name,
        birth_date=patient.birth_date.isoformat() if patient.birth_date else "",
        sex=patient.sex,
        is_provisional=patient.is_provisional,
    )


def order_to_proto(order: Order) -> registry_service_pb2.Order:
    """The order as a message."""
    message = registry_service_pb2.Order(
        id=str(order.id),
        patient_id=str(order.patient_id),
        accession_number=order.accession_number,
        modality=order.modality,
        status=order.status,
    )
    if order.study is not None:
        message.study_instance_uid = order.study.study_instance_uid
        message.orthanc_study_id = order.study.orthanc_study_id
        message.number_of_series = order.study.number_of_series
        message.number_of_images = order.study.number_of_images
        message.study_date = order.study.study_date
        message.study_time = order.study.study_time
    return message


def user_to_proto(user: User) -> registry_service_pb2.User:
    """The user as a message."""
    return registry_service_pb2.User(
        id=str(user.id),
        username=user.username,
        full_name=user.full_name,
        role=user.role.value,
        is_active=user.is_active,
    )


def timestamp(time: datetime) -> Timestamp:
    """The time as a message."""
    message = Timestamp()
    message.FromDatetime(time)
    return message
