"""UploadService.Preflight: what an upload would come to, and that it does come to that."""

from dataclasses import asdict, replace
from datetime import date
from typing import Any

import pytest
from google.api.httpbody_pb2 import HttpBody

from pacs_gateway.domain.comparing import Against, Match, TagMatch, compare
from pacs_gateway.domain.tags import DicomTags
from pacs_gateway.domain.upload import UnknownPatients
from pacs_gateway.use_cases.upload_logs import UploadLogBook
from ris.pacs.v1.upload_service_pb2 import PreflightRequest, PreflightResponse, UploadMultipleRequest
from service_runtime.errors import InvalidFieldError, Reason, ServiceError
from tests.unit.pacs_gateway.fake_context import FakeContext, called_by, stream_of
from tests.unit.pacs_gateway.fakes import (
    END,
    JONES,
    ORDER_OF_JONES,
    ORDER_OF_SMITH,
    SMITH,
    STUDY,
    World,
    file_of,
    orthanc_away,
    refused,
    tag_service_away,
    tags_of,
)
from tests.unit.pacs_gateway.hooks import raising
from tests.unit.pacs_gateway.test_upload_service import ARCHIVES, LIMITS, UploadServicer, slice_of
from tests.unit.service_runtime.zips import Entry, zip_of


def servicer_of(world: World, unknown: UnknownPatients = UnknownPatients.CREATE) -> UploadServicer:
    """A servicer over the fakes."""
    book = UploadLogBook(database=world.database)
    return UploadServicer(
        uploads=world.uploads(unknown),
        log_book=book,
        requests=world.requests,
        sessions=world.sessions,
        limits=LIMITS,
        archives=ARCHIVES,
    )


async def foresee(
    world: World, *files: bytes, unknown: UnknownPatients = UnknownPatients.CREATE, **options: Any
) -> list[PreflightResponse]:
    """The answers to a preflight of these files."""
    requests = [PreflightRequest(file=HttpBody(data=file), end_of_file=True) for file in files]
    requests[0].MergeFrom(PreflightRequest(**options))
    with called_by():
        calls = servicer_of(world, unknown).Preflight(stream_of(*requests), FakeContext())
        return [one async for one in calls]


async def upload(world: World, file: bytes, *, unknown: UnknownPatients, **options: Any) -> Any:
    """The answer to the upload."""
    request = UploadMultipleRequest(file=HttpBody(data=file), end_of_file=True, **options)
    with called_by():
        (answer,) = [one async for one in servicer_of(world, unknown).UploadMultiple(stream_of(request), FakeContext())]
    return answer


def results(answer: PreflightResponse) -> dict[str, str]:
    """How each keyword compares."""
    return {one.keyword: one.result for one in answer.matches}


CREATE, REJECT = UnknownPatients.CREATE, UnknownPatients.REJECT


@pytest.mark.parametrize(
    ("changed", "options", "unknown"),
    [
        ({}, {}, CREATE),
        ({}, {"patient_id": str(SMITH.id), "order_id": str(ORDER_OF_SMITH.id)}, CREATE),
        ({}, {"patient_id": str(JONES.id)}, CREATE),
        ({}, {"patient_id": str(JONES.id), "patient_match": "ACCEPT"}, CREATE),
        ({}, {"patient_id": str(JONES.id), "patient_match": "COERCE"}, CREATE),
        ({}, {"patient_id": str(JONES.id), "patient_match": "COERCE", "set": ["PatientID=X"]}, CREATE),
        ({"patient_id": ""}, {}, CREATE),
        ({"patient_id": "NEW"}, {}, CREATE),
        ({"patient_id": "NEW"}, {}, REJECT),
        ({"patient_id": "N*W"}, {}, CREATE),
        ({"patient_id": "NEW", "accession_number": "ACC-SMITH"}, {}, CREATE),
        ({"accession_number": "ACC-JONES"}, {}, CREATE),
        ({}, {"order_id": str(ORDER_OF_JONES.id)}, CREATE),
        ({}, {"accession_number": "ACC-JONES"}, CREATE),
        ({"sop_instance_uid": ""}, {}, CREATE),
        ({"study_instance_uid": "1.77"}, {}, CREATE),
        ({"study_instance_uid": "1.77", "patient_id": "MRN-JONES"}, {}, CREATE),
        ({"study_instance_uid": "1.88"}, {}, CREATE),
    ],
)
async def test_an_upload_comes_to_what_was_foreseen(
    world: World, changed: dict[str, str], options: dict[str, Any], unknown: UnknownPatients
) -> None:
    """Every refusal of an upload that the header tells is the preflight's, and every file that is acceptable is stored:
    both go by the same rules.
    """
    # A study of Smith's that the log knows, and one of Jones's that only the PACS does.
    await world.send(tags_of(study_instance_uid="1.77", sop_instance_uid="1.77.1"))
    world.pacs.put(file_of(tags_of(JONES, study_instance_uid="1.88", sop_instance_uid="1.88.1")))
    file = file_of(tags_of(**changed))
    (answer,) = await foresee(world, file, unknown=unknown, **options)
    told = await upload(world, file, unknown=unknown, **options)
    assert answer.error.reason == told.error.reason
    assert answer.error == told.error
    assert answer.status == ("acceptable" if told.success else "refused")
    if told.success:
        assert answer.tags == told.tags
        assert answer.patient_id in {told.patient_id, ""}
        assert answer.order_id == told.order_id


