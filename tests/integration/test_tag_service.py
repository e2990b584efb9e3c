"""tag_service as a process of its own, over gRPC."""

import asyncio
import io
import json
import warnings
from pathlib import Path

import grpc
import pydicom
import pydicom.data
import pytest
from google.api import httpbody_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from deploy.local.stack import Stack
from ris.tags.v1 import tag_service_pb2, tag_service_pb2_grpc
from service_runtime.errors import Reason
from service_runtime.status import error_of

MIB = 1024 * 1024
PIECE = 3 * MIB
CT = (Path(pydicom.data.__file__).parent / "test_files" / "CT_small.dcm").read_bytes()
DEADLINE = 20
KEY = "the service's own key, of more than thirty-two characters"
# What Envoy adds to a call that it makes out of an HTTP request.
BY_HTTP = ("x-envoy-original-path", "/api/v1/dicom/modify-tags")
REQUESTS = {
    "ReadTags": tag_service_pb2.ReadTagsRequest,
    "ReadAllTags": tag_service_pb2.ReadAllTagsRequest,
    "ModifyTags": tag_service_pb2.ModifyTagsRequest,
    "DeidentifyFile": tag_service_pb2.DeidentifyFileRequest,
    "ValidateFile": tag_service_pb2.ValidateFileRequest,
}
assert error_details_pb2  # unpacking an Any needs its type to be imported


@pytest.fixture(scope="module")
async def stack(tmp_path_factory):
    """tag_service alone, with small limits."""
    settings = {
        "MAX_DICOM_FILE_SIZE_MB": "2",
        "MAX_FILES_IN_MEMORY": "1",
        "MEMORY_WAIT_SECONDS": "1",
        "UPLOAD_IDLE_SECONDS": "3",
        "DEIDENTIFY_KEY": KEY,
    }
    folder = Path(tmp_path_factory.mktemp("tag_service"))
    async with Stack(folder, parts=("tag_service",), settings={"tag_service": settings}) as running:
        yield running


@pytest.fixture(scope="module")
async def channel(stack):
    """A connection to it."""
    async with grpc.aio.insecure_channel(stack.tag_service_target) as opened:
        yield opened


@pytest.fixture
def call(stack, channel):
    """Calls a method with a file, cut into pieces; gives the call."""
    stub = tag_service_pb2_grpc.TagServiceStub(channel)

    def begin(method, data, *, content_type="", size=PIECE, token=None, headers=(), **options):
        # Files come whole in the first message where the answer may come early: grpc.aio loses the status of a call
        # that ends while a further message is being written (grpc/grpc#36066).
        pieces = [data[start : start + size] for start in range(0, len(data), size)] or [b""]
        first, *rest = (httpbody_pb2.HttpBody(data=piece) for piece in pieces)
        first.content_type = content_type

        async def requests():
            yield request(file=first, **options)
            for file in rest:
                yield request(file=file)

        request = REQUESTS[method]
        bearer = stack.token() if token is None else token
        metadata = (("authorization", f"Bearer {bearer}"),) if bearer else ()
        return getattr(stub, method)(requests(), metadata=(*metadata, *headers), timeout=DEADLINE)

    return begin


async def whole(call):
    """The file that a call to ModifyTags gives back."""
    return b"".join([message.file.data async for message in call])


async def refusal(call):
    """The error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await (whole(call) if hasattr(call, "read") else call)
    details = dict(raised.value.trailing_metadata())[rpc_status.GRPC_DETAILS_METADATA_KEY]
    error = error_of(status_pb2.Status.FromString(details))
    assert error is not None
    return error


def form(data, *, field="file", boundary="BOUNDARY"):
    """The body and content type of a form with one file."""
    disposition = f'Content-Disposition: form-data; name="{field}"; filename="Schädel 1.dcm"'
    head = f"--{boundary}\r\n{disposition}\r\nContent-Type: application/dicom\r\n\r\n"
    return head.encode() + data + f"\r\n--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def read(data):
    """What pydicom reads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(io.BytesIO(data))


async def test_tags_are_read_from_a_raw_file_and_from_a_form(call):
    """A file sent as it is and one sent as a form give the same 20 attributes."""
    raw = await call("ReadTags", CT)
    body, content_type = form(CT)
    assert await call("ReadTags", body, content_type=content_type) == raw
    assert (raw.tags.dicom_patient_id, raw.tags.modality) == ("1CT1", "CT")
    assert raw.tags.study_instance_uid == read(CT).StudyInstanceUID
    assert not raw.warnings


