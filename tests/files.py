"""DICOM files for tests: pydicom's samples under fresh identifiers, so that no test meets another's studies."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid


@dataclass(frozen=True, slots=True)
class SampleFile:
    """A file and the identifiers that it has."""

    content: bytes
    patient_id: str
    study_uid: str
    series_uid: str
    sop_uid: str


def sample_bytes(name: str) -> bytes:
    """The bytes of a sample file as pydicom brings it."""
    path = get_testdata_file(name)
    assert isinstance(path, str), name
    with open(path, "rb") as file:  # noqa: PTH123 - pydicom gives a string
        return file.read()


def fresh_file(name: str = "CT_small.dcm", *, like: SampleFile | None = None, **values: Any) -> SampleFile:
    """The sample under new identifiers; `like` gives it the patient, study and series of another file. `values` set
    attributes by keyword, None removes one.
    """
    data_set = pydicom.dcmread(io.BytesIO(sample_bytes(name)))
    uid = generate_uid(prefix="2.25.")
    data_set.PatientID = like.patient_id if like else f"MRN-{uid[-12:]}"
    data_set.StudyInstanceUID = like.study_uid if like else uid
    data_set.SeriesInstanceUID = like.series_uid if like else generate_uid(prefix="2.25.")
    data_set.SOPInstanceUID = data_set.file_meta.MediaStorageSOPInstanceUID = generate_uid(prefix="2.25.")
    data_set.AccessionNumber = ""
    for keyword, value in values.items():
        if value is None:
            delattr(data_set, keyword)
        else:
            setattr(data_set, keyword, value)
    out = io.BytesIO()
    data_set.save_as(out)
    return SampleFile(
        out.getvalue(),
        str(data_set.get("PatientID", "")),
        str(data_set.get("StudyInstanceUID", "")),
        str(data_set.get("SeriesInstanceUID", "")),
        str(data_set.get("SOPInstanceUID", "")),
    )


def dicomdir_folder() -> Path:
    """The folder of a CD that pydicom brings: a DICOMDIR, some variants of it that are no part of the CD, and the 31
    files that it names.
    """
    path = get_testdata_file("DICOMDIR")
    assert isinstance(path, str)
    return Path(path).parent
