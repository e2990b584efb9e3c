import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.api import httpbody_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from structlog.testing import capture_logs

from deploy.local.keys import AUDIENCE, ISSUER, DevelopmentKey, development_key
from ris.pacs.v1 import study_service_pb2, study_service_pb2_grpc, upload_service_pb2, upload_service_pb2_grpc
from service_runtime import interceptor
from service_runtime.server import Service, serve
from service_runtime.settings import RuntimeSettings
from tests.integration.runtime_service import FORBIDDEN, SECRET, Parts

USER = uuid.UUID(int=7)
MIB = 1024 * 1024
HTTP = (("x-envoy-original-path", "/api/v1/dicom/upload"),)


class Running:
    """A service of the test's own, served in this process over a real socket."""

    def __init__(self, parts: Parts, port: int, key: DevelopmentKey) -> None:
        self.parts = parts
        self.address = f"127.0.0.1:{port}"
        self.token = (("authorization", f"Bearer {key.sign(str(USER))}"),)
        self.forbidden = (("authorization", f"Bearer {key.sign(str(FORBIDDEN))}"),)
        options = (("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1))
        self.channel = grpc.aio.insecure_channel(self.address, options=options)
        self.studies = study_service_pb2_grpc.StudyServiceStub(self.channel)
        self.uploads = upload_service_pb2_grpc.UploadServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    async def get_study(self, uid: str = "", *, metadata: Iterable[tuple[str, str]] | None = None) -> Any:
        """GetStudy, with a good token where no metadata is given."""
        request = study_service_pb2.GetStudyRequest(study_uid=uid)
        return await self.studies.GetStudy(request, metadata=tuple(metadata or self.token), timeout=20)

    async def status(self, service: str = "") -> str:
        """What health checking says."""
        answer = await self.health.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


@asynccontextmanager
async def running(
    folder: Path,
    *,
    probe: Callable[[], Awaitable[bool]] | None = None,
    jwks: Path | None = None,
    **changes: Any,
) -> AsyncIterator[Running]:
    """A running service with these settings."""
    key = development_key(folder)
    settings = RuntimeSettings(
        auth_issuer=ISSUER,
        auth_audience=AUDIENCE,
        auth_jwks=str(jwks or key.jwks),
        readiness_interval_seconds=0.05,
        **changes,
    )
    parts = Parts(settings)
    parts.probe = probe

    @asynccontextmanager
    async def build(_: RuntimeSettings) -> AsyncIterator[Service]:
        yield parts.service()

    port = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve("127.0.0.1:0", settings, build, started=port.set_result))
    try:
        one = Running(parts, await port, key)
        async with one.channel:
            yield one
    finally:
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Running]:
    """A running service with the usual settings."""
    async with running(tmp_path) as one:
        yield one


def details_of(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    """The details of an error's google.rpc.Status, by their type."""
    trailing = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    assert status.code == error.code().value[0]
    found: dict[str, Any] = {}
    for detail in status.details:
        for kind in (
            error_details_pb2.ErrorInfo,
            error_details_pb2.BadRequest,
            error_details_pb2.ResourceInfo,
            error_details_pb2.RetryInfo,
        ):
            message = kind()
            if detail.Unpack(message):
                found[kind.DESCRIPTOR.name] = message
    return found


async def error_of(call: Any) -> grpc.aio.AioRpcError:
    """The error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def upload(data: bytes = b"", **fields: Any) -> upload_service_pb2.UploadRequest:
    """One message of an upload."""
    return upload_service_pb2.UploadRequest(file=httpbody_pb2.HttpBody(data=data), **fields)


def one_of_many(data: bytes = b"", **fields: Any) -> upload_service_pb2.UploadMultipleRequest:
    """One message of an upload of several files."""
    return upload_service_pb2.UploadMultipleRequest(file=httpbody_pb2.HttpBody(data=data), **fields)


async def until(holds: Callable[[], Any], *, seconds: float = 5) -> None:
    """Waits until something holds."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.01)


async def until_status(service: Running, expected: str, name: str = "") -> None:
    """Waits until health checking says this."""
    async with asyncio.timeout(5):
        while await service.status(name) != expected:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)


