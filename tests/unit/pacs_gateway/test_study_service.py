"""ris.pacs.v1.StudyService and HealthService: what is asked, and how it is answered."""

from typing import Any
from uuid import UUID

import pytest

from pacs_gateway.api.health_service import HealthServicer
from pacs_gateway.api.study_service import StudyServicer
from pacs_gateway.use_cases.health import Health
from ris.pacs.v1.health_service_pb2 import CheckHealthRequest
from ris.pacs.v1.study_service_pb2 import (
    DeleteStudyRequest,
    GetStudyByAccessionRequest,
    GetStudyRequest,
    GetThumbnailRequest,
    ListPatientStudiesRequest,
    ListStudiesRequest,
    ListStudiesResponse,
)
from service_runtime.errors import InvalidFieldError, Reason
from tests.unit.pacs_gateway.fake_context import FakeContext, called_by
from tests.unit.pacs_gateway.fakes import (
    JONES,
    RADIOLOGIST,
    SMITH,
    STUDY,
    World,
    file_of,
    orthanc_away,
    refused,
    tags_of,
)
from tests.unit.pacs_gateway.hooks import raising

NOT_UIDS = ["", "*", "1.2.*", "1?", "1\\2", "../1.2", "1/2", "1.2 "]


@pytest.fixture
def servicer(world: World) -> StudyServicer:
    """The servicer over the fakes."""
    return StudyServicer(studies=world.studies, pictures=world.pictures, deletions=world.deletions)


@pytest.fixture
def three(world: World) -> list[str]:
    """Three studies in the PACS: Adams' of 2020, Miller's of 2021, Smith's of 2022."""
    for uid, name, day in (("1.1", "Adams", "20200101"), ("1.2", "Miller", "20210101"), ("1.3", "Smith", "20220101")):
        tags = tags_of(
            study_instance_uid=uid,
            patient_name=name,
            patient_id=name.upper(),
            study_date=day,
            accession_number=f"ACC-{name}",
        )
        world.pacs.put(file_of(tags))
    return ["1.1", "1.2", "1.3"]


def uids(answer: ListStudiesResponse) -> list[str]:
    """Which studies these are."""
    return [study.study_instance_uid for study in answer.studies]


async def wrong_fields(call: Any) -> list[str]:
    """Which fields of a request are wrong."""
    with pytest.raises(InvalidFieldError) as raised:
        await call
    return [violation.field for violation in raised.value.violations]


async def test_studies_are_listed_by_pages(servicer: StudyServicer, three: list[str]) -> None:
    """The newest come first, and the token of a page leads to the next."""
    first = await servicer.ListStudies(ListStudiesRequest(limit=2), FakeContext())
    assert uids(first) == [three[2], three[1]]
    assert first.total_size == 3
    rest = await servicer.ListStudies(ListStudiesRequest(limit=2, page_token=first.next_page_token), FakeContext())
    assert uids(rest) == [three[0]]
    assert rest.next_page_token == ""


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    ("order_by", "expected"),
    [
        ("", "321"),
        ("  ", "321"),
        ("StudyDate", "123"),
        ("StudyDate desc", "321"),
        ("PatientName", "123"),
        ("PatientName desc,StudyDate", "321"),
        (" PatientID , AccessionNumber  desc ", "123"),
    ],
)
async def test_studies_are_ordered_as_aip_132_says(
    servicer: StudyServicer,
    order_by: str,
    expected: str,
) -> None:
    """Attributes separated by commas, " desc" after those that descend, spaces wherever."""
    answer = await servicer.ListStudies(ListStudiesRequest(order_by=order_by), FakeContext())
    assert uids(answer) == [f"1.{n}" for n in expected]


@pytest.mark.parametrize(
    "order_by",
    [
        "study_date",
        "studydate",
        "StudyTime",
        "StudyDate asc",
        "StudyDate DESC",
        "StudyDate desc desc",
        "StudyDate,",
        ",",
        "StudyDate;PatientName",
        "StudyDate,StudyDate desc",
        "__class__",
    ],
)
async def test_another_order_is_refused(servicer: StudyServicer, order_by: str) -> None:
    """What is no order is a wrong field, and is not looked for in the PACS."""
    assert await wrong_fields(servicer.ListStudies(ListStudiesRequest(order_by=order_by), FakeContext())) == [
        "order_by"
    ]


