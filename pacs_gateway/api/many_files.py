"""The answers of UploadService.UploadMultiple: one for each file, whatever becomes of its neighbours."""

from collections.abc import AsyncIterator, Iterator

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


class ManyFiles:
    """Stores the files of one upload. `keeps_instances`: its edits give no file another SOPInstanceUID."""

    def __init__(self, upload: Upload, directories: DirectoryReader, *, keeps_instances: bool) -> None:
        self._upload = upload
        self._directories = directories
        self._keeps_instances = keeps_instances
        self._archive = 0
        self._medium = Medium(directories)

    async def answers(self, reader: UploadReader) -> AsyncIterator[UploadMultipleResponse]:
        """An answer for each file, in order, but for DICOMDIRs, whose comes at the end of their archive. Raises what
        breaks the request where nothing was answered before; else the last answer says it.
        """
        answered = False
        try:
            async for file in reader.files():
                for one in self._ended(unless=file.archive):
                    yield one
                    answered = True
                answer = await self._answer(file)
                if answer is not None:
                    yield answer
                    answered = True
        except ServiceError as error:
            # What has not come cannot be missing: no DICOMDIR is held against half of its archive.
            if not answered:
                raise
            yield failure_to_proto("", error)
        else:
            for one in self._ended():
                yield one

    def _ended(self, *, unless: int = 0) -> Iterator[UploadMultipleResponse]:
        """The answers for the DICOMDIRs of the archive before, unless the file is of the same."""
        if unless and unless == self._archive:
            return
        ended, self._medium, self._archive = self._medium, Medium(self._directories), unless
        for report in ended.directories():
            yield directory_to_proto(report)

    async def _answer(self, file: UploadedFile) -> UploadMultipleResponse | None:
        """What becomes of one file; None of a DICOMDIR. Nothing about it may fail its neighbours."""
        try:
            if file.path is not None and is_directory(file.path or file.name):
                await self._medium.read_directory(file.path, file)
                return None
            stored = await self._upload.store(file.name, file)
        except ServiceError as error:
            if file.path is not None and error.reason in NO_DICOM:
                return skipped_to_proto(file.name, error)
            self._add(file)
            log.info("file failed", reason=error.reason, **(describe(error) if error.__cause__ is not None else {}))
            return failure_to_proto(file.name, error)
        except Exception as error:  # noqa: BLE001 - as the interceptor does for a call of one file
            self._add(file)
            log.error("defect", **describe(error))  # noqa: TRY400 - it would log the text
            return failure_to_proto(file.name, defect())
        self._add(file, sop_instance_uid=stored.tags.sop_instance_uid if self._keeps_instances else "")
        return UploadMultipleResponse(**stored_to_fields(file.name, stored))

    def _add(self, file: UploadedFile, *, sop_instance_uid: str = "") -> None:
        if file.path:
            self._medium.add(file.path, sop_instance_uid=sop_instance_uid)


def defect() -> ServiceError:
    """The error for what nobody foresaw: no exception's text may reach a client."""
    return ServiceError(Reason.INTERNAL_ERROR, "A defect of the service. Report it with the request id.")
