"""Recording what a file held before it was edited (M7), and making a new instance of it (M8)."""

import struct

import pytest

from service_runtime.errors import InvalidFieldError, Reason, ServiceError
from tag_service.domain.editing.edits import Mode
from tag_service.domain.editing.provenance import ModificationReason
from tests.unit.tag_service.building import (
    ENCODINGS,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    NAMES,
    Writer,
    body,
    edit,
    plain,
    read,
)

EXPLICIT = Writer(EXPLICIT_LITTLE)
COERCE, CORRECT = ModificationReason
RECORD = 0x04000561


def record_of(data):
    """The items of the Original Attributes Sequence, as pydicom reads them."""
    return list(read(data).OriginalAttributesSequence)


@pytest.mark.parametrize("writer", ENCODINGS, ids=NAMES)
def test_prior_values_are_recorded(writer):
    """M7: an item says when, by which system and why, and one item in it has the values before; what was absent is not
    among them.
    """
    result = edit(
        writer.file(*plain(writer)),
        patient_id="NEW",
        set=("StudyID=S7",),
        remove=("StudyDate",),
        record_original=COERCE,
    )
    assert (read(result).PatientID, read(result).StudyID, "StudyDate" in read(result)) == ("NEW", "S7", False)
    (item,) = record_of(result)
    assert item.AttributeModificationDateTime == "20261124123015.500000+0000"
    assert (item.ModifyingSystem, item.SourceOfPreviousValues, item.ReasonForTheAttributeModification) == (
        "TEST",
        "",
        "COERCE",
    )
    (prior,) = item.ModifiedAttributesSequence
    assert [(element.keyword, element.value) for element in prior] == [
        ("StudyDate", "20200101"),
        ("PatientID", "MRN7"),
    ]


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("writer", ENCODINGS, ids=NAMES)
def test_items_that_were_recorded_before_stay(writer, undefined):
    """M7: the new item comes behind those that are there, which keep their bytes."""
    older = writer.text(0x04000565, "CS", "CORRECT")
    sequence = writer.sequence(RECORD, older, older, undefined=undefined)
    result = edit(writer.file(*plain(writer, sequence)), patient_id="NEW", record_original=CORRECT)
    assert [item.ReasonForTheAttributeModification for item in record_of(result)] == ["CORRECT"] * 3
    assert body(result).count(older) == 3
    assert len(record_of(edit(result, patient_id="NEWER", record_original=CORRECT))) == 4


def test_a_record_that_is_empty_gets_its_first_item():
    """M7: an Original Attributes Sequence without items, whatever its VR, is no obstacle."""
    for empty in (EXPLICIT.element(RECORD, "SQ", b""), EXPLICIT.element(RECORD, "UN", b"")):
        result = edit(EXPLICIT.file(*plain(EXPLICIT, empty)), patient_id="NEW", record_original=CORRECT)
        assert len(record_of(result)) == 1


def test_nothing_is_recorded_unasked():
    """M7: without record_original no file gets an Original Attributes Sequence."""
    assert "OriginalAttributesSequence" not in read(edit(EXPLICIT.file(*plain(EXPLICIT)), patient_id="NEW"))


def test_an_edit_in_a_sequence_records_all_of_it():
    """M7: the whole prior sequence of the data set is kept, group lengths aside (M3)."""
    inner = EXPLICIT.sequence(0x00081199, EXPLICIT.text(0x00081155, "UI", "1.2.3"))
    item = EXPLICIT.element(0x00080000, "UL", struct.pack("<I", 4)) + EXPLICIT.text(0x00080050, "SH", "A1") + inner
    sequence = EXPLICIT.sequence(0x00400275, item, EXPLICIT.text(0x00080050, "SH", "A2"))
    result = edit(
        EXPLICIT.file(*plain(EXPLICIT, sequence)),
        set=("RequestAttributesSequence[0].AccessionNumber=B1",),
        record_original=CORRECT,
    )
    before = read(EXPLICIT.file(*plain(EXPLICIT, sequence))).RequestAttributesSequence
    del before[0][0x00080000]
    (prior,) = record_of(result)[0].ModifiedAttributesSequence
    assert [prior.RequestAttributesSequence[number] for number in (0, 1)] == list(before)
    assert read(result).RequestAttributesSequence[0].AccessionNumber == "B1"


