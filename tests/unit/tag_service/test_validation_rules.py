"""Which rule of the standard, or limit, each problem of ValidateFile breaks, and what breaks none."""

import re
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tag_service.domain.reading.header_reader import HeaderReader
from tag_service.domain.standard import values
from tag_service.domain.standard.charset import DEFAULT
from tag_service.domain.standard.dictionary import entry_of
from tag_service.domain.standard.limits import Limits
from tag_service.domain.standard.numbers import SIZES
from tag_service.domain.standard.problems import RULES, ProblemCode
from tag_service.domain.validating import element_rules, plain_forms
from tag_service.domain.validating.validation import Validator
from tests.unit.tag_service.building import (
    DEFLATED,
    ENCODINGS,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    NAMES,
    Writer,
    complete,
    part10,
)
from tests.unit.tag_service.tokens import bytes_of, cut

EXPLICIT = Writer(EXPLICIT_LITTLE)
PIXELS = 0x7FE00010
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def problems_of(data, *, limits=None, size=4096):
    """The problems of a file."""
    validator = Validator(limits or Limits())
    for piece in cut(data, size):
        validator.feed(piece)
    validator.close()
    return validator.verdict().problems


def broken(data, **options):
    """The code, tag and rule of each of its problems."""
    return [(problem.code.value, problem.tag, problem.rule) for problem in problems_of(data, **options)]


def judged(*elements, writer=EXPLICIT):
    """The same of a right file with these elements in it."""
    return broken(writer.file(*complete(writer, *elements)))


@pytest.mark.parametrize("writer", ENCODINGS, ids=NAMES)
def test_a_right_file_breaks_no_rule(writer):
    """In every encoding a complete instance has no problem: private blocks, empty values and group lengths included."""
    private = (
        writer.text(0x00290010, "LO", "ACME") + writer.text(0x00291001, "LO", "V7") + writer.text(0x002910FF, "LO", "")
    )
    right = [
        writer.element(0x00080000, "UL", struct.pack(f"{writer.order}I", 99)),
        writer.sequence(0x00081140, writer.text(0x00081155, "UI", "1.2"), b"", undefined=True),
        writer.text(0x00180050, "DS", "-1.5e3"),
        writer.element(0x00200032, "DS", b"1\\2.5\\-3"),
        private,
        writer.element(0x00280106, "US", b"\1\0"),
        writer.element(0x00282000, "OB", bytes(70_000)),
        writer.element(0x60000010, "US", b"\1\0"),
    ]
    assert judged(*right, writer=writer) == []


