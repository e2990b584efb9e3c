"""What becomes of files whose gateway did not live to say it, and how the logs compare with the PACS."""

import asyncio
from dataclasses import replace

import pytest

from pacs_gateway.domain.ledger import ABANDONED
from pacs_gateway.domain.registry import OrderEntry
from pacs_gateway.domain.upload import FileStatus, OnConflict, PatientMatch
from pacs_gateway.domain.upload_log import Difference, UploadStatus
from pacs_gateway.use_cases.reconciling import Report
from service_runtime.errors import Reason
from tests.unit.pacs_gateway.fake_database import database_away
from tests.unit.pacs_gateway.fakes import (
    JONES,
    ORDER_OF_SMITH,
    SMITH,
    STUDY,
    World,
    file_of,
    orthanc_away,
    refused,
    tags_of,
)
from tests.unit.pacs_gateway.hooks import Gate, raising


async def killed(world: World, place: str, on: int = 1, **options: object) -> None:
    """An upload whose gateway lives no longer than to the place: from there on, nothing of it reaches the database."""
    hooks = world.database.hooks if place in {"ledger", "begin", "commit"} else world.pacs.hooks

    async def die() -> None:
        for one in ("ledger", "begin", "commit"):
            world.database.hooks.at(one, raising(database_away))
        raise orthanc_away()

    seen = 0

    async def count() -> None:
        nonlocal seen
        seen += 1
        if seen == on:
            await die()

    hooks.at(place, count)
    with pytest.raises(Exception, match="UNAVAILABLE"):
        await world.send(tags_of(JONES) if "patient_match" in options else tags_of(), **options)
    world.pacs.hooks.clear()
    world.database.hooks.clear()
    world.database.gateways_dead = True


async def settled(world: World, report: Report) -> None:
    """A pass comes to this, and the next one finds nothing more to do."""
    assert await world.reconciler.reconcile() == report
    again = await world.reconciler.reconcile()
    assert again == Report(compared=again.compared if again else 0, missing=report.missing, unlogged=report.unlogged)


@pytest.mark.parametrize("place", ["store", "chunk"])
async def test_a_file_that_never_reached_orthanc_has_failed(world: World, place: str) -> None:
    """Killed before Orthanc stores: the log says so, and a retry works."""
    await killed(world, place)
    assert world.log().upload_status is UploadStatus.IN_PROGRESS
    await settled(world, Report(failed=1, compared=1))
    assert world.log().upload_status is UploadStatus.FAILED
    assert world.log().error_message == f"1 of 1 files failed: {ABANDONED}"
    assert (await world.send(tags_of())).status is FileStatus.STORED
    assert world.log().upload_status is UploadStatus.SUCCESS


@pytest.mark.parametrize("place", ["stored", "fingerprint"])
async def test_a_file_that_orthanc_has_is_stored(world: World, place: str) -> None:
    """Killed while or after Orthanc stores: what is there is found, logged, and fills its order."""
    await killed(world, place, order_id=ORDER_OF_SMITH.id)
    await settled(world, Report(verified=1, compared=1))
    log = world.log()
    (held,) = world.pacs.held.values()
    assert (log.upload_status, log.number_of_files) == (UploadStatus.SUCCESS, 1)
    assert (log.orthanc_study_id, log.total_size_bytes) == (held.study_id, len(held.content))
    study = world.order().study
    assert study is not None
    assert (study.study_instance_uid, study.number_of_images) == (STUDY, 1)
    assert (await world.send(tags_of())).status is FileStatus.ALREADY_STORED


async def test_an_order_that_went_to_another_patient_while_the_pacs_counted_is_not_filled(world: World) -> None:
    """What is found is stored, and the order, which the RIS moved in the middle, tells nothing of it."""

    async def move() -> None:
        async with world.database.begin() as work:
            await work.orders.upsert([OrderEntry(JONES.id, ORDER_OF_SMITH.accession_number, "CT", "scheduled")])
            await work.commit()

    await killed(world, "stored", order_id=ORDER_OF_SMITH.id)
    world.pacs.hooks.at("counts", move)
    assert await world.reconciler.reconcile() == Report(verified=1, compared=1)
    assert world.log().upload_status is UploadStatus.SUCCESS
    assert world.order().study is None


async def test_what_edits_changed_of_a_file_that_is_found_is_logged(world: World) -> None:
    """M7: a coerced file is found by what was sent of it, and the log says whose it is now."""
    world.tag_service.stamping = True
    options = {"patient_id": SMITH.id, "patient_match": PatientMatch.COERCE}
    await killed(world, "stored", **options)
    await settled(world, Report(verified=1, compared=1))
    log = world.log()
    assert (log.original_patient_id, log.modified_patient_id, log.tags_modified) == (JONES.mrn, SMITH.mrn, True)
    assert (await world.send(tags_of(JONES), **options)).status is FileStatus.ALREADY_STORED


