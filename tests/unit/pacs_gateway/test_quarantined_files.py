"""What is decided about files in the quarantine, and how they are looked after."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import structlog

from pacs_gateway.adapters.quarantine_folder import DiskFolder
from pacs_gateway.domain.ledger import FileState
from pacs_gateway.domain.quarantine import QuarantinedFile, QuarantineState
from pacs_gateway.domain.tags import Edits
from pacs_gateway.domain.upload import FileStatus, OnConflict, PatientMatch, StoredFile, UploadOptions, UploadSource
from pacs_gateway.use_cases.quarantined_files import QuarantinedFiles
from pacs_gateway.use_cases.reconciling import Reconciler
from service_runtime.errors import Reason, ServiceError
from tests.unit.pacs_gateway.fake_database import database_away
from tests.unit.pacs_gateway.fakes import (
    JONES,
    ORDER_OF_SMITH,
    RADIOLOGIST,
    SMITH,
    World,
    file_of,
    orthanc_away,
    refused,
    tags_of,
)
from tests.unit.pacs_gateway.hooks import Gate, raising
from tests.unit.pacs_gateway.quarantine_world import DAYS, desk_of, folder_at, quarantine_of, upkeep_of

OF_JONES = file_of(tags_of(JONES), b"pixels" * 500)


class Ward:
    """A world with a quarantine, in which one file of Jones lies that was uploaded as Smith's."""

    def __init__(self, world: World, path: Path, folder: DiskFolder) -> None:
        self.world = world
        self.path = path
        self.folder = folder
        self.desk: QuarantinedFiles = desk_of(world, folder)
        self.file_id = UUID(int=0)

    async def admit(self, content: bytes = OF_JONES) -> UUID:
        """Has a file be refused; its id."""
        with pytest.raises(ServiceError) as raised:
            await self.world.send(content, patient_id=SMITH.id, source=UploadSource.CD_IMPORT)
        self.file_id = UUID(raised.value.metadata["quarantine_id"])
        return self.file_id

    async def retry(self, *, same_source: bool = True, **options: Any) -> StoredFile:
        """Tries to store the file."""
        options = UploadOptions(**options)
        return await self.desk.retry(self.file_id, options, same_source=same_source, by=RADIOLOGIST.id)

    async def discard(self) -> None:
        """Throws the file away."""
        await self.desk.discard(self.file_id, reason="a test", by=RADIOLOGIST.id)

    @property
    def file(self) -> QuarantinedFile:
        """The file as it stands."""
        return self.world.database.quarantine.files[self.file_id]

    @property
    def is_on_disk(self) -> bool:
        """Whether its bytes are there, as they came."""
        path = self.path / str(self.file_id)
        return path.exists() and path.read_bytes() == OF_JONES

    def actions(self) -> list[tuple[str, str, bool]]:
        """What was done with the file since it came: the action, the reason, and whether a user did it."""
        events = self.world.database.quarantine.events[self.file_id]
        return [(one.action.value, one.reason, one.by_id == RADIOLOGIST.id) for one in events[1:]]


@pytest.fixture
async def ward(world: World, tmp_path: Path) -> Any:
    """The ward."""
    with folder_at(tmp_path) as folder, quarantine_of(world, tmp_path):
        ward = Ward(world, tmp_path, folder)
        await ward.admit()
        yield ward


@pytest.fixture
def names(tmp_path: Path) -> Iterator[Any]:
    """What lies in the folder."""
    return lambda: {path.name for path in tmp_path.iterdir()}


async def test_a_file_is_stored_for_the_right_patient_and_released(ward: Ward) -> None:
    """The file goes the way of an upload by who decides, and leaves the folder; its entry tells who it was."""
    stored = await ward.retry(patient_id=JONES.id)
    assert (stored.status, stored.patient_id) == (FileStatus.STORED, JONES.id)
    (held,) = ward.world.pacs.held.values()
    assert held.content == OF_JONES
    (counted,) = ward.world.files()
    assert (counted.uploaded_by_id, counted.upload_source) == (RADIOLOGIST.id, "cd_import")
    assert (counted.source.sha256, counted.state) == (ward.file.source.sha256, FileState.VERIFIED)
    assert ward.file.state is QuarantineState.RELEASED
    assert not ward.is_on_disk
    assert ward.actions() == [("released", "", True)]