ELEMENTS = {
    "VR": (EXPLICIT.text(0x00181030, "SH", "A"), ("WRONG_VR", "(0018,1030)", "PS3.6 6")),
    "VR of a group length": (EXPLICIT.number(0x00180000, 7), ("WRONG_VR", "(0018,0000)", "PS3.6 6")),
    "VR of a creator": (EXPLICIT.text(0x00290010, "SH", "ACME"), ("WRONG_VR", "(0029,0010)", "PS3.6 6")),
    "VR of a sequence": (EXPLICIT.sequence(0x00181030), ("WRONG_VR", "(0018,1030)", "PS3.6 6")),
    "VR of bulk": (EXPLICIT.element(0x00181030, "OB", bytes(70_000)), ("WRONG_VR", "(0018,1030)", "PS3.6 6")),
    "tag": (EXPLICIT.text(0x00301234, "LO", "A"), ("UNKNOWN_TAG", "(0030,1234)", "PS3.6 6")),
    "VM of text": (EXPLICIT.text(0x00280030, "DS", "1.5"), ("INVALID_VALUE", "(0028,0030)", "PS3.6 6")),
    "VM of one": (EXPLICIT.text(0x00180050, "DS", "1.5\\2"), ("INVALID_VALUE", "(0018,0050)", "PS3.6 6")),
    "VM of numbers": (EXPLICIT.element(0x00280106, "US", bytes(4)), ("INVALID_VALUE", "(0028,0106)", "PS3.6 6")),
    "odd length": (EXPLICIT.element(0x00180050, "DS", b"1.5"), ("INVALID_VALUE", "(0018,0050)", "PS3.5 7.1.1")),
    "odd bulk": (EXPLICIT.element(0x00282000, "OB", bytes(70_001)), ("INVALID_VALUE", "(0028,2000)", "PS3.5 7.1.1")),
    "number": (EXPLICIT.element(0x00720078, "UL", b"abcdef"), ("INVALID_VALUE", "(0072,0078)", "PS3.5 6.2")),
    "form": (EXPLICIT.text(0x00080022, "DA", "20230230"), ("INVALID_VALUE", "(0008,0022)", "PS3.5 6.2")),
    "UID": (EXPLICIT.text(0x00081155, "UI", "1.02"), ("INVALID_VALUE", "(0008,1155)", "PS3.5 9.1")),
    "name": (EXPLICIT.text(0x00081070, "PN", "A^B^C^D^E^F"), ("INVALID_VALUE", "(0008,1070)", "PS3.5 6.2.1")),
    "characters": (
        EXPLICIT.element(0x00081010, "SH", b"M\xfcde "[:4]),
        ("UNDECLARED_CHARSET", "(0008,1010)", "PS3.3 C.12.1.1.2"),
    ),
    "code": (EXPLICIT.element(0x00080064, "CS", b"M\xfcND"), ("UNDECLARED_CHARSET", "(0008,0064)", "PS3.5 6.2")),
    "charset": (EXPLICIT.text(0x00080005, "CS", "KLINGON"), ("INVALID_VALUE", "(0008,0005)", "PS3.3 C.12.1.1.2")),
    "no creator": (EXPLICIT.text(0x00291001, "LO", "A"), ("CREATOR_MISSING", "(0029,1001)", "PS3.5 7.8.1")),
    "no block": (EXPLICIT.text(0x00290005, "LO", "A"), ("CREATOR_MISSING", "(0029,0005)", "PS3.5 7.8.1")),
    "order": (
        EXPLICIT.text(0x00180050, "DS", "2") + EXPLICIT.text(0x00180010, "LO", "A"),
        ("OUT_OF_ORDER", "(0018,0010)", "PS3.5 7.1"),
    ),
    "twice": (EXPLICIT.text(0x00180050, "DS", "2") * 2, ("DUPLICATE_TAG", "(0018,0050)", "PS3.5 7.1")),
}


@pytest.mark.parametrize("name", ELEMENTS)
def test_a_wrong_element_is_told_with_the_rule_that_it_breaks(name):
    """One wrong element is one problem; nested in an item it has the path to it."""
    element, expected = ELEMENTS[name]
    assert judged(element) == [expected]
    code, tag, rule = expected
    if tag != "(0008,0005)":
        nested = EXPLICIT.sequence(0x00400275, b"", element, undefined=True)
        assert judged(nested) == [(code, f"(0040,0275)[1].{tag}", rule)]


def test_un_is_no_wrong_vr_and_implicit_vr_has_none():
    """PS3.5 6.2.2: who does not know the VR of an attribute writes UN."""
    assert judged(EXPLICIT.element(0x00181030, "UN", b"AB")) == []
    implicit = Writer(IMPLICIT_LITTLE)
    assert judged(implicit.element(0x00181030, "LO", b"AB"), writer=implicit) == []


def test_a_block_without_a_creator_is_told_once_and_in_its_own_item():
    """A creator counts in its own data set or item only; each block that lacks one is one problem."""
    one, two = EXPLICIT.text(0x00291101, "LO", "A"), EXPLICIT.text(0x00291102, "LO", "B")
    creator = EXPLICIT.text(0x00290011, "LO", "ACME")
    assert judged(one + two) == [("CREATOR_MISSING", "(0029,1101)", "PS3.5 7.8.1")]
    assert judged(creator + one, EXPLICIT.sequence(0x00400275, two)) == [
        ("CREATOR_MISSING", "(0040,0275)[0].(0029,1102)", "PS3.5 7.8.1")
    ]
    assert judged(EXPLICIT.sequence(0x00400275, creator + two, creator + one)) == []


