"""Edits applied to files: what is asked for changes, and nothing else does. pydicom reads what came out."""

import struct
import warnings

import pytest

from service_runtime.errors import InvalidFieldError, Reason, ServiceError
from tests.unit.tag_service.building import (
    ENCODINGS,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    NAMES,
    Writer,
    body,
    edit,
    every_element,
    part10,
    plain,
    pydicom_files,
    read,
    same,
)

EXPLICIT = Writer(EXPLICIT_LITTLE)
IMPLICIT = Writer(IMPLICIT_LITTLE)
UNDEFINED = b"\xff\xff\xff\xff"
in_every_encoding = pytest.mark.parametrize("writer", ENCODINGS, ids=NAMES)

TRUNCATED = {"MR_truncated.dcm", "rtplan_truncated.dcm"}
# Nothing would be left of these, which is refused.
ONLY_PRIVATE = {"UN_sequence.dcm", "priv_SQ.dcm"}


def real_files(*, but):
    """The test files of pydicom, with their names."""
    return [pytest.param(path.read_bytes(), id=path.name) for path in pydicom_files() if path.name not in but]


def problems(data, **edits):
    """The fields that do not fit this file, each with its description."""
    with pytest.raises(InvalidFieldError) as caught:
        edit(data, **edits)
    return {violation.field: violation.description for violation in caught.value.violations}


@pytest.mark.parametrize("data", real_files(but=TRUNCATED))
def test_a_real_file_changes_where_it_is_asked_to_and_nowhere_else(data):
    """M1: The named fields have their new values for pydicom, everything else is equal and the pixel data identical."""
    result = edit(
        data,
        patient_id="MRN9",
        patient_name="Doe^Jane^^Dr",
        patient_birth_date="19700131",
        patient_sex="F",
        accession_number="A1",
        study_date="20240229",
        study_description="",
        set=("InstanceNumber=42", "Rows=7", "ImagePositionPatient=1\\2.5\\-3"),
        remove=("StudyTime", "ManufacturerModelName"),
    )
    before, after = read(data), read(result)
    assert after.PatientID == "MRN9"
    assert after.PatientName == "Doe^Jane^^Dr"
    assert after.PatientBirthDate == "19700131"
    assert after.PatientSex == "F"
    assert after.AccessionNumber == "A1"
    assert after.StudyDate == "20240229"
    assert after.StudyDescription == ""
    assert after.InstanceNumber == 42
    assert after.Rows == 7
    assert after.ImagePositionPatient == [1, 2.5, -3]
    assert "StudyTime" not in after
    assert "ManufacturerModelName" not in after
    touched = {
        *(0x00100020, 0x00100010, 0x00100030, 0x00100040, 0x00080050, 0x00080020, 0x00081030),
        *(0x00200013, 0x00280010, 0x00200032, 0x00080030, 0x00081090),
    }
    assert same(before, after, but=touched)
    for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"):
        assert before.get(keyword) == after.get(keyword)


