"""The one kind of exception that crosses layers, and the reasons it can carry.

ServiceError            something the caller must be told, with a Reason; everything else that escapes is a defect
  InvalidFieldError     INVALID_FIELD with one violation per wrong value

Plain Python: the domain raises these, `service_runtime.status` alone knows what gRPC makes of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

# A message stays short, however many values are wrong.
_MAX_NAMED = 200


class Reason(StrEnum):
    """ris.errors.v1.ErrorReason without its prefix; a test holds the two to each other. The proto explains each."""

    TOKEN_MISSING = "TOKEN_MISSING"  # noqa: S105 - a reason, no secret
    TOKEN_INVALID = "TOKEN_INVALID"  # noqa: S105
    TOKEN_EXPIRED = "TOKEN_EXPIRED"  # noqa: S105
    USER_NOT_ALLOWED = "USER_NOT_ALLOWED"
    ROLE_NOT_ALLOWED = "ROLE_NOT_ALLOWED"

    INVALID_FIELD = "INVALID_FIELD"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
    MULTIPART_INVALID = "MULTIPART_INVALID"
    FILE_FIELD_MISSING = "FILE_FIELD_MISSING"
    FILE_TOO_LARGE = "FILE_TOO_LARGE"
    TOO_MANY_FILES = "TOO_MANY_FILES"
    UPLOAD_TOO_LARGE = "UPLOAD_TOO_LARGE"
    UPLOAD_STALLED = "UPLOAD_STALLED"
    ARCHIVE_INVALID = "ARCHIVE_INVALID"
    ARCHIVE_UNSUPPORTED = "ARCHIVE_UNSUPPORTED"

    EMPTY_FILE = "EMPTY_FILE"
    NOT_DICOM = "NOT_DICOM"
    TRUNCATED_FILE = "TRUNCATED_FILE"
    MALFORMED_DICOM = "MALFORMED_DICOM"
    STRUCTURE_LIMIT = "STRUCTURE_LIMIT"
    CHARSET_CONFLICT = "CHARSET_CONFLICT"
    EDIT_REFUSED = "EDIT_REFUSED"
    DIRECTORY_MISMATCH = "DIRECTORY_MISMATCH"

    PATIENT_NOT_FOUND = "PATIENT_NOT_FOUND"
    ORDER_NOT_FOUND = "ORDER_NOT_FOUND"
    USER_NOT_FOUND = "USER_NOT_FOUND"
    STUDY_NOT_FOUND = "STUDY_NOT_FOUND"
    UPLOAD_LOG_NOT_FOUND = "UPLOAD_LOG_NOT_FOUND"
    THUMBNAIL_NOT_AVAILABLE = "THUMBNAIL_NOT_AVAILABLE"
    QUARANTINED_FILE_NOT_FOUND = "QUARANTINED_FILE_NOT_FOUND"

    PATIENT_MISMATCH = "PATIENT_MISMATCH"
    PATIENT_ID_MISSING = "PATIENT_ID_MISSING"
    PATIENT_UNKNOWN = "PATIENT_UNKNOWN"
    ORDER_PATIENT_MISMATCH = "ORDER_PATIENT_MISMATCH"
    STUDY_PATIENT_MISMATCH = "STUDY_PATIENT_MISMATCH"
    INSTANCE_CONFLICT = "INSTANCE_CONFLICT"
    STUDY_AMBIGUOUS = "STUDY_AMBIGUOUS"
    REGISTRY_CONFLICT = "REGISTRY_CONFLICT"
    TOO_MANY_STUDIES = "TOO_MANY_STUDIES"
    IDENTIFIER_MISSING = "IDENTIFIER_MISSING"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    REQUEST_IN_PROGRESS = "REQUEST_IN_PROGRESS"
    QUARANTINE_OFF = "QUARANTINE_OFF"
    QUARANTINED_FILE_CLOSED = "QUARANTINED_FILE_CLOSED"
    QUARANTINED_FILE_BUSY = "QUARANTINED_FILE_BUSY"

    SESSION_NOT_FOUND = "SESSION_NOT_FOUND"
    SESSION_EXPIRED = "SESSION_EXPIRED"
    SESSION_COMPLETED = "SESSION_COMPLETED"
    SESSION_INCOMPLETE = "SESSION_INCOMPLETE"
    FILE_NOT_EXPECTED = "FILE_NOT_EXPECTED"
    RECEIPTS_NOT_CONFIGURED = "RECEIPTS_NOT_CONFIGURED"

    ORTHANC_UNAVAILABLE = "ORTHANC_UNAVAILABLE"
    ORTHANC_ERROR = "ORTHANC_ERROR"
    STORE_REFUSED = "STORE_REFUSED"
    STORE_UNVERIFIED = "STORE_UNVERIFIED"
    DATABASE_UNAVAILABLE = "DATABASE_UNAVAILABLE"
    TAG_SERVICE_UNAVAILABLE = "TAG_SERVICE_UNAVAILABLE"
    OVERLOADED = "OVERLOADED"
    KEYS_UNAVAILABLE = "KEYS_UNAVAILABLE"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    GATEWAY_UNAVAILABLE = "GATEWAY_UNAVAILABLE"
    QUARANTINE_FULL = "QUARANTINE_FULL"
    QUARANTINE_UNAVAILABLE = "QUARANTINE_UNAVAILABLE"
    QUARANTINED_FILE_LOST = "QUARANTINED_FILE_LOST"


@dataclass(frozen=True, slots=True)
class Violation:
    """One wrong value of a request: where it stands (a JSON field name or DICOM keyword) and what is wrong with it."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class Resource:
    """What was not found: its type (patient, order, study...) and the identifier the caller gave."""

    type: str
    name: str


class ServiceError(Exception):
    """An error that the caller is told.

    `message` says what, where and what to do, and never holds a tag's value, a name or another library's text.
    `metadata` repeats its facts for programs. `retry_after` (seconds) is set where the same call may pass later.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        resource: Resource | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.resource = resource
        self.retry_after = retry_after


class InvalidFieldError(ServiceError):
    """One or more values of the request are wrong; the message names the fields, the violations explain each."""

    def __init__(self, *violations: Violation) -> None:
        named = ", ".join(dict.fromkeys(violation.field for violation in violations))
        if len(named) > _MAX_NAMED:
            named = named[:_MAX_NAMED] + "..."
        super().__init__(
            Reason.INVALID_FIELD, f"Invalid value of {named}: see the field violations.", violations=violations
        )


def not_found(reason: Reason, kind: str, name: str) -> ServiceError:
    """The error for a `kind` that the caller named by `name` and that is not there."""
    return ServiceError(reason, f"No such {kind}.", resource=Resource(kind, name))
