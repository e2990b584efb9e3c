"""What there is to send on this machine: files, folders of them, and CDs."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing_extensions import Buffer

# 256 KiB messages were measured to be the fastest.
PIECE_BYTES: Final = 256 * 1024
_ZIP_BEGINNING: Final = b"PK\x03\x04"
_PREAMBLE_BYTES, _DICM = 128, b"DICM"  # PS3.10 7.1
_ZIP64_FROM_BYTES: Final = 1 << 31

Progress = Callable[[int], None]


class Kind(Enum):
    """What the first bytes of a file say that it is."""

    DICOM = "dicom"
    ZIP = "zip"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file to send: where it is, how it is called to people, how long it is."""

    path: Path
    name: str
    size_bytes: int
    kind: Kind


@dataclass(frozen=True, slots=True)
class Found:
    """What there is to send, and the files of folders that do not look like DICOM."""

    files: Sequence[LocalFile]
    passed_over: Sequence[LocalFile]


def find_files(paths: Iterable[Path], *, everything: bool = False) -> Found:
    """The files that are named, and those in the folders that are, in order. In folders, what does not begin as DICOM
    files and ZIP archives do is passed over, unless `everything` is to be sent: the gateway also takes DICOM files that
    do not begin so. Raises OSError for a path that cannot be read.
    """
    files: list[LocalFile] = []
    passed_over: list[LocalFile] = []
    seen: set[Path] = set()
    for named in paths:
        for path in walk(named):
            if (real := path.resolve()) in seen:
                continue
            seen.add(real)
            file = _local_file(path, path.name if path == named else path.relative_to(named.parent).as_posix())
            wanted = everything or path == named or file.kind is not Kind.OTHER
            (files if wanted else passed_over).append(file)
    return Found(files, passed_over)


def walk(path: Path) -> Iterator[Path]:
    """The path itself if it is a file, else the files in it and below, in order; links to folders are not followed."""
    if not path.is_dir():
        yield path
        return
    for folder, folders, names in os.walk(path, onerror=_raise):
        folders.sort()
        for name in sorted(names):
            file = Path(folder, name)
            if file.is_file():
                yield file


def read(file: LocalFile, progress: Progress) -> Iterator[bytes]:
    """The bytes of a file, in pieces; at least one, if it is empty."""
    with file.path.open("rb") as source:
        piece = source.read(PIECE_BYTES)
        while True:
            yield piece
            progress(len(piece))
            piece = source.read(PIECE_BYTES)
            if not piece:
                return


def files_of_cd(folder: Path) -> Sequence[LocalFile]:
    """All files of a CD, by their path in it."""
    return [_local_file(path, path.relative_to(folder).as_posix()) for path in walk(folder)]


def zipped(files: Iterable[LocalFile], progress: Progress) -> Iterator[bytes]:
    """The files as a ZIP archive that is made while it is sent, in pieces. Deflated at level 0, which takes no time:
    of what is stored, an archive that is written to a pipe would not tell the length.
    """
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, compresslevel=0, strict_timestamps=False) as archive:
        for file in files:
            entry = zipfile.ZipInfo.from_file(file.path, file.name, strict_timestamps=False)
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=file.size_bytes >= _ZIP64_FROM_BYTES) as packed:
                for piece in read(file, progress):
                    packed.write(piece)
                    yield from sink.pieces(at_least=PIECE_BYTES)
            yield from sink.pieces(at_least=PIECE_BYTES)
    yield from sink.pieces(at_least=1)


class _Sink(io.RawIOBase):
    """What zipfile writes to, and cannot seek in."""

    def __init__(self) -> None:
        self._written = bytearray()

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Buffer, /) -> int:
        """Keeps the data until it is asked for."""
        before = len(self._written)
        self._written += memoryview(data)
        return len(self._written) - before

    def pieces(self, *, at_least: int) -> Iterator[bytes]:
        """What was written, as soon as it is so much."""
        if len(self._written) >= at_least:
            yield bytes(self._written)
            self._written.clear()


def _local_file(path: Path, name: str) -> LocalFile:
    with path.open("rb") as source:
        first = source.read(_PREAMBLE_BYTES + len(_DICM))
    kind = Kind.OTHER
    if first[_PREAMBLE_BYTES:] == _DICM:
        kind = Kind.DICOM
    elif first.startswith(_ZIP_BEGINNING):
        kind = Kind.ZIP
    return LocalFile(path, name, path.stat().st_size, kind)


def _raise(error: OSError) -> None:
    raise error
