"""Envoy: JSON, gRPC and gRPC-Web on one port, errors in one form, and nothing of a patient in its log."""

import asyncio
import base64
import json
import shutil
import struct
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import httpx
import pytest
from google.api import httpbody_pb2
from google.rpc import status_pb2

from deploy.local.process import ROOT
from deploy.local.stack import Stack
from ris.pacs.v1 import study_service_pb2, upload_service_pb2, upload_service_pb2_grpc
from ris.tags.v1 import tag_service_pb2, tag_service_pb2_grpc
from service_runtime.status import error_of
from tests.e2e.client import API, Client, expect_error, form
from tests.files import fresh_file, sample_bytes

BUF = Path(sys.executable).with_name("buf")


async def test_health_needs_no_token(client: Client) -> None:
    """Anybody may ask how the gateway is."""
    health = await client.with_token("").get(f"{API}/health")
    assert health["status"] == "healthy"
    assert health["message"]
    assert {part["name"] for part in health["parts"]} == {"orthanc", "database", "tag_service"}
    assert {part["status"] for part in health["parts"]} == {"healthy"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/api/v1/dicom/nothing", 404),
        ("GET", "/api/v2/dicom/studies", 404),
        ("PATCH", "/api/v1/dicom/studies", 404),
        ("GET", "/ris.pacs.v1.StudyService/GetStudy", 404),
        ("GET", "/api/v1/dicom/studies/1%2F2", 400),
        ("GET", "/api/v1/dicom/../../etc/passwd", 404),
    ],
)
async def test_what_there_is_not_is_told_in_json(client: Client, method: str, path: str, status: int) -> None:
    """Envoy's own errors have the form of all others."""
    answer = await client.send(method, path)
    assert answer.headers["content-type"].startswith("application/json"), answer.text
    assert answer.status_code in {status, 415 if path.startswith("/ris.") else status}
    body = answer.json()
    assert set(body) == {"code", "message", "details"}
    assert body["code"]
    assert body["message"]


async def test_every_answer_has_a_request_id(client: Client) -> None:
    """A request id is given where none came, kept where one did, and is part of every error."""
    given = f"req-{uuid.uuid4().hex}"
    answer = await client.send("GET", f"{API}/studies/1.2.3", headers={"x-request-id": given})
    assert answer.headers["x-request-id"] == given
    body = expect_error(answer, 404, "STUDY_NOT_FOUND")
    assert body["details"][0]["metadata"]["request_id"] == given
    assert (await client.send("GET", f"{API}/health")).headers["x-request-id"]


async def test_pages_of_configured_origins_may_call(client: Client) -> None:
    """A browser's preflight succeeds for the configured origins and for no other, and needs no token."""
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    anybody = client.with_token("")
    for origin in ("https://ris.example", "http://localhost:3000"):
        answer = await anybody.send("OPTIONS", f"{API}/upload", headers={"origin": origin, **asks})
        assert answer.status_code == 200, answer.text
        assert answer.headers["access-control-allow-origin"] == origin
        assert "authorization" in answer.headers["access-control-allow-headers"]
        answer = await client.send("GET", f"{API}/health", headers={"origin": origin})
        assert answer.headers["access-control-allow-origin"] == origin
    for origin in ("https://ris.example.evil.org", "https://evil.example", "https://risXexample"):
        answer = await anybody.send("OPTIONS", f"{API}/upload", headers={"origin": origin, **asks})
        assert "access-control-allow-origin" not in answer.headers


