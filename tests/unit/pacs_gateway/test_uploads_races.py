"""Uploads and deletions of one study at the same moment."""

import asyncio

import pytest

from pacs_gateway.domain.upload import FileStatus, PatientMatch
from pacs_gateway.domain.upload_log import UploadStatus
from service_runtime.errors import Reason, ServiceError
from tests.unit.pacs_gateway.fakes import (
    JONES,
    ORDER_OF_SMITH,
    SMITH,
    World,
    file_of,
    orthanc_away,
    refused,
    tags_of,
)
from tests.unit.pacs_gateway.hooks import Gate, raising


class Meeting:
    """A hook at which a number of calls wait for each other."""

    def __init__(self, number: int) -> None:
        self._barrier = asyncio.Barrier(number)

    async def __call__(self) -> None:
        """Waits for the others."""
        await self._barrier.wait()


async def test_files_of_one_study_at_the_same_moment_are_all_counted(world: World) -> None:
    """Many uploads to a study at once make one log that counts them all."""
    world.pacs.hooks.at("stored", Meeting(8))
    await asyncio.gather(*(world.send(tags_of(sop_instance_uid=f"1.2.3.1.{n}")) for n in range(8)))
    assert len(world.database.tables.logs) == 1
    assert world.log().number_of_files == len(world.pacs.held) == 8
    assert world.log().upload_status is UploadStatus.SUCCESS


async def test_files_of_one_study_and_order_at_the_same_moment_fill_the_order(world: World) -> None:
    """The order counts all images of the study, whichever upload came last."""
    world.pacs.hooks.at("stored", Meeting(4))
    await asyncio.gather(
        *(world.send(tags_of(sop_instance_uid=f"1.2.3.1.{n}"), order_id=ORDER_OF_SMITH.id) for n in range(4))
    )
    study = world.order().study
    assert study is not None
    assert study.number_of_images == 4


@pytest.mark.usefixtures("impatient")
async def test_the_same_file_twice_at_the_same_moment_is_stored_and_counted_once(world: World) -> None:
    """Of two equal files one is stored, the other was there already."""
    world.pacs.hooks.at("store", Meeting(2))
    both = await asyncio.gather(world.send(tags_of()), world.send(tags_of()))
    assert {stored.status for stored in both} == {FileStatus.STORED, FileStatus.ALREADY_STORED}
    assert world.log().number_of_files == len(world.pacs.held) == 1
    assert world.log().upload_status is UploadStatus.SUCCESS


async def test_two_contents_of_one_instance_at_the_same_moment_are_told_apart(world: World) -> None:
    """One is stored and stays; the other is a conflict."""
    world.pacs.hooks.at("store", Meeting(2))
    outcomes = await asyncio.gather(
        world.send(file_of(tags_of(), b"one")), world.send(file_of(tags_of(), b"two")), return_exceptions=True
    )
    (error,) = [one for one in outcomes if isinstance(one, ServiceError)]
    assert error.reason is Reason.INSTANCE_CONFLICT
    assert world.log().number_of_files == len(world.pacs.held) == 1
    assert world.log().upload_status is UploadStatus.SUCCESS


async def test_an_unknown_patient_at_the_same_moment_is_made_once(world: World) -> None:
    """Two uploads of an unknown patient agree on one provisional patient."""
    world.tag_service.hooks.at("read", Meeting(2))
    both = await asyncio.gather(
        *(
            world.send(tags_of(patient_id="NEW", study_instance_uid=uid, sop_instance_uid=f"{uid}.1"))
            for uid in ("1.5", "1.6")
        )
    )
    assert len({stored.patient_id for stored in both}) == 1
    assert sum(patient.mrn == "NEW" for patient in world.database.tables.patients.values()) == 1


async def test_one_study_uid_for_two_patients_at_the_same_moment_is_one_patients(world: World) -> None:
    """A study never comes to stand under two patients: the one who is first has it, the other's file is taken out."""
    world.pacs.hooks.at("store", Meeting(2))
    outcomes = await asyncio.gather(
        world.send(tags_of(SMITH)), world.send(tags_of(JONES, sop_instance_uid="1.2.9")), return_exceptions=True
    )
    (error,) = [one for one in outcomes if isinstance(one, ServiceError)]
    assert error.reason is Reason.STUDY_PATIENT_MISMATCH
    (stored,) = [one for one in outcomes if not isinstance(one, BaseException)]
    assert world.log().patient_id == stored.patient_id
    assert world.patient_ids_in_pacs == {stored.tags.patient_id} == {world.log().stored_patient_id}
    assert world.log().number_of_files == 1
    assert world.log().upload_status is UploadStatus.SUCCESS


async def test_one_study_under_two_patient_ids_at_the_same_moment_gets_one(world: World) -> None:
    """The same for two uploads that name one patient, of which one keeps another PatientID."""
    world.pacs.hooks.at("store", Meeting(2))
    outcomes = await asyncio.gather(
        world.send(tags_of(JONES), patient_id=SMITH.id, patient_match=PatientMatch.ACCEPT),
        world.send(tags_of(JONES), patient_id=SMITH.id, patient_match=PatientMatch.COERCE),
        return_exceptions=True,
    )
    (error,) = [one for one in outcomes if isinstance(one, ServiceError)]
    assert error.reason is Reason.STUDY_PATIENT_MISMATCH
    assert world.patient_ids_in_pacs == {world.log().stored_patient_id}


