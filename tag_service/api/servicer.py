"""ris.tags.v1.TagService."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from google.api import httpbody_pb2
from grpc.aio import ServicerContext

from ris.tags.v1 import tag_service_pb2, tag_service_pb2_grpc
from service_runtime.metadata import came_by_http
from service_runtime.streams import open_upload
from service_runtime.uploads import UploadedFile, UploadLimits
from tag_service.api.mapping import content_disposition, edits_from, header_to_proto, verdict_to_proto
from tag_service.domain.chosen import choose
from tag_service.domain.limits import Limits
from tag_service.use_cases.modifying import Modifying
from tag_service.use_cases.reading import read_all_tags, read_chosen_tags, read_tags, validate

_Context = ServicerContext[Any, Any]


class TagServicer(tag_service_pb2_grpc.TagServiceServicer):
    """Opens the uploads, has the use cases do the work, and words the answers."""

    def __init__(self, *, modifying: Modifying, limits: Limits, upload_limits: UploadLimits) -> None:
        self._modifying = modifying
        self._limits = limits
        self._upload_limits = upload_limits

    async def ReadTags(  # noqa: N802 - gRPC's names
        self, request_iterator: AsyncIterator[tag_service_pb2.ReadTagsRequest], context: _Context
    ) -> tag_service_pb2.ReadTagsResponse:
        """Reads the 20 attributes, and those that were chosen."""
        first, upload = await open_upload(request_iterator, context, self._upload_limits)
        if not first.tags:
            return header_to_proto(await read_tags(await upload.only_file(), self._limits))
        choice = choose(first.tags)
        return header_to_proto(*await read_chosen_tags(await upload.only_file(), choice, self._limits))

    async def ReadAllTags(  # noqa: N802
        self, request_iterator: AsyncIterator[tag_service_pb2.ReadAllTagsRequest], context: _Context
    ) -> tag_service_pb2.ReadAllTagsResponse:
        """Reads every attribute."""
        _, upload = await open_upload(request_iterator, context, self._upload_limits)
        data = await read_all_tags(await upload.only_file(), self._limits)
        return tag_service_pb2.ReadAllTagsResponse(
            dicom_json=httpbody_pb2.HttpBody(content_type="application/dicom+json", data=data)
        )

    async def ModifyTags(  # noqa: N802
        self, request_iterator: AsyncIterator[tag_service_pb2.ModifyTagsRequest], context: _Context
    ) -> AsyncIterator[tag_service_pb2.ModifyTagsResponse]:
        """Edits a file."""
        first, upload = await open_upload(request_iterator, context, self._upload_limits)
        file = await upload.only_file()
        edits = edits_from(first)
        if came_by_http(context):
            # HTTP clients look for the answer when they have sent everything, and cannot be told of a failure amid it.
            async with self._modifying.edited(file, edits) as edited:
                digest = (("x-file-size", str(edited.size_bytes)), ("x-file-sha256", edited.sha256))
                await context.send_initial_metadata((_named(file), *digest))
                for number, part in enumerate(edited.parts):
                    yield _piece(part, is_first=not number)
            return
        size = 0
        async with aclosing(self._modifying.streamed(file, edits)) as pieces:
            async for piece in pieces:
                if not size:
                    await context.send_initial_metadata((_named(file),))
                yield _piece(piece, is_first=not size)
                size += len(piece)
        context.set_trailing_metadata((("x-file-size", str(size)),))

    async def ValidateFile(  # noqa: N802
        self, request_iterator: AsyncIterator[tag_service_pb2.ValidateFileRequest], context: _Context
    ) -> tag_service_pb2.ValidateFileResponse:
        """Checks a file."""
        _, upload = await open_upload(request_iterator, context, self._upload_limits)
        return verdict_to_proto(await validate(await upload.only_file(), self._limits))


def _named(file: UploadedFile) -> tuple[str, str]:
    return ("content-disposition", content_disposition(file.name))


def _piece(data: bytes, *, is_first: bool) -> tag_service_pb2.ModifyTagsResponse:
    content_type = "application/dicom" if is_first else ""
    return tag_service_pb2.ModifyTagsResponse(file=httpbody_pb2.HttpBody(content_type=content_type, data=data))
