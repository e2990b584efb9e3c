"""What the quarantine needs from outside. Every error that its adapters raise is a ServiceError."""

from collections.abc import AsyncGenerator, AsyncIterable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol
from uuid import UUID

from pacs_gateway.domain.ledger import Content
from pacs_gateway.domain.paging import Page, PageRequest
from pacs_gateway.domain.quarantine import (
    FoundFile,
    QuarantinedFile,
    QuarantineEntry,
    QuarantineEvent,
    QuarantineFilter,
    QuarantineState,
)


class QuarantineEntries(Protocol):
    """The files in the quarantine, and what was done with each."""

    async def total_bytes(self) -> int:
        """The size of all open files together."""

    async def add(self, file: QuarantinedFile, *, max_bytes: int) -> UUID:
        """Adds a file, or counts another refusal of the one with the same bytes; its id. Raises QUARANTINE_FULL where
        all open files together would be larger than that.
        """

    async def entry(self, file_id: UUID) -> QuarantineEntry | None:
        """The file with this id, with the last of what was done with it."""

    async def page(self, request: PageRequest, wanted: QuarantineFilter) -> Page[QuarantineEntry]:
        """A page of files, those refused last first."""

    async def claim(self, file_id: UUID, *, lease_seconds: float) -> QuarantinedFile | None:
        """Takes an open file for this gateway, again where it has it; None where it is not open, or taken by another. A
        gateway without a sign of life for `lease_seconds` has it no more.
        """

    async def settle(self, file: QuarantinedFile, event: QuarantineEvent | None = None) -> None:
        """Says how a file stands that this gateway took, and what was done with it, and lets it go."""

    async def expire(self, *, before: datetime, at: datetime, lease_seconds: float, limit: int) -> Sequence[UUID]:
        """Closes open files whose last refusal lies before then, so many and none that is taken; which they are."""

    async def states(self, file_ids: Collection[UUID]) -> Mapping[UUID, QuarantineState]:
        """How those of the files stand that there are."""

    async def open_files(self, *, after: UUID | None, limit: int) -> Sequence[QuarantinedFile]:
        """Open files by id, those after one."""

    async def mark(self, file_ids: Collection[UUID], state: QuarantineState, event: QuarantineEvent) -> None:
        """Says of open files that they are lost, or are not."""


class ArrivingFile(Protocol):
    """A file on its way into the quarantine's folder."""

    def passing(self, chunks: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
        """The chunks, each written before it goes on."""

    async def stay(self) -> Content:
        """Makes the file last; what it is, but for its MD5."""


class QuarantineFolder(Protocol):
    """Where the bytes of the files in the quarantine lie. Everything of it raises QUARANTINE_UNAVAILABLE."""

    def arriving(self, file_id: UUID, *, room: int) -> AbstractAsyncContextManager[ArrivingFile]:
        """A file that comes in: unless it is made to stay, nothing of it does. Raises QUARANTINE_FULL where all that is
        coming in is larger than `room`, or the disk is full.
        """

    def read(self, file_id: UUID) -> AsyncGenerator[bytes, None]:
        """The bytes of a file. Raises QUARANTINED_FILE_LOST."""

    async def take_place(self, file_id: UUID, of: UUID) -> None:
        """Puts a file where another with the same bytes is, or was."""

    async def remove(self, file_ids: Collection[UUID]) -> None:
        """Removes files; no error for those that are not there."""

    async def remove_parts(self, file_ids: Collection[UUID]) -> None:
        """Removes what has come of files that never came whole."""

    async def sizes(self, file_ids: Collection[UUID]) -> Mapping[UUID, int]:
        """The sizes of those of the files that are there."""

    def found(self) -> AsyncGenerator[Sequence[FoundFile], None]:
        """All that lies in the folder, some at a time."""
