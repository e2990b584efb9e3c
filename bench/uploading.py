"""The ways into the PACS: straight into Orthanc, and through the gateway. Each turn is a new study, deleted again."""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import grpc
import httpx

from bench.clients.bare_grpc import BareGrpcLoad
from bench.clients.grpc_client import Call, GrpcLoad, Reply
from bench.clients.http import Answer, HttpLoad, Request, basic
from bench.clients.process import Load
from bench.files import File, Sample, Whose
from bench.lab import Lab
from bench.rounds import Turn
from deploy.local.people import CT_PATIENT
from deploy.local.ports import HOST
from deploy.local.stack import Stack
from ris.pacs.v1 import (
    registry_service_pb2,
    registry_service_pb2_grpc,
    study_service_pb2,
    study_service_pb2_grpc,
    upload_service_pb2,
)

CONNECTIONS: Final = 8
_SERVICE: Final = "/ris.pacs.v1.UploadService"
_SECONDS: Final = 120


@dataclass(frozen=True, slots=True)
class Study:
    """What is uploaded in one turn: so many files, of a patient whom the RIS knows."""

    sample: Sample
    files: int
    series: int = 1
    # Whether the files are for an order of the RIS; a new one for each study.
    ordered: bool = False
    # Whether they bear another PatientID than the RIS's patient, to whom they are then to be coerced.
    foreign: bool = False


