"""What a file of an upload is: a file, or a ZIP archive of files, and then these in its place."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from service_runtime.errors import Reason, ServiceError
from service_runtime.zip_format import BEGINNINGS, EntryBegin, EntryEnd, Unpacking, ZipBody

_MAX_RAW_NAME = 1024
# General categories of Unicode (UAX 44, table 12).
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# PS3.10 7.1: the preamble, which may begin like any other kind of file, and what tells DICOM from all of those.
_PREAMBLE_BYTES, _DICM = 128, b"DICM"


@dataclass(frozen=True, slots=True)
class ArchiveBegin:
    """An archive begins. Its files follow."""


@dataclass(frozen=True, slots=True)
class FileBegin:
    """A file begins: its cleaned name, and where it comes out of an archive its path there, which may be "" all the
    same where it is none that could be meant.
    """

    name: str
    path: str | None = None


@dataclass(frozen=True, slots=True)
class FileEnd:
    """The file is over: whole, or broken off with this error, which leaves those behind it alone."""

    error: ServiceError | None = None


# ArchiveBegin stands between files, bytes only within one.
FileEvent = ArchiveBegin | FileBegin | bytes | FileEnd


class IncomingFile:
    """A file while it comes in: pieces of it in, events out. Without `unpacking`, an archive is a file like others.

    `is_archive` says that it is declared to be one; else its first bytes tell.
    """

    def __init__(self, name: str, unpacking: Unpacking | None, *, is_archive: bool = False) -> None:
        self._name = clean_name(name)
        self._unpacking = unpacking
        self._first = _FirstBytes()
        self._kind: _Plain | _Archive | None = None
        if unpacking is not None and is_archive:
            self._kind = _Archive(unpacking)
        elif unpacking is None:
            self._kind = _Plain(self._name)

    def feed(self, data: bytes) -> Iterator[FileEvent]:
        """The events that the next piece brings. Raises what ends an archive: see ZipBody."""
        if self._kind is None:
            self._first.add(data)
            if not self._first.tells:
                return
            data = self._decide()
        assert self._kind is not None  # noqa: S101 - decided above
        yield from self._kind.feed(data)

    def close(self) -> Iterator[FileEvent]:
        """The events that the end of the file brings. Raises ARCHIVE_INVALID for an archive that is not complete."""
        if self._kind is None:
            rest = self._decide()
            yield from self.feed(rest)
        assert self._kind is not None  # noqa: S101 - decided above
        yield from self._kind.close()

    def _decide(self) -> bytes:
        if self._first.are_archive and self._unpacking is not None:
            self._kind = _Archive(self._unpacking)
        else:
            self._kind = _Plain(self._name)
        return self._first.held


class _FirstBytes:
    """The first bytes of a file, held until they tell whether it is an archive."""

    def __init__(self) -> None:
        self.held = b""

    def add(self, data: bytes) -> None:
        self.held += data

    @property
    def tells(self) -> bool:
        """Whether they are enough."""
        if len(self.held) >= _PREAMBLE_BYTES + len(_DICM):
            return True
        return not any(self.held.startswith(beginning[: len(self.held)]) for beginning in BEGINNINGS)

    @property
    def are_archive(self) -> bool:
        """Whether an archive begins so. A DICOM file may, too, in its preamble, and is a DICOM file all the same."""
        return self.held.startswith(BEGINNINGS) and self.held[_PREAMBLE_BYTES:][: len(_DICM)] != _DICM


class _Plain:
    """A file that is no archive."""

    def __init__(self, name: str) -> None:
        self._begin: FileBegin | None = FileBegin(name)

    def feed(self, data: bytes) -> Iterator[FileEvent]:
        if self._begin is not None:
            yield self._begin
            self._begin = None
        if data:
            yield data

    def close(self) -> Iterator[FileEvent]:
        yield from self.feed(b"")
        yield FileEnd()


class _Archive:
    """An archive, whose files are never taken for archives themselves."""

    def __init__(self, unpacking: Unpacking) -> None:
        self._body = ZipBody(unpacking)
        self._has_begun = False
        # The first bytes of the file under way, until they tell what it is.
        self._first: _FirstBytes | None = None
        self._is_nested = False

    def feed(self, data: bytes) -> Iterator[FileEvent]:
        if not self._has_begun:
            self._has_begun = True
            yield ArchiveBegin()
        for event in self._body.feed(data):
            match event:
                case EntryBegin():
                    self._first, self._is_nested = _FirstBytes(), False
                    yield FileBegin(clean_name(event.path), _path_of(event.path))
                case EntryEnd():
                    yield from self._told(b"", is_end=True)
                    yield FileEnd(event.error or (_nested() if self._is_nested else None))
                case bytes():
                    yield from self._told(event, is_end=False)

    def close(self) -> Iterator[FileEvent]:
        yield from self.feed(b"")
        self._body.close()

    def _told(self, data: bytes, *, is_end: bool) -> Iterator[bytes]:
        """The next bytes of a file that are to be told of; none of an archive."""
        if self._first is not None:
            self._first.add(data)
            if not is_end and not self._first.tells:
                return
            self._is_nested = self._first.are_archive
            data, self._first = self._first.held, None
        if data and not self._is_nested:
            yield data


def clean_name(name: str) -> str:
    """The name without directories, control and format characters and line ends, at most 255 characters long."""
    base = name.replace("\\", "/").rpartition("/")[2][:_MAX_RAW_NAME]
    return "".join(char for char in base if unicodedata.category(char) not in _UNPRINTABLE)[:255]


def _path_of(path: str) -> str:
    """The path of an entry with / between its parts, to compare it with others; "" for one that leads out of the
    archive, or is longer than any of a medium (PS3.12).
    """
    parts = [part for part in path[: _MAX_RAW_NAME + 1].replace("\\", "/").split("/") if part not in {"", "."}]
    return "" if ".." in parts or len(path) > _MAX_RAW_NAME else "/".join(parts)


def _nested() -> ServiceError:
    return ServiceError(
        Reason.ARCHIVE_UNSUPPORTED, "The entry is an archive itself, and is not unpacked. Send it by itself."
    )
