"""ZIP archives (PKWARE APPNOTE.TXT 6.3.10, whose paragraphs are named below), piece by piece: bytes in, events out.

An archive is read from the front, as it comes in, and its directory is compared at the end. So no byte is unpacked
twice, and entries that overlap, as in some bombs, are an error. What is held is one header, and some 300 bytes of each
entry until the directory has named it.

An own reader, for the kept ones ask for a file to seek in (zipfile), or end at the first entry that they cannot read,
do not look at the directory, and bring compiled code for the encryption and compression that is refused here
(stream-unzip).
"""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from struct import Struct
from typing import Final

from service_runtime.errors import Reason, ServiceError

_LOCAL, _LISTED, _DESCRIPTOR = b"PK\x03\x04", b"PK\x01\x02", b"PK\x07\x08"
_END, _END64, _LOCATOR64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
# What an archive begins with: an entry, or its end where it holds none.
BEGINNINGS: Final = (_LOCAL, _END)

# 4.3.7, 4.3.12, 4.3.16 and 4.3.14, without their signatures.
_LOCAL_HEADER: Final = Struct("<HHHHHIIIHH")
_LISTED_HEADER: Final = Struct("<HHHHHHIIIHHHHHII")
_END_RECORD: Final = Struct("<HHHHIIH")
_END64_SIZE: Final = Struct("<Q")
_LOCATOR64_BYTES: Final = 16
_MAX_END64_BYTES: Final = 64 * 1024
_EXTRA_FIELD: Final = Struct("<HH")
_ZIP64_FIELD: Final = 0x0001
_IN_ZIP64: Final = 0xFFFFFFFF
_COUNT_IN_ZIP64: Final = 0xFFFF

# 4.4.4: encryption, patches, strong encryption and masked headers; sizes behind the data; names in UTF-8.
_UNREADABLE: Final = 1 << 0 | 1 << 5 | 1 << 6 | 1 << 13
_SIZES_FOLLOW: Final = 1 << 3
_UTF8: Final = 1 << 11
# 4.4.5
_STORED, _DEFLATED = 0, 8

# 4.3.9, without the signature that may stand before it: checksum, packed and unpacked size.
_LONG: Final = Struct("<IQQ")
_SHORT: Final = Struct("<III")
# The longest of them and the signature behind it. Every archive has so much left behind an entry.
_DESCRIPTOR_WINDOW: Final = 28
_PIECE_BYTES: Final = 256 * 1024
_INFLATED_AT_ONCE: Final = 32 * 1024
# Less than this may be packed as well as it likes.
_RATIO_FROM_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class EntryBegin:
    """An entry that is no directory begins: its path, as the archive has it."""

    path: str


@dataclass(frozen=True, slots=True)
class EntryEnd:
    """The entry is over: whole, or with an error of its own, which leaves those behind it alone."""

    error: ServiceError | None = None


ZipEvent = EntryBegin | bytes | EntryEnd
# None among the events asks for more bytes.
_Events = Generator[ZipEvent | None, None, None]


@dataclass(slots=True)
class Unpacking:
    """What the archives of one request may bring, all together, and have brought. `file_bytes` is the largest size of
    an entry, `ratio` how many times as long as packed it may be.
    """

    max_entries: int
    max_bytes: int
    file_bytes: int
    ratio: int
    entries: int = 0
    size: int = 0

    def take_entry(self) -> None:
        """Counts an entry. Raises TOO_MANY_FILES."""
        self.entries += 1
        if self.entries > self.max_entries:
            raise ServiceError(
                Reason.TOO_MANY_FILES,
                f"The request's archives hold more than MAX_ZIP_ENTRIES, {self.max_entries} entries. Nothing from the "
                "first one too many on was stored.",
                metadata={"limit": "MAX_ZIP_ENTRIES", "limit_files": str(self.max_entries)},
            )

    def take_bytes(self, size: int) -> None:
        """Counts unpacked bytes. Raises UPLOAD_TOO_LARGE."""
        self.size += size
        if self.size > self.max_bytes:
            what = "What the request's archives unpack to"
            raise too_large(Reason.UPLOAD_TOO_LARGE, what, "MAX_UPLOAD_SIZE_MB", self.max_bytes)


@dataclass(frozen=True, slots=True)
class _Content:
    """Checksum, packed and unpacked size of an entry."""

    crc: int
    packed: int
    size: int