async def test_chosen_tags_are_read_in_the_order_asked(call):
    """Paths of every kind are answered beside the 20 attributes; wrong ones are refused one by one."""
    asked = [
        "Rows",
        "(0002,0010)",
        '(0009,"GEMS_IDEN_01",02)',
        "PixelData",
        "OtherPatientIDsSequence[1].PatientID",
        "StudyID",
    ]
    answer = await call("ReadTags", CT, tags=asked)
    found = [(found.path, found.tag, found.vr, found.value, found.size_bytes) for found in answer.attributes]
    assert found == [
        ("Rows", "(0028,0010)", "US", "128", 0),
        ("(0002,0010)", "(0002,0010)", "UI", "1.2.840.10008.1.2.1", 0),
        ('(0009,"GEMS_IDEN_01",02)', "(0009,1002)", "SH", "CT01", 0),
        ("PixelData", "(7FE0,0010)", "OW", "", 128 * 128 * 2),
        ("OtherPatientIDsSequence[1].PatientID", "(0010,0020)", "LO", "1234ABCD", 0),
        ("StudyID", "(0020,0010)", "SH", "1CT1", 0),
    ]
    assert answer.tags.dicom_patient_id == "1CT1"
    error = await refusal(call("ReadTags", CT, tags=["Rows", "Nonsense", "(FFFE,E000)"]))
    assert error.reason is Reason.INVALID_FIELD
    assert [violation.field for violation in error.violations] == ["tags[1]", "tags[2]"]


async def test_tags_are_answered_before_the_pixel_data_comes(stack, channel):
    """The answer comes while the client still holds the pixel data back."""
    stub = tag_service_pb2_grpc.TagServiceStub(channel)
    started = stub.ReadTags(metadata=(("authorization", f"Bearer {stack.token()}"),), timeout=DEADLINE)
    await started.write(tag_service_pb2.ReadTagsRequest(file=httpbody_pb2.HttpBody(data=CT[:7000])))
    async with asyncio.timeout(2):
        assert (await started).tags.dicom_patient_id == "1CT1"


async def test_all_tags_come_as_dicom_json(call):
    """The answer is DICOM JSON, says so, and leaves the pixels out."""
    answer = (await call("ReadAllTags", CT, size=999)).dicom_json
    attributes = json.loads(answer.data)
    assert answer.content_type == "application/dicom+json"
    assert attributes["00100010"]["Value"] == [{"Alphabetic": "CompressedSamples^CT1"}]
    pixels = CT.index(b"\xe0\x7f\x10\0OW") + 12
    assert attributes["7FE00010"] == {"vr": "OW", "BulkDataURI": f"?offset={pixels}&length={128 * 128 * 2}"}


async def test_an_edited_file_comes_back(call):
    """What was asked for is changed, the pixels are not; the name comes before the file, the size after it."""
    body, content_type = form(CT)
    modify = call(
        "ModifyTags",
        body,
        content_type=content_type,
        size=5000,
        dicom_patient_id="MRN9",
        study_description="",
        remove_private_tags=True,
        set=["StudyID=S7"],
        remove=["StudyTime"],
    )
    metadata = dict(await modify.initial_metadata())
    data = await whole(modify)
    edited, original = read(data), read(CT)
    assert (edited.PatientID, edited.StudyDescription, edited.StudyID) == ("MRN9", "", "S7")
    assert "StudyTime" not in edited
    assert not any(element.tag.is_private for element in edited)
    assert edited.PixelData == original.PixelData
    assert metadata["content-disposition"].startswith(
        "attachment; filename=\"Sch_del 1.dcm\"; filename*=UTF-8''Sch%C3%A4"
    )
    assert dict(await modify.trailing_metadata())["x-file-size"] == str(len(data))


async def test_each_wrong_edit_is_told(call):
    """Every wrong value has its violation, and nothing of the file comes back."""
    error = await refusal(call("ModifyTags", CT, study_date="yesterday", set=["StudyID=7", "Nonsense=1"]))
    assert error.reason is Reason.INVALID_FIELD
    assert [violation.field for violation in error.violations] == ["StudyDate", "set[1]"]
    assert "yesterday" not in error.message + error.violations[0].description


async def test_an_identifier_cannot_be_edited_away(call):
    """Removing the study's UID is refused."""
    assert (await refusal(call("ModifyTags", CT, remove=["StudyInstanceUID"]))).reason is Reason.EDIT_REFUSED


