"""What the adapter makes of an Orthanc that is away, slow, broken, hostile, or none at all. The sockets are real."""

import asyncio
import gzip
import json
import logging
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from deploy.local.ports import free_ports
from pacs_gateway.adapters import orthanc_answers
from pacs_gateway.adapters.orthanc import Deadlines, Orthanc
from pacs_gateway.domain.study import Fingerprint, StudyFilter
from service_runtime.errors import Reason, ServiceError
from tests.unit.pacs_gateway.http_server import Answer, Request, answer_json, answer_with, head, serving

_ID = "01234567-89abcdef-01234567-89abcdef-01234567"
# Seconds. Far less than what the servers below take, far more than the deadlines, for machines are slow.
_SOON = 10
_BRISK = Deadlines(check=0.5, query=0.5, store=0.5, delete=0.5)
_STORED = {"ID": _ID, "ParentStudy": _ID, "Status": "Success"}
_KIB, _MIB = 1024, 1024 * 1024


async def _file(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks or (b"DICM",):
        yield chunk


_CALLS: dict[str, Callable[[Orthanc], Awaitable[Any]]] = {
    "check": lambda pacs: pacs.check(),
    "store": lambda pacs: pacs.store(_file()),
    "fingerprint": lambda pacs: pacs.fingerprint(_ID),
    "find_studies": lambda pacs: pacs.find_studies(StudyFilter(), limit=10),
    "counts": lambda pacs: pacs.counts(["1.2"]),
    "contents": lambda pacs: pacs.contents([_ID]),
    "series": lambda pacs: pacs.series(_ID),
    "instances": lambda pacs: pacs.instances(_ID),
    "delete_study": lambda pacs: pacs.delete_study(_ID),
    "delete_instance": lambda pacs: pacs.delete_instance(_ID),
    "picture": lambda pacs: pacs.picture(_ID),
    "last_change": lambda pacs: pacs.last_change(),
}
_READING = [name for name in _CALLS if not name.startswith("delete") and name != "picture"]


@asynccontextmanager
async def _pacs(url: str, **options: Any) -> AsyncIterator[Orthanc]:
    pacs = Orthanc(url, username="gateway", password="wrong", **{"connections": 32, **options})
    try:
        yield pacs
    finally:
        await pacs.close()


async def _error(url: str, call: str, **options: Any) -> ServiceError:
    async with _pacs(url, **options) as pacs:
        with pytest.raises(ServiceError) as error:
            await _CALLS[call](pacs)
    return error.value


def test_the_default_deadlines_are_the_documented_ones() -> None:
    """Health within 5 s, a query within 30 s, a store within 300 s, a deletion within 60 s."""
    assert Deadlines() == Deadlines(check=5, query=30, store=300, delete=60)


@pytest.mark.parametrize("call", _CALLS)
async def test_an_orthanc_that_is_down_is_unavailable(call: str) -> None:
    """Nobody listens: UNAVAILABLE at once, with a delay after which to try again."""
    began = time.monotonic()
    error = await _error(f"http://127.0.0.1:{free_ports().orthanc}", call)
    assert error.reason is Reason.ORTHANC_UNAVAILABLE
    assert error.retry_after
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("call", _CALLS)
async def test_an_orthanc_that_is_slow_is_unavailable_at_the_deadline(call: str) -> None:
    """A server that takes requests and says nothing ends every call at its deadline, not after several of them."""

    async def silent(_request: Request, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async with serving(silent) as server:
        began = time.monotonic()
        error = await _error(server.url, call, deadlines=_BRISK)
        assert error.reason is Reason.ORTHANC_UNAVAILABLE
        assert 0.4 < time.monotonic() - began < _SOON
        assert len({request.path for request in server.requests}) == len(server.requests)


async def test_an_answer_that_trickles_ends_at_the_deadline() -> None:
    """Each byte in time does not help: the deadline is for the whole answer."""

    async def trickle(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, 1000))
        for _ in range(1000):
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with serving(trickle) as server:
        began = time.monotonic()
        assert (await _error(server.url, "check", deadlines=_BRISK)).reason is Reason.ORTHANC_UNAVAILABLE
        assert time.monotonic() - began < _SOON


@pytest.mark.parametrize("call", _CALLS)
@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (500, Reason.ORTHANC_ERROR),
        (507, Reason.ORTHANC_ERROR),
        (301, Reason.ORTHANC_ERROR),
        (401, Reason.ORTHANC_ERROR),
        (403, Reason.ORTHANC_ERROR),
        (502, Reason.ORTHANC_UNAVAILABLE),
        (503, Reason.ORTHANC_UNAVAILABLE),
        (504, Reason.ORTHANC_UNAVAILABLE),
    ],
)
async def test_a_status_of_failure_is_an_error(call: str, status: int, reason: Reason) -> None:
    """Absent, forbidden and broken are told apart, and nothing of the body gets into the message."""
    async with serving(answer_with(status, "secret detail")) as server:
        error = await _error(server.url, call)
    assert error.reason is reason
    assert "secret" not in str(error)


