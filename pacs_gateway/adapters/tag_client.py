"""tag_service over gRPC: files go there as streams, for the user that the call is made for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
from google.api import httpbody_pb2
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from pacs_gateway.domain.tags import DicomTags, Edits
from ris.tags.v1 import dicom_tags_pb2, tag_service_pb2, tag_service_pb2_grpc
from service_runtime.errors import Reason, ServiceError
from service_runtime.identity import CALLER
from service_runtime.interceptor import REQUEST_ID
from service_runtime.status import error_of

_CHECK_SECONDS: Final = 5
# A file comes as slowly as its sender sends it; the upload's own idle limit is the tighter one.
_FILE_SECONDS: Final = 900
# 256 KiB messages were measured to be the fastest.
_PIECE_BYTES: Final = 256 * 1024
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Look for a restarted tag_service soon, not after minutes.
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


class TagClient:
    """The port `TagService` over gRPC."""

    def __init__(self, target: str) -> None:
        """`target` is host:port. Connects at the first call."""
        self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        self._stub = tag_service_pb2_grpc.TagServiceStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close()

    async def check(self) -> str:
        """Returns "" when tag_service is ready."""
        try:
            answer = await self._health.Check(health_pb2.HealthCheckRequest(), timeout=_CHECK_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise _away() from error
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise _away()
        return ""

    async def read_tags(self, chunks: AsyncIterable[bytes]) -> DicomTags:
        """The tags of a file. Once tag_service knows them, no further chunk is asked for."""
        async with _errors(self._stub.ReadTags(metadata=_metadata(), timeout=_FILE_SECONDS)) as call:
            async for piece in _pieces(chunks):
                if not await _write(call, tag_service_pb2.ReadTagsRequest(file=httpbody_pb2.HttpBody(data=piece))):
                    break
            else:
                await _end(call)
            return _tags((await call).tags)

    async def modify(self, chunks: AsyncIterable[bytes], edits: Edits) -> AsyncGenerator[bytes, None]:
        """The edited file, while it comes back."""
        async with _errors(self._stub.ModifyTags(metadata=_metadata(), timeout=_FILE_SECONDS)) as call:
            sending = asyncio.create_task(_send(call, chunks, edits))
            try:
                async for message in call:
                    yield message.file.data
                await sending
            except (grpc.aio.AioRpcError, asyncio.CancelledError):
                # What broke the source ended the call: it is what went wrong, unless it is we who are cancelled.
                if sending.done() and not sending.cancelled() and not _being_cancelled():
                    await sending
                raise
            finally:
                sending.cancel()
                await asyncio.wait([sending])


async def _send(call: Any, chunks: AsyncIterable[bytes], edits: Edits) -> None:
    """Sends the edits and the file. A file that breaks off breaks the call off: that must not pass for its end."""
    try:
        sent = await _write(call, _edit_request(edits))
        async for piece in _pieces(chunks):
            sent = sent and await _write(
                call, tag_service_pb2.ModifyTagsRequest(file=httpbody_pb2.HttpBody(data=piece))
            )
            if not sent:
                return
        await _end(call)
    except BaseException:
        call.cancel()
        raise


async def _write(call: Any, request: Any) -> bool:
    """Sends a message; False where the call is over already, with the answer or an error, which awaiting it tells."""
    try:
        await call.write(request)
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        return False
    return not call.done()


async def _end(call: Any) -> None:
    """Says that all is sent, which a call that is over already does not want to hear."""
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await call.done_writing()


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@asynccontextmanager
async def _errors(call: Any) -> AsyncIterator[Any]:
    """The call, cancelled when it is left early, with its errors as ServiceErrors."""
    try:
        yield call
    except grpc.aio.AioRpcError as error:
        raise _error_of(error) from error
    finally:
        call.cancel()


def _error_of(error: grpc.aio.AioRpcError) -> ServiceError:
    for key, value in error.trailing_metadata() or ():
        if key == rpc_status.GRPC_DETAILS_METADATA_KEY:
            told = error_of(status_pb2.Status.FromString(value))
            if told is not None:
                return told
    if error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}:
        return _away()
    if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return ServiceError(Reason.OVERLOADED, "tag_service has as much work as it takes on. Retry.", retry_after=5)
    return ServiceError(Reason.INTERNAL_ERROR, "tag_service failed in an unexpected way. Report it.")


async def _pieces(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The chunks, cut to what is sent best."""
    async for chunk in chunks:
        for start in range(0, len(chunk), _PIECE_BYTES):
            yield chunk[start : start + _PIECE_BYTES]


def _metadata() -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {CALLER.get().token}"), ("x-request-id", REQUEST_ID.get()))


def _edit_request(edits: Edits) -> tag_service_pb2.ModifyTagsRequest:
    return tag_service_pb2.ModifyTagsRequest(
        dicom_patient_id=edits.patient_id,
        patient_name=edits.patient_name,
        patient_birth_date=edits.patient_birth_date,
        patient_sex=edits.patient_sex,
        accession_number=edits.accession_number,
        study_date=edits.study_date,
        study_description=edits.study_description,
        remove_private_tags=edits.remove_private_tags,
        set=edits.set,
        remove=edits.remove,
        force=edits.force,
        file=httpbody_pb2.HttpBody(),
    )


def _tags(tags: dicom_tags_pb2.DicomTags) -> DicomTags:
    values = {field.name: getattr(tags, field.name) for field in tags.DESCRIPTOR.fields}
    return DicomTags(patient_id=values.pop("dicom_patient_id"), **values)


def _away() -> ServiceError:
    return ServiceError(
        Reason.TAG_SERVICE_UNAVAILABLE, "tag_service cannot be reached, or is too slow. Retry.", retry_after=5
    )
