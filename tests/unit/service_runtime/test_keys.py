import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from service_runtime import keys
from service_runtime.errors import Reason, ServiceError
from service_runtime.keys import KeySet

JWK = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key(), as_dict=True)


def a_set(*kids: str) -> bytes:
    """A key set with keys of these ids."""
    return json.dumps({"keys": [{**JWK, "kid": kid} for kid in kids]}).encode()


class Provider:
    """An HTTP server on the loopback that hands out a key set, or whatever a test wants."""

    def __init__(self) -> None:
        self.answer: Callable[[BaseHTTPRequestHandler], None] = self.send(a_set("a"))
        self.asked = 0
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked += 1
                provider.answer(self)

            def log_message(self, *args: Any) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/keys"

    @staticmethod
    def send(body: bytes, status: int = 200) -> Callable[[BaseHTTPRequestHandler], None]:
        """An answer."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            if status == 302:
                handler.send_header("Location", "/elsewhere")
            handler.end_headers()
            handler.wfile.write(body)

        return answer


@pytest.fixture
def provider() -> Iterator[Provider]:
    """The server, running."""
    one = Provider()
    thread = threading.Thread(target=one.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield one
    one.server.shutdown()
    one.server.server_close()
    thread.join()


class Clock:
    """The time as the key set sees it, moved by the test."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        """Seconds."""
        return time.perf_counter() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock in place of the real one."""
    one = Clock()
    monkeypatch.setattr(keys, "monotonic", one)
    return one


async def expect_unavailable(key_set: KeySet, kid: str = "a") -> ServiceError:
    """The error that says that the keys are not to be had."""
    with pytest.raises(ServiceError) as caught:
        await key_set.key(kid)
    assert caught.value.reason is Reason.KEYS_UNAVAILABLE
    assert caught.value.retry_after
    return caught.value


async def test_set_comes_from_a_file_and_from_a_url(tmp_path: Path, provider: Provider) -> None:
    """A key is found by its id in a file as at a URL, and one that is not there is not."""
    path = tmp_path / "with space #.json"
    path.write_bytes(a_set("a", "b"))
    provider.answer = provider.send(a_set("a", "b"))
    for key_set in (KeySet(str(path)), KeySet(provider.url)):
        for kid in ("a", "b"):
            key = await key_set.key(kid)
            assert key is not None
            assert key.key_id == kid
        assert await key_set.key("c") is None


BROKEN = [
    b"",
    b"<html>",
    b"[]",
    b"{}",
    b"null",
    b'{"keys": 5}',
    b'{"keys": []}',
    b'{"keys": [5]}',
    b'{"keys": [{"kty": "x"}]}',
    b"\xff\xfe",
    b"[" * 100_000,
]


@pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
async def test_garbage_for_a_set_is_unavailable(tmp_path: Path, provider: Provider, content: bytes) -> None:
    """A file or an answer that holds no usable key makes the keys unavailable, and does no other harm."""
    path = tmp_path / "jwks.json"
    path.write_bytes(content)
    await expect_unavailable(KeySet(str(path)))
    provider.answer = provider.send(content)
    await expect_unavailable(KeySet(provider.url))


async def test_missing_file_is_unavailable_until_it_is_there(tmp_path: Path, clock: Clock) -> None:
    """A file that is not there yet makes the keys unavailable, and is looked for again."""
    key_set = KeySet(str(tmp_path / "jwks.json"))
    error = await expect_unavailable(key_set)
    assert str(tmp_path) not in error.message
    (tmp_path / "jwks.json").write_bytes(a_set("a"))
    clock.ahead += 3
    assert await key_set.key("a")


@pytest.mark.parametrize("status", [302, 404, 500])
async def test_http_error_is_unavailable(provider: Provider, status: int) -> None:
    """An answer other than 200, a redirection among them, makes the keys unavailable."""
    provider.answer = provider.send(a_set("a"), status)
    await expect_unavailable(KeySet(provider.url))
    assert provider.asked == 1


async def test_server_that_hangs_up_or_trickles_is_unavailable(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that breaks off, or sends a byte now and then for ever, holds nobody up for longer than the timeout."""
    monkeypatch.setattr(keys, "_FETCH_SECONDS", 0.3)
    done = threading.Event()

    def trickle(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(400):
            if done.wait(0.05):
                return
            handler.wfile.write(b" ")

    for answer in (lambda handler: handler.connection.close(), trickle):
        provider.answer = answer
        started = time.perf_counter()
        await expect_unavailable(KeySet(provider.url))
        assert time.perf_counter() - started < 10
    done.set()


async def test_many_calls_at_once_fetch_once(provider: Provider) -> None:
    """However many calls need the set at the same moment, it is fetched once."""
    key_set = KeySet(provider.url)
    assert all(await asyncio.gather(*(key_set.key("a") for _ in range(50))))
    assert provider.asked == 1


async def test_unknown_keys_do_not_make_it_fetch_at_every_call(provider: Provider, clock: Clock) -> None:
    """Tokens with made-up keys cause one fetch in a while and not one each; a new key is found after that while."""
    key_set = KeySet(provider.url)
    await key_set.key("a")
    provider.answer = provider.send(a_set("a", "new"))
    for number in range(20):
        assert await key_set.key(f"x{number}") is None
    assert provider.asked == 1
    clock.ahead += 11
    assert await key_set.key("new")
    assert await key_set.key("x") is None
    assert provider.asked == 2


async def test_failing_fetches_are_spaced_too(provider: Provider, clock: Clock) -> None:
    """While the set cannot be fetched, calls do not queue up to try it each for itself."""
    provider.answer = provider.send(b"", 500)
    key_set = KeySet(provider.url)
    for _ in range(10):
        await expect_unavailable(key_set)
    assert provider.asked == 1
    clock.ahead += 3
    await expect_unavailable(key_set)
    assert provider.asked == 2


async def test_set_is_fetched_anew_and_a_withdrawn_key_goes(provider: Provider, clock: Clock) -> None:
    """After five minutes the set is fetched again, and a key that is no longer in it is no longer good."""
    key_set = KeySet(provider.url)
    provider.answer = provider.send(a_set("a", "old"))
    assert await key_set.key("old")
    provider.answer = provider.send(a_set("a"))
    clock.ahead += 301
    assert await key_set.key("old") is None
    assert await key_set.key("a")


async def test_known_keys_outlive_an_outage_for_an_hour(provider: Provider, clock: Clock) -> None:
    """While the provider is away, known keys stay good and unknown ones are `unavailable`, not `invalid`."""
    key_set = KeySet(provider.url)
    await key_set.key("a")
    provider.answer = provider.send(b"", 500)
    clock.ahead += 1800
    assert await key_set.key("a")
    await expect_unavailable(key_set, "new")
    clock.ahead += 1801
    await expect_unavailable(key_set, "a")
    provider.answer = provider.send(a_set("a"))
    clock.ahead += 3
    assert await key_set.key("a")
    assert await key_set.key("new") is None


async def test_a_set_is_checked_without_a_token(tmp_path: Path) -> None:
    """Whether there are keys is told before any token asks for one, and again once they are there."""
    path = tmp_path / "jwks.json"
    source = KeySet(str(path))
    with pytest.raises(ServiceError) as refused:
        await source.check()
    assert refused.value.reason is Reason.KEYS_UNAVAILABLE
    path.write_bytes(a_set("a"))
    source._next_fetch_at = 0
    await source.check()
    path.unlink()
    await source.check()
