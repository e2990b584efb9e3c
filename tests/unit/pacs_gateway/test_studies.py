"""Finding studies, with what the RIS knows of them."""

from dataclasses import replace
from uuid import UUID

import pytest

from pacs_gateway.domain.paging import PageRequest
from pacs_gateway.domain.study import Study, StudyFilter, StudyOrder
from pacs_gateway.domain.tags import DicomTags
from pacs_gateway.domain.upload import PatientMatch
from pacs_gateway.use_cases.studies import Studies
from service_runtime.errors import Reason, ServiceError
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
from tests.unit.pacs_gateway.hooks import raising

ALL = StudyFilter()
BY_NAME = (StudyOrder("patient_name"),)


def put(world: World, uid: str, tags: DicomTags | None = None, **changed: str) -> None:
    """Has the PACS hold a study of one instance."""
    changed = {"series_instance_uid": f"{uid}.1", "sop_instance_uid": f"{uid}.1.1"} | changed
    world.pacs.put(file_of(replace(tags or tags_of(), study_instance_uid=uid, **changed)))


def remove(world: World, uid: str) -> None:
    """Has the PACS lose a study."""
    world.pacs.held = {key: one for key, one in world.pacs.held.items() if one.tags.study_instance_uid != uid}


def uids(studies: tuple[Study, ...]) -> list[str]:
    """Which studies these are."""
    return [study.pacs.study_instance_uid for study in studies]


async def walk(world: World, limit: int, order: tuple[StudyOrder, ...] = BY_NAME) -> list[str]:
    """The studies of all pages."""
    found: list[str] = []
    after: tuple[str, ...] = ()
    for _ in range(100):
        page = await world.studies.page(ALL, PageRequest(limit, after), order=order)
        assert len(page.items) <= limit
        found += uids(page.items)
        if not page.last:
            return found
        after = page.last
    raise AssertionError("the pages never end")


@pytest.mark.parametrize("limit", [1, 2, 3, 9, 10, 11])
async def test_the_pages_together_are_the_list(world: World, limit: int) -> None:
    """Each study is on one page, in order, whatever the page's size, though all sort alike."""
    for n in range(10):
        put(world, f"1.2.{n}")
    assert await walk(world, limit) == [f"1.2.{n}" for n in range(10)]


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_a_uid_under_two_patient_ids_is_listed_twice_and_the_pages_end(world: World, limit: int) -> None:
    """Both studies of an ambiguous UID are listed, each once."""
    for n in range(3):
        put(world, f"1.2.{n}")
    put(world, "1.2.1", tags_of(JONES))
    assert sorted(await walk(world, limit, ())) == ["1.2.0", "1.2.1", "1.2.1", "1.2.2"]
    assert sorted(await walk(world, limit, BY_NAME)) == ["1.2.0", "1.2.1", "1.2.1", "1.2.2"]


async def test_a_page_says_how_many_there_are(world: World) -> None:
    """The total is of all pages."""
    for n in range(5):
        put(world, f"1.2.{n}")
    page = await world.studies.page(ALL, PageRequest(2))
    assert page.total_size == 5
    assert len(page.items) == 2


async def test_an_empty_pacs_is_an_empty_page(world: World) -> None:
    """Nothing found is no error and asks nothing more."""
    page = await world.studies.page(ALL, PageRequest(100))
    assert (page.items, page.total_size, page.last) == ((), 0, ())


@pytest.mark.parametrize("gone", ["1.2.0", "1.2.2", "1.2.3", "1.2.4"])
async def test_a_study_that_vanishes_between_pages_takes_no_other_with_it(world: World, gone: str) -> None:
    """Whichever study is deleted between two pages, also the last one of the page, every other one is listed."""
    for n in range(6):
        put(world, f"1.2.{n}")
    first = await world.studies.page(ALL, PageRequest(3), order=BY_NAME)
    assert uids(first.items) == ["1.2.0", "1.2.1", "1.2.2"]
    remove(world, gone)
    second = await world.studies.page(ALL, PageRequest(10, first.last), order=BY_NAME)
    assert uids(second.items) == [uid for uid in ("1.2.3", "1.2.4", "1.2.5") if uid != gone]


async def test_a_study_that_comes_between_pages_repeats_none(world: World) -> None:
    """A new study at the front of the list does not shift the next page."""
    for n in range(1, 5):
        put(world, f"1.2.{n}")
    first = await world.studies.page(ALL, PageRequest(2), order=BY_NAME)
    put(world, "1.2.0")
    second = await world.studies.page(ALL, PageRequest(10, first.last), order=BY_NAME)
    assert uids(second.items) == ["1.2.3", "1.2.4"]


async def test_a_place_past_the_end_is_an_empty_page(world: World) -> None:
    """Where everything went meanwhile, the next page is the last and empty."""
    put(world, "1.2.0")
    page = await world.studies.page(ALL, PageRequest(10, ("500", "1.2.77")))
    assert (page.items, page.last) == ((), ())