async def test_another_content_under_the_same_uids_is_not_the_file(world: World) -> None:
    """What a modality stored past the gateway is not taken for what an upload lost; it shows as unlogged."""
    await killed(world, "chunk")
    world.pacs.put(file_of(tags_of(), b"from the modality"))
    await settled(world, Report(failed=1, compared=1, unlogged=1))
    assert world.database.compared == {world.log().id: Difference(unlogged=1)}


@pytest.mark.usefixtures("impatient")
async def test_what_was_deleted_for_a_file_that_never_came_counts_no_more(world: World) -> None:
    """Killed between the deletion of the old content and the new one: the log counts neither."""
    await world.send(tags_of())
    world.pacs.hooks.at("chunk", raising(orthanc_away))
    with refused(Reason.ORTHANC_UNAVAILABLE):
        await world.send(file_of(tags_of(), b"new"), on_conflict=OnConflict.OVERWRITE)
    await settled(world, Report(failed=1, compared=1))
    assert (world.log().upload_status, world.log().number_of_files) == (UploadStatus.FAILED, 0)


async def test_a_file_whose_study_is_another_patients_meanwhile_is_taken_out(world: World) -> None:
    """What nobody was told of does not make two studies of one."""
    await killed(world, "stored")
    (orphan,) = world.pacs.held
    held = world.pacs.held.pop(orphan)
    await world.send(tags_of(JONES))
    world.pacs.held[orphan] = held
    report = await world.reconciler.reconcile()
    assert report is not None
    assert (report.verified, report.failed) == (0, 1)
    assert world.patient_ids_in_pacs == {JONES.mrn}
    assert (world.log().upload_status, world.log().number_of_files) == (UploadStatus.SUCCESS, 1)


async def test_a_file_that_is_on_its_way_is_left_alone(world: World) -> None:
    """What a living gateway has under way is its own."""
    gate = Gate()
    world.pacs.hooks.at("stored", gate)
    sending = asyncio.create_task(world.send(tags_of()))
    await gate.reached.wait()
    await settled(world, Report())
    gate.opened.set()
    assert (await sending).status is FileStatus.STORED


async def test_a_gateway_that_was_taken_for_dead_ends_well(world: World) -> None:
    """Where the reconciler was ahead of a gateway that was only slow, both say the same in the end."""
    gate = Gate()
    world.pacs.hooks.at("stored", gate)
    sending = asyncio.create_task(world.send(tags_of()))
    await gate.reached.wait()
    world.database.gateways_dead = True
    await world.reconciler.reconcile()
    assert world.log().upload_status is UploadStatus.SUCCESS
    gate.opened.set()
    assert (await sending).status is FileStatus.STORED
    assert (world.log().upload_status, world.log().number_of_files) == (UploadStatus.SUCCESS, 1)


async def test_only_one_gateway_reconciles(world: World) -> None:
    """While another gateway leads, this one does nothing."""
    await killed(world, "chunk")
    world.database.led_by_another = True
    assert await world.reconciler.reconcile() is None
    assert world.log().upload_status is UploadStatus.IN_PROGRESS


async def test_without_orthanc_nothing_is_decided(world: World) -> None:
    """What cannot be looked at stays open."""
    await killed(world, "stored")
    world.pacs.hooks.at("fingerprint", raising(orthanc_away))
    with refused(Reason.ORTHANC_UNAVAILABLE):
        await world.reconciler.reconcile()
    assert world.log().upload_status is UploadStatus.IN_PROGRESS


async def test_a_log_of_before_the_ledger_does_not_stay_in_progress(world: World) -> None:
    """Of a log in progress without an entry nothing is known but that a file was on its way: it counts as failed."""
    await world.send(tags_of())
    log = replace(world.log(), upload_status=UploadStatus.IN_PROGRESS)
    world.database.tables.logs[log.id] = log
    await settled(world, Report(closed=1, compared=1))
    assert world.log().upload_status is UploadStatus.PARTIAL
    assert (world.log().number_of_files, ABANDONED in world.log().error_message) == (1, True)


async def test_what_the_pacs_lost_is_noted(world: World) -> None:
    """An instance that was deleted past the gateway is missing; the log's own count stays what was stored."""
    await world.send(tags_of())
    await world.send(tags_of(sop_instance_uid="1.2.9"))
    world.pacs.held.popitem()
    await settled(world, Report(compared=1, missing=1))
    assert world.database.compared == {world.log().id: Difference(missing=1)}
    assert world.log().number_of_files == 2
    world.pacs.held.clear()
    await settled(world, Report(compared=1, missing=2))


async def test_the_reconciler_goes_on_until_it_is_stopped(world: World) -> None:
    """It gives signs of life and makes passes whatever goes wrong in between, and stops at once."""
    world.database.hooks.at("lead", raising(RuntimeError, times=1))
    world.database.hooks.at("beat", raising(database_away, times=1))
    reconciler = world.reconciler
    reconciler._lease = reconciler._interval = 0.001
    running = asyncio.create_task(reconciler.run())
    async with asyncio.timeout(5):
        while min(world.database.hooks.passed[place] for place in ("lead", "beat")) < 5:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.001)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
