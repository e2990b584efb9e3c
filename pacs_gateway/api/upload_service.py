"""ris.pacs.v1.UploadService."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from google.api.httpbody_pb2 import HttpBody
from grpc.aio import ServicerContext

from pacs_gateway.api.fields import Fields
from pacs_gateway.api.many_files import ManyFiles
from pacs_gateway.api.mapping import log_to_proto, stored_to_fields
from pacs_gateway.api.options import expect_may_overwrite, options_of, shared_options
from pacs_gateway.api.paging import next_page_token, page_request
from pacs_gateway.api.preflight import preflight_answers
from pacs_gateway.api.replaying import ContentDigest, are_final, asked_by, request_id_of
from pacs_gateway.api.sessions import expected_files, page_of, session_id_of, session_to_proto, with_options_of
from pacs_gateway.domain.registry import Role
from pacs_gateway.domain.upload import UploadOptions, UploadSource
from pacs_gateway.domain.upload_log import UploadLogFilter, UploadStatus
from pacs_gateway.use_cases.preflight import Preflight
from pacs_gateway.use_cases.requests import Requests
from pacs_gateway.use_cases.sessions import Sessions
from pacs_gateway.use_cases.upload_logs import UploadLogBook
from pacs_gateway.use_cases.uploads import Uploads
from ris.pacs.v1 import upload_service_pb2, upload_service_pb2_grpc, upload_session_pb2
from service_runtime.identity import CALLER
from service_runtime.streams import open_upload
from service_runtime.uploads import ArchiveLimits, UploadLimits

_Context = ServicerContext[Any, Any]
_KEYS_TYPE = "application/jwk-set+json"


class UploadServicer(upload_service_pb2_grpc.UploadServiceServicer):
    """Reads the requests, has the use cases do the work, and words the answers."""

    def __init__(
        self,
        *,
        uploads: Uploads,
        log_book: UploadLogBook,
        requests: Requests,
        sessions: Sessions,
        limits: UploadLimits,
        archives: ArchiveLimits,
    ) -> None:
        self._uploads = uploads
        self._requests = requests
        self._sessions = sessions
        self._log_book = log_book
        self._limits = limits
        self._archives = archives

    async def Upload(  # noqa: N802 - gRPC's names
        self, request_iterator: AsyncIterator[upload_service_pb2.UploadRequest], context: _Context
    ) -> upload_service_pb2.UploadResponse:
        """Stores one file."""
        first, reader = await open_upload(request_iterator, context, self._limits, archives=self._archives)
        options, by = await self._options(first), CALLER.get().user_id
        request_id = request_id_of(first, context)
        content = ContentDigest(reader, wanted=bool(request_id))
        asked = asked_by(first) if request_id else ""
        async with await self._requests.open(request_id, asked, by=by) as request:
            if request.is_replay:
                async for _ in await reader.only_file():
                    pass
                return upload_service_pb2.UploadResponse.FromString(request.replayed(content.value)[0])
            upload = await self._uploads.open(options, by=by)
            file = await reader.only_file()
            stored = await upload.store(file.name, file)
            answer = upload_service_pb2.UploadResponse(**stored_to_fields(file.name, stored))
            await request.finish(content.value, [answer.SerializeToString()])
            return answer

    async def UploadMultiple(  # noqa: N802
        self, request_iterator: AsyncIterator[upload_service_pb2.UploadMultipleRequest], context: _Context
    ) -> AsyncIterator[upload_service_pb2.UploadMultipleResponse]:
        """Stores many files."""
        first, reader = await open_upload(request_iterator, context, self._limits, archives=self._archives)
        options, by = await self._options(first), CALLER.get().user_id
        request_id = request_id_of(first, context)
        content = ContentDigest(reader, wanted=bool(request_id))
        asked = asked_by(first) if request_id else ""
        async with await self._requests.open(request_id, asked, by=by) as request:
            if request.is_replay:
                async for file in reader.files():
                    await file.skip()
                for known in request.replayed(content.value):
                    yield upload_service_pb2.UploadMultipleResponse.FromString(known)
                return
            if not first.upload_source and not first.session_id and await reader.begins_with_archive():
                options = replace(options, source=UploadSource.CD_IMPORT)
            upload = await self._uploads.open(options, by=by)
            files = ManyFiles(upload, self._uploads.directories, keeps_instances=not options.edits.force)
            answers = []
            async for answer in files.answers(reader):
                yield answer
                answers.append(answer)
            if content.complete and are_final(answers):
                await request.finish(content.value, [answer.SerializeToString() for answer in answers])

    async def Preflight(  # noqa: N802
        self, request_iterator: AsyncIterator[upload_service_pb2.PreflightRequest], context: _Context
    ) -> AsyncIterator[upload_service_pb2.PreflightResponse]:
        """Says what an upload of many files would come to."""
        first, reader = await open_upload(request_iterator, context, self._limits, archives=self._archives)
        preflight = await Preflight.of(self._uploads, await self._options(first))
        async for answer in preflight_answers(preflight, reader):
            yield answer

    async def CreateSession(  # noqa: N802
        self,
        request: upload_session_pb2.CreateSessionRequest,
        context: _Context,  # noqa: ARG002
    ) -> upload_session_pb2.CreateSessionResponse:
        """Makes a session."""
        fields = Fields()
        options = shared_options(fields, request)
        files, number = expected_files(
            fields, request, max_files=self._sessions.max_files, max_file_bytes=self._limits.file_bytes
        )
        fields.expect_valid()
        expect_may_overwrite(options)
        await self._uploads.named_by(options)
        made = await self._sessions.create(options, files=files, number_of_files=number, by=CALLER.get().user_id)
        return upload_session_pb2.CreateSessionResponse(session=session_to_proto(made))

    async def GetSession(  # noqa: N802
        self,
        request: upload_session_pb2.GetSessionRequest,
        context: _Context,  # noqa: ARG002
    ) -> upload_session_pb2.GetSessionResponse:
        """Gets a session."""
        fields, caller = Fields(), CALLER.get()
        page = page_request(fields, request)
        session_id = fields.uuid("session_id", request.session_id)
        fields.expect_valid()
        progress = await self._sessions.get(session_id, by=caller.user_id, reads_all=caller.role == Role.ADMIN)
        files, last = page_of(progress, page)
        return upload_session_pb2.GetSessionResponse(
            session=session_to_proto(progress),
            files=files,
            missing=progress.missing if not request.page_token else (),
            next_page_token=next_page_token(request, last),
        )

    async def CompleteSession(  # noqa: N802
        self,
        request: upload_session_pb2.CompleteSessionRequest,
        context: _Context,  # noqa: ARG002
    ) -> upload_session_pb2.CompleteSessionResponse:
        """Completes a session."""
        fields = Fields()
        session_id = fields.uuid("session_id", request.session_id)
        fields.expect_valid()
        done = await self._sessions.complete(session_id, by=CALLER.get().user_id)
        return upload_session_pb2.CompleteSessionResponse(session=session_to_proto(done), receipt=done.session.receipt)

    async def GetReceiptKeys(  # noqa: N802
        self,
        request: upload_session_pb2.GetReceiptKeysRequest,  # noqa: ARG002
        context: _Context,  # noqa: ARG002
    ) -> upload_session_pb2.GetReceiptKeysResponse:
        """Gets the keys of receipts."""
        keys = HttpBody(content_type=_KEYS_TYPE, data=self._sessions.receipt_keys)
        return upload_session_pb2.GetReceiptKeysResponse(jwks=keys)

    async def ListUploadLogs(  # noqa: N802
        self,
        request: upload_service_pb2.ListUploadLogsRequest,
        context: _Context,  # noqa: ARG002
    ) -> upload_service_pb2.ListUploadLogsResponse:
        """Lists upload logs."""
        fields = Fields()
        page = page_request(fields, request)
        wanted = _log_filter(fields, request)
        fields.expect_valid()
        found = await self._log_book.page(wanted, page)
        return upload_service_pb2.ListUploadLogsResponse(
            upload_logs=[log_to_proto(entry) for entry in found.items],
            next_page_token=next_page_token(request, found.last),
            total_size=found.total_size,
        )

    async def GetUploadLog(  # noqa: N802
        self,
        request: upload_service_pb2.GetUploadLogRequest,
        context: _Context,  # noqa: ARG002
    ) -> upload_service_pb2.GetUploadLogResponse:
        """Gets one upload log."""
        fields = Fields()
        log_id = fields.uuid("id", request.id)
        fields.expect_valid()
        return upload_service_pb2.GetUploadLogResponse(upload_log=log_to_proto(await self._log_book.get(log_id)))

    async def _options(self, request: Any) -> UploadOptions:
        """The options of any of the requests that bring files, with those of the session that it names, if any."""
        session_id = session_id_of(request)
        if session_id is None:
            return options_of(request)
        session = await self._sessions.open(session_id, by=CALLER.get().user_id)
        return replace(options_of(with_options_of(session, request)), session_id=session_id)


def _log_filter(fields: Fields, request: upload_service_pb2.ListUploadLogsRequest) -> UploadLogFilter:
    uid, status = request.study_instance_uid, request.upload_status
    since, until = fields.period(request, "uploaded_from", "uploaded_until")
    return UploadLogFilter(
        patient_id=fields.optional_uuid("patient_id", request.patient_id),
        order_id=fields.optional_uuid("order_id", request.order_id),
        study_instance_uid=fields.uid("study_instance_uid", uid) if uid else None,
        upload_status=fields.choice("upload_status", status, UploadStatus) if status else None,
        uploaded_from=since,
        uploaded_until=until,
    )
