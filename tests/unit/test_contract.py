"""The protos against what is promised of them: JSON names, HTTP routes, error reasons."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.api import annotations_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor, MethodDescriptor
from pydicom.datadict import tag_for_keyword

from ris.errors.v1 import error_reason_pb2
from ris.pacs.v1 import (
    health_service_pb2,
    quarantine_service_pb2,
    registry_service_pb2,
    study_service_pb2,
    upload_service_pb2,
    upload_session_pb2,
)
from ris.tags.v1 import dicom_tags_pb2, tag_service_pb2
from service_runtime.errors import Reason
from service_runtime.status import CODE_OF, HTTP_STATUS_OF

PROTOS = Path(__file__).resolve().parents[2] / "protos"
FILES: list[FileDescriptor] = [
    module.DESCRIPTOR
    for module in (
        error_reason_pb2,
        health_service_pb2,
        quarantine_service_pb2,
        registry_service_pb2,
        study_service_pb2,
        upload_service_pb2,
        upload_session_pb2,
        dicom_tags_pb2,
        tag_service_pb2,
    )
]
# Named like DICOM attributes, and none: what Orthanc calls things, and counts that DICOM has under longer names.
NO_KEYWORDS = {"OrthancStudyID", "OrthancSeriesID", "NumberOfSeries", "NumberOfInstances"}

READ_TAGS = (
    "PatientID PatientName PatientBirthDate PatientSex PatientAge StudyInstanceUID StudyDate StudyTime "
    "StudyDescription AccessionNumber SeriesInstanceUID SeriesNumber SeriesDescription Modality SOPInstanceUID "
    "InstanceNumber InstitutionName InstitutionAddress ReferringPhysicianName PerformingPhysicianName"
)
UPLOAD = "success orthanc_id study_uid tags message filename sop_instance_uid status error"
STUDY = (
    "StudyInstanceUID OrthancStudyID PatientID PatientName StudyDate StudyTime StudyDescription AccessionNumber "
    "Modality ModalitiesInStudy NumberOfSeries NumberOfInstances patient_id patient_full_name order_id order_status"
)
UPLOAD_LOG = (
    "id patient_id order_id study_instance_uid orthanc_study_id number_of_files total_size_bytes original_patient_id "
    "original_patient_name original_accession_number original_study_date original_modality modified_patient_id "
    "modified_patient_name modified_accession_number tags_modified upload_status error_message uploaded_at "
    "uploaded_by upload_source upload_duration_seconds"
)
EDITS = (
    "PatientID PatientName PatientBirthDate PatientSex AccessionNumber StudyDate StudyDescription "
    "remove_private_tags set remove"
)
UPLOAD_OPTIONS = f"patient_id order_id upload_source patient_match {EDITS} on_conflict"

# As google/rpc/code.proto has it, and Envoy does it.
HTTP_OF_CODE = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "DATA_LOSS": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}

# rpc: verb, path, body, response body, whether requests and responses are streams.
DICOM = "/api/v1/dicom"
REGISTRY = "/api/v1/registry"
ROUTES = {
    "ris.pacs.v1.UploadService.Upload": ("post", f"{DICOM}/upload", "file", "", True, False),
    "ris.pacs.v1.UploadService.UploadMultiple": ("post", f"{DICOM}/upload-multiple", "file", "", True, True),
    "ris.pacs.v1.UploadService.Preflight": ("post", f"{DICOM}/preflight", "file", "", True, True),
    "ris.pacs.v1.UploadService.CreateSession": ("post", f"{DICOM}/upload-sessions", "*", "", False, False),
    "ris.pacs.v1.UploadService.GetSession": (
        *("get", f"{DICOM}/upload-sessions/{{session_id}}", "", "", False, False),
    ),
    "ris.pacs.v1.UploadService.CompleteSession": (
        *("post", f"{DICOM}/upload-sessions/{{session_id}}:complete", "", "", False, False),
    ),
    "ris.pacs.v1.UploadService.GetReceiptKeys": ("get", f"{DICOM}/receipt-keys", "", "jwks", False, False),
    "ris.pacs.v1.UploadService.ListUploadLogs": ("get", f"{DICOM}/upload-logs", "", "", False, False),
    "ris.pacs.v1.UploadService.GetUploadLog": ("get", f"{DICOM}/upload-logs/{{id}}", "", "", False, False),
    "ris.tags.v1.TagService.ReadTags": ("post", f"{DICOM}/read-tags", "file", "", True, False),
    "ris.tags.v1.TagService.ReadAllTags": ("post", f"{DICOM}/read-all-tags", "file", "dicom_json", True, False),
    "ris.tags.v1.TagService.ModifyTags": ("post", f"{DICOM}/modify-tags", "file", "file", True, True),
    "ris.tags.v1.TagService.DeidentifyFile": ("post", f"{DICOM}/deidentify", "file", "file", True, True),
    "ris.tags.v1.TagService.ValidateFile": ("post", f"{DICOM}/validate", "file", "", True, False),
    "ris.pacs.v1.StudyService.ListStudies": ("get", f"{DICOM}/studies", "", "", False, False),
    "ris.pacs.v1.StudyService.GetStudy": ("get", f"{DICOM}/studies/{{study_uid}}", "", "", False, False),
    "ris.pacs.v1.StudyService.ListPatientStudies": (
        *("get", f"{DICOM}/studies/patient/{{patient_id}}", "", "", False, False),
    ),
    "ris.pacs.v1.StudyService.GetStudyByAccession": (
        *("get", f"{DICOM}/studies/accession/{{accession_number}}", "", "", False, False),
    ),
    "ris.pacs.v1.StudyService.DeleteStudy": ("delete", f"{DICOM}/studies/{{study_uid}}", "", "", False, False),
    "ris.pacs.v1.StudyService.GetThumbnail": ("get", f"{DICOM}/thumbnail/{{study_uid}}", "", "image", False, False),
    "ris.pacs.v1.QuarantineService.ListQuarantinedFiles": ("get", f"{DICOM}/quarantine", "", "", False, False),
    "ris.pacs.v1.QuarantineService.GetQuarantinedFile": ("get", f"{DICOM}/quarantine/{{id}}", "", "", False, False),
    "ris.pacs.v1.QuarantineService.RetryQuarantinedFile": (
        *("post", f"{DICOM}/quarantine/{{id}}:retry", "", "", False, False),
    ),
    "ris.pacs.v1.QuarantineService.DiscardQuarantinedFile": (
        *("delete", f"{DICOM}/quarantine/{{id}}", "", "", False, False),
    ),
    "ris.pacs.v1.HealthService.CheckHealth": ("get", f"{DICOM}/health", "", "", False, False),
    "ris.pacs.v1.RegistryService.UpsertPatients": ("put", f"{REGISTRY}/patients", "*", "", False, False),
    "ris.pacs.v1.RegistryService.GetPatient": ("get", f"{REGISTRY}/patients/{{id}}", "", "", False, False),
    "ris.pacs.v1.RegistryService.ListPatients": ("get", f"{REGISTRY}/patients", "", "", False, False),
    "ris.pacs.v1.RegistryService.UpsertOrders": ("put", f"{REGISTRY}/orders", "*", "", False, False),
    "ris.pacs.v1.RegistryService.GetOrder": ("get", f"{REGISTRY}/orders/{{id}}", "", "", False, False),
    "ris.pacs.v1.RegistryService.ListOrders": ("get", f"{REGISTRY}/orders", "", "", False, False),
    "ris.pacs.v1.RegistryService.UpsertUsers": ("put", f"{REGISTRY}/users", "*", "", False, False),
    "ris.pacs.v1.RegistryService.GetUser": ("get", f"{REGISTRY}/users/{{id}}", "", "", False, False),
    "ris.pacs.v1.RegistryService.ListUsers": ("get", f"{REGISTRY}/users", "", "", False, False),
}

# What only the gateway asks for, and no client over HTTP.
GRPC_ONLY = {"ris.tags.v1.TagService.ModifyHeader"}


def messages() -> Iterator[Descriptor]:
    """Every message, nested ones too, but for the entries of maps, whose names protobuf makes."""
    waiting = [message for file in FILES for message in file.message_types_by_name.values()]
    while waiting:
        message = waiting.pop()
        waiting.extend(message.nested_types)
        if not message.GetOptions().map_entry:
            yield message


def fields() -> Iterator[FieldDescriptor]:
    """Every field of every message."""
    return (field for message in messages() for field in message.fields)


def methods() -> list[MethodDescriptor]:
    """Every rpc."""
    services = [service for file in FILES for service in file.services_by_name.values()]
    return [method for service in services for method in service.methods]


def names_of(message: Descriptor) -> list[str]:
    """The JSON names of a message, in order of the fields."""
    return [field.json_name for field in message.fields]


def test_all_protos_are_looked_at() -> None:
    """No proto file of ours escapes these tests."""
    assert {file.name for file in FILES} == {str(path.relative_to(PROTOS)) for path in PROTOS.glob("ris/**/*.proto")}


@pytest.mark.parametrize("field", list(fields()), ids=lambda field: field.full_name)
def test_json_name_is_a_dicom_keyword_or_snake_case(field: FieldDescriptor) -> None:
    """A field's JSON name is the keyword of its DICOM attribute, where it is one, and else the field's own name."""
    name = field.json_name
    if name[0].isupper():
        assert name in NO_KEYWORDS or tag_for_keyword(name) is not None
        # The two say the same: study_instance_uid is StudyInstanceUID. PatientID has a prefix beside the RIS's id.
        assert field.name.removeprefix("dicom_").replace("_", "") == name.lower()
    else:
        assert name == field.name
        assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (dicom_tags_pb2.DicomTags, READ_TAGS),
        (upload_service_pb2.UploadResponse, UPLOAD),
        (upload_service_pb2.UploadMultipleResponse, UPLOAD),
        (upload_service_pb2.UploadLog, UPLOAD_LOG),
        (upload_service_pb2.UploadRequest, UPLOAD_OPTIONS),
        (upload_service_pb2.UploadMultipleRequest, UPLOAD_OPTIONS),
        (upload_service_pb2.PreflightRequest, UPLOAD_OPTIONS),
        (quarantine_service_pb2.RetryQuarantinedFileRequest, UPLOAD_OPTIONS),
        (tag_service_pb2.ModifyTagsRequest, EDITS),
        (study_service_pb2.Study, STUDY),
        (study_service_pb2.ListStudiesResponse, "studies next_page_token total_size"),
        (study_service_pb2.ListPatientStudiesResponse, "studies next_page_token total_size"),
        (study_service_pb2.DeleteStudyResponse, "message reason"),
        (health_service_pb2.CheckHealthResponse, "status message"),
    ],
    ids=lambda value: value.DESCRIPTOR.name if hasattr(value, "DESCRIPTOR") else "",
)
def test_message_has_the_names_that_clients_count_on(message: type, expected: str) -> None:
    """The documented names are there, in their order; others may stand behind them."""
    names = names_of(message.DESCRIPTOR)  # type: ignore[attr-defined]
    assert [name for name in names if name in expected.split()] == expected.split()


def test_edits_are_the_same_wherever_they_can_be_asked_for() -> None:
    """ModifyTags, both uploads and a retry take the same edits: names, types and presence."""

    def edits_of(message: Descriptor) -> list[tuple[object, ...]]:
        wanted = (*EDITS.split(), "force")
        return [(f.json_name, f.type, f.is_repeated, f.has_presence) for f in message.fields if f.json_name in wanted]

    expected = edits_of(tag_service_pb2.ModifyTagsRequest.DESCRIPTOR)
    assert len(expected) == len(EDITS.split()) + 1
    assert edits_of(upload_service_pb2.UploadRequest.DESCRIPTOR) == expected
    assert edits_of(upload_service_pb2.UploadMultipleRequest.DESCRIPTOR) == expected
    assert edits_of(quarantine_service_pb2.RetryQuarantinedFileRequest.DESCRIPTOR) == expected


def test_preflight_takes_the_request_of_the_upload() -> None:
    """Every option of UploadMultiple can be sent to Preflight, in the same field."""

    def fields_of(message: Descriptor) -> list[tuple[object, ...]]:
        return [(f.number, f.json_name, f.type, f.is_repeated, f.has_presence) for f in message.fields]

    expected = fields_of(upload_service_pb2.UploadMultipleRequest.DESCRIPTOR)
    assert fields_of(upload_service_pb2.PreflightRequest.DESCRIPTOR) == expected


def test_every_rpc_has_its_route_and_every_route_its_rpc() -> None:
    """The rpcs are those of the table, each with its verb, path, bodies and streams, and no other binding."""
    found = {}
    for method in methods():
        if method.full_name in GRPC_ONLY:
            assert not method.GetOptions().HasExtension(annotations_pb2.http)
            continue
        rule = method.GetOptions().Extensions[annotations_pb2.http]
        assert not rule.additional_bindings
        verb = rule.WhichOneof("pattern")
        streams = (method.client_streaming, method.server_streaming)
        found[method.full_name] = (verb, getattr(rule, verb), rule.body, rule.response_body, *streams)
    assert found == ROUTES


@pytest.mark.parametrize("method", [m for m in methods() if m.full_name not in GRPC_ONLY], ids=lambda m: m.full_name)
def test_route_names_fields_that_there_are(method: MethodDescriptor) -> None:
    """What the path, the body and the response body name are fields of the messages; of a stream, an HttpBody."""
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    path = getattr(rule, rule.WhichOneof("pattern"))
    request, response = method.input_type.fields_by_name, method.output_type.fields_by_name
    assert set(re.findall(r"{(\w+)}", path)) <= set(request)
    for name, fields_of in ((rule.body, request), (rule.response_body, response)):
        if name not in {"", "*"}:
            assert fields_of[name].message_type.full_name == "google.api.HttpBody"


def reasons() -> EnumDescriptor:
    """The enum of error reasons."""
    return error_reason_pb2.DESCRIPTOR.enum_types_by_name["ErrorReason"]


def comments() -> dict[str, str]:
    """The comment above each value, from the source: generated code carries none."""
    source = (PROTOS / error_reason_pb2.DESCRIPTOR.name).read_text()
    found = re.findall(r"((?:^ *//.*\n)+) *(ERROR_REASON_\w+) = \d+;", source, re.MULTILINE)
    return {
        name: " ".join(line.strip().removeprefix("//").strip() for line in text.splitlines()) for text, name in found
    }


@pytest.mark.parametrize("value", [value.name for value in reasons().values if value.number], ids=str)
def test_every_error_reason_is_explained_with_its_statuses_and_an_example(value: str) -> None:
    """The comment of a reason opens with the statuses that it really comes with, and gives an example."""
    reason = Reason(value.removeprefix("ERROR_REASON_"))
    code = CODE_OF[reason].name
    status = HTTP_STATUS_OF.get(reason, HTTP_OF_CODE[code])
    assert comments()[value].startswith(f"{code} (HTTP {status}). ")
    assert re.search(r"Example: \S.{5,}\.", comments()[value])
