"""ZIP archives through UploadService: what is stored of them, and what DICOMDIRs are told."""

import pytest
from google.api.httpbody_pb2 import HttpBody

from ris.pacs.v1.upload_service_pb2 import UploadMultipleRequest, UploadMultipleResponse, UploadRequest
from service_runtime.errors import Reason
from tests.unit.pacs_gateway.fakes import JONES, SMITH, World, file_of, refused, tags_of
from tests.unit.pacs_gateway.hooks import raising
from tests.unit.pacs_gateway.test_upload_service import servicer_of, slice_of, upload, upload_multiple
from tests.unit.service_runtime.zips import ENCRYPTED, STORED, Entry, zip_of

ZIP = "application/zip"


async def imported(world: World, *entries: Entry, **options: str) -> list[UploadMultipleResponse]:
    """The answers to an archive of these."""
    return await import_bytes(world, zip_of(*entries), **options)


async def import_bytes(world: World, archive: bytes, **options: str) -> list[UploadMultipleResponse]:
    """The answers to these bytes, sent as an archive."""
    first = UploadMultipleRequest(file=HttpBody(data=archive[:500], content_type=ZIP), **options)
    rest = UploadMultipleRequest(file=HttpBody(data=archive[500:]))
    return await upload_multiple(servicer_of(world), first, rest)


def told(answers: list[UploadMultipleResponse]) -> list[tuple[str, str, str]]:
    """Of each answer the name, the status and the reason."""
    return [(one.filename, one.status, one.error.reason) for one in answers]


def directory(**files: bytes | str) -> Entry:
    """A DICOMDIR that names files (I1 for DICOM/I1), each with the SOP instance of its content, or this one."""
    numbers = {name: uid if isinstance(uid, str) else uid.decode() for name, uid in files.items()}
    return Entry("DICOMDIR", "".join(f"DICOM/{name} {uid}\n" for name, uid in numbers.items()).encode())


async def test_an_archive_is_stored_and_what_is_no_dicom_passed_over(world: World) -> None:
    """Each file of an archive has its answer; texts and empty files are skipped, and folders not spoken of."""
    answers = await imported(
        world,
        Entry("CD/", b"", STORED),
        Entry("CD/README.TXT", b"a text"),
        Entry("CD/I1", slice_of(1)),
        Entry("CD/../I2", slice_of(2), STORED, descriptor=""),
        Entry("CD/EMPTY", b""),
    )
    assert told(answers) == [
        ("README.TXT", "skipped", "NOT_DICOM"),
        ("I1", "stored", ""),
        ("I2", "stored", ""),
        ("EMPTY", "skipped", "EMPTY_FILE"),
    ]
    assert [one.success for one in answers] == [False, True, True, False]
    assert {held.content for held in world.pacs.held.values()} == {slice_of(1), slice_of(2)}
    assert [file.filename for file in world.files()] == ["I1", "I2"]


async def test_a_text_that_is_no_file_of_an_archive_fails(world: World) -> None:
    """Only within an archive is a file that is no DICOM file nobody's mistake."""
    request = UploadMultipleRequest(file=HttpBody(data=b"a text"))
    assert told(await upload_multiple(servicer_of(world), request)) == [("", "failed", "NOT_DICOM")]


@pytest.mark.parametrize(("given", "source"), [("", "cd_import"), ("api", "api")])
async def test_an_archive_is_a_cd_unless_told_otherwise(world: World, given: str, source: str) -> None:
    """A request that begins with an archive has the source cd_import by default."""
    await imported(world, Entry("I1", slice_of(1)), upload_source=given)
    assert world.log().upload_source == source


@pytest.mark.usefixtures("impatient")
async def test_bad_entries_fail_alone(world: World) -> None:
    """A broken, an encrypted and a nested entry fail, and so does another patient's file; nothing of them is stored."""
    other = file_of(tags_of(JONES, study_instance_uid="1.9", sop_instance_uid="1.9.1"))
    answers = await imported(
        world,
        Entry("BROKEN", slice_of(1), told={"crc": 7}, listed={"crc": 7}),
        Entry("LOCKED", slice_of(2), flags=ENCRYPTED),
        Entry("NESTED.ZIP", zip_of(Entry("I3", slice_of(3)))),
        Entry("OTHER", other),
        Entry("I4", slice_of(4)),
        patient_id=str(SMITH.id),
    )
    assert told(answers) == [
        ("BROKEN", "failed", "ARCHIVE_INVALID"),
        ("LOCKED", "failed", "ARCHIVE_UNSUPPORTED"),
        ("NESTED.ZIP", "failed", "ARCHIVE_UNSUPPORTED"),
        ("OTHER", "failed", "PATIENT_MISMATCH"),
        ("I4", "stored", ""),
    ]
    assert {held.content for held in world.pacs.held.values()} == {slice_of(4)}


async def test_an_archive_that_breaks_off_says_so_last(world: World) -> None:
    """What was stored stays answered; the file that was cut is not stored; no DICOMDIR is held against half of it."""
    archive = zip_of(directory(I1="1.2.3.1.1"), Entry("DICOM/I1", slice_of(1)), Entry("DICOM/I2", slice_of(2), STORED))
    answers = await import_bytes(world, archive[: archive.index(b'"1.2.3.1.2"') + 300])
    assert told(answers) == [
        ("I1", "stored", ""),
        ("I2", "failed", "ARCHIVE_INVALID"),
        ("", "failed", "ARCHIVE_INVALID"),
    ]
    assert {held.content for held in world.pacs.held.values()} == {slice_of(1)}
    with refused(Reason.ARCHIVE_INVALID):
        await import_bytes(world, b"no archive")
    with refused(Reason.FILE_FIELD_MISSING):
        await import_bytes(world, zip_of())


