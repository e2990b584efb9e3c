"""The main job, shown on real DICOM files: every request goes through Envoy, every answer is checked."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from pydicom.data import get_testdata_file

from deploy.local.people import CT_ORDER, CT_PATIENT, MR_PATIENT
from deploy.local.stack import Stack

API = "/api/v1/dicom"
Json = Any


class DemoError(Exception):
    """An answer was not what it had to be."""


async def demonstrate(stack: Stack) -> None:
    """Walks through the endpoints and prints what happens. Raises DemoError at the first answer that is wrong."""
    headers = {"Authorization": f"Bearer {stack.token(role='radiologist')}"}
    async with httpx.AsyncClient(base_url=stack.base_url, headers=headers, timeout=60) as client:
        shown = Transcript(client)
        await _health(shown)
        await _look_into_files(shown)
        study = await _upload(shown)
        others = await _upload_many(shown)
        await _find(shown, study)
        await _log(shown, study)
        await _delete(shown, study)
        await _tidy(shown, others)


class Transcript:
    """Sends requests, prints one line for each, and checks the answers."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    def say(self, text: str) -> None:
        """Prints a heading."""
        print(f"\n== {text}")

    async def send(self, method: str, path: str, status: int = 200, **request: Any) -> httpx.Response:
        """Sends the request; raises DemoError unless the answer has that HTTP status."""
        answer = await self._client.request(method, path, **request)
        size = len(answer.content)
        print(f"{method:<6} {answer.request.url.raw_path.decode()}  ->  {answer.status_code}  ({size} bytes)")
        if answer.status_code != status:
            raise DemoError(f"HTTP {status} was to be expected and {answer.status_code} came: {answer.text[:1000]}")
        return answer

    def expect(self, what: str, found: object, wanted: object) -> None:
        """Prints a fact of the last answer; raises DemoError unless it is as wanted."""
        print(f"       {what}: {found}")
        if found != wanted:
            raise DemoError(f"{what} had to be {wanted!r} and is {found!r}.")


def sample(name: str) -> Path:
    """A DICOM file that comes with pydicom."""
    path = get_testdata_file(name)
    if not isinstance(path, str):
        raise DemoError(f"pydicom does not bring the sample file {name}.")
    return Path(path)


def form(*names: str) -> list[tuple[str, tuple[str, bytes, str]]]:
    """The sample files as the fields of a form, as `curl -F files=@...` sends them."""
    field = "file" if len(names) == 1 else "files"
    return [(field, (name, sample(name).read_bytes(), "application/dicom")) for name in names]


async def _health(shown: Transcript) -> None:
    shown.say("Is everything there? (needs no token)")
    answer = (await shown.send("GET", f"{API}/health", headers={"Authorization": ""})).json()
    shown.expect("status", answer["status"], "healthy")
    for part in answer["parts"]:
        shown.expect(part["name"], part["status"], "healthy")


async def _look_into_files(shown: Transcript) -> None:
    shown.say("What is in a file: nothing is stored by any of these")
    tags = (await shown.send("POST", f"{API}/read-tags", files=form("CT_small.dcm"))).json()["tags"]
    shown.expect("PatientID", tags["PatientID"], CT_PATIENT.mrn)
    shown.expect("Modality", tags["Modality"], "CT")

    answer = await shown.send("POST", f"{API}/read-all-tags", files=form("CT_small.dcm"))
    shown.expect("content type", answer.headers["content-type"], "application/dicom+json")
    shown.expect("Rows (0028,0010)", answer.json()["00280010"]["Value"], [128])

    verdict = (await shown.send("POST", f"{API}/validate", files=form("MR_small_RLE.dcm"))).json()
    shown.expect("is_dicom", verdict["is_dicom"], wanted=True)
    shown.expect("transfer syntax", verdict["transfer_syntax_name"], "RLE Lossless")
    text = {"file": ("notes.txt", b"Dear colleague", "application/octet-stream")}
    verdict = (await shown.send("POST", f"{API}/validate", files=text)).json()
    shown.expect("a text file: is_dicom", verdict["is_dicom"], wanted=False)

    shown.say("Edit a file and get it back")
    edits = {"PatientID": "MRN9", "StudyDescription": "After the edit", "remove_private_tags": "true"}
    edited = await shown.send("POST", f"{API}/modify-tags", params=edits, files=form("CT_small.dcm"))
    shown.expect("content type", edited.headers["content-type"], "application/dicom")
    body = {"file": ("edited.dcm", edited.content, "application/dicom")}
    tags = (await shown.send("POST", f"{API}/read-tags", files=body)).json()["tags"]
    shown.expect("PatientID", tags["PatientID"], "MRN9")
    shown.expect("StudyDescription", tags["StudyDescription"], "After the edit")

    shown.say("De-identify a file; the answer says that its pixels may still show a face, and that nobody looked")
    options = {"dates": "SHIFT", "clean_descriptors": "true"}
    without = await shown.send("POST", f"{API}/deidentify", params=options, files=form("CT_small.dcm"))
    shown.expect("x-deidentify-doubts", without.headers["x-deidentify-doubts"], "BURNED_IN_ANNOTATION_UNKNOWN,FACE")
    body = {"file": ("without.dcm", without.content, "application/dicom")}
    after = (await shown.send("POST", f"{API}/read-tags", files=body)).json()["tags"]
    shown.expect("a pseudonym for the patient", after["PatientID"].startswith("DEID-"), wanted=True)
    shown.expect("other UIDs", after["StudyInstanceUID"] != tags["StudyInstanceUID"], wanted=True)
    shown.expect("StudyDescription", after["StudyDescription"], "")


