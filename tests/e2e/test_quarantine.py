"""The quarantine through Envoy, with every real part: what is refused is kept, and somebody decides about it."""

import asyncio
import hashlib
import io
import random
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pydicom
import pytest

from deploy.local.stack import Stack
from tests.e2e.client import API, Client, expect_error, form, violations
from tests.faults import Books
from tests.files import SampleFile, fresh_file
from tests.unit.service_runtime.zips import Entry, zip_of

QUARANTINE = f"{API}/quarantine"


def told(body: dict[str, Any]) -> dict[str, str]:
    """The metadata of an error, but for the request id."""
    metadata = dict(body["details"][0]["metadata"])
    del metadata["request_id"]
    return metadata


async def refused(client: Client, content: bytes, reason: str = "PATIENT_MISMATCH", **params: str) -> str:
    """Has an upload be refused; the id of the file in the quarantine."""
    metadata = told(expect_error(await client.upload(content, **params), 400, reason))
    return metadata["quarantine_id"]


async def entry(client: Client, file_id: str) -> Any:
    """The file as it stands."""
    return (await client.get(f"{QUARANTINE}/{file_id}"))["quarantined_file"]


async def retried(client: Client, file_id: str, **params: str) -> httpx.Response:
    """The answer to a try to store it."""
    return await client.send("POST", f"{QUARANTINE}/{file_id}:retry", params=params)


def on_disk(stack: Stack, file_id: str) -> bytes | None:
    """What is kept of it."""
    path = stack.folder / "quarantine" / file_id
    return path.read_bytes() if path.exists() else None


def names(stack: Stack) -> set[str]:
    """All that lies in the folder."""
    folder = stack.folder / "quarantine"
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


async def in_orthanc(stack: Stack, orthanc_id: str) -> bytes:
    """What Orthanc holds of an instance."""
    auth = httpx.BasicAuth(stack.orthanc.username, stack.orthanc.password)
    async with httpx.AsyncClient(base_url=stack.orthanc.url, auth=auth) as orthanc:
        return (await orthanc.get(f"/instances/{orthanc_id}/file")).raise_for_status().content


async def mixed_up(admin: Client) -> tuple[SampleFile, dict[str, str]]:
    """A file of one patient, and the options of an upload for another."""
    file = fresh_file()
    await admin.register_patient(file.patient_id, "Right^Patient")
    wrong = await admin.register_patient(f"W{file.patient_id}", "Wrong^Patient")
    return file, {"patient_id": wrong.id}


async def test_a_refused_file_is_listed_and_stored_for_the_right_patient(
    client: Client, admin: Client, stack: Stack
) -> None:
    """From the refusal to the PACS: the bytes that came, under the right patient, with a log, and a trace of it all."""
    file = fresh_file()
    right = await admin.register_patient(file.patient_id, "Right^Patient")
    wrong = await admin.register_patient(f"W{file.patient_id}", "Wrong^Patient")
    file_id = await refused(client, file.content, patient_id=wrong.id, upload_source="cd_import")
    assert not await client.in_pacs(file.study_uid)
    assert await client.log(file.study_uid) is None

    filters = {"patient_id": wrong.id, "reason": "PATIENT_MISMATCH", "uploaded_from": "2020-01-01T00:00:00Z"}
    page = await client.get(QUARANTINE, params=filters)
    (listed,) = page["quarantined_files"]
    assert (page["total_size"], page["next_page_token"]) == (1, "")
    assert (listed["id"], listed["state"], listed["filename"]) == (file_id, "quarantined", "x.dcm")
    assert (listed["PatientID"], listed["StudyInstanceUID"]) == (file.patient_id, file.study_uid)
    assert listed["SOPInstanceUID"] == file.sop_uid
    assert listed["sha256"] == hashlib.sha256(file.content).hexdigest()
    assert (listed["size_bytes"], listed["refusals"]) == (str(len(file.content)), 1)
    assert (listed["uploaded_by"], listed["upload_source"]) == ("Dr Rita Reads", "cd_import")
    assert on_disk(stack, file_id) == file.content

    answer = await retried(client, file_id, patient_id=right.id)
    assert answer.status_code == 200, answer.text
    upload, after = answer.json()["upload"], answer.json()["quarantined_file"]
    assert (upload["status"], upload["patient_id"], upload["study_uid"]) == ("stored", right.id, file.study_uid)
    assert await Books(stack).check(file.study_uid, [upload]) == 1
    held = await in_orthanc(stack, upload["orthanc_id"])
    assert pydicom.dcmread(io.BytesIO(held)) == pydicom.dcmread(io.BytesIO(file.content))
    log = await client.log(file.study_uid)
    assert (log["id"], log["upload_status"], log["number_of_files"]) == (upload["upload_log_id"], "success", 1)
    assert (log["patient_id"], log["upload_source"]) == (right.id, "cd_import")
    assert after["state"] == "released"
    assert "expires_at" not in after
    assert [(one["action"], one["by"]) for one in after["events"]] == [
        ("quarantined", ""),
        ("released", "Dr Rita Reads"),
    ]
    assert on_disk(stack, file_id) is None
    assert (await client.get(QUARANTINE, params=filters))["total_size"] == 0
    assert (await client.get(QUARANTINE, params=filters | {"state": "released"}))["total_size"] == 1
    expect_error(await retried(client, file_id), 400, "QUARANTINED_FILE_CLOSED")