async def test_every_wrong_filter_is_told(world: World, servicer: StudyServicer) -> None:
    """Each wrong field is a violation of its own, by its JSON name; no wildcard reaches the PACS."""
    request = ListStudiesRequest(
        limit=1001,
        page_token="x",
        dicom_patient_id="*",
        patient_name="a\\b",
        accession_number="?",
        modality="x" * 17,
        study_date_from="2024-01-01",
        study_date_until="20240230",
        order_by="x",
    )
    fields = await wrong_fields(servicer.ListStudies(request, FakeContext()))
    assert sorted(fields) == sorted(field.json_name for field in ListStudiesRequest.DESCRIPTOR.fields)
    assert not world.pacs.hooks.passed


async def test_days_that_lie_the_wrong_way_round_are_refused(servicer: StudyServicer) -> None:
    """A range that can hold nothing is a mistake, and told as one; one of a single day is none."""
    request = ListStudiesRequest(study_date_from="20240102", study_date_until="20240101")
    assert await wrong_fields(servicer.ListStudies(request, FakeContext())) == ["study_date_until"]
    request = ListStudiesRequest(study_date_from="20240102", study_date_until="20240102")
    assert uids(await servicer.ListStudies(request, FakeContext())) == []


async def test_filters_reach_the_pacs(servicer: StudyServicer, three: list[str]) -> None:
    """The whole PatientID and the whole AccessionNumber choose, and filters hold together."""
    answer = await servicer.ListStudies(ListStudiesRequest(dicom_patient_id="MILLER"), FakeContext())
    assert uids(answer) == [three[1]]
    answer = await servicer.ListStudies(
        ListStudiesRequest(dicom_patient_id="MILLER", accession_number="ACC-Smith"), FakeContext()
    )
    assert (uids(answer), answer.total_size) == ([], 0)


async def test_a_patients_studies(world: World, servicer: StudyServicer) -> None:
    """The RIS's patient leads to the studies, by pages whose tokens are that patient's only."""
    for patient, uid in ((SMITH, "1.1"), (SMITH, "1.2"), (JONES, "1.3")):
        world.pacs.put(file_of(tags_of(patient, study_instance_uid=uid)))
    asked = ListPatientStudiesRequest(patient_id=str(SMITH.id), limit=1)
    first = await servicer.ListPatientStudies(asked, FakeContext())
    assert (len(first.studies), first.total_size) == (1, 2)
    assert first.studies[0].patient_id == str(SMITH.id)
    asked.page_token = first.next_page_token
    second = await servicer.ListPatientStudies(asked, FakeContext())
    assert {one.study_instance_uid for one in (*first.studies, *second.studies)} == {"1.1", "1.2"}
    asked.patient_id = str(JONES.id)
    assert await wrong_fields(servicer.ListPatientStudies(asked, FakeContext())) == ["page_token"]
    with refused(Reason.PATIENT_NOT_FOUND):
        await servicer.ListPatientStudies(ListPatientStudiesRequest(patient_id=str(UUID(int=404))), FakeContext())
    wrong = ListPatientStudiesRequest(patient_id="x", limit=-1)
    assert await wrong_fields(servicer.ListPatientStudies(wrong, FakeContext())) == ["patient_id", "limit"]


async def test_one_study(world: World, servicer: StudyServicer) -> None:
    """A study is got by its UID or its accession number, with its series."""
    world.pacs.put(file_of(tags_of(accession_number="ACC-1")))
    by_uid = await servicer.GetStudy(GetStudyRequest(study_uid=STUDY), FakeContext())
    by_number = await servicer.GetStudyByAccession(GetStudyByAccessionRequest(accession_number="ACC-1"), FakeContext())
    assert by_uid.study == by_number.study
    assert len(by_uid.study.series) == 1
    with refused(Reason.STUDY_NOT_FOUND):
        await servicer.GetStudy(GetStudyRequest(study_uid="1.9"), FakeContext())


@pytest.mark.parametrize("uid", NOT_UIDS)
async def test_what_is_no_uid_never_reaches_the_pacs(world: World, servicer: StudyServicer, uid: str) -> None:
    """Neither a wildcard nor a path nor nothing stands for a study, least of all in a deletion."""
    for call in (
        servicer.GetStudy(GetStudyRequest(study_uid=uid), FakeContext()),
        servicer.GetThumbnail(GetThumbnailRequest(study_uid=uid), FakeContext()),
        servicer.DeleteStudy(DeleteStudyRequest(study_uid=uid, reason="x"), FakeContext()),
    ):
        assert await wrong_fields(call) == ["study_uid"]
    assert not world.pacs.hooks.passed


