"""Inflating a deflated data set (PS3.5 A.5, RFC 1951) piece by piece, under a limit on what comes out."""

import contextlib
import zlib
from typing import Final

from service_runtime.errors import Reason, ServiceError
from tag_service.domain.standard.limits import MIB, Limits

# How much goes in and comes out at a time.
_IN_BYTES: Final = 64 * 1024
_OUT_BYTES: Final = 256 * 1024


class Inflater:
    """Bytes in through `feed`, inflated bytes out through `read` until that gives b"". `ended`: the stream is whole."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        self._input = b""
        self._taken = 0
        self._fed = 0
        self._inflated = 0
        self._is_broken = False

    @property
    def ended(self) -> bool:
        """Whether the deflated stream has come to its own end."""
        return self._stream.eof

    def feed(self, data: bytes) -> None:
        """Takes in what follows. Call it when `read` gave b""."""
        self._input = self._input[self._taken :] + data
        self._taken = 0

    def read(self) -> bytes:
        """Some inflated bytes, b"" when more input is needed or the stream has ended.

        Raises MALFORMED_DICOM and STRUCTURE_LIMIT.
        """
        while not self._stream.eof:
            given = self._stream.unconsumed_tail
            if not given:
                given = self._input[self._taken : self._taken + _IN_BYTES]
                self._taken += len(given)
                self._fed += len(given)
            piece = b"" if self._is_broken else self._decompress(given)
            if self._is_broken and not piece:
                raise ServiceError(
                    Reason.MALFORMED_DICOM,
                    "The deflated data set is broken; it cannot be inflated further.",
                    metadata={"rule": "PS3.5 A.5"},
                )
            if piece:
                self._count(len(piece))
                return piece
            if not given:
                return b""
        return b""

    def _decompress(self, given: bytes) -> bytes:
        before = self._stream.copy()
        try:
            return self._stream.decompress(given, _OUT_BYTES)
        except zlib.error:
            # It keeps to itself what came out before the fault, which must not depend on how the file was cut.
            self._is_broken = True
            pieces = []
            with contextlib.suppress(zlib.error):
                for position in range(len(given)):
                    pieces.append(before.decompress(given[position : position + 1]))  # noqa: PERF401 - up to the fault
            return b"".join(pieces)

    def rest(self) -> bytes:
        """What was fed behind the end of the stream."""
        return self._stream.unused_data + self._input[self._taken :]

    def _count(self, size: int) -> None:
        self._inflated += size
        limits = self._limits
        if self._inflated > limits.inflated_bytes or (
            self._inflated > MIB and self._inflated > limits.inflation_ratio * self._fed
        ):
            raise ServiceError(
                Reason.STRUCTURE_LIMIT,
                f"The deflated data set inflates to more than {limits.inflated_bytes} bytes, or to more than "
                f"{limits.inflation_ratio} times its size.",
                metadata={"limit": "inflated bytes"},
            )