async def test_a_file_is_checked(call):
    """A right file, a broken one and a text file are answers of ValidateFile."""
    right, broken = await call("ValidateFile", CT), await call("ValidateFile", CT[:20_000])
    text = await call("ValidateFile", b"Dear colleague, " * 100)
    assert (right.is_dicom, right.is_valid, right.size_bytes, len(right.problems)) == (True, True, len(CT), 0)
    assert (broken.is_dicom, broken.is_valid, broken.problems[-1].code) == (True, False, "TRUNCATED_FILE")
    assert (text.is_dicom, text.is_valid, text.problems[-1].code) == (False, False, "NOT_DICOM")


async def test_a_deidentified_file_comes_back(call):
    """What identifies is gone, the pixels are not; what is out of reach and whose key it was comes before the file,
    which is named after nobody.
    """
    body, content_type = form(CT)
    deidentify = call("DeidentifyFile", body, content_type=content_type, size=5000, dates="SHIFT", retain_uids=True)
    metadata = dict(await deidentify.initial_metadata())
    data = await whole(deidentify)
    after, before = read(data), read(CT)
    assert after.PatientName == after.PatientID != before.PatientID
    assert after.StudyInstanceUID == before.StudyInstanceUID
    assert after.StudyDate < before.StudyDate
    assert after.PixelData == before.PixelData
    assert metadata["x-deidentify-key-source"] == "setting"
    assert metadata["x-deidentify-may-show-patient"] == "true"
    assert metadata["x-deidentify-doubts"] == "BURNED_IN_ANNOTATION_UNKNOWN,FACE"
    assert (metadata["x-deidentify-modality"], metadata["x-deidentify-burned-in-annotation"]) == ("CT", "")
    assert metadata["content-disposition"].startswith('attachment; filename="deidentified.dcm"')
    assert dict(await deidentify.trailing_metadata())["x-file-size"] == str(len(data))


async def test_the_callers_key_comes_first(call):
    """A key in the metadata makes other pseudonyms than the service's, the same each time; a wrong one is refused."""
    headers = (("x-deidentify-key", "the caller's key, of more than thirty-two characters"),)
    own, again = [await whole(call("DeidentifyFile", CT, headers=headers)) for _ in range(2)]
    assert own == again
    assert read(own).PatientID != read(await whole(call("DeidentifyFile", CT))).PatientID
    error = await refusal(call("DeidentifyFile", CT, headers=(("x-deidentify-key", "short"),)))
    assert error.reason is Reason.INVALID_FIELD
    assert [violation.field for violation in error.violations] == ["x-deidentify-key"]
    assert "short" not in error.message + error.violations[0].description


async def test_a_wrong_option_is_told(call):
    """What becomes of dates is one of three."""
    error = await refusal(call("DeidentifyFile", CT, dates="FORGET"))
    assert [violation.field for violation in error.violations] == ["dates"]


@pytest.mark.parametrize("method", ["ReadTags", "ReadAllTags", "ModifyTags", "DeidentifyFile"])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.EMPTY_FILE),
        (b"Dear colleague, " * 100, Reason.NOT_DICOM),
        (bytes(100_000), Reason.NOT_DICOM),
        (CT[:700], Reason.TRUNCATED_FILE),
    ],
    ids=["empty", "text", "zeros", "cut"],
)
async def test_a_file_that_cannot_be_read_is_refused(call, method, data, reason):
    """Each rpc that reads a file says why it cannot."""
    error = await refusal(call(method, data))
    assert error.reason is reason


