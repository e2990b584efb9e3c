"""Under which patient and order a file is stored, and which files are refused for it."""

from asyncio import gather
from dataclasses import replace
from datetime import date
from uuid import UUID

import pytest

from pacs_gateway.domain.registry import OrderEntry, Patient, PatientEntry
from pacs_gateway.domain.tags import Edits
from pacs_gateway.domain.upload import PatientMatch, UnknownPatients, UploadOptions
from pacs_gateway.domain.upload_log import UploadStatus
from service_runtime.errors import Reason
from tests.unit.pacs_gateway.fakes import (
    JONES,
    ORDER_OF_JONES,
    ORDER_OF_SMITH,
    SMITH,
    STUDY,
    TECHNOLOGIST,
    World,
    chunks_of,
    file_of,
    refused,
    tags_of,
)
from tests.unit.pacs_gateway.hooks import Gate

STRANGER = Patient(UUID(int=99), "MRN-STRANGER", "Stranger^Sam", date(2000, 2, 29), "O")


def nothing_happened(world: World) -> bool:
    """Whether no file, no log and no further patient is there."""
    tables = world.database.tables
    return not world.pacs.held and not tables.logs and set(tables.patients) == {SMITH.id, JONES.id}


async def test_the_patient_is_the_one_with_the_files_patient_id(world: World) -> None:
    """A file without a named patient goes to the patient whose MRN is its PatientID."""
    stored = await world.send(tags_of(JONES))
    assert stored.patient_id == JONES.id
    assert world.log().patient_id == JONES.id


async def test_the_named_patient_takes_a_file_of_its_own(world: World) -> None:
    """REQUIRE lets the named patient's own files in, unchanged."""
    stored = await world.send(tags_of(SMITH), patient_id=SMITH.id)
    assert stored.patient_id == SMITH.id
    assert stored.tags == tags_of(SMITH)


@pytest.mark.parametrize("patient_id", [JONES.mrn, "", SMITH.mrn.lower(), SMITH.mrn + "0"])
async def test_require_refuses_any_other_patient_id(world: World, patient_id: str) -> None:
    """REQUIRE, the default, refuses a file whose PatientID is not exactly the named patient's MRN."""
    with refused(Reason.PATIENT_MISMATCH):
        await world.send(tags_of(SMITH, patient_id=patient_id), patient_id=SMITH.id)
    assert nothing_happened(world)


async def test_coerce_makes_the_file_the_named_patients(world: World) -> None:
    """COERCE rewrites all that names the patient and keeps in the log what came."""
    stored = await world.send(
        tags_of(JONES, patient_birth_date="19010203", patient_sex="M"),
        patient_id=SMITH.id,
        patient_match=PatientMatch.COERCE,
    )
    (held,) = world.pacs.held.values()
    for tags in (stored.tags, held.tags):
        assert tags.patient_id == SMITH.mrn
        assert tags.patient_name == SMITH.full_name
        assert (tags.patient_birth_date, tags.patient_sex) == ("19700102", "F")
    log = world.log()
    assert log.tags_modified
    assert (log.original_patient_id, log.original_patient_name) == (JONES.mrn, JONES.full_name)
    assert (log.modified_patient_id, log.modified_patient_name) == (SMITH.mrn, SMITH.full_name)
    assert log.patient_id == SMITH.id


async def test_coerce_empties_what_the_ris_does_not_know(world: World) -> None:
    """COERCE leaves nothing of another patient behind: a birth date unknown to the RIS is emptied."""
    stored = await world.send(
        tags_of(SMITH, patient_birth_date="19700102"), patient_id=JONES.id, patient_match=PatientMatch.COERCE
    )
    assert stored.tags.patient_birth_date == ""


async def test_coerce_takes_no_other_patient_id_from_a_general_edit(world: World) -> None:
    """What COERCE stores has the named patient's PatientID, whatever else the edits made of it."""
    with refused(Reason.PATIENT_MISMATCH):
        await world.send(
            tags_of(SMITH),
            patient_id=SMITH.id,
            patient_match=PatientMatch.COERCE,
            edits=Edits(set=(f"PatientID={JONES.mrn}",)),
        )
    assert nothing_happened(world)