async def test_nothing_is_written(world: World) -> None:
    """A preflight leaves the PACS, the logs and the registry as they are, a patient that it would make included."""
    before = (dict(world.database.tables.patients), dict(world.pacs.held))
    answers = await foresee(world, slice_of(1), slice_of(2, patient_id="NEW", study_instance_uid="1.5"))
    assert [one.status for one in answers] == ["acceptable"] * 2
    assert (dict(world.database.tables.patients), dict(world.pacs.held)) == before
    assert world.database.log_of(STUDY) is None
    assert answers[1].patient_id == ""


async def test_the_header_is_enough(world: World) -> None:
    """Files that are cut off behind their headers are foreseen as whole ones are, also with edits."""
    header = slice_of(1)[: slice_of(1).index(b"\n") + 1]
    for options in ({}, {"study_description": "Chest"}):
        (answer,) = await foresee(world, header, **options)
        assert (answer.status, answer.tags.sop_instance_uid) == ("acceptable", "1.2.3.1.1")


async def test_tags_are_compared_with_the_patient_and_the_order(world: World) -> None:
    """Each tag that says whose file it is matches, does not, or is not known; also where the upload is refused."""
    told = {"patient_name": "smith^ANNA^", "patient_birth_date": "19700103", "accession_number": "ACC-SMITH"}
    file = file_of(tags_of(JONES, **told))
    (answer,) = await foresee(world, file, patient_id=str(SMITH.id))
    assert answer.error.reason == "PATIENT_MISMATCH"
    assert results(answer) == {
        "PatientID": "MISMATCH",
        "PatientName": "MATCH",
        "PatientBirthDate": "MISMATCH",
        "PatientSex": "UNKNOWN",
        "AccessionNumber": "MATCH",
        "Modality": "MATCH",
    }
    assert {one.keyword: one.against for one in answer.matches}["Modality"] == "order"
    assert (answer.patient_id, answer.order_id) == (str(SMITH.id), str(ORDER_OF_SMITH.id))


async def test_what_would_be_changed_is_told(world: World) -> None:
    """COERCE and edits name each attribute that they set, whether it changes, and both its values."""
    (answer,) = await foresee(
        world,
        file_of(tags_of(JONES, patient_sex="F")),
        patient_id=str(SMITH.id),
        patient_match="COERCE",
        study_description="Chest",
        set=["Modality=MR"],
    )
    assert answer.status == "acceptable"
    assert {one.keyword: (one.is_changed, one.before, one.after) for one in answer.changes} == {
        "PatientID": (True, "MRN-JONES", "MRN-SMITH"),
        "PatientName": (True, "Jones^Bob", "Smith^Anna"),
        "PatientBirthDate": (True, "", "19700102"),
        "PatientSex": (False, "F", "F"),
        "StudyDescription": (True, "", "Chest"),
        "Modality": (True, "CT", "MR"),
    }
    # The file is compared as it came.
    assert results(answer)["PatientID"] == "MISMATCH"
    assert answer.tags.dicom_patient_id == SMITH.mrn


async def test_what_is_stored_already_is_told(world: World) -> None:
    """An instance that the PACS holds is no refusal: whether it is the same file only the upload finds out."""
    await world.send(slice_of(1))
    answers = await foresee(world, slice_of(1), slice_of(2))
    assert [(one.status, one.instance_is_stored) for one in answers] == [("acceptable", True), ("acceptable", False)]


async def test_bad_files_fail_no_neighbours(world: World) -> None:
    """What is no DICOM file, and what a defect keeps from being looked at, is refused alone."""
    world.pacs.hooks.at("noted", raising(lambda: RuntimeError(SMITH.full_name), times=1))
    answers = await foresee(world, b"a text", slice_of(1), slice_of(2))
    assert [(one.status, one.error.reason) for one in answers] == [
        ("refused", "NOT_DICOM"),
        ("refused", "INTERNAL_ERROR"),
        ("acceptable", ""),
    ]
    assert SMITH.full_name not in str(answers[1].error)


