"""The files that a call brings, piece by piece, as they are or in a form."""

import time
from collections import deque
from typing import Any, Final
from uuid import UUID

from grpc.aio import EOF
from python_multipart.multipart import MultipartParser, parse_options_header

_FORM: Final = "multipart/form-data"


class Incoming:
    """The files of one call, one behind the other."""

    def __init__(self, context: Any) -> None:
        self.filename = ""
        # The RIS's patient, where the files are to be coerced to one.
        self.coerced_to: UUID | None = None
        # When the call ended, where nothing but that says that the file did: in seconds of the monotonic clock.
        self.ended_at: float | None = None
        self._context = context
        self._has_ended = False
        self._says_its_end = False
        # None: there a file ends.
        self._pieces: deque[bytes | None] = deque()
        self._form: MultipartParser | None = None

    async def piece(self) -> bytes | None:
        """The file's next piece, None behind its last one, and from then on the pieces of the next file."""
        while not self._pieces:
            if self._has_ended:
                return None
            message = await self._context.read()
            if message is EOF:
                self._has_ended = True
                self.ended_at = None if self._says_its_end else time.monotonic()
            else:
                self._take(message)
        return self._pieces.popleft()

    async def pieces(self, most_bytes: int) -> tuple[list[bytes], bool]:
        """The file's next pieces, until there are more than so many bytes; and whether that is the rest of it."""
        found: list[bytes] = []
        size = 0
        while size <= most_bytes:
            piece = await self.piece()
            if piece is None:
                return found, True
            found.append(piece)
            size += len(piece)
        return found, False

    def _take(self, message: Any) -> None:
        body = message.file
        if message.patient_match == "COERCE":
            self.coerced_to = UUID(message.patient_id)
        if self._form is None and body.content_type.startswith(_FORM):
            self._form = self._parser_of(body.content_type)
        if self._form is not None:
            self._says_its_end = True
            self._form.write(body.data)
            return
        if message.filename:
            self.filename = message.filename
        if data := body.data:
            self._pieces.append(data)
        self._says_its_end = message.end_of_file
        if message.end_of_file:
            self._pieces.append(None)

    def _parser_of(self, content_type: str) -> MultipartParser:
        _, options = parse_options_header(content_type)
        return MultipartParser(
            options[b"boundary"],
            {
                "on_part_data": lambda data, start, end: self._pieces.append(bytes(data[start:end])),
                "on_part_end": lambda: self._pieces.append(None),
            },
        )