async def test_an_http2_caller_gets_the_same_errors(stack: Stack) -> None:
    """A refusal in the middle of an upload reaches a caller of HTTP/2 whole."""
    curl = shutil.which("curl")
    assert curl is not None
    command = [curl, "-sS", "--http2-prior-knowledge", "-H", f"Authorization: Bearer {stack.token()}"]
    command += [
        "-F",
        "file=@-;filename=big.dcm",
        "-w",
        "\n%{http_code} %{http_version}",
        f"{stack.base_url}{API}/upload",
    ]
    big = bytes(9 * 1024 * 1024)
    done = await asyncio.to_thread(subprocess.run, command, input=big, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    body, _, told = done.stdout.decode().rpartition("\n")
    assert told in {"400 2", "413 2"}, told
    assert json.loads(body)["details"][0]["reason"] in {"NOT_DICOM", "FILE_TOO_LARGE"}


def metadata(stack: Stack) -> tuple[tuple[str, str], ...]:
    """A radiologist's token, for gRPC."""
    return (("authorization", f"Bearer {stack.token(role='radiologist')}"),)


async def test_grpc_callers_upload_with_options_in_the_first_message(stack: Stack, client: Client) -> None:
    """Over gRPC a file goes in by way of Envoy and of the gateway itself, in pieces, the options first."""
    for target in (stack.envoy_target, stack.pacs_gateway_target):
        file = fresh_file()

        async def pieces(content: bytes = file.content) -> AsyncIterator[upload_service_pb2.UploadRequest]:
            yield upload_service_pb2.UploadRequest(upload_source="api", study_description="By gRPC", filename="g.dcm")
            for start in range(0, len(content), 10_000):
                data = httpbody_pb2.HttpBody(data=content[start : start + 10_000])
                yield upload_service_pb2.UploadRequest(file=data)

        async with grpc.aio.insecure_channel(target) as channel:
            stub = upload_service_pb2_grpc.UploadServiceStub(channel)
            result = await stub.Upload(pieces(), metadata=metadata(stack), timeout=60)
        assert result.success
        assert result.tags.study_description == "By gRPC"
        log = await client.log(file.study_uid)
        assert log["upload_source"] == "api"


async def test_grpc_callers_upload_many_files_in_one_stream(stack: Stack) -> None:
    """Over gRPC many files go in one stream, end_of_file between them; each has its answer."""
    files = [fresh_file(), fresh_file("MR_small.dcm")]

    async def pieces() -> AsyncIterator[upload_service_pb2.UploadMultipleRequest]:
        for number, file in enumerate(files):
            half = len(file.content) // 2
            first, second = file.content[:half], file.content[half:]
            data = httpbody_pb2.HttpBody(data=first)
            yield upload_service_pb2.UploadMultipleRequest(file=data, filename=f"{number}.dcm")
            data = httpbody_pb2.HttpBody(data=second)
            yield upload_service_pb2.UploadMultipleRequest(file=data, end_of_file=True)

    async with grpc.aio.insecure_channel(stack.envoy_target) as channel:
        stub = upload_service_pb2_grpc.UploadServiceStub(channel)
        call = stub.UploadMultiple(pieces(), metadata=metadata(stack), timeout=60)
        results = [(result.filename, result.status, result.study_uid) async for result in call]
    assert results == [(f"{number}.dcm", "stored", file.study_uid) for number, file in enumerate(files)]


async def test_read_tags_answers_before_the_file_is_over(stack: Stack) -> None:
    """The tags of a file whose pixels never come are told as soon as the header is in."""
    header = sample_bytes("CT_small.dcm")[:6500]

    async def pieces() -> AsyncIterator[tag_service_pb2.ReadTagsRequest]:
        yield tag_service_pb2.ReadTagsRequest(file=httpbody_pb2.HttpBody(data=header))
        # No end follows: the server must not wait for it.
        await asyncio.sleep(30)

    async with grpc.aio.insecure_channel(stack.envoy_target) as channel:
        stub = tag_service_pb2_grpc.TagServiceStub(channel)
        answer = await stub.ReadTags(pieces(), metadata=metadata(stack), timeout=10)
    assert answer.tags.dicom_patient_id == "1CT1"


async def test_grpc_web_callers_get_messages_and_errors(stack: Stack) -> None:
    """A browser's gRPC-Web call is answered in its own framing, errors with their details in the trailers."""
    message = study_service_pb2.GetStudyRequest(study_uid="1.2.3").SerializeToString()
    headers = {
        "content-type": "application/grpc-web+proto",
        "x-grpc-web": "1",
        "authorization": f"Bearer {stack.token()}",
    }
    async with httpx.AsyncClient(base_url=stack.base_url, timeout=30) as http:
        body = b"\x00" + struct.pack(">I", len(message)) + message
        answer = await http.post("/ris.pacs.v1.StudyService/GetStudy", content=body, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/grpc-web")
    trailers = dict(answer.headers)
    if answer.content:
        text = answer.content[5:].decode()
        trailers |= dict(line.split(":", 1) for line in text.strip().splitlines())
    assert trailers["grpc-status"].strip() == "5"
    details = trailers["grpc-status-details-bin"].strip()
    error = error_of(status_pb2.Status.FromString(base64.b64decode(details + "=" * (-len(details) % 4))))
    assert error is not None
    assert error.reason == "STUDY_NOT_FOUND"


@pytest.mark.parametrize("target", ["envoy_target", "pacs_gateway_target", "tag_service_target"])
def test_reflection_lets_a_tool_call_without_proto_files(stack: Stack, target: str) -> None:
    """A gRPC tool with no proto files finds the services at every port and calls them."""
    url = f"http://{getattr(stack, target)}"
    header = f"Authorization: Bearer {stack.token()}"

    def curl(method: str, message: str) -> subprocess.CompletedProcess[str]:
        command = [str(BUF), "curl", "--http2-prior-knowledge", "--protocol", "grpc", "--emit-defaults", "-H", header]
        command += ["-d", message]
        return subprocess.run(
            [*command, f"{url}/{method}"], capture_output=True, text=True, check=False, timeout=60, cwd=ROOT.parent
        )

    if target != "tag_service_target":
        done = curl("ris.pacs.v1.StudyService/ListStudies", '{"limit": 1}')
        assert done.returncode == 0, done.stderr
        assert "total_size" in done.stdout
    if target != "pacs_gateway_target":
        data = base64.b64encode(sample_bytes("CT_small.dcm")).decode()
        done = curl("ris.tags.v1.TagService/ReadTags", json.dumps({"file": {"data": data}}))
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["tags"]["PatientID"] == "1CT1"


async def test_log_lines_have_the_same_names_everywhere(stack: Stack, client: Client) -> None:
    """One request id leads from Envoy's line of log to the service's, and both say alike when, who and what."""
    request_id = str(uuid.uuid4())
    await client.send("GET", f"{API}/studies", headers={"x-request-id": request_id})
    for part, event in (("envoy", "request"), ("pacs_gateway", "call")):
        found: list[str] = []
        for _ in range(100):
            found = [line for line in stack.log(part).read_text().splitlines() if request_id in line]
            if found:
                break
            await asyncio.sleep(0.1)  # Envoy writes its log a few times a second
        (line,) = map(json.loads, found)
        assert (line["service"], line["event"], line["request_id"]) == (part, event, request_id)
        assert datetime.fromisoformat(line["timestamp"]).tzinfo == UTC


async def test_logs_name_no_patient(stack: Stack, client: Client) -> None:
    """What a caller sends and asks for is in no log of Envoy or the services, whether it went well or not."""
    secrets = [f"SECRET{uuid.uuid4().hex[:10]}" for _ in range(4)]
    patient, name, number, why = secrets
    file = fresh_file(PatientID=patient, PatientName=name)
    await client.stored(file, AccessionNumber=number[:16])
    await client.send("GET", f"{API}/studies", params={"PatientID": patient, "PatientName": name})
    await client.send("GET", f"{API}/studies/accession/{number[:16]}")
    await client.send("GET", f"{API}/studies/accession/{name}*")
    await client.upload(file.content[:-500], "x.dcm", PatientName=f"{name}\\{name}")
    await client.upload(name.encode() * 50, f"{name}.dcm")
    await client.send("POST", f"{API}/upload", files=form((f"{name}.dcm", b""), field=name))
    await client.send("DELETE", f"{API}/studies/{file.study_uid}", params={"reason": why})
    await client.send("GET", f"{API}/health")  # so that what came before is written
    seen = {}
    for part in ("envoy", "tag_service", "pacs_gateway"):
        text = stack.log(part).read_text()
        seen[part] = text
        for secret in secrets:
            assert secret[:16] not in text, part
    assert "/ris.pacs.v1.UploadService/Upload" in seen["pacs_gateway"]
