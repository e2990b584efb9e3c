"""Deleting studies, with a trace that is true at every moment."""

import asyncio

import pytest

from pacs_gateway.domain.upload_log import Deletion, UploadStatus
from service_runtime.errors import Reason
from tests.unit.pacs_gateway.fake_database import database_away
from tests.unit.pacs_gateway.fakes import (
    JONES,
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
from tests.unit.pacs_gateway.hooks import Gate, raising


def traces(world: World) -> list[Deletion]:
    """The traces, oldest first."""
    return sorted(world.database.tables.deletions.values(), key=lambda one: one.requested_at)


async def test_a_deletion_takes_the_study_out_and_is_traced(world: World) -> None:
    """The study is gone, its log marked, its order's DICOM fields empty; who, when and why is kept."""
    await world.send(tags_of(), order_id=ORDER_OF_SMITH.id)
    world.clock.forward(hours=2)
    deletion = await world.deletions.delete(STUDY, reason="wrong study", by=RADIOLOGIST.id)
    assert not world.pacs.held
    log = world.log()
    assert log.is_deleted
    assert log.upload_status is UploadStatus.SUCCESS
    assert world.order().study is None
    (trace,) = traces(world)
    assert trace.id == deletion.id
    assert (trace.study_instance_uid, trace.upload_log_id) == (STUDY, log.id)
    assert (trace.reason, trace.requested_by_id) == ("wrong study", RADIOLOGIST.id)
    assert trace.requested_at == trace.completed_at == world.clock()
    async with world.database.begin() as work:
        entry = await work.upload_logs.entry(log.id)
    assert entry is not None
    assert entry.deletion == trace
    assert entry.deleted_by == RADIOLOGIST.full_name


async def test_other_studies_stay(world: World) -> None:
    """Only the named study goes."""
    await world.send(tags_of())
    await world.send(tags_of(study_instance_uid="1.9", sop_instance_uid="1.9.1"))
    await world.delete()
    assert {held.tags.study_instance_uid for held in world.pacs.held.values()} == {"1.9"}
    assert not world.log("1.9").is_deleted


async def test_a_study_that_the_gateway_never_stored_can_be_deleted(world: World) -> None:
    """A study without a log is deleted and traced all the same."""
    world.pacs.put(file_of(tags_of()))
    await world.delete()
    assert not world.pacs.held
    (trace,) = traces(world)
    assert trace.upload_log_id is None
    assert trace.completed_at is not None


async def test_deleting_what_is_not_there_is_not_found(world: World) -> None:
    """An unknown study leaves no trace of a deletion that never was."""
    with refused(Reason.STUDY_NOT_FOUND):
        await world.delete("1.9.9")
    assert not traces(world)


async def test_deleting_twice_is_not_found(world: World) -> None:
    """The second deletion finds nothing, and changes nothing of the first one's trace."""
    await world.send(tags_of())
    await world.delete(reason="first")
    before = traces(world)
    with refused(Reason.STUDY_NOT_FOUND):
        await world.delete(reason="second")
    assert traces(world) == before


async def test_deleting_at_the_same_moment_is_harmless(world: World) -> None:
    """Two deletions at once end with the study gone and both traces complete."""
    await world.send(tags_of())
    await asyncio.gather(world.delete(), world.delete(), return_exceptions=True)
    assert not world.pacs.held
    assert world.log().is_deleted
    assert all(trace.completed_at for trace in traces(world))


async def test_a_uid_under_two_patient_ids_is_ambiguous(world: World) -> None:
    """Where a StudyInstanceUID stands for two studies, none of them is deleted."""
    world.pacs.put(file_of(tags_of(SMITH)))
    world.pacs.put(file_of(tags_of(JONES)))
    with refused(Reason.STUDY_AMBIGUOUS):
        await world.delete()
    assert len(world.pacs.held) == 2
    assert not traces(world)


async def test_the_trace_is_there_before_the_study_goes(world: World) -> None:
    """Nothing is deleted that the database does not know of by then."""
    await world.send(tags_of())
    seen = []

    async def look() -> None:
        seen.extend(traces(world))

    world.pacs.hooks.at("delete_study", look)
    await world.delete()
    (trace,) = seen
    assert trace.completed_at is None


async def test_without_the_database_nothing_is_deleted(world: World) -> None:
    """A deletion that cannot be traced does not happen."""
    await world.send(tags_of())
    world.database.hooks.at("begin", raising(database_away))
    with refused(Reason.DATABASE_UNAVAILABLE):
        await world.delete()
    assert world.pacs.held


@pytest.mark.parametrize("place", ["find_studies", "delete_study"])
async def test_without_orthanc_nothing_is_called_deleted(world: World, place: str) -> None:
    """As long as the study may be there, the log and the order say so."""
    await world.send(tags_of(), order_id=ORDER_OF_SMITH.id)
    world.pacs.hooks.at(place, raising(orthanc_away))
    with refused(Reason.ORTHANC_UNAVAILABLE):
        await world.delete()
    assert world.pacs.held
    assert not world.log().is_deleted
    assert world.order().study is not None
    assert not any(trace.completed_at for trace in traces(world))


async def test_a_deletion_that_did_not_happen_can_be_asked_for_again(world: World) -> None:
    """Once Orthanc is back the study goes, and the log shows the deletion that did it."""
    await world.send(tags_of())
    world.pacs.hooks.at("delete_study", raising(orthanc_away))
    with refused(Reason.ORTHANC_UNAVAILABLE):
        await world.delete(reason="first")
    world.pacs.hooks.clear()
    world.clock.forward(minutes=1)
    await world.delete(reason="second")
    assert not world.pacs.held
    assert world.log().is_deleted
    assert [trace.reason for trace in traces(world) if trace.completed_at] == ["second"]


@pytest.mark.parametrize("place", ["study_deleted", "commit"])
async def test_a_deletion_that_broke_off_is_completed_by_the_next(world: World, place: str) -> None:
    """Where the study went and that could not be said, the next deletion says it, under the first one's trace."""
    await world.send(tags_of(), order_id=ORDER_OF_SMITH.id)
    if place == "study_deleted":
        world.pacs.hooks.at(place, raising(orthanc_away))
    else:
        world.database.hooks.at(place, raising(database_away, on=2))
    with refused(Reason.ORTHANC_UNAVAILABLE if place == "study_deleted" else Reason.DATABASE_UNAVAILABLE):
        await world.deletions.delete(STUDY, reason="first", by=RADIOLOGIST.id)
    assert not world.pacs.held
    assert not world.log().is_deleted
    world.pacs.hooks.clear()
    world.database.hooks.clear()
    world.clock.forward(minutes=1)
    deletion = await world.deletions.delete(STUDY, reason="second", by=TECHNOLOGIST.id)
    assert (deletion.reason, deletion.requested_by_id) == ("first", RADIOLOGIST.id)
    assert world.log().is_deleted
    assert world.order().study is None
    (trace,) = traces(world)
    assert trace.completed_at == world.clock()
    with refused(Reason.STUDY_NOT_FOUND):
        await world.delete()


@pytest.mark.parametrize("times", [1, 2])
async def test_a_deletion_whose_caller_leaves_is_completed(world: World, times: int) -> None:
    """Once the study began to go, the log is brought up to date, however often the call is cancelled."""
    await world.send(tags_of())
    gate = Gate()
    world.pacs.hooks.at("study_deleted", gate)
    deleting = asyncio.create_task(world.delete())
    await gate.reached.wait()
    for _ in range(times):
        deleting.cancel()
        await asyncio.sleep(0)
    gate.opened.set()
    with pytest.raises(asyncio.CancelledError):
        await deleting
    assert not world.pacs.held
    assert world.log().is_deleted
    assert traces(world)[0].completed_at is not None
