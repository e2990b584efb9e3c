"""ris.tags.v1.TagService."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from google.api import httpbody_pb2
from grpc.aio import ServicerContext

from ris.tags.v1 import tag_service_pb2, tag_service_pb2_grpc
from service_runtime.metadata import came_by_http, value_of
from service_runtime.streams import open_upload
from service_runtime.uploads import UploadedFile, UploadLimits
from tag_service.api.kept_files import KeptFile
from tag_service.api.mapping import (
    about_deidentification,
    content_disposition,
    edited_header_to_proto,
    edited_part_to_proto,
    edits_from,
    header_to_proto,
    options_from,
    verdict_to_proto,
)
from tag_service.domain.editing.rewrite import Rewriter
from tag_service.domain.reading.chosen import choose
from tag_service.domain.standard.limits import Limits
from tag_service.use_cases.deidentifying import KEY_FIELD, Deidentifying
from tag_service.use_cases.heading import Ends, Heading
from tag_service.use_cases.modifying import Modifying
from tag_service.use_cases.reading import read_all_tags, read_chosen_tags, read_tags, validate
from tag_service.use_cases.rewriting import Rewriting

_Context = ServicerContext[Any, Any]
_Metadata = tuple[tuple[str, str], ...]


class TagServicer(tag_service_pb2_grpc.TagServiceServicer):
    """Opens the uploads, has the use cases do the work, and words the answers."""

    def __init__(
        self,
        *,
        rewriting: Rewriting,
        modifying: Modifying,
        heading: Heading,
        deidentifying: Deidentifying,
        limits: Limits,
        upload_limits: UploadLimits,
    ) -> None:
        self._rewriting = rewriting
        self._modifying = modifying
        self._heading = heading
        self._deidentifying = deidentifying
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
        if first.by_reference and not came_by_http(context):
            kept = KeptFile(first, request_iterator, self._upload_limits)
            async with aclosing(self._rewriting.referring(kept, self._modifying.begin(edits_from(first)))) as parts:
                async for part in parts:
                    yield edited_part_to_proto(part)
            return
        file = await upload.only_file()
        rewriter = self._modifying.begin(edits_from(first))
        name = ("content-disposition", content_disposition(file.name))
        async with aclosing(self._rewritten(file, rewriter, context, lambda: (name,))) as bodies:
            async for body in bodies:
                yield tag_service_pb2.ModifyTagsResponse(file=body)

    async def ModifyHeader(  # noqa: N802
        self,
        request: tag_service_pb2.ModifyHeaderRequest,
        context: _Context,  # noqa: ARG002 - gRPC's
    ) -> tag_service_pb2.ModifyHeaderResponse:
        """Edits a file by its ends."""
        ends = Ends(request.beginning, request.ending, request.file_size)
        return edited_header_to_proto(await self._heading.edit(ends, edits_from(request.edits)))

    async def DeidentifyFile(  # noqa: N802
        self, request_iterator: AsyncIterator[tag_service_pb2.DeidentifyFileRequest], context: _Context
    ) -> AsyncIterator[tag_service_pb2.DeidentifyFileResponse]:
        """De-identifies a file."""
        first, upload = await open_upload(request_iterator, context, self._upload_limits)
        file = await upload.only_file()
        begun = self._deidentifying.begin(options_from(first), value_of(context.invocation_metadata(), KEY_FIELD))
        # Not the name that the file came with, which may be the patient's.
        name = ("content-disposition", content_disposition("deidentified.dcm"))
        described = self._rewritten(file, begun.rewriter, context, lambda: (name, *about_deidentification(begun)))
        async with aclosing(described) as bodies:
            async for body in bodies:
                yield tag_service_pb2.DeidentifyFileResponse(file=body)

    async def ValidateFile(  # noqa: N802
        self, request_iterator: AsyncIterator[tag_service_pb2.ValidateFileRequest], context: _Context
    ) -> tag_service_pb2.ValidateFileResponse:
        """Checks a file."""
        _, upload = await open_upload(request_iterator, context, self._upload_limits)
        return verdict_to_proto(await validate(await upload.only_file(), self._limits))

    async def _rewritten(
        self, file: UploadedFile, rewriter: Rewriter, context: _Context, about: Callable[[], _Metadata]
    ) -> AsyncGenerator[httpbody_pb2.HttpBody, None]:
        """The rewritten file, and before it the metadata that is known once the rewriter gives its first piece."""
        if came_by_http(context):
            # HTTP clients look for the answer when they have sent everything, and cannot be told of a failure amid it.
            async with self._rewriting.written(file, rewriter) as written:
                digest = (("x-file-size", str(written.size_bytes)), ("x-file-sha256", written.sha256))
                await context.send_initial_metadata((*about(), *digest))
                for number, part in enumerate(written.parts):
                    yield _body(part, is_first=not number)
            return
        size = 0
        async with aclosing(self._rewriting.streamed(file, rewriter)) as pieces:
            async for piece in pieces:
                if not size:
                    await context.send_initial_metadata(about())
                yield _body(piece, is_first=not size)
                size += len(piece)
        context.set_trailing_metadata((("x-file-size", str(size)),))


def _body(data: bytes, *, is_first: bool) -> httpbody_pb2.HttpBody:
    return httpbody_pb2.HttpBody(content_type="application/dicom" if is_first else "", data=data)
