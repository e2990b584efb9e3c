"""The clients that measure, against servers that they do not measure."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from bench.clients.bare_grpc import BareGrpcLoad
from bench.clients.grpc_client import Call
from bench.clients.http import HttpLoad, Request
from bench.clients.process import client
from bench.files import File, Sample, Whose
from bench.references.process import reference
from ris.pacs.v1 import upload_service_pb2

METHOD = "/test.Server/Do"


@pytest.fixture
async def server() -> AsyncIterator[int]:
    """Answers with how many messages and bytes came, a message per file; refuses files named "bad"; its port."""

    async def do(requests, context):
        count = size = 0
        async for request in requests:
            if request.filename == "bad":
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "this is a bad one")
            if request.filename == "early":
                yield upload_service_pb2.UploadResponse(message="early")
                return
            count, size = count + 1, size + len(request.file.data)
            if request.end_of_file:
                yield upload_service_pb2.UploadResponse(message=f"{size}")
        yield upload_service_pb2.UploadResponse(message=f"{count} {size}")

    handler = grpc.stream_stream_rpc_method_handler(
        do,
        request_deserializer=upload_service_pb2.UploadRequest.FromString,
        response_serializer=upload_service_pb2.UploadResponse.SerializeToString,
    )
    one = grpc.aio.server()
    one.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Server", {"Do": handler}),))
    port = one.add_insecure_port("127.0.0.1:0")
    await one.start()
    yield port
    await one.stop(None)


def call(*files: File, **first: str) -> Call:
    """A call with these files and options."""
    return Call(files, upload_service_pb2.UploadRequest(**first))


def said(reply) -> list[str]:
    """What the server answered."""
    return [upload_service_pb2.UploadResponse.FromString(one).message for one in reply.messages]


async def test_bare_grpc_sends_what_it_is_given(server: int) -> None:
    """Files smaller and larger than a frame, a message and the windows come whole, one or many a call."""
    files = [File(b"h" * 100, b"t" * 1000, times) for times in (0, 1, 700, 3000)]
    calls = (*(call(one) for one in files), call(*files))
    load = BareGrpcLoad(server, METHOD, calls, "token", connections=2)
    replies = await asyncio.to_thread(load.prepare())
    sizes = [100, 1100, 700_100, 3_000_100]
    assert [said(reply)[-1].split()[-1] for reply in replies[:4]] == [str(size) for size in sizes]
    ends = [str(sum(sizes[: number + 1])) for number in range(4)]
    assert said(replies[4])[:4] == ends


async def test_bare_grpc_tells_what_failed(server: int) -> None:
    """A call that is refused is an error that says why, not an answer."""
    load = BareGrpcLoad(server, METHOD, (call(File(b"x", b""), filename="bad"),), "token", connections=1)
    with pytest.raises(RuntimeError, match="this is a bad one"):
        await asyncio.to_thread(load.prepare())


async def test_bare_grpc_takes_an_early_answer(server: int) -> None:
    """An answer that is there before all was sent ends the call, and the connection goes on."""
    large = File(b"", b"t" * 1_000_000, 5)
    calls = (call(large, filename="early"), call(large))
    replies = await asyncio.to_thread(BareGrpcLoad(server, METHOD, calls, "token", connections=1).prepare())
    assert said(replies[0]) == ["early"]
    assert said(replies[1])[-1].endswith(" 5000000")


async def test_a_client_is_a_process_of_its_own() -> None:
    """A client sends forms over HTTP/1.1 as any server takes them, and tells what that took."""
    file = Sample("MR_small.dcm", pixel_bytes=512, Rows=16, Columns=16).study(1, Whose("CLIENT-TEST"))[0]
    async with reference("bench.references.naive") as naive, client() as one:
        await one.prepare(HttpLoad(naive.port, (Request("/read-tags", (), (file,), field="file"),) * 5, 2))
        done = await one.run()
        assert [answer.status for answer in done.answers] == [200] * 5
        assert all(b'"CLIENT-TEST"' in answer.body for answer in done.answers)
        assert 0 < done.cpu_seconds < 10 * done.seconds
        await one.prepare(HttpLoad(1, (Request("/", ()),), 1))
        with pytest.raises(RuntimeError, match="a client failed"):
            await one.run()
