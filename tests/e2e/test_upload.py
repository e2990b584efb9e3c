"""Uploads through Envoy: what is stored, under whom, and what the log says of it."""

import asyncio
import io
import uuid
from collections.abc import AsyncIterator

import httpx
import pytest
from pydicom import FileDataset, dcmread

from deploy.local.stack import Stack
from tests.e2e.client import API, REGISTRY, Client, expect_error, form
from tests.files import fresh_file, sample_bytes


async def test_a_file_is_stored_logged_and_found_under_its_patient(client: Client, admin: Client) -> None:
    """A file whose PatientID is a registered MRN lands under that patient and its order, with a log of it."""
    file = fresh_file(AccessionNumber=(number := uuid.uuid4().hex[:16]))
    patient = await admin.register_patient(file.patient_id)
    order_id = await admin.register_order(patient, number)

    result = await client.stored(file)
    assert result["success"] is True
    assert result["status"] == "stored"
    assert result["study_uid"] == file.study_uid
    assert result["sop_instance_uid"] == file.sop_uid
    assert result["filename"] == "x.dcm"
    assert result["patient_id"] == patient.id
    assert result["order_id"] == order_id
    assert result["tags"]["PatientID"] == file.patient_id
    assert result["tags"]["Modality"] == "CT"
    assert result["orthanc_id"]

    log = await client.get(f"{API}/upload-logs/{result['upload_log_id']}")
    log = log["upload_log"]
    assert log["upload_status"] == "success"
    assert log["number_of_files"] == 1
    assert int(log["total_size_bytes"]) > 30_000
    assert log["patient_id"] == patient.id
    assert log["order_id"] == order_id
    assert log["uploaded_by"] == "Dr Rita Reads"
    assert log["upload_source"] == "manual"
    assert log["tags_modified"] is False
    assert log["error_message"] == ""

    order = (await client.get(f"{REGISTRY}/orders/{order_id}"))["order"]
    assert order["study_instance_uid"] == file.study_uid
    assert order["number_of_series"] == 1
    assert order["number_of_images"] == 1

    study = (await client.get(f"{API}/studies/{file.study_uid}"))["study"]
    assert study["patient_id"] == patient.id
    assert study["order_id"] == order_id
    assert study["NumberOfInstances"] == 1