def test_a_private_value_is_recorded_with_its_creator():
    """M7: without its creator a private value would mean nothing; other creators stay out."""
    private = (
        EXPLICIT.text(0x00290010, "LO", "OTHER"),
        EXPLICIT.text(0x00290011, "LO", "ACME"),
        EXPLICIT.text(0x00291101, "LO", "before"),
    )
    result = edit(EXPLICIT.file(*plain(EXPLICIT, *private)), set=('(0029,"ACME",01)=after',), record_original=CORRECT)
    (prior,) = record_of(result)[0].ModifiedAttributesSequence
    assert [(element.tag, element.value) for element in prior] == [(0x00290011, "ACME"), (0x00291101, "before")]


def test_recorded_text_goes_with_the_file_to_utf_8():
    """M5, M7: prior values are text of the file like any other, and are read in its character set."""
    name = EXPLICIT.element(0x00100010, "PN", "Müller^Ute".encode("latin-1"))
    elements = [element for element in plain(EXPLICIT) if element[:4] != b"\x10\x00\x10\x00"]
    declared = EXPLICIT.text(0x00080005, "CS", "ISO_IR 100")
    data = EXPLICIT.file(declared, *elements[:4], name, *elements[4:])
    result = edit(data, patient_name="Иванов^Иван", record_original=CORRECT)
    assert read(result).PatientName == "Иванов^Иван"
    (prior,) = record_of(result)[0].ModifiedAttributesSequence
    assert prior.PatientName == "Müller^Ute"


def test_tags_out_of_order_are_recorded_all_the_same():
    """M7: an edited attribute may stand behind the record, as long as it stands in the header."""
    elements = plain(EXPLICIT)
    data = EXPLICIT.file(*elements[:4], EXPLICIT.text(0x20100010, "ST", "x"), *elements[4:8], elements[8])
    (prior,) = record_of(edit(data, patient_id="NEW", record_original=CORRECT))[0].ModifiedAttributesSequence
    assert prior.PatientID == "MRN7"


def test_a_value_behind_the_pixels_cannot_be_recorded():
    """M7: an edited attribute that turns up behind the pixel data is refused rather than lost."""
    data = EXPLICIT.file(*plain(EXPLICIT), EXPLICIT.text(0x00100020, "LO", "LATE"))
    with pytest.raises(ServiceError) as caught:
        edit(data, patient_id="NEW", record_original=CORRECT)
    assert (caught.value.reason, caught.value.metadata) == (Reason.EDIT_REFUSED, {"tag": "(0010,0020)"})


def test_a_derived_file_is_a_new_instance():
    """M8: DERIVE gives the file new UIDs wherever its own stand, the same ones everywhere in it, and leaves others."""
    reference = EXPLICIT.text(0x0020000D, "UI", "1.2.3") + EXPLICIT.text(0x00081155, "UI", "1.2.3.4")
    foreign = EXPLICIT.text(0x00081155, "UI", "1.2.3.5")
    data = EXPLICIT.file(*plain(EXPLICIT, EXPLICIT.sequence(0x00081140, reference, foreign)))
    derived, other = read(edit(data, mode=Mode.DERIVE)), read(edit(data, mode=Mode.DERIVE))
    uids = [derived.StudyInstanceUID, derived.SeriesInstanceUID, derived.SOPInstanceUID]
    assert len({*uids, "1.2.3", "1.2.3.1", "1.2.3.4"}) == 6
    assert all(uid.startswith("2.25.") and uid.is_valid for uid in uids)
    first, second = derived.ReferencedImageSequence
    assert (first.StudyInstanceUID, first.ReferencedSOPInstanceUID) == (uids[0], uids[2])
    assert second.ReferencedSOPInstanceUID == "1.2.3.5"
    assert derived.file_meta.MediaStorageSOPInstanceUID == uids[2]
    assert derived.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    assert set(uids).isdisjoint([other.StudyInstanceUID, other.SeriesInstanceUID, other.SOPInstanceUID])


