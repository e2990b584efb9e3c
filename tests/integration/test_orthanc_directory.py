"""The studies in memory, held against a real Orthanc that others change meanwhile."""

import asyncio
import io
import itertools
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pydicom
import pytest
from pydicom.uid import generate_uid

from deploy.local.orthanc import OrthancServer
from pacs_gateway.adapters import orthanc_directory
from pacs_gateway.adapters.orthanc import Orthanc
from pacs_gateway.domain.study import PacsStudy, StudyFilter, StudyOrder
from tests.integration.orthanc_files import Backdoor, dataset, encoded, fresh_id

ALL = StudyFilter()
NEWEST_FIRST = (StudyOrder("study_date", descending=True), StudyOrder("study_time", descending=True))


class Shelf:
    """An Orthanc as three see it: who remembers its studies, who does not, and who changes them past both."""

    def __init__(self, remembering: Orthanc, plain: Orthanc, door: Backdoor) -> None:
        self.remembering = remembering
        self.plain = plain
        self.door = door
        self.studies: dict[str, bytes] = {}

    async def put(self, data: bytes) -> str:
        """Stores a file; its study's id."""
        study: str = (await self.door.client.post("/instances", content=data)).raise_for_status().json()["ParentStudy"]
        self.studies[study] = data
        return study

    async def make(self, **attributes: Any) -> str:
        """Stores a file with these attributes; its study's id."""
        return await self.put(encoded(dataset(**attributes)))

    async def remove(self, study: str) -> None:
        """Deletes a study."""
        (await self.door.client.delete(f"/studies/{study}")).raise_for_status()
        self.studies.pop(study, None)

    async def list(self, wanted: StudyFilter = ALL, order: Sequence[StudyOrder] = NEWEST_FIRST) -> Sequence[PacsStudy]:
        """The studies as they are remembered, which must be those that are found."""
        remembered = await self.remembering.find_studies(wanted, limit=1000, order=order)
        assert remembered == await self.plain.find_studies(wanted, limit=1000, order=order)
        return remembered

    async def bulk_reads(self) -> int:
        """How many studies a list takes to be read; that is none where nothing has changed."""
        read = 0
        ask = self.remembering._directory._ask

        async def counting(method: str, path: str, body: Any) -> bytearray:
            nonlocal read
            read += len(body["Resources"]) if body else 0
            return await ask(method, path, body)

        self.remembering._directory._ask = counting
        await self.list()
        self.remembering._directory._ask = ask
        return read


@asynccontextmanager
async def orthanc(server: OrthancServer, **options: Any) -> AsyncIterator[Orthanc]:
    """The adapter."""
    adapter = Orthanc(server.url, username=server.username, password=server.password, connections=8, **options)
    try:
        yield adapter
    finally:
        await adapter.close()


@pytest.fixture
async def shelf(orthanc_server: OrthancServer) -> AsyncIterator[Shelf]:
    """The shelf, with three studies; emptied at the end."""
    door = Backdoor(orthanc_server)
    async with orthanc(orthanc_server, studies_in_memory=1000) as remembering, orthanc(orthanc_server) as plain:
        made = Shelf(remembering, plain, door)
        for _ in range(3):
            await made.make()
        yield made
        for study in list(made.studies):
            await made.remove(study)
    await door.client.aclose()


async def test_whatever_happens_the_list_is_what_orthanc_finds(shelf: Shelf) -> None:
    """Studies that come, go, come back changed, or all of it between two lists, are in the list or not, as is right."""
    chance = random.Random(5)  # noqa: S311 - not for secrets
    gone: list[bytes] = []

    async def come() -> None:
        await shelf.make(StudyDate=f"2020010{chance.randrange(1, 9)}", PatientName=fresh_id())

    async def go() -> None:
        study = chance.choice(list(shelf.studies))
        gone.append(shelf.studies[study])
        await shelf.remove(study)

    async def come_back() -> None:
        if gone:
            await shelf.put(gone.pop().replace(b"20040119", b"20050119"))

    async def grow() -> None:
        before = pydicom.dcmread(io.BytesIO(chance.choice(list(shelf.studies.values()))))
        before.SOPInstanceUID = before.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        await shelf.door.client.post("/instances", content=encoded(before))

    for _ in range(25):
        for _ in range(chance.randrange(4)):
            if len(shelf.studies) > 1:
                await chance.choice([come, come, go, go, come_back, grow])()
        await shelf.list()


async def test_a_change_is_read_and_nothing_else(shelf: Shelf) -> None:
    """Of many studies, a list reads those that are new."""
    assert await shelf.bulk_reads() >= 3
    assert await shelf.bulk_reads() == 0
    study = await shelf.make()
    assert await shelf.bulk_reads() == 1
    await shelf.remove(study)
    assert await shelf.bulk_reads() == 0


async def test_a_study_in_the_place_of_another_is_seen(shelf: Shelf) -> None:
    """That there are as many studies as before does not mean that they are the same."""
    await shelf.list()
    for _ in range(3):
        await shelf.remove(next(iter(shelf.studies)))
        new = await shelf.make()
        assert new in {study.orthanc_study_id for study in await shelf.list()}


