"""The requests and answers of upload sessions, and what an upload takes on from its session."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from pacs_gateway.api.fields import Fields
from pacs_gateway.domain.paging import PageRequest
from pacs_gateway.domain.sessions import Arrival, ExpectedFile, Progress, SessionFile, UploadSession
from pacs_gateway.domain.upload import UploadOptions
from ris.pacs.v1 import upload_session_pb2 as messages
from service_runtime.errors import InvalidFieldError, Violation

_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_MAX_NAME: Final = 255
# Each wrong file costs a line of an answer that is cut anyway.
_MAX_WRONG: Final = 20


def expected_files(
    fields: Fields, request: messages.CreateSessionRequest, *, max_files: int, max_file_bytes: int
) -> tuple[Sequence[ExpectedFile], int]:
    """The files that a session is for, and how many they are."""
    if not request.files:
        if not 1 <= request.number_of_files <= max_files:
            fields.wrong("number_of_files", f"must be 1 to {max_files}, where the files are not listed")
        return (), request.number_of_files
    if request.number_of_files:
        fields.wrong("number_of_files", "is for sessions that list no files; leave one of the two out")
    fields.count("files", len(request.files), at_most=max_files)
    if len(request.files) > max_files:
        return (), 0
    files: dict[str, ExpectedFile] = {}
    wrong = 0
    for position, one in enumerate(request.files):
        sha256 = one.sha256.lower()
        problem = _problem(one, max_file_bytes, is_repeated=sha256 in files)
        if problem is not None:
            fields.wrong(f"files[{position}].{problem[0]}", problem[1])
            wrong += 1
            if wrong == _MAX_WRONG:
                break
        files[sha256] = ExpectedFile(sha256, one.size_bytes, one.name)
    return list(files.values()), len(files)


def _problem(one: messages.ExpectedFile, max_file_bytes: int, *, is_repeated: bool) -> tuple[str, str] | None:
    if not _SHA256.fullmatch(one.sha256):
        return "sha256", "must be 64 hexadecimal digits"
    if is_repeated:
        return "sha256", "is there already: a session names each content once"
    if not 1 <= one.size_bytes <= max_file_bytes:
        return "size_bytes", f"must be 1 to {max_file_bytes}, the largest file"
    if len(one.name) > _MAX_NAME:
        return "name", f"must have at most {_MAX_NAME} characters"
    return None


def session_id_of(request: Any) -> UUID | None:
    """The session that an upload is for. Raises INVALID_FIELD."""
    fields = Fields()
    session_id = fields.optional_uuid("session_id", request.session_id)
    fields.expect_valid()
    return session_id


def with_options_of(session: UploadSession, request: Any) -> Any:
    """The request of an upload, with the options of its session. Raises INVALID_FIELD where it says others."""
    inherited = type(request)()
    inherited.CopyFrom(request)
    violations = []
    for name, value in _options(session.options).items():
        said = getattr(request, name)
        if said and (said.lower() if name.endswith("_id") else said) != value:
            violations.append(Violation(name, "is another than the session's; leave it out"))
        setattr(inherited, name, value)
    if violations:
        raise InvalidFieldError(*violations)
    return inherited


def _options(options: UploadOptions) -> dict[str, str]:
    """The options of a session, as the fields of a request. Without a patient there is nothing to match."""
    return {
        "patient_id": str(options.patient_id or ""),
        "order_id": str(options.order_id or ""),
        "upload_source": options.source.value,
        "patient_match": options.patient_match.value if options.patient_id is not None else "",
        "on_conflict": options.on_conflict.value,
    }


def session_to_proto(progress: Progress) -> messages.UploadSession:
    """The session as a message."""
    session = progress.session
    message = messages.UploadSession(
        id=str(session.id),
        state=session.state.value,
        patient_id=str(session.options.patient_id or ""),
        order_id=str(session.options.order_id or ""),
        upload_source=session.options.source.value,
        patient_match=session.options.patient_match.value,
        on_conflict=session.options.on_conflict.value,
        number_of_files=session.number_of_files,
        files_stored=len(progress.stored),
        files_missing=progress.number_missing,
        created_by_id=str(session.created_by_id),
        created_at=_timestamp(session.created_at),
        expires_at=_timestamp(session.expires_at),
    )
    if session.completed_at is not None:
        message.completed_at.CopyFrom(_timestamp(session.completed_at))
    return message


def page_of(progress: Progress, page: PageRequest) -> tuple[Sequence[messages.SessionFile], tuple[str, ...]]:
    """A page of the files, and the place where it ends, () on the last. Raises INVALID_FIELD."""
    if len(page.after) > 1:
        raise InvalidFieldError(Violation("page_token", "is not one that this list gave"))
    rest = [one for one in progress.files if not page.after or one.expected.sha256 > page.after[0]]
    shown = rest[: page.limit]
    return [_file_to_proto(one) for one in shown], (shown[-1].expected.sha256,) if len(rest) > len(shown) else ()


def _file_to_proto(file: SessionFile) -> messages.SessionFile:
    message = messages.SessionFile(
        sha256=file.expected.sha256,
        size_bytes=file.expected.size_bytes,
        name=file.expected.name,
        status=file.arrival.value,
    )
    if file.entry is not None and file.arrival is Arrival.STORED:
        message.orthanc_id = file.entry.orthanc_id
        message.study_uid = file.entry.study_instance_uid
        message.sop_instance_uid = file.entry.sop_instance_uid
    if file.entry is not None and file.arrival is Arrival.FAILED:
        message.reason = file.entry.error
    return message


def _timestamp(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time)
    return message