async def test_a_part_that_is_away_is_no_verdict(world: World) -> None:
    """Where a part cannot be asked, the file is told to come again, and not that it would be refused by a rule."""
    world.pacs.hooks.at("find_studies", raising(orthanc_away))
    (answer,) = await foresee(world, slice_of(1))
    assert answer.error.reason == "ORTHANC_UNAVAILABLE"
    assert not answer.matches


async def test_archives_are_looked_into(world: World) -> None:
    """The files of an archive have answers as those of an upload would; what is not for the PACS is skipped."""
    archive = zip_of(Entry("DICOMDIR", b""), Entry("README", b"a text"), Entry("I1", slice_of(1)))
    request = PreflightRequest(file=HttpBody(data=archive, content_type="application/zip"))
    with called_by():
        answers = [one async for one in servicer_of(world).Preflight(stream_of(request), FakeContext())]
    assert [(one.filename, one.status) for one in answers] == [
        ("DICOMDIR", "skipped"),
        ("README", "skipped"),
        ("I1", "acceptable"),
    ]


async def test_errors_of_the_call_are_those_of_the_upload(world: World) -> None:
    """Wrong options and what they name are told before any file; what breaks the request later, in the last answer."""
    with pytest.raises(InvalidFieldError):
        await foresee(world, slice_of(1), patient_id="42")
    with refused(Reason.PATIENT_NOT_FOUND):
        await foresee(world, slice_of(1), patient_id=str(ORDER_OF_SMITH.id))
    broken = ServiceError(Reason.UPLOAD_STALLED, "No byte of the request came.")
    request = PreflightRequest(file=HttpBody(data=slice_of(1)), end_of_file=True)
    with called_by():
        answers = [one async for one in servicer_of(world).Preflight(stream_of(request, broken), FakeContext())]
    assert [one.error.reason for one in answers] == ["", "UPLOAD_STALLED"]
    with called_by(), refused(Reason.UPLOAD_STALLED):
        _ = [one async for one in servicer_of(world).Preflight(stream_of(broken), FakeContext())]


@pytest.mark.parametrize(
    ("name", "full_name", "expected"),
    [
        ("Smith^Anna", "Smith^Anna", Match.MATCH),
        ("SMITH^ANNA^^^ ", "Smith^Anna", Match.MATCH),
        ("Smith ^ Anna=漢字", "Smith^Anna", Match.MATCH),
        ("Smith^Anne", "Smith^Anna", Match.MISMATCH),
        ("Smith", "Smith^Anna", Match.MISMATCH),
        ("^^", "Smith^Anna", Match.UNKNOWN),
        ("Smith^Anna", "", Match.UNKNOWN),
    ],
)
def test_names_are_compared_by_what_they_say(name: str, full_name: str, expected: Match) -> None:
    """Case, empty components, padding and further groups of a PN (PS3.5 6.2.1) make no difference."""
    found = compare(DicomTags(patient_name=name), replace(SMITH, full_name=full_name), None)
    assert found[1] == TagMatch("patient_name", Against.PATIENT, expected)


def test_nothing_is_compared_with_nobody() -> None:
    """Without a patient and an order there are no matches; what the RIS does not know of them is unknown."""
    tags = tags_of(patient_birth_date="19700102")
    assert compare(tags, None, None) == []
    found = compare(tags, replace(SMITH, birth_date=None, sex=""), None)
    assert [one.match for one in found] == [Match.MATCH, Match.MATCH, Match.UNKNOWN, Match.UNKNOWN]
    assert compare(tags, replace(SMITH, birth_date=date(1970, 1, 2)), None)[2].match is Match.MATCH
    assert {one.name for one in compare(tags, SMITH, ORDER_OF_SMITH)} <= set(asdict(tags))


async def test_damage_behind_the_header_is_left_to_the_upload(world: World) -> None:
    """A fault that the edits find behind the header is no verdict, also when it is told before the tags are; but that a
    part is away is told.
    """
    world.tag_service.reading_on = True
    cut = slice_of(1).removesuffix(END)
    (answer,) = await foresee(world, cut, set=["Modality=MR"])
    assert (answer.status, answer.tags.modality) == ("acceptable", "MR")
    world.tag_service.hooks.at("end", raising(tag_service_away))
    (answer,) = await foresee(world, slice_of(1), set=["Modality=MR"])
    assert (answer.status, answer.error.reason) == ("refused", "TAG_SERVICE_UNAVAILABLE")