@dataclass(frozen=True, slots=True)
class _Header:
    """What stands before an entry. Where the sizes follow its data, those here are as a rule 0."""

    offset: int
    flags: int
    method: int
    told: _Content
    name: bytes

    @property
    def is_directory(self) -> bool:
        return self.name.endswith(b"/")

    @property
    def sizes_follow(self) -> bool:
        return bool(self.flags & _SIZES_FOLLOW)

    @property
    def packed(self) -> int | None:
        """The length of the data; None where only its own end tells it."""
        return None if self.sizes_follow and not self.told.packed else self.told.packed

    @property
    def path(self) -> str:
        """The name as text (appendix D)."""
        return self.name.decode("utf-8", "replace") if self.flags & _UTF8 else self.name.decode("cp437")


class _EntryError(Exception):
    """An entry is broken; `error` is what to tell of it."""

    def __init__(self, error: ServiceError) -> None:
        super().__init__()
        self.error = error


class ZipBody:
    """An incremental reader of one archive."""

    def __init__(self, unpacking: Unpacking) -> None:
        self._unpacking = unpacking
        self._input = _Input()
        # By offset, what the directory must say of each entry: a digest of its name, and what it is, where known.
        self._unlisted: dict[int, tuple[bytes, _Content | None]] = {}
        self._count = 0
        self._ended = False
        self._events = self._archive()

    def feed(self, data: bytes) -> Iterator[ZipEvent]:
        """What the next bytes of the archive bring; to be read to its end before more is fed.

        Raises what ends the archive: ARCHIVE_INVALID; ARCHIVE_UNSUPPORTED and STRUCTURE_LIMIT where the end of an entry
        that is not read cannot be told; TOO_MANY_FILES, UPLOAD_TOO_LARGE.
        """
        self._input.add(data)
        for event in self._events:
            if event is None:
                return
            yield event

    def close(self) -> None:
        """Says that the archive is over. Raises ARCHIVE_INVALID where it is not complete."""
        if not self._ended:
            raise _invalid("it ends too early")

    def _archive(self) -> _Events:
        """4.3.6."""
        while (signature := (yield from self._input.take(4))) == _LOCAL:
            yield from self._entry()
        while signature == _LISTED:
            yield from self._listed()
            signature = yield from self._input.take(4)
        if signature == _END64:
            (size,) = _END64_SIZE.unpack((yield from self._input.take(_END64_SIZE.size)))
            if size > _MAX_END64_BYTES:
                raise _invalid("its end is malformed")
            yield from self._input.take(size)
            if (yield from self._input.take(4)) != _LOCATOR64:
                raise _invalid("its end is malformed")
            yield from self._input.take(_LOCATOR64_BYTES)
            signature = yield from self._input.take(4)
        if signature != _END:
            raise _invalid("something else stands where an entry or the directory should")
        yield from self._end()

    def _end(self) -> _Events:
        disk, first_disk, _, count, _, _, comment = _END_RECORD.unpack((yield from self._input.take(_END_RECORD.size)))
        if {disk, first_disk} - {0, 0xFFFF}:
            raise _unsupported("The archive is one part of several. Send it as one.")
        yield from self._input.take(comment)
        if self._unlisted or count not in {self._count & 0xFFFF, _COUNT_IN_ZIP64}:
            raise _other_entries()
        self._ended = True
        while self._input.is_empty:
            yield None
        self._ended = False
        raise _invalid("something follows its end")

    def _listed(self) -> Generator[None, None, None]:
        """Compares what the directory says of an entry with the entry."""
        fields = _LISTED_HEADER.unpack((yield from self._input.take(_LISTED_HEADER.size)))
        crc, packed, size, name_length, extra_length, comment_length = fields[6:12]
        name = yield from self._input.take(name_length)
        extra = yield from self._input.take(extra_length)
        yield from self._input.take(comment_length)
        size, packed, offset = _with_zip64(extra, size, packed, fields[15])
        digest, content = self._unlisted.pop(offset, (b"", None))
        if digest != _digest(name) or content not in {None, _Content(crc, packed, size)}:
            raise _other_entries()

    def _entry(self) -> _Events:
        offset = self._input.position - len(_LOCAL)
        self._unpacking.take_entry()
        self._count += 1
        _, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL_HEADER.unpack(
            (yield from self._input.take(_LOCAL_HEADER.size))
        )
        name = yield from self._input.take(name_length)
        size, packed, _ = _with_zip64((yield from self._input.take(extra_length)), size, packed, 0)
        header = _Header(offset, flags, method, _Content(crc, packed, size), name)
        if not header.is_directory:
            yield EntryBegin(header.path)
        content, error = yield from self._data(header)
        is_as_told = yield from self._expect_told(header, content)
        if error is None and not is_as_told:
            content, error = None, _broken("its checksum or a size is another than the archive says")
        self._unlisted[offset] = _digest(name), content
        if not header.is_directory:
            yield EntryEnd(error)

    def _data(self, header: _Header) -> Generator[ZipEvent | None, None, tuple[_Content | None, ServiceError | None]]:
        """The data of an entry, none of a directory; what it is, or why it is not read."""
        begin = self._input.position
        reading = self._read(header)
        try:
            self._expect_readable(header)
            while True:
                event = next(reading)
                if event is None or not header.is_directory:
                    yield event
        except StopIteration as end:
            return end.value, None
        except _EntryError as broken:
            if header.packed is None:
                raise broken.error from None
            yield from self._input.skip(begin + header.packed - self._input.position)
            return None, broken.error

    def _expect_readable(self, header: _Header) -> None:
        if header.flags & _UNREADABLE:
            raise _EntryError(_unsupported("The entry is encrypted. Send it without a password."))
        if header.method not in {_STORED, _DEFLATED}:
            raise _EntryError(_unsupported("The entry is packed by another method than deflate. Pack it anew."))
        if header.told.size > (limit := self._unpacking.file_bytes):
            raise _EntryError(too_large(Reason.FILE_TOO_LARGE, "The file", "MAX_DICOM_FILE_SIZE_MB", limit))

    def _read(self, header: _Header) -> Generator[bytes | None, None, _Content]:
        begin, size, crc = self._input.position, 0, 0
        pieces = (
            self._inflated(header, begin) if header.method == _DEFLATED else self._input.some_of(header.packed or 0)
        )
        for piece in pieces:
            if piece is not None:
                size += len(piece)
                crc = zlib.crc32(piece, crc)
                self._unpacking.take_bytes(len(piece))
                if size > _RATIO_FROM_BYTES and size > self._unpacking.ratio * (self._input.position - begin):
                    raise _EntryError(_too_dense(self._unpacking.ratio))
            yield piece
        return _Content(crc, self._input.position - begin, size)

    def _inflated(self, header: _Header, begin: int) -> Generator[bytes | None, None, None]:
        """Raw deflate (RFC 1951), which tells its own end."""
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        while not inflate.eof:
            left = _INFLATED_AT_ONCE if header.packed is None else begin + header.packed - self._input.position
            if left == 0:
                raise _EntryError(_broken("its data goes on where it should end"))
            packed = yield from self._input.some(min(left, _INFLATED_AT_ONCE))
            piece = b""
            # A piece of full length may have more behind it, inside zlib.
            while (packed or len(piece) == _PIECE_BYTES) and not inflate.eof:
                try:
                    piece = inflate.decompress(packed, _PIECE_BYTES)
                except zlib.error as error:
                    raise _EntryError(_broken("its data is damaged")) from error
                packed = inflate.unconsumed_tail
                if piece:
                    yield piece
        self._input.give_back(len(inflate.unused_data))
        if header.packed not in {None, self._input.position - begin}:
            raise _EntryError(_broken("its data ends too early"))

    def _expect_told(self, header: _Header, content: _Content | None) -> Generator[None, None, bool]:
        """Whether the archive says of the entry what it is. Reads what is said behind it (4.3.9)."""
        if not header.sizes_follow:
            return content == header.told
        window = yield from self._input.peek(_DESCRIPTOR_WINDOW)
        if content is not None:
            numbers = (content.crc, content.packed, content.size)
            # The longest first: a shorter one may pass for its beginning.
            for signature, form in ((_DESCRIPTOR, _LONG), (b"", _LONG), (_DESCRIPTOR, _SHORT), (b"", _SHORT)):
                if form is _SHORT and max(numbers) > _IN_ZIP64:
                    continue
                if window.startswith(told := signature + form.pack(*numbers)):
                    yield from self._input.skip(len(told))
                    return True
        if header.method == _STORED and header.packed is None:
            raise _unsupported("An entry is stored, and its length not told before it. Pack the files with deflate.")
        for length in (24, 16) if window.startswith(_DESCRIPTOR) else (20, 12):
            if window[length:].startswith((_LOCAL, _LISTED)):
                yield from self._input.skip(length)
                return False
        raise _invalid("something else stands where the size of an entry should")


