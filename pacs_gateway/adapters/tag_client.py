"""tag_service over gRPC: files go there as streams, for the user that the call is made for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from operator import attrgetter
from typing import Any, Final, TypeVar

import grpc
from google.api import httpbody_pb2
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from pacs_gateway.adapters.directory_records import directory_records
from pacs_gateway.adapters.kept_bulk import KeptBulk
from pacs_gateway.domain.media import DirectoryRecord
from pacs_gateway.domain.tags import DicomTags, Edits, HeaderEdit
from ris.tags.v1 import dicom_tags_pb2, tag_service_pb2, tag_service_pb2_grpc
from service_runtime.calls import is_written, keep_status
from service_runtime.errors import Reason, ServiceError
from service_runtime.identity import CALLER
from service_runtime.interceptor import EARLY_END_KEY, REQUEST_ID
from service_runtime.status import error_of

_CHECK_SECONDS: Final = 5
# A file comes as slowly as its sender sends it; the upload's own idle limit is the tighter one.
_FILE_SECONDS: Final = 900
_HEADER_SECONDS: Final = 30
# 256 KiB messages were measured to be the fastest.
_PIECE_BYTES: Final = 256 * 1024
_OPTIONS: Final = (
    # The DICOM JSON of the largest DICOMDIR that is read.
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    # How far tag_service may be ahead with an edited file that waits for Orthanc. Left alone, gRPC lets that grow.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1024 * 1024),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Look for a restarted tag_service soon, not after minutes.
    ("grpc.max_reconnect_backoff_ms", 2_000),
)

# The fields of both DicomTags have the same order.
_values_of: Final = attrgetter(*(field.name for field in dicom_tags_pb2.DicomTags.DESCRIPTOR.fields))

_RequestT = TypeVar(
    "_RequestT",
    tag_service_pb2.ReadTagsRequest,
    tag_service_pb2.ReadAllTagsRequest,
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
        """The tags of a file. Once tag_service knows them, no further chunk is asked for or waited for."""
        call = self._stub.ReadTags(metadata=_metadata(), timeout=_FILE_SECONDS)
        first = tag_service_pb2.ReadTagsRequest(file=httpbody_pb2.HttpBody())
        async with _sending(call, _requests(first, chunks)):
            return _tags((await call).tags)

    async def modify_header(self, beginning: bytes, file_size: int, edits: Edits, *, ending: bytes = b"") -> HeaderEdit:
        """The new header of a file with these ends, where they tell."""
        request = tag_service_pb2.ModifyHeaderRequest(
            beginning=beginning,
            ending=ending,
            file_size=file_size,
            edits=None if edits.is_empty else _edit_request(edits),
        )
        try:
            answer = await self._stub.ModifyHeader(request, metadata=_metadata(), timeout=_HEADER_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise _error_of(error) from error
        original = _tags(answer.original_tags) if answer.HasField("original_tags") else None
        same = None if answer.needs_whole_file else original
        return HeaderEdit(
            original=original,
            tags=_tags(answer.tags) if answer.HasField("tags") else same,
            header=answer.header,
            header_size=answer.header_size,
            needs_whole_file=answer.needs_whole_file,
        )

    async def read_directory(self, chunks: AsyncIterable[bytes]) -> Sequence[DirectoryRecord]:
        """The files that a DICOMDIR names."""
        call = self._stub.ReadAllTags(metadata=_metadata(), timeout=_FILE_SECONDS)
        first = tag_service_pb2.ReadAllTagsRequest(file=httpbody_pb2.HttpBody())
        async with _sending(call, _requests(first, chunks)):
            answer = await call
        return await asyncio.to_thread(directory_records, answer.dicom_json.data)

    async def modify(self, chunks: AsyncIterable[bytes], edits: Edits) -> AsyncGenerator[bytes, None]:
        """The edited file, while it comes back; of long bulk values only the first pieces go there and come back."""
        call = self._stub.ModifyTags(metadata=_metadata(), timeout=_FILE_SECONDS)
        bulk = KeptBulk()
        async with _sending(call, _edit_requests(edits, bulk, chunks)) as sent:
            async for message in call:
                if message.bulk_size:
                    bulk.told(message.bulk_offset, message.bulk_size)
                else:
                    # Each time it is asked for, protobuf gives a copy.
                    data = message.file.data
                    bulk.came(len(data))
                    yield data
                if bulk.is_due:
                    async with aclosing(bulk.kept()) as pieces:
                        async for piece in pieces:
                            yield piece
            # A file that broke off must not pass for one that ended.
            await sent


@asynccontextmanager
async def _sending(call: Any, requests: AsyncGenerator[Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Around the answer to a call: sends the requests meanwhile, and ends the call when it is left.

    Errors of the call come as ServiceErrors. What breaks the file off breaks the call off, and is raised in its place.
    """
    keep_status(call)
    sending = asyncio.create_task(_send(call, requests))
    try:
        yield sending
    except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
        if sending.done() and not sending.cancelled() and not _being_cancelled():
            await sending
        if isinstance(error, grpc.aio.AioRpcError):
            raise _error_of(error) from error
        raise
    finally:
        call.cancel()
        sending.cancel()
        await asyncio.wait([sending])


async def _send(call: Any, requests: AsyncGenerator[Any, None]) -> None:
    try:
        async with aclosing(requests):
            async for request in requests:
                if not await is_written(call.write(request)):
                    return
        await is_written(call.done_writing())
    except BaseException:
        call.cancel()
        raise


async def _requests(first: _RequestT, chunks: AsyncIterable[bytes]) -> AsyncGenerator[_RequestT, None]:
    """The first message, and those of the file."""
    yield first
    async for piece in _pieces(chunks):
        yield type(first)(file=httpbody_pb2.HttpBody(data=piece))
    yield type(first)(end_of_file=True)


async def _edit_requests(
    edits: Edits, bulk: KeptBulk, chunks: AsyncIterable[bytes]
) -> AsyncGenerator[tag_service_pb2.ModifyTagsRequest, None]:
    """The edits, and what is to be sent of the file."""
    first = _edit_request(edits)
    first.by_reference = True
    yield first
    async with aclosing(bulk.parts(chunks)) as parts:
        async for part in parts:
            file = httpbody_pb2.HttpBody(data=part.data) if part.data else None
            yield tag_service_pb2.ModifyTagsRequest(file=file, skipped=part.skipped)
    yield tag_service_pb2.ModifyTagsRequest(end_of_file=True)


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


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
    return (
        ("authorization", f"Bearer {CALLER.get().token}"),
        ("x-request-id", REQUEST_ID.get()),
        (EARLY_END_KEY, "1"),
    )


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
        record_original=edits.record_original is not None,
        record_reason=edits.record_original or "",
        file=httpbody_pb2.HttpBody(),
    )


def _tags(tags: dicom_tags_pb2.DicomTags) -> DicomTags:
    return DicomTags(*_values_of(tags))


def _away() -> ServiceError:
    return ServiceError(
        Reason.TAG_SERVICE_UNAVAILABLE, "tag_service cannot be reached, or is too slow. Retry.", retry_after=5
    )