@pytest.mark.parametrize("method", REQUESTS)
async def test_the_limits_of_an_upload_hold_for_every_rpc(call, method):
    """A file over the limit, another media type, a form without a file and a broken form are refused."""
    head = CT[: CT.index(b"\xe0\x7f\x10\0OW")]
    large = head + b"\x42\0\x11\0OB\0\0" + (5 * MIB // 2).to_bytes(4, "little") + bytes(5 * MIB // 2)
    if method != "ReadTags":
        assert (await refusal(call(method, large))).reason is Reason.FILE_TOO_LARGE
    assert (await refusal(call(method, CT, content_type="text/plain"))).reason is Reason.UNSUPPORTED_MEDIA_TYPE
    body, content_type = form(CT, field="other")
    assert (await refusal(call(method, body, content_type=content_type))).reason is Reason.FILE_FIELD_MISSING
    assert (await refusal(call(method, form(CT)[0][:300], content_type=content_type))).reason in {
        Reason.MULTIPART_INVALID,
        Reason.TRUNCATED_FILE,
    }


@pytest.mark.parametrize("method", REQUESTS)
async def test_every_rpc_asks_for_a_token(call, method):
    """Without a good token nothing is read."""
    assert (await refusal(call(method, CT, token=""))).reason is Reason.TOKEN_MISSING
    assert (await refusal(call(method, CT, token="nonsense"))).reason is Reason.TOKEN_INVALID


async def test_one_file_too_many_to_edit_is_told_to_come_again(stack, channel, call):
    """While as much is held for HTTP callers as fits in memory, another is told when to retry; afterwards its file is
    edited. A file that has not come yet does not count, and a gRPC caller, for whom nothing is held, is served.
    """
    stub = tag_service_pb2_grpc.TagServiceStub(channel)
    slow = stub.ModifyTags(metadata=(("authorization", f"Bearer {stack.token()}"), BY_HTTP), timeout=DEADLINE)
    header = CT[: CT.index(b"\xe0\x7f\x10\x00") + 8] + (2 * MIB).to_bytes(4, "little")
    await slow.write(tag_service_pb2.ModifyTagsRequest(file=httpbody_pb2.HttpBody(data=header)))
    assert await whole(call("ModifyTags", CT, headers=(BY_HTTP,)))
    await slow.write(tag_service_pb2.ModifyTagsRequest(file=httpbody_pb2.HttpBody(data=bytes(2 * MIB - 20_000))))
    error = await refusal(call("ModifyTags", CT, headers=(BY_HTTP,)))
    assert error.reason is Reason.OVERLOADED
    assert error.retry_after
    assert await whole(call("ModifyTags", CT))
    slow.cancel()
    assert await whole(call("ModifyTags", CT, headers=(BY_HTTP,)))


async def test_a_file_that_breaks_off_behind_its_header_ends_in_an_error(call):
    """M11: what was given of a file that is cut amid its pixels is not followed by a clean end."""
    pixels = bytes(MIB)
    header = CT[: CT.index(b"\xe0\x7f\x10\x00") + 8] + (2 * MIB).to_bytes(4, "little")
    error = await refusal(call("ModifyTags", header + pixels, size=256 * 1024))
    assert error.reason is Reason.TRUNCATED_FILE


async def test_a_client_that_falls_silent_is_let_go(stack, channel):
    """A stream that neither goes on nor ends gives UPLOAD_STALLED."""
    stub = tag_service_pb2_grpc.TagServiceStub(channel)
    silent = stub.ValidateFile(metadata=(("authorization", f"Bearer {stack.token()}"),), timeout=DEADLINE)
    await silent.write(tag_service_pb2.ValidateFileRequest(file=httpbody_pb2.HttpBody(data=CT[:1000])))
    assert (await refusal(silent)).reason is Reason.UPLOAD_STALLED


async def test_it_serves_and_tells_what(channel):
    """It is healthy without any other part, and reflection tells of its own service only."""
    for name in ("", "ris.tags.v1.TagService"):
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = reflection.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    services = {service.name async for response in asked for service in response.list_services_response.service}
    assert {name for name in services if name.startswith("ris.")} == {"ris.tags.v1.TagService"}


@pytest.mark.parametrize(
    ("requests", "field"),
    [
        ([{"file": CT[:4000], "skipped": 1}, {"end_of_file": True}], "skipped"),
        ([{"file": CT[:8000], "skipped": 40_000}, {"end_of_file": True}], "skipped"),
        ([{"file": CT[:8000], "skipped": -1}, {"end_of_file": True}], "skipped"),
        ([{"file": CT}], "end_of_file"),
        ([{"file": form(CT)[0], "content_type": form(CT)[1], "end_of_file": True}], "by_reference"),
    ],
    ids=["no bulk", "more than bulk", "less than nothing", "no end", "a form"],
)
async def test_what_is_kept_has_to_be_bulk_of_a_file_that_ends(stack, channel, requests, field):
    """Whoever keeps bulk is told what he does wrong; a file that may have broken off does not pass for a whole one."""

    def messages():
        for request in requests:
            data, content_type = request.pop("file", b""), request.pop("content_type", "")
            file = httpbody_pb2.HttpBody(data=data, content_type=content_type)
            yield tag_service_pb2.ModifyTagsRequest(file=file, by_reference=True, **request)

    stub = tag_service_pb2_grpc.TagServiceStub(channel)
    metadata = (("authorization", f"Bearer {stack.token()}"),)
    error = await refusal(stub.ModifyTags(messages(), metadata=metadata, timeout=DEADLINE))
    assert error.reason is Reason.INVALID_FIELD
    assert [violation.field for violation in error.violations] == [field]
