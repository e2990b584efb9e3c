"""An instance that the PACS holds already: the same upload again, or another content, and what is made of it."""

import asyncio

import pytest

from pacs_gateway.domain.ledger import KEPT, FileState
from pacs_gateway.domain.tags import Edits
from pacs_gateway.domain.upload import FileStatus, OnConflict, PatientMatch
from pacs_gateway.domain.upload_log import UploadStatus
from service_runtime.errors import Reason, ServiceError
from tests.unit.pacs_gateway.fakes import (
    JONES,
    SMITH,
    World,
    file_of,
    orthanc_away,
    refused,
    tags_of,
)
from tests.unit.pacs_gateway.hooks import raising

COERCED = {"patient_id": SMITH.id, "patient_match": PatientMatch.COERCE}
FIRST, OTHER = file_of(tags_of(), b"first"), file_of(tags_of(study_description="other"), b"other and longer")


@pytest.fixture
def stamping(world: World) -> World:
    """A world in which edits leave their time in the file."""
    world.tag_service.stamping = True
    return world


async def test_the_same_file_coerced_again_is_already_stored(stamping: World) -> None:
    """M7: though each coercion puts its time into the file, the same file with the same edits is the same upload."""
    first = await stamping.send(tags_of(JONES), **COERCED)
    (held,) = stamping.pacs.held.values()
    again = await stamping.send(tags_of(JONES), **COERCED)
    assert (first.status, again.status) == (FileStatus.STORED, FileStatus.ALREADY_STORED)
    assert list(stamping.pacs.held.values()) == [held]
    assert (stamping.log().number_of_files, stamping.log().total_size_bytes) == (1, len(held.content))
    (counted,) = stamping.files()
    assert counted.stored.size_bytes == len(held.content)


async def test_the_same_file_with_other_edits_is_another_content(stamping: World) -> None:
    """What is to be stored is not what is stored: nobody is told that it is."""
    await stamping.send(tags_of(JONES), **COERCED)
    with refused(Reason.INSTANCE_CONFLICT):
        await stamping.send(tags_of(JONES), **COERCED, edits=Edits(study_description="Chest"))
    with refused(Reason.INSTANCE_CONFLICT):
        await stamping.send(file_of(tags_of(JONES), b"other pixels"), **COERCED)
    assert stamping.log().upload_status is UploadStatus.SUCCESS


@pytest.mark.parametrize("place", ["stored", "fingerprint"])
async def test_a_coerced_file_whose_answer_was_lost_is_already_stored_when_it_is_sent_again(
    stamping: World, place: str
) -> None:
    """The digests of what was sent were on disk before: by them the retry finds its own file."""
    stamping.pacs.hooks.at(place, raising(orthanc_away, times=1))
    with refused(Reason.ORTHANC_UNAVAILABLE):
        await stamping.send(tags_of(JONES), **COERCED)
    again = await stamping.send(tags_of(JONES), **COERCED)
    assert again.status is FileStatus.ALREADY_STORED
    assert stamping.log().upload_status is UploadStatus.SUCCESS
    assert stamping.log().number_of_files == len(stamping.pacs.held) == 1


async def test_what_the_ledger_says_is_held_to_the_pacs(stamping: World) -> None:
    """Where the PACS holds another content than the entry of the same upload says, that is a conflict."""
    stored = await stamping.send(tags_of(JONES), **COERCED)
    stamping.pacs.held.clear()
    stamping.pacs.put(file_of(tags_of(), b"from the modality"))
    assert list(stamping.pacs.held) == [stored.orthanc_id]
    with refused(Reason.INSTANCE_CONFLICT):
        await stamping.send(tags_of(JONES), **COERCED)


async def test_many_uploads_of_a_file_at_the_same_moment_store_it_once(stamping: World) -> None:
    """All but the first wait for it, are told that it is there, and send Orthanc nothing."""
    outcomes = await asyncio.gather(*(stamping.send(tags_of(JONES), **COERCED) for _ in range(20)))
    statuses = sorted(outcome.status for outcome in outcomes)
    assert statuses == [FileStatus.ALREADY_STORED] * 19 + [FileStatus.STORED]
    assert stamping.pacs.hooks.passed["stored"] == 1
    assert stamping.log().number_of_files == len(stamping.pacs.held) == 1