@pytest.mark.parametrize("call", _CALLS)
async def test_a_wrong_password_is_said_to_be_one(call: str) -> None:
    """401 names the settings to look at, and not the password."""
    async with serving(answer_with(401)) as server:
        error = await _error(server.url, call)
    assert error.reason is Reason.ORTHANC_ERROR
    assert "credentials" in error.message
    assert "ORTHANC_PASSWORD" in error.message
    assert "wrong" not in error.message


@pytest.mark.parametrize("call", _READING)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00\xff\xfe garbage",
        b"<html><body>Welcome to the proxy</body></html>",
        b'{"a": ',
        b"null",
        b"42",
        b'"text"',
        b"[[]]",
        b'[{"ID": "x"}]',
        b'{"ID": 1, "Version": 5, "Status": []}',
        b'[{"ID": "../../x", "MainDicomTags": {}, "PatientMainDicomTags": {}, "ParentStudy": "", "Instances": []}]',
        b"[" * 100_000,
        b'{"Version": "' + b"x" * 1000 + b'"}',
    ],
    ids=range(13),
)
async def test_an_answer_of_the_wrong_shape_is_an_error(call: str, body: bytes) -> None:
    """Garbage, HTML with status 200, other JSON, ids that are none, and depth without end: ORTHANC_ERROR, no crash."""
    async with serving(answer_with(200, body)) as server:
        error = await _error(server.url, call)
    assert error.reason is Reason.ORTHANC_ERROR
    assert "ORTHANC_URL" in error.message


async def test_a_picture_that_is_none_is_not_handed_out() -> None:
    """HTML with status 200 in place of a PNG is no picture."""
    async with (
        serving(answer_with(200, "<html></html>", content_type="image/png")) as server,
        _pacs(server.url) as pacs,
    ):
        assert await pacs.picture(_ID) is None


@pytest.mark.parametrize("call", _CALLS)
@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 999999999 x\r\n\r\n", b"\x00" * 200_000])
async def test_a_server_that_speaks_no_http_is_an_error(call: str, answer: bytes) -> None:
    """Another protocol behind the port is ORTHANC_ERROR or UNAVAILABLE, never an exception of a library."""

    async def speak(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with serving(speak) as server:
        error = await _error(server.url, call)
    assert error.reason in {Reason.ORTHANC_ERROR, Reason.ORTHANC_UNAVAILABLE}


@pytest.mark.parametrize("call", _CALLS)
async def test_an_answer_that_breaks_off_is_unavailable(call: str) -> None:
    """A connection that is closed in mid-answer never passes for a short answer; calls are repeated a few times."""

    async def half(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, 1000) + b"[]")
        await writer.drain()
        writer.close()

    async with serving(half) as server:
        error = await _error(server.url, call)
        assert error.reason is Reason.ORTHANC_UNAVAILABLE
        assert len(server.requests) <= 6