async def test_a_file_is_put_right_on_its_way_out(client: Client, admin: Client, stack: Stack) -> None:
    """A try that is refused leaves the file with the new reason; one with edits stores what they make of it."""
    file, params = await mixed_up(admin)
    number = uuid.uuid4().hex[:16]
    wrong_order = await admin.register_order(await admin.register_patient(f"O{file.patient_id}"), number)
    file_id = await refused(client, file.content, **params, StudyDescription="Edited")
    body = expect_error(await retried(client, file_id, order_id=wrong_order), 400, "ORDER_PATIENT_MISMATCH")
    assert told(body)["quarantine_id"] == file_id
    assert (await entry(client, file_id))["reason"] == "ORDER_PATIENT_MISMATCH"
    assert on_disk(stack, file_id) == file.content

    edits = {"PatientName": "Put^Right", "set": "StationName=ROOM9", "record_original": "true"}
    answer = await retried(client, file_id, patient_id=params["patient_id"], patient_match="COERCE")
    assert answer.status_code == 200, answer.text
    upload = answer.json()["upload"]
    held = pydicom.dcmread(io.BytesIO(await in_orthanc(stack, upload["orthanc_id"])))
    assert (held.PatientID, str(held.PatientName)) == (f"W{file.patient_id}", "Wrong^Patient")
    # The edits of the upload that was refused are not those of the retry.
    assert held.get("StudyDescription") != "Edited"

    other = fresh_file()
    file_id = await refused(client, other.content, **params)
    upload = (await retried(client, file_id, **edits)).json()["upload"]
    held = pydicom.dcmread(io.BytesIO(await in_orthanc(stack, upload["orthanc_id"])))
    assert (held.PatientID, str(held.PatientName), held.StationName) == (other.patient_id, "Put^Right", "ROOM9")
    assert (await client.log(other.study_uid))["tags_modified"]


async def test_a_file_is_thrown_away_for_a_reason(client: Client, admin: Client, stack: Stack) -> None:
    """Its bytes go, and who did it and why stays; a second time there is nothing to throw away."""
    file, params = await mixed_up(admin)
    file_id = await refused(client, file.content, **params)
    path = f"{QUARANTINE}/{file_id}"
    for reason in ("", " ", "x" * 501, "a\nb"):
        body = expect_error(await client.send("DELETE", path, params={"reason": reason}), 400, "INVALID_FIELD")
        assert set(violations(body)) == {"reason"}
    assert on_disk(stack, file_id) is not None
    answer = await client.send("DELETE", path, params={"reason": "a phantom, of nobody"})
    assert answer.status_code == 200, answer.text
    after = answer.json()["quarantined_file"]
    assert after["state"] == "discarded"
    done = after["events"][-1]
    assert (done["action"], done["by"], done["reason"]) == ("discarded", "Dr Rita Reads", "a phantom, of nobody")
    assert on_disk(stack, file_id) is None
    expect_error(await client.send("DELETE", path, params={"reason": "again"}), 400, "QUARANTINED_FILE_CLOSED")
    for name in ("pacs_gateway", "envoy"):
        assert "phantom" not in stack.log(name).read_text()


async def test_the_same_file_twice_is_one(client: Client, admin: Client) -> None:
    """Also when it comes twice at the same moment, or once more for another reason."""
    file, params = await mixed_up(admin)
    ids = await asyncio.gather(*(refused(client, file.content, **params) for _ in range(3)))
    order_id = await admin.register_order(await admin.register_patient(f"O{file.patient_id}"), uuid.uuid4().hex[:16])
    last = await refused(client, file.content, "ORDER_PATIENT_MISMATCH", order_id=order_id)
    assert {*ids, last} == {last}
    one = await entry(client, last)
    assert (one["refusals"], one["reason"], one["order_id"]) == (4, "ORDER_PATIENT_MISMATCH", order_id)


