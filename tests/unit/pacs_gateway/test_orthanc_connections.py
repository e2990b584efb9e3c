"""How the adapter uses its connections: kept and shared, few enough, and made anew where one dies."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pacs_gateway.adapters.orthanc import Deadlines, Orthanc
from pacs_gateway.domain.study import StudyFilter
from service_runtime.errors import Reason, ServiceError
from tests.unit.pacs_gateway.http_server import Answer, Request, answer_json, answer_with, head, serving

_ID = "01234567-89abcdef-01234567-89abcdef-01234567"
_STORED = {"ID": _ID, "ParentStudy": _ID, "Status": "Success"}
_KIB, _MIB = 1024, 1024 * 1024

_CALLS: dict[str, Callable[[Orthanc], Awaitable[Any]]] = {
    "check": lambda pacs: pacs.check(),
    "find_studies": lambda pacs: pacs.find_studies(StudyFilter(), limit=10),
    "counts": lambda pacs: pacs.counts(["1.2"]),
    "series": lambda pacs: pacs.series(_ID),
    "delete_study": lambda pacs: pacs.delete_study(_ID),
}


async def _file(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks or (b"DICM",):
        yield chunk


@asynccontextmanager
async def _pacs(url: str, **options: Any) -> AsyncIterator[Orthanc]:
    pacs = Orthanc(url, username="gateway", password="wrong", **{"connections": 32, **options})
    try:
        yield pacs
    finally:
        await pacs.close()


@pytest.mark.parametrize("call", _CALLS)
async def test_a_call_whose_connection_dies_is_made_again(call: str) -> None:
    """A kept connection that the server closes just when it is used again costs nothing but a repetition."""

    async def dying(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.turn > 0:
            writer.close()
            return
        body = json.dumps({"Version": "1"} if request.path == "/system" else []).encode()
        writer.write(head(200, len(body)) + body)
        await writer.drain()

    async with serving(dying) as server, _pacs(server.url) as pacs:
        await _CALLS[call](pacs)
        await _CALLS[call](pacs)
        await _CALLS[call](pacs)
        assert server.connections > 1


def _store_after(seen: int, *, failures: int) -> tuple[Answer, list[int]]:
    """Answers /system; the first `failures` stores are broken off once `seen` bytes of the body are in."""
    broken: list[int] = []

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        reader: asyncio.StreamReader = writer._reader  # type: ignore[attr-defined]
        if request.path == "/system":
            writer.write(head(200, 15) + b'{"Version":"1"}')
        elif len(broken) < failures:
            broken.append(len(await reader.readexactly(seen)) if seen else 0)
            writer.transport.abort()
        else:
            body = await reader.readuntil(b"\r\n0\r\n\r\n")
            content = json.dumps({**_STORED, "Status": "Success" if body else "AlreadyStored"}).encode()
            broken.append(sum(len(piece) for piece in body.split(b"\r\n")[1:-2:2]))
            writer.write(head(200, len(content)) + content)
        await writer.drain()

    return answer, broken


@pytest.mark.parametrize("seen", [0, 1, 10 * _KIB, 700 * _KIB])
@pytest.mark.parametrize("failures", [1, 2])
async def test_a_store_whose_connection_dies_early_is_made_again_whole(seen: int, failures: int) -> None:
    """At the first bytes and later, within the first mebibyte: every byte of the file is in the next request."""
    answer, bodies = _store_after(seen, failures=failures)
    chunks = [bytes([65 + number]) * 64 * _KIB for number in range(15)]
    async with serving(answer, reads_bodies=False) as server, _pacs(server.url) as pacs:
        await pacs.check()
        stored = await pacs.store(_slowly(chunks))
        assert stored.orthanc_id == _ID
        assert len([one for one in server.requests if one.method == "POST"]) == failures + 1
    assert bodies[-1] == 15 * 64 * _KIB


@pytest.mark.parametrize("size", [0, 1, 4 * _KIB - 1, 4 * _KIB, 4 * _KIB + 1, 600 * _KIB, _MIB + 1])
async def test_a_whole_file_is_sent_with_its_length_byte_for_byte(size: int) -> None:
    """Whatever its size, in one request that says how long it is."""
    data = secrets.token_bytes(size)
    async with serving(answer_json(_STORED)) as server, _pacs(server.url) as pacs:
        await pacs.store_whole(data)
    [request] = server.requests
    assert request.body == data
    assert request.headers["content-length"] == str(size)
    assert "transfer-encoding" not in request.headers


async def test_a_whole_file_whose_connection_dies_is_sent_again_whole() -> None:
    """Connections that break in the middle of the file cost nothing but repetitions."""
    data = secrets.token_bytes(600 * _KIB)

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        reader: asyncio.StreamReader = writer._reader  # type: ignore[attr-defined]
        if request.connection < 2:
            await reader.readexactly(300 * _KIB)
            writer.transport.abort()
        elif await reader.readexactly(len(data)) == data:
            await answer_json(_STORED)(request, writer)

    async with serving(answer, reads_bodies=False) as server, _pacs(server.url) as pacs:
        assert (await pacs.store_whole(data)).orthanc_id == _ID
        assert len(server.requests) == 3


async def _slowly(chunks: list[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        await asyncio.sleep(0.001)
        yield chunk


async def test_a_store_is_made_again_a_few_times_at_most() -> None:
    """A server that breaks off every store is UNAVAILABLE after three."""
    answer, _ = _store_after(0, failures=1000)
    async with serving(answer, reads_bodies=False) as server, _pacs(server.url) as pacs:
        with pytest.raises(ServiceError) as error:
            await pacs.store(_file())
        assert error.value.reason is Reason.ORTHANC_UNAVAILABLE
        assert len(server.requests) == 3


async def test_a_store_that_dies_late_is_unavailable() -> None:
    """Past the first mebibyte the file cannot be sent again: the caller is told to, and no half of it is sent."""
    answer, _ = _store_after(3 * _MIB, failures=1)
    async with serving(answer, reads_bodies=False) as server, _pacs(server.url) as pacs:
        with pytest.raises(ServiceError) as error:
            await pacs.store(_slowly([b"x" * 256 * _KIB] * 40))
        assert error.value.reason is Reason.ORTHANC_UNAVAILABLE
        assert len(server.requests) == 1


@pytest.mark.parametrize("failure", [ServiceError(Reason.UPLOAD_STALLED, "It stalled."), ZeroDivisionError()])
async def test_the_source_s_own_error_is_the_store_s(failure: Exception) -> None:
    """What the source raises comes out unchanged, is not taken for Orthanc's fault, and is not repeated."""

    async def source() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        await asyncio.sleep(0.05)
        raise failure

    async with serving(answer_json(_STORED)) as server, _pacs(server.url) as pacs:
        with pytest.raises(type(failure)) as error:
            await pacs.store(source())
        assert error.value is failure
        assert server.connections == 1
        assert server.requests == []


