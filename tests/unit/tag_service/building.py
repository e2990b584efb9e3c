"""Files for the tests of editing, written byte by byte, and pydicom as the other reader of what comes out."""

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pydicom.data

from tag_service.domain.editing.edits import Edits
from tag_service.domain.editing.rewrite import rewriter_of
from tag_service.domain.standard.limits import Limits

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"

_LONG = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}
_UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True)
class Writer:
    """Elements and sequences in one transfer syntax."""

    transfer_syntax: str

    @property
    def explicit(self):
        """Whether headers say the VR."""
        return self.transfer_syntax != IMPLICIT_LITTLE

    @property
    def order(self):
        """The byte order, for struct."""
        return ">" if self.transfer_syntax == EXPLICIT_BIG else "<"

    def tag(self, tag, length):
        """A tag and a length of 32 bits, as items and delimiters have."""
        return struct.pack(f"{self.order}HHI", tag >> 16, tag & 0xFFFF, length)

    def header(self, tag, vr, length):
        """Tag, VR and length."""
        if not self.explicit:
            return self.tag(tag, length)
        start = struct.pack(f"{self.order}HH", tag >> 16, tag & 0xFFFF) + vr.encode()
        if vr in _LONG:
            return start + struct.pack(f"{self.order}HI", 0, length)
        return start + struct.pack(f"{self.order}H", length)

    def element(self, tag, vr, value):
        """An element with this value as it is."""
        return self.header(tag, vr, len(value)) + value

    def text(self, tag, vr, value):
        """An element with ASCII text, padded."""
        padded = value.encode("ascii") + (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
        return self.element(tag, vr, padded)

    def number(self, tag, value):
        """An element of VR US."""
        return self.element(tag, "US", struct.pack(f"{self.order}H", value))

    def sequence(self, tag, *items, undefined=False, vr="SQ"):
        """A sequence of items, each the bytes of its elements."""
        if not undefined:
            return self.element(tag, vr, b"".join(self.tag(0xFFFEE000, len(item)) + item for item in items))
        written = [self.tag(0xFFFEE000, _UNDEFINED) + item + self.tag(0xFFFEE00D, 0) for item in items]
        return self.header(tag, vr, _UNDEFINED) + b"".join(written) + self.tag(0xFFFEE0DD, 0)

    def file(self, *elements):
        """A file with these elements."""
        body = b"".join(elements)
        if self.transfer_syntax == DEFLATED:
            stream = zlib.compressobj(wbits=-15)
            body = stream.compress(body) + stream.flush()
            body += b"\0" * (len(body) % 2)
        return part10(body, self.transfer_syntax)


def part10(body, transfer_syntax, *, class_uid="1.2.840.10008.5.1.4.1.1.7", instance_uid="1.2.3.4"):
    """A data set with preamble and file meta information before it."""
    writer = Writer(EXPLICIT_LITTLE)
    meta = (
        writer.element(0x00020001, "OB", b"\0\1")
        + writer.text(0x00020002, "UI", class_uid)
        + writer.text(0x00020003, "UI", instance_uid)
        + writer.text(0x00020010, "UI", transfer_syntax)
        + writer.text(0x00020012, "UI", "1.2.999")
        + writer.text(0x00020013, "SH", "OTHER")
        + writer.text(0x00020016, "AE", "SENDER")
    )
    return (
        b"MZ" + b"\x90" * 126 + b"DICM" + writer.element(0x00020000, "UL", struct.pack("<I", len(meta))) + meta + body
    )


ENCODINGS = [Writer(uid) for uid in (EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED)]
NAMES = ["explicit", "implicit", "big endian", "deflated"]


def plain(writer, *further):
    """The elements of a small instance, in tag order, with `further` ones sorted in by their tags."""
    elements = [
        writer.text(0x00080016, "UI", "1.2.840.10008.5.1.4.1.1.7"),
        writer.text(0x00080018, "UI", "1.2.3.4"),
        writer.text(0x00080020, "DA", "20200101"),
        writer.text(0x00080050, "SH", "A17"),
        writer.text(0x00100010, "PN", "Roe^Richard"),
        writer.text(0x00100020, "LO", "MRN7"),
        writer.text(0x0020000D, "UI", "1.2.3"),
        writer.text(0x0020000E, "UI", "1.2.3.1"),
        writer.element(0x7FE00010, "OW", bytes(range(64))),
        *further,
    ]

    def tag_of(element):
        return struct.unpack(f"{writer.order}HH", element[:4])

    return sorted(elements, key=tag_of)


AT = datetime(2026, 11, 24, 12, 30, 15, 500000, tzinfo=UTC)


def complete(writer, *further):
    """The same with all that the common modules ask for, so that nothing is missed; `further` takes the place of it."""
    image = [
        writer.text(0x00080030, "TM", "101530"),
        writer.text(0x00080060, "CS", "OT"),
        writer.element(0x00080090, "PN", b""),
        writer.element(0x00100030, "DA", b""),
        writer.element(0x00100040, "CS", b""),
        writer.element(0x00200010, "SH", b""),
        writer.element(0x00200011, "IS", b""),
        writer.number(0x00280002, 1),
        writer.text(0x00280004, "CS", "MONOCHROME2"),
        writer.number(0x00280010, 8),
        writer.number(0x00280011, 4),
        writer.number(0x00280100, 16),
        writer.number(0x00280101, 12),
        writer.number(0x00280102, 11),
        writer.number(0x00280103, 0),
    ]
    replaced = {element[:4] for element in further}
    return plain(writer, *(element for element in image if element[:4] not in replaced), *further)


def edit(data: bytes, *, cut: int = 1 << 20, limits: Limits | None = None, **edits) -> bytes:
    """The edited file; it is fed in pieces of `cut` bytes."""
    rewriter = rewriter_of(Edits(**edits), limits or Limits(), at=AT, system="TEST")
    pieces = [piece for start in range(0, len(data), cut) for piece in rewriter.feed(data[start : start + cut])]
    return b"".join((*pieces, *rewriter.close()))


def body(data: bytes) -> bytes:
    """The data set of a file with right file meta information, inflated where it is deflated."""
    (length,) = struct.unpack("<I", data[140:144])
    elements = data[144 + length :]
    return zlib.decompressobj(-15).decompress(elements) if DEFLATED.encode() in data[:400] else elements


def read(data: bytes) -> pydicom.FileDataset:
    """What pydicom reads; it grumbles about many of its own test files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(io.BytesIO(data), force=True)


def same(left: pydicom.Dataset, right: pydicom.Dataset, *, but=()) -> bool:
    """Whether two data sets are equal save for some tags and the group lengths of the data set."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tags = [
            {tag for tag in dataset.keys() if tag not in but and tag.element}  # noqa: SIM118 - iterating gives elements
            for dataset in (left, right)
        ]
        return tags[0] == tags[1] and all(left[tag] == right[tag] for tag in tags[0])


def every_element(dataset: pydicom.Dataset) -> list[pydicom.DataElement]:
    """The elements of a data set and of its items."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(dataset.iterall())


def pydicom_files() -> list[Path]:
    """The test files in pydicom's wheel that are DICOM files and no DICOMDIR."""
    root = Path(pydicom.data.__file__).parent / "test_files"
    return sorted(
        path
        for path in root.rglob("*")
        if path.is_file() and "DICOMDIR" not in path.name and path.read_bytes()[128:132] == b"DICM"
    )
