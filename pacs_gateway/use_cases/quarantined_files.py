"""Deciding about the files in the quarantine: looking at them, trying to store them, throwing them away."""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from pacs_gateway.domain.ledger import Content
from pacs_gateway.domain.paging import Page, PageRequest
from pacs_gateway.domain.quarantine import (
    QuarantineAction,
    QuarantinedFile,
    QuarantineEntry,
    QuarantineEvent,
    QuarantineFilter,
    QuarantineState,
    file_lost,
    is_final,
)
from pacs_gateway.domain.upload import StoredFile, UploadOptions, UploadSource
from pacs_gateway.use_cases.ports import Clock, Database
from pacs_gateway.use_cases.quarantine import QUARANTINE_ID
from pacs_gateway.use_cases.quarantine_ports import QuarantineFolder
from pacs_gateway.use_cases.streams import to_the_end
from pacs_gateway.use_cases.uploads import Uploads
from service_runtime.errors import Reason, ServiceError, not_found

log = structlog.get_logger()

_RETRY_SECONDS = 5


class QuarantinedFiles:
    """Gets, lists, retries and discards."""

    def __init__(
        self,
        *,
        database: Database,
        folder: QuarantineFolder,
        uploads: Uploads,
        clock: Clock,
        days: float,
        lease_seconds: float,
    ) -> None:
        """A file is kept for so many `days`. A gateway without a sign of life for `lease_seconds` is dead."""
        self._database = database
        self._folder = folder
        self._uploads = uploads
        self._clock = clock
        self._age = timedelta(days=days)
        self._lease = lease_seconds
        # What this gateway decides about; the database may say longer than it does that it has a file.
        self._trying: set[UUID] = set()

    def expires_at(self, file: QuarantinedFile) -> datetime:
        """When the gateway discards the file by itself."""
        return file.refused_at + self._age

    async def get(self, file_id: UUID) -> QuarantineEntry:
        """The file, with what was done with it. Raises QUARANTINED_FILE_NOT_FOUND."""
        async with self._database.begin() as work:
            entry = await work.quarantine.entry(file_id)
        if entry is None:
            raise not_found(Reason.QUARANTINED_FILE_NOT_FOUND, "quarantined file", str(file_id))
        return entry

    async def page(self, wanted: QuarantineFilter, request: PageRequest) -> Page[QuarantineEntry]:
        """A page of files, those refused last first."""
        async with self._database.begin() as work:
            return await work.quarantine.page(request, wanted)

    async def retry(self, file_id: UUID, options: UploadOptions, *, same_source: bool, by: UUID) -> StoredFile:
        """Stores the file as an upload of it would, and releases it; `same_source`: it comes from where the refused
        upload came from. Raises QUARANTINED_FILE_NOT_FOUND, QUARANTINED_FILE_CLOSED, QUARANTINED_FILE_BUSY,
        QUARANTINED_FILE_LOST, and what the upload raises: the file stays in the quarantine then.
        """
        known = (await self.get(file_id)).file
        if same_source:
            options = replace(options, source=UploadSource(known.upload_source))
        upload = await self._uploads.open(options, by=by, keeps_refused=False)
        async with self._claimed(file_id) as file:
            try:
                async with aclosing(self._bytes_of(file)) as chunks:
                    stored = await upload.store(file.filename, chunks)
            except ServiceError as error:
                error.metadata[QUARANTINE_ID] = str(file_id)
                await to_the_end(self._note_failure(file, error, by=by))
                raise
            except BaseException:
                await to_the_end(self._settle(file))
                raise
            await to_the_end(self._release(file, by=by))
        return stored

    async def discard(self, file_id: UUID, *, reason: str, by: UUID) -> None:
        """Throws the file away. Raises QUARANTINED_FILE_NOT_FOUND, QUARANTINED_FILE_CLOSED, QUARANTINED_FILE_BUSY."""
        with self._alone(file_id):
            file = await self._throw_away(file_id, reason=reason, by=by)
        if file is None:
            raise await self._why_not(file_id)
        log.info("quarantined file discarded", quarantine_id=str(file_id))
        await to_the_end(self._remove(file))

    @contextmanager
    def _alone(self, file_id: UUID) -> Iterator[None]:
        """Nobody else at this gateway decides about the file meanwhile, for the database would give it to them, too.
        Raises QUARANTINED_FILE_BUSY.
        """
        if file_id in self._trying:
            raise _busy()
        self._trying.add(file_id)
        try:
            yield
        finally:
            self._trying.discard(file_id)

    async def _throw_away(self, file_id: UUID, *, reason: str, by: UUID) -> QuarantinedFile | None:
        """The file, which is discarded; None where it cannot be had."""
        async with self._database.begin() as work:
            file = await work.quarantine.claim(file_id, lease_seconds=self._lease)
            if file is not None:
                event = QuarantineEvent(QuarantineAction.DISCARDED, self._clock(), by, reason)
                await work.quarantine.settle(replace(file, state=QuarantineState.DISCARDED), event)
                await work.commit()
        return file

    @asynccontextmanager
    async def _claimed(self, file_id: UUID) -> AsyncIterator[QuarantinedFile]:
        """The file, which nobody else may have meanwhile."""
        with self._alone(file_id):
            async with self._database.begin() as work:
                file = await work.quarantine.claim(file_id, lease_seconds=self._lease)
                await work.commit()
            if file is None:
                raise await self._why_not(file_id)
            yield file

    async def _why_not(self, file_id: UUID) -> ServiceError:
        """Why a file cannot be had. Raises QUARANTINED_FILE_NOT_FOUND."""
        if (await self.get(file_id)).file.is_open:
            return _busy()
        return ServiceError(
            Reason.QUARANTINED_FILE_CLOSED,
            "The file is in the quarantine no more: it was released, discarded, or its time is over.",
        )

    async def _bytes_of(self, file: QuarantinedFile) -> AsyncGenerator[bytes, None]:
        """What is kept of the file, which is complete only when the iteration ends. Raises QUARANTINED_FILE_LOST where
        it is not what came.
        """
        size, sha256 = 0, hashlib.sha256()
        async with aclosing(self._folder.read(file.id)) as chunks:
            async for chunk in chunks:
                size += len(chunk)
                sha256.update(chunk)
                yield chunk
        if Content(size, sha256.hexdigest()) != file.source:
            raise file_lost()

    async def _note_failure(self, file: QuarantinedFile, error: ServiceError, *, by: UUID) -> None:
        event = QuarantineEvent(QuarantineAction.RETRIED, self._clock(), by, error.reason)
        await self._settle(file.refused_again(error.reason) if is_final(error) else file, event)

    async def _settle(self, file: QuarantinedFile, event: QuarantineEvent | None = None) -> None:
        """Lets a file go that stays. Where that cannot be noted, this gateway, or later another, may take it all the
        same.
        """
        try:
            await self._note(file, event)
        except ServiceError as failure:
            log.warning("quarantine not updated", quarantine_id=str(file.id), reason=failure.reason)

    async def _release(self, file: QuarantinedFile, *, by: UUID) -> None:
        """Closes a file that is stored. Where that cannot be noted, the next try finds it stored already."""
        event = QuarantineEvent(QuarantineAction.RELEASED, self._clock(), by)
        await self._note(replace(file, state=QuarantineState.RELEASED), event)
        log.info("quarantined file released", quarantine_id=str(file.id))
        await self._remove(file)

    async def _note(self, file: QuarantinedFile, event: QuarantineEvent | None) -> None:
        async with self._database.begin() as work:
            await work.quarantine.settle(file, event)
            await work.commit()

    async def _remove(self, file: QuarantinedFile) -> None:
        """Removes the bytes of a file that is closed. What cannot be removed is swept later."""
        try:
            await self._folder.remove([file.id])
        except ServiceError as failure:
            log.warning("quarantine not cleaned up", reason=failure.reason)


def _busy() -> ServiceError:
    return ServiceError(
        Reason.QUARANTINED_FILE_BUSY, "Somebody is trying to store the file. Retry.", retry_after=_RETRY_SECONDS
    )
