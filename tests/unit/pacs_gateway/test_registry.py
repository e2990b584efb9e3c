"""Keeping patients, orders and users in step with the RIS; the rules of the upserts are the database's."""

from dataclasses import replace
from datetime import date
from uuid import UUID

import pytest

from pacs_gateway.domain.paging import PageRequest
from pacs_gateway.domain.registry import OrderEntry, PatientEntry, Role, UserEntry
from pacs_gateway.domain.upload_log import UploadLogFilter, UploadStatus
from pacs_gateway.use_cases.registry import Registry
from pacs_gateway.use_cases.upload_logs import UploadLogBook
from service_runtime.errors import Reason
from tests.unit.pacs_gateway.fake_database import database_away
from tests.unit.pacs_gateway.fakes import (
    JONES,
    ORDER_OF_JONES,
    ORDER_OF_SMITH,
    RADIOLOGIST,
    SMITH,
    TECHNOLOGIST,
    World,
    refused,
    tags_of,
)
from tests.unit.pacs_gateway.hooks import raising

NOBODY = UUID(int=404)


@pytest.fixture
def registry(world: World) -> Registry:
    """The use case over the fakes."""
    return Registry(database=world.database)


async def test_what_is_put_is_there(registry: Registry) -> None:
    """Upserts last, and give what is there now."""
    (patient,) = await registry.upsert_patients([PatientEntry("M9", "New^Nina", date(1999, 9, 9), "F")])
    (order,) = await registry.upsert_orders([OrderEntry(patient.id, "A9", "MR", "scheduled")])
    (user,) = await registry.upsert_users([UserEntry("nina", "Nina", Role.VIEWER, is_active=True)])
    assert await registry.get_patient(patient.id) == patient
    assert await registry.get_order(order.id) == order
    assert await registry.get_user(user.id) == await registry.find_user(user.id) == user


async def test_an_upsert_is_all_or_nothing(world: World, registry: Registry) -> None:
    """Where one entry is refused, none is kept."""
    before = dict(world.database.tables.patients)
    with refused(Reason.REGISTRY_CONFLICT):
        await registry.upsert_patients(
            [PatientEntry("M9", "New^Nina", None, ""), PatientEntry(SMITH.mrn, "Smith", None, "", id=NOBODY)]
        )
    assert world.database.tables.patients == before
    with refused(Reason.PATIENT_NOT_FOUND):
        await registry.upsert_orders(
            [OrderEntry(SMITH.id, "A8", "MR", "scheduled"), OrderEntry(NOBODY, "A9", "MR", "scheduled")]
        )
    assert set(world.database.tables.orders) == {ORDER_OF_SMITH.id, ORDER_OF_JONES.id}


async def test_an_upsert_that_is_not_committed_is_an_error(world: World, registry: Registry) -> None:
    """Nothing is said to be kept that is not."""
    world.database.hooks.at("commit", raising(database_away))
    with refused(Reason.DATABASE_UNAVAILABLE):
        await registry.upsert_users([UserEntry("nina", "Nina", Role.VIEWER, is_active=True)])
    assert set(world.database.tables.users) == {RADIOLOGIST.id, TECHNOLOGIST.id}


async def test_what_is_not_there_is_not_found(registry: Registry) -> None:
    """Each kind has its own reason; only looking for a user is without error."""
    with refused(Reason.PATIENT_NOT_FOUND):
        await registry.get_patient(NOBODY)
    with refused(Reason.ORDER_NOT_FOUND):
        await registry.get_order(NOBODY)
    with refused(Reason.USER_NOT_FOUND):
        await registry.get_user(NOBODY)
    assert await registry.find_user(NOBODY) is None


async def test_lists_pass_on_their_filters_and_pages(registry: Registry) -> None:
    """Filters choose, pages go on."""
    assert (await registry.page_of_patients(PageRequest(10), mrn=JONES.mrn)).items == (JONES,)
    of_jones = await registry.page_of_orders(
        PageRequest(10), patient_id=JONES.id, accession_number=None, status="scheduled"
    )
    assert of_jones.items == (ORDER_OF_JONES,)
    assert (await registry.page_of_users(PageRequest(10), username="rad")).items == (RADIOLOGIST,)
    first = await registry.page_of_patients(PageRequest(1), mrn=None)
    assert (first.items, first.total_size) == ((SMITH,), 2)
    second = await registry.page_of_patients(PageRequest(1, first.last), mrn=None)
    assert (second.items, second.last) == ((JONES,), ())


async def test_logs_are_got_and_listed(world: World) -> None:
    """A log is found by its id, listed newest first, and chosen by its filters."""
    book = UploadLogBook(database=world.database)
    first = await world.send(tags_of())
    world.clock.forward(hours=1)
    second = await world.send(tags_of(JONES, study_instance_uid="1.9", sop_instance_uid="1.9.1"))
    entry = await book.get(first.upload_log_id)
    assert (entry.log, entry.uploaded_by) == (world.log(), TECHNOLOGIST.full_name)
    page = await book.page(UploadLogFilter(), PageRequest(1))
    assert [one.log.id for one in page.items] == [second.upload_log_id]
    assert page.total_size == 2
    rest = await book.page(UploadLogFilter(), PageRequest(1, page.last))
    assert [one.log.id for one in rest.items] == [first.upload_log_id]
    assert rest.last == ()
    wanted = UploadLogFilter(patient_id=JONES.id, upload_status=UploadStatus.SUCCESS)
    assert [one.log.id for one in (await book.page(wanted, PageRequest(9))).items] == [second.upload_log_id]
    with refused(Reason.UPLOAD_LOG_NOT_FOUND):
        await book.get(NOBODY)


async def test_reading_changes_nothing(world: World, registry: Registry) -> None:
    """No get or list commits anything."""
    before = replace(world.database.tables)
    await registry.get_patient(SMITH.id)
    await registry.page_of_users(PageRequest(10), username=None)
    assert world.database.hooks.passed["commit"] == 0
    assert world.database.tables == before
