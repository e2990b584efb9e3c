"""Requests that are wrong in themselves: each gets one clear error, over JSON with the right HTTP status."""

import asyncio
import uuid

import pytest

from deploy.local.stack import Stack
from tests.e2e.client import API, REGISTRY, Client, expect_error, form, violations
from tests.files import fresh_file

MIB = 1024 * 1024
UPLOADS = ["upload", "upload-multiple", "read-tags", "read-all-tags", "modify-tags", "deidentify", "validate"]


def big_file(size: int) -> bytes:
    """A DICOM file of at least that many bytes."""
    return fresh_file(PixelData=bytes(size)).content


@pytest.mark.parametrize("method", UPLOADS)
async def test_a_body_without_a_file_field_is_refused(client: Client, method: str) -> None:
    """A form without the field `file`, an empty form, and no body at all hold no file."""
    path = f"{API}/{method}"
    other = [("other", ("x.dcm", b"abc", "application/dicom"))]
    expect_error(await client.send("POST", path, files=other), 400, "FILE_FIELD_MISSING")
    headers = {"content-type": "multipart/form-data; boundary=xyz"}
    expect_error(await client.send("POST", path, content=b"--xyz--\r\n", headers=headers), 400, "FILE_FIELD_MISSING")
    expect_error(await client.send("POST", path, content=b"", headers=headers), 400, "FILE_FIELD_MISSING")
    cut = b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc'
    answer = await client.send("POST", path, content=cut, headers=headers)
    # Of many files, the one that breaks off has an answer of its own already, so the last answer says it.
    assert answer.status_code == 200 if method == "upload-multiple" else 400, answer.text
    reasons = {"MULTIPART_INVALID"} if method in {"upload-multiple", "validate"} else {"MULTIPART_INVALID", "NOT_DICOM"}
    assert any(reason in answer.text for reason in reasons), answer.text


@pytest.mark.parametrize("method", UPLOADS)
async def test_another_content_type_is_refused(client: Client, method: str) -> None:
    """A body that is neither a form nor DICOM is answered with 415."""
    answer = await client.send("POST", f"{API}/{method}", content=b"{}", headers={"content-type": "application/json"})
    expect_error(answer, 415, "UNSUPPORTED_MEDIA_TYPE")


async def test_an_empty_raw_body_is_an_empty_file(client: Client) -> None:
    """No byte at all is an empty file."""
    headers = {"content-type": "application/dicom"}
    for method in ("upload", "read-tags", "read-all-tags", "modify-tags", "deidentify"):
        expect_error(await client.send("POST", f"{API}/{method}", content=b"", headers=headers), 400, "EMPTY_FILE")


@pytest.mark.parametrize("method", ["upload", "modify-tags", "validate"])
async def test_a_file_over_its_limit_is_refused(client: Client, method: str) -> None:
    """A file larger than MAX_DICOM_FILE_SIZE_MB is answered with 413 and the limit's name, and is not stored."""
    answer = await client.send("POST", f"{API}/{method}", files=form(("big.dcm", big_file(9 * MIB))))
    body = expect_error(answer, 413, "FILE_TOO_LARGE")
    assert "MAX_DICOM_FILE_SIZE_MB" in body["message"]
    assert "8 MiB" in body["message"]


async def test_one_file_over_its_limit_does_not_fail_its_neighbours(client: Client) -> None:
    """Among many files, the one that is too large fails alone."""
    small = fresh_file()
    files = form(("big.dcm", big_file(9 * MIB)), ("small.dcm", small.content), field="files")
    results = (await client.send("POST", f"{API}/upload-multiple", files=files)).json()
    assert [result["status"] for result in results] == ["failed", "stored"]
    assert results[0]["error"]["reason"] == "FILE_TOO_LARGE"
    assert results[0]["error"]["metadata"]["limit"] == "MAX_DICOM_FILE_SIZE_MB"


@pytest.mark.parametrize("method", ["upload", "upload-multiple", "modify-tags"])
async def test_a_request_over_its_limit_is_refused_before_it_is_read(client: Client, method: str) -> None:
    """A request whose Content-Length is over MAX_UPLOAD_SIZE_MB is answered with 413 and the limit's name."""
    files = form(*((f"{n}.dcm", bytes(7 * MIB)) for n in range(4)), field="files")
    body = expect_error(await client.send("POST", f"{API}/{method}", files=files), 413, "UPLOAD_TOO_LARGE")
    assert "MAX_UPLOAD_SIZE_MB" in body["message"]


async def test_two_files_where_one_is_allowed_are_refused(client: Client) -> None:
    """A second file in a request for one is answered with 413, and neither is stored."""
    one, two = fresh_file(), fresh_file()
    files = form(("a.dcm", one.content), ("b.dcm", two.content))
    for method in ("upload", "modify-tags", "validate"):
        expect_error(await client.send("POST", f"{API}/{method}", files=files), 413, "TOO_MANY_FILES")
    assert not await client.in_pacs(one.study_uid)
    assert not await client.in_pacs(two.study_uid)