def test_delimiters_have_no_length():
    """A delimiter of an item, a sequence or fragments that says a length is told, and where."""
    rule = "PS3.5 7.5.2"
    right = EXPLICIT.sequence(0x00400275, b"", undefined=True)
    assert right.endswith(EXPLICIT.tag(0xFFFEE00D, 0) + EXPLICIT.tag(0xFFFEE0DD, 0))
    wrong_item = right[:-12] + b"\4\0\0\0" + right[-8:]
    wrong_sequence = right[:-4] + b"\4\0\0\0"
    assert judged(wrong_item) == [("INVALID_DELIMITER", "(0040,0275)", rule)]
    assert judged(wrong_sequence) == [("INVALID_DELIMITER", "(0040,0275)", rule)]
    fragments = (
        EXPLICIT.header(0x00282000, "OB", 0xFFFFFFFF) + EXPLICIT.tag(0xFFFEE000, 8) + b"\xfe\xff\xdd\xe0\0\0\0\1"
    )
    assert judged(fragments + EXPLICIT.tag(0xFFFEE0DD, 0)) == []
    assert judged(fragments + EXPLICIT.tag(0xFFFEE0DD, 4)) == [("INVALID_DELIMITER", "(0028,2000)", rule)]
    big = Writer(EXPLICIT_BIG)
    fragments = big.header(0x00282000, "OB", 0xFFFFFFFF) + big.tag(0xFFFEE000, 2) + b"ab"
    assert judged(fragments + big.tag(0xFFFEE0DD, 0), writer=big) == []
    assert judged(fragments + big.tag(0xFFFEE0DD, 4), writer=big) == [("INVALID_DELIMITER", "(0028,2000)", rule)]


# File meta information.


def with_meta(meta, *, length=None, transfer_syntax=EXPLICIT_LITTLE):
    """A right data set behind this file meta information."""
    meta += EXPLICIT.text(0x00020010, "UI", transfer_syntax) + EXPLICIT.text(0x00020012, "UI", "1.2.999")
    size = EXPLICIT.element(0x00020000, "UL", struct.pack("<I", len(meta) if length is None else length))
    return bytes(128) + b"DICM" + size + meta + b"".join(complete(EXPLICIT))


VERSION = EXPLICIT.element(0x00020001, "OB", b"\0\1")
CLASS = EXPLICIT.text(0x00020002, "UI", SECONDARY_CAPTURE)
INSTANCE = EXPLICIT.text(0x00020003, "UI", "1.2.3.4")
META = {
    "right": (with_meta(VERSION + CLASS + INSTANCE), []),
    "stale length": (with_meta(VERSION + CLASS + INSTANCE, length=7), [("META_MISMATCH", "(0002,0000)")]),
    "no version, no class": (with_meta(INSTANCE), [("META_MISSING", "(0002,0001)"), ("META_MISSING", "(0002,0002)")]),
    "empty instance": (
        with_meta(VERSION + CLASS + EXPLICIT.text(0x00020003, "UI", "")),
        [("META_MISSING", "(0002,0003)")],
    ),
    "another class": (
        with_meta(VERSION + EXPLICIT.text(0x00020002, "UI", "1.2.840.10008.5.1.4.1.1.2") + INSTANCE),
        [("META_MISMATCH", "(0002,0002)")],
    ),
    "another instance": (
        with_meta(VERSION + CLASS + EXPLICIT.text(0x00020003, "UI", "1.2.3.5")),
        [("META_MISMATCH", "(0002,0003)")],
    ),
    "implicit": (
        with_meta(VERSION + CLASS + Writer(IMPLICIT_LITTLE).text(0x00020003, "UI", "1.2.3.4")),
        [("META_MISMATCH", "(0002,0003)")],
    ),
    "in disorder": (with_meta(VERSION + INSTANCE + CLASS), [("OUT_OF_ORDER", "(0002,0002)")]),
    "wrong UID": (
        with_meta(VERSION + CLASS + INSTANCE, transfer_syntax="1.02"),
        [("INVALID_VALUE", "(0002,0010)"), ("UNKNOWN_UID", "(0002,0010)")],
    ),
    "private syntax": (
        with_meta(VERSION + CLASS + INSTANCE, transfer_syntax="1.2.999.7"),
        [("UNKNOWN_UID", "(0002,0010)")],
    ),
}


@pytest.mark.parametrize("name", META)
def test_file_meta_information_is_judged(name):
    """PS3.10 7.1: what is missing, stale or not what the data set says."""
    data, expected = META[name]
    assert [(code, tag) for code, tag, _ in broken(data)] == expected
    assert broken(data, size=1) == broken(data)


