"""Sending to a gateway, over gRPC: single files in calls of their own, several at once, and archives."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import grpc
from google.api.httpbody_pb2 import HttpBody
from google.rpc import status_pb2
from grpc_status import rpc_status

from pacs_gateway.cli.files import Kind, LocalFile, Progress, read
from pacs_gateway.cli.outcomes import FAILED, Outcome
from ris.pacs.v1 import upload_service_pb2, upload_service_pb2_grpc, upload_session_pb2
from service_runtime.calls import is_written, keep_status
from service_runtime.errors import Reason, ServiceError
from service_runtime.status import error_of

ZIP_TYPE: Final = "application/zip"
# Why a file failed that could not be read here.
UNREADABLE: Final = "UNREADABLE"
# Of a longer name, the end says more.
_MAX_NAME: Final = 255
_LONGEST_WAIT_SECONDS: Final = 30
# For what is no upload. To complete a session of thousands of files takes longest.
_ASK_SECONDS: Final = 120
# The options that a session takes on from the call that makes it.
_OF_SESSIONS: Final = frozenset({"patient_id", "order_id", "patient_match", "on_conflict", "upload_source"})
_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
)
# What holds for the next file, too: no further one is sent.
_FOR_ALL: Final = frozenset(
    {
        Reason.TOKEN_MISSING,
        Reason.TOKEN_INVALID,
        Reason.TOKEN_EXPIRED,
        Reason.USER_NOT_ALLOWED,
        Reason.ROLE_NOT_ALLOWED,
        Reason.INVALID_FIELD,
        Reason.PATIENT_NOT_FOUND,
        Reason.ORDER_NOT_FOUND,
        Reason.SESSION_NOT_FOUND,
        Reason.SESSION_EXPIRED,
        Reason.SESSION_COMPLETED,
        Reason.GATEWAY_UNAVAILABLE,
    }
)

Told = Callable[[Outcome], None]


class NotPossibleError(Exception):
    """No file can be sent: nobody answers there, or the caller or an option is refused. The text is for people.

    `may_pass`: the same may be possible later.
    """

    def __init__(self, text: str, *, may_pass: bool = False) -> None:
        super().__init__(text)
        self.may_pass = may_pass


@dataclass(frozen=True, slots=True)
class Target:
    """Where the gateway is, and who calls: `ca_file` (PEM) takes the place of the system's roots."""

    address: str
    token: str
    tls: bool = False
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Sending:
    """How files are sent: the fields of UploadRequest that are set, how many at once, how often each is tried again."""

    options: Mapping[str, Any] = field(default_factory=dict)
    parallel: int = 4
    retries: int = 3


@asynccontextmanager
async def connected(target: Target, sending: Sending) -> AsyncIterator["Gateway"]:
    """A gateway to send to. Nothing is connected to before the first file."""
    if target.tls:
        credentials = grpc.ssl_channel_credentials(_roots(target.ca_file))
        channel = grpc.aio.secure_channel(target.address, credentials, options=_OPTIONS)
    else:
        channel = grpc.aio.insecure_channel(target.address, options=_OPTIONS)
    async with channel:
        yield Gateway(upload_service_pb2_grpc.UploadServiceStub(channel), target.token, sending)


def _roots(ca_file: Path | None) -> bytes | None:
    """The certificates to trust; None for those that grpc brings, where the system has none in one file."""
    path = ca_file or ssl.get_default_verify_paths().cafile
    return Path(path).read_bytes() if path is not None else None


