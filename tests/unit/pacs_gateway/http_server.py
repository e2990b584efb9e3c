"""A small HTTP/1.1 server on loopback that answers, or fails to, as a test tells it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

_TURNS = 20

Answer = Callable[["Request", asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Request:
    """A request: `connection` counts the connections from 0, `turn` the requests on it from 0."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int
    turn: int


@dataclass(slots=True)
class Server:
    """Where the server is and what it saw."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    open_connections: int = 0
    most_open: int = 0


def answer_with(status: int, body: bytes | str = b"", *, content_type: str = "application/json") -> Answer:
    """Always the same answer."""
    content = body.encode() if isinstance(body, str) else body

    async def answer(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head(status, len(content), content_type) + content)
        await writer.drain()

    return answer


def answer_json(value: object) -> Answer:
    """Always the same JSON."""
    return answer_with(200, json.dumps(value))


def head(status: int, length: int, content_type: str = "application/json") -> bytes:
    """The head of an answer."""
    lines = (f"HTTP/1.1 {status} Status", f"Content-Type: {content_type}", f"Content-Length: {length}")
    return "\r\n".join((*lines, "", "")).encode()


@asynccontextmanager
async def serving(answer: Answer, *, reads_bodies: bool = True) -> AsyncIterator[Server]:
    """Serves until left. `answer` is called once a request is in; with `reads_bodies` off, once its head is."""
    server = Server()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, turn = server.connections, 0
        server.connections += 1
        server.open_connections += 1
        server.most_open = max(server.most_open, server.open_connections)
        try:
            while not writer.is_closing():
                request = await _request(reader, number, turn, read_body=reads_bodies)
                server.requests.append(request)
                turn += 1
                await answer(request, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            server.open_connections -= 1
            await _closed(writer)

    serving_tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving_tasks.add(task)
        task.add_done_callback(serving_tasks.discard)
        await serve(reader, writer)

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, limit=16 * 1024 * 1024)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
        # What was accepted before that becomes a task only some turns of the loop later.
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        for task in list(serving_tasks):
            task.cancel()
        await asyncio.gather(*serving_tasks, return_exceptions=True)


async def _closed(writer: asyncio.StreamWriter) -> None:
    """Closes the connection, and waits for it: a loop that ends before would leave it to the garbage collector."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def _request(reader: asyncio.StreamReader, connection: int, turn: int, *, read_body: bool) -> Request:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = b""
    if read_body and headers.get("transfer-encoding") == "chunked":
        body = await _chunked(reader)
    elif read_body:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, path, headers, body, connection, turn)


async def _chunked(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while True:
        size = int(await reader.readuntil(b"\r\n"), 16)
        body += await reader.readexactly(size)
        await reader.readexactly(2)
        if size == 0:
            return bytes(body)
