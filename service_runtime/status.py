"""What gRPC and HTTP make of an error: the one table from reasons to statuses, and the google.rpc.Status of it."""

from collections.abc import Sequence

from google.protobuf import any_pb2, duration_pb2, message
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from service_runtime.errors import Reason, Resource, ServiceError, Violation

ERROR_DOMAIN = "ris.dicom-gateway"
STATUS_DETAILS_KEY = "grpc-status-details-bin"
# Envoy turns this metadata into the HTTP status of a JSON answer where gRPC's own mapping has no word for it.
HTTP_STATUS_KEY = "x-http-status"
# The delay of RetryInfo once more, in whole seconds: Envoy makes a header of HTTP answers of it (RFC 9110, 10.2.3).
RETRY_AFTER_KEY = "retry-after"
# A status travels as headers, which peers limit to 8 KiB in all; its details in base64, which makes 4 of 3 bytes, and
# its message a second time by itself. What does not fit is cut, violations from the end of the list.
_MAX_VIOLATIONS_BYTES = 2048
_MAX_MESSAGE = 400
_MAX_DESCRIPTION = 200
_MAX_NAME = 128

_CODES: dict[StatusCode, tuple[Reason, ...]] = {
    StatusCode.UNAUTHENTICATED: (Reason.TOKEN_MISSING, Reason.TOKEN_INVALID, Reason.TOKEN_EXPIRED),
    StatusCode.PERMISSION_DENIED: (Reason.USER_NOT_ALLOWED, Reason.ROLE_NOT_ALLOWED),
    StatusCode.INVALID_ARGUMENT: (
        Reason.INVALID_FIELD,
        Reason.UNSUPPORTED_MEDIA_TYPE,
        Reason.MULTIPART_INVALID,
        Reason.FILE_FIELD_MISSING,
        Reason.ARCHIVE_INVALID,
        Reason.ARCHIVE_UNSUPPORTED,
        Reason.EMPTY_FILE,
        Reason.NOT_DICOM,
        Reason.TRUNCATED_FILE,
        Reason.MALFORMED_DICOM,
        Reason.STRUCTURE_LIMIT,
        Reason.CHARSET_CONFLICT,
        Reason.IDENTIFIER_MISSING,
        Reason.STORE_REFUSED,
    ),
    StatusCode.RESOURCE_EXHAUSTED: (
        Reason.FILE_TOO_LARGE,
        Reason.TOO_MANY_FILES,
        Reason.UPLOAD_TOO_LARGE,
        Reason.TOO_MANY_STUDIES,
        Reason.OVERLOADED,
        Reason.QUARANTINE_FULL,
    ),
    StatusCode.DEADLINE_EXCEEDED: (Reason.UPLOAD_STALLED,),
    StatusCode.NOT_FOUND: (
        Reason.PATIENT_NOT_FOUND,
        Reason.ORDER_NOT_FOUND,
        Reason.USER_NOT_FOUND,
        Reason.STUDY_NOT_FOUND,
        Reason.UPLOAD_LOG_NOT_FOUND,
        Reason.THUMBNAIL_NOT_AVAILABLE,
        Reason.SESSION_NOT_FOUND,
        Reason.QUARANTINED_FILE_NOT_FOUND,
    ),
    StatusCode.FAILED_PRECONDITION: (
        Reason.EDIT_REFUSED,
        Reason.DIRECTORY_MISMATCH,
        Reason.PATIENT_MISMATCH,
        Reason.PATIENT_ID_MISSING,
        Reason.PATIENT_UNKNOWN,
        Reason.ORDER_PATIENT_MISMATCH,
        Reason.STUDY_PATIENT_MISMATCH,
        Reason.STUDY_AMBIGUOUS,
        Reason.SESSION_EXPIRED,
        Reason.SESSION_COMPLETED,
        Reason.SESSION_INCOMPLETE,
        Reason.FILE_NOT_EXPECTED,
        Reason.RECEIPTS_NOT_CONFIGURED,
        Reason.QUARANTINE_OFF,
        Reason.QUARANTINED_FILE_CLOSED,
    ),
    StatusCode.ALREADY_EXISTS: (Reason.INSTANCE_CONFLICT, Reason.REGISTRY_CONFLICT, Reason.REQUEST_ID_REUSED),
    StatusCode.ABORTED: (Reason.REQUEST_IN_PROGRESS, Reason.QUARANTINED_FILE_BUSY),
    StatusCode.DATA_LOSS: (Reason.STORE_UNVERIFIED, Reason.QUARANTINED_FILE_LOST),
    StatusCode.UNAVAILABLE: (
        Reason.ORTHANC_UNAVAILABLE,
        Reason.DATABASE_UNAVAILABLE,
        Reason.TAG_SERVICE_UNAVAILABLE,
        Reason.KEYS_UNAVAILABLE,
        Reason.GATEWAY_UNAVAILABLE,
        Reason.QUARANTINE_UNAVAILABLE,
    ),
    StatusCode.INTERNAL: (Reason.ORTHANC_ERROR, Reason.INTERNAL_ERROR),
}
CODE_OF: dict[Reason, StatusCode] = {reason: code for code, reasons in _CODES.items() for reason in reasons}
HTTP_STATUS_OF: dict[Reason, int] = {
    Reason.FILE_TOO_LARGE: 413,
    Reason.TOO_MANY_FILES: 413,
    Reason.UPLOAD_TOO_LARGE: 413,
    Reason.UNSUPPORTED_MEDIA_TYPE: 415,
}