async def test_accept_stores_the_file_as_it_is(world: World) -> None:
    """ACCEPT puts the file under the named patient and changes nothing in it."""
    stored = await world.send(tags_of(JONES), patient_id=SMITH.id, patient_match=PatientMatch.ACCEPT)
    assert stored.patient_id == world.log().patient_id == SMITH.id
    assert world.patient_ids_in_pacs == {JONES.mrn}
    assert not world.log().tags_modified


async def test_an_edited_patient_id_decides(world: World) -> None:
    """The patient is found by the PatientID that is stored, not by the one that came."""
    stored = await world.send(tags_of(JONES), edits=Edits(patient_id=SMITH.mrn))
    assert stored.patient_id == SMITH.id
    assert world.patient_ids_in_pacs == {SMITH.mrn}
    assert world.log().original_patient_id == JONES.mrn


async def test_an_unknown_patient_is_made_provisionally(world: World) -> None:
    """A file of a patient the RIS has not told of makes a provisional one out of its tags."""
    tags = tags_of(STRANGER, patient_birth_date="20000229", patient_sex="O")
    stored = await world.send(tags)
    made = world.database.tables.patients[stored.patient_id]
    assert made == replace(STRANGER, id=stored.patient_id, is_provisional=True)


@pytest.mark.parametrize("birth_date", ["20010229", "2001", "200102031", "31121999", "x"])
async def test_a_provisional_patient_has_only_sound_values(world: World, birth_date: str) -> None:
    """Odd demographics of a file never become the registry's, nor fail the upload."""
    tags = tags_of(STRANGER, patient_birth_date=birth_date, patient_sex="UNKNOWN", patient_name="")
    made = world.database.tables.patients[(await world.send(tags)).patient_id]
    assert (made.birth_date, made.sex) == (None, "")
    assert made.full_name == STRANGER.mrn


async def test_a_provisional_patient_is_made_once(world: World) -> None:
    """A second file of the same unknown patient finds the provisional patient of the first."""
    first = await world.send(tags_of(STRANGER))
    second = await world.send(tags_of(STRANGER, sop_instance_uid="1.2.9"))
    assert first.patient_id == second.patient_id
    assert len(world.database.tables.patients) == 3


async def test_an_unknown_patient_is_refused_where_that_is_set(world: World) -> None:
    """With UNKNOWN_PATIENTS=reject a file of an unknown patient leaves nothing, not even a log."""
    with refused(Reason.PATIENT_UNKNOWN):
        await world.send(tags_of(STRANGER), unknown=UnknownPatients.REJECT)
    assert nothing_happened(world)


async def test_reject_lets_known_patients_in(world: World) -> None:
    """UNKNOWN_PATIENTS=reject is about unknown patients only."""
    stored = await world.send(tags_of(SMITH), unknown=UnknownPatients.REJECT)
    assert stored.patient_id == SMITH.id


@pytest.mark.parametrize("unknown", UnknownPatients)
async def test_a_file_without_patient_id_needs_a_named_patient(world: World, unknown: UnknownPatients) -> None:
    """No PatientID and no named patient: refused, never matched with just anybody."""
    with refused(Reason.PATIENT_ID_MISSING):
        await world.send(tags_of(SMITH, patient_id=""), unknown=unknown)
    assert nothing_happened(world)


@pytest.mark.parametrize("patient_id", ["*", "MRN?", "A\\B", "X" * 65, "a\x07b"])
async def test_a_patient_id_that_is_no_identifier_makes_no_patient(world: World, patient_id: str) -> None:
    """A PatientID that could match others makes no provisional patient."""
    with refused(Reason.PATIENT_UNKNOWN):
        await world.send(tags_of(SMITH, patient_id=patient_id))
    assert nothing_happened(world)


async def test_an_unknown_named_patient_is_not_found(world: World) -> None:
    """A patient_id that nobody has is an error of the whole upload."""
    with refused(Reason.PATIENT_NOT_FOUND):
        await world.send(tags_of(SMITH), patient_id=STRANGER.id)
    assert nothing_happened(world)


async def test_an_unknown_named_order_is_not_found(world: World) -> None:
    """An order_id that nobody has is an error of the whole upload."""
    with refused(Reason.ORDER_NOT_FOUND):
        await world.send(tags_of(SMITH), order_id=UUID(int=999))
    assert nothing_happened(world)


