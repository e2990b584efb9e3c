"""Files that are damaged at random, most of them where it hurts: in lengths, tags, VRs and delimiters."""

import struct
from functools import lru_cache
from random import Random

from tests.unit.tag_service.building import part10, pydicom_files
from tests.unit.tag_service.random_files import WRITERS, encode, random_file

_MAX_SAMPLE_BYTES = 40_000
_LENGTHS = (0, 1, 2, 7, 8, 0xFE, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_PATTERNS = (
    *(struct.pack(f"{order}HHL", 0xFFFE, element, length) for order in "<>" for element in (0xE000, 0xE00D, 0xE0DD)
      for length in (0, 8, 0xFFFFFFFF)),
    *(vr.encode() + b"\0\0\xff\xff\xff\xff" for vr in ("SQ", "UN", "OB", "UT", "XX")),
    *(vr.encode() for vr in ("SQ", "UN", "OB", "LO", "??", "US", "\0\0")),
    b"\xe0\x7f\x10\x00", b"\x08\x00\x05\x00CS", b"\x02\x00\x10\x00UI", b"\0" * 8, b"\x1b$B", b"DICM",
)  # fmt: skip


@lru_cache
def _samples() -> tuple[bytes, ...]:
    """The smaller ones of pydicom's files."""
    return tuple(path.read_bytes() for path in pydicom_files() if path.stat().st_size <= _MAX_SAMPLE_BYTES)


def damaged_file(random: Random) -> bytes:
    """A file, made or real, with some damage; inside what is deflated as well as outside."""
    if random.randrange(3) == 0:
        return damaged(random, random.choice(_samples()))
    built = random_file(random)
    if random.randrange(2):
        return damaged(random, built.data)
    body = damaged(random, encode(built.tree, built.writer))
    # Sometimes in another encoding than it says.
    writer = random.choice([built.writer] * 7 + WRITERS)
    return random.choice([writer.file, lambda data: part10(data, writer.transfer_syntax), lambda data: data])(body)


def damaged(random: Random, data: bytes) -> bytes:
    """The data with one to four things wrong with it."""
    found = bytearray(data)
    for _ in range(random.randrange(1, 5)):
        if not found:
            break
        # Structure is denser where a file begins.
        at = random.randrange(len(found)) if random.randrange(2) else random.randrange(min(len(found), 600))
        _KINDS[random.randrange(len(_KINDS))](random, found, at)
    return bytes(found)


def _flip(random: Random, data: bytearray, at: int) -> None:
    data[at] ^= 1 << random.randrange(8)


def _overwrite(random: Random, data: bytearray, at: int) -> None:
    pattern = random.choice(_PATTERNS)
    data[at : at + len(pattern)] = pattern


def _insert(random: Random, data: bytearray, at: int) -> None:
    data[at:at] = random.choice(_PATTERNS)


def _length(random: Random, data: bytearray, at: int) -> None:
    size, order = random.choice([2, 4]), random.choice(["little", "big"])
    value = random.choice(_LENGTHS) & ((1 << 8 * size) - 1)
    data[at : at + size] = value.to_bytes(size, order)


def _cut_out(random: Random, data: bytearray, at: int) -> None:
    del data[at : at + random.randrange(1, 40)]


def _cut_off(random: Random, data: bytearray, at: int) -> None:  # noqa: ARG001 - one of a table
    del data[at:]


def _repeat(random: Random, data: bytearray, at: int) -> None:
    data[at:at] = data[at : at + random.randrange(1, 60)] * random.randrange(1, 9)


_KINDS = (_flip, _flip, _overwrite, _insert, _length, _length, _cut_out, _cut_off, _repeat)
