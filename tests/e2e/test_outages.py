"""Parts that are away, slow or broken: a clear error that says which, nothing stored, nothing lost, and a recovery."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.local.seed import seed
from deploy.local.stack import Stack
from tests.e2e.client import API, REGISTRY, Client, expect_error
from tests.files import fresh_file


@pytest.fixture(scope="module")
async def fragile(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A stack of which parts can be taken away."""
    async with Stack(Path(tmp_path_factory.mktemp("fragile"))) as running:
        await seed(running)
        yield running


@pytest.fixture(scope="module")
async def caller(fragile: Stack) -> AsyncIterator[Client]:
    """A radiologist at that stack."""
    async with httpx.AsyncClient(base_url=fragile.base_url, timeout=60) as http:
        yield Client(http, fragile.token(role="radiologist"))


async def serving(stack: Stack) -> bool:
    """Whether the gateway says that it is ready."""
    async with grpc.aio.insecure_channel(stack.pacs_gateway_target) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def until(holds: Callable[[], Awaitable[bool]], seconds: float = 30) -> None:
    """Waits until something holds."""
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110 - what it waits for is in other processes
            await asyncio.sleep(0.1)


async def healthy(caller: Client) -> bool:
    """Whether the gateway finds every part well."""
    return (await caller.send("GET", f"{API}/health")).status_code == 200


async def test_the_services_start_first_and_become_ready_when_the_rest_is_there(tmp_path: Path) -> None:
    """Before its dependencies are up the gateway answers, says what is away and is not ready; then it becomes ready."""
    async with (
        Stack(tmp_path, parts=("tag_service", "pacs_gateway", "envoy")) as bare,
        httpx.AsyncClient(base_url=bare.base_url, timeout=60) as http,
    ):
        caller = Client(http, bare.token(role="radiologist"))
        answer = await caller.with_token("").send("GET", f"{API}/health")
        assert answer.status_code == 503
        health = answer.json()
        assert health["status"] == "unhealthy"
        parts = {part["name"]: part["status"] for part in health["parts"]}
        assert parts == {"orthanc": "unhealthy", "database": "unhealthy", "tag_service": "healthy"}
        assert not await serving(bare)
        expect_error(await caller.send("GET", f"{API}/studies"), 503, "DATABASE_UNAVAILABLE")

        await bare.start("postgres")
        health = (await caller.send("GET", f"{API}/health")).json()
        parts = {part["name"]: part["message"] for part in health["parts"]}
        assert "run the migrations" in parts["database"]
        await bare.start("migrations")
        await bare.start("orthanc")
        await until(lambda: healthy(caller))
        await until(lambda: serving(bare))
        health = await caller.get(f"{API}/health")
        assert {part["status"] for part in health["parts"]} == {"healthy"}
        await seed(bare)
        await caller.stored(fresh_file())


@asynccontextmanager
async def without(stack: Stack, part: str) -> AsyncIterator[None]:
    """The stack while a part is away; ready again at the end."""
    await stack.stop(part)
    try:
        yield
    finally:
        await stack.start(part)
        await until(lambda: serving(stack))


async def test_without_orthanc_nothing_is_stored_and_no_list_is_empty(fragile: Stack, caller: Client) -> None:
    """With Orthanc away, every question about the PACS is an error; an upload that failed works when it is back."""
    file = fresh_file()
    async with without(fragile, "orthanc"):
        for path in ("studies", f"studies/{file.study_uid}", f"thumbnail/{file.study_uid}", "studies/accession/A1"):
            body = expect_error(await caller.send("GET", f"{API}/{path}"), 503, "ORTHANC_UNAVAILABLE")
            assert any(detail["@type"].endswith("RetryInfo") for detail in body["details"])
        expect_error(await caller.upload(file.content), 503, "ORTHANC_UNAVAILABLE")
        answer = await caller.send("DELETE", f"{API}/studies/{file.study_uid}", params={"reason": "x"})
        expect_error(answer, 503, "ORTHANC_UNAVAILABLE")
        assert (await caller.send("GET", f"{API}/health")).status_code == 503
        await until(lambda: _not(serving(fragile)))
    assert (await caller.stored(file))["status"] == "stored"
    assert (await caller.log(file.study_uid))["upload_status"] == "success"


async def test_an_upload_that_orthanc_drops_is_logged_as_failed(fragile: Stack, caller: Client) -> None:
    """A further file of a study that meets an Orthanc that went away is told, logged and can be sent again."""
    first = fresh_file()
    second = fresh_file(like=first)
    await caller.stored(first)
    async with without(fragile, "orthanc"):
        expect_error(await caller.upload(second.content), 503, "ORTHANC_UNAVAILABLE")
        log = await caller.log(first.study_uid)
        assert (log["upload_status"], log["number_of_files"]) == ("partial", 1)
        assert "ORTHANC_UNAVAILABLE" in log["error_message"]
    await caller.stored(second)
    log = await caller.log(first.study_uid)
    assert (log["upload_status"], log["number_of_files"], log["error_message"]) == ("success", 2, "")