async def test_the_order_is_found_by_accession_number(world: World) -> None:
    """A file's AccessionNumber leads to its order."""
    stored = await world.send(tags_of(SMITH, accession_number=ORDER_OF_SMITH.accession_number))
    assert stored.order_id == world.log().order_id == ORDER_OF_SMITH.id


async def test_a_file_needs_no_order(world: World) -> None:
    """An AccessionNumber that no order has is no reason to refuse a file."""
    stored = await world.send(tags_of(SMITH, accession_number="ELSEWHERE"))
    assert stored.order_id is None
    assert world.log().order_id is None


async def test_the_orders_dicom_fields_are_filled(world: World) -> None:
    """The order tells of the study that was uploaded for it, with what the PACS counts now."""
    await world.send(tags_of(SMITH), order_id=ORDER_OF_SMITH.id)
    await world.send(
        tags_of(SMITH, series_instance_uid="1.2.3.2", sop_instance_uid="1.2.3.2.1"), order_id=ORDER_OF_SMITH.id
    )
    study = world.order().study
    assert study is not None
    assert study.study_instance_uid == STUDY
    assert (study.number_of_series, study.number_of_images) == (2, 2)
    assert (study.study_date, study.study_time) == ("20240102", "101112")
    assert (study.uploaded_by_id, study.uploaded_at) == (TECHNOLOGIST.id, world.clock())
    assert study.upload_source == "manual"
    assert study.orthanc_study_id == world.log().orthanc_study_id
    (held_under,) = {held.study_id for held in world.pacs.held.values()}
    assert study.orthanc_study_id == held_under


async def test_a_named_order_of_another_than_the_named_patient_is_refused(world: World) -> None:
    """Patient and order that do not belong together are refused before a byte is read."""
    with refused(Reason.ORDER_PATIENT_MISMATCH):
        await world.uploads().open(UploadOptions(patient_id=SMITH.id, order_id=ORDER_OF_JONES.id), by=TECHNOLOGIST.id)
    assert not world.tag_service.hooks.passed


async def test_a_named_order_of_another_than_the_files_patient_is_refused(world: World) -> None:
    """An order alone, without a patient, is held against the patient that the file is of."""
    with refused(Reason.ORDER_PATIENT_MISMATCH):
        await world.send(tags_of(SMITH), order_id=ORDER_OF_JONES.id)
    assert nothing_happened(world)
    assert world.order(ORDER_OF_JONES).study is None


async def test_an_accession_number_of_another_patients_order_is_refused(world: World) -> None:
    """An AccessionNumber that was typed wrongly is found out, whether or not patient and order are named."""
    tags = tags_of(SMITH, accession_number=ORDER_OF_JONES.accession_number)
    for options in ({}, {"patient_id": SMITH.id}, {"order_id": ORDER_OF_SMITH.id}):
        with refused(Reason.ORDER_PATIENT_MISMATCH):
            await world.send(tags, **options)
    assert nothing_happened(world)


async def test_coerced_files_do_not_keep_another_patients_order(world: World) -> None:
    """COERCE does not hide that the AccessionNumber is still another patient's."""
    with refused(Reason.ORDER_PATIENT_MISMATCH):
        await world.send(
            tags_of(JONES, accession_number=ORDER_OF_JONES.accession_number),
            patient_id=SMITH.id,
            patient_match=PatientMatch.COERCE,
        )
    assert nothing_happened(world)


async def test_an_order_that_went_to_another_patient_during_the_upload_is_refused(world: World) -> None:
    """The named order is looked at for each file, not as it was when the upload began."""
    upload = await world.uploads().open(UploadOptions(order_id=ORDER_OF_SMITH.id), by=TECHNOLOGIST.id)
    async with world.database.begin() as work:
        await work.orders.upsert([OrderEntry(JONES.id, ORDER_OF_SMITH.accession_number, "CT", "scheduled")])
        await work.commit()
    with refused(Reason.ORDER_PATIENT_MISMATCH):
        await upload.store("slice.dcm", chunks_of(file_of(tags_of(SMITH))))
    assert nothing_happened(world)


