"""Studies through Envoy: found, shown and deleted, exactly the ones that were meant."""

import io
import uuid

from pydicom import dcmread

from deploy.local.stack import Stack
from tests.e2e.client import API, REGISTRY, Client, expect_error
from tests.files import fresh_file

PNG = b"\x89PNG\r\n\x1a\n"


async def test_a_study_is_got_with_its_series_and_counts(client: Client) -> None:
    """A study shows its attributes, its series and how much it holds."""
    first = fresh_file(StudyDescription="Thorax", SeriesDescription="Soft tissue", SeriesNumber=3)
    second = fresh_file(like=first, SeriesNumber=3)
    third = fresh_file("MR_small.dcm", like=first)
    other_series = fresh_file("MR_small.dcm", like=first, SeriesInstanceUID=f"{third.series_uid[:-2]}7", SeriesNumber=1)
    for file in (first, second, other_series):
        await client.stored(file, StudyDescription="Thorax", StudyDate="20200131")
    study = (await client.get(f"{API}/studies/{first.study_uid}"))["study"]
    assert study["StudyInstanceUID"] == first.study_uid
    assert study["StudyDescription"] == "Thorax"
    assert study["StudyDate"] == "20200131"
    assert study["NumberOfSeries"] == 2
    assert study["NumberOfInstances"] == 3
    assert study["ModalitiesInStudy"] == ["CT", "MR"]
    assert [series["SeriesNumber"] for series in study["series"]] == ["1", "3"]
    assert [series["NumberOfInstances"] for series in study["series"]] == [1, 2]
    assert study["series"][1]["SeriesDescription"] == "Soft tissue"


async def test_studies_are_listed_in_pages(client: Client) -> None:
    """The pages of a list hold every study once, newest first, and say how many there are."""
    patient = f"P-{uuid.uuid4().hex[:12]}"
    days = ["20210101", "20210103", "20210102", "20210105", "20210104"]
    files = [fresh_file(PatientID=patient, StudyDate=day) for day in days]
    for file in files:
        await client.stored(file)
    found, token = [], ""
    while True:
        page = await client.get(f"{API}/studies", params={"PatientID": patient, "limit": 2, "page_token": token})
        assert page["total_size"] == 5
        assert len(page["studies"]) <= 2
        found += page["studies"]
        token = page["next_page_token"]
        if not token:
            break
    assert [study["StudyDate"] for study in found] == sorted(days, reverse=True)
    assert {study["StudyInstanceUID"] for study in found} == {file.study_uid for file in files}
    assert all(study["NumberOfInstances"] == 1 and study["Modality"] == "CT" for study in found)

    ascending = await client.get(f"{API}/studies", params={"PatientID": patient, "order_by": "StudyDate"})
    assert [study["StudyDate"] for study in ascending["studies"]] == sorted(days)
    span = {"PatientID": patient, "study_date_from": "20210102", "study_date_until": "20210103"}
    assert (await client.get(f"{API}/studies", params=span))["total_size"] == 2


async def test_a_list_of_too_many_studies_is_an_error(client: Client, stack: Stack) -> None:
    """A list that would be cut short says so, and is whole once its filters are narrow enough."""
    patient = f"P-{uuid.uuid4().hex[:12]}"
    for day in ("20210101", "20210102"):
        await client.stored(fresh_file(PatientID=patient, StudyDate=day))
    await stack.restart("pacs_gateway", MAX_STUDIES_LISTED="1")
    try:
        body = expect_error(
            await client.send("GET", f"{API}/studies", params={"PatientID": patient}), 429, "TOO_MANY_STUDIES"
        )
        assert "MAX_STUDIES_LISTED" in body["message"]
        narrow = {"PatientID": patient, "study_date_from": "20210102"}
        assert (await client.get(f"{API}/studies", params=narrow))["total_size"] == 1
    finally:
        await stack.restart("pacs_gateway", MAX_STUDIES_LISTED="20000")


async def test_a_page_token_is_good_for_its_own_question_only(client: Client) -> None:
    """A token of one list is refused by another."""
    patient = f"P-{uuid.uuid4().hex[:12]}"
    for _ in range(2):
        await client.stored(fresh_file(PatientID=patient))
    page = await client.get(f"{API}/studies", params={"PatientID": patient, "limit": 1})
    token = page["next_page_token"]
    answer = await client.send("GET", f"{API}/studies", params={"limit": 1, "page_token": token})
    expect_error(answer, 400, "INVALID_FIELD")
    answer = await client.send("GET", f"{API}/upload-logs", params={"limit": 1, "page_token": token})
    expect_error(answer, 400, "INVALID_FIELD")


