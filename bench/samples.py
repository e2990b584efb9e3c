"""Files to measure with, in memory where the machine has a file system there."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.files import fresh_file

MIB = 1024 * 1024
_MEMORY = Path("/dev/shm")  # noqa: S108 - files of our own in a folder of our own
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