async def test_more_files_than_the_limit_are_told_in_the_last_answer(client: Client) -> None:
    """From the first file too many on nothing is stored, and the last answer names the limit."""
    first = fresh_file()
    files = [first, *(fresh_file(like=first) for _ in range(20))]
    parts = form(*((f"{n}.dcm", file.content) for n, file in enumerate(files)), field="files")
    results = (await client.send("POST", f"{API}/upload-multiple", files=parts)).json()
    assert [result["status"] for result in results] == ["stored"] * 20 + ["failed"]
    assert results[-1]["error"]["reason"] == "TOO_MANY_FILES"
    assert results[-1]["error"]["metadata"]["limit"] == "MAX_DICOM_FILES_PER_UPLOAD"
    assert (await client.log(first.study_uid))["number_of_files"] == 20


async def test_an_upload_that_stands_still_is_ended(client: Client) -> None:
    """A caller who sends nothing for UPLOAD_IDLE_SECONDS gets an error that says so."""

    async def stalled() -> object:
        yield fresh_file().content[:5000]
        await asyncio.sleep(4)

    headers = {"content-type": "application/dicom"}
    answer = await client.send("POST", f"{API}/validate", content=stalled(), headers=headers)
    expect_error(answer, 504, "UPLOAD_STALLED")


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"patient_id": "42"}, "patient_id"),
        ({"order_id": "not-a-uuid"}, "order_id"),
        ({"upload_source": "fax"}, "upload_source"),
        ({"patient_match": "MAYBE", "patient_id": str(uuid.uuid4())}, "patient_match"),
        ({"patient_match": "COERCE"}, "patient_match"),
        ({"patient_match": "COERCE", "patient_id": str(uuid.uuid4()), "PatientID": "X"}, "PatientID"),
        ({"PatientBirthDate": "31.12.1999"}, "PatientBirthDate"),
        ({"PatientSex": "Q" * 17}, "PatientSex"),
        ({"StudyDate": "20230229"}, "StudyDate"),
        ({"AccessionNumber": "1" * 17}, "AccessionNumber"),
        ({"set": "NoSuchKeyword=1"}, "set[0]"),
        ({"remove": "(gggg,0010)"}, "remove[0]"),
    ],
)
async def test_a_wrong_option_of_an_upload_is_named(client: Client, params: dict[str, str], field: str) -> None:
    """A malformed UUID, word, date or edit is an error that names its field, and nothing is stored."""
    file = fresh_file()
    body = expect_error(await client.upload(file.content, **params), 400, "INVALID_FIELD")
    assert field in violations(body)
    assert not await client.in_pacs(file.study_uid)


async def test_unknown_patients_and_orders_are_not_found(client: Client) -> None:
    """An upload for a patient or an order that there is not stores nothing."""
    file = fresh_file()
    unknown = str(uuid.uuid4())
    body = expect_error(await client.upload(file.content, patient_id=unknown), 404, "PATIENT_NOT_FOUND")
    (resource,) = [detail for detail in body["details"] if detail["@type"].endswith("ResourceInfo")]
    assert (resource["resourceType"], resource["resourceName"]) == ("patient", unknown)
    expect_error(await client.upload(file.content, order_id=unknown), 404, "ORDER_NOT_FOUND")
    assert not await client.in_pacs(file.study_uid)


@pytest.mark.parametrize(
    ("path", "params", "field"),
    [
        ("studies", {"limit": "0x"}, None),
        ("studies", {"limit": 1001}, "limit"),
        ("studies", {"limit": -1}, "limit"),
        ("studies", {"page_token": "forged"}, "page_token"),
        ("studies", {"PatientID": "*"}, "PatientID"),
        ("studies", {"PatientID": "A?"}, "PatientID"),
        ("studies", {"AccessionNumber": "a\\b"}, "AccessionNumber"),
        ("studies", {"study_date_from": "2023-01-01"}, "study_date_from"),
        ("studies", {"study_date_from": "20230102", "study_date_until": "20230101"}, "study_date_until"),
        ("studies", {"order_by": "Rows"}, "order_by"),
        ("studies/1.2.x", {}, "study_uid"),
        ("studies/*", {}, "study_uid"),
        ("studies/" + "1" * 65, {}, "study_uid"),
        ("studies/patient/42", {}, "patient_id"),
        ("studies/accession/*", {}, "accession_number"),
        ("thumbnail/abc", {}, "study_uid"),
        ("upload-logs", {"patient_id": "x"}, "patient_id"),
        ("upload-logs", {"upload_status": "lost"}, "upload_status"),
        ("upload-logs", {"uploaded_from": "yesterday"}, None),
        (
            "upload-logs",
            {"uploaded_from": "2024-01-02T00:00:00Z", "uploaded_until": "2024-01-01T00:00:00Z"},
            "uploaded_until",
        ),
        ("upload-logs/42", {}, "id"),
    ],
)
async def test_a_wrong_value_of_a_question_is_named(
    client: Client, path: str, params: dict[str, str], field: str | None
) -> None:
    """A malformed number, UUID, UID, date, wildcard or page token is an error, never an empty or a full list."""
    body = expect_error(await client.send("GET", f"{API}/{path}", params=params), 400, "INVALID_FIELD")
    if field is not None:
        assert field in violations(body)