# --- who calls, and what the caller is told


async def test_good_token_reaches_the_servicer_as_the_caller(service: Running) -> None:
    """The servicer learns from the token who calls."""
    assert (await service.get_study()).study.patient_id == str(USER)


async def test_calls_without_a_good_token_are_refused_with_their_reason(service: Running) -> None:
    """No token, a bad one, and a user who may not: each is told by its own status and reason."""
    for metadata, code, reason in (
        ((("x", "y"),), grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING"),
        ((("authorization", "Bearer x.y.z"),), grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID"),
        (service.forbidden, grpc.StatusCode.PERMISSION_DENIED, "USER_NOT_ALLOWED"),
    ):
        error = await error_of(service.get_study(metadata=metadata))
        assert error.code() is code
        assert details_of(error)["ErrorInfo"].reason == reason


async def test_public_method_health_and_reflection_need_no_token(service: Running) -> None:
    """What is public, health checking and reflection answer without a token."""
    await service.studies.ListStudies(study_service_pb2.ListStudiesRequest())
    assert await service.status() in {"SERVING", "NOT_SERVING"}
    stub = reflection_pb2_grpc.ServerReflectionStub(service.channel)
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    answers = [answer async for answer in stub.ServerReflectionInfo(iter([ask]))]
    names = {one.name for one in answers[0].list_services_response.service}
    assert {"ris.pacs.v1.StudyService", "ris.pacs.v1.UploadService", "grpc.health.v1.Health"} <= names


async def test_request_id_is_the_callers_or_made_and_comes_back_in_errors(service: Running) -> None:
    """An error carries the request id that the caller gave, or, where that is none or no good, a new one."""
    given = (*service.token, ("x-request-id", "abc-1"))
    assert details_of(await error_of(service.get_study("defect", metadata=given)))["ErrorInfo"].metadata == {
        "request_id": "abc-1"
    }
    for bad in ("x" * 65, "a b", "<script>"):
        error = await error_of(service.get_study("defect", metadata=(*service.token, ("x-request-id", bad))))
        assert uuid.UUID(details_of(error)["ErrorInfo"].metadata["request_id"])


async def test_service_error_comes_with_all_its_details(service: Running) -> None:
    """Message, reason, resource and retry delay of an error reach the client, its cause's text does not."""
    error = await error_of(service.get_study("absent:1.2.3"))
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "No such study.")
    assert details_of(error)["ResourceInfo"].resource_name == "1.2.3"
    error = await error_of(service.get_study("caused"))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert details_of(error)["RetryInfo"].retry_delay.ToMilliseconds() == 1500
    assert SECRET not in repr(error)


async def test_error_with_very_many_violations_arrives(service: Running) -> None:
    """However many values are wrong, and however long their names, the error stays small enough to be received."""
    error = await error_of(service.get_study("invalid"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert len(details_of(error)["BadRequest"].field_violations) >= 3
    size = sum(len(key) + len(value) for key, value in error.trailing_metadata() or ())
    assert size + len(error.details() or "") < 6 * 1024


async def test_defect_is_internal_without_its_text(service: Running) -> None:
    """An exception nobody foresaw ends the call with INTERNAL_ERROR, and its text reaches neither client nor log."""
    with capture_logs() as logs:
        error = await error_of(service.get_study("defect"))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert details_of(error)["ErrorInfo"].reason == "INTERNAL_ERROR"
    assert SECRET not in repr(error) + repr(error.trailing_metadata()) + repr(logs)
    assert next(entry for entry in logs if entry["event"] == "defect")["error"] == ["RuntimeError"]


async def test_defect_in_mid_stream_is_internal_without_its_text(service: Running) -> None:
    """The same holds when a response stream breaks after it began: what was sent arrives, then the error."""
    call = service.uploads.UploadMultiple(iter([one_of_many(b"ab", patient_match="defect")]), metadata=service.token)
    assert (await call.read()).message == "2"
    with capture_logs() as logs:
        error = await error_of(call.read())
    assert error.code() is grpc.StatusCode.INTERNAL
    assert details_of(error)["ErrorInfo"].reason == "INTERNAL_ERROR"
    assert SECRET not in repr(error) + repr(error.trailing_metadata()) + repr(logs)
    assert service.parts.uploads.notes == ["closed after 1"]


async def test_call_is_logged_with_method_outcome_and_user_and_no_patient_data(service: Running) -> None:
    """Each call leaves one line: what, how it ended, for whom, under which request id; nothing of its content."""
    with capture_logs() as logs:
        await service.get_study("Jones", metadata=(*service.token, ("x-request-id", "r1")))
        await error_of(service.get_study("absent:Jones"))
        await error_of(service.get_study(metadata=(("x", "y"),)))
        await error_of(service.get_study("abort"))
    lines = [entry for entry in logs if entry["event"] == "call"]
    assert {line["method"] for line in lines} == {"/ris.pacs.v1.StudyService/GetStudy"}
    assert [(line["outcome"], line.get("reason"), line.get("user_id")) for line in lines] == [
        ("OK", None, str(USER)),
        ("NOT_FOUND", "STUDY_NOT_FOUND", str(USER)),
        ("UNAUTHENTICATED", "TOKEN_MISSING", None),
        ("UNKNOWN", None, str(USER)),
    ]
    assert "Jones" not in repr(logs)
    assert "Indiana" not in repr(logs)


@pytest.mark.parametrize("method", ["/ris.pacs.v1.StudyService/GetStudy", "/ris.pacs.v1.UploadService/Upload"])
async def test_bytes_that_are_no_message_are_refused(service: Running, method: str) -> None:
    """What cannot be parsed as the method's request is INVALID_FIELD, in our words and not in the parser's."""
    garbage = b"\x0a\xff" + SECRET.encode()
    if method.endswith("Upload"):
        call = service.channel.stream_unary(method)(iter([garbage]), metadata=service.token)
    else:
        call = service.channel.unary_unary(method)(garbage, metadata=service.token)
    error = await error_of(call)
    assert details_of(error)["ErrorInfo"].reason == "INVALID_FIELD"
    assert "arsing" not in (error.details() or "")


async def test_headers_as_large_as_envoy_lets_in_are_taken(service: Running) -> None:
    """A query that fills the headers of an HTTP request never makes the call fail."""
    for _ in range(10):
        headers = (*service.token, ("x-envoy-original-path", f"/api/v1/dicom/studies?{'a' * 32 * 1024}"))
        assert await service.get_study("1.2.3", metadata=headers)


async def test_unknown_method_is_unimplemented(service: Running) -> None:
    """A method that nobody serves is UNIMPLEMENTED."""
    error = await error_of(service.channel.unary_unary("/ris.pacs.v1.StudyService/Nothing")(b""))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


# --- too many calls


async def test_calls_too_many_are_told_so_while_health_still_answers(tmp_path: Path) -> None:
    """Beyond MAX_CONCURRENT_RPCS a call is refused with OVERLOADED and a delay; the running ones and health go on."""
    async with running(tmp_path, max_concurrent_rpcs=2) as service:
        slow = [asyncio.ensure_future(service.get_study("sleep:0.5")) for _ in range(2)]
        await asyncio.sleep(0.2)
        error = await error_of(service.get_study())
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details_of(error)["ErrorInfo"].reason == "OVERLOADED"
        assert dict(error.trailing_metadata() or ())["retry-after"] == "5"
        assert details_of(error)["RetryInfo"].retry_delay.seconds > 0
        await service.status()
        await asyncio.gather(*slow)
        await service.get_study()


# --- uploads


@pytest.mark.parametrize("metadata", [(), HTTP])
async def test_upload_is_read_whole(service: Running, metadata: tuple[tuple[str, str], ...]) -> None:
    """A file of many messages arrives whole, by gRPC and from either HTTP."""
    pieces = [upload(b"x" * 100_000) for _ in range(50)]
    answer = await service.uploads.Upload(iter(pieces), metadata=(*service.token, *metadata))
    assert answer.message == "5000000"


async def test_stream_of_no_message_is_no_file(service: Running) -> None:
    """A request stream without a message gets an error that says what is missing."""
    error = await error_of(service.uploads.Upload(iter(()), metadata=service.token))
    assert details_of(error)["ErrorInfo"].reason == "FILE_FIELD_MISSING"


async def test_declared_length_over_the_limit_is_refused_with_413(tmp_path: Path) -> None:
    """The Content-Length that Envoy passes on is held to the limit, and the error carries its HTTP status."""
    async with running(tmp_path, max_upload_size_mb=1) as service:
        metadata = (*service.token, ("x-content-length", str(MIB + 1)))
        error = await error_of(service.uploads.Upload(iter([upload(b"x")]), metadata=metadata))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details_of(error)["ErrorInfo"].reason == "UPLOAD_TOO_LARGE"
        assert dict(error.trailing_metadata() or ())["x-http-status"] == "413"


async def test_message_over_the_size_that_grpc_takes_is_refused_and_never_a_whole_file(service: Running) -> None:
    """A message of more than 4 MiB ends the call with RESOURCE_EXHAUSTED; what came before is not taken for a file."""

    def pieces() -> Iterable[upload_service_pb2.UploadRequest]:
        yield upload(b"x" * 1000)
        yield upload(b"x" * 5 * MIB)

    for _ in range(20):
        error = await error_of(service.uploads.Upload(iter(pieces()), metadata=service.token))
        # INTERNAL is how grpc.aio puts it when the status comes during the write (grpc#36066).
        assert error.code() in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL}
    await until(lambda: len(service.parts.uploads.notes) == 20)
    assert set(service.parts.uploads.notes) == {"cancelled"}


async def test_client_that_goes_away_in_mid_upload_never_leaves_a_whole_file(service: Running) -> None:
    """An upload that its client breaks off, or that runs into its deadline, is cancelled, and not taken for a file."""
    for _ in range(100):
        call = service.uploads.Upload(metadata=service.token)
        await call.write(upload(b"x" * 1000))
        await asyncio.sleep(0.003)
        call.cancel()
    for _ in range(20):
        call = service.uploads.Upload(metadata=service.token, timeout=0.03)
        await call.write(upload(b"x" * 1000))
        await asyncio.wait([asyncio.ensure_future(call.code())])
    await asyncio.sleep(0.5)
    assert service.parts.uploads.notes
    assert set(service.parts.uploads.notes) == {"cancelled"}


async def test_call_cancelled_while_it_answers_closes_its_generator(service: Running) -> None:
    """A response stream that its client breaks off is closed before its call counts as over, CANCELLED."""
    with capture_logs() as logs:
        call = service.uploads.UploadMultiple(iter([one_of_many(b"a", patient_match="flood")]), metadata=service.token)
        for _ in range(3):
            await call.read()
        call.cancel()
        await until(lambda: [entry for entry in logs if entry["event"] == "call"])
        assert service.parts.uploads.notes == ["closed after 1"]
    assert [entry["outcome"] for entry in logs if entry["event"] in {"call", "defect"}] == ["CANCELLED"]


async def test_servicer_that_stops_waiting_for_a_file_gets_the_next_ones(service: Running) -> None:
    """A servicer whose wait for a file's next chunk is cancelled loses neither that chunk nor the files behind it."""
    call = service.uploads.UploadMultiple(metadata=service.token)
    await call.write(one_of_many(b"a", patient_match="leave"))
    await asyncio.sleep(0.3)
    for _ in range(3):
        await call.write(one_of_many(b"b"))
        await call.write(one_of_many(b"c", end_of_file=True))
    await call.done_writing()
    messages = []
    while (answer := await call.read()) is not grpc.aio.EOF:
        messages.append(answer.message)
    assert messages == ["-1"] * 3
    assert await call.code() is grpc.StatusCode.OK


async def test_client_that_does_not_read_is_given_up(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that takes no message of a response stream for too long does not hold the call for ever."""
    monkeypatch.setattr(interceptor, "_WRITE_SECONDS", 0.2)
    call = service.uploads.UploadMultiple(iter([one_of_many(b"a", patient_match="flood")]), metadata=service.token)
    await call.read()
    await until(lambda: service.parts.uploads.notes == ["closed after 1"])
    call.cancel()


async def test_answer_before_the_end_of_the_upload_reaches_a_grpc_client(service: Running) -> None:
    """A client that has not ended its upload gets the answer as soon as there is one."""
    call = service.uploads.Upload(metadata=service.token)
    await call.write(upload(b"x", patient_match="answer early"))
    async with asyncio.timeout(3):
        assert (await call).message == "early"


async def test_caller_that_says_so_is_refused_in_the_middle_of_its_upload(service: Running) -> None:
    """A caller that takes an early end is refused at once; for any other the rest of the upload is waited for."""
    early = service.uploads.Upload(metadata=(*service.token, (interceptor.EARLY_END_KEY, "1")))
    await early.write(upload(b"x", patient_match="refuse early"))
    async with asyncio.timeout(3):
        assert await early.code() is grpc.StatusCode.INVALID_ARGUMENT

    patient = service.uploads.Upload(metadata=service.token)
    await patient.write(upload(b"x", patient_match="refuse early"))
    await asyncio.sleep(0.5)
    assert not patient.done()
    await patient.done_writing()
    async with asyncio.timeout(3):
        assert await patient.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("what", "caller"), [("answer early", HTTP), ("refuse early", HTTP), ("refuse early", ())], ids=str
)
async def test_rest_of_an_upload_is_drained(service: Running, what: str, caller: tuple[tuple[str, str], ...]) -> None:
    """The rest of an upload that nobody wants is read before a refusal goes out, and for HTTP before any answer."""
    sent = 0

    async def pieces() -> AsyncIterator[upload_service_pb2.UploadRequest]:
        nonlocal sent
        for _ in range(300):
            yield upload(b"x" * 100_000, patient_match=what)
            sent += 1

    call = service.uploads.Upload(pieces(), metadata=(*service.token, *caller))
    assert await call.code() is (grpc.StatusCode.OK if what == "answer early" else grpc.StatusCode.INVALID_ARGUMENT)
    assert sent == 300


async def test_http_caller_that_says_so_is_answered_in_the_middle_of_its_upload(service: Running) -> None:
    """An HTTP client that takes an early end has the answer while it still sends; any other when it has sent all."""
    for says, expected in (((interceptor.EARLY_END_KEY, "1"), True), (("x-other", "1"), False)):
        call = service.uploads.Upload(metadata=(*service.token, *HTTP, says))
        await call.write(upload(b"x", patient_match="answer early"))
        done, _ = await asyncio.wait([asyncio.ensure_future(call.code())], timeout=3 if expected else 0.3)
        assert bool(done) is expected
        if not expected:
            await call.done_writing()
        assert (await call).message == "early"


async def test_answered_upload_is_read_out_however_large_it_may_be(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limits on what is read after a refusal are none on what is read after an answer for HTTP."""
    monkeypatch.setattr(interceptor, "_DRAIN_BYTES", 1000)
    monkeypatch.setattr(interceptor, "_DRAIN_SECONDS", 0.1)
    sent = 0

    async def pieces() -> AsyncIterator[upload_service_pb2.UploadRequest]:
        nonlocal sent
        for _ in range(30):
            yield upload(b"x" * 100_000, patient_match="answer early")
            await asyncio.sleep(0.01)
            sent += 1

    assert (await service.uploads.Upload(pieces(), metadata=(*service.token, *HTTP))).message == "early"
    assert sent == 30


@pytest.mark.parametrize(
    ("limit", "pause", "size"), [({"_DRAIN_SECONDS": 0.3}, 0.01, 1), ({"_DRAIN_BYTES": 4 * MIB}, 0, 100_000)]
)
async def test_draining_ends_for_a_client_that_never_does(
    service: Running, monkeypatch: pytest.MonkeyPatch, limit: dict[str, float], pause: float, size: int
) -> None:
    """The rest of an upload is read only so long, when it trickles, and only so far, when it floods."""
    sent = 0

    async def endless() -> AsyncIterator[upload_service_pb2.UploadRequest]:
        nonlocal sent
        while True:
            yield upload(b"x" * size, patient_match="refuse early")
            sent += size
            await asyncio.sleep(pause)

    monkeypatch.setattr(interceptor, "_DRAIN_SECONDS", 60)
    for name, value in limit.items():
        monkeypatch.setattr(interceptor, name, value)
    with capture_logs() as logs:
        call = service.uploads.Upload(endless(), metadata=(*service.token, *HTTP))
        await until(lambda: [entry for entry in logs if entry["event"] == "call"], seconds=20)
        # What the client makes of it is left out: grpc.aio may lose a status that comes during a write (grpc#36066).
        assert await call.code() is not grpc.StatusCode.OK
    assert [entry["reason"] for entry in logs if entry["event"] == "call"] == ["NOT_DICOM"]
    if "_DRAIN_BYTES" in limit:
        assert 4 * MIB < sent < 64 * MIB
    else:
        assert next(entry for entry in logs if entry["event"] == "call")["seconds"] >= 0.3


async def test_call_cancelled_while_it_is_drained_ends(service: Running) -> None:
    """A client that goes away while the rest of its upload is read leaves no call behind."""
    with capture_logs() as logs:
        call = service.uploads.Upload(metadata=(*service.token, *HTTP))
        await call.write(upload(b"x", patient_match="refuse early"))
        await asyncio.sleep(0.1)
        call.cancel()
        await until(lambda: [entry for entry in logs if entry["event"] == "call"])


async def test_stalled_upload_is_told_so(tmp_path: Path) -> None:
    """An upload of which nothing comes for UPLOAD_IDLE_SECONDS ends with UPLOAD_STALLED."""
    async with running(tmp_path, upload_idle_seconds=0.1) as service:
        call = service.uploads.Upload(metadata=service.token)
        await call.write(upload(b"x"))
        error = await error_of(call)
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert details_of(error)["ErrorInfo"].reason == "UPLOAD_STALLED"


# --- health


async def test_health_says_not_serving_until_ready_and_follows_readiness(tmp_path: Path) -> None:
    """Health is NOT_SERVING from the first moment, then what `ready` says, for the process and each service."""
    async with running(tmp_path, probe=_hangs) as service:
        for name in ("", "ris.pacs.v1.StudyService", "ris.pacs.v1.UploadService"):
            assert await service.status(name) == "NOT_SERVING"
    async with running(tmp_path) as service:
        for ready, expected in ((True, "SERVING"), (False, "NOT_SERVING"), (True, "SERVING")):
            service.parts.ready = ready
            await until_status(service, expected)
            await until_status(service, expected, "ris.pacs.v1.StudyService")


async def test_service_without_keys_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that could check no token says NOT_SERVING, and SERVING once the keys are there."""
    monkeypatch.setattr("service_runtime.keys._PAUSE_AFTER_FAILURE_SECONDS", 0.05)
    later = tmp_path / "later.json"
    async with running(tmp_path, jwks=later) as service:
        await asyncio.sleep(0.3)
        assert await service.status("") == "NOT_SERVING"
        later.write_bytes(development_key(tmp_path).jwks.read_bytes())
        await until_status(service, "SERVING")


async def test_readiness_that_fails_or_hangs_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A readiness check that raises or takes too long counts as no."""
    monkeypatch.setattr("service_runtime.server._READY_TIMEOUT_SECONDS", 0.1)
    async with running(tmp_path) as service:
        for breaks in (_fails, _hangs):
            service.parts.probe = None
            await until_status(service, "SERVING")
            service.parts.probe = breaks
            await until_status(service, "NOT_SERVING")


async def _fails() -> bool:
    raise RuntimeError(SECRET)


async def _hangs() -> bool:
    await asyncio.sleep(60)
    return True
