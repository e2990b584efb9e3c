"""Three exchanges with Orthanc for a file: it stores it, tells what it noted of it, and reads it again.

HTTP/1.1 as Orthanc speaks it, on bare connections: with aiohttp, which httpx-aiohttp stands on, an exchange took 0.25
to 0.3 ms of processor more.
"""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterable, Sequence
from typing import Any, Final, cast
from urllib.parse import urlsplit

from bench.references.least.ledger import RefusedError

# Orthanc closes a connection that is idle for a second.
_KEEPALIVE_SECONDS: Final = 0.5
_CONNECTIONS: Final = 32
_SECONDS: Final = 300
_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"
Piece = bytes | memoryview
Body = Sequence[Piece] | AsyncIterable[Piece]


class Orthanc:
    """Asks Orthanc. To be made in the event loop, and closed."""

    def __init__(self, url: str, username: str, password: str) -> None:
        place = urlsplit(url)
        self._host, self._port = place.hostname or "", place.port or 80
        login = base64.b64encode(f"{username}:{password}".encode()).decode()
        self._head = f"HTTP/1.1\r\nHost: {place.netloc}\r\nAuthorization: Basic {login}\r\nContent-Length: ".encode()
        self._idle: list[_Connection] = []
        self._places = asyncio.Semaphore(_CONNECTIONS)

    def close(self) -> None:
        """Closes the connections."""
        for connection in self._idle:
            connection.close()

    async def store(self, body: Body, size: int) -> Any:
        """What Orthanc answers of a file of that size, which it stored."""
        return json.loads(await self._answer("POST /instances", body, size))

    async def held(self, orthanc_id: str) -> tuple[int, str]:
        """Size and MD5 of what Orthanc holds, which it has read again."""
        path = f"/instances/{orthanc_id}/attachments/dicom"
        noted = json.loads(await self._answer(f"GET {path}/info"))
        await self._answer(f"POST {path}/verify-md5")
        return noted["UncompressedSize"], noted["UncompressedMD5"]

    async def _answer(self, what: str, body: Body = (), size: int = 0) -> bytes:
        """What Orthanc answers. A connection on which anything goes wrong is closed, also that of a file that broke
        off, which so cannot pass for a whole one.
        """
        head = b"%b %b%d\r\n\r\n" % (what.encode(), self._head, size)
        async with self._places:
            connection = await self._connection()
            try:
                async with asyncio.timeout(_SECONDS):
                    status, content = await connection.ask(head, body)
            except BaseException:
                connection.close()
                raise
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        if status != 200:
            raise RefusedError(f"Orthanc answered with {status}")
        return content

    async def _connection(self) -> "_Connection":
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_lost and time.monotonic() - connection.idle_since < _KEEPALIVE_SECONDS:
                return connection
            connection.close()
        _, made = await asyncio.get_running_loop().create_connection(_Connection, self._host, self._port)
        return made


class _Connection(asyncio.Protocol):
    """One connection, and the answer that it waits for, which has a length."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self.is_lost = False
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._room: asyncio.Future[None] | None = None

    async def ask(self, head: bytes, body: Body) -> tuple[int, bytes]:
        """Status and body of the answer."""
        assert self._transport is not None
        answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._answer = answer
        if isinstance(body, AsyncIterable):
            self._transport.write(head)
            async for piece in body:
                self._transport.write(piece)
                if self._room is not None:
                    await self._room
        else:
            self._transport.writelines((head, *body))
        return await answer

    def close(self) -> None:
        """Hangs up."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is none by its class

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True
        for waiting in (self._answer, self._room):
            if waiting is not None and not waiting.done():
                waiting.set_exception(error or ConnectionResetError())

    def pause_writing(self) -> None:
        self._room = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    def data_received(self, data: bytes) -> None:
        data = self._received = self._received + data
        head, end, content = data.partition(_END)
        if not end:
            return
        _, _, length = head.lower().partition(_LENGTH)
        if len(content) < int(length.partition(b"\r\n")[0]):
            return
        self._received = b""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((int(data[9:12]), content))
