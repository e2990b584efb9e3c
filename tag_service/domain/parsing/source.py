"""The bytes of a file on their way in: as much of them as is being looked at, inflated where they are deflated."""

from collections.abc import Generator

from tag_service.domain.parsing.inflate import Inflater
from tag_service.domain.standard.limits import Limits


class Source:
    """A buffer that moves along the file. `base` is the offset of its first byte: in the file, and once that is being
    inflated in what comes out, counted on.
    """

    def __init__(self) -> None:
        self.buffer = b""
        self.base = 0
        self._incoming = b""
        self._closed = False
        self._inflater: Inflater | None = None

    def feed(self, data: bytes) -> None:
        """Takes in a piece. Call it when `fill` gave None."""
        self._incoming = data

    def close(self) -> None:
        """Takes in the end of the file."""
        self._closed = True

    def skip(self, size: int) -> None:
        """Goes on behind so many bytes. Call it when `fill` gave None, and nothing was left in the buffer."""
        self.base += size

    def fill(self, position: int, size: int) -> Generator[None, None, bytes]:
        """The buffer from `position` on, with at least `size` bytes, fewer only where the file ends.

        Gives None while it needs another piece. Raises what inflating raises.
        """
        self.base += position
        # A piece that nothing is left before is passed on as it is: bulk data is not copied.
        pieces = [self.buffer[position:]] if position < len(self.buffer) else []
        missing = size - sum(map(len, pieces))
        while missing > 0:
            piece = self._next_piece()
            if piece:
                pieces.append(piece)
                missing -= len(piece)
            elif self._closed or (self._inflater is not None and self._inflater.ended):
                break
            else:
                yield None
        self.buffer = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return self.buffer

    def inflate(self, position: int, limits: Limits) -> bytes:
        """Inflates what follows from `position` in the buffer on; the buffer then is empty."""
        self._inflater = Inflater(limits)
        self.base += position
        self._incoming, self.buffer = self.buffer[position:], b""
        return self.buffer

    @property
    def is_inflating(self) -> bool:
        """Whether bytes are being inflated."""
        return self._inflater is not None

    def stop_inflating(self) -> bool:
        """Goes on with what follows the deflated stream; whether that has come to its own end."""
        if self._inflater is None or not self._inflater.ended:
            return False
        self._incoming, self._inflater = self._inflater.rest(), None
        return True

    def _next_piece(self) -> bytes:
        piece, self._incoming = self._incoming, b""
        if self._inflater is None:
            return piece
        if piece:
            self._inflater.feed(piece)
        return self._inflater.read()
