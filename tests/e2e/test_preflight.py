"""Preflight through Envoy: what it says is what the upload comes to, with every real part."""

import uuid

import httpx

from deploy.local.stack import Stack
from tests.e2e.client import API, Client, expect_error, form
from tests.files import fresh_file


async def preflight(client: Client, *contents: bytes, **params: str) -> httpx.Response:
    """The answer to a preflight of these files."""
    files = form(*((f"{number}.dcm", content) for number, content in enumerate(contents)))
    return await client.send("POST", f"{API}/preflight", params=params, files=files)


async def test_a_preflight_stores_nothing_and_the_upload_comes_to_what_it_said(client: Client, admin: Client) -> None:
    """Matches, changes and refusals of several files, against a patient and an order of the RIS."""
    number = uuid.uuid4().hex[:16]
    mine, other = fresh_file(AccessionNumber=number), fresh_file()
    patient = await admin.register_patient(mine.patient_id, "CompressedSamples^CT1", sex="O", birth_date="1980-02-29")
    order_id = await admin.register_order(patient, number)
    answer = await preflight(client, mine.content, other.content, b"a text", patient_id=patient.id)
    assert answer.status_code == 200, answer.text
    first, second, third = answer.json()

    assert (first["status"], first["filename"], first["instance_is_stored"]) == ("acceptable", "0.dcm", False)
    assert (first["patient_id"], first["order_id"]) == (patient.id, order_id)
    assert {one["keyword"]: one["result"] for one in first["matches"]} == {
        "PatientID": "MATCH",
        "PatientName": "MATCH",
        "PatientBirthDate": "UNKNOWN",
        "PatientSex": "MATCH",
        "AccessionNumber": "MATCH",
        "Modality": "MATCH",
    }
    assert (second["status"], second["error"]["reason"]) == ("refused", "PATIENT_MISMATCH")
    assert (third["status"], third["error"]["reason"]) == ("refused", "NOT_DICOM")
    for file in (mine, other):
        assert not await client.in_pacs(file.study_uid)
        assert await client.log(file.study_uid) is None

    expect_error(await client.upload(other.content, patient_id=patient.id), 400, "PATIENT_MISMATCH")
    await client.stored(mine, patient_id=patient.id)
    (again,) = (await preflight(client, mine.content, patient_id=patient.id)).json()
    assert (again["status"], again["instance_is_stored"]) == ("acceptable", True)


async def test_the_header_is_enough(client: Client, admin: Client) -> None:
    """Files that are cut off behind the header are foreseen, with coercion too, though an upload would refuse them."""
    file = fresh_file()
    patient = await admin.register_patient(f"P{file.patient_id}", "Muster^Maria")
    beginning = file.content[: len(file.content) // 2]
    for params in ({}, {"patient_id": patient.id, "patient_match": "COERCE"}):
        (one,) = (await preflight(client, beginning, **params)).json()
        assert one["status"] == "acceptable", one
    changed = {change["keyword"]: change for change in one["changes"]}
    assert (changed["PatientID"]["before"], changed["PatientID"]["after"]) == (file.patient_id, patient.mrn)
    assert changed["PatientID"]["is_changed"] is True
    assert one["tags"]["PatientName"] == "Muster^Maria"
    expect_error(await client.upload(beginning), 400, "TRUNCATED_FILE")


async def test_edits_are_judged_as_the_upload_judges_them(client: Client) -> None:
    """An edit that is refused is the file's error, with the same reason."""
    file = fresh_file()
    (one,) = (await preflight(client, file.content, remove="StudyInstanceUID")).json()
    assert (one["status"], one["error"]["reason"]) == ("refused", "EDIT_REFUSED")
    expect_error(await client.upload(file.content, remove="StudyInstanceUID"), 400, "EDIT_REFUSED")


async def test_who_may_not_upload_may_not_ask(client: Client, stack: Stack) -> None:
    """A preflight tells what the RIS knows of patients: its roles are those of the upload."""
    viewer = client.with_token(stack.token(role="viewer"))
    expect_error(await preflight(viewer, fresh_file().content), 403, "ROLE_NOT_ALLOWED")