async def test_identifiers_are_compared_exactly(client: Client) -> None:
    """Neither another case nor a longer identifier is the one that was asked for."""
    stem = f"ab{uuid.uuid4().hex[:8]}"
    for patient in (stem, f"{stem}1", stem.upper()):
        await client.stored(fresh_file(PatientID=patient))
    found = await client.get(f"{API}/studies", params={"PatientID": stem})
    assert [study["PatientID"] for study in found["studies"]] == [stem]
    number = uuid.uuid4().hex[:8]
    file = fresh_file(AccessionNumber=number)
    await client.stored(file)
    await client.stored(fresh_file(AccessionNumber=f"{number}2"))
    study = (await client.get(f"{API}/studies/accession/{number}"))["study"]
    assert study["StudyInstanceUID"] == file.study_uid
    expect_error(await client.send("GET", f"{API}/studies/accession/{number[:-1]}"), 404, "STUDY_NOT_FOUND")


async def test_an_accession_number_of_two_studies_is_ambiguous(client: Client) -> None:
    """Two studies with one accession number are an error, not the first of them."""
    number = uuid.uuid4().hex[:16]
    for _ in range(2):
        await client.stored(fresh_file(AccessionNumber=number))
    expect_error(await client.send("GET", f"{API}/studies/accession/{number}"), 400, "STUDY_AMBIGUOUS")


async def test_a_patients_studies_are_found_by_the_mrn(client: Client, admin: Client) -> None:
    """A patient of the RIS has the studies with the MRN as PatientID; a patient without studies has an empty list."""
    file = fresh_file()
    patient = await admin.register_patient(file.patient_id, "Muster^Maria")
    empty = await client.get(f"{API}/studies/patient/{patient.id}")
    assert (empty["studies"], empty["total_size"], empty["next_page_token"]) == ([], 0, "")
    await client.stored(file)
    (study,) = (await client.get(f"{API}/studies/patient/{patient.id}"))["studies"]
    assert study["StudyInstanceUID"] == file.study_uid
    assert study["patient_full_name"] == "Muster^Maria"
    answer = await client.send("GET", f"{API}/studies/patient/{uuid.uuid4()}")
    expect_error(answer, 404, "PATIENT_NOT_FOUND")


async def test_what_is_not_there_is_not_found(client: Client) -> None:
    """A study that there is not is an error that names it, wherever it is asked for."""
    uid = fresh_file().study_uid
    for method, path in [
        ("GET", f"studies/{uid}"),
        ("GET", f"thumbnail/{uid}"),
        ("DELETE", f"studies/{uid}?reason=wrong"),
    ]:
        body = expect_error(await client.send(method, f"{API}/{path}"), 404, "STUDY_NOT_FOUND")
        assert uid in str(body["details"])
    answer = await client.send("GET", f"{API}/upload-logs/{uuid.uuid4()}")
    expect_error(answer, 404, "UPLOAD_LOG_NOT_FOUND")


