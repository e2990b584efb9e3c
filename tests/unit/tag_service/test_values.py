"""What a VR allows, and the bytes that a value becomes."""

import struct
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import config
from pydicom.valuerep import validate_value

from tag_service.domain.standard import values

RIGHT = [
    ("AE", "STORE_SCP"),
    ("AS", "052Y"),
    ("AT", "(0010,0020)\\00080018"),
    ("CS", "ORIGINAL\\PRIMARY\\AXIAL"),
    ("DA", "20240229"),
    ("DS", "1.5\\-2e-3\\ .5 \\5."),
    ("DT", "2024"),
    ("DT", "20240229235960.123456+1400"),
    ("DT", "202402-1200"),
    ("FD", "1e300\\-.5"),
    ("FL", "3.4e38"),
    ("IS", "-2147483648\\+2147483647"),
    ("LO", "a" * 64),
    ("LO", "é" * 64),
    ("LT", "a\\b\r\n\tc\f"),
    ("PN", "Buc^Jérôme^^Dr^Jr=山田^太郎=やまだ^たろう"),
    ("PN", "a" * 64 + "=" + "b" * 64 + "=" + "c" * 64),
    ("PN", "One^Name\\Another^Name"),
    ("SH", "a" * 16),
    ("SL", "-2147483648"),
    ("SS", "32767"),
    ("ST", "a" * 1024),
    ("SV", "-9223372036854775808"),
    ("TM", "23"),
    ("TM", "235960.999999"),
    ("UC", "a" * 100_000),
    ("UI", "1.2.840.0.10008"),
    ("UL", "4294967295"),
    ("UR", "https://example.org/a?b=%20#c"),
    ("US", "0\\65535"),
    ("UT", "a\\b"),
    ("UV", "18446744073709551615"),
]

WRONG = [
    ("AE", "SEVENTEEN_LETTERS"),
    ("AE", "   "),
    ("AE", "ÄE"),
    ("AS", "52Y"),
    ("AS", "052X"),
    ("AT", "PatientID"),
    ("AT", "0010002"),
    ("CS", "lower"),
    ("CS", "SEVENTEEN_LETTERS"),
    ("DA", "20230229"),
    ("DA", "2023-01-01"),
    ("DA", "2023.01.01"),
    ("DA", "20230101-20231231"),
    ("DA", "00000101"),
    ("DA", "\uff12\uff10\uff12\uff13\uff10\uff11\uff10\uff11"),
    ("DS", "1,5"),
    ("DS", "0x10"),
    ("DS", "nan"),
    ("DS", "1e999"),
    ("DS", "12345678901234567"),
    ("DT", "20230229"),
    ("DT", "2023010124"),
    ("DT", "20230101120000.1234567"),
    ("DT", "2023+1401"),
    ("DT", "2023+0160"),
    ("DT", "2023-0000"),
    ("FD", "1e309"),
    ("FD", "inf"),
    ("FD", "1_0"),
    ("FL", "1e39"),
    ("IS", "2147483648"),
    ("IS", "-2147483649"),
    ("IS", "1.5"),
    ("IS", "٣"),
    ("LO", "a" * 65),
    ("LO", "a\nb"),
    ("LO", "a\x1b$Bb"),
    ("LO", "a\0"),
    ("LO", "a\x85b"),
    ("LO", "\ud800"),
    ("LT", "a\x1bb"),
    ("LT", "a" * 10241),
    ("PN", "a^b^c^d^e^f"),
    ("PN", "a=b=c=d"),
    ("PN", "a" * 65),
    ("PN", "a\tb"),
    ("SH", "a" * 17),
    ("SL", "2147483648"),
    ("SS", "32768"),
    ("ST", "a" * 1025),
    ("SV", "9223372036854775808"),
    ("TM", "24"),
    ("TM", "1260"),
    ("TM", "12:00"),
    ("TM", "120061"),
    ("TM", "120000.1234567"),
    ("UC", "a\nb"),
    ("UI", "1.02.3"),
    ("UI", "1..2"),
    ("UI", "1.2."),
    ("UI", "1.2.a"),
    ("UI", "1." + "2" * 63),
    ("UL", "-1"),
    ("UR", " https://example.org"),
    ("UR", "https://example.org/ü"),
    ("US", "65536"),
    ("US", "1\\"),
    ("US", "x"),
    ("UV", "18446744073709551616"),
]


@pytest.mark.parametrize(("vr", "text"), RIGHT)
def test_right_values_pass(vr, text):
    """A value that the standard allows for a VR is right."""
    assert values.check(vr, text) == ""


@pytest.mark.parametrize(("vr", "text"), WRONG)
def test_wrong_values_are_told_without_repeating_them(vr, text):
    """A value that the standard does not allow for a VR is wrong, and the description does not quote it."""
    problem = values.check(vr, text)
    assert problem
    assert text not in problem


@pytest.mark.parametrize("vr", sorted(values.SETTABLE_VRS))
def test_an_empty_value_is_right_for_every_vr_and_vm(vr):
    """Every attribute can be emptied, whatever its VM."""
    assert values.check(vr, "", "2") == ""
    assert values.encode(vr, "", little_endian=True, encode_text=str.encode) == b""


