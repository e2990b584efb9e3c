"""Upload sessions, all the way: what is expected, what comes, what is missing, and a receipt that proves it all."""

import asyncio
import base64
import hashlib
import json
from typing import Any

import grpc
import httpx
import jwt
import pytest

from deploy.local.orthanc import OrthancServer
from deploy.local.stack import Stack
from ris.pacs.v1 import upload_service_pb2_grpc, upload_session_pb2
from tests.e2e.client import API, Client, expect_error, form, violations
from tests.faults import study_of
from tests.files import SampleFile, fresh_file

SESSIONS = f"{API}/upload-sessions"
RECEIPT_TYPE = "upload-receipt+jwt"


def expected(*files: SampleFile) -> list[dict[str, Any]]:
    """The files as a session lists them."""
    return [{"sha256": sha256(file.content), "size_bytes": len(file.content)} for file in files]


def sha256(content: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


async def new_session(client: Client, **request: Any) -> str:
    """The id of a new session."""
    answer = await client.send("POST", SESSIONS, json=request)
    assert answer.status_code == 200, answer.text
    session_id: str = answer.json()["session"]["id"]
    return session_id


async def complete(client: Client, session_id: str) -> httpx.Response:
    """The answer to a completion."""
    return await client.send("POST", f"{SESSIONS}/{session_id}:complete")


async def receipt_of(client: Client, session_id: str) -> str:
    """The receipt of a session that has to be complete."""
    answer = await complete(client, session_id)
    assert answer.status_code == 200, answer.text
    assert answer.json()["session"]["state"] == "completed"
    receipt: str = answer.json()["receipt"]
    return receipt


async def checked(client: Client, receipt: str) -> dict[str, Any]:
    """What a receipt says, after its signature was checked by the keys that everybody may have, without a token."""
    jwks = await client.with_token("").get(f"{API}/receipt-keys")
    key = jwt.PyJWKSet.from_dict(jwks)[jwt.get_unverified_header(receipt)["kid"]]
    claims: dict[str, Any] = jwt.decode(receipt, key, algorithms=["ES256"])
    return claims


async def held_by(server: OrthancServer, lines: list[dict[str, Any]]) -> None:
    """Holds each line of a receipt against what Orthanc gives out."""
    auth = httpx.BasicAuth(server.username, server.password)
    async with httpx.AsyncClient(base_url=server.url, auth=auth) as orthanc:
        for line in lines:
            path = f"/instances/{line['orthanc_id']}"
            content = (await orthanc.get(f"{path}/file")).raise_for_status().content
            assert (sha256(content), len(content)) == (line["stored_sha256"], line["stored_size_bytes"])
            tags = (await orthanc.get(f"{path}/simplified-tags")).raise_for_status().json()
            told = ("study_instance_uid", "series_instance_uid", "sop_instance_uid")
            assert [tags[name] for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")] == [
                line[name] for name in told
            ]


async def test_a_session_takes_its_files_in_any_order_and_gives_a_receipt(client: Client, stack: Stack) -> None:
    """One by one, many at once, raw or as a form: when all have come, the receipt names each, and Orthanc holds it."""
    files = study_of(5)
    session_id = await new_session(client, files=expected(*files))
    fresh = await client.get(f"{SESSIONS}/{session_id}")
    assert (fresh["session"]["state"], fresh["session"]["number_of_files"]) == ("open", 5)
    assert fresh["missing"] == sorted(sha256(file.content) for file in files)

    await client.stored(files[3], session_id=session_id)
    many = await client.send(
        "POST",
        f"{API}/upload-multiple",
        params={"session_id": session_id},
        files=form(("1", files[4].content), ("2", files[0].content), field="files"),
    )
    assert [one["status"] for one in many.json()] == ["stored", "stored"]
    body = expect_error(await complete(client, session_id), 400, "SESSION_INCOMPLETE")
    assert body["details"][0]["metadata"]["missing"] == "2"
    standing = await client.get(f"{SESSIONS}/{session_id}")
    assert (standing["session"]["files_stored"], standing["session"]["files_missing"]) == (3, 2)
    assert standing["missing"] == sorted(sha256(file.content) for file in files[1:3])
    raw = {"params": {"session_id": session_id}, "headers": {"content-type": "application/dicom"}}
    at_once = (client.send("POST", f"{API}/upload", content=file.content, **raw) for file in files[1:3])
    assert [answer.status_code for answer in await asyncio.gather(*at_once)] == [200, 200]

    receipt = await receipt_of(client, session_id)
    assert jwt.get_unverified_header(receipt)["typ"] == RECEIPT_TYPE
    claims = await checked(client, receipt)
    assert (claims["iss"], claims["jti"]) == ("ris-dicom-gateway", session_id)
    assert {(line["sha256"], line["size_bytes"]) for line in claims["files"]} == {
        (one["sha256"], one["size_bytes"]) for one in expected(*files)
    }
    assert len(claims["files"]) == 5
    await held_by(stack.orthanc, claims["files"])
    assert files[0].patient_id not in json.dumps(claims)
    assert await receipt_of(client, session_id) == receipt


async def test_the_options_of_a_session_hold_for_each_upload(client: Client, admin: Client, stack: Stack) -> None:
    """The patient, the order and coercion are the session's; what is stored is another than what was sent, and told."""
    file = fresh_file()
    patient = await admin.register_patient(f"S{file.patient_id}")
    order = await admin.register_order(patient, file.patient_id[-10:])
    session_id = await new_session(
        client,
        files=expected(file),
        patient_id=patient.id,
        order_id=order,
        patient_match="COERCE",
        upload_source="api",
    )
    for wrong in ({"patient_id": order}, {"patient_match": "ACCEPT"}, {"on_conflict": "KEEP"}):
        answer = await client.upload(file.content, session_id=session_id, **wrong)
        assert set(violations(expect_error(answer, 400, "INVALID_FIELD"))) == set(wrong)
    parts = {"params": {"session_id": session_id}, "files": form(("x", file.content), field="files")}
    (foreseen,) = (await client.send("POST", f"{API}/preflight", **parts)).json()
    assert (foreseen["status"], foreseen["patient_id"], foreseen["order_id"]) == ("acceptable", patient.id, order)
    stored = await client.stored(file, session_id=session_id, patient_id=patient.id)
    assert (stored["patient_id"], stored["order_id"], stored["tags"]["PatientID"]) == (patient.id, order, patient.mrn)
    assert (await client.log(file.study_uid))["upload_source"] == "api"
    claims = await checked(client, await receipt_of(client, session_id))
    assert (claims["patient_id"], claims["order_id"]) == (patient.id, order)
    (line,) = claims["files"]
    assert line["sha256"] == sha256(file.content) != line["stored_sha256"]
    await held_by(stack.orthanc, claims["files"])


async def test_a_file_that_went_into_the_quarantine_is_missing(client: Client, admin: Client) -> None:
    """The session says why; and whoever stores it for another patient than the session's does not complete that."""
    file = fresh_file()
    await admin.register_patient(file.patient_id, "Right^Patient")
    wrong = await admin.register_patient(f"W{file.patient_id}", "Wrong^Patient")
    session_id = await new_session(client, files=expected(file), patient_id=wrong.id)
    body = expect_error(await client.upload(file.content, session_id=session_id), 400, "PATIENT_MISMATCH")
    (told,) = (await client.get(f"{SESSIONS}/{session_id}"))["files"]
    assert (told["status"], told["reason"]) == ("failed", "PATIENT_MISMATCH")
    kept = body["details"][0]["metadata"]["quarantine_id"]
    assert (await client.send("POST", f"{API}/quarantine/{kept}:retry")).status_code == 200
    assert await client.in_pacs(file.study_uid)
    expect_error(await complete(client, session_id), 400, "SESSION_INCOMPLETE")


async def test_a_tampered_receipt_fails(client: Client) -> None:
    """A receipt with another payload, or of another key, does not verify; nor is one a token."""
    file = fresh_file()
    session_id = await new_session(client, files=expected(file))
    await client.stored(file, session_id=session_id)
    receipt = await receipt_of(client, session_id)
    claims = await checked(client, receipt)
    header, _, signature = receipt.split(".")
    claims["files"][0]["orthanc_id"] = "0" * 44
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    with pytest.raises(jwt.InvalidSignatureError):
        await checked(client, f"{header}.{forged}.{signature}")
    expect_error(await client.with_token(receipt).send("GET", f"{API}/studies"), 401, "TOKEN_INVALID")


async def test_a_file_that_is_not_expected_is_refused_and_stores_nothing(client: Client) -> None:
    """Neither another file, nor another content of an instance that is expected; its neighbours are stored."""
    files = study_of(2)
    stranger = fresh_file()
    session_id = await new_session(client, files=expected(*files))
    expect_error(await client.upload(stranger.content, session_id=session_id), 400, "FILE_NOT_EXPECTED")
    assert not await client.in_pacs(stranger.study_uid)
    parts = form(("1", files[0].content), ("x", stranger.content), ("2", files[1].content), field="files")
    many = await client.send("POST", f"{API}/upload-multiple", params={"session_id": session_id}, files=parts)
    assert [one["status"] for one in many.json()] == ["stored", "failed", "stored"]
    assert many.json()[1]["error"]["reason"] == "FILE_NOT_EXPECTED"
    assert not await client.in_pacs(stranger.study_uid)
    assert len((await checked(client, await receipt_of(client, session_id)))["files"]) == 2


async def test_a_file_that_comes_twice_counts_once_and_a_stored_one_counts(client: Client) -> None:
    """What the PACS held before is sent once more, and is then a file of the session like any other."""
    file, other = study_of(2)
    await client.stored(file)
    session_id = await new_session(client, number_of_files=2)
    for _ in range(2):
        assert (await client.stored(file, session_id=session_id))["status"] == "already_stored"
    expect_error(await complete(client, session_id), 400, "SESSION_INCOMPLETE")
    await client.stored(other, session_id=session_id)
    third = fresh_file(like=file)
    expect_error(await client.upload(third.content, session_id=session_id), 400, "FILE_NOT_EXPECTED")
    # What others upload meanwhile takes nothing away from it.
    await client.stored(file)
    lines = (await checked(client, await receipt_of(client, session_id)))["files"]
    assert {line["sha256"] for line in lines} == {sha256(file.content), sha256(other.content)}


async def test_a_completed_session_takes_nothing_more(client: Client) -> None:
    """Not even a file that it expected."""
    file = fresh_file()
    session_id = await new_session(client, files=expected(file))
    await client.stored(file, session_id=session_id)
    await receipt_of(client, session_id)
    expect_error(await client.upload(file.content, session_id=session_id), 400, "SESSION_COMPLETED")


async def test_a_receipt_never_claims_what_is_not_there(client: Client, stack: Stack) -> None:
    """A study that was deleted, or lost by Orthanc itself, is missing again, and can be sent again."""
    files = study_of(3)
    session_id = await new_session(client, files=expected(*files))
    for file in files:
        stored = await client.stored(file, session_id=session_id)
    deleted = await client.send("DELETE", f"{API}/studies/{files[0].study_uid}", params={"reason": "test"})
    assert deleted.status_code == 200, deleted.text
    expect_error(await complete(client, session_id), 400, "SESSION_INCOMPLETE")
    assert {one["status"] for one in (await client.get(f"{SESSIONS}/{session_id}"))["files"]} == {"deleted"}
    for file in files:
        await client.stored(file, session_id=session_id)
    server = stack.orthanc
    async with httpx.AsyncClient(base_url=server.url, auth=(server.username, server.password)) as orthanc:
        (await orthanc.delete(f"/instances/{stored['orthanc_id']}")).raise_for_status()
    body = expect_error(await complete(client, session_id), 400, "SESSION_INCOMPLETE")
    assert body["details"][0]["metadata"]["missing"] == "1"
    assert (await client.get(f"{SESSIONS}/{session_id}"))["missing"] == [sha256(files[2].content)]
    await client.stored(files[2], session_id=session_id)
    await held_by(server, (await checked(client, await receipt_of(client, session_id)))["files"])


async def test_a_session_is_its_makers(client: Client, admin: Client, stack: Stack) -> None:
    """Others neither see it, nor send into it, nor complete it; an admin sees it; a viewer makes none."""
    session_id = await new_session(client, number_of_files=1)
    other = client.with_token(stack.token(role="technologist"))
    expect_error(await other.send("GET", f"{SESSIONS}/{session_id}"), 404, "SESSION_NOT_FOUND")
    expect_error(await other.upload(fresh_file().content, session_id=session_id), 404, "SESSION_NOT_FOUND")
    expect_error(await complete(other, session_id), 404, "SESSION_NOT_FOUND")
    assert (await admin.get(f"{SESSIONS}/{session_id}"))["session"]["id"] == session_id
    expect_error(await complete(admin, session_id), 404, "SESSION_NOT_FOUND")
    viewer = client.with_token(stack.token(role="viewer"))
    expect_error(await viewer.send("POST", SESSIONS, json={"number_of_files": 1}), 403, "ROLE_NOT_ALLOWED")
    overwriting = {"number_of_files": 1, "on_conflict": "OVERWRITE"}
    expect_error(await other.send("POST", SESSIONS, json=overwriting), 403, "ROLE_NOT_ALLOWED")


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({}, "number_of_files"),
        ({"number_of_files": -1}, "number_of_files"),
        ({"number_of_files": 1_000_000}, "number_of_files"),
        ({"files": [{"sha256": "x" * 64, "size_bytes": 1}]}, "files[0].sha256"),
        ({"files": [{"sha256": "0" * 63, "size_bytes": 1}]}, "files[0].sha256"),
        ({"files": [{"sha256": "0" * 64, "size_bytes": -1}]}, "files[0].size_bytes"),
        ({"files": [{"sha256": "0" * 64, "size_bytes": 1 << 62}]}, "files[0].size_bytes"),
        ({"files": [{"sha256": "a" * 64, "size_bytes": 1}, {"sha256": "A" * 64, "size_bytes": 1}]}, "files[1].sha256"),
        ({"files": [{"sha256": "0" * 64, "size_bytes": 1, "name": "n" * 256}]}, "files[0].name"),
        ({"files": [{"sha256": f"{n:064x}", "size_bytes": 1} for n in range(5001)]}, "files"),
        ({"number_of_files": 1, "patient_id": "42"}, "patient_id"),
        ({"number_of_files": 1, "patient_match": "COERCE"}, "patient_match"),
    ],
)
async def test_what_no_session_can_be_is_refused(client: Client, request_: dict[str, Any], field: str) -> None:
    """Digests that are none, sizes that no file has, too many files, the same twice: each is named."""
    body = expect_error(await client.send("POST", SESSIONS, json=request_), 400, "INVALID_FIELD")
    assert field in violations(body)