async def test_a_log_of_changes_that_was_cleared_hides_nothing(shelf: Shelf) -> None:
    """Orthanc's log of changes can be emptied, and what came before that is seen all the same."""
    await shelf.list()
    await shelf.make()
    await shelf.remove(next(iter(shelf.studies)))
    for _ in range(2):
        (await shelf.door.client.delete("/changes")).raise_for_status()
        await shelf.list()
    await shelf.make()
    await shelf.list()


async def test_an_attribute_that_changed_in_place_is_seen_by_who_reads_the_study(shelf: Shelf) -> None:
    """Reconstructing a study is in no log: who reads it is told the truth, and the next list has it, too."""
    patient, uid = fresh_id(), generate_uid()
    study = await shelf.make(PatientID=patient, StudyInstanceUID=uid, StudyDate="20200101")
    await shelf.make(PatientID=patient, StudyInstanceUID=uid, StudyDate="20210101")
    day = StudyFilter(study_date_from="20210101", study_date_until="20210101")
    assert study not in {one.orthanc_study_id for one in await shelf.list(day)}
    for instance in await shelf.door.instances_of(uid):
        tags = (await shelf.door.client.get(f"/instances/{instance}/simplified-tags")).json()
        if tags["StudyDate"] == "20200101":
            (await shelf.door.client.delete(f"/instances/{instance}")).raise_for_status()
    (await shelf.door.client.post(f"/studies/{study}/reconstruct", json={})).raise_for_status()
    [(now, counts)] = (await shelf.remembering.contents([study])).values()
    assert (now.study_date, counts.number_of_instances) == ("20210101", 1)
    assert study in {one.orthanc_study_id for one in await shelf.list(day)}


async def test_who_asks_after_a_change_sees_it_also_among_others_who_ask(shelf: Shelf) -> None:
    """Questions share what was found out, but only what was found out after they were asked."""

    async def ids() -> set[str]:
        return {study.orthanc_study_id for study in await shelf.remembering.find_studies(ALL, limit=1000)}

    async def keep_asking() -> None:
        while True:
            await ids()

    others = [asyncio.create_task(keep_asking()) for _ in range(4)]
    for _ in range(10):
        study = await shelf.make()
        assert all(study in found for found in await asyncio.gather(ids(), ids()))
        await shelf.remove(study)
        assert all(study not in found for found in await asyncio.gather(ids(), ids()))
    for other in others:
        other.cancel()
    await asyncio.wait(others)


async def test_names_and_dates_are_found_in_memory_as_in_orthanc(shelf: Shelf) -> None:
    """A list by name, by date and in any order is the same, whoever makes it."""
    base = fresh_id()
    for name, day in itertools.product(("a^Jos\u00e9", "b"), ("20200101", "20200102")):
        await shelf.make(PatientName=base + name, StudyDate=day, SpecificCharacterSet="ISO_IR 192")
    by_name = StudyOrder("patient_name", descending=True)
    assert len(await shelf.list(StudyFilter(patient_name=base.lower()))) == 4
    assert len(await shelf.list(StudyFilter(patient_name=f"{base}A^JOS\u00c9"), [by_name])) == 2
    found = await shelf.list(StudyFilter(patient_name=base, study_date_from="20200102"), [by_name])
    assert [study.patient_name for study in found] == [f"{base}b", f"{base}a^Jos\u00e9"]


async def test_more_studies_than_may_be_in_memory_are_found_in_orthanc(
    shelf: Shelf, orthanc_server: OrthancServer
) -> None:
    """An Orthanc that holds too many is asked each time, and remembered once it holds less."""
    async with orthanc(orthanc_server, studies_in_memory=len(await shelf.list())) as few:
        for _ in range(2):
            study = await shelf.make()
            assert await few.find_studies(ALL, limit=1000, order=NEWEST_FIRST) == await shelf.list()
            assert not few._directory._known
            await shelf.remove(study)
            assert await few.find_studies(ALL, limit=1000, order=NEWEST_FIRST) == await shelf.list()
            assert few._directory._known


async def test_too_many_changes_are_not_read_one_by_one(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question after a long time reads all studies anew, and finds what is there."""
    await shelf.list()
    monkeypatch.setattr(orthanc_directory, "_CHANGES_A_CALL", 2)
    await shelf.make()
    assert await shelf.bulk_reads() == 1
    monkeypatch.setattr(orthanc_directory, "_MOST_CHANGES", 3)
    await shelf.make()
    await shelf.make()
    assert await shelf.bulk_reads() >= 5


async def test_all_is_read_anew_now_and_then(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some minutes nothing is trusted that was read before."""
    await shelf.list()
    assert await shelf.bulk_reads() == 0
    ahead = orthanc_directory.monotonic() + 301
    monkeypatch.setattr(orthanc_directory, "monotonic", lambda: ahead)
    assert await shelf.bulk_reads() >= 3
