"""Whole files de-identified: what of them is left, as pydicom reads it and byte by byte."""

import io
from datetime import datetime
from pathlib import Path

import pydicom
import pytest
from pydicom._uid_dict import UID_dictionary
from pydicom.data import get_testdata_file

from service_runtime.errors import InvalidFieldError, Reason, ServiceError
from tag_service.domain.deidentify.options import Dates, Options
from tag_service.domain.deidentify.reach import Doubt
from tag_service.domain.deidentify.table import basic_actions
from tag_service.domain.standard import dictionary
from tag_service.domain.standard.limits import Limits
from tag_service.use_cases.deidentifying import Deidentifying, KeySource
from tests.files import sample_bytes
from tests.unit.tag_service.building import (
    DEFLATED,
    ENCODINGS,
    EXPLICIT_LITTLE,
    NAMES,
    Writer,
    body,
    every_element,
    part10,
    plain,
    read,
)

EXPLICIT = Writer(EXPLICIT_LITTLE)
KEY = "a key that has more than thirty-two characters"
OTHER_KEY = "another key of more than thirty-two characters"
FILES = """
    693_J2KI.dcm CT_small.dcm JPEG2000.dcm MR_small.dcm MR_small_bigendian.dcm MR_small_implicit.dcm
    SC_rgb_jpeg_dcmd.dcm UN_sequence.dcm badVR.dcm examples_overlay.dcm examples_palette.dcm image_dfl.dcm
    liver_1frame.dcm meta_missing_tsyntax.dcm nested_priv_SQ.dcm no_meta_group_length.dcm priv_SQ.dcm
    reportsi.dcm rtdose_1frame.dcm rtplan.dcm rtstruct.dcm test-SR.dcm waveform_ecg.dcm
    dicomdirtests/77654033/CR1/6154 dicomdirtests/98892001/CT5N/2062 dicomdirtests/98892003/MR1/15820
"""
# Shorter values are found by chance, in pixels for one.
LEAST = 5


def begin(*, key=KEY, service_key="", **options):
    """A file that is about to be de-identified."""
    return Deidentifying(Limits(), key=service_key).begin(Options(**options), key)


def deidentified(data, *, size=0, **options):
    """The de-identified file, fed whole or in pieces of this size."""
    rewriter = begin(**options).rewriter
    size = size or len(data)
    pieces = [rewriter.feed(data[start : start + size]) for start in range(0, len(data), size)]
    return b"".join(part for piece in [*pieces, rewriter.close()] for part in piece)


def texts_of(element):
    """The single values of an element as text; of bytes, the text that they may be."""
    values = element.value if isinstance(element.value, list | pydicom.multival.MultiValue) else [element.value]
    for value in values:
        if isinstance(value, bytes):
            yield value.strip(b" \0").decode("latin-1")
        else:
            yield str(value).strip(" \0")


def is_identifying(element):
    """Whether the table, or what goes beyond it, leaves nothing of an element's value."""
    return element.tag in basic_actions() or element.tag.is_private or element.VR == "PN"


def identifying_values(dataset):
    """The values that must be gone: those of every element, nested and private ones too, that the table acts on, save
    those that an element has which stays, and numbers, which are anywhere.
    """
    gone, kept = {str(dataset.file_meta.get("MediaStorageSOPInstanceUID", ""))}, set()
    for element in every_element(dataset):
        if element.VR != "SQ":
            (gone if is_identifying(element) else kept).update(texts_of(element))
    words = " ".join(kept)
    return {
        text
        for text in gone - set(UID_dictionary)
        if len(text) >= LEAST and text not in words and (text.count(".") > 3 or text.strip("0123456789.-+ "))
    }


@pytest.mark.parametrize("name", FILES.split())
def test_nothing_that_identifies_is_left_of_real_files(name: str):
    """De-identification: of every value that the table acts on, nested and private ones too, no byte stands in the
    result, which pydicom reads to its end with the pixels that it had.
    """
    data = sample_bytes(name)
    out = deidentified(data)
    before, after = read(data), read(out)
    identifying = identifying_values(before)
    assert identifying
    assert [text for text in identifying if text.encode("utf-8", "ignore") in out] == []
    assert not [element.tag for element in every_element(after) if element.tag.is_private]
    assert after.get("PixelData") == before.get("PixelData")
    assert after.PatientIdentityRemoved == "YES"
    if "SOPInstanceUID" in after:
        assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID


