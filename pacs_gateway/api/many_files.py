"""The answers of UploadService.UploadMultiple: one for each file, whatever becomes of its neighbours.

Small files are stored side by side: while Orthanc takes one in, the next one comes. Their answers keep the files'
order, and each is given as soon as it and all before it are known, also while the sender pauses.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import structlog

from pacs_gateway.api.mapping import directory_to_proto, failure_to_proto, skipped_to_proto, stored_to_fields
from pacs_gateway.domain.media import is_directory
from pacs_gateway.use_cases.media import DirectoryReader, Medium
from pacs_gateway.use_cases.uploads import Upload
from ris.pacs.v1.upload_service_pb2 import UploadMultipleResponse
from service_runtime.errors import Reason, ServiceError
from service_runtime.logs import describe
from service_runtime.uploads import UploadedFile, UploadReader

log = structlog.get_logger()

# CDs carry viewers, pictures and texts beside their DICOM files.
NO_DICOM = frozenset({Reason.NOT_DICOM, Reason.EMPTY_FILE})
# How many files of one upload are stored side by side. Orthanc gains nothing by more.
_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class _Fate:
    """What became of a file. `sop_instance_uid` is told where it is known what the PACS holds of it."""

    answer: UploadMultipleResponse
    is_dicom: bool = True
    sop_instance_uid: str = ""


@dataclass(frozen=True, slots=True)
class _Place:
    """A file's place among the answers; without a fate, the end of an archive."""

    medium: Medium
    path: str = ""
    fate: "asyncio.Task[_Fate | None] | None" = None

    def answers(self) -> Iterator[UploadMultipleResponse]:
        """The answers of this place, once its fate is known."""
        if self.fate is None:
            yield from map(directory_to_proto, self.medium.directories())
            return
        fate = self.fate.result()
        if fate is None:
            return
        if self.path and fate.is_dicom:
            self.medium.add(self.path, sop_instance_uid=fate.sop_instance_uid)
        yield fate.answer


class ManyFiles:
    """Stores the files of one upload. `keeps_instances`: its edits give no file another SOPInstanceUID."""

    def __init__(self, upload: Upload, directories: DirectoryReader, *, keeps_instances: bool) -> None:
        self._upload = upload
        self._directories = directories
        self._keeps_instances = keeps_instances
        self._archive = 0
        self._medium = Medium(directories)
        self._places: deque[_Place] = deque()

    async def answers(self, reader: UploadReader) -> AsyncIterator[UploadMultipleResponse]:
        """An answer for each file, in order, but for DICOMDIRs, whose comes at the end of their archive. Raises what
        breaks the request where nothing was answered before; else the last answer says it.
        """
        answered = False
        broken: ServiceError | None = None
        async with aclosing(reader.files()) as files, aclosing(self._taken_in(files)) as coming:
            try:
                async for answer in coming:
                    yield answer
                    answered = True
            except ServiceError as error:
                broken = error
        # What has not come cannot be missing: no DICOMDIR is held against half of its archive.
        if broken is None:
            for answer in _Place(self._medium).answers():
                yield answer
        elif answered:
            yield failure_to_proto("", broken)
        else:
            raise broken

    async def _taken_in(
        self, files: AsyncGenerator[UploadedFile, None]
    ) -> AsyncGenerator[UploadMultipleResponse, None]:
        """The answers, while the files come. Raises what breaks the request, once all before it is answered."""
        coming: asyncio.Task[bool] | None = None
        try:
            while coming is None or coming.result():
                coming = asyncio.create_task(self._take_next(files))
                async for place in self._known(until=coming):
                    for answer in place.answers():
                        yield answer
        finally:
            tasks: list[asyncio.Task[Any]] = [place.fate for place in self._places if place.fate is not None]
            tasks += [coming] if coming is not None else []
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    async def _known(self, *, until: "asyncio.Task[bool]") -> AsyncIterator[_Place]:
        """The places of which the fate is known, in order, until the next file is here and may begin: all of them
        where there is no next one.
        """
        while True:
            head = self._places[0].fate if self._places else None
            is_over = until.done() and (until.exception() is not None or not until.result())
            if until.done() and (not self._places or (len(self._places) < _AT_ONCE and not is_over)):
                return
            waited_for = {task for task in (head, None if until.done() else until) if task is not None}
            if self._places and (head is None or head.done()):
                yield self._places.popleft()
            else:
                await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)

    async def _take_next(self, files: AsyncGenerator[UploadedFile, None]) -> bool:
        """Takes in the next file, and has it stored; whether there was one. Waits for one that is not small."""
        file = await anext(files, None)
        if file is None:
            return False
        if self._archive and file.archive != self._archive:
            self._places.append(_Place(self._medium))
        if file.archive != self._archive:
            self._archive, self._medium = file.archive, Medium(self._directories)
        is_read = asyncio.Event()
        fate = asyncio.create_task(self._fate_of(file, is_read))
        fate.add_done_callback(lambda _: is_read.set())
        self._places.append(_Place(self._medium, file.path or "", fate))
        await is_read.wait()
        return True

    async def _fate_of(self, file: UploadedFile, is_read: asyncio.Event) -> _Fate | None:
        """What becomes of a file; None of a DICOMDIR. Nothing about it may fail its neighbours. Says when its sender
        may go on.
        """
        try:
            if file.path is not None and is_directory(file.path or file.name):
                await self._medium.read_directory(file.path, file)
                return None
            async with aclosing(await self._upload.take(file.name, file)) as taken:
                if taken.has_come:
                    is_read.set()
                stored = await taken.store()
        except ServiceError as error:
            if file.path is not None and error.reason in NO_DICOM:
                return _Fate(skipped_to_proto(file.name, error), is_dicom=False)
            log.info("file failed", reason=error.reason, **(describe(error) if error.__cause__ is not None else {}))
            return _Fate(failure_to_proto(file.name, error))
        except Exception as error:  # noqa: BLE001 - as the interceptor does for a call of one file
            log.error("defect", **describe(error))  # noqa: TRY400 - it would log the text
            return _Fate(failure_to_proto(file.name, defect()))
        answer = UploadMultipleResponse(**stored_to_fields(file.name, stored))
        return _Fate(answer, sop_instance_uid=stored.tags.sop_instance_uid if self._keeps_instances else "")


def defect() -> ServiceError:
    """The error for what nobody foresaw: no exception's text may reach a client."""
    return ServiceError(Reason.INTERNAL_ERROR, "A defect of the service. Report it with the request id.")
