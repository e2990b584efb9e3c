"""Files to measure with, in memory where the machine has a file system there."""

import itertools
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.files import fresh_file

MIB = 1024 * 1024
_MEMORY = Path("/dev/shm")  # noqa: S108 - files of our own in a folder of our own
_GROUP_0009 = b"\x09\x00\x10\x00LO"
_STUDY_INSTANCE_UID = b"\x20\x00\x0d\x00UI"
_PIXEL_DATA = b"\xe0\x7f\x10\x00OW\x00\x00"


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A folder to throw away."""
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        yield Path(folder)


def write_image(path: Path, pixel_bytes: int) -> int:
    """Writes a CT image with that many bytes of pixels (whole MiB); gives the size of its header."""
    content = fresh_file(PixelData=bytes(2)).content
    header_bytes = content.rindex(_PIXEL_DATA) + len(_PIXEL_DATA) + 4
    with path.open("wb") as file:
        file.write(content[: header_bytes - 4] + pixel_bytes.to_bytes(4, "little"))
        for _ in range(pixel_bytes // MIB):
            file.write(bytes(MIB))
    return header_bytes


def write_long_header(path: Path, elements: int) -> None:
    """Writes a CT image with so many tiny elements (10 bytes each, in groups 0009 to 001F) before StudyInstanceUID."""
    content = fresh_file(PixelData=bytes(2)).content
    numbers = range(0x1000, 0x10000)
    tags = (struct.pack("<HH", group, number) for group in range(0x0009, 0x0020) for number in numbers)
    with path.open("wb") as file:
        file.write(content[: content.index(_GROUP_0009)])
        file.writelines(tag + b"LO\x02\x00ab" for tag in itertools.islice(tags, elements))
        file.write(content[content.index(_STUDY_INSTANCE_UID) :])
