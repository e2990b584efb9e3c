"""The files to measure with: made once a run from pydicom's samples, and given fresh identifiers for every upload."""

import io
import itertools
import random
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.uid import UID

from tests.files import fresh_file, sample_bytes

MIB = 1024 * 1024
_MEMORY = Path("/dev/shm")  # noqa: S108 - files of our own in a folder of our own
_GROUP_0009 = b"\x09\x00\x10\x00LO"
_STUDY_INSTANCE_UID = b"\x20\x00\x0d\x00UI"
_PIXEL_DATA = b"\xe0\x7f\x10\x00OW\x00\x00"
# What stands in a sample where a file's own identifiers go, each of the length of what takes its place.
_STUDY, _SERIES, _SOP = (b"2.25." + digit * 39 for digit in (b"1", b"2", b"3"))
_PATIENT, _ACCESSION = b"P" * 16, b"A" * 16


@dataclass(frozen=True, slots=True)
class File:
    """A DICOM file: `head`, which differs from file to file, and `times` the `tail`, which is in memory once."""

    head: bytes
    tail: bytes
    times: int = 1
    study_uid: str = ""

    def __len__(self) -> int:
        return len(self.head) + len(self.tail) * self.times

    @property
    def parts(self) -> Iterator[bytes]:
        """The file in order."""
        return itertools.chain([self.head], itertools.repeat(self.tail, self.times))

    def pieces(self, size: int) -> Iterator[bytes]:
        """The file in pieces of that size; the last one may be smaller."""
        kept = bytearray()
        for part in self.parts:
            at = 0
            while len(kept) + len(part) - at >= size:
                end = at + size - len(kept)
                yield bytes(kept) + part[at:end] if kept else part[at:end]
                kept.clear()
                at = end
            kept += part[at:]
        if kept:
            yield bytes(kept)


@dataclass(frozen=True, slots=True)
class Whose:
    """The patient and the order that files say they are of, in at most 16 characters each."""

    patient_id: str
    accession_number: str = ""


class Sample:
    """A kind of file, of which any number can be made fast."""

    def __init__(self, name: str, *, pixel_bytes: int, frames: int = 1, **values: object) -> None:
        """`name` is a sample of pydicom's; it gets so many bytes of noise a frame, and the attributes in `values`."""
        data_set = pydicom.dcmread(io.BytesIO(sample_bytes(name)))
        uids = {"StudyInstanceUID": _STUDY, "SeriesInstanceUID": _SERIES, "SOPInstanceUID": _SOP}
        texts = {"PatientID": _PATIENT, "AccessionNumber": _ACCESSION}
        for keyword, identifier in {**uids, **texts}.items():
            setattr(data_set, keyword, identifier.decode())
        data_set.file_meta.MediaStorageSOPInstanceUID = UID(_SOP.decode())
        for keyword, value in values.items():
            setattr(data_set, keyword, value)
        if frames > 1:
            data_set.NumberOfFrames = frames
        data_set.pop("DataSetTrailingPadding", None)
        data_set.PixelData = bytes(2)
        out = io.BytesIO()
        data_set.save_as(out)
        begin = out.getvalue().rindex(_PIXEL_DATA) + len(_PIXEL_DATA)
        self._template = out.getvalue()[:begin] + struct.pack("<I", pixel_bytes * frames)
        self._tail = random.Random(0).randbytes(pixel_bytes)  # noqa: S311 - pixels, no secrets
        self._frames = frames

    def study(self, files: int, whose: Whose, *, series: int = 1) -> list[File]:
        """The files of a new study, in that many series."""
        study_uid, series_uids = _uid(), [_uid() for _ in range(series)]
        return [self._file(whose, study_uid, series_uids[number * series // files]) for number in range(files)]

    def studies(self, count: int, whose: Whose) -> list[File]:
        """One file of each of so many new studies."""
        return [self._file(whose, _uid(), _uid()) for _ in range(count)]

    def _file(self, whose: Whose, study_uid: bytes, series_uid: bytes) -> File:
        head = self._template.replace(_STUDY, study_uid).replace(_SERIES, series_uid).replace(_SOP, _uid())
        # Blanks at the end are no part of a value.
        head = head.replace(_PATIENT, whose.patient_id.ljust(16).encode())
        head = head.replace(_ACCESSION, whose.accession_number.ljust(16).encode())
        return File(head, self._tail, self._frames, study_uid.decode())


def ct_slices() -> Sample:
    """A CT slice of 0.53 MB."""
    return Sample("CT_small.dcm", pixel_bytes=512 * 512 * 2, Rows=512, Columns=512)


def small_mr() -> Sample:
    """An MR image of 10 kB."""
    return Sample("MR_small.dcm", pixel_bytes=64 * 64 * 2)


def tiny() -> Sample:
    """An MR image of next to no pixels."""
    return Sample("MR_small.dcm", pixel_bytes=8 * 8 * 2, Rows=8, Columns=8)


def multi_frame(megabytes: int) -> Sample:
    """A CT file of so many million bytes in frames of 1000 x 500 pixels."""
    return Sample("CT_small.dcm", pixel_bytes=1_000_000, frames=megabytes, Rows=500, Columns=1000)


def _uid() -> bytes:
    """A UID of 44 characters: a random integer as PS3.5 B.2 asks for, of those with 39 digits."""
    return b"2.25.%d" % random.SystemRandom().randrange(10**38, 2**128)


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A folder to throw away, in memory where the machine has a file system there."""
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
