"""What a failure leaves, wherever it comes: nothing in the PACS, a truthful log, and an error with the right reason."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

import pytest

from pacs_gateway.domain.upload import FileStatus, PatientMatch, UploadOptions
from pacs_gateway.domain.upload_log import UploadLog, UploadStatus
from service_runtime.errors import Reason, ServiceError
from tests.unit.pacs_gateway.fake_database import database_away
from tests.unit.pacs_gateway.fakes import (
    END,
    JONES,
    ORDER_OF_SMITH,
    SMITH,
    TECHNOLOGIST,
    World,
    file_of,
    orthanc_away,
    refused,
    tag_service_away,
    tags_of,
)
from tests.unit.pacs_gateway.hooks import Gate, raising


def orthanc_nonsense() -> ServiceError:
    """What the real one raises when Orthanc answers what it never should."""
    return ServiceError(Reason.ORTHANC_ERROR, "Orthanc's answer makes no sense.")


def failed(log: UploadLog, reason: str) -> bool:
    """Whether the log says that its only file failed, and why."""
    return (
        log.upload_status is UploadStatus.FAILED
        and log.error_message == f"1 of 1 files failed: {reason}"
        and log.number_of_files == log.total_size_bytes == 0
    )


def left_open(log: UploadLog) -> bool:
    """Whether the log does not claim to know what became of its only file."""
    return log.upload_status is UploadStatus.IN_PROGRESS and log.number_of_files == log.total_size_bytes == 0


async def cancelled_at(world: World, gate: Gate, *, times: int = 1, body: bytes = b"pixels") -> None:
    """Sends a file whose sender goes away when the gate is reached."""
    sending = asyncio.create_task(world.send(file_of(tags_of(), body)))
    await gate.reached.wait()
    for _ in range(times):
        sending.cancel()
        await asyncio.sleep(0)
    gate.opened.set()
    with pytest.raises(asyncio.CancelledError):
        await sending


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", Reason.EMPTY_FILE), (b"a text", Reason.NOT_DICOM), (b"\x89PNG", Reason.NOT_DICOM)]
)
async def test_what_is_no_dicom_leaves_no_trace(world: World, content: bytes, reason: Reason) -> None:
    """A body that is no DICOM file is of no study, so there is nothing to log."""
    with refused(reason):
        await world.send(content)
    assert not world.pacs.held
    assert not world.database.tables.logs


@pytest.mark.parametrize("place", ["read", "modify"])
async def test_without_tag_service_nothing_is_stored(world: World, place: str) -> None:
    """No file reaches Orthanc that tag_service has not seen."""
    world.tag_service.hooks.at(place, raising(tag_service_away))
    with refused(Reason.TAG_SERVICE_UNAVAILABLE):
        await world.send(tags_of())
    assert not world.pacs.held


async def test_tag_service_that_goes_away_in_the_middle_fails_the_file(world: World) -> None:
    """A file whose checking broke off is not stored, however much of it had passed."""
    world.tag_service.hooks.at("end", raising(tag_service_away))
    with refused(Reason.TAG_SERVICE_UNAVAILABLE):
        await world.send(tags_of())
    assert not world.pacs.held
    log = world.database.log_of(tags_of().study_instance_uid)
    assert log is None if world.holds_files else failed(world.log(), "TAG_SERVICE_UNAVAILABLE")


@pytest.mark.parametrize("body", [b"", b"x" * 10_000])
async def test_a_file_that_is_cut_short_at_its_end_is_not_stored(world: World, body: bytes) -> None:
    """Truncation is found at the last byte, when Orthanc has had all the others, and still nothing is stored."""
    with refused(Reason.TRUNCATED_FILE):
        await world.send(file_of(tags_of(), body).removesuffix(END))
    assert not world.pacs.held
    assert failed(world.log(), "TRUNCATED_FILE")


@pytest.mark.parametrize("after", [1, 3, 300])
async def test_a_request_that_breaks_in_the_middle_of_a_file_stores_nothing(world: World, after: int) -> None:
    """What breaks the sender's request fails the file, with the request's own reason."""

    async def breaking() -> AsyncGenerator[bytes, None]:
        content = file_of(tags_of(), bytes(2_000_000))
        for n in range(after):
            yield content[n * 6000 : (n + 1) * 6000]
        raise ServiceError(Reason.UPLOAD_STALLED, "No byte of the request came.")

    upload = await world.uploads().open(UploadOptions(), by=TECHNOLOGIST.id)
    with refused(Reason.UPLOAD_STALLED):
        await upload.store("slice.dcm", breaking())
    assert not world.pacs.held
    assert failed(world.log(), "UPLOAD_STALLED")
    assert len(world.database.tables.files) == 1


@pytest.mark.parametrize("options", [{}, {"patient_id": SMITH.id, "patient_match": PatientMatch.COERCE}], ids=str)
async def test_a_sender_who_leaves_amid_a_file_leaves_a_log_that_says_so(
    world: World, options: dict[str, object]
) -> None:
    """A file whose sender goes away while it comes fails in the log of the patient whom it was for."""
    paused = asyncio.Event()

    async def pausing() -> AsyncGenerator[bytes, None]:
        yield file_of(tags_of(JONES if options else SMITH), b"x" * 1000)[:800]
        paused.set()
        await asyncio.sleep(60)

    upload = await world.uploads().open(UploadOptions(**options), by=TECHNOLOGIST.id)
    sending = asyncio.create_task(upload.store("slice.dcm", pausing()))
    await paused.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert not world.pacs.held
    assert failed(world.log(), "CANCELLED")
    assert world.log().patient_id == SMITH.id


@pytest.mark.parametrize("place", ["store", "chunk"])
async def test_orthanc_that_is_away_fails_the_file(world: World, place: str) -> None:
    """Orthanc away before or while storing: nothing is stored, and the log says why."""
    world.pacs.hooks.at(place, raising(orthanc_away))
    with refused(Reason.ORTHANC_UNAVAILABLE):
        await world.send(tags_of())
    assert not world.pacs.held
    assert failed(world.log(), "ORTHANC_UNAVAILABLE")


async def test_without_orthanc_to_ask_no_new_study_is_begun(world: World) -> None:
    """Whether another patient has the study cannot be seen: the file is refused and nothing logged."""
    world.pacs.hooks.at("find_studies", raising(orthanc_away))
    with refused(Reason.ORTHANC_UNAVAILABLE):
        await world.send(tags_of())
    assert not world.database.tables.logs


@pytest.mark.parametrize("place", ["stored", "fingerprint"])
async def test_an_answer_of_orthanc_that_is_lost_is_made_good_by_sending_again(world: World, place: str) -> None:
    """Where Orthanc has the file and the gateway does not know, the file is not called stored; sending it again ends
    well, and it counts once.
    """
    world.pacs.hooks.at(place, raising(orthanc_away, times=1))
    with refused(Reason.ORTHANC_UNAVAILABLE):
        await world.send(tags_of())
    assert left_open(world.log())
    stored = await world.send(tags_of())
    assert stored.status is FileStatus.ALREADY_STORED
    assert world.log().upload_status is UploadStatus.SUCCESS
    assert world.log().number_of_files == len(world.pacs.held) == 1


async def test_what_reads_back_otherwise_is_taken_out_again(world: World) -> None:
    """A file that Orthanc holds with another content than was sent is no stored file, and does not stay."""
    world.pacs.corrupting = True
    with refused(Reason.STORE_UNVERIFIED):
        await world.send(tags_of(), order_id=ORDER_OF_SMITH.id)
    assert not world.pacs.held
    assert failed(world.log(), "STORE_UNVERIFIED")
    assert world.order().study is None


async def test_what_reads_back_otherwise_and_cannot_be_taken_out_is_to_be_sent_again(world: World) -> None:
    """Where Orthanc goes away before the wrong instance could be deleted, the error says to send the file again."""
    world.pacs.corrupting = True
    world.pacs.hooks.at("delete_instance", raising(orthanc_away))
    with refused(Reason.ORTHANC_UNAVAILABLE):
        await world.send(tags_of())
    assert left_open(world.log())


async def test_what_orthanc_lost_at_once_is_not_stored(world: World) -> None:
    """An instance that Orthanc said it had stored and does not hold is no stored file."""

    async def lose() -> None:
        world.pacs.held.clear()

    world.pacs.hooks.at("stored", lose)
    with refused(Reason.STORE_UNVERIFIED):
        await world.send(tags_of())
    assert failed(world.log(), "STORE_UNVERIFIED")


@pytest.mark.parametrize("place", ["fingerprint", "counts"])
async def test_nonsense_after_storing_leaves_nothing(world: World, place: str) -> None:
    """An error that sending again does not mend takes the instance out of the PACS again."""
    world.pacs.hooks.at(place, raising(orthanc_nonsense))
    with refused(Reason.ORTHANC_ERROR):
        await world.send(tags_of(), order_id=ORDER_OF_SMITH.id)
    assert not world.pacs.held
    assert failed(world.log(), "ORTHANC_ERROR")
    assert world.order().study is None


async def test_a_failure_never_takes_out_what_was_there_before(world: World) -> None:
    """A file that was stored by an earlier upload stays, whatever becomes of the one that sends it again."""
    await world.send(tags_of())
    world.pacs.hooks.at("fingerprint", raising(orthanc_nonsense))
    with refused(Reason.ORTHANC_ERROR):
        await world.send(tags_of())
    assert len(world.pacs.held) == 1
    assert world.log().number_of_files == 1
    assert world.log().upload_status is UploadStatus.SUCCESS


@pytest.mark.parametrize(("place", "outcome"), [("store", "failed"), ("stored", "open"), ("fingerprint", "failed")])
async def test_a_defect_is_no_success(world: World, place: str, outcome: str) -> None:
    """Also an error that nobody foresaw fails the file in the log, or leaves it open where the file may be stored, and
    stays itself.
    """
    world.pacs.hooks.at(place, raising(RuntimeError))
    with pytest.raises(RuntimeError):
        await world.send(tags_of())
    # Of a file that is handed over as a whole, nobody knows how far it came.
    is_open = outcome == "open" or (place == "store" and world.holds_files)
    assert left_open(world.log()) if is_open else failed(world.log(), "INTERNAL_ERROR")


async def test_without_the_database_nothing_begins(world: World) -> None:
    """No byte is read for an upload whose patient cannot be looked up."""
    world.database.hooks.at("begin", raising(database_away))
    with refused(Reason.DATABASE_UNAVAILABLE):
        await world.send(tags_of(), patient_id=SMITH.id)
    assert not world.tag_service.hooks.passed


@pytest.mark.parametrize(("place", "on"), [("begin", 1), ("begin", 2), ("commit", 1)])
async def test_without_the_first_transaction_nothing_is_stored(world: World, place: str, on: int) -> None:
    """No file is stored before the log says that it is on its way."""
    world.database.hooks.at(place, raising(database_away, on=on))
    with refused(Reason.DATABASE_UNAVAILABLE):
        await world.send(tags_of())
    assert not world.pacs.held
    assert not world.pacs.hooks.passed["store"]
    assert not world.database.tables.logs


@pytest.mark.parametrize("on", [1, 2])
async def test_without_the_ledger_nothing_is_stored(world: World, on: int) -> None:
    """No file is stored, not even sent, before its entry is on disk, and its end not before the digests are."""
    await world.send(tags_of(sop_instance_uid="1.2.9"))
    world.database.hooks.clear()
    world.pacs.hooks.passed["chunk"] = 0
    world.database.hooks.at("ledger", raising(database_away, on=on))
    with refused(Reason.DATABASE_UNAVAILABLE):
        await world.send(file_of(tags_of(), bytes(2_000_000)))
    assert len(world.pacs.held) == 1
    assert world.pacs.hooks.passed["stored"] == 1
    assert (world.pacs.hooks.passed["chunk"] > 0) == (on == 2)
    assert world.log().number_of_files == 1
    assert len(world.database.ledger.abandoned) == 1


@pytest.mark.parametrize(("place", "on"), [("begin", 4), ("commit", 2)])
async def test_a_database_that_goes_away_after_storing_leaves_a_log_in_progress(
    world: World, place: str, on: int
) -> None:
    """What cannot be logged is not called stored; the log does not claim to know, and sending again ends well."""
    world.database.hooks.at(place, raising(database_away, on=on))
    with refused(Reason.DATABASE_UNAVAILABLE):
        await world.send(tags_of(), order_id=ORDER_OF_SMITH.id)
    assert left_open(world.log())
    assert world.order().study is None
    world.database.hooks.clear()
    stored = await world.send(tags_of(), order_id=ORDER_OF_SMITH.id)
    assert stored.status is FileStatus.ALREADY_STORED
    assert world.log().number_of_files == len(world.pacs.held) == 1


async def test_a_sender_who_leaves_before_the_study_is_known_leaves_no_trace(world: World) -> None:
    """Cancelled while tag_service reads: nothing is stored, and of no study is there anything to log."""
    gate = Gate()
    world.tag_service.hooks.at("read", gate)
    await cancelled_at(world, gate)
    assert not world.pacs.held
    assert not world.database.tables.logs


@pytest.mark.parametrize("place", ["commit", "committed"])
async def test_a_sender_who_leaves_as_the_file_sets_out_leaves_no_log_in_progress(world: World, place: str) -> None:
    """Cancelled around the first commit: no log says that a file is on its way which is not."""
    gate = Gate()
    world.database.hooks.at(place, gate)
    await cancelled_at(world, gate)
    assert not world.pacs.held
    log = world.database.log_of(tags_of().study_instance_uid)
    assert log is None or failed(log, "CANCELLED")


@pytest.mark.parametrize("place", ["store", "chunk"])
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_sender_who_leaves_while_it_is_stored_leaves_nothing(world: World, place: str, times: int) -> None:
    """Cancelled while the bytes travel: Orthanc keeps nothing, and the log says what happened."""
    gate = Gate()
    world.pacs.hooks.at(place, gate)
    await cancelled_at(world, gate, times=times, body=bytes(2_000_000))
    assert not world.pacs.held
    assert failed(world.log(), "CANCELLED")


@pytest.mark.parametrize("place", ["stored", "fingerprint"])
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_sender_who_leaves_after_it_is_stored_leaves_a_whole_upload(
    world: World, place: str, times: int
) -> None:
    """Once Orthanc has the file, answered or not, it is read back and logged, however often the call is cancelled."""
    gate = Gate()
    world.pacs.hooks.at(place, gate)
    await cancelled_at(world, gate, times=times)
    assert len(world.pacs.held) == 1
    assert world.log().upload_status is UploadStatus.SUCCESS
    assert world.log().number_of_files == 1


async def test_a_sender_who_leaves_a_file_that_reads_back_otherwise_leaves_nothing(world: World) -> None:
    """Also what goes wrong after the sender left is cleaned up."""
    gate = Gate()
    world.pacs.corrupting = True
    world.pacs.hooks.at("fingerprint", gate)
    await cancelled_at(world, gate)
    assert not world.pacs.held
    assert failed(world.log(), "STORE_UNVERIFIED")


async def test_a_slow_orthanc_holds_up_no_other_study(world: World) -> None:
    """While the bytes of one study travel, another study is uploaded."""
    gate = Gate()
    world.pacs.hooks.at("chunk", gate)
    slow = asyncio.create_task(world.send(tags_of()))
    await gate.reached.wait()
    world.pacs.hooks.clear()
    await world.send(tags_of(study_instance_uid="1.9", sop_instance_uid="1.9.1"))
    assert world.log("1.9").upload_status is UploadStatus.SUCCESS
    assert not slow.done()
    gate.opened.set()
    await slow


@pytest.mark.parametrize("failing", [orthanc_away, orthanc_nonsense, RuntimeError, database_away])
async def test_a_failure_holds_no_lock(world: World, failing: Callable[[], Exception]) -> None:
    """Whatever went wrong after storing, the study is free for the next upload."""
    world.pacs.hooks.at("fingerprint", raising(failing, times=1))
    with suppress(ServiceError, RuntimeError):
        await world.send(tags_of())
    async with asyncio.timeout(5):
        await world.send(tags_of())
    assert world.log().upload_status is UploadStatus.SUCCESS