async def test_an_upload_that_waited_for_one_that_failed_stores_the_file_itself(stamping: World) -> None:
    """The failure of the first of two equal uploads is not the second one's."""
    stamping.pacs.hooks.at("chunk", raising(orthanc_away, times=1))
    outcomes = await asyncio.gather(
        *(stamping.send(tags_of(JONES), **COERCED) for _ in range(2)), return_exceptions=True
    )
    (error,) = (one for one in outcomes if isinstance(one, ServiceError))
    (stored,) = (one for one in outcomes if not isinstance(one, BaseException))
    assert (error.reason, stored.status) == (Reason.ORTHANC_UNAVAILABLE, FileStatus.STORED)
    assert stamping.log().upload_status is UploadStatus.SUCCESS


async def test_a_conflict_that_the_ledger_knows_of_sends_orthanc_nothing(world: World) -> None:
    """The end of the file is held back, so nothing can be stored of it."""
    await world.send(FIRST)
    world.pacs.hooks.passed.clear()
    with refused(Reason.INSTANCE_CONFLICT):
        await world.send(OTHER)
    assert world.pacs.hooks.passed["chunk"] == 0


@pytest.mark.parametrize("uploaded", [True, False])
async def test_what_is_kept_is_told_with_what_it_is(world: World, uploaded: bool) -> None:  # noqa: FBT001 - a parameter
    """KEEP leaves what the PACS holds, whoever stored it, and answers with its tags; the log counts no failure."""
    if uploaded:
        await world.send(FIRST)
    else:
        world.pacs.put(FIRST)
    for _ in range(2):
        kept = await world.send(OTHER, on_conflict=OnConflict.KEEP)
        assert (kept.status, kept.tags) == (FileStatus.KEPT, tags_of())
        assert [held.content for held in world.pacs.held.values()] == [FIRST]
    assert world.log().upload_status is UploadStatus.SUCCESS
    assert world.log().number_of_files == int(uploaded)
    errors = [file.error for file in world.database.tables.files.values() if file.state is FileState.FAILED]
    assert errors == [KEPT, KEPT]


async def test_what_was_kept_out_is_not_taken_for_stored(world: World) -> None:
    """A file that was kept out is, sent again without KEEP, a conflict as before."""
    await world.send(FIRST)
    await world.send(OTHER, on_conflict=OnConflict.KEEP)
    with refused(Reason.INSTANCE_CONFLICT):
        await world.send(OTHER)


@pytest.mark.parametrize("on_conflict", [OnConflict.KEEP, OnConflict.OVERWRITE])
async def test_without_a_conflict_a_file_is_stored_as_ever(world: World, on_conflict: OnConflict) -> None:
    """What to do in a conflict does nothing where there is none: a new file is stored, the same one is there."""
    assert (await world.send(FIRST, on_conflict=on_conflict)).status is FileStatus.STORED
    assert (await world.send(FIRST, on_conflict=on_conflict)).status is FileStatus.ALREADY_STORED
    assert not world.pacs.hooks.passed["delete_instance"]
    assert not any(file.overwrites for file in world.database.tables.files.values())


@pytest.mark.parametrize("uploaded", [True, False])
async def test_what_is_overwritten_is_replaced_and_told(world: World, uploaded: bool) -> None:  # noqa: FBT001
    """OVERWRITE puts the file in the place of what the PACS holds; the log counts the instance once, as it is now."""
    if uploaded:
        await world.send(FIRST)
    else:
        world.pacs.put(FIRST)
    stored = await world.send(OTHER, on_conflict=OnConflict.OVERWRITE)
    assert stored.status is FileStatus.STORED
    assert [held.content for held in world.pacs.held.values()] == [OTHER]
    assert (world.log().number_of_files, world.log().total_size_bytes) == (1, len(OTHER))
    assert world.log().upload_status is UploadStatus.SUCCESS
    (counted,) = world.files()
    assert counted.overwrites
    assert (await world.send(OTHER)).status is FileStatus.ALREADY_STORED
    with refused(Reason.INSTANCE_CONFLICT):
        await world.send(FIRST)


async def test_nothing_is_deleted_for_a_file_that_is_cut_short(world: World) -> None:
    """What is to take the place of another must have come whole."""
    await world.send(FIRST)
    with refused(Reason.TRUNCATED_FILE):
        await world.send(OTHER[:-3], on_conflict=OnConflict.OVERWRITE)
    assert [held.content for held in world.pacs.held.values()] == [FIRST]