def test_a_corrected_file_stays_the_instance_that_it_is():
    """M8: without DERIVE no UID changes."""
    before, after = read(EXPLICIT.file(*plain(EXPLICIT))), read(edit(EXPLICIT.file(*plain(EXPLICIT)), patient_id="NEW"))
    assert (before.SOPInstanceUID, before.StudyInstanceUID) == (after.SOPInstanceUID, after.StudyInstanceUID)


def test_a_derived_file_records_its_uids():
    """M7, M8: the UIDs that DERIVE replaces are prior values, too."""
    result = edit(EXPLICIT.file(*plain(EXPLICIT)), mode=Mode.DERIVE, record_original=CORRECT)
    (prior,) = record_of(result)[0].ModifiedAttributesSequence
    assert (prior.StudyInstanceUID, prior.SeriesInstanceUID, prior.SOPInstanceUID) == ("1.2.3", "1.2.3.1", "1.2.3.4")
    assert read(result).StudyInstanceUID != "1.2.3"


def test_an_edit_comes_before_derive():
    """M8: a UID that an edit sets is what it says."""
    result = edit(EXPLICIT.file(*plain(EXPLICIT)), set=("StudyInstanceUID=1.9",), force=True, mode=Mode.DERIVE)
    assert read(result).StudyInstanceUID == "1.9"
    reference = EXPLICIT.sequence(0x00081140, EXPLICIT.text(0x0020000D, "UI", "1.2.3"))
    data = EXPLICIT.file(*plain(EXPLICIT, reference))
    nested = read(edit(data, set=("StudyInstanceUID=1.9",), force=True, mode=Mode.DERIVE)).ReferencedImageSequence[0]
    assert nested.StudyInstanceUID == "1.9"
    assert read(result).SeriesInstanceUID.startswith("2.25.")


def test_derive_knows_a_uid_that_came_as_un():
    """R6, M8: an own UID that somebody on the way wrote as UN is replaced like any other."""
    elements = [element for element in plain(EXPLICIT) if element[:4] != b"\x08\0\x18\0"]
    unknown = EXPLICIT.element(0x00080018, "UN", b"1.2.3.4\0")
    derived = read(edit(EXPLICIT.file(elements[0], unknown, *elements[1:]), mode=Mode.DERIVE))
    assert derived.SOPInstanceUID.startswith("2.25.")
    assert derived.SOPInstanceUID == derived.file_meta.MediaStorageSOPInstanceUID


@pytest.mark.parametrize("late", ["1.2.3", "1.2.3.9"])
def test_derive_refuses_identifiers_that_it_could_not_know(late):
    """M8: own UIDs that turn up too late, or as others than before, are refused rather than kept."""
    again = EXPLICIT.text(0x0020000D, "UI", late)
    without = [element for element in plain(EXPLICIT) if element[:4] != again[:4]]
    files = [EXPLICIT.file(*without, again)]
    if late == "1.2.3":
        # The same again is the same.
        assert b"1.2.3\0" not in edit(EXPLICIT.file(*plain(EXPLICIT, again)), mode=Mode.DERIVE)
        padding = EXPLICIT.element(0x00090010, "OB", bytes(9 << 20))
        files.append(EXPLICIT.file(*plain(EXPLICIT, padding)))
    else:
        files.append(EXPLICIT.file(*plain(EXPLICIT, again)))
    for data in files:
        with pytest.raises(ServiceError) as caught:
            edit(data, mode=Mode.DERIVE)
        assert (caught.value.reason, caught.value.metadata) == (Reason.EDIT_REFUSED, {"tag": "(0020,000D)"})