async def test_without_the_database_nothing_is_stored(fragile: Stack, caller: Client) -> None:
    """With the database away nobody can be let in, and nothing reaches the PACS; afterwards all works again."""
    file = fresh_file()
    async with without(fragile, "postgres"):
        expect_error(await caller.upload(file.content), 503, "DATABASE_UNAVAILABLE")
        expect_error(await caller.send("GET", f"{API}/upload-logs"), 503, "DATABASE_UNAVAILABLE")
        expect_error(await caller.send("GET", f"{REGISTRY}/patients"), 503, "DATABASE_UNAVAILABLE")
        health = (await caller.send("GET", f"{API}/health")).json()
        assert {part["name"] for part in health["parts"] if part["status"] == "unhealthy"} == {"database"}
    assert not await caller.in_pacs(file.study_uid)
    assert (await caller.stored(file))["status"] == "stored"


async def test_without_tag_service_nothing_is_stored(fragile: Stack, caller: Client) -> None:
    """With tag_service away, uploads and its own rpcs say so, and the rest goes on."""
    file = fresh_file()
    async with without(fragile, "tag_service"):
        expect_error(await caller.upload(file.content), 503, "TAG_SERVICE_UNAVAILABLE")
        answer = await caller.send("POST", f"{API}/validate", files={"file": ("x.dcm", file.content)})
        expect_error(answer, 503, "TAG_SERVICE_UNAVAILABLE")
        assert (await caller.send("GET", f"{API}/studies")).status_code == 200
    assert not await caller.in_pacs(file.study_uid)


async def test_without_the_gateway_envoy_says_so_in_json(fragile: Stack, caller: Client) -> None:
    """With the gateway away, Envoy's own answer is an error in JSON like any other."""
    async with without(fragile, "pacs_gateway"):
        body = expect_error(await caller.send("GET", f"{API}/studies"), 503, "GATEWAY_UNAVAILABLE")
        assert any(detail["@type"].endswith("RetryInfo") for detail in body["details"])


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answering(content: bytes) -> Answer:
    """A server that answers every request with the same bytes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(content)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()

    return answer


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that takes requests and never answers."""
    while await reader.read(65536):
        pass
    writer.close()


HTML = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 20\r\n\r\n<html>Proxy</html>\r\n"
FAILING = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 6\r\n\r\nsecret"


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [(answering(FAILING), 500, "ORTHANC_ERROR"), (answering(HTML), 500, "ORTHANC_ERROR"), (silent, 503, "")],
    ids=["500", "garbage", "slow"],
)
async def test_an_orthanc_that_misbehaves_is_an_error_not_an_empty_answer(
    fragile: Stack, caller: Client, answer: Answer, status: int, reason: str
) -> None:
    """An Orthanc that fails, talks nonsense or keeps silent gives an error without its text, and health knows."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    own = fragile.orthanc.url
    file = fresh_file()
    try:
        await fragile.stop("orthanc")  # so that the gateway is not waited for to be ready
        await fragile.restart("pacs_gateway", ORTHANC_URL=f"http://127.0.0.1:{port}")
        assert (await caller.send("GET", f"{API}/health")).status_code == 503
        if reason:
            for path in ("studies", f"studies/{file.study_uid}"):
                found = await caller.send("GET", f"{API}/{path}")
                expect_error(found, status, reason)
                assert "secret" not in found.text
                assert "html" not in found.text
            expect_error(await caller.upload(file.content), status, reason)
    finally:
        server.close()
        await fragile.start("orthanc")
        await fragile.restart("pacs_gateway", ORTHANC_URL=own)
        await until(lambda: serving(fragile))
    assert not await caller.in_pacs(file.study_uid)
    assert (await caller.stored(file))["status"] == "stored"


async def test_a_deletion_that_broke_off_is_completed_by_the_next(fragile: Stack, caller: Client) -> None:
    """A study stays undeleted in the log while Orthanc cannot delete it, and the deletion can be asked for again."""
    file = fresh_file(AccessionNumber=uuid.uuid4().hex[:16])
    await caller.stored(file)
    async with without(fragile, "orthanc"):
        answer = await caller.send("DELETE", f"{API}/studies/{file.study_uid}", params={"reason": "Wrong"})
        expect_error(answer, 503, "ORTHANC_UNAVAILABLE")
        assert (await caller.log(file.study_uid))["is_deleted"] is False
    assert await caller.in_pacs(file.study_uid)
    answer = await caller.send("DELETE", f"{API}/studies/{file.study_uid}", params={"reason": "Wrong"})
    assert answer.status_code == 200
    assert (await caller.log(file.study_uid))["is_deleted"] is True


async def _not(answer: Awaitable[bool]) -> bool:
    return not await answer
