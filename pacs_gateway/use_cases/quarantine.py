"""Keeping files that are refused for whose they are, as they came, until somebody decides about them.

Whether a file is refused is known when its beginning is; so the beginning is held until then, and the rest is read
only of a file that is. It is kept only when all of it has come and tag_service found it whole. Nothing of this changes
what its sender is told but for the metadata of the refusal, which say what became of the file.
"""

import uuid
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from uuid import UUID

import structlog

from pacs_gateway.domain.identifiers import is_uid, orthanc_id
from pacs_gateway.domain.ledger import Content, FileState, LedgerFile, Step
from pacs_gateway.domain.quarantine import KEPT_FOR, QuarantinedFile, Refused, quarantine_unavailable, quarantined
from pacs_gateway.domain.tags import DicomTags, Edits
from pacs_gateway.use_cases.ports import Clock, Database, TagService
from pacs_gateway.use_cases.quarantine_ports import ArrivingFile, QuarantineFolder
from pacs_gateway.use_cases.streams import Keeping, Replayable, to_the_end
from service_runtime.errors import Reason, ServiceError
from service_runtime.logs import describe

log = structlog.get_logger()

QUARANTINE_ID = "quarantine_id"
QUARANTINE_ERROR = "quarantine_error"


class Retraceable:
    """Chunks that can be had once more, from the first on, until `forget`: till then, what has come of them is held.

    Where there is no room to hold it, it is forgotten. A plain object and no generator: a wait for the next chunk may
    be cancelled and made again. An error is held, too, for nobody may have taken notice of it.
    """

    def __init__(self, chunks: AsyncIterable[bytes], keeping: Keeping) -> None:
        """`chunks` can be iterated anew where an iteration was cancelled, and go on where that was; at the end, too."""
        self._source = chunks
        self._chunks = aiter(chunks)
        self._keeping = keeping
        self._held: list[bytes] = []
        self._forgotten = False
        self._error: Exception | None = None
        self._waiting = False

    def __aiter__(self) -> "Retraceable":
        return self

    async def __anext__(self) -> bytes:
        self._waiting = True
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            raise
        except Exception as error:
            self._error = error
            raise
        finally:
            self._waiting = False
        self._hold(chunk)
        return chunk

    def forget(self) -> None:
        """Holds nothing, from now on."""
        self._keeping.give_back(sum(map(len, self._held)))
        self._held.clear()
        self._forgotten = True

    async def again(self) -> AsyncGenerator[bytes, None]:
        """The chunks from the first to the last, once nobody waits for the next one any more. Raises
        QUARANTINE_UNAVAILABLE where they are forgotten.
        """
        if self._waiting:
            # Of two readers at a time each would miss what the other gets.
            raise RuntimeError
        if self._forgotten:
            raise quarantine_unavailable()
        self._held.reverse()
        while self._held:
            chunk = self._held.pop()
            self._keeping.give_back(len(chunk))
            yield chunk
        if self._error is not None:
            raise self._error
        async for later in self._source:
            yield later

    def _hold(self, chunk: bytes) -> None:
        if self._forgotten:
            return
        try:
            self._keeping.take(len(chunk))
        except ServiceError:
            self.forget()
            return
        self._held.append(chunk)


class Quarantine:
    """Takes files in."""

    def __init__(
        self,
        *,
        database: Database,
        folder: QuarantineFolder,
        tag_service: TagService,
        clock: Clock,
        keeping: Keeping,
        max_bytes: int,
    ) -> None:
        """All files together may take up `max_bytes`."""
        self._database = database
        self._folder = folder
        self._tag_service = tag_service
        self._clock = clock
        self._keeping = keeping
        self._max_bytes = max_bytes

    def watch(self, chunks: AsyncIterable[bytes]) -> Retraceable:
        """The chunks of a file that may come to be refused."""
        return Retraceable(chunks, self._keeping)

    async def take(self, refusal: ServiceError, chunks: Retraceable, refused: Refused) -> None:
        """Keeps the file, where it is refused for whose it is; the refusal says what became of it."""
        if refusal.reason not in KEPT_FOR:
            return
        try:
            file_id = await self._keep(refusal, chunks, refused)
        except ServiceError as error:
            refusal.metadata[QUARANTINE_ERROR] = error.reason
            log.warning("file not quarantined", reason=error.reason)
        except Exception as error:  # noqa: BLE001 - the sender is to be told of the refusal, and of nothing else
            refusal.metadata[QUARANTINE_ERROR] = Reason.INTERNAL_ERROR
            log.error("defect", **describe(error))  # noqa: TRY400 - it would log the text
        else:
            refusal.metadata[QUARANTINE_ID] = str(file_id)

    async def _keep(self, refusal: ServiceError, chunks: Retraceable, refused: Refused) -> UUID:
        file_id = uuid.uuid4()
        async with self._database.begin() as work:
            room = self._max_bytes - await work.quarantine.total_bytes()
        async with self._folder.arriving(file_id, room=room) as arriving:
            tags = await self._receive(chunks, arriving)

            async def enter() -> UUID:
                content = await arriving.stay()
                return await self._enter(
                    quarantined(file_id, refused, refusal, tags, content, at=self._clock()), refused
                )

            return await to_the_end(enter())

    async def _receive(self, chunks: Retraceable, arriving: ArrivingFile) -> DicomTags:
        """Has all of the file come in; its tags. Raises what tag_service finds wrong with it, to its very end."""
        async with aclosing(chunks.again()) as coming, aclosing(Replayable(coming, self._keeping)) as source:
            tags = await self._tag_service.read_tags(source.beginning())
            async with (
                aclosing(arriving.passing(source.whole())) as passing,
                aclosing(self._tag_service.modify(passing, Edits())) as checked,
            ):
                async for _ in checked:
                    pass
        return tags

    async def _enter(self, file: QuarantinedFile, refused: Refused) -> UUID:
        """Notes a file that is in the folder; the id of the one that has its bytes. The file is there before its entry
        is, for one without an entry is swept, but an entry without a file is a loss.
        """
        try:
            async with self._database.begin() as work:
                kept = await work.quarantine.add(file, max_bytes=self._max_bytes)
                await work.ledger.write(Step(_ledger_entry(file, refused)))
                await work.commit()
        except ServiceError as error:
            # Where it is not known whether the entry is there, the file stays.
            if error.retry_after is None:
                await self._folder.remove([file.id])
            raise
        if kept != file.id:
            await self._folder.take_place(file.id, kept)
        log.info("file quarantined", quarantine_id=str(kept), reason=file.reason)
        return kept


def _ledger_entry(file: QuarantinedFile, refused: Refused) -> LedgerFile:
    # As it came, which may be otherwise than it was judged, it need not have any.
    came = (file.study_instance_uid, file.series_instance_uid, file.sop_instance_uid)
    study, series, instance = identifiers = [uid if is_uid(uid) else "" for uid in came]
    return LedgerFile(
        id=uuid.uuid4(),
        upload_id=refused.upload_id,
        upload_log_id=None,
        uploaded_by_id=file.uploaded_by_id,
        upload_source=file.upload_source,
        study_instance_uid=study,
        series_instance_uid=series,
        sop_instance_uid=instance,
        orthanc_id=orthanc_id(file.original_patient_id, *identifiers),
        filename=file.filename,
        edits_sha256=refused.edits_sha256,
        received_at=file.refused_at,
        source=Content(file.source.size_bytes, file.source.sha256),
        state=FileState.QUARANTINED,
        error=file.reason,
        finished_at=file.refused_at,
        session_id=refused.options.session_id,
    )
