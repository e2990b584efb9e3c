"""What ValidateFile says of files that are right, odd, broken, or no DICOM at all."""

import hashlib

import pytest

from tag_service.domain.standard.limits import Limits
from tag_service.domain.validating.validation import Validator
from tests.unit.tag_service.building import DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, Writer, complete, plain
from tests.unit.tag_service.tokens import bytes_of, cut

EXPLICIT = Writer(EXPLICIT_LITTLE)


def verdict_of(data, *, size=4096):
    """What is said of a file."""
    validator = Validator(Limits())
    for piece in cut(data, size):
        validator.feed(piece)
    validator.close()
    return validator.verdict()


def found(data):
    """Its problems: severity, code, tag."""
    return [(problem.severity.value, problem.code.value, problem.tag) for problem in verdict_of(data).problems]


def test_a_right_file_has_no_problem():
    """Of a right file all is told and nothing is wrong."""
    data = bytes_of("CT_small.dcm")
    verdict = verdict_of(data)
    assert (verdict.is_dicom, verdict.is_valid, verdict.problems) == (True, True, ())
    assert (verdict.transfer_syntax_uid, verdict.transfer_syntax_name) == (EXPLICIT_LITTLE, "Explicit VR Little Endian")
    assert (verdict.sop_class_uid, verdict.sop_class_name) == ("1.2.840.10008.5.1.4.1.1.2", "CT Image Storage")
    assert (verdict.modality, verdict.size_bytes, verdict.has_pixel_data) == ("CT", len(data), True)


@pytest.mark.parametrize("data", [b"", b"Dear colleague, " * 300, bytes(9000)], ids=["empty", "text", "zeros"])
def test_what_is_no_dicom_is_an_answer(data):
    """A file of another kind is not DICOM, not valid, and has one problem that says so."""
    verdict = verdict_of(data)
    assert (verdict.is_dicom, verdict.is_valid, verdict.has_pixel_data) == (False, False, False)
    assert verdict.size_bytes == len(data)
    assert [(problem.severity.value, problem.code.value) for problem in verdict.problems] == [
        ("error", "NOT_DICOM" if data else "EMPTY_FILE")
    ]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (bytes_of("CT_small.dcm")[:30_000], "TRUNCATED_FILE"),
        (bytes_of("CT_small.dcm") + b"more", "TRUNCATED_FILE"),
        (EXPLICIT.file(*plain(EXPLICIT), EXPLICIT.tag(0xFFFEE00D, 0)), "MALFORMED_DICOM"),
        (
            EXPLICIT.file(
                *plain(EXPLICIT)[:2], b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff" * 200
            ),
            "STRUCTURE_LIMIT",
        ),
    ],
    ids=["cut", "more", "stray delimiter", "too deep"],
)
def test_a_broken_file_is_an_answer(data, code):
    """A broken file is DICOM and not valid; the error is the last problem, and all of the file is counted."""
    verdict = verdict_of(data)
    assert (verdict.is_dicom, verdict.is_valid, verdict.size_bytes) == (True, False, len(data))
    assert (verdict.problems[-1].severity.value, verdict.problems[-1].code.value) == ("error", code)


def test_odd_values_are_warnings_that_say_where():
    """Wrong values, odd lengths and undeclared characters are told with their path; the value is not repeated."""
    item = EXPLICIT.element(0x00081155, "UI", b"1.2.x\0")
    odd = [
        EXPLICIT.element(0x00080021, "DA", b"20201399"),
        EXPLICIT.element(0x00081030, "LO", "Schädel ".encode("latin-1")),
        EXPLICIT.sequence(0x00081140, item),
        EXPLICIT.element(0x00180050, "DS", b"1.5"),
        EXPLICIT.element(0x00280006, "US", b"\1\0\1"),
    ]
    data = EXPLICIT.file(*complete(EXPLICIT, *odd))
    assert found(data) == [
        ("warning", "INVALID_VALUE", "(0008,0021)"),
        ("warning", "UNDECLARED_CHARSET", "(0008,1030)"),
        ("warning", "INVALID_VALUE", "(0008,1140)[0].(0008,1155)"),
        ("warning", "INVALID_VALUE", "(0018,0050)"),
        ("warning", "INVALID_VALUE", "(0028,0006)"),
        ("warning", "INVALID_VALUE", "(0028,0006)"),
    ]
    assert verdict_of(data).is_valid
    assert not any(
        value in problem.message for problem in verdict_of(data).problems for value in ("1399", "Sch", "1.2.x")
    )


def test_an_unknown_character_set_is_a_warning():
    """A defined term that does not exist is told."""
    data = EXPLICIT.file(EXPLICIT.text(0x00080005, "CS", "KLINGON"), *complete(EXPLICIT))
    assert found(data) == [("warning", "INVALID_VALUE", "(0008,0005)")]


