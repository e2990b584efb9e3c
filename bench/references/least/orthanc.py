"""Three exchanges with Orthanc for a file: it stores it, tells what it noted of it, and reads it again."""

import json
from collections.abc import AsyncIterable, Iterable
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload
from yarl import URL

from bench.references.least.ledger import RefusedError

# Orthanc closes a connection that is idle for a second.
_KEEPALIVE_SECONDS: Final = 0.5
_CONNECTIONS: Final = 32
Piece = bytes | memoryview


class Body(Payload):
    """A file in pieces, of a size that is known."""

    def __init__(self, pieces: Iterable[Piece] | AsyncIterable[Piece], size: int) -> None:
        super().__init__(pieces, content_type="application/dicom")
        self._size = size

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Is no text."""
        raise NotImplementedError

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Writes the pieces."""
        if isinstance(self._value, AsyncIterable):
            async for piece in self._value:
                await writer.write(piece)
        else:
            for piece in self._value:
                await writer.write(piece)


class Orthanc:
    """Asks Orthanc. To be made in the event loop, and closed."""

    def __init__(self, url: str, username: str, password: str) -> None:
        self._url = url.rstrip("/")
        self._instances = URL(f"{self._url}/instances", encoded=True)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS, keepalive_timeout=_KEEPALIVE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "Authorization": aiohttp.encode_basic_auth(username, password),
                "Accept-Encoding": "identity",
            },
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._session.close()

    async def store(self, body: Body) -> Any:
        """What Orthanc answers of a file that it stored."""
        return json.loads(await self._answer("POST", self._instances, body))

    async def held(self, orthanc_id: str) -> tuple[int, str]:
        """Size and MD5 of what Orthanc holds, which it has read again."""
        path = f"{self._url}/instances/{orthanc_id}/attachments/dicom"
        noted = json.loads(await self._answer("GET", URL(f"{path}/info", encoded=True)))
        await self._answer("POST", URL(f"{path}/verify-md5", encoded=True))
        return noted["UncompressedSize"], noted["UncompressedMD5"]

    async def _answer(self, method: str, url: URL, body: Body | None = None) -> bytes:
        async with self._session.request(method, url, data=body) as response:
            content = await response.read()
        if response.status != 200:
            raise RefusedError(f"Orthanc answered with {response.status}")
        return content
