"""Upload logs and the traces of deletions in a real PostgreSQL."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from pacs_gateway.adapters.db import PostgresDatabase
from pacs_gateway.domain.paging import Page, PageRequest
from pacs_gateway.domain.registry import OrderEntry, PatientEntry, Role, UserEntry
from pacs_gateway.domain.study import StudyLink
from pacs_gateway.domain.upload_log import (
    Deletion,
    UploadLog,
    UploadLogEntry,
    UploadLogFilter,
    UploadStatus,
)
from service_runtime.errors import InvalidFieldError, Reason, ServiceError
from tests.integration.databases import Migrated, execute, migrated_database

NOW = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
REPLACED = "\N{REPLACEMENT CHARACTER}"
ANY = UploadLogFilter()


@dataclass(frozen=True, slots=True)
class World:
    """A database with a patient, an order and two users."""

    database: PostgresDatabase
    url: str
    patient_id: UUID
    order_id: UUID
    anna_id: UUID
    boris_id: UUID

    def log(self, study_uid: str = "1.2.3", *, at: datetime = NOW, order_id: UUID | None = None) -> UploadLog:
        """The log of an upload that has begun."""
        return UploadLog(uuid4(), self.patient_id, order_id, self.anna_id, study_uid, "manual", at)

    async def save(self, *logs: UploadLog) -> None:
        """Saves logs in a transaction of their own."""
        async with self.database.begin() as work:
            for log in logs:
                await work.lock_study(log.study_instance_uid)
                await work.upload_logs.save(log)
            await work.commit()

    async def read(self, study_uid: str = "1.2.3") -> UploadLog | None:
        """The log of the study, as another transaction sees it."""
        async with self.database.begin() as work:
            return (await work.upload_logs.by_study([study_uid])).get(study_uid)

    async def page(self, request: PageRequest, wanted: UploadLogFilter = ANY) -> Page[UploadLogEntry]:
        """A page of logs."""
        async with self.database.begin() as work:
            return await work.upload_logs.page(request, wanted)


@pytest.fixture(scope="module")
async def migrated(migrated_url: str) -> AsyncIterator[Migrated]:
    """The database of this module."""
    async with migrated_database(migrated_url) as migrated:
        yield migrated


@pytest.fixture
async def world(migrated: Migrated) -> World:
    """A database that holds nothing but what World says."""
    await migrated.empty()
    async with migrated.database.begin() as work:
        anna, boris = await work.users.upsert(
            [UserEntry(name, name.title(), Role.ADMIN, is_active=True) for name in ("anna", "boris")]
        )
        (patient,) = await work.patients.upsert([PatientEntry("1", "Smith^Anna", None, "")])
        (order,) = await work.orders.upsert([OrderEntry(patient.id, "A1", "CT", "new")])
        await work.commit()
    return World(migrated.database, migrated.url, patient.id, order.id, anna.id, boris.id)


# --- logs


async def test_a_log_reads_back_as_it_was_saved(world: World) -> None:
    """Every field survives, whatever it holds."""
    log = replace(
        world.log(order_id=world.order_id),
        orthanc_study_id="f" * 44,
        number_of_files=3,
        total_size_bytes=5_000_000_000,
        original_patient_id="Ünïcode",
        original_patient_name="Yamada^Tarou=山田^太郎",
        original_accession_number="A1",
        original_study_date="20260301",
        original_modality="CT",
        modified_patient_id="1",
        modified_patient_name="X",
        modified_accession_number="A2",
        tags_modified=True,
        upload_status=UploadStatus.PARTIAL,
        error_message="1 of 2 files failed: NOT_DICOM",
        upload_duration_seconds=0.1 + 0.2,
        is_deleted=True,
    )
    await world.save(log)
    assert await world.read() == log
    async with world.database.begin() as work:
        assert await work.upload_logs.by_study(["1.2.4", "1.2.3\0"]) == {}


async def test_a_log_is_replaced_by_its_next_save(world: World) -> None:
    """A study keeps one log, by its id, through the uploads to it, whether the transaction read it before or not."""
    log = world.log()
    await world.save(log)
    added = replace(log, original_patient_id="X")
    await world.save(added)
    assert await world.read() == added
    async with world.database.begin() as work:
        read = (await work.upload_logs.by_study(["1.2.3"]))["1.2.3"]
        first = replace(read, uploaded_by_id=world.boris_id, uploaded_at=NOW + timedelta(days=1))
        await work.upload_logs.save(first)
        last = replace(first, order_id=world.order_id)
        await work.upload_logs.save(last)
        await work.commit()
    assert await world.read() == last


async def test_what_others_count_meanwhile_is_not_written_over(world: World) -> None:
    """A save writes what it changes of the log that its transaction read, and nothing else."""
    await world.save(world.log())
    async with world.database.begin() as work:
        log = (await work.upload_logs.by_study(["1.2.3"]))["1.2.3"]
        await execute(world.url, "UPDATE dicom_upload_logs SET number_of_files = 7")
        await work.upload_logs.save(replace(log, error_message="x"))
        await work.commit()
    read = await world.read()
    assert read is not None
    assert (read.number_of_files, read.error_message) == (7, "x")


async def test_no_text_of_a_file_can_break_the_log(world: World) -> None:
    """What is too long is cut, and what PostgreSQL refuses shows as U+FFFD; the upload is logged in any case."""
    long = "\0" + "名" * 5000
    hostile = replace(
        world.log(),
        original_patient_id=long,
        original_patient_name=long,
        original_accession_number=long,
        original_study_date="2026.03.01",
        original_modality=long,
        modified_patient_id=long,
        modified_patient_name=long,
        modified_accession_number=long,
        error_message="\0",
    )
    await world.save(hostile)
    log = await world.read()
    assert log == replace(
        hostile,
        original_patient_id=REPLACED + "名" * 63,
        original_patient_name=REPLACED + "名" * 254,
        original_accession_number=REPLACED + "名" * 63,
        original_study_date="2026.03.",
        original_modality=REPLACED + "名" * 15,
        modified_patient_id=REPLACED + "名" * 63,
        modified_patient_name=REPLACED + "名" * 254,
        modified_accession_number=REPLACED + "名" * 63,
        error_message=REPLACED,
    )


async def test_a_study_is_linked_to_what_it_was_uploaded_for(world: World) -> None:
    """Links tells patient and order of the studies asked for by Orthanc's ids, but nothing of deleted ones."""
    logs = [
        replace(world.log(f"1.{number}"), orthanc_study_id=f"o-{number}", is_deleted=number == 3)
        for number in range(1, 5)
    ]
    logs[0] = replace(logs[0], order_id=world.order_id)
    await world.save(*logs)
    async with world.database.begin() as work:
        links = await work.upload_logs.links(["o-1", "o-2", "o-3", "o-5", "1.4", "\0"])
        assert await work.upload_logs.links([]) == {}
    assert links == {
        "o-1": StudyLink(world.patient_id, world.order_id),
        "o-2": StudyLink(world.patient_id, None),
    }


