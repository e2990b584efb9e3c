"""ris.pacs.v1.UploadService: options, files and answers."""

from typing import Any
from uuid import UUID

import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.timestamp_pb2 import Timestamp

from pacs_gateway.api.upload_service import UploadServicer
from pacs_gateway.domain.upload_log import UploadStatus
from pacs_gateway.use_cases.upload_logs import UploadLogBook
from ris.pacs.v1.upload_service_pb2 import (
    GetUploadLogRequest,
    ListUploadLogsRequest,
    UploadMultipleRequest,
    UploadMultipleResponse,
    UploadRequest,
    UploadResponse,
)
from service_runtime.errors import InvalidFieldError, Reason, ServiceError
from service_runtime.uploads import ArchiveLimits, UploadLimits
from tests.unit.pacs_gateway.fake_context import FakeContext, called_by, stream_of
from tests.unit.pacs_gateway.fakes import (
    END,
    JONES,
    ORDER_OF_JONES,
    ORDER_OF_SMITH,
    RADIOLOGIST,
    SMITH,
    STUDY,
    TECHNOLOGIST,
    World,
    file_of,
    orthanc_away,
    refused,
    tags_of,
)
from tests.unit.pacs_gateway.hooks import raising

LIMITS = UploadLimits(file_bytes=5_000, request_bytes=20_000, files=4, idle_seconds=5)
ARCHIVES = ArchiveLimits(entries=20, ratio=200)
PIECE = 300
CALLS = ["Upload", "UploadMultiple"]


@pytest.fixture
def servicer(world: World) -> UploadServicer:
    """The servicer over the fakes."""
    return servicer_of(world)


def servicer_of(world: World, limits: UploadLimits = LIMITS) -> UploadServicer:
    """A servicer over the fakes."""
    return UploadServicer(
        uploads=world.uploads(),
        log_book=UploadLogBook(database=world.database),
        requests=world.requests,
        sessions=world.sessions,
        limits=limits,
        archives=ARCHIVES,
    )


def pieces_of(content: bytes, *, name: str = "a.dcm", **options: Any) -> list[UploadRequest]:
    """The messages of one file; the first carries the options."""
    bodies = [HttpBody(data=content[at : at + PIECE]) for at in range(0, max(len(content), 1), PIECE)]
    first = UploadRequest(file=bodies[0], filename=name, **options)
    return [first, *(UploadRequest(file=body) for body in bodies[1:])]


def many_of(*files: bytes, **options: Any) -> list[UploadMultipleRequest]:
    """The messages of many files, 1.dcm, 2.dcm and so on; the first carries the options."""
    messages = []
    for number, content in enumerate(files, 1):
        for at in range(0, max(len(content), 1), PIECE):
            message = UploadMultipleRequest(
                file=HttpBody(data=content[at : at + PIECE]),
                filename="" if at else f"{number}.dcm",
                end_of_file=at + PIECE >= len(content),
            )
            messages.append(message)
    messages[0].MergeFrom(UploadMultipleRequest(**options))
    return messages


async def upload(servicer: UploadServicer, *messages: Any) -> UploadResponse:
    """The answer to an upload of one file."""
    with called_by(TECHNOLOGIST):
        return await servicer.Upload(stream_of(*messages), FakeContext())


async def upload_multiple(servicer: UploadServicer, *messages: Any) -> list[UploadMultipleResponse]:
    """The answers to an upload of many files."""
    with called_by(TECHNOLOGIST):
        return [one async for one in servicer.UploadMultiple(stream_of(*messages), FakeContext())]


async def call(servicer: UploadServicer, rpc: str, **options: Any) -> None:
    """Uploads one good file of Ms Smith by either rpc."""
    content = file_of(tags_of())
    if rpc == "Upload":
        await upload(servicer, *pieces_of(content, **options))
    else:
        await upload_multiple(servicer, *many_of(content, **options))


def slice_of(number: int, **changed: str) -> bytes:
    """The file of an instance of its own, longer than a piece."""
    return file_of(tags_of(sop_instance_uid=f"1.2.3.1.{number}", **changed), b"x" * 400)


