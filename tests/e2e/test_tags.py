"""tag_service through Envoy: reading, checking and editing files over HTTP."""

import asyncio
import hashlib
import io
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import dcmread

from deploy.local.stack import Stack
from tests.e2e.client import API, Client, expect_error, form, violations
from tests.files import fresh_file, sample_bytes

RAW = {"content-type": "application/dicom"}
KEY_HEADER = {"x-deidentify-key": "k" * 40}


async def post(client: Client, method: str, content: bytes, **params: str | list[str]) -> httpx.Response:
    """The answer to one file as a form."""
    return await client.send("POST", f"{API}/{method}", params=params, files=form(("x.dcm", content)))


async def test_tags_are_read(client: Client) -> None:
    """read-tags gives the 20 attributes by their keywords."""
    answer = await post(client, "read-tags", sample_bytes("CT_small.dcm"))
    assert answer.status_code == 200, answer.text
    tags = answer.json()["tags"]
    expected = dcmread(io.BytesIO(sample_bytes("CT_small.dcm")))
    assert len(tags) == 20
    for keyword, value in tags.items():
        assert value == str(expected.get(keyword, "")), keyword


async def test_chosen_tags_are_read(client: Client) -> None:
    """Query parameters name further attributes of read-tags; a wrong name is told by its place."""
    paths = [
        "Rows",
        "(0018,0050)",
        '(0009,"GEMS_IDEN_01",02)',
        "OtherPatientIDsSequence[1].TypeOfPatientID",
        "StudyComments",
    ]
    answer = await post(client, "read-tags", sample_bytes("CT_small.dcm"), tags=paths)
    assert answer.status_code == 200, answer.text
    assert answer.json()["tags"]["PatientID"] == "1CT1"
    found = answer.json()["attributes"]
    assert [attribute["path"] for attribute in found] == paths
    assert [attribute["value"] for attribute in found] == ["128", "5.000000", "CT01", "TEXT", ""]
    assert [attribute["is_present"] for attribute in found] == [True, True, True, True, False]
    wrong = await post(client, "read-tags", sample_bytes("CT_small.dcm"), tags=["Rows", "Row"])
    assert list(violations(expect_error(wrong, 400, "INVALID_FIELD"))) == ["tags[1]"]


