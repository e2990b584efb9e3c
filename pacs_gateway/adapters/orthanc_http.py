"""HTTP to Orthanc: one long-lived client, requests and answers past all of httpx that nobody needs here.

What a call costs is mostly what libraries do around it, so each does little: no client of httpx's, whose redirects,
cookies and login by negotiation nobody needs, no deadlines but the caller's, no headers that are worked out anew.
"""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from pacs_gateway.adapters.orthanc_answers import nonsense
from pacs_gateway.adapters.orthanc_body import Piece
from service_runtime.errors import Reason, ServiceError

ANSWER_BYTES: Final = 256 * 1024 * 1024
# Orthanc closes a connection that is idle for a second; one that is about to be closed must not be used again.
_KEEPALIVE_SECONDS: Final = 0.5
_NOTHING: Final = httpx.ByteStream(b"")


class BrokenError(Exception):
    """No connection, or one that broke."""


class OrthancHttp:
    """Asks Orthanc. Without deadlines: the caller has one for the whole exchange, by its kind."""

    def __init__(self, url: str, *, username: str, password: str, connections: int, answer_bytes: int) -> None:
        """`url` is http(s)://host:port with an optional path. At most `connections` are open at once; an answer of more
        than `answer_bytes` is an ORTHANC_ERROR.
        """
        self._answer_bytes = answer_bytes
        self._url = url.rstrip("/")
        # Orthanc would spend more time on compressing than the network takes.
        headers = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "pacs_gateway"}
        if username:
            headers["authorization"] = _basic(username, password)

        def session() -> aiohttp.ClientSession:
            connector = aiohttp.TCPConnector(
                limit=connections, keepalive_timeout=_KEEPALIVE_SECONDS, ssl=self._transport.ssl_context
            )
            # What every request says is prepared once, here.
            return aiohttp.ClientSession(connector=connector, headers=headers)

        self._transport = AiohttpTransport(client=session, trust_env=False)

    async def close(self) -> None:
        """Closes the connections."""
        await self._transport.aclose()

    async def ask(self, method: str, path: str, **request: Any) -> tuple[int, bytearray]:
        """Status and body of an answer. Raises as `answer`, and ORTHANC_ERROR for one that is too long."""
        content = bytearray()
        async with self.answer(method, path, **request) as response:
            async for chunk in pieces_of(response):
                content += chunk
                if len(content) > self._answer_bytes:
                    raise nonsense()
            return response.status_code, content

    @asynccontextmanager
    async def answer(self, method: str, path: str, **request: Any) -> AsyncIterator[httpx.Response]:
        """An answer while it comes in. Raises BrokenError, and ORTHANC_ERROR for what is not HTTP."""
        try:
            response = await self._transport.handle_async_request(self._request(method, path, **request))
            try:
                yield response
            finally:
                await response.aclose()
        except (aiohttp.ClientResponseError, httpx.DecodingError) as error:
            raise nonsense() from error
        except (aiohttp.ClientError, httpx.HTTPError) as error:
            raise BrokenError from error

    def _request(self, method: str, path: str, **content: Any) -> httpx.Request:
        """A request with `json`, or with `stream` and `headers`, or without a body, for which httpx works out nothing:
        that would take longer than all else that it does.
        """
        if content:
            return httpx.Request(method, self._url + path, **content)
        request = httpx.Request(method, self._url + path, stream=_NOTHING)
        request.read()
        return request


class Stream(httpx.AsyncByteStream):
    """The body of a request."""

    def __init__(self, pieces: AsyncIterator[Piece]) -> None:
        self._pieces = pieces

    def __aiter__(self) -> AsyncIterator[bytes]:
        # aiohttp, which is all that reads it, takes either.
        return cast("AsyncIterator[bytes]", self._pieces)


def pieces_of(response: httpx.Response) -> AsyncIterator[bytes]:
    """The bytes of an answer while they come in: past httpx, but for what is encoded in spite of what was asked for."""
    if any(name.lower() == b"content-encoding" for name, _ in response.headers.raw):
        return response.aiter_bytes()
    return aiter(cast("httpx.AsyncByteStream", response.stream))


def ok(status: int, content: bytearray) -> bytearray:
    """The content of an answer that tells no failure. Raises as `expect_ok`."""
    expect_ok(status)
    return content


def expect_ok(status: int) -> None:
    """Raises ORTHANC_UNAVAILABLE and ORTHANC_ERROR for the status of an answer that tells a failure."""
    if status in {502, 503, 504}:
        raise away()
    if status in {401, 403}:
        raise ServiceError(
            Reason.ORTHANC_ERROR,
            "Orthanc does not accept the gateway's credentials. Check ORTHANC_USERNAME and ORTHANC_PASSWORD.",
            metadata={"http_status": str(status)},
        )
    if status != 200:
        raise ServiceError(
            Reason.ORTHANC_ERROR,
            f"Orthanc answered with HTTP status {status}. Its log says why.",
            metadata={"http_status": str(status)},
        )


def _basic(username: str, password: str) -> str:
    """The Authorization of a login (RFC 7617)."""
    return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"


def away() -> ServiceError:
    """The error for an Orthanc that does not answer."""
    return ServiceError(Reason.ORTHANC_UNAVAILABLE, "Orthanc cannot be reached, or is too slow. Retry.", retry_after=5)