def test_the_length_of_file_meta_information_before_a_deflated_data_set_is_judged():
    """Group 0002 is never deflated, and its length ends before what is."""
    writer = Writer(DEFLATED)
    assert broken(writer.file(*complete(writer))) == []


def test_file_meta_information_without_a_length_lacks_it():
    """(0002,0000) is of type 1."""
    data = with_meta(VERSION + CLASS + INSTANCE)
    assert broken(data[:132] + data[144:]) == [("META_MISSING", "(0002,0000)", "PS3.10 7.1")]


# The instance.


def without(*tags):
    """A complete file without these."""
    headers = [struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag in tags]
    return EXPLICIT.file(*(element for element in complete(EXPLICIT) if element[:4] not in headers))


@pytest.mark.parametrize(
    ("tag", "rule", "may_be_empty"),
    [
        (0x00080016, "PS3.3 C.12.1", False),
        (0x00080018, "PS3.3 C.12.1", False),
        (0x00080020, "PS3.3 C.7.2.1", True),
        (0x00080050, "PS3.3 C.7.2.1", True),
        (0x00080060, "PS3.3 C.7.3.1", False),
        (0x00100010, "PS3.3 C.7.1.1", True),
        (0x00100020, "PS3.3 C.7.1.1", True),
        (0x0020000D, "PS3.3 C.7.2.1", False),
        (0x0020000E, "PS3.3 C.7.3.1", False),
        (0x00200011, "PS3.3 C.7.3.1", True),
        (0x00280010, "PS3.3 C.7.6.3", False),
        (0x00280101, "PS3.3 C.7.6.3", False),
    ],
)
def test_attributes_that_every_instance_has_are_missed(tag, rule, may_be_empty):
    """PS3.3: type 1 must have a value, type 2 must be there; the common modules say which is which."""
    where = f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
    assert broken(without(tag)) == [("ATTRIBUTE_MISSING", where, rule)]
    header = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    empty = EXPLICIT.element(tag, entry_of(tag)[0], b"")
    emptied = EXPLICIT.file(*(empty if element[:4] == header else element for element in complete(EXPLICIT)))
    assert broken(emptied) == ([] if may_be_empty else [("ATTRIBUTE_MISSING", where, rule)])


def test_instances_of_no_patient_need_none():
    """Hanging protocols and their like belong to no patient, study or series."""
    uid = "1.2.840.10008.5.1.4.38.1"
    elements = EXPLICIT.text(0x00080016, "UI", uid) + EXPLICIT.text(0x00080018, "UI", "1.2.3.4")
    assert broken(part10(elements, EXPLICIT_LITTLE, class_uid=uid)) == []


def test_an_unknown_sop_class_is_told():
    """A private SOP class, or one newer than the tables, may be right, but nobody here knows it."""
    data = EXPLICIT.file(*complete(EXPLICIT)).replace(SECONDARY_CAPTURE.encode(), b"1.2.999.10008.5.1.4.1.1.7")
    assert broken(data) == [("UNKNOWN_UID", "(0008,0016)", "PS3.6 A")]
    assert broken(data.replace(b"1.2.999.10008.5.1.4.1.1.7", b"1.2.840.10008.1.2.4.91\0\0\0"))[0][0] == "UNKNOWN_UID"


def pixels(size):
    """An element of native pixel data."""
    return EXPLICIT.element(PIXELS, "OW", bytes(size))


def described(*elements, size):
    """What is wrong with 8 by 4 pixels of 16 bits, where these elements do not say otherwise."""
    elements = complete(EXPLICIT, *elements)
    return broken(EXPLICIT.file(*(element for element in elements if element[:4] != b"\xe0\x7f\x10\0"), pixels(size)))