async def test_all_wrong_values_are_told_at_once(client: Client) -> None:
    """One answer names every wrong field."""
    params = {"limit": -1, "PatientID": "*", "study_date_from": "x", "order_by": "y"}
    body = expect_error(await client.send("GET", f"{API}/studies", params=params), 400, "INVALID_FIELD")
    assert set(violations(body)) == {"limit", "PatientID", "study_date_from", "order_by"}


@pytest.mark.parametrize("path", ["studies", "upload-logs", "health"])
async def test_an_unknown_query_parameter_is_refused(client: Client, path: str) -> None:
    """A parameter that means nothing is an error: the caller believes it in force."""
    answer = await client.send("GET", f"{API}/{path}", params={"patientid": "1"})
    assert answer.status_code == 400
    assert answer.json()["code"] == 3


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "studies?limit", "limit"),
        ("GET", "health?verbose", "verbose"),
        ("POST", "modify-tags?remove_private_tags", "remove_private_tags"),
        ("POST", "modify-tags?PatientName=A&remove_private_tags", "remove_private_tags"),
        ("POST", "upload?anonymize", "anonymize"),
        ("POST", "upload?file.data=QUJD", "file"),
        ("POST", "upload?file=1", "file"),
        ("POST", "validate?end_of_file=true", "end_of_file"),
    ],
)
async def test_no_query_parameter_is_passed_over(client: Client, method: str, path: str, name: str) -> None:
    """A parameter without `=`, and one that would reach into the body, is an error like any wrong one."""
    body = {"files": form(("x.dcm", fresh_file().content))} if method == "POST" else {}
    answer = await client.send(method, f"{API}/{path}", **body)
    assert name in expect_error(answer, 400, "INVALID_FIELD")["message"]


async def test_a_long_query_is_understood(client: Client) -> None:
    """Edits that take many kilobytes of query are made."""
    params = {"set": [f"PatientComments={'x' * 10_000}", f"ImageComments={'y' * 10_000}"]}
    answer = await client.send("POST", f"{API}/modify-tags", params=params, files=form(("x.dcm", fresh_file().content)))
    assert answer.status_code == 200, answer.text
    assert b"y" * 10_000 in answer.content


@pytest.mark.parametrize("reason", ["", "   ", "x" * 501, "a\nb"])
async def test_a_deletion_needs_a_reason(client: Client, reason: str) -> None:
    """Without a reason, and with one that is none, nothing is deleted."""
    file = fresh_file()
    await client.stored(file)
    answer = await client.send("DELETE", f"{API}/studies/{file.study_uid}", params={"reason": reason})
    assert "reason" in violations(expect_error(answer, 400, "INVALID_FIELD"))
    assert await client.in_pacs(file.study_uid)


@pytest.mark.parametrize(
    ("kind", "entry", "field"),
    [
        ("patients", {"mrn": "", "full_name": "A"}, "patients[0].mrn"),
        ("patients", {"mrn": "A*", "full_name": "A"}, "patients[0].mrn"),
        ("patients", {"mrn": "A", "full_name": ""}, "patients[0].full_name"),
        ("patients", {"mrn": "A", "full_name": "A", "birth_date": "20000101"}, "patients[0].birth_date"),
        ("patients", {"mrn": "A", "full_name": "A", "sex": "X"}, "patients[0].sex"),
        ("orders", {"patient_id": "x", "accession_number": "1", "status": "s"}, "orders[0].patient_id"),
        ("users", {"username": "u", "full_name": "U", "role": "king"}, "users[0].role"),
    ],
)
async def test_a_wrong_registry_entry_is_named(admin: Client, kind: str, entry: dict[str, str], field: str) -> None:
    """An upsert with a wrong value changes nothing and names the entry and its field."""
    answer = await admin.send("PUT", f"{REGISTRY}/{kind}", json={kind: [entry]})
    assert field in violations(expect_error(answer, 400, "INVALID_FIELD"))
    answer = await admin.send("PUT", f"{REGISTRY}/{kind}", json={kind: []})
    assert kind in violations(expect_error(answer, 400, "INVALID_FIELD"))


async def test_malformed_json_is_refused(admin: Client, stack: Stack) -> None:
    """A body that is no JSON, or JSON of another shape, is an error in JSON."""
    for content in (b"{", b'{"patients": 3}', b'{"patience": []}', b"[]"):
        answer = await admin.send(
            "PUT", f"{REGISTRY}/patients", content=content, headers={"content-type": "application/json"}
        )
        assert answer.status_code == 400, (content, answer.text)
        assert answer.json()["code"] == 3
    assert stack.base_url not in answer.text
