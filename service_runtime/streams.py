"""Opening the upload that the request stream of an rpc carries."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol, TypeVar

from google.api import httpbody_pb2
from grpc.aio import ServicerContext

from service_runtime.metadata import value_of
from service_runtime.uploads import Piece, UploadLimits, UploadReader, next_in_time, no_file


class UploadMessage(Protocol):
    """A request message that carries a piece of a body; some also name the file or mark its end."""

    @property
    def file(self) -> httpbody_pb2.HttpBody:
        """The piece."""


MessageT = TypeVar("MessageT", bound=UploadMessage)


async def open_upload(
    requests: AsyncIterator[MessageT], context: ServicerContext[Any, Any], limits: UploadLimits
) -> tuple[MessageT, UploadReader]:
    """The first message, which carries the options, and the reader of the files.

    Raises FILE_FIELD_MISSING for a stream without any message, UPLOAD_STALLED, UPLOAD_TOO_LARGE.
    """
    first = await next_in_time(requests, limits)
    if first is None:
        raise no_file()
    # Envoy puts the Content-Length of an HTTP request there; without one it is absent.
    length = value_of(context.invocation_metadata(), "x-content-length")
    declared_bytes = int(length) if length.isdecimal() and len(length) < 20 else None
    return first, UploadReader(_pieces(first, requests), limits, declared_bytes=declared_bytes)


async def _pieces(first: MessageT, rest: AsyncIterator[MessageT]) -> AsyncIterator[Piece]:
    yield _piece(first)
    async for message in rest:
        yield _piece(message)


def _piece(message: UploadMessage) -> Piece:
    return Piece(
        data=message.file.data,
        content_type=message.file.content_type,
        filename=getattr(message, "filename", ""),
        end_of_file=getattr(message, "end_of_file", False),
    )