async def test_one_file_is_no_archive(world: World) -> None:
    """Upload refuses an archive by what it is."""
    request = UploadRequest(file=HttpBody(data=zip_of(Entry("I1", slice_of(1))), content_type=ZIP))
    with refused(Reason.UNSUPPORTED_MEDIA_TYPE):
        await upload(servicer_of(world), request)


async def test_a_dicomdir_that_agrees_is_skipped_and_no_more(world: World) -> None:
    """A DICOMDIR that names the files there are is answered behind them, without an error."""
    answers = await imported(
        world,
        directory(I1="1.2.3.1.1", I2="1.2.3.1.2"),
        Entry("dicom/i1.", slice_of(1)),
        Entry("DICOM/I2;1", slice_of(2)),
        Entry("AUTORUN.INF", b"a text"),
    )
    assert told(answers)[-1] == ("DICOMDIR", "skipped", "")
    assert not answers[-1].HasField("directory")
    assert [one.status for one in answers] == ["stored", "stored", "skipped", "skipped"]


async def test_a_dicomdir_that_disagrees_is_reported(world: World) -> None:
    """Files that it names and are not there, that are there and not named, and that are other instances, are told."""
    answers = await imported(
        world,
        Entry("DICOM/I1", slice_of(1)),
        directory(I1="1.2.3.1.77", I2="1.2.3.1.2", I4="1.2.3.1.4"),
        Entry("DICOM/I3", slice_of(3)),
        Entry("DICOM/I4", slice_of(4)),
    )
    assert told(answers)[-1] == ("DICOMDIR", "skipped", "DIRECTORY_MISMATCH")
    report = answers[-1].directory
    assert (report.missing, report.unlisted) == (["DICOM/I2"], ["DICOM/I3"])
    assert report.other_instances == ["DICOM/I1"]
    assert len(world.pacs.held) == 3


async def test_a_file_that_failed_is_there_all_the_same(world: World) -> None:
    """A DICOMDIR is held against the files there are, stored or not."""
    answers = await imported(
        world, directory(I1="1.2.3.1.1"), Entry("DICOM/I1", slice_of(1, patient_id="X")), patient_id=str(SMITH.id)
    )
    assert [one.error.reason for one in answers] == ["PATIENT_MISMATCH", ""]


async def test_an_instance_that_an_edit_renames_is_not_missed(world: World) -> None:
    """Where edits may give files other SOPInstanceUIDs, these are not held against the DICOMDIR's."""
    first = UploadMultipleRequest(
        file=HttpBody(data=zip_of(directory(I1="1.2.3.1.77"), Entry("DICOM/I1", slice_of(1))), content_type=ZIP),
        force=True,
    )
    assert told(await upload_multiple(servicer_of(world), first))[-1] == ("DICOMDIR", "skipped", "")


async def test_media_of_one_request_are_kept_apart(world: World) -> None:
    """Two CDs in one archive, or in two, each have a DICOMDIR of their own."""
    one = directory(I1="1.2.3.1.1")
    two = Entry("CD2/DICOMDIR", b"I2 1.2.3.1.2\n")
    answers = await imported(
        world, Entry("CD1/DICOMDIR", one.data), two, Entry("CD1/DICOM/I1", slice_of(1)), Entry("CD2/I2", slice_of(2))
    )
    assert [status for _, *status in told(answers)] == [
        ["stored", ""],
        ["stored", ""],
        ["skipped", ""],
        ["skipped", ""],
    ]
    requests = [
        UploadMultipleRequest(file=HttpBody(data=zip_of(*entries), content_type=ZIP), end_of_file=True)
        for entries in ([one, Entry("DICOM/I1", slice_of(1))], [Entry("DICOMDIR", b""), Entry("DICOM/I2", slice_of(2))])
    ]
    answers = await upload_multiple(servicer_of(world), *requests)
    assert told(answers) == [
        ("I1", "already_stored", ""),
        ("DICOMDIR", "skipped", ""),
        ("I2", "already_stored", ""),
        ("DICOMDIR", "skipped", "DIRECTORY_MISMATCH"),
    ]


async def test_a_dicomdir_that_cannot_be_read_fails_alone(world: World) -> None:
    """One that is too large, or that tag_service cannot read, is told with its reason."""
    answers = await imported(world, Entry("DICOMDIR", b"\n" * 4999, told={"crc": 1}, listed={"crc": 1}))
    assert told(answers) == [("DICOMDIR", "failed", "ARCHIVE_INVALID")]
    world.tag_service.hooks.at("read", raising(lambda: RuntimeError("defect")))
    answers = await imported(world, directory(I1="1"))
    assert told(answers) == [("DICOMDIR", "failed", "INTERNAL_ERROR")]


async def test_dicomdirs_take_bounded_room(world: World) -> None:
    """So many DICOMDIRs are held for an archive and no more; the others are told, and nothing else fails."""
    answers = await imported(world, *(Entry(f"{number}/DICOMDIR", b"A 1\n") for number in range(10)))
    assert [one.error.reason for one in answers] == ["DIRECTORY_MISMATCH"] * 8 + ["STRUCTURE_LIMIT"] * 2
    assert answers[-1].error.metadata["limit"] == "DICOMDIR files"
