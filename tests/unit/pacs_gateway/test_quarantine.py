"""What the quarantine takes in, and that nobody but it ever notices that it could not."""

import asyncio
import os
import resource
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from pacs_gateway.domain.ledger import Content, FileState
from pacs_gateway.domain.quarantine import KEPT_FOR, QuarantineAction, QuarantinedFile, Refused, quarantined
from pacs_gateway.domain.tags import Edits
from pacs_gateway.domain.upload import UnknownPatients, UploadOptions
from pacs_gateway.use_cases.quarantine import Retraceable
from pacs_gateway.use_cases.streams import Keeping
from service_runtime.bodies import Piece
from service_runtime.errors import Reason, ServiceError
from service_runtime.uploads import MIB, UploadLimits, UploadReader
from tests.unit.pacs_gateway.fake_database import database_away
from tests.unit.pacs_gateway.fakes import (
    JONES,
    ORDER_OF_SMITH,
    SMITH,
    TECHNOLOGIST,
    World,
    chunks_of,
    file_of,
    tag_service_away,
    tags_of,
)
from tests.unit.pacs_gateway.hooks import Gate, raising
from tests.unit.pacs_gateway.quarantine_world import KEPT_BYTES, folder_at, quarantine_of

OF_JONES = file_of(tags_of(JONES), b"pixels" * 1000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the files lie; it is not there yet."""
    return tmp_path / "quarantine"


@pytest.fixture
def keeping(world: World, folder: Path) -> Iterator[Keeping]:
    """What is held of files, of which nothing may be left at the end. The world has a quarantine."""
    with quarantine_of(world, folder) as keeping:
        yield keeping
        assert keeping._held == 0


async def refusal(world: World, file: Any, **options: Any) -> ServiceError:
    """The error that the upload of a file ends with."""
    with pytest.raises(ServiceError) as raised:
        await world.send(file, **options)
    return raised.value


def names(folder: Path) -> set[str]:
    """What lies in the folder."""
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def modes(*paths: Path) -> list[int]:
    """Who may do what with them."""
    return [path.stat().st_mode & 0o777 for path in paths]


def only_file(world: World) -> QuarantinedFile:
    """The only file in the quarantine."""
    (file,) = world.database.quarantine.files.values()
    return file


REFUSALS = {
    Reason.PATIENT_MISMATCH: {"patient_id": SMITH.id},
    Reason.PATIENT_ID_MISSING: {"edits": Edits(patient_id="")},
    Reason.PATIENT_UNKNOWN: {"edits": Edits(patient_id="MRN-NOBODY"), "unknown": UnknownPatients.REJECT},
    Reason.ORDER_PATIENT_MISMATCH: {"order_id": ORDER_OF_SMITH.id},
    Reason.STUDY_PATIENT_MISMATCH: {},
}


@pytest.mark.usefixtures("keeping")
@pytest.mark.parametrize("reason", REFUSALS)
async def test_a_file_that_is_refused_for_whose_it_is_is_kept_as_it_came(
    world: World, folder: Path, reason: Reason
) -> None:
    """Its bytes, before any edit, lie in the folder under its id, for the gateway alone, and the ledger says so."""
    if reason is Reason.STUDY_PATIENT_MISMATCH:
        await world.send(tags_of(SMITH))
    held = dict(world.pacs.held)
    error = await refusal(world, OF_JONES, name="../a\x00b.dcm", **REFUSALS[reason])
    file = only_file(world)
    assert error.reason is reason
    assert error.metadata.items() >= {("quarantine_id", str(file.id))}
    assert "quarantine_error" not in error.metadata
    assert names(folder) == {str(file.id)}
    path = folder / str(file.id)
    assert path.read_bytes() == OF_JONES
    assert modes(folder, path) == [0o700, 0o600]
    assert (file.reason, file.source.size_bytes, file.refusals) == (reason.value, len(OF_JONES), 1)
    assert (file.original_patient_id, file.filename) == (JONES.mrn, "../a\x00b.dcm")
    (event,) = world.database.quarantine.events[file.id]
    assert event.action is QuarantineAction.QUARANTINED
    entry = next(one for one in world.database.tables.files.values() if one.state is FileState.QUARANTINED)
    assert (entry.error, entry.source, entry.upload_log_id) == (reason.value, file.source, None)
    assert world.pacs.held == held


def test_every_reason_that_files_are_kept_for_is_tried() -> None:
    """The test above looks at each of them."""
    assert set(REFUSALS) == KEPT_FOR


@pytest.mark.usefixtures("keeping")
async def test_edits_do_not_reach_what_is_kept(world: World, folder: Path) -> None:
    """Of a file that went through tag_service for its edits, too, the bytes that were sent are kept."""
    edits = Edits(study_description="Other", remove_private_tags=True)
    error = await refusal(world, OF_JONES, patient_id=SMITH.id, edits=edits)
    assert (folder / error.metadata["quarantine_id"]).read_bytes() == OF_JONES


@pytest.mark.usefixtures("keeping")
@pytest.mark.parametrize("content", [b"", b"a text", OF_JONES[:-1]])
async def test_what_is_wrong_with_itself_is_not_kept(world: World, folder: Path, content: bytes) -> None:
    """The quarantine is for files that would be stored for another patient, not for broken ones."""
    error = await refusal(world, content, patient_id=JONES.id)
    assert error.reason not in KEPT_FOR
    assert "quarantine_error" not in error.metadata
    assert not names(folder)


@pytest.mark.usefixtures("keeping")
async def test_a_cut_file_is_not_kept(world: World, folder: Path) -> None:
    """Its refusal is the one that it would have been, and says that the file ends too early."""
    error = await refusal(world, OF_JONES[:-1], patient_id=SMITH.id)
    assert (error.reason, error.metadata) == (Reason.PATIENT_MISMATCH, {"quarantine_error": "TRUNCATED_FILE"})
    assert not names(folder)
    assert not world.database.quarantine.files
    assert not world.database.tables.files


@pytest.mark.usefixtures("keeping")
async def test_the_same_bytes_are_one_file(world: World, folder: Path) -> None:
    """Refused again, for another reason, they count twice, and the newer refusal is the one that is told."""
    first = await refusal(world, OF_JONES, patient_id=SMITH.id)
    world.clock.forward(hours=1)
    second = await refusal(world, OF_JONES, order_id=ORDER_OF_SMITH.id, name="again.dcm")
    assert first.metadata["quarantine_id"] == second.metadata["quarantine_id"]
    file = only_file(world)
    assert (file.refusals, file.reason) == (2, "ORDER_PATIENT_MISMATCH")
    assert (file.patient_id, file.order_id, file.filename) == (None, ORDER_OF_SMITH.id, "again.dcm")
    assert file.refused_at == world.clock()
    assert file.quarantined_at < file.refused_at
    assert names(folder) == {str(file.id)}
    assert (folder / str(file.id)).read_bytes() == OF_JONES


@pytest.mark.usefixtures("keeping")
async def test_bytes_that_were_lost_are_there_again_when_they_come_again(world: World, folder: Path) -> None:
    """What somebody removed from the folder is put back by the next refusal of the same bytes."""
    error = await refusal(world, OF_JONES, patient_id=SMITH.id)
    (folder / error.metadata["quarantine_id"]).unlink()
    await refusal(world, OF_JONES, patient_id=SMITH.id)
    assert (folder / error.metadata["quarantine_id"]).read_bytes() == OF_JONES


@pytest.mark.usefixtures("keeping")
async def test_a_full_quarantine_keeps_nothing_more(world: World, folder: Path) -> None:
    """All files together never take up more than they may, and the refusal says that there was no room."""
    for number in range(KEPT_BYTES // len(OF_JONES)):
        error = await refusal(world, file_of(tags_of(JONES), bytes([number]) * 6000), patient_id=SMITH.id)
        assert "quarantine_id" in error.metadata
    before = names(folder)
    error = await refusal(world, OF_JONES, patient_id=SMITH.id)
    assert (error.reason, error.metadata) == (Reason.PATIENT_MISMATCH, {"quarantine_error": "QUARANTINE_FULL"})
    assert names(folder) == before
    assert sum((folder / name).stat().st_size for name in before) <= KEPT_BYTES


@pytest.mark.usefixtures("keeping")
async def test_a_quarantine_that_others_fill_meanwhile_keeps_nothing_more(world: World, folder: Path) -> None:
    """What other gateways took in while a file came counts, and the file that came leaves the folder."""
    gate = Gate()
    world.tag_service.hooks.at("end", gate)
    late = asyncio.create_task(refusal(world, OF_JONES, patient_id=SMITH.id))
    await gate.reached.wait()
    refused = Refused("x", uuid4(), TECHNOLOGIST.id, UploadOptions(), "")
    of_another = Content(KEPT_BYTES - 10, "f" * 64)
    error = ServiceError(Reason.PATIENT_MISMATCH, "")
    file = quarantined(uuid4(), refused, error, tags_of(JONES), of_another, at=world.clock())
    world.database.quarantine.files[file.id] = file
    gate.opened.set()
    assert (await late).metadata == {"quarantine_error": "QUARANTINE_FULL"}
    assert not names(folder)


async def test_no_more_comes_in_at_once_than_there_is_room_for(folder: Path) -> None:
    """Files that come in at the same moment share the room, and give it back."""
    with folder_at(folder) as disk:
        async with disk.arriving(UUID(int=1), room=10) as first:
            assert [chunk async for chunk in first.passing(chunks_of(b"123456", 3))] == [b"123", b"456"]
            async with disk.arriving(UUID(int=2), room=10) as second:
                with pytest.raises(ServiceError) as raised:
                    _ = [chunk async for chunk in second.passing(chunks_of(b"12345"))]
        assert raised.value.reason is Reason.QUARANTINE_FULL
        async with disk.arriving(UUID(int=3), room=10) as third:
            assert [chunk async for chunk in third.passing(chunks_of(b"1234567890"))]
            assert (await third.stay()).size_bytes == 10
    assert names(folder) == {str(UUID(int=3))}


@contextmanager
def disk_of(size_bytes: int) -> Iterator[None]:
    """A disk on which no file can be larger."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("keeping")
async def test_a_full_disk_keeps_nothing(world: World, folder: Path) -> None:
    """What the disk does not take is not kept, and nothing of it stays."""
    with disk_of(len(OF_JONES) - 1):
        error = await refusal(world, OF_JONES, patient_id=SMITH.id)
    assert (error.reason, error.metadata) == (Reason.PATIENT_MISMATCH, {"quarantine_error": "QUARANTINE_FULL"})
    assert not names(folder)
    assert not world.database.quarantine.files


@pytest.mark.usefixtures("keeping")
async def test_a_folder_that_cannot_be_used_keeps_nothing(world: World, folder: Path) -> None:
    """A link that leads nowhere in its place, as the simplest of what may be wrong with it."""
    os.symlink("nowhere/at/all", folder)  # noqa: PTH211 - not waited for
    error = await refusal(world, OF_JONES, patient_id=SMITH.id)
    assert (error.reason, error.metadata) == (Reason.PATIENT_MISMATCH, {"quarantine_error": "QUARANTINE_UNAVAILABLE"})


@pytest.mark.usefixtures("keeping")
async def test_parts_that_are_away_keep_nothing_and_change_no_refusal(world: World, folder: Path) -> None:
    """tag_service that goes away when the file is looked into again, and a database that does before its entry is."""
    world.tag_service.hooks.at("read", raising(tag_service_away, on=2))
    error = await refusal(world, OF_JONES, patient_id=SMITH.id)
    assert (error.reason, error.metadata) == (Reason.PATIENT_MISMATCH, {"quarantine_error": "TAG_SERVICE_UNAVAILABLE"})
    assert not names(folder)
    world.tag_service.hooks.clear()
    world.database.hooks.at("commit", raising(database_away))
    error = await refusal(world, OF_JONES, patient_id=SMITH.id)
    assert (error.reason, error.metadata) == (Reason.PATIENT_MISMATCH, {"quarantine_error": "DATABASE_UNAVAILABLE"})
    # The entry may be there all the same, and then its file must be, too; without one it is swept.
    assert len(names(folder)) == 1


@pytest.mark.usefixtures("keeping")
async def test_a_defect_of_the_quarantine_is_none_of_the_senders(world: World, folder: Path) -> None:
    """Whatever goes wrong, the sender is told of the refusal."""
    world.database.hooks.at("statement", raising(lambda: ZeroDivisionError("secret"), on=2))
    error = await refusal(world, OF_JONES, patient_id=SMITH.id)
    assert (error.reason, error.metadata) == (Reason.PATIENT_MISMATCH, {"quarantine_error": "INTERNAL_ERROR"})
    assert not names(folder)


@pytest.mark.usefixtures("keeping")
@pytest.mark.parametrize("world", [False], ids=["streamed"], indirect=True)
async def test_a_sender_who_leaves_leaves_nothing(world: World, folder: Path) -> None:
    """A file that never comes whole is not kept, nor is any of it."""
    gate = Gate()

    async def chunks() -> Any:
        yield OF_JONES[:3000]
        await gate()
        yield OF_JONES[3000:]

    upload = await world.uploads().open(UploadOptions(patient_id=SMITH.id), by=TECHNOLOGIST.id)
    async with aclosing(chunks()) as coming:
        task = asyncio.create_task(upload.store("x", coming))
        await gate.reached.wait()
        while not names(folder):  # noqa: ASYNC110 - a thread's work
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not names(folder)
    assert not world.database.quarantine.files


@pytest.mark.usefixtures("keeping")
async def test_a_sender_who_leaves_at_the_end_leaves_a_file_with_its_entry(world: World, folder: Path) -> None:
    """Once all of it has come, it is kept, whoever waits for that."""
    gate = Gate()
    world.database.hooks.at("commit", gate)
    upload = await world.uploads().open(UploadOptions(patient_id=SMITH.id), by=TECHNOLOGIST.id)
    async with aclosing(chunks_of(OF_JONES)) as coming:
        task = asyncio.create_task(upload.store("x", coming))
        await gate.reached.wait()
        task.cancel()
        gate.opened.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert names(folder) == {str(only_file(world).id)}


async def test_of_a_file_that_is_accepted_nothing_is_held(world: World, keeping: Keeping, folder: Path) -> None:
    """While it goes on into the PACS, its beginning takes up no room."""
    gate = Gate()
    world.pacs.hooks.at("stored", gate)
    task = asyncio.create_task(world.send(OF_JONES))
    await gate.reached.wait()
    assert keeping._held == 0
    gate.opened.set()
    await task
    assert not names(folder)


@pytest.mark.usefixtures("keeping")
async def test_a_refusal_that_comes_late_says_that_the_file_is_not_kept(world: World, folder: Path) -> None:
    """A file that was accepted, and whose study became another's while it travelled, is at hand no more."""
    gate = Gate()
    world.pacs.hooks.at("stored", gate)
    late = asyncio.create_task(refusal(world, OF_JONES))
    await gate.reached.wait()
    world.pacs.hooks.clear()
    world.pacs.held.clear()
    await world.send(tags_of(SMITH))
    gate.opened.set()
    error = await late
    assert error.reason is Reason.STUDY_PATIENT_MISMATCH
    assert error.metadata == {"quarantine_error": "QUARANTINE_UNAVAILABLE"}
    assert not names(folder)


async def test_without_room_to_hold_beginnings_files_are_stored_and_refused_as_ever(world: World, folder: Path) -> None:
    """What the quarantine would like to hold is not worth an upload."""
    with quarantine_of(world, folder, held_bytes=10):
        assert (await world.send(tags_of(JONES))).patient_id == JONES.id
        error = await refusal(world, file_of(tags_of(JONES, sop_instance_uid="1.2.9")), patient_id=SMITH.id)
    assert (error.reason, error.metadata) == (Reason.PATIENT_MISMATCH, {"quarantine_error": "QUARANTINE_UNAVAILABLE"})
    assert not names(folder)


async def test_by_default_nothing_is_kept(world: World) -> None:
    """Without a quarantine a refusal says nothing of one."""
    error = await refusal(world, OF_JONES, patient_id=SMITH.id)
    assert error.metadata == {}
    assert not world.database.quarantine.files
    assert not world.database.tables.files


LIMITS = UploadLimits(file_bytes=MIB, request_bytes=4 * MIB, files=10, idle_seconds=60)


class Pieces:
    """The pieces of an upload, whose next one a test gives. A wait for one may be cancelled and made again."""

    def __init__(self) -> None:
        self.coming: asyncio.Queue[Piece | None] = asyncio.Queue()

    def __aiter__(self) -> "Pieces":
        return self

    async def __anext__(self) -> Piece:
        piece = await self.coming.get()
        if piece is None:
            raise StopAsyncIteration
        return piece


async def test_nothing_of_a_file_is_missed_when_a_wait_for_it_is_cancelled() -> None:
    """What was read, and what comes after the reader was cancelled, is the whole of it, and no more than it."""
    pieces = Pieces()
    files = UploadReader(pieces, LIMITS).files()
    for data, end in ((b"one", False), (b"two", False)):
        pieces.coming.put_nowait(Piece(data, end_of_file=end))
    watched = Retraceable(await anext(files), Keeping(100))
    assert [await anext(watched), await anext(watched)] == [b"one", b"two"]
    waiting = asyncio.ensure_future(anext(watched))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    pieces.coming.put_nowait(Piece(b"three", end_of_file=True))
    pieces.coming.put_nowait(Piece(b"the next file", end_of_file=True))
    assert [chunk async for chunk in watched.again()] == [b"one", b"two", b"three"]
    assert [chunk async for chunk in await anext(files)] == [b"the next file"]


async def test_two_readers_at_a_time_are_a_defect() -> None:
    """While one waits for the next chunk, nobody is given them again: each would miss what the other gets."""
    pieces = Pieces()
    pieces.coming.put_nowait(Piece(b"one"))
    watched = Retraceable(await UploadReader(pieces, LIMITS).only_file(), Keeping(100))
    await anext(watched)
    waiting = asyncio.ensure_future(anext(watched))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError):
        await anext(watched.again())
    waiting.cancel()
    await asyncio.wait([waiting])
    watched.forget()


async def test_how_a_file_ended_is_not_forgotten() -> None:
    """An end or an error that was read, and that nobody took notice of, is told again: a broken file is not whole."""
    too_long = UploadReader(Pieces(), UploadLimits(file_bytes=5, request_bytes=100, files=10, idle_seconds=60))
    too_long._events._pieces.coming.put_nowait(Piece(b"three", end_of_file=False))
    too_long._events._pieces.coming.put_nowait(Piece(b"four", end_of_file=True))
    watched = Retraceable(await too_long.only_file(), Keeping(100))
    await anext(watched)
    with pytest.raises(ServiceError):
        await anext(watched)
    with pytest.raises(ServiceError) as raised:
        _ = [chunk async for chunk in watched.again()]
    assert raised.value.reason is Reason.FILE_TOO_LARGE

    whole = Retraceable(chunks_of(b"abc", 1), Keeping(100))
    assert b"".join([chunk async for chunk in whole]) == b"abc"
    assert b"".join([chunk async for chunk in whole.again()]) == b"abc"