async def test_a_retry_makes_edits(ward: Ward) -> None:
    """What was wrong in the file is put right on its way into the PACS; the log has what came."""
    stored = await ward.retry(
        same_source=False, order_id=ORDER_OF_SMITH.id, edits=Edits(patient_id=SMITH.mrn, patient_name="Smith^Anna")
    )
    assert (stored.patient_id, stored.order_id) == (SMITH.id, ORDER_OF_SMITH.id)
    assert ward.world.patient_ids_in_pacs == {SMITH.mrn}
    assert (ward.world.log().original_patient_id, ward.world.log().upload_source) == (JONES.mrn, "manual")


async def test_a_retry_coerces(ward: Ward) -> None:
    """patient_match=COERCE makes the file the named patient's."""
    await ward.retry(patient_id=SMITH.id, patient_match=PatientMatch.COERCE)
    assert ward.world.patient_ids_in_pacs == {SMITH.mrn}
    assert ward.file.state is QuarantineState.RELEASED


async def test_a_file_that_is_refused_again_stays(ward: Ward) -> None:
    """It is one file still, with the reason of the last try, which is told with its id."""
    with pytest.raises(ServiceError) as raised:
        await ward.retry(order_id=ORDER_OF_SMITH.id)
    assert raised.value.reason is Reason.ORDER_PATIENT_MISMATCH
    assert raised.value.metadata["quarantine_id"] == str(ward.file_id)
    assert (ward.file.state, ward.file.reason) == (QuarantineState.QUARANTINED, "ORDER_PATIENT_MISMATCH")
    assert ward.is_on_disk
    assert ward.actions() == [("retried", "ORDER_PATIENT_MISMATCH", True)]
    assert len(ward.world.database.quarantine.files) == 1
    assert ward.file.refusals == 1
    await ward.retry()


async def test_a_part_that_is_away_is_no_reason_against_a_file(ward: Ward) -> None:
    """The try is noted, what the file was refused for stays, and the next try stores it."""
    ward.world.pacs.hooks.at("store", raising(orthanc_away, times=1))
    with refused(Reason.ORTHANC_UNAVAILABLE):
        await ward.retry()
    assert ward.file.reason == "PATIENT_MISMATCH"
    assert ward.actions() == [("retried", "ORTHANC_UNAVAILABLE", True)]
    assert (await ward.retry()).status is FileStatus.STORED


async def test_what_the_pacs_keeps_does_not_release_a_file(ward: Ward) -> None:
    """A file whose place another content holds is stored only where it may take that."""
    ward.world.pacs.put(file_of(tags_of(JONES), b"other"))
    with refused(Reason.INSTANCE_CONFLICT):
        await ward.retry()
    assert (ward.file.reason, ward.is_on_disk) == ("INSTANCE_CONFLICT", True)
    await ward.retry(on_conflict=OnConflict.OVERWRITE)
    (held,) = ward.world.pacs.held.values()
    assert held.content == OF_JONES


DAMAGES = {"changed": OF_JONES.replace(b"pixels", b"Pixels", 1), "cut": OF_JONES[:-3], "longer": OF_JONES + b"END"}


@pytest.mark.parametrize("damage", [*DAMAGES, "gone"])
@pytest.mark.usefixtures("impatient")
async def test_bytes_that_are_not_those_that_came_are_never_stored(ward: Ward, damage: str) -> None:
    """A file of the folder that somebody, or a disk, has changed is told as lost."""
    path = ward.path / str(ward.file_id)
    path.unlink()
    if damage in DAMAGES:
        path.write_bytes(DAMAGES[damage])
    with refused(Reason.QUARANTINED_FILE_LOST):
        await ward.retry()
    assert not ward.world.pacs.held
    assert ward.file.state is QuarantineState.QUARANTINED


async def test_what_is_named_and_not_there_says_nothing_against_the_file(ward: Ward) -> None:
    """An unknown patient or order of a retry is the caller's mistake, and not noted."""
    with refused(Reason.PATIENT_NOT_FOUND):
        await ward.retry(patient_id=UUID(int=404))
    with refused(Reason.ORDER_PATIENT_MISMATCH):
        await ward.retry(patient_id=JONES.id, order_id=ORDER_OF_SMITH.id)
    assert ward.actions() == []
    assert ward.file.reason == "PATIENT_MISMATCH"