@pytest.mark.parametrize("takes_early_end", [True, False])
async def test_tags_are_read_before_the_rest_of_a_file_is_sent(stack: Stack, *, takes_early_end: bool) -> None:
    """R2: a client that says it takes an early end is answered when the header is in; any other when all is sent."""
    content, size = sample_bytes("CT_small.dcm"), 5_000_000
    headers = {
        "Host": "localhost",
        "Authorization": f"Bearer {stack.token()}",
        "Content-Type": "application/dicom",
        "Content-Length": str(size),
    } | ({"x-takes-early-end": "1"} if takes_early_end else {})
    lines = [f"POST {API}/read-tags HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.ports.envoy)
    try:
        writer.write("\r\n".join(lines).encode() + content)
        answer = asyncio.ensure_future(reader.readline())
        done, _ = await asyncio.wait([answer], timeout=1.5 if takes_early_end else 0.5)
        assert bool(done) is takes_early_end
        if not takes_early_end:
            writer.write(bytes(size - len(content)))
        assert await answer == b"HTTP/1.1 200 OK\r\n"
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def test_all_tags_are_read_as_dicom_json(client: Client) -> None:
    """read-all-tags gives the DICOM JSON model, as pydicom writes it, without bulk."""
    answer = await post(client, "read-all-tags", sample_bytes("CT_small.dcm"))
    assert answer.headers["content-type"] == "application/dicom+json"
    found = answer.json()
    data_set = dcmread(io.BytesIO(sample_bytes("CT_small.dcm")))
    expected = data_set.to_json_dict()
    pixels = sample_bytes("CT_small.dcm").index(data_set.PixelData)
    assert found["7FE00010"] == {"vr": "OW", "BulkDataURI": f"?offset={pixels}&length={len(data_set.PixelData)}"}
    assert found["00080005"]["Value"] == ["ISO_IR 192"]  # JSON is UTF-8 (PS3.18 F.2)
    for tag in ("00080018", "00100010", "00100020", "00180050", "00280010", "00280030"):
        assert found[tag] == expected[tag], tag


async def test_prior_values_are_recorded_and_a_new_instance_made(client: Client) -> None:
    """record_original keeps the value before in the file, mode=DERIVE makes it another instance."""
    query = {"PatientID": "MRN9", "record_original": "true", "record_reason": "COERCE", "mode": "DERIVE"}
    answer = await post(client, "modify-tags", sample_bytes("CT_small.dcm"), **query)
    assert answer.status_code == 200, answer.text
    edited = dcmread(io.BytesIO(answer.content))
    (record,) = edited.OriginalAttributesSequence
    assert record.ReasonForTheAttributeModification == "COERCE"
    assert record.ModifiedAttributesSequence[0].PatientID == "1CT1"
    assert record.ModifiedAttributesSequence[0].SOPInstanceUID != edited.SOPInstanceUID
    wrong = await post(client, "modify-tags", sample_bytes("CT_small.dcm"), mode="COPY")
    assert list(violations(expect_error(wrong, 400, "INVALID_FIELD"))) == ["mode"]


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm", "image_dfl.dcm"])
async def test_an_edited_file_differs_in_the_edits_only(client: Client, name: str, tmp_path: Path) -> None:
    """modify-tags gives a file back that a reader finds changed as asked, its pixels untouched."""
    content = sample_bytes(name)
    answer = await post(
        client, "modify-tags", content, PatientID="MRN9", StudyDescription="Neu: Schädel", remove_private_tags="true"
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/dicom"
    assert "filename" in answer.headers["content-disposition"]
    assert int(answer.headers["x-file-size"]) == len(answer.content)
    assert answer.headers["x-file-sha256"] == hashlib.sha256(answer.content).hexdigest()
    path = tmp_path / "out.dcm"
    path.write_bytes(answer.content)
    before, after = dcmread(io.BytesIO(content)), dcmread(path)
    assert after.PatientID == "MRN9"
    assert after.StudyDescription == "Neu: Schädel"
    assert after.PixelData == before.PixelData
    assert not any(element.tag.is_private for element in after)
    assert after.file_meta.TransferSyntaxUID == before.file_meta.TransferSyntaxUID


async def test_a_file_is_judged(client: Client) -> None:
    """A file is told what it is; one that is no DICOM is an answer, not an error."""
    verdict = (await post(client, "validate", sample_bytes("MR_small_RLE.dcm"))).json()
    assert verdict["is_dicom"] is True
    assert verdict["is_valid"] is True
    assert verdict["TransferSyntaxUID"] == "1.2.840.10008.1.2.5"
    assert verdict["transfer_syntax_name"] == "RLE Lossless"
    assert verdict["SOPClassUID"] == "1.2.840.10008.5.1.4.1.1.4"
    assert verdict["sop_class_name"] == "MR Image Storage"
    assert verdict["Modality"] == "MR"
    assert verdict["has_pixel_data"] is True
    assert int(verdict["size_bytes"]) == len(sample_bytes("MR_small_RLE.dcm"))

    text = (await post(client, "validate", b"Dear colleague")).json()
    assert (text["is_dicom"], text["is_valid"]) == (False, False)
    assert text["problems"][0]["code"] == "NOT_DICOM"
    cut = (await post(client, "validate", sample_bytes("CT_small.dcm")[:-10])).json()
    assert (cut["is_dicom"], cut["is_valid"]) == (True, False)
    assert "TRUNCATED_FILE" in [problem["code"] for problem in cut["problems"]]
    assert all(problem["rule"] for problem in [*text["problems"], *cut["problems"]])
    nameless = (await post(client, "validate", fresh_file(PatientName=None).content)).json()
    assert [(problem["severity"], problem["tag"], problem["rule"]) for problem in nameless["problems"]] == [
        ("warning", "(0010,0010)", "PS3.3 C.7.1.1")
    ]


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"PatientBirthDate": "1.1.2000"}, "PatientBirthDate"),
        ({"StudyDate": "20231301"}, "StudyDate"),
        ({"AccessionNumber": "x" * 17}, "AccessionNumber"),
        ({"PatientSex": "female"}, "PatientSex"),
        ({"set": "Rows=many"}, "set[0]"),
        ({"set": "NoSuchThing=1"}, "set[0]"),
        ({"set": "StudyID"}, "set[0]"),
        ({"remove": "Nothing"}, "remove[0]"),
    ],
)
async def test_a_value_that_does_not_fit_is_named(client: Client, params: dict[str, str], field: str) -> None:
    """A value that breaks its VR is refused by the name of its field, and never quoted."""
    body = expect_error(await post(client, "modify-tags", sample_bytes("CT_small.dcm"), **params), 400, "INVALID_FIELD")
    assert list(violations(body)) == [field]


@pytest.mark.parametrize(
    "params",
    [{"remove": "StudyInstanceUID"}, {"remove": "PatientID"}, {"PatientID": ""}, {"set": "SOPInstanceUID=1.2"}],
)
async def test_an_edit_that_would_lose_an_identifier_is_refused(client: Client, params: dict[str, str]) -> None:
    """Identifiers are not removed, and UIDs not replaced without `force`."""
    answer = await post(client, "modify-tags", sample_bytes("CT_small.dcm"), **params)
    expect_error(answer, 400, "EDIT_REFUSED")


