"""Patients, orders and users in a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from uuid import UUID, uuid4

import pytest

from pacs_gateway.adapters.db import PostgresDatabase
from pacs_gateway.adapters.db.session import Session
from pacs_gateway.domain.paging import Page, PageRequest
from pacs_gateway.domain.registry import (
    Order,
    OrderEntry,
    OrderStudy,
    Patient,
    PatientEntry,
    Role,
    User,
    UserEntry,
)
from pacs_gateway.domain.upload_log import UploadLog
from service_runtime.errors import InvalidFieldError, Reason, ServiceError
from tests.integration.databases import Migrated, migrated_database

NOW = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
USER = UserEntry("anna", "Anna Smith", Role.RADIOLOGIST, is_active=True)


@pytest.fixture(scope="module")
async def migrated(migrated_url: str) -> AsyncIterator[Migrated]:
    """The database of this module."""
    async with migrated_database(migrated_url) as migrated:
        yield migrated


@pytest.fixture
async def database(migrated: Migrated) -> PostgresDatabase:
    """The adapter over a database without rows."""
    await migrated.empty()
    return migrated.database


def entry(mrn: str, patient_id: UUID | None = None, *, name: str = "Smith^Anna") -> PatientEntry:
    """What the RIS tells of a patient."""
    return PatientEntry(mrn, name, date(1980, 2, 29), "F", patient_id)


async def put_patients(database: PostgresDatabase, *entries: PatientEntry) -> Sequence[Patient]:
    """The patients after an upsert in a transaction of its own."""
    async with database.begin() as work:
        patients = await work.patients.upsert(entries)
        await work.commit()
    return patients


async def put_orders(database: PostgresDatabase, *entries: OrderEntry) -> Sequence[Order]:
    """The orders after an upsert in a transaction of its own."""
    async with database.begin() as work:
        orders = await work.orders.upsert(entries)
        await work.commit()
    return orders


async def put_users(database: PostgresDatabase, *entries: UserEntry) -> Sequence[User]:
    """The users after an upsert in a transaction of its own."""
    async with database.begin() as work:
        users = await work.users.upsert(entries)
        await work.commit()
    return users


async def all_patients(database: PostgresDatabase) -> dict[str, Patient]:
    """Every patient by MRN, as another transaction sees them."""
    async with database.begin() as work:
        page = await work.patients.page(PageRequest(1000), mrn=None)
    return {patient.mrn: patient for patient in page.items}


async def provisional(database: PostgresDatabase, mrn: str) -> Patient:
    """A patient that an upload made."""
    async with database.begin() as work:
        patient = await work.patients.make_provisional(Patient(uuid4(), mrn, "From^File", None, ""))
        await work.commit()
    return patient


async def fill(database: PostgresDatabase, order: Order, study_uid: str = "1.2.3") -> OrderStudy:
    """Uploads a study for the order, as far as the database is told of it."""
    (user,) = await put_users(database, USER)
    study = OrderStudy(study_uid, "orthanc-1", 2, 10, "20260301", "1230", user.id, NOW, "manual")
    async with database.begin() as work:
        await work.orders.fill(order.id, study)
        await work.commit()
    return study


# --- patients


async def test_a_patient_is_made_under_the_given_id_or_a_new_one(database: PostgresDatabase) -> None:
    """An upsert makes patients in the order of the request, and they read back as they are."""
    given = uuid4()
    made = await put_patients(database, entry("1"), entry("2", given), PatientEntry("3", "X", None, ""))
    assert [patient.mrn for patient in made] == ["1", "2", "3"]
    assert made[1] == Patient(given, "2", "Smith^Anna", date(1980, 2, 29), "F", is_provisional=False)
    async with database.begin() as work:
        assert await work.patients.many([patient.id for patient in made]) == {patient.id: patient for patient in made}
        assert await work.patients.get(given) == made[1]
        assert await work.patients.get(uuid4()) is None
        assert await work.patients.by_mrn(["1", "3", "nobody"]) == {"1": made[0], "3": made[2]}


async def test_a_patient_is_found_by_id_else_by_mrn(database: PostgresDatabase) -> None:
    """By its id a patient gets another MRN; without an id the MRN finds it and the rest changes."""
    (first,) = await put_patients(database, entry("1"))
    (moved,) = await put_patients(database, entry("9", first.id))
    (renamed,) = await put_patients(database, entry("9", name="Doe^Anna"))
    assert (moved.id, moved.mrn) == (first.id, "9")
    assert (renamed.id, renamed.full_name) == (first.id, "Doe^Anna")
    assert await all_patients(database) == {"9": renamed}


async def test_what_is_not_committed_never_happened(database: PostgresDatabase) -> None:
    """A unit of work that ends without a commit, or with an error, leaves nothing behind."""
    async with database.begin() as work:
        await work.patients.upsert([entry("1")])

    async def break_off() -> None:
        async with database.begin() as work:
            await work.patients.upsert([entry("2")])
            raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        await break_off()
    assert await all_patients(database) == {}


async def test_a_provisional_patient_takes_on_the_id_of_the_ris(database: PostgresDatabase) -> None:
    """The RIS's id for its MRN replaces the provisional one, and orders and logs follow."""
    made = await provisional(database, "1")
    assert made.is_provisional
    (order,) = await put_orders(database, OrderEntry(made.id, "A1", "CT", "scheduled"))
    study = await fill(database, order)
    async with database.begin() as work:
        await work.lock_study("1.2.3")
        log = UploadLog(uuid4(), made.id, order.id, study.uploaded_by_id, "1.2.3", "manual", NOW)
        await work.upload_logs.save(log)
        await work.commit()
    theirs = uuid4()
    (patient,) = await put_patients(database, entry("1", theirs))
    assert patient == Patient(theirs, "1", "Smith^Anna", date(1980, 2, 29), "F", is_provisional=False)
    async with database.begin() as work:
        assert await work.patients.get(made.id) is None
        assert await work.patients.get(theirs) == patient
        assert await work.orders.get(order.id) == replace(order, patient_id=theirs, study=study)
        logs = await work.upload_logs.by_study(["1.2.3"])
        assert logs["1.2.3"] == replace(log, patient_id=theirs)