async def test_a_deleted_study_is_gone_and_leaves_a_trace(client: Client, admin: Client) -> None:
    """Who deleted a study, when and why is kept, its order is free again, and a second deletion finds nothing."""
    file = fresh_file(AccessionNumber=(number := uuid.uuid4().hex[:16]))
    patient = await admin.register_patient(file.patient_id)
    order_id = await admin.register_order(patient, number)
    await client.stored(file)

    answer = await client.send("DELETE", f"{API}/studies/{file.study_uid}", params={"reason": "Wrong patient"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["reason"] == "Wrong patient"
    assert answer.json()["message"]
    assert not await client.in_pacs(file.study_uid)
    log = await client.log(file.study_uid)
    assert log["is_deleted"] is True
    assert (log["deleted_by"], log["deletion_reason"]) == ("Dr Rita Reads", "Wrong patient")
    assert log["deleted_at"].endswith("Z")
    order = (await client.get(f"{REGISTRY}/orders/{order_id}"))["order"]
    assert order["study_instance_uid"] == ""
    assert order["number_of_images"] == 0

    answer = await client.send("DELETE", f"{API}/studies/{file.study_uid}", params={"reason": "Again"})
    expect_error(answer, 404, "STUDY_NOT_FOUND")

    await client.stored(file)
    log = await client.log(file.study_uid)
    assert (log["is_deleted"], log["number_of_files"], log["upload_status"]) == (False, 1, "success")
    order = (await client.get(f"{REGISTRY}/orders/{order_id}"))["order"]
    assert order["study_instance_uid"] == file.study_uid


async def test_a_study_deleted_from_the_wrong_patient_can_go_to_the_right_one(client: Client, admin: Client) -> None:
    """After a deletion, an upload may put the study under another patient."""
    file = fresh_file()
    wrong = await admin.register_patient(file.patient_id)
    right = await admin.register_patient(f"M-{uuid.uuid4().hex[:12]}")
    await client.stored(file, patient_id=wrong.id)
    answer = await client.send("DELETE", f"{API}/studies/{file.study_uid}", params={"reason": "Wrong patient"})
    assert answer.status_code == 200
    result = await client.stored(file, patient_id=right.id, patient_match="COERCE")
    assert result["patient_id"] == right.id
    assert (await client.log(file.study_uid))["patient_id"] == right.id


async def test_a_thumbnail_is_a_png_with_an_etag(client: Client) -> None:
    """A CT study has a picture, and a caller that has it already does not get it again."""
    file = fresh_file()
    await client.stored(file)
    answer = await client.send("GET", f"{API}/thumbnail/{file.study_uid}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    assert answer.content.startswith(PNG)
    etag = answer.headers["etag"]
    again = await client.send("GET", f"{API}/thumbnail/{file.study_uid}", headers={"if-none-match": etag})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == etag
    other = await client.send("GET", f"{API}/thumbnail/{file.study_uid}", headers={"if-none-match": '"other"'})
    assert other.status_code == 200


async def test_a_thumbnail_is_that_of_what_the_pacs_holds(client: Client) -> None:
    """However often it was asked for: what was overwritten has another picture, what was deleted has none."""
    file = fresh_file()
    pixels = dcmread(io.BytesIO(file.content)).PixelData
    other = file.content.replace(pixels, pixels[::-1])
    await client.stored(file)
    path = f"{API}/thumbnail/{file.study_uid}"
    first = await client.send("GET", path)
    assert (await client.send("GET", path)).content == first.content
    await client.upload(other, on_conflict="OVERWRITE")
    second = await client.send("GET", path, headers={"if-none-match": first.headers["etag"]})
    assert second.status_code == 200
    assert second.content != first.content
    assert (await client.send("GET", path)).content == second.content
    await client.send("DELETE", f"{API}/studies/{file.study_uid}", params={"reason": "a test"})
    expect_error(await client.send("GET", path), 404, "STUDY_NOT_FOUND")


async def test_a_study_without_pictures_has_no_thumbnail(client: Client) -> None:
    """Where nothing can be shown, that is an error of its own, not a broken picture."""
    file = fresh_file("reportsi.dcm")
    await client.stored(file)
    answer = await client.send("GET", f"{API}/thumbnail/{file.study_uid}")
    expect_error(answer, 404, "THUMBNAIL_NOT_AVAILABLE")


async def test_the_picture_is_of_the_first_series_that_can_be_shown(client: Client) -> None:
    """A report before the images does not keep the study from having a picture."""
    report = fresh_file("reportsi.dcm", SeriesNumber=1)
    image = fresh_file(PatientID=report.patient_id, StudyInstanceUID=report.study_uid, SeriesNumber=2)
    await client.stored(report)
    await client.stored(image)
    answer = await client.send("GET", f"{API}/thumbnail/{report.study_uid}")
    assert answer.status_code == 200, answer.text
    assert answer.content.startswith(PNG)


async def test_upload_logs_are_listed_newest_first_and_filtered(client: Client, admin: Client) -> None:
    """Logs are found by patient, study, status and time, in pages."""
    patient = await admin.register_patient(f"M-{uuid.uuid4().hex[:12]}")
    files = [fresh_file(PatientID=patient.mrn) for _ in range(3)]
    for file in files:
        await client.stored(file)
    cut = fresh_file(PatientID=patient.mrn)
    await client.upload(cut.content[:-100])
    params = {"patient_id": patient.id, "limit": 2}
    page = await client.get(f"{API}/upload-logs", params=params)
    assert page["total_size"] == 4
    rest = await client.get(f"{API}/upload-logs", params=params | {"page_token": page["next_page_token"]})
    logs = page["upload_logs"] + rest["upload_logs"]
    assert rest["next_page_token"] == ""
    assert [log["study_instance_uid"] for log in logs] == [file.study_uid for file in reversed([*files, cut])]
    failed = await client.get(f"{API}/upload-logs", params=params | {"upload_status": "failed"})
    assert [log["study_instance_uid"] for log in failed["upload_logs"]] == [cut.study_uid]
    since = await client.get(f"{API}/upload-logs", params=params | {"uploaded_from": logs[1]["uploaded_at"]})
    assert since["total_size"] == 2
    before = await client.get(f"{API}/upload-logs", params=params | {"uploaded_until": logs[1]["uploaded_at"]})
    assert before["total_size"] == 2


async def test_what_orthanc_holds_is_what_was_sent(client: Client, stack: Stack) -> None:
    """A stored file has the pixels and the attributes of the file that was sent."""
    file = fresh_file()
    result = await client.stored(file)
    auth = (stack.orthanc.username, stack.orthanc.password)
    url = f"{stack.orthanc.url}/instances/{result['orthanc_id']}/file"
    held = dcmread(io.BytesIO((await client.http.get(url, auth=auth)).content))
    sent = dcmread(io.BytesIO(file.content))
    # Group lengths are the one thing that storing leaves out.
    assert [element for element in held if element.tag.element] == [element for element in sent if element.tag.element]
