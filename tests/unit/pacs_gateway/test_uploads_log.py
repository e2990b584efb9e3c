"""What the log says of files that are stored: one log per study, added to, revived after a deletion."""

import hashlib
from dataclasses import replace

from pacs_gateway.domain.ledger import FileState
from pacs_gateway.domain.tags import Edits
from pacs_gateway.domain.upload import FileStatus, PatientMatch, UploadOptions, UploadSource
from pacs_gateway.domain.upload_log import UploadStatus
from service_runtime.errors import Reason
from tests.unit.pacs_gateway.fakes import (
    INSTANCE,
    JONES,
    ORDER_OF_SMITH,
    RADIOLOGIST,
    SMITH,
    STUDY,
    TECHNOLOGIST,
    World,
    chunks_of,
    file_of,
    orthanc_away,
    refused,
    tags_of,
)
from tests.unit.pacs_gateway.hooks import raising

OTHER_INSTANCE = "1.2.3.1.2"


async def test_a_stored_file_is_logged(world: World) -> None:
    """The log of a first file says all that is known of it."""
    content = file_of(tags_of(accession_number="ACC-SMITH"))
    stored = await world.send(content, name="a.dcm", source=UploadSource.CD_IMPORT)
    log = world.log()
    assert stored.status is FileStatus.STORED
    assert stored.upload_log_id == log.id
    assert stored.orthanc_id in world.pacs.held
    assert world.pacs.held[stored.orthanc_id].content == content
    (file,) = world.files()
    assert (file.sop_instance_uid, file.filename, file.orthanc_id) == (INSTANCE, "a.dcm", stored.orthanc_id)
    assert file.state is FileState.VERIFIED
    assert file.source.sha256 == file.stored.sha256 == hashlib.sha256(content).hexdigest()
    assert file.source.size_bytes == file.stored.size_bytes == len(content)
    assert (file.uploaded_by_id, file.error, file.edits_sha256) == (TECHNOLOGIST.id, "", "")
    assert file.received_at == file.finished_at == world.clock()
    assert (log.number_of_files, log.total_size_bytes) == (1, len(content))
    assert log.upload_status is UploadStatus.SUCCESS
    assert log.error_message == ""
    assert (log.patient_id, log.order_id) == (SMITH.id, ORDER_OF_SMITH.id)
    assert (log.uploaded_by_id, log.uploaded_at, log.upload_source) == (TECHNOLOGIST.id, world.clock(), "cd_import")
    assert log.original_patient_id == SMITH.mrn
    assert log.original_patient_name == SMITH.full_name
    assert log.original_accession_number == "ACC-SMITH"
    assert (log.original_study_date, log.original_modality) == ("20240102", "CT")
    assert not log.tags_modified
    assert log.modified_patient_id == log.modified_patient_name == log.modified_accession_number == ""
    assert log.upload_duration_seconds > 0
    assert not log.is_deleted


async def test_the_log_says_in_progress_while_the_bytes_travel(world: World) -> None:
    """The log is there before Orthanc has the file, so that nothing can be stored without a trace."""
    seen = []

    async def look() -> None:
        seen.append((world.log().upload_status, world.log().number_of_files))

    world.pacs.hooks.at("store", look)
    await world.send(tags_of())
    assert seen == [(UploadStatus.IN_PROGRESS, 0)]


async def test_a_further_file_adds_to_the_studys_log(world: World) -> None:
    """A study has one log, however many uploads there are."""
    first = await world.send(tags_of())
    world.clock.forward(hours=1)
    size = world.log().total_size_bytes
    second = await world.send(tags_of(sop_instance_uid=OTHER_INSTANCE), by=RADIOLOGIST, source=UploadSource.API)
    log = world.log()
    assert first.upload_log_id == second.upload_log_id
    assert len(world.database.tables.logs) == 1
    assert log.number_of_files == 2
    assert log.total_size_bytes == 2 * size
    assert (log.uploaded_by_id, log.uploaded_at, log.upload_source) == (RADIOLOGIST.id, world.clock(), "api")