async def test_a_study_that_vanishes_between_the_two_questions_is_left_out(world: World) -> None:
    """A page shows no study without its counts; the pages after it are not disturbed."""
    for n in range(4):
        put(world, f"1.2.{n}")

    async def lose() -> None:
        remove(world, "1.2.1")

    world.pacs.hooks.at("contents", lose)
    page = await world.studies.page(ALL, PageRequest(2), order=BY_NAME)
    assert uids(page.items) == ["1.2.0"]
    rest = await world.studies.page(ALL, PageRequest(10, page.last), order=BY_NAME)
    assert uids(rest.items) == ["1.2.2", "1.2.3"]


async def test_the_newest_study_comes_first_by_default(world: World) -> None:
    """Without an order, the latest StudyDate and StudyTime come first."""
    put(world, "1.2.1", study_date="20200101", study_time="120000")
    put(world, "1.2.2", study_date="20210101", study_time="090000")
    put(world, "1.2.3", study_date="20210101", study_time="100000")
    put(world, "1.2.4", study_date="", study_time="")
    page = await world.studies.page(ALL, PageRequest(10))
    assert uids(page.items) == ["1.2.3", "1.2.2", "1.2.1", "1.2.4"]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ((StudyOrder("patient_name"),), ["1.3", "1.2", "1.1"]),
        ((StudyOrder("patient_name", descending=True),), ["1.1", "1.2", "1.3"]),
        ((StudyOrder("patient_id"),), ["1.1", "1.3", "1.2"]),
        ((StudyOrder("accession_number"),), ["1.2", "1.3", "1.1"]),
        ((StudyOrder("study_date"), StudyOrder("patient_name")), ["1.3", "1.1", "1.2"]),
        ((StudyOrder("study_date"), StudyOrder("patient_name", descending=True)), ["1.1", "1.3", "1.2"]),
        ((StudyOrder("study_date", descending=True), StudyOrder("patient_id")), ["1.2", "1.1", "1.3"]),
    ],
)
async def test_a_list_is_ordered_as_asked(world: World, order: tuple[StudyOrder, ...], expected: list[str]) -> None:
    """The first attribute decides, the next ones among equals; names without regard to case."""
    rows = {
        "1.1": ("smith", "P1", "A3", "20200101"),
        "1.2": ("Miller", "P3", "A1", "20210101"),
        "1.3": ("adams", "P2", "A2", "20200101"),
    }
    for uid, (name, patient_id, number, day) in rows.items():
        put(world, uid, patient_name=name, patient_id=patient_id, accession_number=number, study_date=day)
    page = await world.studies.page(ALL, PageRequest(10), order=order)
    assert uids(page.items) == expected


async def test_the_pacs_is_asked_twice_however_long_the_page_is(world: World) -> None:
    """A page of 1000 studies takes two questions to the PACS and one unit of work."""
    for n in range(1001):
        put(world, f"1.2.{n}")
    page = await world.studies.page(ALL, PageRequest(1000))
    assert len(page.items) == 1000
    assert page.last
    assert world.pacs.hooks.passed == {"find_studies": 1, "contents": 1}
    assert world.database.hooks.passed["begin"] == 1
    assert world.database.hooks.passed["statement"] < 10


async def test_too_many_studies_are_an_error(world: World) -> None:
    """A list that would look through too many studies says so, rather than show some."""
    for n in range(3):
        put(world, f"1.2.{n}")
    enough = Studies(database=world.database, pacs=world.pacs, max_listed=3)
    assert (await enough.page(ALL, PageRequest(1))).total_size == 3
    studies = Studies(database=world.database, pacs=world.pacs, max_listed=2)
    with refused(Reason.TOO_MANY_STUDIES):
        await studies.page(ALL, PageRequest(1))


@pytest.mark.parametrize("place", ["find_studies", "contents"])
async def test_a_list_that_cannot_be_fetched_is_an_error(world: World, place: str) -> None:
    """Orthanc away is never an empty list."""
    put(world, "1.2")
    world.pacs.hooks.at(place, raising(orthanc_away))
    with refused(Reason.ORTHANC_UNAVAILABLE):
        await world.studies.page(ALL, PageRequest(10))


async def test_a_list_without_the_database_is_an_error(world: World) -> None:
    """Studies without what the RIS knows are not shown as if it knew nothing."""
    put(world, "1.2")
    world.database.hooks.at("begin", raising(database_away))
    with refused(Reason.DATABASE_UNAVAILABLE):
        await world.studies.page(ALL, PageRequest(10))


async def test_a_study_shows_the_patient_and_order_it_was_uploaded_for(world: World) -> None:
    """The log's patient and order come first, though the PatientID is another's."""
    await world.send(tags_of(JONES), patient_id=SMITH.id, order_id=ORDER_OF_SMITH.id, patient_match=PatientMatch.ACCEPT)
    (study,) = (await world.studies.page(ALL, PageRequest(10))).items
    assert (study.patient_id, study.patient_full_name) == (SMITH.id, SMITH.full_name)
    assert (study.order_id, study.order_status) == (ORDER_OF_SMITH.id, ORDER_OF_SMITH.status)


