import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2

from ris.errors.v1 import error_reason_pb2
from service_runtime.errors import InvalidFieldError, Reason, Resource, ServiceError, Violation, not_found
from service_runtime.status import CODE_OF, HTTP_STATUS_OF, code_of, error_of, status_of

PREFIX = "ERROR_REASON_"


def facts_of(error: ServiceError) -> tuple[object, ...]:
    """All that an error says."""
    return error.reason, error.message, error.metadata, error.violations, error.resource, error.retry_after


def test_reasons_are_those_of_the_contract() -> None:
    """Reason and ris.errors.v1.ErrorReason have the same values, but for the one that is never sent."""
    names = {name.removeprefix(PREFIX) for name in error_reason_pb2.ErrorReason.keys()}  # noqa: SIM118 - no mapping
    assert names - {"UNSPECIFIED"} == {reason.value for reason in Reason}
    assert all(reason.name == reason.value for reason in Reason)


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_the_code_that_the_contract_says(reason: Reason) -> None:
    """Each reason is sent with a code, and that is the one that code_of gives."""
    code = CODE_OF[reason]
    assert code is not grpc.StatusCode.OK
    assert code_pb2.Code.Name(code_of(ServiceError(reason, ""))) == code.name


def test_no_reason_stands_in_the_table_twice() -> None:
    """The table gives each reason one code, and HTTP statuses only to reasons that there are."""
    assert set(CODE_OF) == set(Reason)
    assert set(HTTP_STATUS_OF) <= set(Reason)


ERRORS = [
    ServiceError(Reason.NOT_DICOM, "No."),
    ServiceError(Reason.FILE_TOO_LARGE, "Too large.", metadata={"limit": "X", "limit_bytes": "5"}),
    ServiceError(Reason.ORTHANC_UNAVAILABLE, "Away. Retry.", retry_after=2.5),
    InvalidFieldError(Violation("patient_id", "not a UUID"), Violation("set[0]", "no such keyword")),
    not_found(Reason.STUDY_NOT_FOUND, "study", "1.2.3"),
    ServiceError(
        Reason.EDIT_REFUSED,
        "All at once: äöü.",
        metadata={"a": "b"},
        violations=[Violation("x", "y")],
        resource=Resource("a", "b"),
        retry_after=0.001,
    ),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.reason.value)
def test_error_survives_the_way_over_the_wire(error: ServiceError) -> None:
    """What one service raises, the service that called it can raise again with nothing lost."""
    wire = status_of(error, request_id="r1").SerializeToString()
    again = error_of(status_pb2.Status.FromString(wire))
    assert again is not None
    assert facts_of(again) == facts_of(error)


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_survives_the_way_over_the_wire(reason: Reason) -> None:
    """The same holds for each reason."""
    again = error_of(status_of(ServiceError(reason, "m"), request_id=""))
    assert again is not None
    assert again.reason is reason


def test_request_id_is_in_the_metadata_of_the_error_info() -> None:
    """ErrorInfo names the request, beside the error's own facts."""
    info = error_details_pb2.ErrorInfo()
    assert status_of(ERRORS[1], request_id="r1").details[0].Unpack(info)
    assert dict(info.metadata) == {"limit": "X", "limit_bytes": "5", "request_id": "r1"}
    assert info.domain == "ris.dicom-gateway"


def test_status_of_others_is_not_ours() -> None:
    """A status without our ErrorInfo, or with an unknown reason, is no ServiceError."""
    assert error_of(status_pb2.Status(code=5, message="x")) is None
    for domain, reason in (("other.example", "NOT_DICOM"), ("ris.dicom-gateway", "NEVER_HEARD_OF")):
        status = status_pb2.Status(code=5)
        status.details.add().Pack(error_details_pb2.ErrorInfo(domain=domain, reason=reason))
        assert error_of(status) is None


@pytest.mark.parametrize("char", ["x", "é", "中"])
def test_status_stays_small(char: str) -> None:
    """However much is wrong, message and details fit into headers of 8 KiB, encoded as they travel, in any script."""
    violations = [Violation(char * 500, char * 2000) for _ in range(500)]
    error = InvalidFieldError(*violations)
    error.resource = Resource("study", char * 5000)
    status = status_of(error, request_id="r" * 64)
    in_base64 = len(status.SerializeToString()) * 4 / 3
    in_percent = sum(1 if byte < 0x7F else 3 for byte in status.message.encode())
    assert in_base64 + in_percent < 7 * 1024
    again = error_of(status)
    assert again is not None
    assert again.violations


def test_invalid_fields_are_each_named_once_and_not_all_of_very_many() -> None:
    """The message names the wrong fields, once each, and stays one line."""
    assert str(InvalidFieldError(Violation("a", "x"), Violation("b", "y"), Violation("a", "z"))).count("a,") == 1
    many = InvalidFieldError(*(Violation(f"field{number}", "x") for number in range(1000)))
    assert "field0, field1, " in many.message
    assert len(many.message) < 300