async def test_a_file_is_stored_and_told(world: World, servicer: UploadServicer) -> None:
    """A good file comes back as what is stored."""
    answer = await upload(servicer, *pieces_of(slice_of(1), name="dir/a.dcm", order_id=str(ORDER_OF_SMITH.id)))
    assert answer.success
    assert (answer.status, answer.filename) == ("stored", "a.dcm")
    assert answer.study_uid == answer.tags.study_instance_uid == STUDY
    assert answer.sop_instance_uid == "1.2.3.1.1"
    assert (answer.patient_id, answer.order_id) == (str(SMITH.id), str(ORDER_OF_SMITH.id))
    assert answer.upload_log_id == str(world.log().id)
    assert [held.content for held in world.pacs.held.values()] == [slice_of(1)]
    assert world.log().uploaded_by_id == TECHNOLOGIST.id
    assert world.files()[0].filename == "a.dcm"


@pytest.mark.parametrize("rpc", CALLS)
async def test_options_reach_the_file(world: World, servicer: UploadServicer, rpc: str) -> None:
    """Source, matching and every edit do what they say."""
    await call(
        servicer,
        rpc,
        patient_id=str(JONES.id),
        patient_match="COERCE",
        upload_source="cd_import",
        accession_number="ACC-JONES",
        study_date="20230101",
        study_description="Chest",
        set=["Modality=MR"],
    )
    (held,) = world.pacs.held.values()
    assert (held.tags.patient_id, held.tags.patient_name) == (JONES.mrn, JONES.full_name)
    assert (held.tags.accession_number, held.tags.study_date) == ("ACC-JONES", "20230101")
    assert (held.tags.study_description, held.tags.modality) == ("Chest", "MR")
    log = world.log()
    assert (log.upload_source, log.patient_id, log.order_id) == ("cd_import", JONES.id, ORDER_OF_JONES.id)


@pytest.mark.parametrize("rpc", CALLS)
async def test_an_empty_edit_empties(world: World, servicer: UploadServicer, rpc: str) -> None:
    """A field that is present and empty is an edit; one that is absent is none."""
    await call(servicer, rpc, patient_name="")
    (held,) = world.pacs.held.values()
    assert (held.tags.patient_name, held.tags.study_date) == ("", tags_of().study_date)


WRONG_OPTIONS = [
    ({"patient_id": "42"}, ["patient_id"]),
    ({"patient_id": f"{SMITH.id} "}, ["patient_id"]),
    ({"order_id": "x"}, ["order_id"]),
    ({"patient_id": "x", "order_id": "y"}, ["patient_id", "order_id"]),
    ({"upload_source": "fax"}, ["upload_source"]),
    ({"patient_match": "GUESS", "patient_id": str(SMITH.id)}, ["patient_match"]),
    ({"patient_match": "coerce", "patient_id": str(SMITH.id)}, ["patient_match"]),
    ({"patient_match": "COERCE"}, ["patient_match"]),
    ({"on_conflict": "keep"}, ["on_conflict"]),
    ({"patient_match": "ACCEPT"}, ["patient_match"]),
    ({"patient_match": "COERCE", "patient_id": str(SMITH.id), "dicom_patient_id": "X"}, ["PatientID"]),
    ({"patient_match": "COERCE", "patient_id": str(SMITH.id), "patient_name": ""}, ["PatientName"]),
    (
        {"patient_match": "COERCE", "patient_id": str(SMITH.id), "patient_birth_date": "1", "patient_sex": "M"},
        ["PatientBirthDate", "PatientSex"],
    ),
]


@pytest.mark.parametrize("rpc", CALLS)
@pytest.mark.parametrize(("options", "fields"), WRONG_OPTIONS)
async def test_wrong_options_are_told_before_anything_is_read(
    world: World, servicer: UploadServicer, rpc: str, options: dict[str, Any], fields: list[str]
) -> None:
    """Each wrong option is a violation of its own, by its JSON name, and nothing is stored or looked up."""
    with pytest.raises(InvalidFieldError) as raised:
        await call(servicer, rpc, **options)
    assert [violation.field for violation in raised.value.violations] == fields
    assert not world.pacs.held
    assert not world.database.hooks.passed
    names = {field.json_name for field in UploadRequest.DESCRIPTOR.fields}
    assert set(fields) <= names


@pytest.mark.parametrize("rpc", CALLS)
async def test_an_unknown_patient_or_order_is_an_error_of_the_call(
    world: World, servicer: UploadServicer, rpc: str
) -> None:
    """What the options name is looked up once, before any file."""
    nobody = str(UUID(int=404))
    with refused(Reason.PATIENT_NOT_FOUND):
        await call(servicer, rpc, patient_id=nobody)
    with refused(Reason.ORDER_NOT_FOUND):
        await call(servicer, rpc, order_id=nobody)
    with refused(Reason.ORDER_PATIENT_MISMATCH):
        await call(servicer, rpc, patient_id=str(SMITH.id), order_id=str(ORDER_OF_JONES.id))
    assert not world.tag_service.hooks.passed


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", Reason.EMPTY_FILE),
        (b"a text", Reason.NOT_DICOM),
        (slice_of(1).removesuffix(END), Reason.TRUNCATED_FILE),
        (slice_of(1) + b"x" * 5_000, Reason.FILE_TOO_LARGE),
    ],
)
async def test_a_bad_file_is_an_error_of_the_call(
    world: World, servicer: UploadServicer, content: bytes, reason: Reason
) -> None:
    """One file that is bad is told with its reason, and nothing is stored."""
    with refused(reason):
        await upload(servicer, *pieces_of(content))
    assert not world.pacs.held


