import asyncio
import json
import os
import signal
import socket
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.local.keys import AUDIENCE, ISSUER, development_key
from deploy.local.process import ROOT, python_environment
from ris.pacs.v1 import study_service_pb2, study_service_pb2_grpc
from tests.integration.runtime_service import SECRET

USER = uuid.UUID(int=7)


class Process:
    """The service of runtime_service.py as a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, address: str, token: str) -> None:
        self.process = process
        self.log = log
        self.address = address
        self.token = (("authorization", f"Bearer {token}"),)

    def printed(self) -> str:
        """What it has printed, on stdout and stderr."""
        return self.log.read_text()

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The log lines of an event."""
        parsed = [json.loads(line) for line in self.printed().splitlines() if line.startswith("{")]
        return [line for line in parsed if line["event"] == event]

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[grpc.aio.Channel]:
        """A new connection."""
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 100))
        async with grpc.aio.insecure_channel(self.address, options=options) as channel:
            yield channel

    async def get_study(self, uid: str = "") -> Any:
        """GetStudy over a connection of its own."""
        async with self.channel() as channel:
            request = study_service_pb2.GetStudyRequest(study_uid=uid)
            return await study_service_pb2_grpc.StudyServiceStub(channel).GetStudy(
                request, metadata=self.token, timeout=20, wait_for_ready=True
            )

    async def status(self) -> str:
        """What health checking says, "" where nothing answers."""
        async with self.channel() as channel:
            try:
                answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
            except grpc.aio.AioRpcError:
                return ""
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)

    async def ended(self) -> int:
        """The exit status, once it has ended, which must be soon."""
        async with asyncio.timeout(20):
            return await self.process.wait()


@asynccontextmanager
async def started(folder: Path, *, address: str | None = None, **settings: str) -> AsyncIterator[Process]:
    """The process, killed at the end with its children where it has not ended by itself."""
    key = development_key(folder)
    address = address or f"127.0.0.1:{_free_port()}"
    environment = {"AUTH_ISSUER": ISSUER, "AUTH_AUDIENCE": AUDIENCE, "AUTH_JWKS": str(key.jwks), **settings}
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.integration.runtime_service", address),
            cwd=ROOT,
            env=python_environment({"READINESS_INTERVAL_SECONDS": "0.05", "DRAIN_SECONDS": "0.2", **environment}),
            stdout=log,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Process(process, folder / "log", address, key.sign(str(USER)))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until(holds: Callable[[], Awaitable[bool]], *, seconds: float = 20) -> None:
    """Waits until something holds."""
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110 - what is waited for is in another process
            await asyncio.sleep(0.02)


async def is_serving(one: Process) -> bool:
    """Whether health says so."""
    return await one.status() == "SERVING"