async def test_the_ledger_says_what_is_overwritten_before_it_is(world: World) -> None:
    """When the old content goes, it is on disk that it does, for what."""
    await world.send(FIRST)
    seen = []

    async def look() -> None:
        seen.extend(file for file in world.database.tables.files.values() if file.overwrites)

    world.pacs.hooks.at("delete_instance", look)
    await world.send(OTHER, on_conflict=OnConflict.OVERWRITE)
    assert [(file.state, file.stored.size_bytes) for file in seen] == [(FileState.RECEIVED, len(OTHER))]


@pytest.mark.parametrize("uploaded", [True, False])
@pytest.mark.usefixtures("impatient")
async def test_an_overwriting_that_fails_puts_back_what_was_there(world: World, uploaded: bool) -> None:  # noqa: FBT001
    """Orthanc goes away between the deletion and the new content, and comes back: it holds what it held, and the log
    counts what it counted; the retry ends well.
    """
    if uploaded:
        await world.send(FIRST)
    else:
        world.pacs.put(FIRST)
    world.pacs.hooks.at("chunk", raising(orthanc_away, times=2))
    with refused(Reason.ORTHANC_UNAVAILABLE):
        await world.send(OTHER, on_conflict=OnConflict.OVERWRITE)
    assert [held.content for held in world.pacs.held.values()] == [FIRST]
    assert (world.log().number_of_files, world.log().total_size_bytes) == ((1, len(FIRST)) if uploaded else (0, 0))
    assert world.log().upload_status is (UploadStatus.SUCCESS if uploaded else UploadStatus.FAILED)
    await world.send(OTHER, on_conflict=OnConflict.OVERWRITE)
    assert [held.content for held in world.pacs.held.values()] == [OTHER]
    assert (world.log().number_of_files, world.log().total_size_bytes) == (1, len(OTHER))


@pytest.mark.usefixtures("impatient")
async def test_what_took_the_place_and_is_not_what_was_sent_makes_room_again(world: World) -> None:
    """Orthanc keeps other bytes than it was sent: they are taken out, and what was there before is put back, which is
    read back, too.
    """
    await world.send(FIRST)
    world.pacs.corrupting = True

    async def mend() -> None:
        world.pacs.corrupting = world.pacs.hooks.passed["delete_instance"] < 3

    world.pacs.hooks.at("delete_instance", mend)
    with refused(Reason.STORE_UNVERIFIED):
        await world.send(OTHER, on_conflict=OnConflict.OVERWRITE)
    assert [held.content for held in world.pacs.held.values()] == [FIRST]
    assert (world.log().number_of_files, world.log().total_size_bytes) == (1, len(FIRST))


async def test_an_overwriting_that_breaks_off_counts_nothing_that_is_not_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orthanc goes away between the deletion and the new content, for long: neither is counted, and the retry ends
    well.
    """
    monkeypatch.setattr("pacs_gateway.use_cases.replacing._SECONDS", 0.0)
    await world.send(FIRST)
    world.pacs.hooks.at("chunk", raising(orthanc_away))
    with refused(Reason.ORTHANC_UNAVAILABLE):
        await world.send(OTHER, on_conflict=OnConflict.OVERWRITE)
    world.pacs.hooks.clear()
    assert world.log().number_of_files == len(world.pacs.held) == 0
    assert world.log().upload_status is UploadStatus.IN_PROGRESS
    await world.send(OTHER, on_conflict=OnConflict.OVERWRITE)
    assert world.log().upload_status is UploadStatus.SUCCESS
    assert world.log().number_of_files == len(world.pacs.held) == 1


async def test_an_overwriting_that_may_not_delete_changes_nothing(world: World) -> None:
    """Where Orthanc does not delete, the old content stays, and the log does not claim to know."""
    await world.send(FIRST)
    world.pacs.hooks.at("delete_instance", raising(orthanc_away))
    with refused(Reason.ORTHANC_UNAVAILABLE):
        await world.send(OTHER, on_conflict=OnConflict.OVERWRITE)
    assert [held.content for held in world.pacs.held.values()] == [FIRST]
    assert world.log().number_of_files == 1


async def test_contents_that_meet_in_orthanc_are_told_apart(world: World) -> None:
    """What was stored by another after the last look is no less a conflict, and is kept where that is asked for."""

    async def slip_in() -> None:
        world.pacs.put(FIRST)

    world.pacs.hooks.at("chunk", slip_in)
    with refused(Reason.INSTANCE_CONFLICT):
        await world.send(OTHER)
    world.pacs.held.clear()
    kept = await world.send(OTHER, on_conflict=OnConflict.KEEP)
    assert (kept.status, kept.tags) == (FileStatus.KEPT, tags_of())
