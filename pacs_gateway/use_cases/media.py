"""Keeping track of the files of an archive, until its DICOMDIRs can be held against them."""

from collections.abc import AsyncIterable, Iterator, Sequence

from pacs_gateway.domain.media import DirectoryRecord, DirectoryReport, MediaFile, compare
from pacs_gateway.use_cases.ports import TagService
from service_runtime.errors import Reason, ServiceError

# An image has some 500 bytes in a DICOMDIR.
_MAX_DIRECTORY_BYTES = 4 * 1024 * 1024


class Medium:
    """One archive. Its files are added as they come, its DICOMDIRs read; what comes of these is known at its end."""

    def __init__(self, tag_service: TagService) -> None:
        self._tag_service = tag_service
        self._files: list[MediaFile] = []
        self._directories: list[tuple[str, Sequence[DirectoryRecord] | ServiceError]] = []

    def add(self, path: str, *, sop_instance_uid: str = "") -> None:
        """A DICOM file came, stored or not; its SOP instance is told where it is known."""
        self._files.append(MediaFile(path, sop_instance_uid))

    async def read_directory(self, path: str, chunks: AsyncIterable[bytes]) -> None:
        """A DICOMDIR comes. What is wrong with it is told at the end, too."""
        try:
            records = await self._tag_service.read_directory(_bounded(chunks))
        except ServiceError as error:
            self._directories.append((path, error))
        else:
            self._directories.append((path, records))

    def directories(self) -> Iterator[DirectoryReport | ServiceError]:
        """Of each DICOMDIR, how it agrees with the files, or why it could not be read."""
        for path, records in self._directories:
            yield records if isinstance(records, ServiceError) else compare(path, records, self._files)


async def _bounded(chunks: AsyncIterable[bytes]) -> AsyncIterable[bytes]:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > _MAX_DIRECTORY_BYTES:
            raise ServiceError(
                Reason.STRUCTURE_LIMIT,
                f"The DICOMDIR has more than {_MAX_DIRECTORY_BYTES} bytes, and is not compared with the files.",
                metadata={"limit": "DICOMDIR bytes", "limit_bytes": str(_MAX_DIRECTORY_BYTES)},
            )
        yield chunk
