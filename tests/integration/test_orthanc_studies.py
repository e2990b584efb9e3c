"""Finding, counting, ordering and showing what a real Orthanc holds."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp
import pytest
from pydicom.uid import generate_uid

from deploy.local.orthanc import OrthancServer
from pacs_gateway.adapters.orthanc import Orthanc
from pacs_gateway.domain.study import Counts, PacsStudy, StoredInstance, StudyFilter
from service_runtime.errors import InvalidFieldError
from tests.integration.orthanc_files import (
    Backdoor,
    chunks_of,
    dataset,
    encapsulated_pdf,
    encoded,
    fresh_id,
)

_PNG = b"\x89PNG\r\n\x1a\n"


class Shelf:
    """Stores files for one test and removes them, and nothing else, when it ends."""

    def __init__(self, pacs: Orthanc) -> None:
        self.pacs = pacs
        self._studies: set[str] = set()

    async def put(self, data: bytes) -> StoredInstance:
        """Stores the file."""
        stored = await self.pacs.store(chunks_of(data))
        self._studies.add(stored.orthanc_study_id)
        return stored

    async def make(self, name: str = "CT_small.dcm", **attributes: Any) -> StoredInstance:
        """Stores one of pydicom's files with these attributes."""
        return await self.put(encoded(dataset(name, **attributes)))

    async def clear(self) -> None:
        """Removes the studies."""
        await asyncio.gather(*(self.pacs.delete_study(study) for study in self._studies))


@pytest.fixture(scope="session")
async def pacs(orthanc_server: OrthancServer) -> AsyncIterator[Orthanc]:
    """The adapter under test."""
    adapter = Orthanc(
        orthanc_server.url, username=orthanc_server.username, password=orthanc_server.password, connections=32
    )
    yield adapter
    await adapter.close()


@pytest.fixture
async def shelf(pacs: Orthanc) -> AsyncIterator[Shelf]:
    """Where the test puts its files."""
    made = Shelf(pacs)
    yield made
    await made.clear()


def _ids(studies: Sequence[PacsStudy]) -> set[str]:
    return {study.orthanc_study_id for study in studies}


async def _find(pacs: Orthanc, *, limit: int = 100, **wanted: str) -> set[str]:
    return _ids(await pacs.find_studies(StudyFilter(**wanted), limit=limit))


async def test_a_study_comes_back_with_its_attributes(shelf: Shelf) -> None:
    """What the file says of patient and study is what is found."""
    made = dataset(
        PatientName="Doe^Jane",
        StudyDate="20200131",
        StudyTime="101112",
        StudyDescription="Thorax",
        AccessionNumber=fresh_id(),
    )
    stored = await shelf.put(encoded(made))
    [study] = await shelf.pacs.find_studies(StudyFilter(study_instance_uid=made.StudyInstanceUID), limit=10)
    assert study == PacsStudy(
        study_instance_uid=made.StudyInstanceUID,
        orthanc_study_id=stored.orthanc_study_id,
        patient_id=made.PatientID,
        patient_name="Doe^Jane",
        study_date="20200131",
        study_time="101112",
        study_description="Thorax",
        accession_number=made.AccessionNumber,
    )


async def test_absent_attributes_are_empty(shelf: Shelf) -> None:
    """A file without name, date, description and accession number makes a study like any other."""
    made = dataset()
    for keyword in ("PatientName", "StudyDate", "StudyTime", "StudyDescription", "AccessionNumber"):
        if keyword in made:
            delattr(made, keyword)
    await shelf.put(encoded(made))
    [study] = await shelf.pacs.find_studies(StudyFilter(patient_id=made.PatientID), limit=10)
    assert (study.patient_name, study.study_date, study.study_description, study.accession_number) == ("", "", "", "")


async def test_identifiers_are_compared_exactly(shelf: Shelf) -> None:
    """Neither case nor accents nor a longer identifier match: each study is found by its own alone."""
    base = fresh_id()
    identifiers = [base + end for end in ("A", "a", "AB", "\u00c1", "\u00e1", "-1", " B")]
    stored = {
        one: (await shelf.make(PatientID=one, AccessionNumber=one, SpecificCharacterSet="ISO_IR 192")).orthanc_study_id
        for one in identifiers
    }
    for one in identifiers:
        assert await _find(shelf.pacs, patient_id=one) == {stored[one]}
        assert await _find(shelf.pacs, accession_number=one) == {stored[one]}
    assert await _find(shelf.pacs, patient_id=base) == set()
    assert await _find(shelf.pacs, patient_id=identifiers[0], accession_number=identifiers[2]) == set()