async def test_an_endless_answer_is_cut_off() -> None:
    """What goes on past the bound is an error, and the memory it takes is bounded."""

    async def endless(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
        while True:
            writer.write(piece)
            await writer.drain()

    async with serving(endless) as server:
        tracemalloc.start()
        try:
            error = await _error(server.url, "find_studies", answer_bytes=4 * _MIB, deadlines=Deadlines(query=20))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert error.reason is Reason.ORTHANC_ERROR
    assert peak < 16 * _MIB


@pytest.mark.parametrize("place", ["/statistics", "/changes?last", "/studies", "/tools/bulk-content"])
@pytest.mark.parametrize(
    ("failing", "reason"),
    [(answer_with(500), Reason.ORTHANC_ERROR), (answer_json([1]), Reason.ORTHANC_ERROR)],
    ids=["500", "nonsense"],
)
async def test_a_list_from_memory_is_an_error_where_any_part_of_it_fails(
    place: str, failing: Answer, reason: Reason
) -> None:
    """Whichever question Orthanc fails at, the list is an error, and the next one asks again."""
    answers = {
        "/statistics": answer_json({"CountStudies": 1}),
        "/changes?last": answer_json(
            {"Changes": [{"Seq": 7, "ResourceType": "Study", "ID": _ID}], "Done": True, "Last": 7}
        ),
        "/studies": answer_json([_ID]),
        "/tools/bulk-content": answer_json([{"ID": _ID, "MainDicomTags": {}, "PatientMainDicomTags": {}}]),
    }
    broken = True

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await (failing if broken and request.path == place else answers[request.path])(request, writer)

    async with serving(answer) as server, _pacs(server.url, studies_in_memory=10) as pacs:
        for _ in range(2):
            with pytest.raises(ServiceError) as error:
                await pacs.find_studies(StudyFilter(), limit=10)
            assert error.value.reason is reason
        broken = False
        assert [study.orthanc_study_id for study in await pacs.find_studies(StudyFilter(), limit=10)] == [_ID]


async def test_a_list_from_memory_ends_at_its_deadline_and_gives_way_to_the_next() -> None:
    """Who waits for the turn of another waits no longer than a query may take, and leaves nothing locked."""
    silent = True

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if silent:
            await asyncio.sleep(30)
        await answer_json({"CountStudies": 99} if request.path == "/statistics" else [])(request, writer)

    async with serving(answer) as server, _pacs(server.url, studies_in_memory=10, deadlines=_BRISK) as pacs:
        began = time.monotonic()
        lists = [pacs.find_studies(StudyFilter(), limit=10) for _ in range(5)]
        errors = await asyncio.gather(*lists, return_exceptions=True)
        assert {error.reason for error in errors if isinstance(error, ServiceError)} == {Reason.ORTHANC_UNAVAILABLE}
        assert len(errors) == 5
        assert time.monotonic() - began < _SOON
        silent = False
        assert await pacs.find_studies(StudyFilter(), limit=10) == []


async def test_a_large_answer_does_not_hold_up_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer of more than a mebibyte is parsed in a thread of its own, a small one where it came in."""
    study = {"ID": _ID, "MainDicomTags": {"StudyDescription": "x" * 500}, "PatientMainDicomTags": {}}
    threads = []
    checked = orthanc_answers.STUDIES.validate_json

    class Watched:
        def validate_json(self, content: bytearray) -> Any:
            threads.append(threading.current_thread())
            return checked(content)

    monkeypatch.setattr(orthanc_answers, "STUDIES", Watched())
    for number in (10, 5000):
        body = json.dumps([study] * number)
        async with serving(answer_with(200, body)) as server, _pacs(server.url) as pacs:
            assert len(await pacs.find_studies(StudyFilter(), limit=100_000)) == number
    assert [thread is threading.main_thread() for thread in threads] == [True, False]


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (400, '{"OrthancStatus": 15, "Message": "Bad file format"}', Reason.STORE_REFUSED),
        (404, '{"OrthancStatus": 25, "Message": "Inexistent tag"}', Reason.STORE_REFUSED),
        (404, "<html>no such page</html>", Reason.ORTHANC_ERROR),
        (400, "", Reason.ORTHANC_ERROR),
        (413, "<html>too large</html>", Reason.ORTHANC_ERROR),
        (200, json.dumps({"ID": _ID, "Status": "FilteredOut"}), Reason.STORE_REFUSED),
        (200, json.dumps({"ID": _ID, "Status": "Failure"}), Reason.ORTHANC_ERROR),
        (200, json.dumps([_STORED]), Reason.ORTHANC_ERROR),
    ],
)
async def test_only_orthanc_itself_refuses_a_file(status: int, body: str, reason: Reason) -> None:
    """Orthanc's own refusal says that the file is at fault; that of a proxy, or of the wrong URL, does not."""
    async with serving(answer_with(status, body)) as server:
        assert (await _error(server.url, "store")).reason is reason


async def test_a_fingerprint_that_was_not_verified_is_none_at_all() -> None:
    """Orthanc noted an MD5, but what it keeps is other bytes, or cannot be read: STORE_UNVERIFIED."""
    for status in (400, 500):

        async def answer(request: Request, writer: asyncio.StreamWriter, status: int = status) -> None:
            noted = answer_json({"UncompressedSize": 3, "UncompressedMD5": "0" * 32})
            await (noted if request.method == "GET" else answer_with(status))(request, writer)

        async with serving(answer) as server:
            assert (await _error(server.url, "fingerprint")).reason is Reason.STORE_UNVERIFIED


async def test_a_file_without_an_md5_is_hashed_while_it_comes_in() -> None:
    """An Orthanc that notes no MD5 hands out the file, which is never held whole; a half of one is no fingerprint."""
    size = 40 * _MIB

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.path.endswith("/info"):
            await answer_json({"UncompressedSize": size, "UncompressedMD5": ""})(request, writer)
            return
        writer.write(head(200, size))
        for _ in range(40 if request.turn < 2 else 20):
            writer.write(b"\x00" * _MIB)
            await writer.drain()
        if request.turn >= 2:
            writer.close()

    async with serving(answer) as server, _pacs(server.url, connections=1) as pacs:
        tracemalloc.start()
        try:
            fingerprint = await pacs.fingerprint(_ID)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert fingerprint == Fingerprint(size, "ec8bb3b24d5b0f1b5bdf8c8f0f541ee6")
        assert peak < 16 * _MIB
        with pytest.raises(ServiceError) as error:
            await pacs.fingerprint(_ID)
        assert error.value.reason is Reason.ORTHANC_UNAVAILABLE


async def test_answers_are_asked_for_as_they_are_and_with_the_credentials() -> None:
    """No compression, which costs Orthanc more than it saves; basic authentication; DICOM as such."""
    async with serving(answer_json(_STORED)) as server, _pacs(server.url) as pacs:
        await pacs.store(_file(b"a", b"b"))
    [request] = server.requests
    assert request.body == b"ab"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["content-type"] == "application/dicom"
    assert request.headers["authorization"] == "Basic Z2F0ZXdheTp3cm9uZw=="


@pytest.mark.parametrize("call", _CALLS)
async def test_every_request_says_who_asks(call: str) -> None:
    """With a body or without: the credentials, the host, and that nothing is to be compressed."""
    async with serving(answer_with(401)) as server:
        await _error(server.url, call)
    for request in server.requests:
        assert request.headers["authorization"] == "Basic Z2F0ZXdheTp3cm9uZw=="
        assert request.headers["accept-encoding"] == "identity"
        assert request.headers["user-agent"] == "pacs_gateway"
        assert request.headers["host"] == server.url.removeprefix("http://")
        assert request.method != "POST" or {"content-length", "transfer-encoding"} & request.headers.keys()


async def test_an_answer_that_is_compressed_all_the_same_is_read() -> None:
    """What stands between may compress whatever it was asked for: neither an answer nor a file is taken as it came."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        plain = b"DICM" * 100_000 if request.path.endswith("/file") else b'{"Version": "1.2.3"}'
        body = gzip.compress(plain)
        writer.write(head(200, len(body)).replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n") + body)
        await writer.drain()

    async with serving(answer) as server, _pacs(server.url) as pacs:
        assert await pacs.check() == "1.2.3"
        assert b"".join([chunk async for chunk in pacs.file(_ID)]) == b"DICM" * 100_000


async def test_the_password_is_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the libraries below log of a call, at any level, the password is not in it."""
    caplog.set_level(logging.DEBUG)
    async with serving(answer_with(401)) as server:
        await _error(server.url, "series")
    assert "wrong" not in caplog.text
    assert "Z2F0ZXdheTp3cm9uZw==" not in caplog.text
