"""gRPC on bare sockets: HTTP/2 frames that are made before the time runs, one call at a time on each connection.

What it leaves out of HTTP/2 (RFC 9113), no server here does: padding, and header blocks in more than one frame. What
trailers say is looked at only where a call fails.
"""

import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from bench.clients.connections import share_out
from bench.clients.grpc_client import Call, Reply

_TIMEOUT_SECONDS: Final = 300
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Kinds of frames (RFC 9113 6), and flags.
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_INITIAL_WINDOW_SIZE: Final = 4
_FRAME_BYTES: Final = 16_384  # what every peer takes
_HEAD_BYTES: Final = 9
_FIRST_WINDOW: Final = 65_535
_LARGEST_WINDOW: Final = 2**31 - 1
_READ_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class BareGrpcLoad:
    """Calls of one method over so many connections, each of which takes the next call when it is done with one."""

    port: int
    method: str
    calls: tuple[Call, ...]
    token: str
    connections: int

    def prepare(self) -> Callable[[], Sequence[Reply]]:
        """Makes the frames of every call."""
        bodies = [_Body(call.messages()) for call in self.calls]
        connect = partial(_Connection, self.port, self.method, self.token)
        return lambda: share_out(bodies, connect, self.connections)


class _Body:
    """The messages of a call as DATA frames, one behind the other; which stream they are of is put in later."""

    def __init__(self, messages: Iterable[bytes]) -> None:
        content = memoryview(b"".join(struct.pack(">xI", len(message)) + message for message in messages))
        self.sizes = [min(_FRAME_BYTES, len(content) - at) for at in range(0, len(content), _FRAME_BYTES)]
        self.frames = bytearray()
        for number, size in enumerate(self.sizes):
            flags = _END_STREAM if number == len(self.sizes) - 1 else 0
            self.frames += struct.pack(">BHBBI", 0, size, _DATA, flags, 0)
            self.frames += content[number * _FRAME_BYTES :][:size]

    def belong_to(self, stream: int) -> None:
        """Puts the stream's number into every frame."""
        at = 5
        for size in self.sizes:
            struct.pack_into(">I", self.frames, at, stream)
            at += _HEAD_BYTES + size