async def test_a_study_that_was_not_uploaded_shows_the_patient_with_its_patient_id(world: World) -> None:
    """Without a log the MRN tells the patient, exactly; who has none is shown without."""
    put(world, "1.1", tags_of(JONES))
    put(world, "1.2", patient_id=JONES.mrn.lower())
    put(world, "1.3", patient_id="")
    found = {one.pacs.study_instance_uid: one for one in (await world.studies.page(ALL, PageRequest(10))).items}
    assert (found["1.1"].patient_id, found["1.1"].patient_full_name) == (JONES.id, JONES.full_name)
    assert found["1.1"].order_id is None
    for uid in ("1.2", "1.3"):
        assert (found[uid].patient_id, found[uid].patient_full_name) == (None, "")


async def test_a_log_from_before_a_deletion_links_nothing(world: World) -> None:
    """A study that came back past the gateway is not shown under the patient it was uploaded for once."""
    await world.send(tags_of(JONES), patient_id=SMITH.id, patient_match=PatientMatch.ACCEPT)
    await world.delete()
    put(world, STUDY, tags_of(JONES))
    study = await world.studies.get(STUDY)
    assert study.patient_id == JONES.id


async def test_another_patients_study_of_the_same_uid_is_not_shown_as_the_uploaded_one(world: World) -> None:
    """Where one StudyInstanceUID stands under two PatientIDs, each study is shown with its own patient."""
    await world.send(tags_of(SMITH))
    put(world, STUDY, tags_of(JONES))
    page = await world.studies.page(StudyFilter(study_instance_uid=STUDY), PageRequest(10))
    shown = {study.pacs.patient_id: study.patient_id for study in page.items}
    assert shown == {SMITH.mrn: SMITH.id, JONES.mrn: JONES.id}


async def test_a_patients_studies_are_those_with_the_mrn(world: World) -> None:
    """The patient's UUID leads to the MRN, and that to the studies."""
    put(world, "1.1", tags_of(SMITH))
    put(world, "1.2", tags_of(JONES))
    put(world, "1.3", tags_of(SMITH))
    page = await world.studies.page_of_patient(SMITH.id, PageRequest(10))
    assert sorted(uids(page.items)) == ["1.1", "1.3"]
    assert page.total_size == 2


async def test_an_unknown_patients_studies_are_not_found(world: World) -> None:
    """An unknown patient is an error, no empty list, and the PACS is not asked."""
    with refused(Reason.PATIENT_NOT_FOUND):
        await world.studies.page_of_patient(UUID(int=77), PageRequest(10))
    assert not world.pacs.hooks.passed


async def test_a_study_is_got_with_its_series_and_counts(world: World) -> None:
    """One study comes with its series in order, and counts that agree with them."""
    put(world, "1.2", series_number="2", series_instance_uid="1.2.2", modality="SR")
    put(world, "1.2", series_number="1", modality="CT")
    put(world, "1.2", series_number="1", modality="CT", sop_instance_uid="1.2.1.2")
    study = await world.studies.get("1.2")
    assert [one.series_instance_uid for one in study.series] == ["1.2.1", "1.2.2"]
    assert (study.counts.number_of_series, study.counts.number_of_instances) == (2, 3)
    assert study.counts.modalities == ("CT", "SR")


async def test_a_study_is_found_by_its_whole_accession_number(world: World) -> None:
    """The accession number is compared exactly."""
    put(world, "1.1", accession_number="A1")
    put(world, "1.2", accession_number="A12")
    assert (await world.studies.get_by_accession("A1")).pacs.study_instance_uid == "1.1"
    with refused(Reason.STUDY_NOT_FOUND):
        await world.studies.get_by_accession("A")


async def test_an_identifier_of_two_studies_is_ambiguous(world: World) -> None:
    """No study is picked where several answer."""
    put(world, "1.1", accession_number="A1")
    put(world, "1.2", accession_number="A1")
    put(world, "1.1", tags_of(JONES))
    for asked in (world.studies.get_by_accession("A1"), world.studies.get("1.1"), world.pictures.of_study("1.1")):
        with pytest.raises(ServiceError) as raised:
            await asked
        assert raised.value.reason is Reason.STUDY_AMBIGUOUS


async def test_a_study_that_is_not_there_is_not_found(world: World) -> None:
    """The error names what was asked for."""
    with pytest.raises(ServiceError) as raised:
        await world.studies.get("1.2.77")
    assert raised.value.reason is Reason.STUDY_NOT_FOUND
    assert raised.value.resource is not None
    assert (raised.value.resource.type, raised.value.resource.name) == ("study", "1.2.77")


async def test_a_study_that_goes_while_it_is_got_is_not_found(world: World) -> None:
    """Deleted between the two questions, it is told as absent and not as empty."""
    put(world, "1.2")

    async def lose() -> None:
        world.pacs.held.clear()

    world.pacs.hooks.at("series", lose)
    with refused(Reason.STUDY_NOT_FOUND):
        await world.studies.get("1.2")