@pytest.mark.parametrize("end", ["*", "?", "\\A"])
async def test_a_wildcard_never_reaches_orthanc(shelf: Shelf, end: str) -> None:
    """An identifier that Orthanc would take for a pattern, which has matches, is an error."""
    base = fresh_id()
    await shelf.make(PatientID=base + "A", AccessionNumber=base + "A", PatientName=base + "A")
    for wanted in (
        StudyFilter(patient_id=base + end),
        StudyFilter(accession_number=base + end),
        StudyFilter(patient_name=base + end),
    ):
        with pytest.raises(InvalidFieldError):
            await shelf.pacs.find_studies(wanted, limit=10)
    assert await shelf.pacs.counts(["*", "", "1.2*", generate_uid()]) == {}


async def test_dates_are_a_range_with_both_ends(shelf: Shelf) -> None:
    """From and until are part of the range; a study without a date is in none."""
    patient = fresh_id()
    days = ["20200101", "20200102", "20200103", "20200104", ""]
    stored = {day: (await shelf.make(PatientID=patient, StudyDate=day)).orthanc_study_id for day in days}

    async def between(**dates: str) -> set[str]:
        found = await _find(shelf.pacs, patient_id=patient, **dates)
        return {day for day, study in stored.items() if study in found}

    assert await between() == set(days)
    assert await between(study_date_from="20200102", study_date_until="20200103") == {"20200102", "20200103"}
    assert await between(study_date_from="20200104") == {"20200104"}
    assert await between(study_date_until="20200101") == {"20200101"}
    assert await between(study_date_from="20200105") == set()


async def test_a_study_is_found_by_any_of_its_modalities(shelf: Shelf) -> None:
    """Modalities are compared exactly with those of the study's series."""
    patient = fresh_id()
    study = generate_uid()
    both = await shelf.make(PatientID=patient, StudyInstanceUID=study, Modality="CT")
    await shelf.make(PatientID=patient, StudyInstanceUID=study, Modality="SR")
    only = await shelf.make(PatientID=patient, Modality="CT")

    assert await _find(shelf.pacs, patient_id=patient, modality="CT") == {
        both.orthanc_study_id,
        only.orthanc_study_id,
    }
    assert await _find(shelf.pacs, patient_id=patient, modality="SR") == {both.orthanc_study_id}
    for other in ("ct", "C", "MR"):
        assert await _find(shelf.pacs, patient_id=patient, modality=other) == set()


async def test_a_name_is_found_by_its_beginning_in_any_case(shelf: Shelf) -> None:
    """The beginning of the name counts, in any case and script; what is in the middle does not."""
    base = fresh_id()
    jose = await shelf.make(PatientName=f"{base}^Jos\u00e9", SpecificCharacterSet="ISO_IR 192")
    ivan = await shelf.make(PatientName=f"Иванов^{base}", SpecificCharacterSet="ISO_IR 192")
    pacs = shelf.pacs
    for name in (base, base.lower(), f"{base}^JOS\u00c9", f"{base.lower()}^jos\u00e9"):
        assert await _find(pacs, patient_name=name) == {jose.orthanc_study_id}
    assert await _find(pacs, patient_name=f"иванов^{base}") == {ivan.orthanc_study_id}
    assert await _find(pacs, patient_name=f"{base}^Jose") == set()
    assert await _find(pacs, patient_name=base[1:]) == set()


async def test_the_limit_counts_what_matches_not_what_orthanc_found(shelf: Shelf) -> None:
    """Studies that match are not lost behind those that Orthanc takes for matches."""
    base = fresh_id()
    for _ in range(6):
        await shelf.make(PatientID=base + "a")
    wanted = {(await shelf.make(PatientID=base + "A")).orthanc_study_id for _ in range(3)}
    for _ in range(6):
        await shelf.make(PatientID=base + "a")
    for limit in (1, 2, 3, 4, 100):
        found = await _find(shelf.pacs, patient_id=base + "A", limit=limit)
        assert len(found) == min(limit, 3)
        assert found <= wanted