async def test_a_refusal_before_the_file_is_through_is_told_at_once() -> None:
    """401 after the head of a request: the rest of the file is not waited for."""
    finished = False

    async def source() -> AsyncIterator[bytes]:
        nonlocal finished
        yield b"x" * 1000
        await asyncio.sleep(30)
        finished = True

    async with serving(answer_with(401), reads_bodies=False) as server, _pacs(server.url) as pacs:
        began = time.monotonic()
        with pytest.raises(ServiceError) as error:
            await pacs.store(source())
        assert time.monotonic() - began < 5
    assert "credentials" in error.value.message
    assert not finished


async def _brief(request: Request, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0.002)
    await answer_json({"Version": "1"} if request.path == "/system" else _STORED)(request, writer)


async def test_files_that_have_not_begun_to_come_keep_no_other_from_being_stored() -> None:
    """A file waits for its own sender: it holds no connection before its first byte."""
    go = asyncio.Event()

    async def late() -> AsyncIterator[bytes]:
        await go.wait()
        yield b"DICM"

    async with serving(answer_json(_STORED)) as server, _pacs(server.url, connections=2) as pacs:
        waiting = [asyncio.create_task(pacs.store(late())) for _ in range(5)]
        await asyncio.sleep(0.05)
        async with asyncio.timeout(2):
            await pacs.store(_file())
        assert server.connections == 1
        go.set()
        assert len(await asyncio.gather(*waiting)) == 5


async def test_connections_are_reused() -> None:
    """Calls one after the other share one connection."""
    async with serving(_brief) as server, _pacs(server.url) as pacs:
        for _ in range(20):
            await pacs.check()
            await pacs.store(_file())
        assert server.connections == 1


async def test_there_are_never_more_connections_than_the_limit() -> None:
    """A hundred and forty stores and checks at once share the connections there are."""
    async with serving(_brief) as server, _pacs(server.url, connections=12) as pacs:
        await asyncio.gather(*(pacs.store(_file()) for _ in range(40)), *(pacs.check() for _ in range(100)))
        assert len(server.requests) == 140
        assert server.most_open <= 12
        assert server.connections <= 24


