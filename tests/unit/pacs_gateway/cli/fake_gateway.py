"""A gateway for the client's tests: a real gRPC server whose answers tests choose."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from ris.pacs.v1 import upload_service_pb2 as messages
from ris.pacs.v1 import upload_service_pb2_grpc
from service_runtime.errors import ServiceError
from service_runtime.status import CODE_OF, STATUS_DETAILS_KEY, status_of

Answer = Callable[[bytes], Any]


def stored(content: bytes) -> messages.UploadResponse:
    """The answer to a file that is stored."""
    answer = messages.UploadResponse(success=True, status="stored", study_uid="1.2.3", message=str(len(content)))
    answer.tags.dicom_patient_id, answer.tags.patient_name = "MRN-SMITH", "Smith^Anna"
    return answer


class FakeGateway(upload_service_pb2_grpc.UploadServiceServicer):
    """Answers each file with what `answer` makes of its content: a message, a list of them, or a ServiceError."""

    def __init__(self, answer: Answer = stored) -> None:
        self.answer = answer
        self.firsts: list[Any] = []
        self.contents: list[bytes] = []
        self.metadata: list[dict[str, Any]] = []
        self.address = ""
        self.running = 0
        self.most_running = 0

    async def Upload(self, requests: AsyncIterator[Any], context: Any) -> Any:  # noqa: N802 - gRPC's
        """One answer."""
        return await self._answer(requests, context)

    async def UploadMultiple(self, requests: AsyncIterator[Any], context: Any) -> Any:  # noqa: N802 - gRPC's
        """The answers, and an error among them."""
        for one in await self._answer(requests, context):
            if isinstance(one, ServiceError):
                await _abort(context, one)
            yield one

    async def _answer(self, requests: AsyncIterator[Any], context: Any) -> Any:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.metadata.append(dict(context.invocation_metadata()))
        content, first = b"", None
        async for request in requests:
            first = first or request
            content += request.file.data
        await asyncio.sleep(0.02)
        self.running -= 1
        self.firsts.append(first)
        self.contents.append(content)
        answer = self.answer(content)
        if isinstance(answer, ServiceError):
            await _abort(context, answer)
        return answer


async def _abort(context: Any, error: ServiceError) -> None:
    details = status_of(error, request_id="1").SerializeToString()
    await context.abort(CODE_OF[error.reason], error.message, ((STATUS_DETAILS_KEY, details),))


@asynccontextmanager
async def serving(fake: FakeGateway, credentials: Any = None) -> AsyncIterator[FakeGateway]:
    """The gateway at an address of its own."""
    server = grpc.aio.server()
    upload_service_pb2_grpc.add_UploadServiceServicer_to_server(fake, server)
    if credentials is None:
        port = server.add_insecure_port("localhost:0")
    else:
        port = server.add_secure_port("localhost:0", credentials)
    await server.start()
    fake.address = f"localhost:{port}"
    try:
        yield fake
    finally:
        await server.stop(None)