@pytest.mark.parametrize(("size", "edits"), [(3_000, {}), (3_000_000, {}), (3_000_000, {"StudyDescription": "Other"})])
async def test_a_cut_file_is_not_kept(
    client: Client, admin: Client, stack: Stack, size: int, edits: dict[str, str]
) -> None:
    """Its refusal is the one that it always was, and nothing of it stays."""
    _, params = await mixed_up(admin)
    file = fresh_file(EncapsulatedDocument=bytes(size))
    before = names(stack)
    answer = await client.upload(file.content[:-1000], **params, **edits)
    assert told(expect_error(answer, 400, "PATIENT_MISMATCH")) == {"quarantine_error": "TRUNCATED_FILE"}
    assert names(stack) == before


async def test_files_of_any_way_in_are_kept_each_by_itself(client: Client, admin: Client, stack: Stack) -> None:
    """Raw, large, of a form with good ones, and of an archive, where one entry's checksum does not fit."""
    good, _ = await mixed_up(admin)
    other = await admin.register_patient(f"X{good.patient_id}")
    params = {"order_id": await admin.register_order(other, uuid.uuid4().hex[:16])}
    large = fresh_file(EncapsulatedDocument=bytes(5_000_000))
    raw = await client.send("POST", f"{API}/upload", params=params, content=large.content)
    assert raw.status_code == 400
    assert on_disk(stack, told(raw.json())["quarantine_id"]) == large.content

    files = [fresh_file(), good, fresh_file(EncapsulatedDocument=bytes(2_000_000)), fresh_file()]
    many = form(*((f"{number}.dcm", file.content) for number, file in enumerate(files)))
    results = (await client.send("POST", f"{API}/upload-multiple", params=params, files=many)).json()
    assert [one["error"]["reason"] for one in results] == ["ORDER_PATIENT_MISMATCH"] * 4
    for file, result in zip(files, results, strict=True):
        assert on_disk(stack, result["error"]["metadata"]["quarantine_id"]) == file.content

    packed = [fresh_file(), fresh_file(), fresh_file(EncapsulatedDocument=bytes(2_000_000))]
    lies = {1: {"crc": 1}}
    content = zip_of(
        *(Entry(f"{n}.dcm", one.content, told=lies.get(n, {}), listed=lies.get(n, {})) for n, one in enumerate(packed))
    )
    headers = {"content-type": "application/zip"}
    answer = await client.send("POST", f"{API}/upload-multiple", params=params, content=content, headers=headers)
    first, second, third = (one["error"] for one in answer.json())
    assert (first["reason"], third["reason"]) == ("ORDER_PATIENT_MISMATCH", "ORDER_PATIENT_MISMATCH")
    assert on_disk(stack, first["metadata"]["quarantine_id"]) == packed[0].content
    assert on_disk(stack, third["metadata"]["quarantine_id"]) == packed[2].content
    # The damage is found before the file is refused for whose it is, or after.
    assert "ARCHIVE_INVALID" in {second["reason"], second["metadata"].get("quarantine_error")}
    assert "quarantine_id" not in second["metadata"]


@pytest.mark.parametrize("edits", [{}, {"StudyDescription": "Other"}])
async def test_a_slow_sender_is_read_to_the_end(
    client: Client, admin: Client, stack: Stack, edits: dict[str, str]
) -> None:
    """A file of which most comes only after it was refused is kept as it came, chunk for chunk."""
    _, params = await mixed_up(admin)
    file = fresh_file(PixelData=random.Random(5).randbytes(4_000_000))  # noqa: S311 - no secret

    async def slowly() -> AsyncIterator[bytes]:
        yield file.content[:2_000_000]
        for start in range(2_000_000, len(file.content), 500_000):
            await asyncio.sleep(0.3)
            yield file.content[start : start + 500_000]

    answer = await client.send("POST", f"{API}/upload", params=params | edits, content=slowly())
    metadata = told(expect_error(answer, 400, "PATIENT_MISMATCH"))
    assert on_disk(stack, metadata["quarantine_id"]) == file.content