async def test_one_of_two_retries_wins(ward: Ward) -> None:
    """The other, and who would discard the file meanwhile, are told that it is busy; afterwards it is closed."""
    gate = Gate()
    ward.world.pacs.hooks.at("store", gate)
    first = asyncio.create_task(ward.retry())
    await gate.reached.wait()
    with refused(Reason.QUARANTINED_FILE_BUSY):
        await ward.retry()
    with refused(Reason.QUARANTINED_FILE_BUSY):
        await ward.discard()
    gate.opened.set()
    assert (await first).status is FileStatus.STORED
    for late in (ward.retry, ward.discard):
        with refused(Reason.QUARANTINED_FILE_CLOSED):
            await late()
    assert [action for action, _, _ in ward.actions()] == ["released"]


async def test_a_decision_that_is_being_made_is_alone(ward: Ward) -> None:
    """A retry that begins while a discard is on its way to the database is told so, and the other way round."""
    for first, second in ((ward.discard, ward.retry), (ward.retry, ward.discard)):
        gate = Gate()
        ward.world.database.hooks.at("commit", gate)
        begun = asyncio.create_task(first())
        await gate.reached.wait()
        with refused(Reason.QUARANTINED_FILE_BUSY):
            await asyncio.wait_for(second(), 5)
        gate.opened.set()
        await begun
        ward.world.database.hooks.clear()
        await ward.admit()


async def test_a_file_that_another_gateway_has_is_busy(ward: Ward) -> None:
    """What the database says of other gateways holds."""
    ward.world.database.quarantine.taken.add(ward.file_id)
    for late in (ward.retry, ward.discard):
        with refused(Reason.QUARANTINED_FILE_BUSY):
            await late()
    assert ward.is_on_disk


async def test_a_file_is_thrown_away(ward: Ward) -> None:
    """Its bytes go, and who did it, and why, stays."""
    await ward.discard()
    assert not ward.is_on_disk
    assert ward.file.state is QuarantineState.DISCARDED
    assert ward.actions() == [("discarded", "a test", True)]
    with refused(Reason.QUARANTINED_FILE_CLOSED):
        await ward.retry()
    await ward.admit()
    assert len(ward.world.database.quarantine.files) == 2


async def test_what_never_was_is_not_found(ward: Ward) -> None:
    """An id that nobody gave."""
    ward.file_id = uuid4()
    for call in (ward.retry, ward.discard, lambda: ward.desk.get(ward.file_id)):
        with refused(Reason.QUARANTINED_FILE_NOT_FOUND):
            await call()


async def test_a_release_that_could_not_be_noted_is_made_up_for(ward: Ward) -> None:
    """The file is stored, its entry does not say so: the next try finds it stored already, and says so."""
    gate = Gate()
    ward.world.pacs.hooks.at("stored", gate)
    first = asyncio.create_task(ward.retry())
    await gate.reached.wait()
    # Verifying is committed first; what fails is the release behind it.
    ward.world.database.hooks.at("commit", raising(database_away, on=2))
    gate.opened.set()
    with refused(Reason.DATABASE_UNAVAILABLE):
        await first
    ward.world.database.hooks.clear()
    assert ward.is_on_disk
    assert ward.world.pacs.held
    ward.world.pacs.hooks.clear()
    assert (await ward.retry()).status is FileStatus.ALREADY_STORED
    assert ward.file.state is QuarantineState.RELEASED
    assert not ward.is_on_disk


async def test_a_caller_who_leaves_a_retry_leaves_the_file(ward: Ward) -> None:
    """A try that is broken off stores nothing, and the next one may be made at once."""
    gate = Gate()
    ward.world.tag_service.hooks.at("end", gate)
    task = asyncio.create_task(ward.retry())
    await gate.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    ward.world.tag_service.hooks.clear()
    assert not ward.world.pacs.held
    assert ward.actions() == []
    assert (await ward.retry()).status is FileStatus.STORED


async def look_after(ward: Ward) -> None:
    """One pass of what looks after the quarantine, as the reconciler makes it."""
    world = ward.world
    reconciler = Reconciler(
        database=world.database,
        pacs=world.pacs,
        clock=world.clock,
        lease_seconds=30,
        interval_seconds=60,
        compare_seconds=3600,
        quarantine=upkeep_of(world, ward.folder),
    )
    await reconciler.reconcile()