async def test_a_cut_file_is_never_given_back_as_whole(client: Client) -> None:
    """A file that is cut short is an error of every method, and no bytes come back."""
    content = fresh_file().content[:-1]
    expect_error(await post(client, "modify-tags", content, PatientID="X"), 400, "TRUNCATED_FILE")
    expect_error(await post(client, "read-all-tags", content), 400, "TRUNCATED_FILE")
    expect_error(await post(client, "read-tags", content[:500]), 400, "TRUNCATED_FILE")


async def test_every_viewer_may_use_the_tag_service(client: Client, stack) -> None:
    """A good token is enough."""
    viewer = client.with_token(stack.token(role="viewer"))
    assert (await post(viewer, "read-tags", sample_bytes("CT_small.dcm"))).status_code == 200


async def test_an_answer_too_large_for_http_is_told_so(client: Client) -> None:
    """A file whose attributes make too long a JSON is refused with a reason, and can be read otherwise."""
    file = fresh_file()
    pixels = file.content.rindex(b"\xe0\x7f\x10\x00")
    # A backslash makes an empty value of its own, which is `null` in JSON.
    values = b"\\" * 65_000
    many = b"".join(struct.pack("<HH2sH", 0x0051, 0x1000 + n, b"LO", len(values)) + values for n in range(110))
    content = file.content[:pixels] + many
    answer = await post(client, "read-all-tags", content)
    assert answer.status_code == 400, answer.status_code
    body = expect_error(answer, 400, "STRUCTURE_LIMIT")
    assert body["details"][0]["metadata"]["limit"] == "answer bytes"
    assert (await post(client, "read-tags", content)).json()["tags"]["PatientID"] == file.patient_id


async def test_a_deidentified_file_comes_back(client: Client) -> None:
    """A file comes back without what names the patient, headers say what its pixels may show, and the key is a header,
    of which the same one makes the same file.
    """
    content = sample_bytes("CT_small.dcm")
    params = {"dates": "SHIFT", "retain_patient_characteristics": "true"}
    request: dict[str, Any] = {"params": params, "headers": KEY_HEADER}
    answer = await client.send("POST", f"{API}/deidentify", files=form(("Compressed^Sample.dcm", content)), **request)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/dicom"
    assert answer.headers["x-deidentify-key-source"] == "request"
    assert answer.headers["x-deidentify-may-show-patient"] == "true"
    assert answer.headers["x-deidentify-doubts"] == "BURNED_IN_ANNOTATION_UNKNOWN,FACE"
    assert answer.headers["x-deidentify-modality"] == "CT"
    assert "Sample" not in answer.headers["content-disposition"]
    assert answer.headers["x-file-sha256"] == hashlib.sha256(answer.content).hexdigest()
    before, after = dcmread(io.BytesIO(content)), dcmread(io.BytesIO(answer.content))
    assert after.PatientIdentityRemoved == "YES"
    assert (after.PatientSex, after.PixelData) == (before.PatientSex, before.PixelData)
    for secret in (before.PatientID, str(before.PatientName), before.SOPInstanceUID, before.StudyDate):
        assert secret.encode() not in answer.content
    again = await client.send("POST", f"{API}/deidentify", content=content, **request | {"headers": RAW | KEY_HEADER})
    assert again.content == answer.content


async def test_the_key_of_deidentification_is_kept_out_of_sight(client: Client, stack: Stack) -> None:
    """A key in the URL is refused, and so is one that is too short, in neither case told again; a good one stands in no
    log.
    """
    content = sample_bytes("CT_small.dcm")
    in_url = await post(client, "deidentify", content, key="k" * 40)
    assert in_url.status_code == 400, in_url.text
    assert "k" * 40 not in in_url.text
    headers = {"x-deidentify-key": "tooshort"}
    short = await client.send("POST", f"{API}/deidentify", files=form(("x.dcm", content)), headers=headers)
    assert list(violations(expect_error(short, 400, "INVALID_FIELD"))) == ["x-deidentify-key"]
    assert "tooshort" not in short.text
    wrong = await post(client, "deidentify", content, dates="FORGET")
    assert list(violations(expect_error(wrong, 400, "INVALID_FIELD"))) == ["dates"]
    secret = {"x-deidentify-key": "the-secret-that-no-log-may-ever-hold"}
    answer = await client.send("POST", f"{API}/deidentify", files=form(("x.dcm", content)), headers=secret)
    assert answer.status_code == 200
    request_id = answer.headers["x-request-id"]
    logs = [stack.log(part) for part in ("envoy", "tag_service")]
    for _ in range(100):
        if all(request_id in log.read_text() for log in logs):
            break
        await asyncio.sleep(0.1)
    for log in logs:
        assert request_id in log.read_text()
        assert "no-log-may-ever-hold" not in log.read_text()
