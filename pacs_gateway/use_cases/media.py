"""Keeping track of the files of an archive, until its DICOMDIRs can be held against them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterator, Sequence

from pacs_gateway.domain.media import DirectoryRecord, DirectoryReport, MediaFile, compare
from pacs_gateway.use_cases.ports import TagService
from pacs_gateway.use_cases.streams import Keeping
from service_runtime.errors import Reason, ServiceError

# For all DICOMDIRs of an archive together. An image takes some 500 bytes in one.
_MAX_DIRECTORY_BYTES = 4 * 1024 * 1024
_MAX_RECORDS = 20_000
# Media have one; several in an archive are several media.
_MAX_DIRECTORIES = 8


class DirectoryReader:
    """Reads DICOMDIRs, one at a time in the process: what one is made into on the way is many times its size."""

    def __init__(self, tag_service: TagService, keeping: Keeping) -> None:
        """What waits for its turn is kept within `keeping`."""
        self._tag_service = tag_service
        self._keeping = keeping
        self._turn = asyncio.Semaphore(1)

    async def read(self, chunks: AsyncIterable[bytes], *, max_bytes: int) -> tuple[int, Sequence[DirectoryRecord]]:
        """The size of a DICOMDIR, and the files that it names. Raises STRUCTURE_LIMIT past `max_bytes`, OVERLOADED,
        and what reading it does.
        """
        kept: list[bytes] = []
        size = 0
        try:
            # All of it first: a turn is not held for a sender who is slow.
            async for chunk in chunks:
                self._keeping.take(len(chunk))
                size += len(chunk)
                kept.append(chunk)
                if size > max_bytes:
                    raise _too_much("bytes", _MAX_DIRECTORY_BYTES)
            async with self._turn:
                return size, await self._tag_service.read_directory(_again(kept))
        finally:
            self._keeping.give_back(size)


class Medium:
    """One archive. Its files are added as they come, its DICOMDIRs read; what comes of these is known at its end."""

    def __init__(self, reader: DirectoryReader) -> None:
        self._reader = reader
        self._files: list[MediaFile] = []
        self._directories: list[tuple[str, Sequence[DirectoryRecord] | ServiceError]] = []
        self._bytes = 0
        self._records = 0

    def add(self, path: str, *, sop_instance_uid: str = "") -> None:
        """A DICOM file came, stored or not; its SOP instance is told where it is known."""
        self._files.append(MediaFile(path, sop_instance_uid))

    async def read_directory(self, path: str, chunks: AsyncIterable[bytes]) -> None:
        """A DICOMDIR comes. What is wrong with it is told at the end, too."""
        try:
            self._directories.append((path, await self._read(chunks)))
        except ServiceError as error:
            self._directories.append((path, error))

    def directories(self) -> Iterator[DirectoryReport | ServiceError]:
        """Of each DICOMDIR, how it agrees with the files, or why it could not be read."""
        for path, records in self._directories:
            yield records if isinstance(records, ServiceError) else compare(path, records, self._files)

    async def _read(self, chunks: AsyncIterable[bytes]) -> Sequence[DirectoryRecord]:
        if len(self._directories) >= _MAX_DIRECTORIES:
            raise _too_much("files", _MAX_DIRECTORIES)
        size, records = await self._reader.read(chunks, max_bytes=_MAX_DIRECTORY_BYTES - self._bytes)
        self._bytes += size
        self._records += len(records)
        if self._records > _MAX_RECORDS:
            raise _too_much("records", _MAX_RECORDS)
        return records


async def _again(kept: list[bytes]) -> AsyncGenerator[bytes, None]:
    for chunk in kept:
        yield chunk


def _too_much(what: str, limit: int) -> ServiceError:
    return ServiceError(
        Reason.STRUCTURE_LIMIT,
        f"The DICOMDIRs of the archive have more than {limit} {what}: this one is not compared with the files.",
        metadata={"limit": f"DICOMDIR {what}", "limit_number": str(limit)},
    )
