"""Files whose sender keeps what he is told that nobody needs to see (ModifyTagsRequest.by_reference)."""

from collections.abc import AsyncGenerator, AsyncIterator

from ris.tags.v1 import tag_service_pb2
from service_runtime.bodies import RAW_TYPES
from service_runtime.errors import InvalidFieldError, Reason, Violation
from service_runtime.uploads import UploadLimits
from service_runtime.zip_format import too_large
from tag_service.use_cases.rewriting import Gap


class KeptFile:
    """The chunks of such a file as they come in, and the gaps where its sender keeps some."""

    def __init__(
        self,
        first: tag_service_pb2.ModifyTagsRequest,
        rest: AsyncIterator[tag_service_pb2.ModifyTagsRequest],
        limits: UploadLimits,
    ) -> None:
        self._first = first
        self._rest = rest
        self._limits = limits

    async def __aiter__(self) -> AsyncGenerator[bytes | Gap, None]:
        """The chunks and gaps, once. Raises FILE_TOO_LARGE, UPLOAD_STALLED, INVALID_FIELD."""
        if self._first.file.content_type not in RAW_TYPES:
            raise InvalidFieldError(Violation("by_reference", "is for a file that is sent as it is"))
        message: tag_service_pb2.ModifyTagsRequest | None = self._first
        size, limit = 0, self._limits.file_bytes
        while message is not None:
            # Each time it is asked for, protobuf gives a copy.
            data = message.file.data
            size += len(data) + max(message.skipped, 0)
            if size > limit:
                raise too_large(Reason.FILE_TOO_LARGE, "The file", "MAX_DICOM_FILE_SIZE_MB", limit)
            if data:
                yield data
            if message.skipped:
                yield Gap(message.skipped)
            if message.end_of_file:
                return
            message = await anext(self._rest, None)
        # As when the sender went away: what came must not pass for the whole file.
        raise InvalidFieldError(Violation("end_of_file", "has to be said with by_reference"))