@pytest.mark.parametrize("data", real_files(but=TRUNCATED | ONLY_PRIVATE))
def test_a_real_file_loses_all_that_is_private(data):
    """M9: remove_private_tags leaves nothing private at any depth, and everything else equal."""
    after = read(edit(data, remove_private_tags=True))
    assert not any(element.tag.is_private for element in every_element(after))
    before = read(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before.remove_private_tags()
    assert same(before, after)


@in_every_encoding
def test_a_replaced_value_is_the_only_difference(writer):
    """M1: Replacing a value changes the bytes of its element alone."""
    further = [
        writer.sequence(0x00081140, writer.text(0x00100020, "LO", "MRN7")),
        writer.element(0x0009_0010, "LO", b"odd"),
    ]
    data = writer.file(*plain(writer, *further))
    old, new = writer.text(0x00100020, "LO", "MRN7"), writer.text(0x00100020, "LO", "LONGER")
    before = body(data)
    # The one in the sequence comes first.
    position = before.rindex(old)
    assert body(edit(data, patient_id="LONGER")) == before[:position] + new + before[position + len(old) :]


@in_every_encoding
def test_an_absent_attribute_is_added_in_tag_order(writer):
    """M1: New attributes stand where their tags belong, in the encoding of the data set."""
    result = edit(
        writer.file(*plain(writer)),
        patient_sex="F",
        study_description="CHEST",
        set=(
            "Rows=258",
            "PixelAspectRatio=1\\1",
            "EventElapsedTimes=1.5",
            "StrainDescription=x",
            "LongCodeValue=12345",
        ),
    )
    expected = plain(
        writer,
        writer.text(0x00100040, "CS", "F"),
        writer.text(0x00081030, "LO", "CHEST"),
        writer.number(0x00280010, 258),
        writer.text(0x00280034, "IS", "1\\1"),
        writer.text(0x00082130, "DS", "1.5"),
        writer.text(0x00100212, "UC", "x"),
        writer.text(0x00080119, "UC", "12345"),
    )
    assert body(result) == b"".join(expected)


def test_an_insert_keeps_the_disorder_of_a_file():
    """M1: In a file out of order a new attribute stands before the first greater tag, and the others stay in place."""
    first, second, third = (EXPLICIT.text(tag, "LO", "x") for tag in (0x00104000, 0x00101000, 0x00200010))
    result = edit(part10(first + second + third, EXPLICIT_LITTLE), patient_id="NEW")
    assert body(result) == EXPLICIT.text(0x00100020, "LO", "NEW") + first + second + third


def test_what_is_set_to_the_value_it_has_stays_byte_for_byte():
    """An edit that changes nothing leaves the bytes alone."""
    data = EXPLICIT.file(*plain(EXPLICIT))
    assert edit(data, patient_id="MRN7", accession_number="A17", study_date="20200101") == edit(data)


@in_every_encoding
def test_odd_lengths_are_padded(writer):
    """M6: New text of odd length is padded with a space, a UID with NUL."""
    data = writer.file(*plain(writer))
    result = body(edit(data, patient_id="ODD", set=("FrameOfReferenceUID=1.2", "SeriesNumber=7")))
    for expected in (
        writer.element(0x00100020, "LO", b"ODD "),
        writer.element(0x00200052, "UI", b"1.2\0"),
        writer.element(0x00200011, "IS", b"7 "),
    ):
        assert expected in result


def test_every_duplicate_gets_the_new_value_or_goes():
    """M1: An attribute that the file holds twice is changed twice and removed twice: no old value is left behind."""
    data = EXPLICIT.file(*plain(EXPLICIT), EXPLICIT.text(0x00100010, "PN", "Roe^Rick"))
    assert b"Roe" not in edit(data, patient_name="Doe^Jane")
    assert edit(data, patient_name="Doe^Jane").count(b"Doe^Jane") == 2
    assert b"Roe" not in edit(data, remove=("PatientName",))


def test_removing_what_is_absent_changes_nothing():
    """Attributes, items and creators that are not there need not be removed."""
    data = EXPLICIT.file(*plain(EXPLICIT))
    absent = ("PatientSex", "ReferencedImageSequence[3].StudyID", '(0029,"NOBODY",10)', '(0029,"NOBODY",11)[0].StudyID')
    assert edit(data, remove=absent) == edit(data)


@in_every_encoding
@pytest.mark.parametrize("undefined", [False, True], ids=["defined", "undefined"])
def test_an_edit_in_a_sequence_fits_every_length_around_it(writer, undefined):
    """M6: Defined lengths fit again at each level, undefined ones stay undefined, neighbours stay as they are."""

    def elements(uid, *added):
        reference = writer.text(0x00081155, "UI", uid) + b"".join(added)
        series = writer.sequence(0x00081199, reference, reference[:0], undefined=undefined)
        return plain(writer, writer.sequence(0x00081115, b"", series, undefined=undefined))

    data = writer.file(*elements("1.2.3"))
    path = "ReferencedSeriesSequence[1].ReferencedSOPSequence[0]"
    result = edit(data, set=(f"{path}.ReferencedSOPInstanceUID=1.2.3.4.5", f"{path}.InstanceNumber=12"))
    assert body(result) == b"".join(elements("1.2.3.4.5", writer.text(0x00200013, "IS", "12")))
    assert body(edit(data, remove=(f"{path}.ReferencedSOPInstanceUID",))) == b"".join(
        plain(
            writer,
            writer.sequence(
                0x00081115, b"", writer.sequence(0x00081199, b"", b"", undefined=undefined), undefined=undefined
            ),
        )
    )


@in_every_encoding
def test_a_sequence_can_be_removed(writer):
    """A sequence goes with all that is in it."""
    data = writer.file(*plain(writer, writer.sequence(0x00081115, writer.text(0x00081155, "UI", "1.2"))))
    assert body(edit(data, remove=("ReferencedSeriesSequence",))) == b"".join(plain(writer))


@in_every_encoding
def test_the_first_item_of_an_absent_or_empty_sequence_is_made(writer):
    """`[0]` of a sequence that is absent or has no items makes the item, at every level; the empty form is kept."""
    path = "ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID=1.2"
    inner = writer.sequence(0x00081199, writer.text(0x00081155, "UI", "1.2"))
    made = b"".join(plain(writer, writer.sequence(0x00081115, inner)))
    assert body(edit(writer.file(*plain(writer)), set=(path,))) == made
    assert body(edit(writer.file(*plain(writer, writer.sequence(0x00081115))), set=(path,))) == made
    undefined = edit(writer.file(*plain(writer, writer.sequence(0x00081115, undefined=True))), set=(path,))
    assert writer.header(0x00081115, "SQ", 0xFFFFFFFF) in body(undefined)
    assert read(undefined).ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2"


def test_two_edits_can_make_one_item():
    """Several attributes of an item that was not there end up in the same item."""
    path = "RequestAttributesSequence[0]"
    result = read(edit(EXPLICIT.file(*plain(EXPLICIT)), set=(f"{path}.RequestedProcedureID=1", f"{path}.StudyID=2")))
    assert len(result.RequestAttributesSequence) == 1
    assert [element.value for element in result.RequestAttributesSequence[0]] == ["2", "1"]


def test_items_that_are_not_there_are_named_all_at_once():
    """An item that the file lacks is a violation of its field, and so is a sequence that is none or occurs twice."""
    twice = EXPLICIT.sequence(0x00081115, b"")
    no_sequence = EXPLICIT.element(0x00081199, "OB", b"\1\2")
    data = EXPLICIT.file(*plain(EXPLICIT, twice, twice, no_sequence, EXPLICIT.sequence(0x00081140, b"")))
    found = problems(
        data,
        patient_id="FINE",
        set=(
            "ReferencedImageSequence[1].StudyID=1",
            "RequestAttributesSequence[1].StudyID=1",
            "ReferencedSeriesSequence[0].StudyID=1",
            "ReferencedSOPSequence[0].StudyID=1",
            '(0029,"NOBODY",10)[0].StudyID=1',
        ),
    )
    assert set(found) == {f"set[{index}]" for index in range(5)}


def test_items_of_an_unknown_sequence_are_implicit_little_endian():
    """R6, M6: In a UN of undefined length an edit writes implicit VR little endian, whatever the file is (CP-246)."""
    for uid in (EXPLICIT_LITTLE, EXPLICIT_BIG):
        writer = Writer(uid)

        def unknown(*elements, writer=writer):
            item = IMPLICIT.tag(0xFFFEE000, 0xFFFFFFFF) + b"".join(elements) + IMPLICIT.tag(0xFFFEE00D, 0)
            header = writer.header(0x00081140, "UN", 0xFFFFFFFF)
            return header + item + IMPLICIT.tag(0xFFFEE0DD, 0)

        data = writer.file(*plain(writer, unknown(IMPLICIT.number(0x00280010, 1))))
        path = "ReferencedImageSequence[0]"
        result = edit(data, set=(f"{path}.Columns=258", f"{path}.ReferencedSeriesSequence[0].StudyID=1"))
        expected = unknown(
            IMPLICIT.sequence(0x00081115, IMPLICIT.text(0x00200010, "SH", "1")),
            IMPLICIT.number(0x00280010, 1),
            IMPLICIT.number(0x00280011, 258),
        )
        assert body(result) == b"".join(plain(writer, expected))


def test_an_empty_unknown_value_becomes_the_sequence_it_stands_for():
    """A known sequence that the file holds as an empty UN takes its first item as SQ."""
    data = EXPLICIT.file(*plain(EXPLICIT, EXPLICIT.element(0x00081140, "UN", b"")))
    result = edit(data, set=("ReferencedImageSequence[0].StudyID=1",))
    assert body(result) == b"".join(
        plain(EXPLICIT, EXPLICIT.sequence(0x00081140, EXPLICIT.text(0x00200010, "SH", "1")))
    )


def test_the_vr_of_the_dictionary_replaces_an_unknown_one():
    """An attribute that a file holds as UN is written with its VR."""
    data = EXPLICIT.file(*plain(EXPLICIT, EXPLICIT.element(0x00101010, "UN", b"052Y")))
    assert EXPLICIT.text(0x00101010, "AS", "053Y") in edit(data, set=("PatientAge=053Y",))


@pytest.mark.parametrize(("representation", "vr"), [(None, "US"), (0, "US"), (1, "SS")])
def test_the_integer_vr_follows_the_pixel_representation(representation, vr):
    """A value of "US or SS" is US for unsigned and SS for signed pixels, and must fit that."""
    pixels = [] if representation is None else [EXPLICIT.number(0x00280103, representation)]
    data = EXPLICIT.file(*plain(EXPLICIT, *pixels))
    assert EXPLICIT.element(0x00280106, vr, b"\x05\0") in edit(data, set=("SmallestImagePixelValue=5",))
    wrong = {"US": "-5", "SS": "65535"}[vr]
    assert set(problems(data, set=(f"SmallestImagePixelValue={wrong}",))) == {"set[0]"}


def test_the_integer_vr_of_the_file_stays():
    """Where the file says US or SS, it is that."""
    data = EXPLICIT.file(*plain(EXPLICIT, EXPLICIT.element(0x00280106, "SS", b"\xff\xff")))
    assert EXPLICIT.element(0x00280106, "SS", b"\xfe\xff") in edit(data, set=("SmallestImagePixelValue=-2",))


def test_a_value_too_long_for_its_header_is_refused():
    """M6: A short-form VR holds 65,534 bytes; in implicit VR there is room for more."""
    value = "\\".join(["1" * 16] * 4000)
    assert set(problems(EXPLICIT.file(*plain(EXPLICIT)), set=(f"EventElapsedTimes={value}",))) == {"set[0]"}
    assert len(edit(IMPLICIT.file(*plain(IMPLICIT)), set=(f"EventElapsedTimes={value}",))) > 67_000


class TestPrivate:
    """Private attributes by creator."""

    @staticmethod
    def block(writer, group=0x0029, number=0x11, creator="ACME 1", *, vr="LO", value=b"old "):
        """A creator and its element 10."""
        return [
            writer.text(group << 16 | number, "LO", creator),
            writer.element(group << 16 | number << 8 | 0x10, vr, value),
        ]

    @in_every_encoding
    def test_the_block_of_the_creator_is_found(self, writer):
        """A private attribute is set and removed in the block that its creator has reserved in this file."""
        other = self.block(writer, number=0x10, creator="OTHER", value=b"keep")
        siemens = [
            writer.text(0x00290012, "LO", "SIEMENS CSA HEADER"),
            writer.text(0x00291208, "CS", "IMAGE NUM 4"),
        ]
        data = writer.file(*plain(writer, *other, *siemens))
        result = edit(data, set=('(0029,"SIEMENS CSA HEADER",08)=NEW',))
        assert body(result) == b"".join(plain(writer, *other, siemens[0], writer.text(0x00291208, "CS", "NEW")))
        result = edit(data, remove=('(0029,"SIEMENS CSA HEADER",08)',))
        assert body(result) == b"".join(plain(writer, *other, siemens[0]))

    def test_the_file_tells_the_vr_that_no_dictionary_knows(self):
        """With explicit VR an unknown private attribute is set in the VR it has, and checked for it."""
        data = EXPLICIT.file(*plain(EXPLICIT, *self.block(EXPLICIT, vr="DA", value=b"20200101")))
        assert EXPLICIT.text(0x00291110, "DA", "20240229") in edit(data, set=('(0029,"ACME 1",10)=20240229',))
        assert set(problems(data, set=('(0029,"ACME 1",10)=29.2.2024',))) == {"set[0]"}

    def test_a_private_attribute_without_a_known_vr_is_refused(self):
        """Without a VR from dictionary or file nothing can be written."""
        data = IMPLICIT.file(*plain(IMPLICIT, *self.block(IMPLICIT)))
        assert set(problems(data, set=('(0029,"ACME 1",10)=x', '(0029,"ACME 1",11)=x'))) == {"set[0]", "set[1]"}

    @in_every_encoding
    def test_a_creator_that_is_absent_reserves_the_first_free_block(self, writer):
        """Setting an attribute of a known creator that the file lacks reserves a block that nothing lies in."""
        taken = [*self.block(writer, number=0x10), writer.element(0x00291134, "UN", b"stray ")]
        result = edit(writer.file(*plain(writer, *taken)), set=('(0029,"SIEMENS CSA HEADER",08)=NEW',))
        expected = plain(
            writer,
            *taken,
            writer.text(0x00290012, "LO", "SIEMENS CSA HEADER"),
            writer.text(0x00291208, "CS", "NEW"),
        )
        assert body(result) == b"".join(expected)

    @in_every_encoding
    def test_a_creator_that_is_there_keeps_its_block(self, writer):
        """An attribute that a creator of the file lacks goes into the block it has."""
        creator = writer.text(0x00290015, "LO", "SIEMENS CSA HEADER")
        result = edit(writer.file(*plain(writer, creator)), set=('(0029,"SIEMENS CSA HEADER",08)=NEW',))
        assert body(result) == b"".join(plain(writer, creator, writer.text(0x00291508, "CS", "NEW")))

    def test_a_full_group_takes_no_creator(self):
        """Where every block of a group is reserved, a new creator is refused."""
        creators = [EXPLICIT.text(0x00290000 | block, "LO", "OTHER") for block in range(0x10, 0x100)]
        data = EXPLICIT.file(*plain(EXPLICIT, *creators))
        assert set(problems(data, set=('(0029,"SIEMENS CSA HEADER",08)=NEW',))) == {"set[0]"}

    def test_a_private_sequence_of_the_file_is_entered(self):
        """A path leads into a private sequence that the file holds, and not into one that it does not."""
        item = EXPLICIT.text(0x00200010, "SH", "1")
        sequence = EXPLICIT.sequence(0x00291111, item)
        data = EXPLICIT.file(*plain(EXPLICIT, *self.block(EXPLICIT), sequence))
        result = read(edit(data, set=('(0029,"ACME 1",11)[0].StudyID=2',)))
        assert result[0x00291111].value[0].StudyID == "2"
        assert set(problems(data, set=('(0029,"ACME 2",11)[0].StudyID=1',))) == {"set[0]"}

    @in_every_encoding
    def test_nested_creators_and_late_groups_go(self, writer):
        """remove_private_tags takes creators, private sequences, nested elements and groups after the pixel data."""
        public = writer.text(0x00081155, "UI", "1.2")
        nested = writer.sequence(0x00081140, public + b"".join(self.block(writer)), undefined=True)
        late = self.block(writer, group=0x7FE1)
        private_sequence = writer.sequence(0x00091010, public)
        length = writer.element(0x00090000, "UL", struct.pack(f"{writer.order}I", 4))
        creator = writer.text(0x00090010, "LO", "X")
        data = writer.file(*plain(writer, nested, *late, length, creator, private_sequence, *self.block(writer)))
        result = edit(data, remove_private_tags=True)
        assert body(result) == b"".join(plain(writer, writer.sequence(0x00081140, public, undefined=True)))


def test_edits_that_the_request_forbids_never_reach_the_file():
    """A refused request gives its error also for a file that could not be read."""
    with pytest.raises(ServiceError) as caught:
        edit(b"no DICOM", set=("StudyInstanceUID=1.2",))
    assert caught.value.reason is Reason.EDIT_REFUSED