async def test_an_upsert_without_id_ends_what_is_provisional(database: PostgresDatabase) -> None:
    """When the RIS tells of an MRN without an id, the patient keeps the one it has and is no longer provisional."""
    made = await provisional(database, "1")
    (patient,) = await put_patients(database, entry("1"))
    assert (patient.id, patient.is_provisional) == (made.id, False)
    assert await all_patients(database) == {"1": patient}


async def test_a_provisional_patient_goes_into_the_one_that_gets_its_mrn(database: PostgresDatabase) -> None:
    """When a known patient's MRN becomes that of a provisional one, the two become one, with the orders of both."""
    (known,) = await put_patients(database, entry("old"))
    made = await provisional(database, "new")
    orders = await put_orders(database, OrderEntry(known.id, "A1", "CT", "new"), OrderEntry(made.id, "A2", "MR", "new"))
    (patient,) = await put_patients(database, entry("new", known.id))
    assert await all_patients(database) == {"new": patient}
    async with database.begin() as work:
        found = await work.orders.many([order.id for order in orders])
    assert {order.patient_id for order in found.values()} == {known.id}


async def test_an_mrn_of_another_patient_is_refused(database: PostgresDatabase) -> None:
    """REGISTRY_CONFLICT says which entry it is, never what it holds, and nothing of the request happens."""
    first, second = await put_patients(database, entry("SECRET-1"), entry("2"))
    for conflicting in (entry("SECRET-1", uuid4()), entry("SECRET-1", second.id)):
        with pytest.raises(ServiceError) as caught:
            await put_patients(database, entry("3"), conflicting)
        assert caught.value.reason is Reason.REGISTRY_CONFLICT
        assert caught.value.metadata == {"entry": "patients[1]"}
        assert "SECRET" not in str(caught.value)
    assert await all_patients(database) == {"SECRET-1": first, "2": second}


async def test_a_request_that_names_a_patient_twice_is_refused(database: PostgresDatabase) -> None:
    """Two entries with one id, one MRN, or an id and the MRN of the same patient contradict each other."""
    (known,) = await put_patients(database, entry("1"))
    same = uuid4()
    for pair in (
        (entry("7"), entry("7")),
        (entry("7", same), entry("8", same)),
        (entry("8", known.id), entry("1")),
    ):
        with pytest.raises(ServiceError) as caught:
            await put_patients(database, *pair)
        assert caught.value.reason is Reason.REGISTRY_CONFLICT
    assert await all_patients(database) == {"1": known}


async def test_patients_may_swap_their_mrns_in_one_request(database: PostgresDatabase) -> None:
    """What counts is how the registry stands after the request, so MRNs can go round among its patients."""
    first, second, third = await put_patients(database, entry("1"), entry("2"), entry("3"))
    await put_patients(database, entry("2", first.id), entry("3", second.id), entry("1", third.id))
    assert {mrn: patient.id for mrn, patient in (await all_patients(database)).items()} == {
        "1": third.id,
        "2": first.id,
        "3": second.id,
    }