async def test_no_message_at_all_is_no_file(servicer: UploadServicer) -> None:
    """An empty request stream has no file, by either rpc."""
    with refused(Reason.FILE_FIELD_MISSING):
        await upload(servicer)
    with refused(Reason.FILE_FIELD_MISSING):
        await upload_multiple(servicer)


async def test_a_second_file_is_not_taken_for_the_first(world: World, servicer: UploadServicer) -> None:
    """A form with two files is refused by the rpc for one, and neither is stored."""
    parts = b"".join(
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="f.dcm"\r\n\r\n' + slice_of(n) + b"\r\n"
        for n in (1, 2)
    )
    body = HttpBody(content_type="multipart/form-data; boundary=B", data=parts + b"--B--\r\n")
    with refused(Reason.TOO_MANY_FILES):
        await upload(servicer, UploadRequest(file=body))
    assert not world.pacs.held


async def test_a_request_that_breaks_in_its_file_stores_nothing(world: World, servicer: UploadServicer) -> None:
    """A client that goes away in the middle of its file leaves nothing, and an error."""
    broken = ServiceError(Reason.UPLOAD_STALLED, "No byte of the request came.")
    with refused(Reason.UPLOAD_STALLED):
        await upload(servicer, *pieces_of(slice_of(1))[:2], broken)
    assert not world.pacs.held
    assert world.log().upload_status is UploadStatus.FAILED


async def test_each_file_has_its_answer_in_order(world: World, servicer: UploadServicer) -> None:
    """Good files are stored whatever their neighbours are; each answer says of which file it is."""
    answers = await upload_multiple(
        servicer,
        *many_of(slice_of(1), b"a text", slice_of(2).removesuffix(END), slice_of(3)),
    )
    assert [(one.filename, one.status, one.error.reason) for one in answers] == [
        ("1.dcm", "stored", ""),
        ("2.dcm", "failed", "NOT_DICOM"),
        ("3.dcm", "failed", "TRUNCATED_FILE"),
        ("4.dcm", "stored", ""),
    ]
    assert [one.success for one in answers] == [True, False, False, True]
    assert {held.tags.sop_instance_uid for held in world.pacs.held.values()} == {"1.2.3.1.1", "1.2.3.1.3"}
    assert world.log().upload_status is UploadStatus.PARTIAL


async def test_a_file_that_is_too_large_fails_no_neighbour(world: World, servicer: UploadServicer) -> None:
    """Its own answer names the limit; the next file begins where it should."""
    answers = await upload_multiple(servicer, *many_of(slice_of(1) + b"x" * 5_000, slice_of(2)))
    assert [one.error.reason for one in answers] == ["FILE_TOO_LARGE", ""]
    assert answers[0].error.metadata["limit"] == "MAX_DICOM_FILE_SIZE_MB"
    assert {held.tags.sop_instance_uid for held in world.pacs.held.values()} == {"1.2.3.1.2"}


async def test_a_file_of_another_patient_fails_no_neighbour(world: World, servicer: UploadServicer) -> None:
    """With a named patient, another's file among many is refused alone."""
    other = file_of(tags_of(JONES, study_instance_uid="1.9", sop_instance_uid="1.9.1"))
    answers = await upload_multiple(servicer, *many_of(slice_of(1), other, slice_of(2), patient_id=str(SMITH.id)))
    assert [one.error.reason for one in answers] == ["", "PATIENT_MISMATCH", ""]
    assert world.patient_ids_in_pacs == {SMITH.mrn}


async def test_the_same_file_twice_is_one_stored_file(world: World, servicer: UploadServicer) -> None:
    """The second answer says that it was there already."""
    answers = await upload_multiple(servicer, *many_of(slice_of(1), slice_of(1)))
    assert [one.status for one in answers] == ["stored", "already_stored"]
    assert all(one.success for one in answers)
    assert world.log().number_of_files == 1