@pytest.mark.parametrize(
    ("vm", "right", "wrong"),
    [
        ("1", [1], [2, 3]),
        ("3", [3], [1, 2, 4]),
        ("1-n", [1, 2, 100], []),
        ("2-n", [2, 3, 100], [1]),
        ("2-2n", [2, 4, 100], [1, 3]),
        ("3-3n", [3, 6], [1, 2, 4]),
        ("4-4n", [4, 8], [2, 6]),
        ("1-8", [1, 8], [9]),
        ("1-99", [1, 99], [100]),
    ],
)
def test_multiplicity_is_held_to_the_vm(vm, right, wrong):
    """The number of values must be one that the VM allows."""
    assert [values.check("US", "\\".join("1" * count), vm) for count in right] == [""] * len(right)
    assert all(vm in values.check("US", "\\".join("1" * count), vm) for count in wrong)


def test_a_backslash_is_a_character_of_a_single_valued_vr_only():
    """ST, LT and UT hold backslashes; in LO and SH one divides two values."""
    assert values.check("LT", "a\\b", "1") == values.check("UT", "a\\b", "1") == ""
    assert values.check("LO", "a\\b", "1")
    assert values.check("SH", "a\\b", "1")


def test_one_of_several_text_values_may_be_empty():
    """An empty value among others is right for text and wrong for binary numbers."""
    assert values.check("DS", "1\\\\3") == values.check("LO", "\\a", "2") == ""
    assert values.check("FL", "1\\\\3")


@pytest.mark.parametrize("vr", ["SQ", "OB", "OW", "UN"])
def test_a_vr_that_is_no_text_is_not_judged(vr):
    """Nothing is said about bytes that are no text."""
    assert values.check(vr, "\0\x01") == ""


@pytest.mark.parametrize(
    ("vr", "text", "little", "big"),
    [
        ("US", "1\\258", b"\x01\0\x02\x01", b"\0\x01\x01\x02"),
        ("SS", "-2", b"\xfe\xff", b"\xff\xfe"),
        ("SL", "-2", b"\xfe\xff\xff\xff", b"\xff\xff\xff\xfe"),
        ("UL", "1", b"\x01\0\0\0", b"\0\0\0\x01"),
        ("UV", "1", b"\x01" + b"\0" * 7, b"\0" * 7 + b"\x01"),
        ("AT", "(0010,0020)\\7fe00010", b"\x10\0\x20\0\xe0\x7f\x10\0", b"\0\x10\0\x20\x7f\xe0\0\x10"),
        ("FL", "1.5", struct.pack("<f", 1.5), struct.pack(">f", 1.5)),
        ("FD", "-1.5\\2", struct.pack("<dd", -1.5, 2), struct.pack(">dd", -1.5, 2)),
    ],
)
def test_binary_values_are_in_the_byte_order_of_the_data_set(vr, text, little, big):
    """Numbers and tags are written in the byte order asked for."""
    assert values.encode(vr, text, little_endian=True, encode_text=str.encode) == little
    assert values.encode(vr, text, little_endian=False, encode_text=str.encode) == big


def test_odd_lengths_are_padded():
    """A UID is padded with NUL, other text with a space, in bytes and not in characters."""

    def encode(vr, text):
        return values.encode(vr, text, little_endian=True, encode_text=str.encode)

    assert encode("UI", "1.2") == b"1.2\0"
    assert encode("CS", "CAT") == b"CAT "
    assert encode("LO", "é") == "é".encode()
    assert encode("LO", "éa") == "éa ".encode()


TEXTS = st.text(max_size=70) | st.text(alphabet="0123456789.+-eE\\ ^=YMDW:AZ_", max_size=30)
# Where we are stricter than pydicom on purpose, it must not be the other way round.
JUDGED_BY_PYDICOM = sorted(values.TEXTUAL_VRS - {"UC", "UT"})


@given(vr=st.sampled_from(JUDGED_BY_PYDICOM), text=TEXTS)
def test_what_is_right_here_is_right_for_pydicom(vr, text):
    """No value passes that pydicom's validation refuses."""
    if values.check(vr, text) == "":
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for single in values.split(vr, text):
                validate_value(vr, single, config.RAISE)


@given(vr=st.sampled_from(sorted(values.SETTABLE_VRS)), text=TEXTS, little_endian=st.booleans())
def test_what_is_right_can_be_encoded(vr, text, little_endian):
    """Every value that passes becomes bytes of even length."""
    if values.check(vr, text) == "":
        encoded = values.encode(vr, text, little_endian=little_endian, encode_text=str.encode)
        assert len(encoded) % 2 == 0


@given(numbers=st.lists(st.integers(0, 2**16 - 1), min_size=1), little_endian=st.booleans())
def test_numbers_survive(numbers, little_endian):
    """Every 16-bit number is right for US and comes back out of the bytes."""
    text = "\\".join(map(str, numbers))
    assert values.check("US", text) == ""
    encoded = values.encode("US", text, little_endian=little_endian, encode_text=str.encode)
    assert list(struct.unpack(f"{'<' if little_endian else '>'}{len(numbers)}H", encoded)) == numbers


@given(day=st.dates())
def test_every_day_of_the_calendar_is_a_date(day):
    """Every real date passes as DA and as DT."""
    text = f"{day.year:04}{day.month:02}{day.day:02}"
    assert values.check("DA", text) == values.check("DT", text) == ""