async def _upload(shown: Transcript) -> str:
    shown.say("Store a file for an order; its AccessionNumber is set on the way")
    params = {"patient_id": CT_PATIENT.id, "order_id": CT_ORDER.id, "AccessionNumber": CT_ORDER.accession_number}
    answer = await shown.send("POST", f"{API}/upload", params=params, files=form("CT_small.dcm"))
    result = answer.json()
    shown.expect("success", result["success"], wanted=True)
    shown.expect("status", result["status"], "stored")
    shown.expect("AccessionNumber", result["tags"]["AccessionNumber"], CT_ORDER.accession_number)
    study = str(result["study_uid"])

    again = (await shown.send("POST", f"{API}/upload", params=params, files=form("CT_small.dcm"))).json()
    shown.expect("the same again", again["status"], "already_stored")

    shown.say("A file of another patient is refused")
    params = {"patient_id": CT_PATIENT.id}
    refused = await shown.send("POST", f"{API}/upload", 400, params=params, files=form("MR_small.dcm"))
    shown.expect("reason", _reason(refused.json()), "PATIENT_MISMATCH")
    return study


async def _upload_many(shown: Transcript) -> list[str]:
    shown.say("Store many files at once; a bad one does not stop the others")
    files = [*form("MR_small.dcm", "examples_overlay.dcm"), ("files", ("notes.txt", b"Dear colleague", "text/plain"))]
    results = (await shown.send("POST", f"{API}/upload-multiple", files=files)).json()
    found = [(result["filename"], result["status"]) for result in results]
    wanted = [("MR_small.dcm", "stored"), ("examples_overlay.dcm", "stored"), ("notes.txt", "failed")]
    shown.expect("results", found, wanted)
    shown.expect("why the last one failed", results[-1]["error"]["reason"], "NOT_DICOM")
    return [str(result["study_uid"]) for result in results if result["success"]]


async def _find(shown: Transcript, study: str) -> None:
    shown.say("Find the studies")
    listed = (await shown.send("GET", f"{API}/studies", params={"limit": 10})).json()
    uids = [entry["StudyInstanceUID"] for entry in listed["studies"]]
    shown.expect("the uploaded one is listed", study in uids, wanted=True)
    got = (await shown.send("GET", f"{API}/studies/{study}")).json()["study"]
    shown.expect("patient in the RIS", got["patient_full_name"], CT_PATIENT.full_name)
    shown.expect("order in the RIS", got["order_id"], CT_ORDER.id)
    shown.expect("series", len(got["series"]), 1)
    got = (await shown.send("GET", f"{API}/studies/accession/{CT_ORDER.accession_number}")).json()["study"]
    shown.expect("StudyInstanceUID", got["StudyInstanceUID"], study)
    for patient in (CT_PATIENT, MR_PATIENT):
        theirs = (await shown.send("GET", f"{API}/studies/patient/{patient.id}")).json()
        shown.expect("PatientID", {entry["PatientID"] for entry in theirs["studies"]}, {patient.mrn})

    shown.say("Look at the study")
    picture = await shown.send("GET", f"{API}/thumbnail/{study}")
    shown.expect("content type", picture.headers["content-type"], "image/png")
    shown.expect("begins as a PNG does", picture.content[:8] == b"\x89PNG\r\n\x1a\n", wanted=True)
    etag = picture.headers["etag"]
    await shown.send("GET", f"{API}/thumbnail/{study}", 304, headers={"If-None-Match": etag})


async def _log(shown: Transcript, study: str) -> None:
    shown.say("What was logged")
    entry = await _logged(shown, study)
    shown.expect("upload_status", entry["upload_status"], "success")
    shown.expect("number_of_files", entry["number_of_files"], 1)
    shown.expect("tags_modified", entry["tags_modified"], wanted=True)
    shown.expect("uploaded_by", entry["uploaded_by"], "Dr Rita Reads")


async def _delete(shown: Transcript, study: str) -> None:
    shown.say("Delete the study; the log keeps who and why")
    reason = "Uploaded for the demo"
    await shown.send("DELETE", f"{API}/studies/{study}", params={"reason": reason})
    entry = await _logged(shown, study)
    shown.expect("is_deleted", entry["is_deleted"], wanted=True)
    shown.expect("deletion_reason", entry["deletion_reason"], reason)
    gone = await shown.send("DELETE", f"{API}/studies/{study}", 404, params={"reason": reason})
    shown.expect("deleting it again", _reason(gone.json()), "STUDY_NOT_FOUND")


async def _tidy(shown: Transcript, studies: list[str]) -> None:
    shown.say("Leave nothing behind: the PACS may be one that goes on")
    for study in studies:
        await shown.send("DELETE", f"{API}/studies/{study}", params={"reason": "The demo is over"})


async def _logged(shown: Transcript, study: str) -> Mapping[str, Any]:
    logs = (await shown.send("GET", f"{API}/upload-logs", params={"study_instance_uid": study})).json()["upload_logs"]
    shown.expect("logs of the study", len(logs), 1)
    return dict(logs[0])


def _reason(status: Json) -> str:
    for detail in status["details"]:
        if detail["@type"].endswith("google.rpc.ErrorInfo"):
            return str(detail["reason"])
    raise DemoError(f"The error gives no reason: {json.dumps(status)}")