class _Input:
    """The bytes that have come and are not taken yet: of one piece, or less than one header. Generators yield None to
    have more.
    """

    def __init__(self) -> None:
        self._data = b""
        self._at = 0
        self._base = 0

    @property
    def position(self) -> int:
        """How many bytes were taken."""
        return self._base + self._at

    @property
    def is_empty(self) -> bool:
        """Whether nothing has come that is not taken."""
        return self._at == len(self._data)

    def add(self, data: bytes) -> None:
        """More has come."""
        self._base += self._at
        self._data = data if self.is_empty else self._data[self._at :] + data
        self._at = 0

    def peek(self, size: int) -> Generator[None, None, bytes]:
        """So many bytes, not taken."""
        while len(self._data) - self._at < size:
            yield None
        return self._data[self._at : self._at + size]

    def take(self, size: int) -> Generator[None, None, bytes]:
        """So many bytes."""
        taken = yield from self.peek(size)
        self._at += size
        return taken

    def some(self, most: int) -> Generator[None, None, bytes]:
        """What is there, one byte to `most`."""
        while self.is_empty:
            yield None
        taken = self._data[self._at : self._at + most]
        self._at += len(taken)
        return taken

    def some_of(self, size: int) -> Generator[bytes | None, None, None]:
        """So many bytes, as they come."""
        while size:
            piece = yield from self.some(min(size, _PIECE_BYTES))
            size -= len(piece)
            yield piece

    def skip(self, size: int) -> Generator[None, None, None]:
        """Takes so many bytes and forgets them."""
        for piece in self.some_of(size):
            if piece is None:
                yield None

    def give_back(self, size: int) -> None:
        """Takes back what was taken last, out of one piece."""
        self._at -= size


