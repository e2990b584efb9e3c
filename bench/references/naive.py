"""read-tags as it is often written: FastAPI, the whole file in memory, all of it parsed by pydicom, one process."""

import io
import socket

import fastapi
import pydicom
import uvicorn

from deploy.local.ports import HOST

TAGS = """
    PatientID PatientName PatientBirthDate PatientSex PatientAge StudyInstanceUID StudyDate StudyTime StudyDescription
    AccessionNumber SeriesInstanceUID SeriesNumber SeriesDescription Modality SOPInstanceUID InstanceNumber
    InstitutionName InstitutionAddress ReferringPhysicianName PerformingPhysicianName
"""

app = fastapi.FastAPI()


@app.post("/read-tags")
async def read_tags(file: fastapi.UploadFile) -> dict[str, str]:
    """The tags of the form's file."""
    data_set = pydicom.dcmread(io.BytesIO(await file.read()))
    return {tag: str(data_set.get(tag, "")) for tag in TAGS.split()}


if __name__ == "__main__":
    with socket.socket() as listening:
        listening.bind((HOST, 0))
        print(listening.getsockname()[1], flush=True)
        listening.listen(128)
        uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="warning")).run(sockets=[listening])
