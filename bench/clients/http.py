"""HTTP/1.1 on bare sockets, the requests put into words before the time runs."""

import base64
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain

from bench.clients.connections import share_out
from bench.files import File

_TIMEOUT_SECONDS = 300
_ANSWER_BYTES = 64 * 1024
_BOUNDARY = b"bench-5f2b7a9c"


@dataclass(frozen=True, slots=True)
class Request:
    """A request with a body of files, each between what a form puts around it."""

    path: str
    headers: tuple[str, ...]
    files: tuple[File, ...] = ()
    method: str = "POST"
    # Name of the form's field; None where the body is the file itself.
    field: str | None = None

    def parts(self) -> Iterator[bytes]:
        """The request, in order."""
        body, size = self._body()
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: 127.0.0.1", *self.headers]
        lines += [f"Content-Length: {size}"] if size or self.method != "GET" else []
        if self.field is not None:
            lines.append(f"Content-Type: multipart/form-data; boundary={_BOUNDARY.decode()}")
        return chain([("\r\n".join(lines) + "\r\n\r\n").encode()], body)

    def _body(self) -> tuple[Iterator[bytes], int]:
        if self.field is None:
            return chain.from_iterable(file.parts for file in self.files), sum(map(len, self.files))
        fields = [
            b'--%s\r\nContent-Disposition: form-data; name="%s"; filename="%d.dcm"\r\n'
            b"Content-Type: application/dicom\r\n\r\n" % (_BOUNDARY, self.field.encode(), number)
            for number in range(len(self.files))
        ]
        end = b"--%s--\r\n" % _BOUNDARY
        size = sum(len(field) + len(file) + 2 for field, file in zip(fields, self.files, strict=True)) + len(end)
        pieces = (chain([field], file.parts, [b"\r\n"]) for field, file in zip(fields, self.files, strict=True))
        return chain(chain.from_iterable(pieces), [end]), size


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpLoad:
    """Requests over so many connections, each of which takes the next request when it is done with one."""

    port: int
    requests: tuple[Request, ...]
    connections: int

    def prepare(self) -> Callable[[], Sequence[Answer]]:
        """Puts the requests into words; a short one is one piece, for a call into the kernel costs more than a copy."""
        requests = [_joined(request.parts()) for request in self.requests]
        return lambda: share_out(requests, partial(_Connection, self.port), self.connections)


class _Connection:
    closed = False

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: Sequence[bytes]) -> Answer:
        """Sends the request; not all of it, where it is answered before. The server may then close the connection."""
        with suppress(BrokenPipeError):
            for part in request:
                self._socket.sendall(part)
        head, _, body = self._until(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        fields = dict(line.split(b":", 1) for line in lines[1:])
        if fields.get(b"transfer-encoding", b"").strip() == b"chunked":
            body = self._chunks(body)
        else:
            size = int(fields.get(b"content-length", b"0"))
            while len(body) < size:
                body += self._more()
        self.closed = fields.get(b"connection", b"").strip() == b"close"
        return Answer(int(lines[0].split()[1]), body)

    def close(self) -> None:
        """Hangs up."""
        self._socket.close()

    def _until(self, mark: bytes) -> tuple[bytes, bytes, bytes]:
        data = b""
        while mark not in data:
            data += self._more()
        return data.partition(mark)

    def _chunks(self, data: bytes) -> bytes:
        """The body out of chunks without trailers."""
        body = b""
        while True:
            while b"\r\n" not in data:
                data += self._more()
            size, _, data = data.partition(b"\r\n")
            wanted = int(size, 16)
            while len(data) < wanted + 2:
                data += self._more()
            if not wanted:
                return body
            body, data = body + data[:wanted], data[wanted + 2 :]

    def _more(self) -> bytes:
        data = self._socket.recv(_ANSWER_BYTES)
        if not data:
            raise ConnectionError("the server hung up")
        return data


def _joined(parts: Iterator[bytes]) -> Sequence[bytes]:
    """The parts, the small ones put together."""
    done: list[bytes] = []
    small = b""
    for part in parts:
        if len(part) < _ANSWER_BYTES:
            small += part
            continue
        done += [small, part] if small else [part]
        small = b""
    return [*done, small] if small else done


def basic(username: str, password: str) -> str:
    """The header that names a user to Orthanc."""
    return f"Authorization: Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"