def code_of(error: ServiceError) -> int:
    """The google.rpc.Code of the error, as a number."""
    number: int = CODE_OF[error.reason].value[0]
    return number


def status_of(error: ServiceError, *, request_id: str) -> status_pb2.Status:
    """The error as a google.rpc.Status (AIP-193), with the request id in the metadata of its ErrorInfo."""
    details: list[message.Message] = [
        error_details_pb2.ErrorInfo(
            reason=error.reason, domain=ERROR_DOMAIN, metadata=error.metadata | {"request_id": request_id}
        )
    ]
    if error.violations:
        details.append(_bad_request(error.violations))
    if error.resource is not None:
        details.append(
            error_details_pb2.ResourceInfo(
                resource_type=error.resource.type, resource_name=error.resource.name[:_MAX_NAME]
            )
        )
    if error.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(error.retry_after * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=code_of(error), message=error.message[:_MAX_MESSAGE])
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _bad_request(violations: Sequence[Violation]) -> error_details_pb2.BadRequest:
    bad_request = error_details_pb2.BadRequest()
    for violation in violations:
        one = bad_request.field_violations.add(
            field=violation.field[:_MAX_NAME], description=violation.description[:_MAX_DESCRIPTION]
        )
        if bad_request.ByteSize() > _MAX_VIOLATIONS_BYTES:
            bad_request.field_violations.remove(one)
            break
    return bad_request


def error_of(status: status_pb2.Status) -> ServiceError | None:
    """The ServiceError that a status of one of our services came from; None when it is not one of ours."""
    reason: Reason | None = None
    metadata: dict[str, str] = {}
    violations: list[error_details_pb2.BadRequest.FieldViolation] = []
    resource: Resource | None = None
    retry_after: float | None = None
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        bad_request = error_details_pb2.BadRequest()
        named = error_details_pb2.ResourceInfo()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(info) and info.domain == ERROR_DOMAIN and info.reason in Reason.__members__:
            reason, metadata = Reason(info.reason), dict(info.metadata)
        elif detail.Unpack(bad_request):
            violations.extend(bad_request.field_violations)
        elif detail.Unpack(named):
            resource = Resource(named.resource_type, named.resource_name)
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToMilliseconds() / 1000
    if reason is None:
        return None
    metadata.pop("request_id", None)
    return ServiceError(
        reason,
        status.message,
        metadata=metadata,
        violations=[Violation(violation.field, violation.description) for violation in violations],
        resource=resource,
        retry_after=retry_after,
    )
