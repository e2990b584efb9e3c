"""ris.tags.v1.TagService."""

from collections.abc import AsyncIterator
from typing import Any

from google.api import httpbody_pb2
from grpc.aio import ServicerContext

from ris.tags.v1 import tag_service_pb2, tag_service_pb2_grpc
from service_runtime.streams import open_upload
from service_runtime.uploads import UploadLimits
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
        async with self._modifying.edited(file, edits_from(first)) as edited:
            await context.send_initial_metadata(
                (
                    ("content-disposition", content_disposition(file.name)),
                    ("x-file-size", str(edited.size_bytes)),
                    ("x-file-sha256", edited.sha256),
                )
            )
            content_type = "application/dicom"
            for piece in edited.pieces():
                yield tag_service_pb2.ModifyTagsResponse(
                    file=httpbody_pb2.HttpBody(content_type=content_type, data=piece)
                )
                content_type = ""

    async def ValidateFile(  # noqa: N802
        self, request_iterator: AsyncIterator[tag_service_pb2.ValidateFileRequest], context: _Context
    ) -> tag_service_pb2.ValidateFileResponse:
        """Checks a file."""
        _, upload = await open_upload(request_iterator, context, self._upload_limits)
        return verdict_to_proto(await validate(await upload.only_file(), self._limits))
