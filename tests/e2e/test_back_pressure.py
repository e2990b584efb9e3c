"""An Orthanc that takes nothing: what comes for it stays with its senders, and whoever is too many comes again."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from deploy.local.seed import seed
from deploy.local.stack import Stack
from ris.pacs.v1 import upload_service_pb2, upload_service_pb2_grpc
from tests.e2e.client import API, Client, expect_error
from tests.faults import Books, Misbehaving, resident_bytes, study_of
from tests.files import fresh_file

_MIB = 1024 * 1024
_RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"


@pytest.fixture(scope="module")
async def narrow(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A stack whose gateway stores one file at a time, and lets four wait."""
    settings = {"pacs_gateway": {"MAX_ORTHANC_CONNECTIONS": "2"}}
    async with Stack(Path(tmp_path_factory.mktemp("narrow")), settings=settings) as running:
        await seed(running)
        yield running


@pytest.fixture
async def stalled(narrow: Stack) -> AsyncIterator[Misbehaving]:
    """The Orthanc of that gateway, which takes no file until it is let go."""
    async with Misbehaving(narrow.orthanc, fault="stalled").listening() as proxy:
        await narrow.restart("pacs_gateway", ORTHANC_URL=proxy.url)
        yield proxy


@pytest.fixture
async def caller(narrow: Stack) -> AsyncIterator[Client]:
    """A radiologist at that stack."""
    limits = httpx.Limits(max_connections=20)
    async with httpx.AsyncClient(base_url=narrow.base_url, timeout=60, limits=limits) as http:
        yield Client(http, narrow.token(role="radiologist"))


async def test_what_a_stalled_orthanc_does_not_take_stays_with_its_sender(
    narrow: Stack, caller: Client, stalled: Misbehaving
) -> None:
    """The sender of a large file cannot write on, and no service grows by more than what is in the pipes; when Orthanc
    goes on, so does the file.
    """
    small = fresh_file()
    file = fresh_file(like=small, EncapsulatedDocument=bytes(90 * _MIB))
    sent = 0

    async def content() -> AsyncIterator[bytes]:
        nonlocal sent
        for start in range(0, len(file.content), 256 * 1024):
            yield file.content[start : start + 256 * 1024]
            sent = start

    parts = ("tag_service", "pacs_gateway", "envoy")
    stalled.fault = ""
    await caller.stored(small)
    stalled.fault = "stalled"
    before = {part: resident_bytes(narrow, part) for part in parts}
    headers = {"content-type": "application/dicom"}
    upload = asyncio.create_task(caller.send("POST", f"{API}/upload", content=content(), headers=headers))
    await stalled.reached.wait()
    last = -1
    while sent > last:
        last = sent
        await asyncio.sleep(0.5)
    assert sent < 40 * _MIB
    for part in parts:
        assert resident_bytes(narrow, part) < before[part] + 32 * _MIB, part
    stalled.go.set()
    answer = await upload
    assert answer.status_code == 200, answer.text
    assert await Books(narrow).check(file.study_uid, [answer.json()]) == 2


async def test_more_files_than_may_wait_for_orthanc_are_told_to_come_again(
    narrow: Stack, caller: Client, stalled: Misbehaving
) -> None:
    """Past the queue 429 with Retry-After, also for a large file, RESOURCE_EXHAUSTED with RetryInfo over gRPC; nothing
    of these files is in the PACS, the others get there, and so do these when they are sent again. Questions are
    answered all the while.
    """
    files = study_of(7)
    files[5] = fresh_file(like=files[0], EncapsulatedDocument=bytes(30 * _MIB))
    uploads = [asyncio.create_task(caller.upload(file.content)) for file in files[:5]]
    await Books(narrow).ready(files[0].study_uid, 5)
    await asyncio.sleep(0.1)
    for _ in range(2):
        refused = await caller.upload(files[5].content)
        told = expect_error(refused, 429, "OVERLOADED")
        assert refused.headers["retry-after"] == "5"
        assert {"@type": _RETRY_INFO, "retryDelay": "5s"} in told["details"]
        assert told["details"][0]["metadata"]["limit"] == "MAX_ORTHANC_CONNECTIONS"
    async with grpc.aio.insecure_channel(narrow.envoy_target) as channel:
        metadata = (("authorization", f"Bearer {caller.token}"),)
        message = upload_service_pb2.UploadRequest()
        message.file.content_type, message.file.data, message.end_of_file = "application/dicom", files[6].content, True
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await upload_service_pb2_grpc.UploadServiceStub(channel).Upload(iter([message]), metadata=metadata)
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        retry = error_details_pb2.RetryInfo()
        status = rpc_status.from_call(error.value)
        assert any(detail.Unpack(retry) for detail in status.details)
        assert retry.retry_delay.seconds == 5
    assert (await caller.get(f"{API}/studies"))["studies"] is not None
    assert (await caller.get(f"{API}/health"))["status"] == "healthy"
    stalled.go.set()
    told_stored = [answer.json() for answer in await asyncio.gather(*uploads)]
    told_stored += [await caller.stored(file) for file in files[5:]]
    assert await Books(narrow).check(files[0].study_uid, told_stored) == 7
