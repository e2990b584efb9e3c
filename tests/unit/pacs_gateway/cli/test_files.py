"""What the client finds to send, and how it packs a CD."""

import io
import zipfile
from pathlib import Path

import pytest

from pacs_gateway.cli.files import PIECE_BYTES, Kind, LocalFile, files_of_cd, find_files, read, zipped
from service_runtime.bodies import Piece
from service_runtime.uploads import ArchiveLimits, UploadLimits, UploadReader
from tests.unit.service_runtime.zips import zip_of

DICOM = bytes(128) + b"DICM" + b"a slice"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with something of everything."""
    root = tmp_path / "study"
    (root / "b" / "deep").mkdir(parents=True)
    (root / "b" / "deep" / "IM1").write_bytes(DICOM)
    (root / "a.dcm").write_bytes(DICOM + b"x")
    (root / "README.TXT").write_bytes(b"a text")
    (root / "b" / "more.zip").write_bytes(b"PK\x03\x04...")
    (root / "empty").write_bytes(b"")
    return root


def names(files: object) -> list[str]:
    """How the files are called."""
    return [file.name for file in files]  # type: ignore[attr-defined]


def test_folders_are_walked_in_order(folder: Path) -> None:
    """DICOM files and archives below a folder are found by what they begin with; the others are told of."""
    found = find_files([folder])
    assert names(found.files) == ["study/a.dcm", "study/b/more.zip", "study/b/deep/IM1"]
    assert [file.kind for file in found.files] == [Kind.DICOM, Kind.ZIP, Kind.DICOM]
    assert names(found.passed_over) == ["study/README.TXT", "study/empty"]
    assert [file.size_bytes for file in found.files] == [140, 7, 139]


def test_what_is_named_or_asked_for_is_sent(folder: Path) -> None:
    """A file that is named is sent whatever it is, and of folders with `everything` all."""
    assert names(find_files([folder / "README.TXT"]).files) == ["README.TXT"]
    found = find_files([folder], everything=True)
    assert (len(found.files), len(found.passed_over)) == (5, 0)


def test_a_file_is_sent_once(folder: Path) -> None:
    """A file that is named twice, lies in a folder that is named, too, or has a link to it, is found once."""
    (folder / "link").symlink_to(folder / "a.dcm")
    (folder / "round").symlink_to(folder)
    found = find_files([folder / "a.dcm", folder, folder / "b"])
    assert names(found.files) == ["a.dcm", "study/b/more.zip", "study/b/deep/IM1"]


def test_an_archive_that_is_a_dicom_file_is_one(tmp_path: Path) -> None:
    """A preamble may begin like an archive."""
    (tmp_path / "x").write_bytes(b"PK\x03\x04".ljust(128, b"\0") + b"DICM")
    assert find_files([tmp_path / "x"]).files[0].kind is Kind.DICOM


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1])
def test_reading_a_file_tells_how_far_it_is(tmp_path: Path, size: int) -> None:
    """All bytes come, in pieces of which none is large, and at least one; what was sent adds up to the size."""
    (tmp_path / "x").write_bytes(bytes(size))
    moved: list[int] = []
    pieces = list(read(LocalFile(tmp_path / "x", "x", size, Kind.OTHER), moved.append))
    assert b"".join(pieces) == bytes(size)
    assert pieces
    assert max(map(len, pieces)) <= PIECE_BYTES
    assert sum(moved) == size


async def test_a_cd_is_packed_as_the_gateway_reads_it(folder: Path) -> None:
    """All files of a CD, whatever they are, come out of the archive by their paths, with no piece large."""
    large = DICOM + bytes(range(256)) * 4000
    (folder / "large").write_bytes(large)
    (folder / "b" / "more.zip").unlink()
    files = files_of_cd(folder)
    moved: list[int] = []
    pieces = list(zipped(files, moved.append))
    assert max(map(len, pieces)) < 3 * PIECE_BYTES
    assert sum(moved) == sum(file.size_bytes for file in files)

    async def stream():
        yield Piece(b"", content_type="application/zip")
        for piece in pieces:
            yield Piece(piece)

    limits = UploadLimits(file_bytes=1 << 22, request_bytes=1 << 24, files=1, idle_seconds=5)
    reader = UploadReader(stream(), limits, archives=ArchiveLimits(entries=99, ratio=200))
    found = {file.path: b"".join([chunk async for chunk in file]) async for file in reader.files()}
    assert found == {
        "README.TXT": b"a text",
        "a.dcm": DICOM + b"x",
        "b/deep/IM1": DICOM,
        "empty": b"",
        "large": large,
    }
    assert zipfile.ZipFile(io.BytesIO(b"".join(pieces))).testzip() is None


def test_an_empty_folder_is_an_empty_archive(tmp_path: Path) -> None:
    """An archive without entries, which the gateway refuses as one."""
    assert b"".join(zipped(files_of_cd(tmp_path), lambda _: None)) == zip_of()
