"""DICOMDIRs: what they name, and how that is held against the files."""

import json
from typing import Any

import pydicom
import pytest

from pacs_gateway.adapters.directory_records import directory_records
from pacs_gateway.domain.media import DirectoryRecord, MediaFile, compare, is_directory
from tests.files import dicomdir_folder


def record(file_id: str, uid: str = "1.2") -> DirectoryRecord:
    """A record of a file."""
    return DirectoryRecord(file_id, uid)


@pytest.mark.parametrize(
    ("path", "expected"),
    [("DICOMDIR", True), ("CD/dicomdir", True), ("DICOMDIR.;1", True), ("DICOMDIR/IM1", False), ("XDICOMDIR", False)],
)
def test_a_dicomdir_is_known_by_its_name(path: str, *, expected: bool) -> None:
    """In any folder, in any case, with what ISO 9660 adds to it."""
    assert is_directory(path) is expected


def test_names_are_compared_as_media_keep_them() -> None:
    """Case, a version and the dot of a name without extension make no difference; another folder does."""
    files = [MediaFile("cd/dicom/im1;1", "1.2"), MediaFile("CD/DICOM/IM2.", "1.2"), MediaFile("OTHER/DICOM/IM3", "1.2")]
    assert compare("CD/DICOMDIR", [record("DICOM/IM1"), record("DICOM/IM2")], files).agrees
    report = compare("CD/DICOMDIR", [record("DICOM/IM1"), record("DICOM/IM3")], files)
    assert (report.missing, report.unlisted) == (("DICOM/IM3",), ("CD/DICOM/IM2.",))


def test_what_is_not_known_is_no_difference() -> None:
    """A record without a SOP instance (PS3.3 F.3), and a file of which it is not known, are not compared by it."""
    assert compare("DICOMDIR", [record("A", ""), record("B")], [MediaFile("A", "1.9"), MediaFile("B")]).agrees
    assert not compare("DICOMDIR", [record("A", "1.8")], [MediaFile("A", "1.9")]).agrees


def test_no_report_grows_with_the_medium() -> None:
    """A hundred names of each kind are told, cleaned and cut, and the others counted."""
    records = [record(f"A\x1b[2J\ud800{'x' * 999}{number}") for number in range(130)]
    report = compare("DICOMDIR", records, [MediaFile(f"B{number}") for number in range(101)])
    assert (len(report.missing), len(report.unlisted), report.left_out) == (100, 100, 31)
    assert set(report.missing) == {f"A[2J{'x' * 999}"[:255]}


def test_the_records_of_a_real_dicomdir_are_found() -> None:
    """Of the DICOM JSON of a DICOMDIR, each record that names a file, in order, with its SOP instance."""
    data_set = pydicom.dcmread(dicomdir_folder() / "DICOMDIR")
    expected = [
        DirectoryRecord("/".join(one.ReferencedFileID), one.ReferencedSOPInstanceUIDInFile)
        for one in data_set.DirectoryRecordSequence
        if "ReferencedFileID" in one
    ]
    assert len(expected) == 31
    assert directory_records(data_set.to_json().encode()) == expected


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"00041220": {"vr": "SQ"}},
        {"00041220": {"vr": "UN", "InlineBinary": "AAAA"}},
        {"00041220": {"vr": "CS", "Value": ["x", None, 3, {"Alphabetic": "x"}]}},
        {"00041220": {"vr": "SQ", "Value": [{"00041500": {"vr": "CS", "Value": [None, 7]}}, {}]}},
        {"00041220": {"vr": "SQ", "Value": [{"00041500": {"vr": "SQ", "Value": [{}]}}]}},
    ],
)
def test_what_is_no_dicomdir_names_nothing(answer: dict[str, Any]) -> None:
    """A file without records, or with something else in their place, names no files."""
    assert directory_records(json.dumps(answer).encode()) == []