async def test_a_log_of_a_patient_who_got_another_id_meanwhile_is_to_be_retried(world: World) -> None:
    """A new log that names a patient by an id that is no more is no defect: the call is to find the patient again."""
    with pytest.raises(ServiceError) as caught:
        await world.save(replace(world.log(), patient_id=uuid4()))
    assert caught.value.reason is Reason.DATABASE_UNAVAILABLE
    assert caught.value.retry_after


# --- entries and pages


async def test_an_entry_shows_names_and_the_last_deletion(world: World) -> None:
    """A log is shown with its uploader's name and with the last completed deletion of its study and its author."""
    log = world.log()
    await world.save(log, world.log("1.9"))
    deletions = [
        Deletion(uuid4(), uid, "o", reason, world.boris_id, NOW, log.id, NOW + timedelta(days=days) if days else None)
        for uid, reason, days in (
            ("1.2.3", "first", 1),
            ("1.2.3", "last", 3),
            ("1.2.3", "second", 2),
            ("1.2.3", "not completed", 0),
            ("1.9", "of another study", 9),
        )
    ]
    async with world.database.begin() as work:
        for deletion in deletions:
            await work.upload_logs.save_deletion(deletion)
        await work.commit()
    async with world.database.begin() as work:
        entry = await work.upload_logs.entry(log.id)
        assert await work.upload_logs.entry(uuid4()) is None
    assert entry == UploadLogEntry(log, "Anna", deletions[1], "Boris")
    page = await world.page(PageRequest(10), UploadLogFilter(study_instance_uid="1.2.3"))
    assert page == Page((entry,), 1)


