"""A caller of the JSON API, as a web front end is one."""

import json
import uuid
from dataclasses import dataclass
from typing import Any

import httpx

from tests.files import SampleFile

API = "/api/v1/dicom"
REGISTRY = "/api/v1/registry"
ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"


@dataclass(frozen=True, slots=True)
class Person:
    """A patient of the registry."""

    id: str
    mrn: str


@dataclass(frozen=True, slots=True)
class Client:
    """Sends requests with one user's token ("" for none)."""

    http: httpx.AsyncClient
    token: str

    def with_token(self, token: str) -> "Client":
        """The same, for another user."""
        return Client(self.http, token)

    async def send(self, method: str, path: str, **request: Any) -> httpx.Response:
        """The answer to one request."""
        headers = dict(request.pop("headers", {}))
        if self.token:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        return await self.http.request(method, path, headers=headers, **request)

    async def get(self, path: str, **request: Any) -> Any:
        """The JSON of a request that has to succeed."""
        answer = await self.send("GET", path, **request)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def upload(
        self, content: bytes, name: str = "x.dcm", *, request_id: str = "", **params: Any
    ) -> httpx.Response:
        """Uploads one file as `curl -F file=@x.dcm` does."""
        headers = {"Idempotency-Key": request_id} if request_id else {}
        return await self.send("POST", f"{API}/upload", params=params, files=form((name, content)), headers=headers)

    async def stored(self, file: SampleFile, **params: Any) -> Any:
        """The result of an upload that has to succeed."""
        answer = await self.upload(file.content, **params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def log(self, study_uid: str) -> Any:
        """The upload log of a study; None where there is none."""
        logs = (await self.get(f"{API}/upload-logs", params={"study_instance_uid": study_uid}))["upload_logs"]
        assert len(logs) <= 1
        return logs[0] if logs else None

    async def in_pacs(self, study_uid: str) -> bool:
        """Whether the PACS holds the study."""
        answer = await self.send("GET", f"{API}/studies/{study_uid}")
        assert answer.status_code in {200, 404}, answer.text
        return answer.status_code == 200

    async def register_patient(self, mrn: str, full_name: str = "Muster^Maria", **fields: str) -> Person:
        """Puts a patient into the registry."""
        entry = {"id": str(uuid.uuid4()), "mrn": mrn, "full_name": full_name, **fields}
        answer = await self.send("PUT", f"{REGISTRY}/patients", json={"patients": [entry]})
        assert answer.status_code == 200, answer.text
        return Person(entry["id"], mrn)

    async def register_order(self, patient: Person, accession_number: str) -> str:
        """Puts an order into the registry; its id."""
        entry = {
            "id": str(uuid.uuid4()),
            "patient_id": patient.id,
            "accession_number": accession_number,
            "modality": "CT",
            "status": "scheduled",
        }
        answer = await self.send("PUT", f"{REGISTRY}/orders", json={"orders": [entry]})
        assert answer.status_code == 200, answer.text
        return entry["id"]


def form(*files: tuple[str, bytes], field: str = "file") -> list[tuple[str, tuple[str, bytes, str]]]:
    """Files as fields of a form."""
    return [(field, (name, content, "application/octet-stream")) for name, content in files]


def expect_error(answer: httpx.Response, status: int, reason: str) -> dict[str, Any]:
    """The google.rpc.Status of an answer that has to be this error; it quotes no values of the test's files."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    assert answer.headers["content-type"].startswith("application/json")
    assert "grpc-status" not in answer.headers
    body: dict[str, Any] = answer.json()
    infos = [detail for detail in body["details"] if detail["@type"] == ERROR_INFO]
    assert [info["reason"] for info in infos] == [reason], json.dumps(body)
    assert infos[0]["domain"] == "ris.dicom-gateway"
    assert body["message"]
    return body


def violations(body: dict[str, Any]) -> dict[str, str]:
    """The field violations of an error."""
    return {
        violation["field"]: violation["description"]
        for detail in body["details"]
        if detail["@type"].endswith("google.rpc.BadRequest")
        for violation in detail["fieldViolations"]
    }