async def test_a_list_that_no_session_has_is_refused_before_it_is_read(client: Client) -> None:
    """A body that no session has is refused by its length."""
    files = ",".join(f'{{"sha256":"{n:064x}","size_bytes":1}}' for n in range(60_000))
    body = f'{{"files":[{files}]}}'.encode()
    answer = await client.send("POST", SESSIONS, content=body, headers={"content-type": "application/json"})
    expect_error(answer, 413, "UPLOAD_TOO_LARGE")


async def test_strange_sessions_are_not_found(client: Client) -> None:
    """One that nobody made, and what is no id at all."""
    nobodys = "00000000-0000-4000-8000-00000000dead"
    expect_error(await client.send("GET", f"{SESSIONS}/{nobodys}"), 404, "SESSION_NOT_FOUND")
    expect_error(await complete(client, nobodys), 404, "SESSION_NOT_FOUND")
    expect_error(await client.upload(b"x", session_id=nobodys), 404, "SESSION_NOT_FOUND")
    expect_error(await client.send("GET", f"{SESSIONS}/42"), 400, "INVALID_FIELD")
    expect_error(await client.upload(b"x", session_id="42"), 400, "INVALID_FIELD")


async def test_the_list_of_files_comes_in_pages(client: Client) -> None:
    """Each file is on one page, and what is missing is told once."""
    files = [{"sha256": f"{n:064x}", "size_bytes": 1, "name": f"{n}.dcm"} for n in range(250)]
    session_id = await new_session(client, files=files)
    found, token = [], ""
    while True:
        page = await client.get(f"{SESSIONS}/{session_id}", params={"limit": 100, "page_token": token})
        assert len(page["missing"]) == (0 if token else 250)
        found += [one["name"] for one in page["files"]]
        token = page["next_page_token"]
        if not token:
            break
    assert found == [f"{n}.dcm" for n in range(250)]


async def test_the_keys_are_told_over_grpc(stack: Stack, client: Client) -> None:
    """The same JWKS, without a token, and nothing of it is private."""
    async with grpc.aio.insecure_channel(stack.envoy_target) as channel:
        stub = upload_service_pb2_grpc.UploadServiceStub(channel)
        answer = await stub.GetReceiptKeys(upload_session_pb2.GetReceiptKeysRequest())
    jwks = json.loads(answer.jwks.data)
    assert jwks == await client.with_token("").get(f"{API}/receipt-keys")
    assert all("d" not in key for key in jwks["keys"])