async def test_pages_of_logs_go_from_the_newest_to_the_oldest(world: World) -> None:
    """Every log is shown once, newest first, those of one moment by id, while newer ones come in."""
    times = [NOW, NOW, NOW, NOW + timedelta(microseconds=1), NOW - timedelta(days=1)]
    logs = [world.log(f"1.{number}", at=at) for number, at in enumerate(times)]
    await world.save(*logs)
    seen: list[UploadLog] = []
    after: tuple[str, ...] = ()
    for number in range(5):
        page = await world.page(PageRequest(2, after))
        assert page.total_size == 5 + number
        seen += [entry.log for entry in page.items]
        after = page.last
        if not after:
            break
        await world.save(world.log(f"2.{number}", at=NOW + timedelta(days=1)))
    assert seen == sorted(logs, key=lambda log: (-log.uploaded_at.timestamp(), log.id))


async def test_the_filters_of_logs_must_all_hold(world: World) -> None:
    """Patient, order, study, status, and the time from (included) until (excluded)."""
    async with world.database.begin() as work:
        (other,) = await work.patients.upsert([PatientEntry("2", "X", None, "")])
        await work.commit()
    first = replace(world.log("1.1", order_id=world.order_id), upload_status=UploadStatus.SUCCESS)
    second = world.log("1.2", at=NOW + timedelta(hours=1))
    third = replace(world.log("1.3", at=NOW + timedelta(hours=2)), patient_id=other.id)
    await world.save(first, second, third)
    expected = {
        ANY: ["1.3", "1.2", "1.1"],
        UploadLogFilter(patient_id=world.patient_id): ["1.2", "1.1"],
        UploadLogFilter(order_id=world.order_id): ["1.1"],
        UploadLogFilter(order_id=uuid4()): [],
        UploadLogFilter(study_instance_uid="1.2"): ["1.2"],
        UploadLogFilter(study_instance_uid="1.2\0"): [],
        UploadLogFilter(upload_status=UploadStatus.IN_PROGRESS): ["1.3", "1.2"],
        UploadLogFilter(uploaded_from=NOW + timedelta(hours=1)): ["1.3", "1.2"],
        UploadLogFilter(uploaded_until=NOW + timedelta(hours=1)): ["1.1"],
        UploadLogFilter(patient_id=other.id, upload_status=UploadStatus.SUCCESS): [],
    }
    for wanted, uids in expected.items():
        page = await world.page(PageRequest(10), wanted)
        assert [entry.log.study_instance_uid for entry in page.items] == uids
        assert page.total_size == len(uids)


@pytest.mark.parametrize(
    "after",
    [
        ("x",),
        ("x", str(UUID(int=1))),
        (NOW.isoformat(), "1"),
        ("2026-03-01T12:00:00", str(UUID(int=1))),
        ("0001-01-01T00:00:00+12:00", str(UUID(int=1))),
    ],
)
async def test_a_forged_page_token_is_a_field_violation(world: World, after: tuple[str, ...]) -> None:
    """A key that is none of this list's is refused, not understood as something else."""
    with pytest.raises(InvalidFieldError):
        await world.page(PageRequest(1, after))


# --- deletions


async def test_the_latest_trace_of_a_deletion_is_open_until_it_is_completed(world: World) -> None:
    """open_deletion finds a deletion that was begun last and never ended; completing it replaces the trace."""
    ended = Deletion(uuid4(), "1.2.3", "o", "once", world.anna_id, NOW, None, NOW)
    begun = Deletion(uuid4(), "1.2.3", "o", "again\0", world.boris_id, NOW + timedelta(hours=1))
    async with world.database.begin() as work:
        await work.upload_logs.save_deletion(ended)
        assert await work.upload_logs.open_deletion("1.2.3") is None
        await work.upload_logs.save_deletion(begun)
        assert await work.upload_logs.open_deletion("1.2.3") == replace(begun, reason=f"again{REPLACED}")
        assert await work.upload_logs.open_deletion("1.2.4") is None
        assert await work.upload_logs.open_deletion("1.2.3\0") is None
        await work.upload_logs.save_deletion(replace(begun, completed_at=NOW + timedelta(hours=2)))
        assert await work.upload_logs.open_deletion("1.2.3") is None
        await work.commit()
