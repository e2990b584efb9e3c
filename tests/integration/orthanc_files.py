"""DICOM files with identifiers of their own, made from pydicom's test files, and what asks Orthanc behind the back of
the gateway.
"""

import io
import secrets
import string
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pydicom
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from deploy.local.orthanc import OrthancServer

_PIXELS = ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"


def fresh_id() -> str:
    """A PatientID or AccessionNumber that no other test, and no other PACS, has; it begins with a letter."""
    return "T" + "".join(secrets.choice(string.ascii_uppercase + string.digits) for _ in range(13))


def dataset(name: str = "CT_small.dcm", **attributes: Any) -> pydicom.FileDataset:
    """One of pydicom's files with fresh UIDs and PatientID, and the attributes that are given."""
    path = get_testdata_file(name, download=False)
    assert path is not None
    made = pydicom.dcmread(path)
    fresh = {
        "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "SOPInstanceUID": generate_uid(),
        "PatientID": fresh_id(),
    }
    for keyword, value in {**fresh, **attributes}.items():
        setattr(made, keyword, value)
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    return made


def encoded(made: pydicom.FileDataset) -> bytes:
    """The bytes of the file."""
    buffer = io.BytesIO()
    made.save_as(buffer)
    return buffer.getvalue()


def encapsulated_pdf() -> pydicom.FileDataset:
    """A file without pixel data that holds a document."""
    made = dataset(SOPClassUID=ENCAPSULATED_PDF, Modality="DOC", EncapsulatedDocument=b"%PDF-1.4 no more than this")
    made.MIMETypeOfEncapsulatedDocument = "application/pdf"
    made.file_meta.MediaStorageSOPClassUID = ENCAPSULATED_PDF
    for keyword in _PIXELS:
        delattr(made, keyword)
    return made


async def chunks_of(data: bytes, size: int = 64 * 1024) -> AsyncIterator[bytes]:
    """The bytes in pieces."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


class Backdoor:
    """Orthanc's REST API without the adapter under test."""

    def __init__(self, server: OrthancServer) -> None:
        self.client = httpx.AsyncClient(
            base_url=server.url,
            auth=httpx.BasicAuth(server.username, server.password) if server.username else None,
            timeout=60,
        )

    async def is_1_10(self) -> bool:
        """Whether it is the Orthanc of Debian 12."""
        return str((await self.client.get("/system")).json()["Version"]).startswith("1.10.")

    async def instances_of(self, study_uid: str) -> list[str]:
        """The ids of what Orthanc holds of the study."""
        query = {"Level": "Instance", "Query": {"StudyInstanceUID": study_uid}}
        answer = await self.client.post("/tools/find", json=query)
        return list(answer.raise_for_status().json())

    async def file(self, orthanc_id: str) -> bytes:
        """The bytes of an instance."""
        return (await self.client.get(f"/instances/{orthanc_id}/file")).raise_for_status().content