async def test_a_raw_body_is_stored_as_a_form_is(client: Client) -> None:
    """A body of application/dicom is the file itself."""
    file = fresh_file()
    answer = await client.send(
        "POST", f"{API}/upload", content=file.content, headers={"content-type": "application/dicom"}
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["study_uid"] == file.study_uid


async def test_the_same_file_again_changes_nothing(client: Client) -> None:
    """A file that is sent twice is stored and counted once."""
    file = fresh_file()
    first = await client.stored(file)
    second = await client.stored(file)
    assert (first["status"], second["status"]) == ("stored", "already_stored")
    assert first["orthanc_id"] == second["orthanc_id"]
    assert (await client.log(file.study_uid))["number_of_files"] == 1


async def test_the_same_instance_with_other_content_is_refused(client: Client) -> None:
    """What the PACS holds is never overwritten in silence."""
    file = fresh_file()
    await client.stored(file)
    expect_error(await client.upload(file.content, StudyDescription="Other"), 409, "INSTANCE_CONFLICT")
    log = await client.log(file.study_uid)
    assert log["number_of_files"] == 1
    study = (await client.get(f"{API}/studies/{file.study_uid}"))["study"]
    assert study["StudyDescription"] != "Other"


async def test_what_to_do_in_a_conflict_is_the_callers_choice(client: Client, stack: Stack) -> None:
    """KEEP answers with what is stored; OVERWRITE replaces it, for those who may delete, and the log counts it once."""
    file = fresh_file(StudyDescription="First")
    await client.stored(file)
    kept = await client.stored(file, StudyDescription="Other", on_conflict="KEEP")
    assert (kept["success"], kept["status"], kept["tags"]["StudyDescription"]) == (True, "kept", "First")
    technologist = client.with_token(stack.token(role="technologist"))
    refused = await technologist.upload(file.content, StudyDescription="Other", on_conflict="OVERWRITE")
    expect_error(refused, 403, "ROLE_NOT_ALLOWED")
    stored = await client.stored(file, StudyDescription="Other", on_conflict="OVERWRITE")
    assert (stored["status"], stored["tags"]["StudyDescription"]) == ("stored", "Other")
    study = (await client.get(f"{API}/studies/{file.study_uid}"))["study"]
    assert (study["StudyDescription"], study["NumberOfInstances"]) == ("Other", 1)
    log = await client.log(file.study_uid)
    assert (log["upload_status"], log["number_of_files"]) == ("success", 1)
    again = await client.stored(file, StudyDescription="Other")
    assert again["status"] == "already_stored"


async def test_a_request_with_a_key_is_replayed_or_refused(client: Client) -> None:
    """Idempotency-Key: the same again is given the first answer, another file or option under it is refused."""
    file, other = fresh_file(), fresh_file()
    key = {"Idempotency-Key": str(uuid.uuid4())}

    async def send(content: bytes, **params: str) -> httpx.Response:
        return await client.send("POST", f"{API}/upload", params=params, files=form(("x.dcm", content)), headers=key)

    first, second = await send(file.content), await send(file.content)
    assert (first.status_code, first.json()["status"]) == (200, "stored")
    assert second.json() == first.json()
    expect_error(await send(other.content), 409, "REQUEST_ID_REUSED")
    expect_error(await send(file.content, StudyDescription="Other"), 409, "REQUEST_ID_REUSED")
    assert not await client.in_pacs(other.study_uid)


async def test_the_same_file_at_the_same_moment_is_stored_once(client: Client) -> None:
    """Of fifty uploads of one file at once, one stores it and all others are told that it is there."""
    file = fresh_file()
    results = await asyncio.gather(*(client.stored(file) for _ in range(50)))
    assert sorted(result["status"] for result in results) == ["already_stored"] * 49 + ["stored"]
    assert len({result["orthanc_id"] for result in results}) == 1
    log = await client.log(file.study_uid)
    assert (log["upload_status"], log["number_of_files"]) == ("success", 1)


async def test_a_further_file_adds_to_the_log_of_its_study(client: Client) -> None:
    """A study has one log, however many uploads it takes."""
    first = fresh_file()
    second = fresh_file(like=first)
    one, two = await client.stored(first), await client.stored(second)
    assert one["upload_log_id"] == two["upload_log_id"]
    assert (await client.log(first.study_uid))["number_of_files"] == 2


async def test_an_unknown_patient_becomes_a_provisional_one(client: Client, admin: Client) -> None:
    """A file of a patient the RIS has not told of makes one, who takes on the RIS's id when it does."""
    file = fresh_file()
    result = await client.stored(file)
    (patient,) = (await client.get(f"{REGISTRY}/patients", params={"mrn": file.patient_id}))["patients"]
    assert patient["is_provisional"] is True
    assert patient["id"] == result["patient_id"]

    told = await admin.register_patient(file.patient_id)
    (patient,) = (await client.get(f"{REGISTRY}/patients", params={"mrn": file.patient_id}))["patients"]
    assert patient["id"] == told.id
    assert patient["is_provisional"] is False
    assert (await client.log(file.study_uid))["patient_id"] == told.id


async def test_another_patients_file_is_refused(client: Client, admin: Client) -> None:
    """With patient_id, a file whose PatientID is another's is not stored (REQUIRE, the default)."""
    file = fresh_file()
    patient = await admin.register_patient(f"M-{uuid.uuid4().hex[:12]}")
    body = expect_error(await client.upload(file.content, patient_id=patient.id), 400, "PATIENT_MISMATCH")
    assert file.patient_id not in str(body)
    assert not await client.in_pacs(file.study_uid)
    assert await client.log(file.study_uid) is None


async def held_in_pacs(stack: Stack, orthanc_id: str) -> FileDataset:
    """The file as Orthanc holds it."""
    auth = (stack.orthanc.username, stack.orthanc.password)
    async with httpx.AsyncClient(base_url=stack.orthanc.url, auth=auth) as orthanc:
        answer = (await orthanc.get(f"/instances/{orthanc_id}/file")).raise_for_status()
    return dcmread(io.BytesIO(answer.content))


async def test_an_edit_on_the_way_in_is_recorded_when_asked(client: Client, stack: Stack) -> None:
    """record_original keeps in the file what an upload's edits replace, with the reason CORRECT."""
    file = fresh_file()
    plain = await client.stored(fresh_file(), StudyDescription="Chest")
    result = await client.stored(file, StudyDescription="Chest", record_original="true")
    (record,) = (await held_in_pacs(stack, result["orthanc_id"])).OriginalAttributesSequence
    assert record.ReasonForTheAttributeModification == "CORRECT"
    assert "OriginalAttributesSequence" not in await held_in_pacs(stack, plain["orthanc_id"])


async def test_coercion_rewrites_the_patient_and_keeps_the_original(
    client: Client, admin: Client, stack: Stack
) -> None:
    """COERCE stores the file as the RIS's patient; the log and the file itself say whose it was. The same file coerced
    again is already stored, though it would say another time.
    """
    file = fresh_file(PatientName="Wrong^Name", PatientBirthDate="19500101", PatientSex="M")
    mrn = f"M-{uuid.uuid4().hex[:12]}"
    patient = await admin.register_patient(mrn, "Räder^Åsa", birth_date="1980-02-29", sex="F")
    result = await client.stored(file, patient_id=patient.id, patient_match="COERCE")
    tags = result["tags"]
    assert (tags["PatientID"], tags["PatientName"]) == (mrn, "Räder^Åsa")
    assert (tags["PatientBirthDate"], tags["PatientSex"]) == ("19800229", "F")
    held = await held_in_pacs(stack, result["orthanc_id"])
    (record,) = held.OriginalAttributesSequence
    assert record.ReasonForTheAttributeModification == "COERCE"
    assert record.ModifiedAttributesSequence[0].PatientID == file.patient_id
    assert record.ModifiedAttributesSequence[0].PatientName == "Wrong^Name"
    again = await client.stored(file, patient_id=patient.id, patient_match="COERCE")
    assert (again["status"], again["orthanc_id"]) == ("already_stored", result["orthanc_id"])
    assert await held_in_pacs(stack, result["orthanc_id"]) == held
    log = await client.log(file.study_uid)
    assert (log["original_patient_id"], log["original_patient_name"]) == (file.patient_id, "Wrong^Name")
    assert (log["modified_patient_id"], log["modified_patient_name"]) == (mrn, "Räder^Åsa")
    assert log["tags_modified"] is True
    studies = await client.get(f"{API}/studies/patient/{patient.id}")
    assert [study["StudyInstanceUID"] for study in studies["studies"]] == [file.study_uid]


async def test_accept_stores_the_file_as_it_is(client: Client, admin: Client) -> None:
    """ACCEPT puts a file under the named patient without touching it."""
    file = fresh_file()
    patient = await admin.register_patient(f"M-{uuid.uuid4().hex[:12]}")
    result = await client.stored(file, patient_id=patient.id, patient_match="ACCEPT")
    assert result["tags"]["PatientID"] == file.patient_id
    assert (await client.log(file.study_uid))["patient_id"] == patient.id


async def test_an_order_of_another_patient_is_refused(client: Client, admin: Client) -> None:
    """Neither a given order nor one found by AccessionNumber may be another patient's."""
    number = uuid.uuid4().hex[:16]
    other = await admin.register_patient(f"M-{uuid.uuid4().hex[:12]}")
    order_id = await admin.register_order(other, number)
    file = fresh_file()
    patient = await admin.register_patient(file.patient_id)
    by_id = await client.upload(file.content, patient_id=patient.id, order_id=order_id)
    expect_error(by_id, 400, "ORDER_PATIENT_MISMATCH")
    expect_error(await client.upload(file.content, order_id=order_id), 400, "ORDER_PATIENT_MISMATCH")
    expect_error(await client.upload(file.content, AccessionNumber=number), 400, "ORDER_PATIENT_MISMATCH")
    assert not await client.in_pacs(file.study_uid)


async def test_a_study_of_one_patient_takes_no_file_of_another(client: Client, admin: Client) -> None:
    """A further file of a study is refused where it would come under another patient."""
    first = fresh_file()
    await client.stored(first)
    other = fresh_file(StudyInstanceUID=first.study_uid)
    expect_error(await client.upload(other.content), 400, "STUDY_PATIENT_MISMATCH")
    patient = await admin.register_patient(f"M-{uuid.uuid4().hex[:12]}")
    more = fresh_file(like=first)
    answer = await client.upload(more.content, patient_id=patient.id, patient_match="COERCE")
    expect_error(answer, 400, "STUDY_PATIENT_MISMATCH")


async def test_edits_are_made_before_storing(client: Client) -> None:
    """The edits of modify-tags hold for uploads too."""
    file = fresh_file()
    answer = await client.upload(
        file.content, "y.dcm", StudyDescription="Edited", set="StationName=ROOM1", remove_private_tags="true"
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["tags"]["StudyDescription"] == "Edited"
    log = await client.log(file.study_uid)
    assert log["tags_modified"] is True


async def test_each_of_many_files_gets_its_own_answer(client: Client) -> None:
    """One bad file among many fails alone; the answers come in the order of the files."""
    good, other = fresh_file(), fresh_file("MR_small.dcm")
    cut = fresh_file(like=good)
    files = form(
        ("a.dcm", good.content),
        ("notes.txt", b"Dear colleague"),
        ("empty.dcm", b""),
        ("cut.dcm", cut.content[:-1000]),
        ("b.dcm", other.content),
        field="files",
    )
    answer = await client.send("POST", f"{API}/upload-multiple", files=files)
    assert answer.status_code == 200, answer.text
    results = answer.json()
    assert [result["filename"] for result in results] == ["a.dcm", "notes.txt", "empty.dcm", "cut.dcm", "b.dcm"]
    reasons = [result["error"]["reason"] if "error" in result else "" for result in results]
    assert reasons == ["", "NOT_DICOM", "EMPTY_FILE", "TRUNCATED_FILE", ""]
    assert [result["success"] for result in results] == [True, False, False, False, True]
    log = await client.log(good.study_uid)
    assert log["upload_status"] == "partial"
    assert log["number_of_files"] == 1
    assert "TRUNCATED_FILE" in log["error_message"]
    assert (await client.log(other.study_uid))["upload_status"] == "success"

    mended = await client.upload(cut.content)
    assert mended.status_code == 200
    log = await client.log(good.study_uid)
    assert (log["upload_status"], log["number_of_files"]) == ("success", 2)


async def test_uploads_of_one_study_at_the_same_moment_are_all_counted(client: Client) -> None:
    """Eight callers who add to one study at once lose nothing of each other."""
    first = fresh_file()
    files = [first, *(fresh_file(like=first) for _ in range(7))]
    results = await asyncio.gather(*(client.stored(file) for file in files))
    assert {result["upload_log_id"] for result in results} == {results[0]["upload_log_id"]}
    log = await client.log(first.study_uid)
    assert (log["upload_status"], log["number_of_files"]) == ("success", 8)
    assert (await client.get(f"{API}/studies/{first.study_uid}"))["study"]["NumberOfInstances"] == 8


@pytest.mark.parametrize(
    ("name", "content", "status", "reason"),
    [
        ("empty.dcm", b"", 400, "EMPTY_FILE"),
        ("text.dcm", b"Dear colleague, " * 100, 400, "NOT_DICOM"),
        ("zeros.dcm", bytes(5000), 400, "NOT_DICOM"),
        ("picture.dcm", b"\x89PNG\r\n\x1a\n" + bytes(300), 400, "NOT_DICOM"),
        ("cut.dcm", sample_bytes("CT_small.dcm")[:-1], 400, "TRUNCATED_FILE"),
    ],
)
async def test_what_is_no_whole_dicom_file_is_refused(
    client: Client, name: str, content: bytes, status: int, reason: str
) -> None:
    """A file that is empty, no DICOM or cut short is an error with its reason, and nothing is stored."""
    expect_error(await client.upload(content, name), status, reason)


async def test_a_cut_file_leaves_nothing_in_the_pacs(client: Client) -> None:
    """The first file of a study that is cut short leaves a log that says failed, and no study."""
    file = fresh_file()
    expect_error(await client.upload(file.content[:-2000]), 400, "TRUNCATED_FILE")
    assert not await client.in_pacs(file.study_uid)
    log = await client.log(file.study_uid)
    assert (log["upload_status"], log["number_of_files"]) == ("failed", 0)


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
async def test_a_file_without_identifiers_is_refused(client: Client, keyword: str) -> None:
    """Without its UIDs a file cannot be stored, and the error says which one is missing."""
    file = fresh_file(**{keyword: ""})
    body = expect_error(await client.upload(file.content), 400, "IDENTIFIER_MISSING")
    assert keyword in body["message"]


async def test_a_file_without_patient_id_needs_a_named_patient(client: Client, admin: Client) -> None:
    """A file without PatientID is refused, and stored once its patient is named with COERCE."""
    file = fresh_file(PatientID="")
    expect_error(await client.upload(file.content), 400, "PATIENT_ID_MISSING")
    patient = await admin.register_patient(f"M-{uuid.uuid4().hex[:12]}")
    expect_error(await client.upload(file.content, patient_id=patient.id), 400, "PATIENT_MISMATCH")
    await client.stored(file, patient_id=patient.id, patient_match="COERCE")


async def test_unknown_patients_can_be_refused(stack: Stack, client: Client) -> None:
    """With UNKNOWN_PATIENTS=reject a file of an unknown patient is not stored."""
    file = fresh_file()
    await stack.restart("pacs_gateway", UNKNOWN_PATIENTS="reject")
    try:
        expect_error(await client.upload(file.content), 400, "PATIENT_UNKNOWN")
        assert not await client.in_pacs(file.study_uid)
    finally:
        await stack.restart("pacs_gateway", UNKNOWN_PATIENTS="create")


async def test_a_caller_who_goes_away_leaves_nothing_stored(client: Client, stack: Stack) -> None:
    """An upload that the caller breaks off is not stored, and the log does not say that it was."""
    file = fresh_file()

    async def half() -> object:
        yield file.content[:20_000]
        await asyncio.sleep(30)

    headers = {"Authorization": f"Bearer {client.token}", "content-type": "application/dicom"}
    async with httpx.AsyncClient(base_url=stack.base_url) as http:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await http.post(f"{API}/upload", content=half(), headers=headers)
    for _ in range(50):
        log = await client.log(file.study_uid)
        if log is not None and log["upload_status"] == "failed":
            break
        await asyncio.sleep(0.2)
    assert log["upload_status"] == "failed"
    assert log["number_of_files"] == 0
    assert not await client.in_pacs(file.study_uid)


async def test_a_slow_sender_is_waited_for(client: Client) -> None:
    """A file whose bytes take longer than any idle connection is kept is stored like any other."""
    file = fresh_file()

    async def slowly() -> AsyncIterator[bytes]:
        step = len(file.content) // 5
        for start in range(0, len(file.content), step):
            yield file.content[start : start + step]
            await asyncio.sleep(1)

    headers = {"content-type": "application/dicom"}
    answer = await client.send("POST", f"{API}/upload", content=slowly(), headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "stored"
    assert await client.in_pacs(file.study_uid)