async def test_one_of_many_decisions_wins(client: Client, admin: Client, stack: Stack) -> None:
    """Retries and discards of one file at the same moment come to one outcome, and each is told its own."""
    file, params = await mixed_up(admin)
    file_id = await refused(client, file.content, **params)
    discards = [client.send("DELETE", f"{QUARANTINE}/{file_id}", params={"reason": "a race"}) for _ in range(2)]
    answers = await asyncio.gather(*(retried(client, file_id) for _ in range(4)), *discards)
    won = [answer for answer in answers if answer.status_code == 200]
    assert len(won) == 1
    for answer in answers:
        if answer is not won[0]:
            busy = answer.status_code == 409
            expect_error(answer, 409 if busy else 400, "QUARANTINED_FILE_BUSY" if busy else "QUARANTINED_FILE_CLOSED")
    state = (await entry(client, file_id))["state"]
    assert state == won[0].json()["quarantined_file"]["state"]
    assert await client.in_pacs(file.study_uid) is (state == "released")
    assert on_disk(stack, file_id) is None


async def test_who_may_not_decide_may_not_look(client: Client, admin: Client, stack: Stack) -> None:
    """The quarantine shows patients: only admins and radiologists see it, and only they decide."""
    file, params = await mixed_up(admin)
    file_id = await refused(client, file.content, **params)
    assert (await entry(admin, file_id))["id"] == file_id
    for role in ("technologist", "viewer", "service"):
        caller = client.with_token(stack.token(role=role))
        for answer in (
            await caller.send("GET", QUARANTINE),
            await caller.send("GET", f"{QUARANTINE}/{file_id}"),
            await retried(caller, file_id),
            await caller.send("DELETE", f"{QUARANTINE}/{file_id}", params={"reason": "no"}),
        ):
            expect_error(answer, 403, "ROLE_NOT_ALLOWED")
    expect_error(await client.with_token("").send("GET", QUARANTINE), 401, "TOKEN_MISSING")
    assert (await entry(client, file_id))["state"] == "quarantined"


@pytest.mark.parametrize(
    "file_id", ["1", "x" * 5000, "..", "{a}", f"{uuid.uuid4()}.part", "%00", "'; DROP TABLE users"]
)
async def test_hostile_ids_open_nothing(client: Client, file_id: str) -> None:
    """What is no UUID names no file, in the database or anywhere else."""
    for method, path in (("GET", ""), ("POST", ":retry"), ("DELETE", "?reason=x")):
        answer = await client.send(method, f"{QUARANTINE}/{httpx.URL(path=file_id).raw_path.decode()}{path}")
        assert answer.status_code in {400, 404, 431}, (method, answer.text)


async def test_an_id_that_nobody_gave_is_not_found(client: Client) -> None:
    """A well-formed id of no file."""
    path = f"{QUARANTINE}/{uuid.uuid4()}"
    expect_error(await client.send("GET", path), 404, "QUARANTINED_FILE_NOT_FOUND")
    expect_error(await client.send("POST", f"{path}:retry"), 404, "QUARANTINED_FILE_NOT_FOUND")
    expect_error(await client.send("DELETE", path, params={"reason": "x"}), 404, "QUARANTINED_FILE_NOT_FOUND")


async def test_wrong_values_are_named(client: Client, admin: Client) -> None:
    """Of filters and of options."""
    params = {"reason": "BAD", "patient_id": "1", "state": "gone", "limit": "1001", "page_token": "x"}
    body = expect_error(await client.send("GET", QUARANTINE, params=params), 400, "INVALID_FIELD")
    assert set(violations(body)) == set(params)
    file, wrong = await mixed_up(admin)
    file_id = await refused(client, file.content, **wrong)
    body = expect_error(await retried(client, file_id, on_conflict="KEEP"), 400, "INVALID_FIELD")
    assert set(violations(body)) == {"on_conflict"}
    expect_error(await retried(client, file_id, patient_id=str(uuid.uuid4())), 404, "PATIENT_NOT_FOUND")
    expect_error(await retried(client, file_id, remove="StudyInstanceUID"), 400, "EDIT_REFUSED")
    assert (await entry(client, file_id))["state"] == "quarantined"


async def test_the_ledger_tells_of_refused_files(client: Client, admin: Client, stack: Stack) -> None:
    """One row for each upload that was refused, quarantined, with the digest of what came and the reason."""
    file, params = await mixed_up(admin)
    for _ in range(2):
        await refused(client, file.content, **params)
    connection = await asyncpg.connect(stack.database_url, timeout=5)
    try:
        rows = await connection.fetch(
            "SELECT source_sha256, error, upload_log_id FROM dicom_upload_files"
            " WHERE state = 'quarantined' AND sop_instance_uid = $1",
            file.sop_uid,
        )
    finally:
        await connection.close(timeout=5)
    assert [tuple(row) for row in rows] == [(hashlib.sha256(file.content).hexdigest(), "PATIENT_MISMATCH", None)] * 2