@pytest.mark.parametrize(
    ("elements", "size"),
    [
        ([], 64),
        ([EXPLICIT.text(0x00280008, "IS", "3")], 192),
        ([EXPLICIT.number(0x00280100, 1)], 4),
        ([EXPLICIT.number(0x00280100, 8), EXPLICIT.number(0x00280010, 5), EXPLICIT.number(0x00280011, 5)], 26),
        ([EXPLICIT.number(0x00280100, 1), EXPLICIT.number(0x00280010, 5), EXPLICIT.number(0x00280011, 5)], 4),
        ([EXPLICIT.number(0x00280002, 3), EXPLICIT.text(0x00280004, "CS", "RGB"), EXPLICIT.number(0x00280100, 8)], 96),
        (
            [
                EXPLICIT.number(0x00280002, 3),
                EXPLICIT.text(0x00280004, "CS", "YBR_FULL_422"),
                EXPLICIT.number(0x00280100, 8),
            ],
            64,
        ),
    ],
    ids=["one frame", "frames", "bits", "padded", "padded bits", "colour", "fewer colour samples"],
)
def test_native_pixel_data_has_the_size_that_it_is_described_with(elements, size):
    """PS3.3 C.7.6.3: rows, columns, samples, frames and bits tell how long it is; shorter and longer are told."""
    assert described(*elements, size=size) == []
    for wrong in (size - 2, size + 2):
        assert described(*elements, size=wrong) == [("PIXEL_DATA_MISMATCH", "(7FE0,0010)", "PS3.3 C.7.6.3")]


def test_pixel_data_is_encapsulated_as_the_transfer_syntax_says():
    """PS3.5 A.4: fragments with a native syntax, and native pixel data with JPEG, are told."""
    problem = [("PIXEL_DATA_MISMATCH", "(7FE0,0010)", "PS3.5 A.4")]
    elements = b"".join(complete(EXPLICIT)[:-1])
    assert broken(part10(elements + encapsulated(b"", b"frame!"), EXPLICIT_LITTLE)) == problem
    assert broken(part10(elements + encapsulated(b"", b"frame!"), JPEG)) == []
    assert broken(part10(elements + pixels(64), JPEG)) == problem
    assert [code for code, _, _ in broken(part10(elements + pixels(64), "1.2.999.7"))] == ["UNKNOWN_UID"]


JPEG = "1.2.840.10008.1.2.4.50"
MPEG4 = "1.2.840.10008.1.2.4.102"


def encapsulated(*items):
    """Pixel data of these items, the first of them the basic offset table."""
    written = b"".join(EXPLICIT.tag(0xFFFEE000, len(item)) + item for item in items)
    return EXPLICIT.header(PIXELS, "OB", 0xFFFFFFFF) + written + EXPLICIT.tag(0xFFFEE0DD, 0)


@pytest.mark.parametrize(
    ("syntax", "items", "code"),
    [
        (JPEG, [b"", b"one!", b"two!", b"three!"], None),
        (JPEG, [b"", b"one!", b"two!", b"three!", b"more"], None),
        (JPEG, [bytes(12), b"one!", b"\xfe\xff\xdd\xe0\0\0\0\1", b""], None),
        (JPEG, [b"", b"one!", b"two!"], "PIXEL_DATA_MISMATCH"),
        (JPEG, [bytes(8), b"one!", b"two!", b"three!"], "PIXEL_DATA_MISMATCH"),
        (JPEG, [b"", b"one!", b"two!", b"three"], "INVALID_VALUE"),
        (MPEG4, [b"", b"a stream of bits"], None),
    ],
    ids=["right", "more", "table", "too few", "wrong table", "odd", "video"],
)
@pytest.mark.parametrize("size", [1, 4096])
def test_fragments_hold_the_frames(syntax, items, code, size):
    """PS3.5 A.4: three frames have three fragments or more, of even length, and an offset each if any has; R1."""
    elements = b"".join(complete(EXPLICIT, EXPLICIT.text(0x00280008, "IS", "3"))[:-1])
    expected = [(code, "(7FE0,0010)", "PS3.5 A.4")] if code else []
    assert broken(part10(elements + encapsulated(*items), syntax), size=size) == expected


# The rules themselves.


def test_every_problem_has_a_rule():
    """Each code has the paragraph that it breaks, or the limit."""
    assert set(ProblemCode) <= RULES.keys()
    assert all(re.fullmatch(r"PS3\.(3|5|6|10) [0-9A-F][0-9.]*", rule) for rule in RULES.values())