async def test_each_study_has_its_own_log(world: World) -> None:
    """Files of two studies are logged apart, also within one upload."""
    upload = await world.uploads().open(UploadOptions(), by=TECHNOLOGIST.id)
    for uid in ("1.5", "1.6"):
        await upload.store(
            "slice.dcm", chunks_of(file_of(tags_of(study_instance_uid=uid, sop_instance_uid=f"{uid}.1")))
        )
    assert world.log("1.5").id != world.log("1.6").id
    assert {log.number_of_files for log in world.database.tables.logs.values()} == {1}


async def test_the_same_file_again_is_told_and_counted_once(world: World) -> None:
    """Sending a file again changes nothing, and says so."""
    first = await world.send(tags_of())
    before = world.log()
    again = await world.send(tags_of())
    assert again.status is FileStatus.ALREADY_STORED
    assert replace(again, status=FileStatus.STORED) == first
    assert world.log().number_of_files == before.number_of_files == 1
    assert world.log().upload_status is UploadStatus.SUCCESS
    assert len(world.pacs.held) == 1


async def test_the_same_file_again_fills_an_order_that_is_named_only_now(world: World) -> None:
    """A second upload of a file can put the study under its order."""
    await world.send(tags_of())
    again = await world.send(tags_of(), order_id=ORDER_OF_SMITH.id)
    assert again.status is FileStatus.ALREADY_STORED
    assert world.log().order_id == ORDER_OF_SMITH.id
    assert world.order().study is not None


async def test_other_content_under_the_same_uid_is_a_conflict(world: World) -> None:
    """The first content is kept, the second refused; the log counts the first as before."""
    first = file_of(tags_of(), b"first")
    await world.send(first)
    before = world.log()
    with refused(Reason.INSTANCE_CONFLICT):
        await world.send(file_of(tags_of(), b"other"))
    (held,) = world.pacs.held.values()
    assert held.content == first
    assert world.log().total_size_bytes == before.total_size_bytes == len(first)
    assert world.log().upload_status is UploadStatus.SUCCESS


async def test_a_conflict_with_what_the_gateway_never_stored_is_a_failure(world: World) -> None:
    """What a modality stored directly is not counted as uploaded, nor touched, when a conflicting file is refused."""
    held = file_of(tags_of(), b"from the modality")
    world.pacs.put(held)
    with refused(Reason.INSTANCE_CONFLICT):
        await world.send(tags_of())
    assert [one.content for one in world.pacs.held.values()] == [held]
    assert world.log().number_of_files == 0
    assert world.log().upload_status is UploadStatus.FAILED
    assert "INSTANCE_CONFLICT" in world.log().error_message


async def test_some_failures_make_the_log_partial(world: World) -> None:
    """Of one stored and one failed file, the log is partial, with the reason and the numbers."""
    await world.send(tags_of())
    world.pacs.hooks.at("store", raising(orthanc_away))
    with refused(Reason.ORTHANC_UNAVAILABLE):
        await world.send(tags_of(sop_instance_uid=OTHER_INSTANCE), name="b.dcm")
    log = world.log()
    assert log.upload_status is UploadStatus.PARTIAL
    assert log.error_message == "1 of 2 files failed: ORTHANC_UNAVAILABLE"
    assert (log.number_of_files, len(world.files())) == (1, 2)


async def test_only_failures_make_the_log_failed(world: World) -> None:
    """Where nothing is stored, the log is failed and counts nothing."""
    world.pacs.hooks.at("store", raising(orthanc_away))
    with refused(Reason.ORTHANC_UNAVAILABLE):
        await world.send(tags_of())
    log = world.log()
    assert log.upload_status is UploadStatus.FAILED
    assert (log.number_of_files, log.total_size_bytes) == (0, 0)


async def test_a_failed_file_that_is_sent_again_mends_the_log(world: World) -> None:
    """After a retry that worked, the log is a success without any error."""
    world.pacs.hooks.at("store", raising(orthanc_away, times=1))
    with refused(Reason.ORTHANC_UNAVAILABLE):
        await world.send(tags_of())
    await world.send(tags_of())
    assert world.log().upload_status is UploadStatus.SUCCESS
    assert world.log().error_message == ""
    assert world.log().number_of_files == 1