@pytest.mark.usefixtures("impatient")
async def test_one_file_for_two_patients_at_the_same_moment_is_not_lost(world: World) -> None:
    """Where the loser's instance is the winner's too, it stays."""
    world.pacs.hooks.at("store", Meeting(2))
    outcomes = await asyncio.gather(
        *(world.send(tags_of(JONES), patient_id=one.id, patient_match=PatientMatch.ACCEPT) for one in (SMITH, JONES)),
        return_exceptions=True,
    )
    (error,) = [one for one in outcomes if isinstance(one, ServiceError)]
    (stored,) = [one for one in outcomes if not isinstance(one, BaseException)]
    assert error.reason is Reason.STUDY_PATIENT_MISMATCH
    assert world.log().patient_id == stored.patient_id
    assert world.log().number_of_files == len(world.pacs.held) == 1


async def test_a_deletion_between_storing_and_reading_back_is_no_stored_file(world: World) -> None:
    """A file that is deleted before it was read back is not called stored, and the log says deleted."""
    await world.send(tags_of())
    gate = Gate()
    world.pacs.hooks.at("stored", gate)
    sending = asyncio.create_task(world.send(tags_of(sop_instance_uid="1.2.9")))
    await gate.reached.wait()
    await world.delete()
    gate.opened.set()
    with refused(Reason.STORE_UNVERIFIED):
        await sending
    assert not world.pacs.held
    assert world.log().is_deleted
    assert world.log().upload_status is UploadStatus.FAILED


async def test_a_deletion_waits_for_a_file_that_is_being_read_back(world: World) -> None:
    """What is called stored was there when it was called so: the deletion comes after, and takes it too."""
    gate = Gate()
    world.pacs.hooks.at("fingerprint", gate)
    sending = asyncio.create_task(world.send(tags_of(), order_id=ORDER_OF_SMITH.id))
    await gate.reached.wait()
    deleting = asyncio.create_task(world.delete())
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(world.pacs.held) == 1
    gate.opened.set()
    assert (await sending).status is FileStatus.STORED
    await deleting
    assert not world.pacs.held
    assert world.log().is_deleted
    assert world.order().study is None


async def test_a_file_that_comes_after_a_deletion_that_was_asked_for_before_stays(world: World) -> None:
    """An upload that began before the deletion and stored after it revives the study with just its file."""
    await world.send(tags_of())
    gate = Gate()
    world.pacs.hooks.at("store", gate)
    sending = asyncio.create_task(world.send(tags_of(sop_instance_uid="1.2.9"), order_id=ORDER_OF_SMITH.id))
    await gate.reached.wait()
    await world.delete()
    gate.opened.set()
    await sending
    assert not world.log().is_deleted
    assert world.log().number_of_files == len(world.pacs.held) == 1
    assert world.log().upload_status is UploadStatus.SUCCESS
    assert world.order().study is not None


async def test_a_study_deleted_and_uploaded_for_another_patient_meanwhile_is_that_patients(world: World) -> None:
    """An upload that outlasts the deletion of its study and the study's new life under another patient is refused, and
    what it stored is taken out.
    """
    await world.send(tags_of(SMITH))
    gate = Gate()
    world.pacs.hooks.at("chunk", gate)
    late = asyncio.create_task(world.send(tags_of(SMITH, sop_instance_uid="1.2.9")))
    await gate.reached.wait()
    world.pacs.hooks.clear()
    await world.delete()
    await world.send(tags_of(JONES))
    gate.opened.set()
    with refused(Reason.STUDY_PATIENT_MISMATCH):
        await late
    assert world.patient_ids_in_pacs == {JONES.mrn}
    assert world.log().patient_id == JONES.id
    assert [file.sop_instance_uid for file in world.files()] == [tags_of().sop_instance_uid]


async def test_an_upload_takes_out_nothing_that_another_stored_in_its_place(world: World) -> None:
    """Deleted and stored anew with other content before it was read back: the upload fails, the new file stays."""
    gate = Gate()
    world.pacs.hooks.at("stored", gate)
    late = asyncio.create_task(world.send(file_of(tags_of(), b"old")))
    await gate.reached.wait()
    world.pacs.hooks.clear()
    await world.delete()
    await world.send(file_of(tags_of(), b"new"))
    gate.opened.set()
    with refused(Reason.STORE_UNVERIFIED):
        await late
    (held,) = world.pacs.held.values()
    assert held.content == file_of(tags_of(), b"new")
    assert world.log().number_of_files == 1
    assert world.log().upload_status is UploadStatus.SUCCESS


async def test_an_upload_after_a_deletion_that_broke_off_counts_anew(world: World) -> None:
    """Files that Orthanc deleted are not counted, though the deletion never came to say so."""
    await world.send(tags_of())
    await world.send(tags_of(sop_instance_uid="1.2.8"))
    world.pacs.hooks.at("study_deleted", raising(orthanc_away))
    with refused(Reason.ORTHANC_UNAVAILABLE):
        await world.delete()
    world.pacs.hooks.clear()
    await world.send(tags_of(sop_instance_uid="1.2.9"))
    assert world.log().number_of_files == len(world.pacs.held) == 1
    assert not world.log().is_deleted


async def test_an_upload_after_a_deletion_that_never_reached_orthanc_adds(world: World) -> None:
    """A deletion that was asked for and did not happen changes nothing."""
    await world.send(tags_of())
    world.pacs.hooks.at("delete_study", raising(orthanc_away))
    with refused(Reason.ORTHANC_UNAVAILABLE):
        await world.delete()
    world.pacs.hooks.clear()
    await world.send(tags_of(sop_instance_uid="1.2.9"))
    assert world.log().number_of_files == len(world.pacs.held) == 2