@pytest.mark.parametrize("number", ["", "*", "A?", "A\\B", " A", "x" * 65])
async def test_what_is_no_accession_number_never_reaches_the_pacs(
    world: World, servicer: StudyServicer, number: str
) -> None:
    """A wildcard in an accession number is refused, not obeyed."""
    call = servicer.GetStudyByAccession(GetStudyByAccessionRequest(accession_number=number), FakeContext())
    assert await wrong_fields(call) == ["accession_number"]
    assert not world.pacs.hooks.passed


async def test_a_deletion_is_the_callers(world: World, servicer: StudyServicer) -> None:
    """The study goes; the trace names the caller and the reason, which is told back."""
    await world.send(tags_of())
    with called_by(RADIOLOGIST):
        answer = await servicer.DeleteStudy(DeleteStudyRequest(study_uid=STUDY, reason="a duplicate"), FakeContext())
    assert answer.reason == "a duplicate"
    assert answer.message
    (trace,) = world.database.tables.deletions.values()
    assert (trace.requested_by_id, trace.reason) == (RADIOLOGIST.id, "a duplicate")
    with called_by(RADIOLOGIST), refused(Reason.STUDY_NOT_FOUND):
        await servicer.DeleteStudy(DeleteStudyRequest(study_uid=STUDY, reason="again"), FakeContext())


@pytest.mark.parametrize("reason", ["", "   ", "x" * 501, "a\nb", "a\x00b"])
async def test_a_deletion_needs_a_reason(world: World, servicer: StudyServicer, reason: str) -> None:
    """Without a reason that can be read, nothing is deleted."""
    await world.send(tags_of())
    call = servicer.DeleteStudy(DeleteStudyRequest(study_uid=STUDY, reason=reason), FakeContext())
    assert await wrong_fields(call) == ["reason"]
    assert world.pacs.held


@pytest.fixture
def shown(world: World) -> None:
    """A study that has a picture."""
    stored = world.pacs.put(file_of(tags_of()))
    world.pacs.pictures[stored.orthanc_id] = b"png"


@pytest.mark.usefixtures("shown")
async def test_a_picture_comes_with_its_tag(servicer: StudyServicer) -> None:
    """The bytes are a PNG, tagged, for the caller alone, and asked for anew each time."""
    context = FakeContext()
    answer = await servicer.GetThumbnail(GetThumbnailRequest(study_uid=STUDY), context)
    assert (answer.image.content_type, answer.image.data) == ("image/png", b"png")
    assert context.initial["etag"].startswith('"')
    assert "private" in context.initial["cache-control"]
    assert "x-http-status" not in context.initial


@pytest.mark.usefixtures("shown")
@pytest.mark.parametrize(
    ("sent", "same"),
    [("{}", True), ("W/{}", True), ('"x", {}', True), ('"x",W/{}', True), ("*", True), ('"x"', False), ("x{}", False)],
)
async def test_a_picture_that_the_caller_has_is_not_sent_again(
    servicer: StudyServicer,
    sent: str,
    same: bool,  # noqa: FBT001 - a parameter
) -> None:
    """If-None-Match is compared weakly (RFC 9110 13.1.2): the same picture gives 304 and no bytes, with its tag."""
    first = FakeContext()
    await servicer.GetThumbnail(GetThumbnailRequest(study_uid=STUDY), first)
    again = FakeContext(if_none_match=sent.format(first.initial["etag"]))
    answer = await servicer.GetThumbnail(GetThumbnailRequest(study_uid=STUDY), again)
    assert again.initial["etag"] == first.initial["etag"]
    assert (answer.image.data == b"") == same
    assert (again.initial.get("x-http-status") == "304") == same


async def test_health_is_told_in_words_and_by_http(world: World) -> None:
    """All well is healthy; one part away is unhealthy, named, and HTTP 503; it is never an error."""
    servicer = HealthServicer(
        health=Health(
            {"orthanc": world.pacs.check, "database": world.database.check, "tag_service": world.tag_service.check}
        )
    )
    context = FakeContext()
    answer = await servicer.CheckHealth(CheckHealthRequest(), context)
    assert (answer.status, context.initial) == ("healthy", {})
    assert [(part.name, part.status) for part in answer.parts] == [
        ("orthanc", "healthy"),
        ("database", "healthy"),
        ("tag_service", "healthy"),
    ]
    assert answer.parts[0].message == "1.12.0"

    world.pacs.hooks.at("check", raising(orthanc_away))
    context = FakeContext()
    answer = await servicer.CheckHealth(CheckHealthRequest(), context)
    assert answer.status == "unhealthy"
    assert "orthanc" in answer.message
    assert "database" not in answer.message
    assert context.initial == {"x-http-status": "503"}
    assert [part.status for part in answer.parts] == ["unhealthy", "healthy", "healthy"]