def test_the_files_of_a_study_stay_together():
    """De-identification: under one key the files of a study get one study, one patient and instances of their own, and
    under another key all others.
    """
    folder = Path(str(get_testdata_file("dicomdirtests/77654033/CR1/6154"))).parent.parent
    files = [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]
    assert len(files) >= 3
    before = [read(data) for data in files]
    one = [read(deidentified(data)) for data in files]
    other = [read(deidentified(data, key=OTHER_KEY)) for data in files]
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "PatientID"):
        pairs = {(str(old[keyword].value), str(new[keyword].value)) for old, new in zip(before, one, strict=True)}
        assert len({new for _, new in pairs}) == len({old for old, _ in pairs}) == len(pairs), keyword
        assert not {new[keyword].value for new in one} & {new[keyword].value for new in other}


@pytest.mark.parametrize("writer", ENCODINGS, ids=NAMES)
def test_nested_values_are_replaced_like_those_outside(writer: Writer):
    """De-identification: in items of any depth and form, in every encoding, UIDs are replaced by the same ones as
    outside, and names, dates and private elements go.
    """
    inner = writer.text(0x00081155, "UI", "1.2.3.4") + writer.text(0x00100010, "PN", "Nested^Name")
    item = (
        writer.text(0x00080021, "DA", "20200102")
        + writer.sequence(0x00081140, inner, undefined=True)
        + writer.text(0x00090010, "LO", "SECRET MAKER")
        + writer.text(0x00091001, "LO", "SECRET VALUE")
    )
    data = writer.file(*plain(writer, writer.sequence(0x00081115, item), writer.sequence(0x00290010, item)))
    out = deidentified(data)
    content = body(out) if writer.transfer_syntax == DEFLATED else out
    for secret in (b"Nested", b"SECRET", b"20200102", b"1.2.3.4\0", b"Roe", b"MRN7", b"A17"):
        assert secret not in content
    after = read(out)
    reference = after.ReferencedSeriesSequence[0].ReferencedImageSequence[0]
    assert reference.ReferencedSOPInstanceUID == after.SOPInstanceUID == after.file_meta.MediaStorageSOPInstanceUID
    assert reference.PatientName == after.PatientName == after.PatientID
    assert after.ReferencedSeriesSequence[0].SeriesDate == "19000101"
    assert after.PixelData == bytes(range(64))


def test_elements_that_came_as_unknown_are_known_again():
    """De-identification: values that were written as UN are replaced as what they are; a sequence in them is gone into,
    and bytes that are none are dropped.
    """
    implicit = Writer("1.2.840.10008.1.2")
    items = implicit.sequence(0x00081140, implicit.text(0x00081155, "UI", "1.2.3.4"))[8:]
    data = EXPLICIT.file(
        *plain(
            EXPLICIT,
            EXPLICIT.text(0x00081070, "UN", "Operator^Name"),
            EXPLICIT.element(0x00081140, "UN", items),
            EXPLICIT.element(0x00082112, "UN", b"Hidden^Name "),
            EXPLICIT.element(0x00082218, "UN", b"Also^Hidden "),
        )
    )
    out = deidentified(data)
    for secret in (b"Operator", b"Hidden", b"1.2.3.4\0"):
        assert secret not in out
    after = read(out)
    assert after.ReferencedImageSequence[0].ReferencedSOPInstanceUID == after.SOPInstanceUID
    assert after.OperatorsName == "ANONYMOUS"


def test_bulk_data_that_may_identify_goes_unread():
    """De-identification: documents, long texts, overlays, curves and private bulk are emptied or removed, wherever they
    stand and however long they are, and no more of them is held than of a header.
    """
    long = b"Roe^Richard " * 200_000
    data = EXPLICIT.file(
        *plain(
            EXPLICIT,
            EXPLICIT.element(0x00104000, "UT", long),
            EXPLICIT.element(0x00291001, "OB", long),
            EXPLICIT.element(0x00400310, "UT", long),
            EXPLICIT.element(0x0040A160, "UT", long),
            EXPLICIT.element(0x00420011, "OB", long),
            EXPLICIT.element(0x50003000, "OW", long),
            EXPLICIT.element(0x60003000, "OW", long),
            EXPLICIT.element(0x7FE10010, "OB", long),
            EXPLICIT.element(0x7FE11001, "OB", long),
            EXPLICIT.element(0xFFFCFFFC, "OB", long),
        )
    )
    rewriter = begin().rewriter
    out = b""
    for start in range(0, len(data), 500_000):
        out += b"".join(rewriter.feed(data[start : start + 500_000]))
        assert rewriter.held_bytes < 9_000_000
    out += b"".join(rewriter.close())
    assert b"Roe" not in out
    assert len(out) < 2000
    assert read(out).EncapsulatedDocument is None