class Uploading:
    """Makes ways to upload a study."""

    def __init__(
        self, lab: Lab, stack: Stack, *, gateway_port: int | None = None, envoy_port: int | None = None
    ) -> None:
        """`gateway_port` and `envoy_port` are where uploads over gRPC and HTTP go, if not to the stack's own."""
        self._lab = lab
        self._gateway_port = gateway_port or stack.ports.pacs_gateway
        self._envoy_port = envoy_port or stack.ports.envoy
        self._stack = stack
        self._orthanc_auth = (stack.orthanc.username, stack.orthanc.password)

    async def direct(
        self,
        study: Study,
        *,
        connections: int = CONNECTIONS,
        checked: bool = False,
        then: Callable[..., Awaitable[str]] | None = None,
    ) -> Turn:
        """Into Orthanc, a POST for each file. `checked`: Orthanc is then asked of each what it noted, and to read it
        again, as a gateway would. `then` gets a client of Orthanc and the study's id there, and gives the path of what
        is to be deleted.
        """
        headers = (basic(*self._orthanc_auth),)
        requests = tuple(Request("/instances", headers, (file,)) for file in await self._files(study))
        turn, answers = await self._lab.timed(HttpLoad(self._stack.ports.orthanc, requests, connections))
        stored = _json_of(answers)
        assert all(one["Status"] == "Success" for one in stored), "Orthanc stored not all of it"
        if checked:
            turn = turn.and_then(await self._check([one["ID"] for one in stored], connections))
        async with httpx.AsyncClient(base_url=self._stack.orthanc.url, auth=self._orthanc_auth) as orthanc:
            study_id = stored[0]["ParentStudy"]
            left = f"/studies/{study_id}" if then is None else await then(orthanc, study_id)
            (await orthanc.delete(left, timeout=_SECONDS)).raise_for_status()
        return turn

    async def over_grpc(self, study: Study, *, library: bool = False) -> Turn:
        """Into the gateway, an Upload for each file. `library`: by a client of gRPC's own, on one connection."""
        calls = [
            Call((file,), self._first(upload_service_pb2.UploadRequest, study)) for file in await self._files(study)
        ]
        answers, turn = await self._call("Upload", calls, library=library)
        return await self._checked(
            turn, [upload_service_pb2.UploadResponse.FromString(one) for one in _messages(answers)]
        )

    async def over_grpc_streams(self, study: Study) -> Turn:
        """Into the gateway, as many UploadMultiple as there are connections elsewhere, the files dealt out to them."""
        files = await self._files(study)
        share = -(-len(files) // CONNECTIONS)
        calls = [
            Call(tuple(files[at : at + share]), self._first(upload_service_pb2.UploadMultipleRequest, study))
            for at in range(0, len(files), share)
        ]
        answers, turn = await self._call("UploadMultiple", calls)
        kind = upload_service_pb2.UploadMultipleResponse
        return await self._checked(turn, [kind.FromString(one) for one in _messages(answers)])

    async def over_http(self, study: Study) -> Turn:
        """Through Envoy, a form for each file."""
        requests = [self._form("upload", "file", (file,), study) for file in await self._files(study)]
        turn, answers = await self._post(requests)
        return await self._checked_json(turn, _json_of(answers))

    async def over_http_at_once(self, study: Study) -> Turn:
        """Through Envoy, one form with all files."""
        turn, answers = await self._post(
            [self._form("upload-multiple", "files", tuple(await self._files(study)), study)]
        )
        (stored,) = _json_of(answers)
        assert len(stored) == study.files, "there is not an answer for every file"
        return await self._checked_json(turn, stored)

    async def delete(self, study_uid: str) -> None:
        """Deletes a study through the gateway."""
        async with grpc.aio.insecure_channel(self._stack.pacs_gateway_target) as channel:
            request = study_service_pb2.DeleteStudyRequest(study_uid=study_uid, reason="measured")
            studies = study_service_pb2_grpc.StudyServiceStub(channel)
            await studies.DeleteStudy(request, metadata=self._metadata("radiologist"), timeout=_SECONDS)

    def way(self, way: Callable[..., Awaitable[Turn]], study: Study, **how: Any) -> Callable[[], Awaitable[Turn]]:
        """A way that takes its turn with new files of that kind."""

        async def turn() -> Turn:
            return await way(study, **how)

        return turn

    # --- inside

    async def _check(self, orthanc_ids: Sequence[str], connections: int) -> Turn:
        headers = (basic(*self._orthanc_auth),)
        requests = [
            Request(f"/instances/{one}/attachments/dicom/{question}", headers, method=method)
            for one in orthanc_ids
            for method, question in (("GET", "info"), ("POST", "verify-md5"))
        ]
        turn, answers = await self._lab.timed(HttpLoad(self._stack.ports.orthanc, tuple(requests), connections))
        assert all(one.status == 200 for one in answers), "Orthanc holds not all of it"
        return turn

    async def _files(self, study: Study) -> list[File]:
        accession = uuid4().hex[:16].upper() if study.ordered else ""
        if study.ordered:
            await self._order(accession)
        whose = Whose("BENCH-OTHER-ID" if study.foreign else CT_PATIENT.mrn, accession)
        return study.sample.study(study.files, whose, series=study.series)

    async def _order(self, accession: str) -> None:
        order = registry_service_pb2.Order(
            id=str(uuid4()),
            patient_id=CT_PATIENT.id,
            accession_number=accession,
            modality="CT",
            status="scheduled",
        )
        async with grpc.aio.insecure_channel(self._stack.pacs_gateway_target) as channel:
            registry = registry_service_pb2_grpc.RegistryServiceStub(channel)
            request = registry_service_pb2.UpsertOrdersRequest(orders=[order])
            await registry.UpsertOrders(request, metadata=self._metadata("admin"), timeout=_SECONDS)

    def _first(self, kind: Any, study: Study) -> Any:
        return kind(patient_id=CT_PATIENT.id, patient_match="COERCE") if study.foreign else kind()

    async def _call(self, method: str, calls: Sequence[Call], *, library: bool = False) -> tuple[Sequence[Reply], Turn]:
        path, token = f"{_SERVICE}/{method}", self._stack.token()
        load: Load
        if library:
            load = GrpcLoad(f"{HOST}:{self._gateway_port}", path, tuple(calls), token, CONNECTIONS)
        else:
            load = BareGrpcLoad(self._gateway_port, path, tuple(calls), token, CONNECTIONS)
        turn, answers = await self._lab.timed(load)
        return answers, turn

    def _form(self, path: str, field: str, files: tuple[File, ...], study: Study) -> Request:
        query = f"?patient_id={CT_PATIENT.id}&patient_match=COERCE" if study.foreign else ""
        headers = (f"Authorization: Bearer {self._stack.token()}",)
        return Request(f"/api/v1/dicom/{path}{query}", headers, files, field=field)

    async def _post(self, requests: Sequence[Request]) -> tuple[Turn, Sequence[Answer]]:
        load: Load = HttpLoad(self._envoy_port, tuple(requests), CONNECTIONS)
        return await self._lab.timed(load)

    async def _checked(self, turn: Turn, answers: Sequence[Any]) -> Turn:
        wrong = [one.error.reason for one in answers if one.status != "stored"]
        assert not wrong, f"{len(wrong)} files were not stored: {set(wrong)}"
        await self.delete(answers[0].study_uid)
        return turn

    async def _checked_json(self, turn: Turn, answers: Sequence[Any]) -> Turn:
        wrong = [one for one in answers if one["status"] != "stored"]
        assert not wrong, f"{len(wrong)} files were not stored: {wrong[0]}"
        await self.delete(answers[0]["study_uid"])
        return turn

    def _metadata(self, role: str) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self._stack.token(role=role)}"),)


def _json_of(answers: Sequence[Answer]) -> list[Any]:
    wrong = [one for one in answers if one.status != 200]
    assert not wrong, f"{len(wrong)} requests failed: {wrong[0].status} {wrong[0].body[:300]!r}"
    return [json.loads(one.body) for one in answers]


def _messages(replies: Sequence[Reply]) -> list[bytes]:
    return [message for reply in replies for message in reply.messages]