async def test_slow_uploads_leave_connections_to_all_else() -> None:
    """However many stores wait for their senders, Orthanc can still be asked whether it is there."""
    gate = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        yield b"DICM"
        await gate.wait()

    async with serving(_brief) as server, _pacs(server.url, connections=12, deadlines=Deadlines(store=20)) as pacs:
        stores = [asyncio.create_task(pacs.store(source())) for _ in range(30)]
        await asyncio.sleep(0.1)
        async with asyncio.timeout(2):
            assert await pacs.check() == "1"
        gate.set()
        await asyncio.gather(*stores)
        assert server.most_open <= 12


async def test_a_cancelled_call_gives_its_connection_back() -> None:
    """Callers that go away do not use up the connections, nor the right to store."""

    async def silent(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.path != "/system":
            await asyncio.sleep(30)
        await _brief(request, writer)

    async with serving(silent) as server, _pacs(server.url, connections=2) as pacs:
        for _ in range(3):
            calls = [asyncio.create_task(pacs.store(_file())), asyncio.create_task(pacs.series(_ID))]
            await asyncio.sleep(0.05)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
        async with asyncio.timeout(2):
            assert await pacs.check() == "1"
        await asyncio.sleep(0.05)


class _Stuck:
    """An Orthanc that answers a store only when it is let go on, and everything else at once."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        if request.method == "POST":
            await self.go.wait()
        await _brief(request, writer)


async def test_more_stores_than_may_wait_are_told_to_come_again_unread() -> None:
    """Past four waiting for each place a store is OVERLOADED, and not a byte of it was asked for; the others wait for
    their turn, unsent, and all go through.
    """
    asked = 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal asked
        asked += 1
        yield b"DICM"

    stuck = _Stuck()
    async with serving(stuck.answer) as server, _pacs(server.url, connections=2) as pacs:
        stores = [asyncio.create_task(pacs.store(counted())) for _ in range(5)]
        await asyncio.sleep(0.05)
        with pytest.raises(ServiceError) as error:
            await pacs.store(counted())
        assert (error.value.reason, error.value.metadata) == (Reason.OVERLOADED, {"limit": "MAX_ORTHANC_CONNECTIONS"})
        assert error.value.retry_after
        assert (asked, len(server.requests)) == (5, 1)
        await pacs.delete_instance(_ID)
        stuck.go.set()
        await asyncio.gather(*stores)
        await pacs.store(counted())


async def test_a_store_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose turn does not come in time is OVERLOADED, unsent, and leaves its room to wait to others."""
    monkeypatch.setattr("pacs_gateway.adapters.orthanc._WAIT_SECONDS", 0.05)
    stuck = _Stuck()
    async with serving(stuck.answer) as server, _pacs(server.url, connections=2) as pacs:
        first = asyncio.create_task(pacs.store(_file()))
        await asyncio.sleep(0.02)
        for _ in range(2):
            waiting = await asyncio.gather(*(pacs.store(_file()) for _ in range(4)), return_exceptions=True)
            assert [one.reason for one in waiting if isinstance(one, ServiceError)] == [Reason.OVERLOADED] * 4
        assert len(server.requests) == 1
        stuck.go.set()
        await first


async def test_questions_do_not_queue_without_bound() -> None:
    """Past the bound a question is OVERLOADED, while Orthanc's being there can still be asked."""
    go = asyncio.Event()

    async def silent(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.path != "/system":
            await go.wait()
        await _brief(request, writer)

    async with serving(silent) as server, _pacs(server.url, connections=4) as pacs:
        calls = [asyncio.create_task(pacs.delete_instance(_ID)) for _ in range(3 + 3 * 32)]
        await asyncio.sleep(0.05)
        with pytest.raises(ServiceError) as error:
            await pacs.delete_instance(_ID)
        assert error.value.reason is Reason.OVERLOADED
        assert await pacs.check() == "1"
        go.set()
        await asyncio.gather(*calls)
        assert server.most_open <= 4


async def test_a_sender_s_slowness_is_not_orthanc_s() -> None:
    """A file that takes longer than a store may is stored all the same, as long as enough of it comes."""

    async def slowly() -> AsyncIterator[bytes]:
        for _ in range(8):
            await asyncio.sleep(0.1)
            yield bytes(32 * _KIB)

    async def trickling() -> AsyncIterator[bytes]:
        for _ in range(20):
            await asyncio.sleep(0.1)
            yield b"x"

    deadlines = Deadlines(store=0.5)
    async with serving(answer_json(_STORED)) as server, _pacs(server.url, deadlines=deadlines) as pacs:
        assert (await pacs.store(slowly())).orthanc_id == _ID
        with pytest.raises(ServiceError) as error:
            await pacs.store(trickling())
        assert error.value.reason is Reason.ORTHANC_UNAVAILABLE