def test_derive_refuses_more_uids_than_it_looks_at():
    """M8: a value so long that it comes as bulk data may hold an own UID, and is not emptied either."""
    implicit = Writer(IMPLICIT_LITTLE)
    many = implicit.text(0x00080058, "UI", "\\".join(["1.2.3.4"] * 10_000))
    with pytest.raises(ServiceError) as caught:
        edit(implicit.file(*plain(implicit, many)), mode=Mode.DERIVE)
    assert (caught.value.reason, caught.value.metadata) == (Reason.EDIT_REFUSED, {"tag": "(0008,0058)"})


def test_the_record_is_not_removed_and_written_at_once():
    """M7: an edit that takes the Original Attributes Sequence away clashes with one that is to be recorded in it."""
    data = EXPLICIT.file(*plain(EXPLICIT, EXPLICIT.sequence(RECORD, EXPLICIT.text(0x04000565, "CS", "CORRECT"))))
    removal = {"remove": ("OriginalAttributesSequence",), "patient_id": "NEW"}
    assert "OriginalAttributesSequence" not in read(edit(data, **removal))
    with pytest.raises(InvalidFieldError) as caught:
        edit(data, **removal, record_original=CORRECT)
    assert [violation.field for violation in caught.value.violations] == ["remove[0]"]


def test_a_sequence_without_end_is_not_recorded():
    """M7: what would take up too much memory to record is refused; it may be as large as a header."""
    items = EXPLICIT.sequence(0x00400275, *[EXPLICIT.text(0x00080050, "SH", "A1")] * 10_000)
    edits = {"set": ("RequestAttributesSequence[0].AccessionNumber=B1",)}
    data = EXPLICIT.file(*plain(EXPLICIT, items))
    assert read(edit(data, **edits)).RequestAttributesSequence[0].AccessionNumber == "B1"
    with pytest.raises(ServiceError) as caught:
        edit(data, **edits, record_original=CORRECT)
    assert (caught.value.reason, caught.value.metadata) == (Reason.EDIT_REFUSED, {"tag": "(0040,0275)"})


@pytest.mark.parametrize("vr", ["OB", "SQ"])
def test_a_value_that_is_too_long_to_be_held_is_not_recorded(vr):
    """M7, M10: what does not end within what is held of a header is refused, rather than recorded in part."""
    item = EXPLICIT.element(0x00420011, "OB", bytes(9 << 20))
    value = EXPLICIT.element(0x00420011, vr, item if vr == "OB" else EXPLICIT.tag(0xFFFEE000, len(item)) + item)
    data = EXPLICIT.file(*plain(EXPLICIT, value))
    assert len(edit(data, remove=("EncapsulatedDocument",))) < 1000
    with pytest.raises(ServiceError) as caught:
        edit(data, remove=("EncapsulatedDocument",), record_original=CORRECT)
    assert (caught.value.reason, caught.value.metadata) == (Reason.EDIT_REFUSED, {"tag": "(0042,0011)"})


def test_a_private_value_before_its_creator_is_refused():
    """M7, M9: what the survey could not tell for an edited attribute is not edited without a record."""
    private = EXPLICIT.text(0x00290011, "LO", "ACME"), EXPLICIT.text(0x00291101, "LO", "before")
    elements = plain(EXPLICIT)
    data = EXPLICIT.file(*elements[:8], private[1], private[0], elements[8])
    with pytest.raises(ServiceError) as caught:
        edit(data, remove=('(0029,"ACME",01)',), record_original=CORRECT)
    assert caught.value.reason is Reason.EDIT_REFUSED
    assert b"before" not in edit(data, remove=('(0029,"ACME",01)',))