_NAMES = [
    ("ISO_IR 100", "M\u00f6ller^Zo\u00eb"),
    ("ISO_IR 192", "Иванов^Иван=山田^太郎"),
    ("ISO_IR 144", "Иванов^Иван"),
    (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    ("GB18030", "Wang^XiaoDong=王^小东"),
]


@pytest.mark.parametrize(("charset", "name"), _NAMES)
async def test_names_come_back_as_the_text_they_are(shelf: Shelf, charset: str | list[str], name: str) -> None:
    """Whatever the file's character set, the text is right; the description, too."""
    made = dataset(SpecificCharacterSet=charset, PatientName=name)
    await shelf.put(encoded(made))
    [study] = await shelf.pacs.find_studies(StudyFilter(patient_id=made.PatientID), limit=10)
    assert study.patient_name == name


async def test_bytes_that_are_no_text_do_not_spoil_the_list(shelf: Shelf) -> None:
    """A name that is broken UTF-8, or full of control characters, leaves the study and its neighbours readable."""
    patient = fresh_id()
    for broken in (b"XX\xff\xfe\xc3(\xe9\x80^Q", b'X\x00\x01\x1b"\\X\x7f^Q'):
        data = encoded(dataset(PatientID=patient, SpecificCharacterSet="ISO_IR 192", PatientName="XXXXXXXX^Q"))
        await shelf.put(data.replace(b"XXXXXXXX^Q", broken))
    await shelf.make(PatientID=patient, PatientName="Doe^Jane")
    studies = await shelf.pacs.find_studies(StudyFilter(patient_id=patient), limit=10)
    assert len(studies) == 3
    assert "Doe^Jane" in {study.patient_name for study in studies}


async def test_fifty_studies_are_counted_in_a_constant_number_of_calls(
    shelf: Shelf, orthanc_server: OrthancServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call for all of them; Orthanc before 1.11, which computes no such tags, takes a second one."""
    patient = fresh_id()
    studies = [generate_uid() for _ in range(50)]
    await asyncio.gather(
        *(
            shelf.make(PatientID=patient, StudyInstanceUID=study, Modality=modality)
            for number, study in enumerate(studies)
            for modality in ["MR", "CT", "CT"][: 1 + number % 3]
        )
    )
    calls = []
    request = aiohttp.ClientSession.request

    def counted(self: aiohttp.ClientSession, *args: Any, **options: Any) -> Any:
        calls.append(options["url"])
        return request(self, *args, **options)

    monkeypatch.setattr(aiohttp.ClientSession, "request", counted)
    counts = await shelf.pacs.counts(studies)
    door = Backdoor(orthanc_server)
    old = await door.is_1_10()
    await door.client.aclose()
    assert len(calls) == (2 if old else 1)
    expected = [Counts(("MR",), 1, 1), Counts(("CT", "MR"), 2, 2), Counts(("CT", "MR"), 3, 3)]
    assert counts == {study: expected[number % 3] for number, study in enumerate(studies)}


async def test_instances_and_series_are_counted_apart(shelf: Shelf) -> None:
    """Two instances of one series are one series; a series without a modality adds none."""
    patient, study, series = fresh_id(), generate_uid(), generate_uid()
    for number in (1, 2):
        await shelf.make(
            PatientID=patient, StudyInstanceUID=study, SeriesInstanceUID=series, InstanceNumber=str(number)
        )
    await shelf.make(PatientID=patient, StudyInstanceUID=study, Modality="")
    assert await shelf.pacs.counts([study]) == {study: Counts(("CT",), 2, 3)}


async def test_what_is_not_there_has_no_counts(shelf: Shelf) -> None:
    """No studies take no call; an unknown one is left out; a study UID of two patients counts for both together."""
    assert await shelf.pacs.counts([]) == {}
    study = generate_uid()
    await shelf.make(StudyInstanceUID=study, Modality="MR")
    await shelf.make(StudyInstanceUID=study, Modality="CT")
    assert len(await _find(shelf.pacs, study_instance_uid=study)) == 2
    assert await shelf.pacs.counts([study, generate_uid(), study]) == {study: Counts(("CT", "MR"), 2, 2)}


async def test_a_thousand_studies_can_be_asked_for_at_once(shelf: Shelf) -> None:
    """The largest page of studies is one query for Orthanc as well."""
    study = generate_uid()
    await shelf.make(StudyInstanceUID=study)
    assert set(await shelf.pacs.counts([study, *(generate_uid() for _ in range(999))])) == {study}


async def test_series_and_instances_come_in_their_numbers_order(shelf: Shelf) -> None:
    """Numbers are compared as numbers, and what has none comes last."""
    patient, study = fresh_id(), generate_uid()
    series = {number: generate_uid() for number in ("10", "2", "", "1")}
    first = None
    for number, uid in series.items():
        first = await shelf.make(
            PatientID=patient, StudyInstanceUID=study, SeriesInstanceUID=uid, SeriesNumber=number, Modality="MR"
        )
    assert first is not None
    instances = {
        number: (
            await shelf.make(
                PatientID=patient,
                StudyInstanceUID=study,
                SeriesInstanceUID=series["2"],
                SeriesNumber="2",
                SeriesDescription="axial",
                Modality="MR",
                InstanceNumber=number,
            )
        ).orthanc_id
        for number in ("30", "4", "", "100")
    }
    found = await shelf.pacs.series(first.orthanc_study_id)
    assert found is not None
    assert [one.series_number for one in found] == ["1", "2", "10", ""]
    assert [one.number_of_instances for one in found] == [1, 5, 1, 1]
    assert [one.series_instance_uid for one in found] == [series[number] for number in ("1", "2", "10", "")]
    assert {one.modality for one in found} == {"MR"}
    order = [one for one in await shelf.pacs.instances(found[1].orthanc_series_id) if one in instances.values()]
    assert order == [instances[number] for number in ("4", "30", "100", "")]


async def test_a_study_that_is_gone_has_no_series(shelf: Shelf) -> None:
    """None says that there is no such study; a series that is gone has no instances."""
    stored = await shelf.make()
    [series] = await shelf.pacs.series(stored.orthanc_study_id) or ()
    await shelf.pacs.delete_study(stored.orthanc_study_id)
    assert await shelf.pacs.series(stored.orthanc_study_id) is None
    assert await shelf.pacs.instances(series.orthanc_series_id) == []
    assert await shelf.pacs.picture(stored.orthanc_id) is None


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "MR_small.dcm",
        "MR_small_RLE.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "JPEG-lossy.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
        "SC_rgb_rle_2frame.dcm",
        "examples_ybr_color.dcm",
        "examples_rgb_color.dcm",
        "examples_palette.dcm",
        "image_dfl.dcm",
        "liver_1frame.dcm",
        "ExplVR_BigEnd.dcm",
    ],
)
async def test_an_image_has_a_picture(shelf: Shelf, name: str) -> None:
    """Grey, colour, palette, several frames, JPEG, JPEG-LS and RLE give a PNG of a sensible size."""
    picture = await shelf.pacs.picture((await shelf.make(name)).orthanc_id)
    assert picture is not None
    assert picture.startswith(_PNG)
    assert 200 < len(picture) < 100_000


async def test_an_image_that_asks_for_no_window_is_not_black(shelf: Shelf) -> None:
    """A CT without a window is stretched to what can be seen: black would compress to next to nothing."""
    made = dataset()
    assert "WindowCenter" not in made
    picture = await shelf.pacs.picture((await shelf.put(encoded(made))).orthanc_id)
    assert picture is not None
    assert len(picture) > 4000


async def test_a_picture_always_fits_an_answer(shelf: Shelf) -> None:
    """A large radiograph without a window is made small, for its preview would not fit a gRPC message; it shows."""
    made = dataset(Rows=3000, Columns=3000, BitsStored=12, HighBit=11, PixelRepresentation=0)
    noise = bytes((number * number * 31 + number * 7) >> 5 & 0xFF for number in range(9973))
    made.PixelData = b"".join(bytes((value, value & 0x0F)) for value in noise) * (3000 * 3000 // 9973 + 1)
    made.PixelData = made.PixelData[: 3000 * 3000 * 2]
    picture = await shelf.pacs.picture((await shelf.put(encoded(made))).orthanc_id)
    assert picture is not None
    assert picture.startswith(_PNG)
    assert 4000 < len(picture) < 3 * 1024 * 1024


@pytest.mark.parametrize("name", ["test-SR.dcm", "reportsi.dcm", "rtplan.dcm", "waveform_ecg.dcm", "MR_truncated.dcm"])
async def test_what_has_no_image_has_no_picture(shelf: Shelf, name: str) -> None:
    """A report, a plan, a waveform, and an image whose pixels are missing: None, no error."""
    assert await shelf.pacs.picture((await shelf.make(name)).orthanc_id) is None


async def test_a_document_and_impossible_images_have_no_picture(shelf: Shelf) -> None:
    """An encapsulated PDF, and images whose size or photometric interpretation is nonsense: None, no error."""
    made = (
        encapsulated_pdf(),
        dataset(Rows=0),
        dataset(Rows=60000, Columns=60000),
        dataset(PhotometricInterpretation="NONE"),
    )
    for one in made:
        assert await shelf.pacs.picture((await shelf.put(encoded(one))).orthanc_id) is None