@pytest.mark.parametrize("writer", ENCODINGS, ids=NAMES)
def test_many_uids_that_become_longer_stay_one_value(writer: Writer):
    """De-identification: a value that outgrows the 16 bits of its length becomes UN, which has 32 (PS3.5 6.2.2)."""
    uids = [f"1.2.{number}" for number in range(7000)]
    data = writer.file(*plain(writer, writer.text(0x00080058, "UI", "\\".join(uids))))
    value = read(deidentified(data)).FailedSOPInstanceUIDList
    # pydicom leaves a long UN as it is.
    found = value.rstrip(b"\0").decode().split("\\") if isinstance(value, bytes) else value
    assert len(set(found)) == 7000
    assert all(uid.startswith("2.25.") for uid in found)
    assert read(deidentified(data, retain_uids=True)).FailedSOPInstanceUIDList == uids


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_pieces_that_a_file_comes_in_change_nothing(size):
    """De-identification, R1: the same result for every chunking."""
    data = sample_bytes("CT_small.dcm") if size > 1 else EXPLICIT.file(*plain(EXPLICIT))
    assert deidentified(data, size=size) == deidentified(data)


def test_the_file_meta_information_names_nobody():
    """De-identification: who sent the file is removed, and an instance UID that stands only there is replaced."""
    data = part10(EXPLICIT.text(0x00100010, "PN", "Roe^Richard"), EXPLICIT_LITTLE, instance_uid="1.2.3.99")
    out = deidentified(data)
    meta = read(out).file_meta
    assert "SourceApplicationEntityTitle" not in meta
    assert b"SENDER" not in out
    assert b"1.2.3.99" not in out
    assert meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    assert meta.MediaStorageSOPInstanceUID.startswith("2.25.")
    assert out.startswith(bytes(128))


def test_dates_are_shifted_together():
    """De-identification: with SHIFT all dates of a file, nested too, move by the same days, and intervals stay."""
    item = EXPLICIT.text(0x00080021, "DA", "20200111")
    data = EXPLICIT.file(
        *plain(
            EXPLICIT,
            EXPLICIT.text(0x0008002A, "DT", "20200131120000.000000+0100"),
            EXPLICIT.text(0x00080030, "TM", "101112"),
            EXPLICIT.sequence(0x00081115, item),
            EXPLICIT.text(0x00100030, "DA", "19701231"),
        )
    )
    after = read(deidentified(data, dates=Dates.SHIFT))

    def day(text):
        return datetime.strptime(str(text)[:8], "%Y%m%d")  # noqa: DTZ007 - DICOM dates have no zone

    nested = after.ReferencedSeriesSequence[0].SeriesDate
    assert (day(nested) - day(after.StudyDate)).days == 10
    assert (day(after.AcquisitionDateTime) - day(after.StudyDate)).days == 30
    assert str(after.AcquisitionDateTime)[8:] == "120000.000000+0100"
    assert day(after.StudyDate) < day("20200101")
    assert after.StudyTime == "101112"
    assert after.PatientBirthDate == ""
    assert after.LongitudinalTemporalInformationModified == "MODIFIED"
    assert read(deidentified(data, dates=Dates.SHIFT)).StudyDate == after.StudyDate


def test_a_shift_depends_on_a_patient_id_that_stands_behind_the_dates():
    """De-identification: the patient counts whose number comes after the dates in the file, in any character set."""

    def study_date(patient_id, charset=b"ISO_IR 100"):
        elements = [element for element in plain(EXPLICIT) if element[:4] != b"\x10\0\x20\0"]
        patient = [
            EXPLICIT.element(0x00080005, "CS", charset),
            EXPLICIT.element(0x00100020, "LO", patient_id),
        ]
        data = EXPLICIT.file(*sorted([*elements, *patient], key=lambda one: (one[1::-1], one[3:1:-1])))
        after = read(deidentified(data, dates=Dates.SHIFT))
        assert after.PatientID == after.PatientName
        return after.StudyDate

    assert study_date(b"M\xfcller") == study_date("Müller ".encode(), b"ISO_IR 192") != study_date(b"Muller")