def test_lost_meta_information_is_a_warning():
    """A bare data set is DICOM, is read as what it looks like, and lacks preamble and meta information."""
    big = Writer(EXPLICIT_BIG)
    verdict = verdict_of(b"".join(complete(big)))
    assert (verdict.is_valid, verdict.transfer_syntax_uid) == (True, EXPLICIT_BIG)
    assert [problem.code.value for problem in verdict.problems] == ["PREAMBLE_MISSING", "META_MISSING"]


def test_missing_identifiers_are_warnings_save_in_a_dicomdir():
    """SOP class and SOP instance are missed where they must be."""
    lacking = EXPLICIT.file(*complete(EXPLICIT)[2:])
    assert found(lacking) == [
        ("warning", "ATTRIBUTE_MISSING", "(0008,0016)"),
        ("warning", "ATTRIBUTE_MISSING", "(0008,0018)"),
    ]
    verdict = verdict_of(bytes_of("dicomdirtests/DICOMDIR"))
    assert (verdict.problems, verdict.sop_class_name) == ((), "Media Storage Directory Storage")


def test_an_image_without_pixel_data_is_suspicious():
    """A file that was cut just before its pixel data looks whole; that it describes an image gives it away."""
    data = bytes_of("CT_small.dcm")
    start = data.index(b"\xe0\x7f\x10\0OW")
    assert found(data[:start]) == [("warning", "TRUNCATED_FILE", "(7FE0,0010)")]
    assert not verdict_of(data[:start]).has_pixel_data


def test_pixel_data_of_an_icon_is_not_the_files():
    """Only pixel data of the data set itself counts."""
    icon = EXPLICIT.sequence(0x00880200, EXPLICIT.element(0x7FE00010, "OW", bytes(64)))
    assert not verdict_of(EXPLICIT.file(*plain(EXPLICIT)[:8], icon)).has_pixel_data
    assert verdict_of(EXPLICIT.file(*plain(EXPLICIT))).has_pixel_data


def test_at_most_a_hundred_problems_are_told():
    """A file that is wrong all over gives a hundred problems, an error among them, and says how many more there are."""
    wrong = EXPLICIT.element(0x00080021, "DA", b"20201399") * 300
    data = EXPLICIT.file(*complete(EXPLICIT), wrong)
    verdict, cut_off = verdict_of(data), verdict_of(data[:-3])
    # Each is wrong and out of order or double.
    assert (len(verdict.problems), verdict.problems_left_out) == (100, 500)
    assert (len(cut_off.problems), cut_off.problems[-1].severity.value) == (100, "error")
    assert cut_off.problems_left_out == 499


def test_what_the_file_is_is_told_however_much_is_wrong_with_it():
    """R8, R1: past ten thousand problems no more are counted, but modality and SOP class are still read."""
    wrong = EXPLICIT.element(0x00080021, "DA", b"20201399") * 20_000
    data = EXPLICIT.file(wrong, *complete(EXPLICIT))
    verdict = verdict_of(data, size=100_000)
    assert (verdict.modality, verdict.sop_class_uid) == ("OT", "1.2.840.10008.5.1.4.1.1.7")
    assert verdict.problems_left_out == 10_000
    assert verdict.has_pixel_data
    assert verdict_of(data, size=777) == verdict


@pytest.mark.parametrize("name", ["CT_small.dcm", "badVR.dcm", "MR_truncated.dcm", "image_dfl.dcm", "rtdose_rle.dcm"])
def test_the_verdict_does_not_depend_on_how_the_file_is_cut(name):
    """Cut oddly, a file gets the verdict that it gets whole."""
    data = bytes_of(name)
    assert verdict_of(data, size=53) == verdict_of(data, size=len(data))


@pytest.mark.parametrize("size", [1, 53, 100_000])
def test_what_comes_before_a_fault_of_the_deflated_stream_is_read_however_it_is_cut(size):
    """R1: of a data set that cannot be inflated to its end, what can be inflated counts, down to the last byte."""
    writer = Writer(DEFLATED)
    noise = writer.element(0x00420011, "OB", hashlib.shake_128(b"").digest(5000))
    data = writer.file(*complete(writer, noise))
    # Blocks of type 3 do not exist (RFC 1951 3.2.3).
    at = len(data) - 3000
    verdict = verdict_of(data[:at] + b"\xff" * 3000, size=size)
    assert verdict.problems[-1].rule == "PS3.5 A.5"
    assert verdict.modality == "OT"
    assert verdict == verdict_of(data[:at] + b"\xff" * 3000, size=7)