class _Connection:
    """One connection, how much may be sent on it, and what came back of the call that is under way."""

    closed = False

    def __init__(self, port: int, method: str, token: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._headers = _header_blocks(port, method, token)
        self._stream = -1
        self._window = self._stream_window = self._first_window = _FIRST_WINDOW
        self._received = b""
        self._answer = b""
        self._trailers = b""
        self._ended = False
        # Whatever comes back, comes at once.
        settings = struct.pack(">HI", _INITIAL_WINDOW_SIZE, _LARGEST_WINDOW)
        self._socket.sendall(_PREFACE + _frame(_SETTINGS, settings))
        self._socket.sendall(_frame(_WINDOW_UPDATE, struct.pack(">I", _LARGEST_WINDOW - _FIRST_WINDOW)))

    def ask(self, body: _Body) -> Reply:
        """Makes one call. Raises RuntimeError where it fails."""
        began = time.perf_counter()
        self._stream += 2
        self._stream_window = self._first_window
        self._answer, self._ended = b"", False
        body.belong_to(self._stream)
        first, later = self._headers
        block = first if self._stream == 1 else later
        self._socket.sendall(_frame(_HEADERS, block, flags=_END_HEADERS, stream=self._stream))
        if not self._send(body):
            self._socket.sendall(_frame(_RST_STREAM, bytes(4), stream=self._stream))
        while not self._ended:
            self._read()
        messages = _messages(self._answer)
        if not messages:
            raise RuntimeError(f"a call failed: {self._trailers!r}")
        return Reply(messages, time.perf_counter() - began)

    def close(self) -> None:
        """Hangs up."""
        self._socket.close()

    def _send(self, body: _Body) -> bool:
        """Sends as much at a time as flow control allows; whether all of it, for the answer may be there before."""
        frames = memoryview(body.frames)
        sent = allowed = 0
        for size in body.sizes:
            if size > self._room():
                self._socket.sendall(frames[sent:allowed])
                sent = allowed
                while size > self._room() and not self._ended:
                    self._read()
                if self._ended:
                    return False
            self._window -= size
            self._stream_window -= size
            allowed += _HEAD_BYTES + size
        self._socket.sendall(frames[sent:allowed])
        return True

    def _room(self) -> int:
        return min(self._window, self._stream_window)

    def _read(self) -> None:
        """Waits for bytes, and takes the frames that are whole with them."""
        data = self._socket.recv(_READ_BYTES)
        if not data:
            raise ConnectionError("the server hung up")
        data, at = self._received + data, 0
        while len(data) - at >= _HEAD_BYTES:
            high, low, kind, flags, stream = struct.unpack_from(">BHBBI", data, at)
            end = at + _HEAD_BYTES + (high << 16 | low)
            if len(data) < end:
                break
            self._take(kind, flags, stream, data[at + _HEAD_BYTES : end])
            at = end
        self._received = data[at:]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _WINDOW_UPDATE:
            (more,) = struct.unpack(">I", payload)
            self._window += more * (stream == 0)
            self._stream_window += more * (stream == self._stream)
        elif kind == _SETTINGS and not flags & _ACK:
            for name, value in struct.iter_unpack(">HI", payload):
                if name == _INITIAL_WINDOW_SIZE:
                    self._stream_window += value - self._first_window
                    self._first_window = value
            self._socket.sendall(_frame(_SETTINGS, b"", flags=_ACK))
        elif kind == _PING and not flags & _ACK:
            self._socket.sendall(_frame(_PING, payload, flags=_ACK))
        elif kind == _GOAWAY:
            self.closed = True
        elif stream == self._stream and kind in {_DATA, _HEADERS, _RST_STREAM}:
            if kind == _DATA:
                self._answer += payload
            elif kind == _HEADERS:
                self._trailers = payload
            self._ended |= kind == _RST_STREAM or bool(flags & _END_STREAM)


def _frame(kind: int, payload: bytes, *, flags: int = 0, stream: int = 0) -> bytes:
    return struct.pack(">BHBBI", len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


def _header_blocks(port: int, method: str, token: str) -> tuple[bytes, bytes]:
    """The headers of a connection's first call, and those of later ones, which name what the first one put into the
    table of headers (RFC 7541 6; the numbers are of its appendix A).
    """
    post, http = b"\x83", b"\x86"
    fields = (
        (4, b"", method.encode()),  # :path
        (1, b"", b"127.0.0.1:%d" % port),  # :authority
        (31, b"", b"application/grpc"),  # content-type
        (0, b"te", b"trailers"),
        (23, b"", f"Bearer {token}".encode()),  # authorization
    )
    first = b"".join(
        bytes([0x40 | index]) + (_text(name) if name else b"") + _text(value) for index, name, value in fields
    )
    # The table grows at its front, behind the 61 fixed ones.
    later = bytes(0x80 | 62 + number for number in reversed(range(len(fields))))
    return post + http + first, post + http + later


def _text(value: bytes) -> bytes:
    """A string as it is (RFC 7541 5.1, 5.2)."""
    if len(value) < 127:
        return bytes([len(value)]) + value
    size, rest = b"\x7f", len(value) - 127
    while rest >= 128:
        size += bytes([rest % 128 + 128])
        rest //= 128
    return size + bytes([rest]) + value


def _messages(answer: bytes) -> list[bytes]:
    """The messages out of what came (gRPC over HTTP/2: a flag, four bytes of length, the message)."""
    messages, at = [], 0
    while at < len(answer):
        (size,) = struct.unpack_from(">xI", answer, at)
        messages.append(answer[at + 5 : at + 5 + size])
        at += 5 + size
    return messages