def test_options_retain_what_they_say():
    """De-identification: UIDs, device, institution, characteristics and full dates stay as asked, each alone."""
    data = sample_bytes("CT_small.dcm")
    before, plainly = read(data), read(deidentified(data))
    cases = {
        "retain_uids": ["SOPInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"],
        "retain_device_identity": ["StationName"],
        "retain_institution_identity": ["InstitutionName"],
        "retain_patient_characteristics": ["PatientSex", "PatientAge", "PatientWeight"],
    }
    for option, keywords in cases.items():
        after = read(deidentified(data, **{option: True}))
        for keyword in keywords:
            assert after[keyword].value == before[keyword].value, option
            assert plainly.get(keyword) != before[keyword].value
        assert after.PatientName == plainly.PatientName
    kept = read(deidentified(data, dates=Dates.KEEP))
    assert (kept.StudyDate, kept.StudyTime) == (before.StudyDate, before.StudyTime)
    assert kept.PatientBirthDate == ""
    assert [code.CodeValue for code in kept.DeidentificationMethodCodeSequence] == ["113100", "113106"]


def test_safe_private_attributes_stay_with_their_creator():
    """De-identification: with the option the safe elements of a private block stay, by creator and in any block, nested
    ones too, and no other.
    """
    block = (
        EXPLICIT.text(0x00190011, "LO", "SIEMENS MR HEADER")
        + EXPLICIT.text(0x00190012, "LO", "Dr. Roe's notes")
        + EXPLICIT.text(0x00191108, "CS", "SECRET")
        + EXPLICIT.text(0x0019110C, "IS", "1000")
        + EXPLICIT.text(0x0019120C, "IS", "SECRET")
    )
    data = EXPLICIT.file(*plain(EXPLICIT, block, EXPLICIT.sequence(0x00081115, block)))
    out = deidentified(data, retain_safe_private=True)
    after = read(out)
    for dataset in (after, after.ReferencedSeriesSequence[0]):
        private = [element for element in dataset if element.tag.is_private]
        assert [(int(element.tag), str(element.value)) for element in private] == [
            (0x00190011, "SIEMENS MR HEADER"),
            (0x0019110C, "1000"),
        ]
    assert b"SECRET" not in out
    assert b"Roe" not in out
    assert not [element for element in every_element(read(deidentified(data))) if element.tag.is_private]


def test_a_structured_report_is_emptied_or_cleaned():
    """De-identification: the content of a report goes, and with the option its codes and numbers stay, its texts
    reduced and its names replaced.
    """
    data = sample_bytes("reportsi.dcm")
    before = read(data)
    assert read(deidentified(data)).ContentSequence == []
    out = deidentified(data, clean_structured_content=True)
    after = read(out)
    assert len(after.ContentSequence) == len(before.ContentSequence) > 0
    names = [str(element.value) for element in every_element(before) if element.VR == "PN" and element.value]
    assert names
    assert not [name for name in names if name.encode() in out]


def test_a_directory_is_refused():
    """De-identification: a DICOMDIR is refused, whose records would lead nowhere."""
    data = Path(str(get_testdata_file("DICOMDIR"))).read_bytes()
    with pytest.raises(ServiceError) as raised:
        deidentified(data)
    assert raised.value.reason is Reason.EDIT_REFUSED


def test_whose_key_it_was_is_told():
    """De-identification: the request's key comes before the service's; without any, one is made for the call alone."""
    data = EXPLICIT.file(*plain(EXPLICIT))
    assert begin().key_source is KeySource.REQUEST
    assert begin(service_key=OTHER_KEY).key_source is KeySource.REQUEST
    assert begin(key="", service_key=KEY).key_source is KeySource.SETTING
    assert begin(key="").key_source is KeySource.CALL
    assert deidentified(data) == deidentified(data, key="", service_key=KEY)
    assert deidentified(data, key="") != deidentified(data, key="")


@pytest.mark.parametrize("key", ["short", "k" * 31, "k" * 1025])
def test_a_key_that_is_no_good_is_refused_without_being_told(key):
    """De-identification: a key that could be guessed is refused, and stands in no error."""
    with pytest.raises(InvalidFieldError) as raised:
        begin(key=key)
    assert [violation.field for violation in raised.value.violations] == ["x-deidentify-key"]
    assert key not in str(raised.value) + raised.value.violations[0].description