@pytest.mark.parametrize(
    ("data", "rule", "limits"),
    [
        (b"", "PS3.10 7.1", None),
        (b"Dear colleague, " * 300, "PS3.10 7.1", None),
        (EXPLICIT.file(*complete(EXPLICIT))[:-1], "PS3.5 7.1.1", None),
        (EXPLICIT.file(*complete(EXPLICIT), EXPLICIT.tag(0xFFFEE00D, 0)), "PS3.5 7.5", None),
        (EXPLICIT.file(*complete(EXPLICIT), b"\x10\0\x10\0\1\2\0\0", bytes(8)), "PS3.5 7.1", None),
        (
            EXPLICIT.file(*complete(EXPLICIT)[:-1], EXPLICIT.header(PIXELS, "OB", 0xFFFFFFFF), bytes(8)),
            "PS3.5 A.4",
            None,
        ),
        (EXPLICIT.file(*complete(EXPLICIT), bytes(20), b"x" * 20), "PS3.10 7.2", None),
        (part10(b"\7" * 2000, DEFLATED), "PS3.5 A.5", None),
        (EXPLICIT.file(*complete(EXPLICIT)), "R8: elements", Limits(elements=10)),
        (EXPLICIT.file(*complete(EXPLICIT)), "R8: header bytes", Limits(header_bytes=300)),
        (EXPLICIT.file(EXPLICIT.sequence(0x00081140, EXPLICIT.sequence(0x00081140))), "R8: depth", Limits(depth=1)),
        (bytes_of("image_dfl.dcm"), "R8: inflated bytes", Limits(inflated_bytes=10_000)),
    ],
    ids=[
        "empty",
        "text",
        "cut",
        "delimiter",
        "VR",
        "fragments",
        "trailing",
        "deflate",
        "elements",
        "bytes",
        "depth",
        "inflated",
    ],
)
def test_an_error_says_which_rule_or_limit_it_breaks(data, rule, limits):
    """R8, R9: what ends the reading is the last problem, with the paragraph or the limit that it breaks."""
    problem = problems_of(data, limits=limits)[-1]
    assert (problem.severity.value, problem.rule) == ("error", rule)


def test_warnings_of_read_tags_have_rules():
    """What ReadTags finds odd about a header says what it breaks, too."""
    reader = HeaderReader(Limits())
    reader.feed(b"".join(complete(EXPLICIT, EXPLICIT.element(0x00081030, "LO", b"\xfc "))) + bytes(2000))
    assert [(problem.code.value, problem.rule) for problem in reader.header().problems] == [
        ("PREAMBLE_MISSING", "PS3.10 7.1"),
        ("META_MISSING", "PS3.10 7.1"),
        ("UNDECLARED_CHARSET", "PS3.3 C.12.1.1.2"),
    ]


@given(data=st.data())
@settings(max_examples=600, deadline=None, derandomize=True)
def test_what_is_right_at_first_sight_is_right(data):
    """A value that has the plain form of its VR has no problem when it is looked at closely."""
    vr = data.draw(st.sampled_from(sorted(values.TEXTUAL_VRS | SIZES.keys() - {"UR", "DT"})))
    form = plain_forms.private_form(vr)
    if form is None:
        assert vr in {"DT", "UR"}
        return
    alphabet = st.sampled_from(list(b"0123456789.+-^=\\ \0\x1b\n\xe4AMWYez:_("))
    value = data.draw(
        st.one_of(
            st.binary(max_size=80),
            st.lists(alphabet, max_size=70).map(bytes),
            st.from_regex(re.compile(rb"[0-9]{6,18}(\.[0-9]+)? {0,2}\0?"), fullmatch=True),
        )
    )
    if form(value, 0, len(value)) and len(value) % 2 == 0:
        assert element_rules.check_element(0x00291001, vr, value, DEFAULT) == []


def test_plain_forms_know_the_usual_values():
    """The forms are there to be met: what files mostly hold matches."""
    usual = {
        "AE": b"ORTHANC ", "AS": b"052Y", "CS": b"ORIGINAL", "DA": b"20230128", "DS": b"-123.456", "IS": b"12",
        "LO": b"CT Thorax ", "PN": b"Roe^Richard ", "SH": b"", "TM": b"101530.123456 ", "UI": b"1.2.840.10008.1.2\0",
        "US": b"\1\0", "FD": bytes(8),
    }  # fmt: skip
    assert all(plain_forms.private_form(vr)(value, 0, len(value)) for vr, value in usual.items())
    assert plain_forms.standard_form(0x00100020, "LO") is plain_forms.private_form("LO")
    assert plain_forms.standard_form(0x00100020, "SH") is None
    assert plain_forms.standard_form(0x00280030, "DS") is None