async def test_a_file_whose_time_is_over_is_discarded(ward: Ward) -> None:
    """QUARANTINE_DAYS after its last refusal the gateway discards it, and says so, also while Orthanc is away."""
    ward.world.clock.forward(days=DAYS - 1)
    await ward.admit()
    ward.world.clock.forward(days=DAYS - 1)
    await look_after(ward)
    assert ward.is_on_disk
    ward.world.clock.forward(days=2)
    ward.world.pacs.hooks.at("counts", raising(orthanc_away))
    await look_after(ward)
    assert ward.file.state is QuarantineState.EXPIRED
    assert ward.actions() == [("expired", "", False)]
    assert not ward.is_on_disk


def leave(path: Path, name: str, *, hours: float) -> None:
    """Leaves a file in the folder that has not changed for so long."""
    (path / name).write_bytes(b"x")
    then = time.time() - hours * 3600
    os.utime(path / name, (then, then))


async def test_what_has_no_entry_is_swept(ward: Ward, names: Any) -> None:
    """Parts of files that never came whole, files of closed entries, and files that no entry ever had, once they are
    old; what has another name is left alone.
    """
    old_part, new_part, old_orphan, new_orphan = (str(uuid4()) for _ in range(4))
    leave(ward.path, f"{old_part}.part", hours=1.1)
    leave(ward.path, f"{new_part}.part", hours=0.9)
    leave(ward.path, old_orphan, hours=24.1)
    leave(ward.path, new_orphan, hours=23.9)
    others = {"README", old_part.upper(), f"{old_part}.part.part", f"{{{old_part}}}"}
    for name in others:
        leave(ward.path, name, hours=1000)
    kept = str(ward.file_id)
    closed = str(await ward.admit(file_of(tags_of(JONES), b"other")))
    await ward.discard()
    leave(ward.path, closed, hours=0)
    with structlog.testing.capture_logs() as logs:
        await look_after(ward)
    assert [(one["parts"], one["files"]) for one in logs if one["event"] == "quarantine swept"] == [(1, 2)]
    assert names() == {f"{new_part}.part", new_orphan, kept, *others}


@pytest.mark.usefixtures("impatient")
async def test_a_file_that_is_lost_is_told_and_so_it_is_when_it_is_back(ward: Ward) -> None:
    """An entry without its bytes says so until they are there again."""
    path = ward.path / str(ward.file_id)
    content = path.read_bytes()
    await look_after(ward)
    assert ward.actions() == []
    path.unlink()
    for _ in range(2):
        await look_after(ward)
    assert ward.file.state is QuarantineState.LOST
    with refused(Reason.QUARANTINED_FILE_LOST):
        await ward.retry()
    path.write_bytes(content[:-1])
    await look_after(ward)
    assert ward.file.state is QuarantineState.LOST
    path.write_bytes(content)
    await look_after(ward)
    assert ward.file.state is QuarantineState.QUARANTINED
    assert ward.actions() == [
        ("lost", "", False),
        ("retried", "QUARANTINED_FILE_LOST", True),
        ("found", "", False),
    ]
    assert (await ward.retry()).status is FileStatus.STORED


async def test_every_file_is_looked_for(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few are looked for at a time."""
    monkeypatch.setattr("pacs_gateway.use_cases.quarantine_upkeep._CHECKED_AT_A_TIME", 1)
    ids = [ward.file_id, *[await ward.admit(file_of(tags_of(JONES), bytes([n]))) for n in range(3)]]
    for file_id in ids:
        (ward.path / str(file_id)).unlink()
    await look_after(ward)
    files = ward.world.database.quarantine.files
    assert [files[file_id].state for file_id in ids] == [QuarantineState.LOST] * 4


async def test_a_folder_that_cannot_be_used_keeps_nobody_from_reconciling(ward: Ward) -> None:
    """Without the folder nothing is swept or told as lost, and the rest of the pass goes on."""
    ward.folder._path = ward.path / str(ward.file_id) / "below a file"
    await look_after(ward)
    assert ward.world.database.hooks.passed["end"]
    assert ward.file.state is QuarantineState.QUARANTINED
    assert ward.actions() == []