async def pids_of(one: Process, count: int) -> set[int]:
    """The processes that answer, once there are so many."""
    pids: set[int] = set()

    async def enough() -> bool:
        pids.add((await one.get_study()).study.number_of_series)
        return len(pids) == count

    await until(enough)
    return pids


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and was not yet waited for does not."""
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


async def test_process_serves_before_it_is_ready_and_says_when_it_is(tmp_path: Path) -> None:
    """A service answers before what it stands on is there, NOT_SERVING, and turns SERVING when it is."""
    ready = tmp_path / "ready"
    async with started(tmp_path, READY_FILE=str(ready)) as one:
        await one.get_study()
        assert await one.status() == "NOT_SERVING"
        ready.touch()
        await until(lambda: is_serving(one))


async def test_told_to_stop_it_turns_not_serving_first_and_lets_calls_end(tmp_path: Path) -> None:
    """On SIGTERM health says NOT_SERVING, calls that run or still come finish, all is closed, the status is 0."""
    async with started(tmp_path, DRAIN_SECONDS="1") as one:
        await until(lambda: is_serving(one))
        async with one.channel() as channel:
            studies = study_service_pb2_grpc.StudyServiceStub(channel)
            slow = studies.GetStudy(study_service_pb2.GetStudyRequest(study_uid="sleep:2"), metadata=one.token)
            await asyncio.sleep(0.3)
            one.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.3)
            assert await one.status() == "NOT_SERVING"
            await one.get_study()
            assert (await slow).study.patient_id == str(USER)
        assert await one.ended() == 0
        assert "closed" in one.printed().splitlines()
        assert [line["outcome"] for line in one.lines("call")] == ["OK", "OK"]


async def test_call_that_outlasts_the_grace_is_cut_off(tmp_path: Path) -> None:
    """A call that is not done within SHUTDOWN_GRACE_SECONDS is cancelled, and the process ends."""
    async with started(tmp_path, SHUTDOWN_GRACE_SECONDS="0.3") as one:
        await until(lambda: is_serving(one))
        slow = asyncio.ensure_future(one.get_study("sleep:60"))
        await asyncio.sleep(0.3)
        one.process.send_signal(signal.SIGINT)
        assert await one.ended() == 0
        with pytest.raises(grpc.aio.AioRpcError):
            await slow


async def test_watchers_of_health_do_not_hold_up_the_end(tmp_path: Path) -> None:
    """Who watches the health sees it turn NOT_SERVING, and then the end of the call, long before the grace is over."""
    async with started(tmp_path, SHUTDOWN_GRACE_SECONDS="60") as one:
        await until(lambda: is_serving(one))
        async with one.channel() as channel:
            watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            seen = [await watching.read()]
            one.process.send_signal(signal.SIGTERM)
            while (answer := await watching.read()) is not grpc.aio.EOF:
                seen.append(answer)
            assert await watching.code() is grpc.StatusCode.OK
        assert await one.ended() == 0
    kinds = health_pb2.HealthCheckResponse
    assert [answer.status for answer in seen] == [kinds.SERVING, kinds.NOT_SERVING]


async def test_log_is_json_and_holds_no_exceptions_text(tmp_path: Path) -> None:
    """A defect leaves its kind and its place in the log, as JSON, and its text nowhere the process prints."""
    async with started(tmp_path) as one:
        with pytest.raises(grpc.aio.AioRpcError):
            await one.get_study("defect")
        await until(lambda: asyncio.sleep(0, bool(one.lines("call"))))
        (defect,), (call,) = one.lines("defect"), one.lines("call")
        assert SECRET not in one.printed()
    assert defect["error"] == ["RuntimeError"]
    assert "runtime_service.py" in defect["at"][-1]
    assert (call["service"], call["level"], call["user_id"]) == ("runtime_service", "info", str(USER))
    assert call["request_id"] == defect["request_id"]


async def test_task_that_fails_unnoticed_is_logged_without_its_text(tmp_path: Path) -> None:
    """A task in the background that nobody waits for leaves its kind of failure in the log, and not its text."""
    async with started(tmp_path) as one:
        await one.get_study("background")
        await until(lambda: asyncio.sleep(0, bool(one.lines("defect"))))
        assert one.lines("defect")[0]["error"] == ["RuntimeError"]
        assert SECRET not in one.printed()


@pytest.mark.parametrize("first_workers", ["1", "2"])
async def test_second_service_on_a_port_is_refused(tmp_path: Path, first_workers: str) -> None:
    """A service on a port that is taken ends with an error, with one worker or two, and the first one serves on."""
    async with started(tmp_path / "first", WORKERS=first_workers) as first:
        await until(lambda: is_serving(first))
        for workers in ("1", "2"):
            async with started(tmp_path / workers, address=first.address, WORKERS=workers) as second:
                assert await second.ended() != 0
        assert await is_serving(first)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_workers_share_the_port_and_end_with_their_supervisor(tmp_path: Path, number: signal.Signals) -> None:
    """With WORKERS=2 both serve, none of them the supervisor, and both end when it does, however that is."""
    async with started(tmp_path, WORKERS="2") as one:
        pids = await pids_of(one, 2)
        assert one.process.pid not in pids
        one.process.send_signal(number)
        assert await one.ended() == (-signal.SIGKILL if number is signal.SIGKILL else 0)
        await until(lambda: asyncio.sleep(0, not any(is_alive(pid) for pid in pids)))
        assert one.printed().splitlines().count("closed") == 2


async def test_supervisor_ends_when_a_worker_dies(tmp_path: Path) -> None:
    """A worker that ends by itself takes the whole service with it, with an error status, for others to restart it."""
    async with started(tmp_path, WORKERS="2") as one:
        pids = await pids_of(one, 2)
        os.kill(min(pids), signal.SIGKILL)
        assert await one.ended() == 1
        assert not any(is_alive(pid) for pid in pids)


async def test_wrong_setting_ends_the_process_without_its_value(tmp_path: Path) -> None:
    """A setting that cannot be is named on stderr, and what was set is not repeated: it may be a password."""
    async with started(tmp_path, WORKERS="hunter2") as one:
        assert await one.ended() == 1
        assert "workers" in one.printed()
        assert "hunter2" not in one.printed()


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_garbage_is_collected_once_it_serves(tmp_path: Path, workers: str) -> None:
    """A service that began without a garbage collector, for a sooner start, has one when it answers, in each worker."""
    async with started(tmp_path, WORKERS=workers) as one:
        await until(lambda: is_serving(one))
        for _ in range(10):
            await one.get_study("garbage")