@pytest.mark.parametrize("place", ["stored", "counts"])
@pytest.mark.parametrize("holds_files", [False, True])
async def test_an_order_that_went_to_another_patient_while_the_bytes_travelled_is_not_filled(
    world: World,
    place: str,
    holds_files: bool,  # noqa: FBT001
) -> None:
    """No order ever shows the study of another patient, even where the RIS moved it in the middle of the upload, or
    while the PACS counted what the order is to say.
    """
    if holds_files:
        await world.send(tags_of(SMITH, accession_number="", sop_instance_uid="1.2.3.1.99"))

    async def move() -> None:
        async with world.database.begin() as work:
            await work.orders.upsert([OrderEntry(JONES.id, ORDER_OF_SMITH.accession_number, "CT", "scheduled")])
            await work.commit()

    world.pacs.hooks.at(place, move)
    with refused(Reason.ORDER_PATIENT_MISMATCH):
        await world.send(tags_of(SMITH), order_id=ORDER_OF_SMITH.id)
    assert world.order().study is None
    assert world.log().upload_status is (UploadStatus.PARTIAL if holds_files else UploadStatus.FAILED)


async def test_a_provisional_patient_that_the_ris_names_meanwhile_stays_the_patient(world: World) -> None:
    """The RIS may give a provisional patient its own id while a file of it travels: the file is stored under that."""
    gate = Gate()
    world.pacs.hooks.at("stored", gate)
    sending = world.send(tags_of(STRANGER))

    async def name() -> None:
        await gate.reached.wait()
        async with world.database.begin() as work:
            await work.patients.upsert(
                [PatientEntry(STRANGER.mrn, STRANGER.full_name, STRANGER.birth_date, STRANGER.sex, STRANGER.id)]
            )
            await work.commit()
        gate.opened.set()

    stored, _ = await gather(sending, name())
    assert world.log().patient_id == STRANGER.id
    assert world.log().upload_status is UploadStatus.SUCCESS
    assert stored.patient_id == STRANGER.id


async def test_a_named_provisional_patient_that_the_ris_names_meanwhile_stays_the_patient(world: World) -> None:
    """The rest of an upload for a provisional patient goes on under the id that the RIS gave it in the middle."""
    first = await world.send(tags_of(STRANGER))
    upload = await world.uploads().open(UploadOptions(patient_id=first.patient_id), by=TECHNOLOGIST.id)
    async with world.database.begin() as work:
        await work.patients.upsert([PatientEntry(STRANGER.mrn, STRANGER.full_name, None, "", STRANGER.id)])
        await work.commit()
    stored = await upload.store("slice.dcm", chunks_of(file_of(tags_of(STRANGER, sop_instance_uid="1.2.9"))))
    assert stored.patient_id == world.log().patient_id == STRANGER.id
    assert world.log().number_of_files == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("study_instance_uid", ""),
        ("series_instance_uid", ""),
        ("sop_instance_uid", ""),
        ("study_instance_uid", "1.2.*"),
        ("study_instance_uid", "1.2\\1.3"),
        ("sop_instance_uid", "1." + "2" * 64),
        ("series_instance_uid", "UID"),
    ],
)
async def test_a_file_without_sound_uids_is_refused(world: World, name: str, value: str) -> None:
    """A file that Orthanc could not tell apart from others is refused before anything is written."""
    with refused(Reason.IDENTIFIER_MISSING):
        await world.send(tags_of(SMITH, **{name: value}))
    assert nothing_happened(world)


@pytest.mark.parametrize(
    "read",
    [
        {"patient_id": f" {SMITH.mrn}"},
        {"patient_id": f"{SMITH.mrn} "},
        {"patient_id": JONES.mrn},
        {"study_instance_uid": "1.2.4"},
        {"series_instance_uid": "1.2.4"},
        {"sop_instance_uid": "1.2.4"},
    ],
)
@pytest.mark.parametrize("options", [{}, {"patient_id": SMITH.id}])
async def test_a_file_that_orthanc_reads_otherwise_is_refused(
    world: World, read: dict[str, str], options: dict[str, UUID]
) -> None:
    """Where Orthanc and tag_service see different identifiers in one file, it is not filed under either."""
    world.pacs.reading = lambda tags: replace(tags, **read)
    with refused(Reason.STORE_REFUSED):
        await world.send(tags_of(SMITH), **options)
    assert not world.pacs.held
    assert world.log().upload_status is UploadStatus.FAILED
    assert world.log().number_of_files == 0