async def test_a_new_patient_may_take_the_mrn_that_another_gives_up(database: PostgresDatabase) -> None:
    """An MRN that one entry frees is free for another entry of the same request."""
    (first,) = await put_patients(database, entry("1"))
    _, new = await put_patients(database, entry("2", first.id), entry("1", uuid4()))
    assert {mrn: patient.id for mrn, patient in (await all_patients(database)).items()} == {
        "2": first.id,
        "1": new.id,
    }


async def test_making_a_provisional_patient_finds_one_that_is_there(database: PostgresDatabase) -> None:
    """An upload for a known MRN gets the known patient, unchanged."""
    (known,) = await put_patients(database, entry("1"))
    assert await provisional(database, "1") == known


async def test_a_file_cannot_break_the_making_of_a_provisional_patient(database: PostgresDatabase) -> None:
    """A name too long or with a NUL is made to fit; an identifier is never bent, but refused."""
    async with database.begin() as work:
        made = await work.patients.make_provisional(Patient(uuid4(), "1", "\0" + "ä" * 300, None, ""))
        assert made.full_name == "\N{REPLACEMENT CHARACTER}" + "ä" * 254
        for mrn in ("x" * 65, "a\0b"):
            with pytest.raises(InvalidFieldError):
                await work.patients.make_provisional(Patient(uuid4(), mrn, "X", None, ""))


async def test_a_text_that_cannot_be_stored_is_a_field_violation(database: PostgresDatabase) -> None:
    """Each text of an upsert with a NUL, a lone surrogate or too many characters is named; nothing is cut."""
    entries = [entry("1"), entry("2\0"), entry("3", name="\ud800"), entry("x" * 65)]
    with pytest.raises(InvalidFieldError) as caught:
        await put_patients(database, *entries)
    assert [violation.field for violation in caught.value.violations] == [
        "patients[1].mrn",
        "patients[2].full_name",
        "patients[3].mrn",
    ]
    assert await all_patients(database) == {}