class Gateway:
    """Sends files, and tells what becomes of each."""

    def __init__(self, stub: Any, token: str, sending: Sending) -> None:
        self._stub = stub
        self._token = token
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._sending = sending

    @property
    def retries(self) -> int:
        """How often something is tried again."""
        return self._sending.retries

    def inside(self, session_id: str) -> "Gateway":
        """The gateway for uploads into a session, whose options these leave to it."""
        own = {name: value for name, value in self._sending.options.items() if name not in _OF_SESSIONS}
        return Gateway(self._stub, self._token, replace(self._sending, options=own | {"session_id": session_id}))

    async def create_session(self, files: Mapping[str, tuple[int, str]]) -> Any:
        """A new session for these files, by their SHA-256: size and name. Raises NotPossibleError."""
        options = {name: value for name, value in self._sending.options.items() if name in _OF_SESSIONS}
        request = upload_session_pb2.CreateSessionRequest(
            files=[
                upload_session_pb2.ExpectedFile(sha256=sha256, size_bytes=size, name=name[-_MAX_NAME:])
                for sha256, (size, name) in files.items()
            ],
            **options,
        )
        return (await self._ask(self._stub.CreateSession, request)).session

    async def get_session(self, request: upload_session_pb2.GetSessionRequest) -> Any:
        """What GetSession answers. Raises NotPossibleError."""
        return await self._ask(self._stub.GetSession, request)

    async def complete_session(self, session_id: str) -> str:
        """The receipt of a session. Raises NotPossibleError."""
        request = upload_session_pb2.CompleteSessionRequest(session_id=session_id)
        receipt: str = (await self._ask(self._stub.CompleteSession, request)).receipt
        return receipt

    async def _ask(self, method: Any, request: Any) -> Any:
        """The answer to a call that is no upload, asked again as often as a file is sent. Raises NotPossibleError."""
        for attempt in range(self._sending.retries + 1):
            try:
                return await method(request, metadata=self._metadata, timeout=_ASK_SECONDS)
            except grpc.aio.AioRpcError as failure:
                error = _error_of(failure)
                if error.retry_after is None or attempt == self._sending.retries:
                    raise _not_possible(error) from None
                await asyncio.sleep(min(error.retry_after, _LONGEST_WAIT_SECONDS))
        raise AssertionError  # the last attempt returns or raises

    async def send_all(self, files: Sequence[LocalFile], progress: Progress, told: Told) -> None:
        """Sends files, several at once; `told` is called with the outcome of each. Raises NotPossibleError."""
        waiting = iter(files)

        async def work() -> None:
            for file in waiting:
                if file.kind is Kind.ZIP:
                    await self.send_archive(file.name, read(file, progress), told)
                else:
                    told(await self._send(file, progress))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._sending.parallel, len(files))):
                    group.create_task(work())
        except ExceptionGroup as errors:
            # Each of those at work may have been told the same; what is none of these is a defect.
            first = errors.exceptions[0]
            if errors.split(NotPossibleError)[1] is not None:
                raise
            raise first from None

    async def _send(self, file: LocalFile, progress: Progress) -> Outcome:
        for attempt in range(self._sending.retries + 1):
            sent = 0

            def moved(size: int) -> None:
                nonlocal sent
                sent += size
                progress(size)

            try:
                return await self._send_once(file, moved)
            except OSError:
                return unreadable(file.name)
            except grpc.aio.AioRpcError as failure:
                error = _error_of(failure)
                if error.retry_after is None or attempt == self._sending.retries:
                    return _failed(file.name, error)
                progress(-sent)
                await asyncio.sleep(min(error.retry_after, _LONGEST_WAIT_SECONDS))
        raise AssertionError  # the last attempt returns

    async def _send_once(self, file: LocalFile, progress: Progress) -> Outcome:
        call = self._stub.Upload(metadata=self._metadata)
        keep_status(call)
        try:
            first = upload_service_pb2.UploadRequest(filename=file.path.name, **self._sending.options)
            await _write(call, first, read(file, progress))
            return _outcome(file.name, await call)
        finally:
            call.cancel()

    async def send_archive(self, name: str, pieces: Iterator[bytes], told: Told) -> None:
        """Sends a ZIP archive; `told` is called with the outcome of each file in it. Raises NotPossibleError."""
        call = self._stub.UploadMultiple(metadata=self._metadata)
        keep_status(call)
        first = upload_service_pb2.UploadMultipleRequest(
            file=HttpBody(content_type=ZIP_TYPE), filename=name, **self._sending.options
        )
        writing = asyncio.create_task(_write(call, first, pieces))
        try:
            async for answer in call:
                told(_outcome(f"{name}: {answer.filename}" if answer.filename else name, answer))
            await writing
        except (grpc.aio.AioRpcError, asyncio.CancelledError) as failure:
            if writing.done() and not writing.cancelled() and isinstance(writing.exception(), OSError):
                told(unreadable(name))
            elif isinstance(failure, grpc.aio.AioRpcError):
                told(_failed(name, _error_of(failure)))
            else:
                raise
        finally:
            writing.cancel()
            call.cancel()
            await asyncio.wait([writing])


async def _write(call: Any, message: Any, pieces: Iterator[bytes]) -> None:
    """Sends the pieces, the first in this message. Where the call is over meanwhile, awaiting it tells why."""
    try:
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            message.file.data = piece
            if not await is_written(call.write(message)):
                return
            message = type(message)()
        if await is_written(call.write(type(message)(end_of_file=True))):
            await is_written(call.done_writing())
    except BaseException:
        # What breaks off must not pass for a file that ended.
        call.cancel()
        raise


def _outcome(name: str, answer: Any) -> Outcome:
    return Outcome(
        name,
        answer.status,
        answer.error.reason,
        answer.message,
        details=tuple(_details(answer)),
        study_uid=answer.study_uid,
        patient_id=answer.tags.dicom_patient_id,
        patient_name=answer.tags.patient_name,
    )


def _details(answer: Any) -> Iterable[str]:
    """What a DICOMDIR and the files differ in."""
    if not isinstance(answer, upload_service_pb2.UploadMultipleResponse) or not answer.HasField("directory"):
        return
    report = answer.directory
    for what, names in (
        ("missing", report.missing),
        ("not listed", report.unlisted),
        ("another instance", report.other_instances),
    ):
        yield from (f"{what}: {name}" for name in names)
    if report.left_out:
        yield f"and {report.left_out} more"


def _failed(name: str, error: ServiceError) -> Outcome:
    """The outcome of a file that failed. Raises NotPossibleError where the next one would for the same reason."""
    if error.reason in _FOR_ALL:
        raise _not_possible(error)
    return Outcome(name, FAILED, error.reason, error.message)


def _not_possible(error: ServiceError) -> NotPossibleError:
    violations = "".join(f"\n  {one.field}: {one.description}" for one in error.violations)
    return NotPossibleError(f"{error.reason}: {error.message}{violations}", may_pass=error.retry_after is not None)


def unreadable(name: str) -> Outcome:
    """The outcome of a file that cannot be read here."""
    return Outcome(name, FAILED, UNREADABLE, "The file cannot be read.")


def _error_of(failure: grpc.aio.AioRpcError) -> ServiceError:
    for key, value in failure.trailing_metadata() or ():
        if key == rpc_status.GRPC_DETAILS_METADATA_KEY:
            error = error_of(status_pb2.Status.FromString(value))
            if error is not None:
                return error
    if failure.code() is grpc.StatusCode.UNAVAILABLE:
        return ServiceError(Reason.GATEWAY_UNAVAILABLE, "Nobody answers there, or no longer.", retry_after=1)
    return ServiceError(Reason.INTERNAL_ERROR, f"The call ended with {failure.code().name}.")
