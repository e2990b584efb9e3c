"""ris.pacs.v1.QuarantineService."""

from typing import Any
from uuid import UUID

from grpc.aio import ServicerContext

from pacs_gateway.api.fields import Fields
from pacs_gateway.api.mapping import quarantined_to_proto, stored_to_fields
from pacs_gateway.api.options import options_of
from pacs_gateway.api.paging import next_page_token, page_request
from pacs_gateway.domain.quarantine import QuarantineEntry, QuarantineFilter, QuarantineState
from pacs_gateway.domain.upload import OnConflict
from pacs_gateway.use_cases.quarantined_files import QuarantinedFiles
from ris.pacs.v1 import quarantine_service_pb2, quarantine_service_pb2_grpc, upload_service_pb2
from service_runtime.errors import Reason, ServiceError
from service_runtime.identity import CALLER

_Context = ServicerContext[Any, Any]
_MAX_REASON = 500


class QuarantineServicer(quarantine_service_pb2_grpc.QuarantineServiceServicer):
    """Reads the requests, has the use case do the work, and words the answers."""

    def __init__(self, *, files: QuarantinedFiles | None) -> None:
        """Without `files` the quarantine is off."""
        self._switched_on = files

    async def ListQuarantinedFiles(  # noqa: N802 - gRPC's names
        self,
        request: quarantine_service_pb2.ListQuarantinedFilesRequest,
        context: _Context,  # noqa: ARG002
    ) -> quarantine_service_pb2.ListQuarantinedFilesResponse:
        """Lists files."""
        fields = Fields()
        page = page_request(fields, request)
        wanted = _filter(fields, request)
        fields.expect_valid()
        found = await self._files.page(wanted, page)
        return quarantine_service_pb2.ListQuarantinedFilesResponse(
            quarantined_files=map(self._to_proto, found.items),
            next_page_token=next_page_token(request, found.last),
            total_size=found.total_size,
        )

    async def GetQuarantinedFile(  # noqa: N802
        self,
        request: quarantine_service_pb2.GetQuarantinedFileRequest,
        context: _Context,  # noqa: ARG002
    ) -> quarantine_service_pb2.GetQuarantinedFileResponse:
        """Gets one file."""
        file = await self._get(_id_of(request))
        return quarantine_service_pb2.GetQuarantinedFileResponse(quarantined_file=file)

    async def RetryQuarantinedFile(  # noqa: N802
        self,
        request: quarantine_service_pb2.RetryQuarantinedFileRequest,
        context: _Context,  # noqa: ARG002
    ) -> quarantine_service_pb2.RetryQuarantinedFileResponse:
        """Tries to store a file."""
        file_id, options = _id_of(request), options_of(request)
        if options.on_conflict is OnConflict.KEEP:
            fields = Fields()
            fields.wrong("on_conflict", "must be REJECT or OVERWRITE; to keep what the PACS holds, discard the file")
            fields.expect_valid()
        stored = await self._files.retry(
            file_id, options, same_source=not request.upload_source, by=CALLER.get().user_id
        )
        file = await self._get(file_id)
        return quarantine_service_pb2.RetryQuarantinedFileResponse(
            upload=upload_service_pb2.UploadResponse(**stored_to_fields(file.filename, stored)),
            quarantined_file=file,
        )

    async def DiscardQuarantinedFile(  # noqa: N802
        self,
        request: quarantine_service_pb2.DiscardQuarantinedFileRequest,
        context: _Context,  # noqa: ARG002
    ) -> quarantine_service_pb2.DiscardQuarantinedFileResponse:
        """Throws a file away."""
        fields = Fields()
        file_id = fields.uuid("id", request.id)
        reason = fields.text("reason", request.reason, max_length=_MAX_REASON)
        fields.expect_valid()
        await self._files.discard(file_id, reason=reason, by=CALLER.get().user_id)
        return quarantine_service_pb2.DiscardQuarantinedFileResponse(quarantined_file=await self._get(file_id))

    @property
    def _files(self) -> QuarantinedFiles:
        """The use case. Raises QUARANTINE_OFF."""
        if self._switched_on is None:
            raise ServiceError(Reason.QUARANTINE_OFF, "This gateway has no quarantine: QUARANTINE_DIR is not set.")
        return self._switched_on

    async def _get(self, file_id: UUID) -> quarantine_service_pb2.QuarantinedFile:
        return self._to_proto(await self._files.get(file_id))

    def _to_proto(self, entry: QuarantineEntry) -> quarantine_service_pb2.QuarantinedFile:
        return quarantined_to_proto(entry, expires_at=self._files.expires_at(entry.file))


def _id_of(request: Any) -> UUID:
    fields = Fields()
    file_id = fields.uuid("id", request.id)
    fields.expect_valid()
    return file_id


def _filter(fields: Fields, request: quarantine_service_pb2.ListQuarantinedFilesRequest) -> QuarantineFilter:
    since, until = fields.period(request, "uploaded_from", "uploaded_until")
    return QuarantineFilter(
        reason=fields.choice("reason", request.reason, Reason) if request.reason else None,
        patient_id=fields.optional_uuid("patient_id", request.patient_id),
        state=fields.choice("state", request.state, QuarantineState) if request.state else None,
        uploaded_from=since,
        uploaded_until=until,
    )