def _with_zip64(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """The three, those that stand in the extra field for ZIP64 from there (4.5.3). Raises ARCHIVE_INVALID."""
    values = [size, packed, offset]
    wanted = [place for place, value in enumerate(values) if value == _IN_ZIP64]
    at = 0
    while wanted and at + _EXTRA_FIELD.size <= len(extra):
        kind, length = _EXTRA_FIELD.unpack_from(extra, at)
        at += _EXTRA_FIELD.size
        if kind == _ZIP64_FIELD:
            if length < 8 * len(wanted) or at + length > len(extra):
                raise _invalid("the size of an entry is malformed")
            for number, place in enumerate(wanted):
                values[place] = int.from_bytes(extra[at + 8 * number : at + 8 * number + 8], "little")
            break
        at += length
    return values[0], values[1], values[2]


def _digest(name: bytes) -> bytes:
    return blake2b(name, digest_size=16).digest()


def too_large(reason: Reason, what: str, setting: str, limit: int) -> ServiceError:
    """The error for what is longer than the limit, in bytes, that the setting gives in MiB."""
    return ServiceError(
        reason,
        f"{what} is larger than {setting}, {limit // (1024 * 1024)} MiB.",
        metadata={"limit": setting, "limit_bytes": str(limit)},
    )


def _invalid(what: str) -> ServiceError:
    return ServiceError(Reason.ARCHIVE_INVALID, f"The ZIP archive is broken: {what}. Make it anew.")


def _other_entries() -> ServiceError:
    return _invalid("its directory lists other entries than it holds")


def _broken(what: str) -> ServiceError:
    return ServiceError(Reason.ARCHIVE_INVALID, f"The archive's entry is broken: {what}. Pack it anew.")


def _unsupported(message: str) -> ServiceError:
    return ServiceError(Reason.ARCHIVE_UNSUPPORTED, message)


def _too_dense(ratio: int) -> ServiceError:
    return ServiceError(
        Reason.STRUCTURE_LIMIT,
        f"The archive's entry is more than {ratio} times as long as packed, which MAX_ZIP_RATIO forbids.",
        metadata={"limit": "MAX_ZIP_RATIO", "limit_ratio": str(ratio)},
    )