async def test_a_study_of_another_patient_takes_no_file(world: World) -> None:
    """A further slice under another PatientID is refused, and the study stays what it was."""
    await world.send(tags_of(SMITH))
    before = world.log()
    with refused(Reason.STUDY_PATIENT_MISMATCH):
        await world.send(tags_of(JONES, sop_instance_uid="1.2.9"))
    assert world.log() == before
    assert world.patient_ids_in_pacs == {SMITH.mrn}


async def test_a_study_keeps_one_patient_id_for_the_same_patient(world: World) -> None:
    """One study never stands in the PACS under two PatientIDs, though both uploads name the same patient."""
    await world.send(tags_of(SMITH))
    with refused(Reason.STUDY_PATIENT_MISMATCH):
        await world.send(
            tags_of(JONES, sop_instance_uid="1.2.9"), patient_id=SMITH.id, patient_match=PatientMatch.ACCEPT
        )
    assert world.patient_ids_in_pacs == {SMITH.mrn}


async def test_a_study_that_came_past_the_gateway_keeps_its_patient(world: World) -> None:
    """A study that a modality stored directly takes no file under another PatientID."""
    world.pacs.put(file_of(tags_of(JONES)))
    with refused(Reason.STUDY_PATIENT_MISMATCH):
        await world.send(tags_of(SMITH, sop_instance_uid="1.2.9"))
    assert world.patient_ids_in_pacs == {JONES.mrn}
    assert not world.database.tables.logs


async def test_a_study_that_came_past_the_gateway_after_a_failure_keeps_its_patient(world: World) -> None:
    """The same where the gateway has a log of it, of files that all failed."""
    world.pacs.corrupting = True
    with refused(Reason.STORE_UNVERIFIED):
        await world.send(tags_of(SMITH))
    world.pacs.corrupting = False
    world.pacs.put(file_of(tags_of(JONES)))
    with refused(Reason.STUDY_PATIENT_MISMATCH):
        await world.send(tags_of(SMITH))
    assert world.patient_ids_in_pacs == {JONES.mrn}


async def test_a_failed_file_does_not_decide_under_which_patient_id_a_study_is(world: World) -> None:
    """The log goes by the PatientID of what is stored: a first file that failed with another one counts for nothing."""
    world.pacs.corrupting = True
    with refused(Reason.STORE_UNVERIFIED):
        await world.send(tags_of(JONES), patient_id=SMITH.id, patient_match=PatientMatch.ACCEPT)
    world.pacs.corrupting = False
    await world.send(tags_of(SMITH, sop_instance_uid="1.2.8"))
    await world.send(tags_of(SMITH, sop_instance_uid="1.2.9"))
    with refused(Reason.STUDY_PATIENT_MISMATCH):
        await world.send(tags_of(JONES), patient_id=SMITH.id, patient_match=PatientMatch.ACCEPT)
    assert world.patient_ids_in_pacs == {SMITH.mrn}
    assert world.log().stored_patient_id == SMITH.mrn


async def test_a_wrong_patient_whose_files_all_failed_does_not_block_the_study(world: World) -> None:
    """After an upload under the wrong patient of which nothing was stored, the right one gets through."""
    world.pacs.corrupting = True
    with refused(Reason.STORE_UNVERIFIED):
        await world.send(tags_of(SMITH), patient_id=JONES.id, patient_match=PatientMatch.COERCE)
    world.pacs.corrupting = False
    stored = await world.send(tags_of(SMITH))
    assert stored.patient_id == world.log().patient_id == SMITH.id
    assert world.log().original_patient_id == SMITH.mrn
    assert world.log().upload_status is UploadStatus.SUCCESS


async def test_a_failed_upload_for_another_order_leaves_the_studys_order(world: World) -> None:
    """The log names the order that something was stored for."""
    other = replace(ORDER_OF_SMITH, id=UUID(int=13), accession_number="ACC-OTHER")
    world.database.tables.orders[other.id] = other
    await world.send(tags_of(SMITH), order_id=ORDER_OF_SMITH.id)
    world.pacs.corrupting = True
    with refused(Reason.STORE_UNVERIFIED):
        await world.send(tags_of(SMITH, sop_instance_uid="1.2.9"), order_id=other.id)
    assert world.log().order_id == ORDER_OF_SMITH.id
    assert world.order(other).study is None
