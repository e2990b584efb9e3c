"""Opening the upload that the request stream of an rpc carries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Protocol, TypeVar

from google.api import httpbody_pb2
from grpc.aio import ServicerContext

from service_runtime.bodies import Piece, is_form, no_file
from service_runtime.metadata import value_of
from service_runtime.uploads import ArchiveLimits, UploadLimits, UploadReader


class UploadMessage(Protocol):
    """A request message that carries a piece of a body; some also name the file."""

    @property
    def file(self) -> httpbody_pb2.HttpBody:
        """The piece."""

    @property
    def end_of_file(self) -> bool:
        """Whether it is the last piece of its file."""


MessageT = TypeVar("MessageT", bound=UploadMessage)

# How long the cancellation of a call may come after the end of its request stream: 0.5 ms at most was seen, and 24 ms
# where a deadline had passed, on a machine with twice as much to do as it can.
_CANCELLATION_LAG_SECONDS = 0.005
_DEADLINE_LAG_SECONDS = 0.1


async def open_upload(
    requests: AsyncIterator[MessageT],
    context: ServicerContext[Any, Any],
    limits: UploadLimits,
    *,
    archives: ArchiveLimits | None = None,
) -> tuple[MessageT, UploadReader]:
    """The first message, which carries the options, and the reader of the files; with `archives`, also of theirs.

    Raises FILE_FIELD_MISSING for a stream without any message, UPLOAD_STALLED.
    """
    first = await anext(requests, None)
    if first is None:
        raise no_file()
    # Envoy puts the Content-Length of an HTTP request there; without one it is absent.
    length = value_of(context.invocation_metadata(), "x-content-length")
    declared_bytes = int(length) if length.isdecimal() and len(length) < 20 else None
    pieces = _Pieces(first, requests, context, declared_bytes=declared_bytes)
    return first, UploadReader(pieces, limits, archives=archives, declared_bytes=declared_bytes)


class _Pieces:
    """The pieces that the messages carry."""

    def __init__(
        self,
        first: UploadMessage,
        rest: AsyncIterator[UploadMessage],
        context: ServicerContext[Any, Any],
        *,
        declared_bytes: int | None,
    ) -> None:
        self._first: UploadMessage | None = first
        self._rest = rest
        self._context = context
        self._ends_by_itself = is_form(first.file.content_type)
        self._declared_bytes = declared_bytes
        self._size = 0
        self._file_ended = False

    def __aiter__(self) -> _Pieces:
        return self

    async def __anext__(self) -> Piece:
        if self._first is not None:
            message, self._first = self._first, None
        else:
            try:
                message = await anext(self._rest)
            except StopAsyncIteration:
                await self._see_that_it_ended()
                raise
        # Each time it is asked for, protobuf gives a copy.
        data = message.file.data
        self._size += len(data)
        self._file_ended = message.end_of_file
        return Piece(
            data=data,
            content_type=message.file.content_type,
            filename=getattr(message, "filename", ""),
            end_of_file=message.end_of_file,
        )

    async def _see_that_it_ended(self) -> None:
        """Waits a moment where nothing said that the file is over.

        In gRPC for Python, the stream of a client that went away, or that sent too large a message, looks for a moment
        as if it had ended as it should; only then comes the cancellation. A file that was cut short must not pass for
        a whole one.
        """
        if self._ends_by_itself or self._file_ended or self._size == self._declared_bytes:
            return
        remaining = self._context.time_remaining()
        at_its_deadline = remaining is not None and remaining < _DEADLINE_LAG_SECONDS
        await asyncio.sleep(_DEADLINE_LAG_SECONDS if at_its_deadline else _CANCELLATION_LAG_SECONDS)