async def test_orthanc_away_for_one_file_fails_that_file(world: World, servicer: UploadServicer) -> None:
    """The next one gets its own chance."""
    world.pacs.hooks.at("store", raising(orthanc_away, times=1))
    answers = await upload_multiple(servicer, *many_of(slice_of(1), slice_of(2)))
    assert [one.error.reason for one in answers] == ["ORTHANC_UNAVAILABLE", ""]


@pytest.mark.parametrize("place", ["store", "fingerprint"])
async def test_a_defect_in_one_file_is_that_files(world: World, servicer: UploadServicer, place: str) -> None:
    """An error that nobody foresaw is told as INTERNAL_ERROR without its text, and the next file is stored."""
    world.pacs.hooks.at(place, raising(lambda: RuntimeError(SMITH.full_name), times=1))
    answers = await upload_multiple(servicer, *many_of(slice_of(1), slice_of(2)))
    assert [one.error.reason for one in answers] == ["INTERNAL_ERROR", ""]
    assert SMITH.full_name not in str(answers[0])
    assert {held.tags.sop_instance_uid for held in world.pacs.held.values()} == {"1.2.3.1.2"}


async def test_a_request_that_breaks_after_the_first_answer_ends_with_a_failed_one(
    world: World, servicer: UploadServicer
) -> None:
    """What was stored stays answered, and the last answer says what broke, without the name of any file."""
    broken = ServiceError(Reason.UPLOAD_STALLED, "No byte of the request came.")
    answers = await upload_multiple(servicer, *many_of(slice_of(1)), broken)
    assert [(one.filename, one.status, one.error.reason) for one in answers] == [
        ("1.dcm", "stored", ""),
        ("", "failed", "UPLOAD_STALLED"),
    ]
    assert len(world.pacs.held) == 1


async def test_a_request_that_breaks_in_a_file_never_calls_it_stored(world: World, servicer: UploadServicer) -> None:
    """The file that was cut is a failed one, and so is the request."""
    broken = ServiceError(Reason.UPLOAD_STALLED, "No byte of the request came.")
    answers = await upload_multiple(servicer, *many_of(slice_of(1), slice_of(2))[:-1], broken)
    assert [one.success for one in answers] == [True, False, False]
    assert {one.error.reason for one in answers[1:]} == {"UPLOAD_STALLED"}
    assert {held.tags.sop_instance_uid for held in world.pacs.held.values()} == {"1.2.3.1.1"}


async def test_a_request_that_breaks_before_any_file_is_an_error_of_the_call(servicer: UploadServicer) -> None:
    """Where nothing was answered yet, the call itself fails."""
    body = HttpBody(content_type="application/json", data=b"{}")
    with refused(Reason.UNSUPPORTED_MEDIA_TYPE):
        await upload_multiple(servicer, UploadMultipleRequest(file=body))
    form = HttpBody(content_type="multipart/form-data; boundary=B", data=b"no boundary at all")
    with refused(Reason.MULTIPART_INVALID):
        await upload_multiple(servicer, UploadMultipleRequest(file=form))


async def test_too_many_files_are_told_after_the_others(world: World, servicer: UploadServicer) -> None:
    """Files up to the limit are stored; from the first one too many on, nothing is."""
    answers = await upload_multiple(servicer, *many_of(*(slice_of(n) for n in range(6))))
    assert [one.error.reason for one in answers] == ["", "", "", "", "TOO_MANY_FILES"]
    assert len(world.pacs.held) == LIMITS.files


@pytest.mark.usefixtures("impatient")
async def test_a_request_that_is_too_large_is_told(world: World) -> None:
    """The file in which the request passes its limit is not stored."""
    files = [slice_of(n) + b"" for n in range(2)] + [b"a text" + b"x" * 4_900] * 2
    limits = UploadLimits(file_bytes=5_000, request_bytes=6_000, files=9, idle_seconds=5)
    answers = await upload_multiple(servicer_of(world, limits), *many_of(*files))
    assert [one.success for one in answers[:2]] == [True, True]
    assert not any(one.success for one in answers[2:])
    assert answers[-1].error.reason == "UPLOAD_TOO_LARGE"


async def test_the_database_away_is_an_error_of_the_call_or_of_its_files(
    world: World, servicer: UploadServicer
) -> None:
    """Away before the first file it fails the call; later, each file, and none is called stored."""
    away = raising(lambda: ServiceError(Reason.DATABASE_UNAVAILABLE, "Away.", retry_after=5), on=2)
    world.database.hooks.at("begin", away)
    answers = await upload_multiple(servicer, *many_of(slice_of(1), slice_of(2), patient_id=str(SMITH.id)))
    assert [one.error.reason for one in answers] == ["DATABASE_UNAVAILABLE"] * 2
    with refused(Reason.DATABASE_UNAVAILABLE):
        await upload_multiple(servicer, *many_of(slice_of(1), patient_id=str(SMITH.id)))