@pytest.mark.parametrize(
    ("values", "doubts"),
    [
        ({0x00080060: "DX", 0x00280301: "NO"}, []),
        ({0x00080060: "DX"}, [Doubt.BURNED_IN_ANNOTATION_UNKNOWN]),
        ({0x00080060: "DX", 0x00280301: "MAYBE"}, [Doubt.BURNED_IN_ANNOTATION_UNKNOWN]),
        ({0x00080060: "US", 0x00280301: "YES"}, [Doubt.BURNED_IN_ANNOTATION, Doubt.MODALITY]),
        ({0x00080060: "US", 0x00280301: "NO"}, [Doubt.MODALITY]),
        ({0x00080060: "CT", 0x00280301: "NO"}, [Doubt.FACE]),
        ({0x00080060: "CT", 0x00280301: "NO", 0x00180015: "HEAD"}, [Doubt.FACE]),
        ({0x00080060: "CT", 0x00280301: "NO", 0x00180015: "KNEE"}, []),
        ({0x00080060: "CT", 0x00280301: "NO", 0x00280302: "NO"}, []),
        ({0x00080060: "MR", 0x00280301: "NO", 0x00280302: "YES"}, [Doubt.RECOGNIZABLE_FEATURES]),
    ],
)
def test_what_the_pixels_may_show_is_told(values, doubts):
    """De-identification: what the header says of burned-in text and faces is told once the header is in, and no file is
    called safe of which it says nothing; one without pixels is.
    """
    elements = [EXPLICIT.text(tag, "CS", text) for tag, text in values.items()]
    uids = [element for element in plain(EXPLICIT) if element[:2] not in {b"\x08\0", b"\xe0\x7f"}]
    uids.append(EXPLICIT.element(0x7FE00010, "OW", bytes(5000)))
    sop_class = EXPLICIT.text(0x00080016, "UI", "1.2.840.10008.5.1.4.1.1.2")
    tagged = sorted([*elements, *uids, sop_class], key=lambda one: (one[1::-1], one[3:1:-1]))
    begun = begin()
    assert begun.rewriter.feed(EXPLICIT.file(*tagged)[:-1000])
    reach = begun.reach()
    assert list(reach.doubts) == doubts
    assert reach.may_show_patient is bool(doubts)
    assert reach.modality == values[0x00080060]
    begun = begin()
    begun.rewriter.feed(EXPLICIT.file(*tagged[:-1]))
    begun.rewriter.close()
    assert not begun.reach().may_show_patient


def test_a_secondary_capture_may_show_the_patient():
    """De-identification: screenshots are doubted whatever modality they claim, and no value but a code is passed on."""
    data = EXPLICIT.file(
        *plain(
            EXPLICIT,
            EXPLICIT.text(0x00080060, "CS", "Roe, Richard"),
            EXPLICIT.text(0x00280301, "CS", "NO"),
            EXPLICIT.element(0x7FE00010, "OW", bytes(5000)),
        )
    )
    begun = begin()
    assert begun.rewriter.feed(data)
    assert list(begun.reach().doubts) == [Doubt.MODALITY]
    assert begun.reach().modality == ""


def test_every_attribute_of_the_table_is_acted_on():
    """De-identification: in a file that has every attribute of the table, with a name for each value, none is left."""
    elements = []
    for tag in sorted(basic_actions()):
        vr = dictionary.implicit_vr(tag)
        if tag >> 16 in {0x0000, 0x0002, 0x0004, 0xFFFA} or vr in {"OB", "OW", "UN", "AT"}:
            continue
        if vr == "SQ":
            elements.append(EXPLICIT.sequence(tag, EXPLICIT.text(0x00081070, "PN", "SECRETNAME")))
        elif vr not in {"FD", "FL", "SL", "SS", "UL", "US"}:
            elements.append(EXPLICIT.text(tag, vr, "SECRETNAME"))
    assert len(elements) > 550
    out = deidentified(EXPLICIT.file(*elements))
    assert b"SECRETNAME" not in out
    everything = {name: True for name in Options.__slots__ if name not in {"dates", "retain_uids"}}
    after = pydicom.dcmread(io.BytesIO(deidentified(EXPLICIT.file(*elements), dates=Dates.SHIFT, **everything)))
    left = [element.keyword for element in every_element(after) if "SECRETNAME" in str(element.value)]
    assert {"StationName", "InstitutionName", "PatientSex"} <= set(left)
    assert not {"PatientName", "PatientID", "AccessionNumber", "StudyDate", "StudyDescription"} & set(left)


def test_a_patient_id_that_comes_too_late_is_refused():
    """De-identification: pseudonym and shift follow from the PatientID, so none may turn up behind the header, nor a
    second patient's.
    """
    elements = [element for element in plain(EXPLICIT) if element[:4] != b"\x10\0\x20\0"]
    late = EXPLICIT.text(0x00100020, "LO", "MRN7")
    for data in (
        EXPLICIT.file(*elements, late),
        EXPLICIT.file(*plain(EXPLICIT, EXPLICIT.text(0x00100020, "LO", "MRN8"))),
    ):
        with pytest.raises(ServiceError) as caught:
            deidentified(data)
        assert (caught.value.reason, caught.value.metadata) == (Reason.EDIT_REFUSED, {"tag": "(0010,0020)"})
    assert deidentified(EXPLICIT.file(*plain(EXPLICIT, late))).count(b"DEID-") == 3
