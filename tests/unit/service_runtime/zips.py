"""ZIP archives for tests, written byte by byte so that every one of their lies can be told."""

import struct
import zlib
from dataclasses import dataclass, field
from functools import lru_cache

STORED, DEFLATED = 0, 8
SIZES_FOLLOW, UTF8, ENCRYPTED = 1 << 3, 1 << 11, 1
END64_BYTES = 56


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of an archive: as it should be, but for the fields that a test sets.

    `descriptor` is the form of what follows the data ("" for none): "signed" or "bare", with " 64" for long sizes.
    `told` and `listed` replace numbers (crc, packed, size) of the header before the data, and of the directory.
    """

    name: str | bytes
    data: bytes
    method: int = DEFLATED
    flags: int = 0
    descriptor: str = ""
    extra: bytes = b""
    zip64: bool = False
    packed: bytes | None = None
    told: dict[str, int] = field(default_factory=dict)
    listed: dict[str, int] = field(default_factory=dict)
    in_directory: bool = True

    @property
    def raw_name(self) -> bytes:
        """The name's bytes."""
        return self.name if isinstance(self.name, bytes) else self.name.encode()

    @property
    def content(self) -> bytes:
        """The data as packed."""
        if self.packed is not None:
            return self.packed
        return deflated(self.data) if self.method == DEFLATED else self.data

    @property
    def all_flags(self) -> int:
        """The flags, with the one that the descriptor asks for."""
        return self.flags | (SIZES_FOLLOW if self.descriptor else 0)

    @property
    def numbers(self) -> dict[str, int]:
        """What is true of it."""
        return {"crc": zlib.crc32(self.data), "packed": len(self.content), "size": len(self.data)}

    def local(self) -> bytes:
        """Header, data and descriptor."""
        numbers = (dict.fromkeys(self.numbers, 0) if self.descriptor else self.numbers) | self.told
        crc, packed, size = (numbers[name] for name in ("crc", "packed", "size"))
        extra = self.extra
        if self.zip64:
            extra = struct.pack("<HHQQ", 1, 16, size, packed) + extra
            packed = size = 0xFFFFFFFF
        head = (20, self.all_flags, self.method, 0, 0, crc, packed, size, len(self.raw_name), len(extra))
        return b"PK\x03\x04" + struct.pack("<HHHHHIIIHH", *head) + self.raw_name + extra + self.content + self._behind()

    def central(self, offset: int) -> bytes:
        """What the directory says of it."""
        numbers = self.numbers | self.listed
        crc, packed, size = (numbers[name] for name in ("crc", "packed", "size"))
        extra = b""
        if self.zip64:
            extra = struct.pack("<HHQQQ", 1, 24, size, packed, offset)
            packed = size = offset = 0xFFFFFFFF
        head = (
            20,
            20,
            self.all_flags,
            self.method,
            0,
            0,
            crc,
            packed,
            size,
            len(self.raw_name),
            len(extra),
            0,
            0,
            0,
            0,
        )
        return b"PK\x01\x02" + struct.pack("<HHHHHHIIIHHHHHII", *head, offset) + self.raw_name + extra

    def _behind(self) -> bytes:
        if not self.descriptor:
            return b""
        form = "<IQQ" if self.descriptor.endswith("64") else "<III"
        signature = b"PK\x07\x08" if self.descriptor.startswith("signed") else b""
        return signature + struct.pack(form, *self.numbers.values())


@lru_cache(maxsize=8)
def deflated(data: bytes) -> bytes:
    """Raw deflate. An archive asks for it several times for each entry."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def zip_of(
    *entries: Entry, comment: bytes = b"", zip64: bool = False, disk: int = 0, count: int | None = None
) -> bytes:
    """An archive of these."""
    body, directory, listed = b"", b"", 0
    for entry in entries:
        if entry.in_directory:
            directory += entry.central(len(body))
            listed += 1
        body += entry.local()
    count = listed if count is None else count
    end = b""
    if zip64:
        place = (count, count, len(directory), len(body))
        end = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", END64_BYTES - 12, 45, 45, 0, 0, *place)
        end += b"PK\x06\x07" + struct.pack("<IQI", 0, len(body) + len(directory), 1)
    numbers = (0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF) if zip64 else (count, count, len(directory), len(body))
    end += b"PK\x05\x06" + struct.pack("<HHHHIIH", disk, disk, *numbers, len(comment)) + comment
    return body + directory + end