async def test_logs_are_listed_and_got(world: World, servicer: UploadServicer) -> None:
    """Pages of logs go on by their token; one log is got by its id; filters choose."""
    for uid in ("1.5", "1.6", "1.7"):
        world.clock.forward(hours=1)
        await world.send(tags_of(study_instance_uid=uid, sop_instance_uid=f"{uid}.1"))
    first = await servicer.ListUploadLogs(ListUploadLogsRequest(limit=2), FakeContext())
    assert [one.study_instance_uid for one in first.upload_logs] == ["1.7", "1.6"]
    assert first.total_size == 3
    rest = await servicer.ListUploadLogs(
        ListUploadLogsRequest(limit=2, page_token=first.next_page_token), FakeContext()
    )
    assert [one.study_instance_uid for one in rest.upload_logs] == ["1.5"]
    assert rest.next_page_token == ""
    got = await servicer.GetUploadLog(GetUploadLogRequest(id=rest.upload_logs[0].id), FakeContext())
    assert got.upload_log == rest.upload_logs[0]
    assert got.upload_log.uploaded_by == TECHNOLOGIST.full_name

    at = Timestamp()
    at.FromDatetime(world.clock())
    for chosen in (
        ListUploadLogsRequest(uploaded_from=at),
        ListUploadLogsRequest(study_instance_uid="1.7"),
    ):
        found = await servicer.ListUploadLogs(chosen, FakeContext())
        assert [one.study_instance_uid for one in found.upload_logs] == ["1.7"]
    for none in (
        ListUploadLogsRequest(upload_status="failed"),
        ListUploadLogsRequest(patient_id=str(JONES.id)),
        ListUploadLogsRequest(order_id=str(ORDER_OF_SMITH.id)),
        ListUploadLogsRequest(uploaded_until=Timestamp(seconds=0)),
    ):
        found = await servicer.ListUploadLogs(none, FakeContext())
        assert (list(found.upload_logs), found.total_size) == ([], 0)


async def test_wrong_filters_of_logs_are_each_told(servicer: UploadServicer) -> None:
    """Every wrong field is a violation of its own."""
    request = ListUploadLogsRequest(
        limit=-1,
        page_token="x",
        patient_id="x",
        order_id="x",
        study_instance_uid="1.*",
        upload_status="done",
        uploaded_from=Timestamp(seconds=2**60),
        uploaded_until=Timestamp(seconds=-(2**60)),
    )
    with pytest.raises(InvalidFieldError) as raised:
        await servicer.ListUploadLogs(request, FakeContext())
    fields = [violation.field for violation in raised.value.violations]
    assert sorted(fields) == sorted(field.json_name for field in ListUploadLogsRequest.DESCRIPTOR.fields)
    with pytest.raises(InvalidFieldError):
        await servicer.GetUploadLog(GetUploadLogRequest(id="x"), FakeContext())
    with refused(Reason.UPLOAD_LOG_NOT_FOUND):
        await servicer.GetUploadLog(GetUploadLogRequest(id=str(UUID(int=404))), FakeContext())


async def test_what_to_do_in_a_conflict_is_asked_for_by_name(world: World, servicer: UploadServicer) -> None:
    """KEEP reaches the use case, and its outcome is told as no failure."""
    await upload(servicer, *pieces_of(slice_of(1)))
    answer = await upload(servicer, *pieces_of(slice_of(1, study_description="other"), on_conflict="KEEP"))
    assert (answer.success, answer.status, answer.tags.study_description) == (True, "kept", "")
    assert "kept" in answer.message
    assert len(world.pacs.held) == 1


@pytest.mark.parametrize("rpc", ["Upload", "UploadMultiple"])
async def test_to_overwrite_is_for_those_who_may_delete(servicer: UploadServicer, rpc: str) -> None:
    """A technologist is refused before anything is read; a radiologist may."""
    with refused(Reason.ROLE_NOT_ALLOWED):
        await call(servicer, rpc, on_conflict="OVERWRITE")
    with called_by(RADIOLOGIST):
        messages = pieces_of(slice_of(1), on_conflict="OVERWRITE")
        assert (await servicer.Upload(stream_of(*messages), FakeContext())).status == "stored"