async def test_an_upload_after_a_deletion_revives_the_log_and_counts_anew(world: World) -> None:
    """The log stays the study's only one; what was deleted counts no more."""
    await world.send(tags_of(), order_id=ORDER_OF_SMITH.id)
    await world.send(tags_of(sop_instance_uid=OTHER_INSTANCE))
    log_id = world.log().id
    await world.delete()
    assert world.log().is_deleted
    content = file_of(tags_of(), b"much more than there was before")
    stored = await world.send(content)
    log = world.log()
    assert stored.upload_log_id == log.id == log_id
    assert stored.status is FileStatus.STORED
    assert not log.is_deleted
    assert (log.number_of_files, log.total_size_bytes) == (1, len(content))
    assert log.order_id is None
    assert log.upload_status is UploadStatus.SUCCESS


async def test_a_deleted_study_may_come_back_under_another_patient(world: World) -> None:
    """Deleting a study that was under the wrong patient makes way for the right one."""
    await world.send(tags_of(JONES))
    await world.delete()
    await world.send(tags_of(SMITH))
    log = world.log()
    assert (log.patient_id, log.original_patient_id) == (SMITH.id, SMITH.mrn)
    assert not log.tags_modified
    assert world.patient_ids_in_pacs == {SMITH.mrn}


async def test_a_failure_after_a_deletion_does_not_revive_the_log(world: World) -> None:
    """The log goes on to say deleted until something is stored."""
    await world.send(tags_of())
    await world.delete()
    world.pacs.hooks.at("store", raising(orthanc_away))
    with refused(Reason.ORTHANC_UNAVAILABLE):
        await world.send(tags_of())
    log = world.log()
    assert log.is_deleted
    assert log.upload_status is UploadStatus.FAILED
    assert log.number_of_files == 0


async def test_edits_are_logged(world: World) -> None:
    """What the edits changed stands beside what came."""
    stored = await world.send(
        tags_of(accession_number="TYPO"), edits=Edits(accession_number="ACC-SMITH", study_description="Chest")
    )
    log = world.log()
    assert stored.tags.study_description == "Chest"
    assert stored.order_id == ORDER_OF_SMITH.id
    assert log.tags_modified
    assert (log.original_accession_number, log.modified_accession_number) == ("TYPO", "ACC-SMITH")
    assert log.modified_patient_id == ""


async def test_edits_of_one_file_stay_logged_when_others_need_none(world: World) -> None:
    """A study whose first file was changed stays a changed one."""
    options = {"patient_id": SMITH.id, "patient_match": PatientMatch.COERCE}
    await world.send(tags_of(JONES), **options)
    await world.send(tags_of(SMITH, sop_instance_uid=OTHER_INSTANCE))
    log = world.log()
    assert log.tags_modified
    assert (log.original_patient_id, log.modified_patient_id) == (JONES.mrn, SMITH.mrn)
    assert log.number_of_files == 2


async def test_another_study_of_the_order_takes_its_place(world: World) -> None:
    """An order shows the study that was uploaded for it last; deleting the one before leaves that alone."""
    await world.send(tags_of(), order_id=ORDER_OF_SMITH.id)
    later = tags_of(study_instance_uid="1.9", series_instance_uid="1.9.1", sop_instance_uid="1.9.1.1")
    await world.send(later, order_id=ORDER_OF_SMITH.id)
    await world.delete(STUDY)
    study = world.order().study
    assert study is not None
    assert study.study_instance_uid == "1.9"


async def test_one_upload_stores_many_files(world: World) -> None:
    """Files of an upload are stored one after the other, each with its own fate."""
    upload = await world.uploads().open(UploadOptions(patient_id=SMITH.id), by=TECHNOLOGIST.id)
    await upload.store("1.dcm", chunks_of(file_of(tags_of())))
    with refused(Reason.PATIENT_MISMATCH):
        await upload.store("2.dcm", chunks_of(file_of(tags_of(JONES, sop_instance_uid="1.7"))))
    with refused(Reason.NOT_DICOM):
        await upload.store("3.dcm", chunks_of(b"a text"))
    await upload.store("4.dcm", chunks_of(file_of(tags_of(sop_instance_uid=OTHER_INSTANCE))))
    assert [file.filename for file in world.files()] == ["1.dcm", "4.dcm"]
    assert world.log().upload_status is UploadStatus.SUCCESS