async def test_a_thousand_patients_take_as_many_statements_as_one(
    database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of statements does not grow with the request, whether patients are made or changed."""
    statements = []
    for name in ("execute", "run"):
        way = getattr(Session, name)
        monkeypatch.setattr(
            Session, name, lambda *given, way=way, **values: statements.append(given[1]) or way(*given, **values)
        )
    taken = []
    for count in (1, 1000, 1000):
        statements.clear()
        await put_patients(database, *(entry(str(number)) for number in range(count)))
        taken.append(len(statements))
    assert taken[0] == taken[1] == taken[2] <= 5
    assert len(await all_patients(database)) == 1000


# --- orders


async def test_an_order_is_made_and_changed_and_found(database: PostgresDatabase) -> None:
    """An order is found by its id, else by its accession number, and reads back as it is."""
    (patient,) = await put_patients(database, entry("1"))
    given = uuid4()
    first, second = await put_orders(
        database,
        OrderEntry(patient.id, "A1", "CT", "scheduled"),
        OrderEntry(patient.id, "A2", "", "scheduled", given),
    )
    assert second == Order(given, patient.id, "A2", "", "scheduled")
    changed = await put_orders(
        database, OrderEntry(patient.id, "A1", "MR", "done"), OrderEntry(patient.id, "A3", "CT", "done", given)
    )
    assert [order.id for order in changed] == [first.id, given]
    async with database.begin() as work:
        assert await work.orders.by_accession("A1") == changed[0]
        assert await work.orders.by_accession("A2") is None
        assert await work.orders.by_accession("a1") is None
        assert await work.orders.get(given) == changed[1]
        assert await work.orders.many([first.id, given, uuid4()]) == {order.id: order for order in changed}


async def test_an_order_of_nobody_is_refused(database: PostgresDatabase) -> None:
    """PATIENT_NOT_FOUND names the id that was given, and nothing of the request happens."""
    (patient,) = await put_patients(database, entry("1"))
    nobody = uuid4()
    with pytest.raises(ServiceError) as caught:
        await put_orders(database, OrderEntry(patient.id, "A1", "CT", "new"), OrderEntry(nobody, "A2", "CT", "new"))
    assert caught.value.reason is Reason.PATIENT_NOT_FOUND
    assert caught.value.resource is not None
    assert caught.value.resource.name == str(nobody)
    async with database.begin() as work:
        assert await work.orders.by_accession("A1") is None


async def test_an_accession_number_of_another_order_is_refused(database: PostgresDatabase) -> None:
    """REGISTRY_CONFLICT where an accession number is another's; swapping within the request is allowed."""
    (patient,) = await put_patients(database, entry("1"))
    first, second = await put_orders(
        database, OrderEntry(patient.id, "A1", "CT", "new"), OrderEntry(patient.id, "A2", "CT", "new")
    )
    with pytest.raises(ServiceError) as caught:
        await put_orders(database, OrderEntry(patient.id, "A1", "CT", "new", second.id))
    assert caught.value.reason is Reason.REGISTRY_CONFLICT
    await put_orders(
        database,
        OrderEntry(patient.id, "A1", "CT", "new", second.id),
        OrderEntry(patient.id, "A2", "CT", "new", first.id),
    )
    async with database.begin() as work:
        found = await work.orders.by_accession("A1")
    assert found is not None
    assert found.id == second.id


async def test_an_order_keeps_its_study_and_so_its_patient(database: PostgresDatabase) -> None:
    """An upsert leaves the DICOM fields alone, and cannot move an order with a study to another patient."""
    patient, other = await put_patients(database, entry("1"), entry("2"))
    (order,) = await put_orders(database, OrderEntry(patient.id, "A1", "CT", "new"))
    study = await fill(database, order)
    (changed,) = await put_orders(database, OrderEntry(patient.id, "A1", "CT", "done"))
    assert (changed.status, changed.study) == ("done", study)
    with pytest.raises(ServiceError) as caught:
        await put_orders(database, OrderEntry(other.id, "A1", "CT", "done"))
    assert caught.value.reason is Reason.REGISTRY_CONFLICT
    async with database.begin() as work:
        await work.orders.clear(study.study_instance_uid)
        await work.commit()
    (moved,) = await put_orders(database, OrderEntry(other.id, "A1", "CT", "done"))
    assert (moved.patient_id, moved.study) == (other.id, None)


async def test_clearing_a_study_empties_its_orders_only(database: PostgresDatabase) -> None:
    """All orders of the study lose their DICOM fields; those of other studies keep theirs."""
    (patient,) = await put_patients(database, entry("1"))
    names = ("A1", "A2", "A3")
    orders = await put_orders(database, *(OrderEntry(patient.id, name, "CT", "new") for name in names))
    studies = [await fill(database, order, uid) for order, uid in zip(orders, ("1.2", "1.2", "1.3"), strict=True)]
    async with database.begin() as work:
        await work.orders.clear("1.2")
        await work.orders.clear("1.2\0")
        await work.commit()
    async with database.begin() as work:
        found = await work.orders.many([order.id for order in orders])
    assert [found[order.id].study for order in orders] == [None, None, studies[2]]


async def test_an_order_takes_any_study_date_and_time(database: PostgresDatabase) -> None:
    """A date or time that is none, from a hostile file, is cut to what the column holds."""
    (patient,) = await put_patients(database, entry("1"))
    (order,) = await put_orders(database, OrderEntry(patient.id, "A1", "CT", "new"))
    (user,) = await put_users(database, USER)
    async with database.begin() as work:
        study = OrderStudy("1.2", "o", 1, 1, "x" * 99, "\0", user.id, NOW, "api")
        await work.orders.fill(order.id, study)
        found = await work.orders.get(order.id)
    assert found is not None
    assert found.study == replace(study, study_date="x" * 16, study_time="\N{REPLACEMENT CHARACTER}")


# --- users


async def test_a_user_is_made_and_changed_and_found(database: PostgresDatabase) -> None:
    """A user is found by id, else by username; deactivation and a new role are seen at once."""
    (user,) = await put_users(database, USER)
    (changed,) = await put_users(database, replace(USER, role=Role.VIEWER, is_active=False))
    assert changed == User(user.id, "anna", "Anna Smith", Role.VIEWER, is_active=False)
    assert await database.find_user(user.id) == changed
    assert await database.find_user(uuid4()) is None
    with pytest.raises(ServiceError) as caught:
        await put_users(database, replace(USER, id=uuid4()))
    assert caught.value.reason is Reason.REGISTRY_CONFLICT


async def test_users_who_are_looked_for_at_the_same_moment_are_told_apart(database: PostgresDatabase) -> None:
    """Of many questions at once each has its own answer, also where one is asked twice and another is given up."""
    made = await put_users(database, *(replace(USER, username=f"user {number}") for number in range(20)))
    asked = [uuid4(), *(user.id for user in made), made[0].id]
    questions = [asyncio.create_task(database.find_user(user_id)) for user_id in asked]
    await asyncio.sleep(0)
    questions[5].cancel()
    found = await asyncio.gather(*questions, return_exceptions=True)
    assert isinstance(found.pop(5), asyncio.CancelledError)
    assert found == [None, *made[:4], *made[5:], made[0]]


async def test_a_users_change_is_seen_by_who_asks_after_it(database: PostgresDatabase) -> None:
    """While others keep asking, who asks once a change is committed never gets the user as of before."""
    (user,) = await put_users(database, USER)

    async def keep_asking() -> None:
        while True:
            await database.find_user(user.id)

    others = [asyncio.create_task(keep_asking()) for _ in range(4)]
    for number in range(20):
        role = (Role.VIEWER, Role.ADMIN)[number % 2]
        await put_users(database, replace(USER, role=role))
        assert await database.find_user(user.id) == replace(user, role=role)
    for other in others:
        other.cancel()
    await asyncio.wait(others)


# --- pages


async def test_pages_bring_every_patient_once_while_others_come(database: PostgresDatabase) -> None:
    """Going from page to page shows all that were there, none twice, each page with the right total."""
    made = await put_patients(database, *(entry(str(number)) for number in range(7)))
    seen: list[Patient] = []
    after: tuple[str, ...] = ()
    for number in range(10):
        async with database.begin() as work:
            page = await work.patients.page(PageRequest(3, after), mrn=None)
        assert len(page.items) <= 3
        assert page.total_size == 7 + number
        seen += page.items
        after = page.last
        if not after:
            break
        # It sorts before all that are to come.
        await put_patients(database, entry(f"new{number}", UUID(int=number)))
    assert seen == sorted(made, key=lambda patient: patient.id)


async def test_a_page_that_ends_the_list_says_so(database: PostgresDatabase) -> None:
    """No further page is promised when the last entry just fits."""
    await put_patients(database, *(entry(str(number)) for number in range(4)))
    async with database.begin() as work:
        first = await work.patients.page(PageRequest(2), mrn=None)
        second = await work.patients.page(PageRequest(2, first.last), mrn=None)
    assert len(first.items) == len(second.items) == 2
    assert (bool(first.last), second.last) == (True, ())


async def test_the_filters_of_pages_compare_exactly_and_must_all_hold(database: PostgresDatabase) -> None:
    """Patients by MRN, orders by patient, accession number and status, users by username."""
    first, second = await put_patients(database, entry("1"), entry("11"))
    orders = await put_orders(
        database,
        OrderEntry(first.id, "A1", "CT", "new"),
        OrderEntry(first.id, "A2", "CT", "done"),
        OrderEntry(second.id, "A3", "CT", "done"),
    )
    users = await put_users(database, USER, replace(USER, username="Anna"))
    everything = PageRequest(100)
    async with database.begin() as work:
        assert await work.patients.page(everything, mrn="1") == Page((first,), 1)
        assert await work.patients.page(everything, mrn="%") == Page((), 0)
        assert await work.users.page(everything, username="anna") == Page((users[0],), 1)
        assert (await work.users.page(everything, username=None)).total_size == 2
        wanted = {"patient_id": first.id, "accession_number": None, "status": "done"}
        assert await work.orders.page(everything, **wanted) == Page((orders[1],), 1)
        wanted = {"patient_id": None, "accession_number": "A3", "status": None}
        assert await work.orders.page(everything, **wanted) == Page((orders[2],), 1)
        wanted = {"patient_id": None, "accession_number": None, "status": "done"}
        assert (await work.orders.page(PageRequest(1), **wanted)).total_size == 2


async def test_what_no_row_can_hold_is_found_in_none(database: PostgresDatabase) -> None:
    """A NUL or a lone surrogate in what is looked up is an answer without entries, never an error."""
    (patient,) = await put_patients(database, entry("1"))
    async with database.begin() as work:
        for text in ("1\0", "\udfff"):
            assert await work.patients.by_mrn([text, "1"]) == {"1": patient}
            assert await work.orders.by_accession(text) is None
            assert await work.patients.page(PageRequest(1), mrn=text) == Page((), 0)
            assert await work.users.page(PageRequest(1), username=text) == Page((), 0)
            wanted = {"patient_id": None, "accession_number": text, "status": None}
            assert await work.orders.page(PageRequest(1), **wanted) == Page((), 0)


@pytest.mark.parametrize("after", [("x",), ("1", "2"), ("",)])
async def test_a_forged_page_token_is_a_field_violation(database: PostgresDatabase, after: tuple[str, ...]) -> None:
    """A key that is none of this list's is refused, not understood as something else."""
    async with database.begin() as work:
        with pytest.raises(InvalidFieldError):
            await work.patients.page(PageRequest(1, after), mrn=None)
