"""Text in its character set, there and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.charset import python_encoding

from tag_service.domain.standard.charset import (
    DEFAULT,
    CharsetError,
    charsets_of,
    decode,
    decode_strict,
    encode,
    is_known,
)
from tests.unit.tag_service.building import read
from tests.unit.tag_service.tokens import CHARSET_FILES

# The test strings of PS3.5 annexes H to K.
EXAMPLES = [
    (b"ISO_IR 100", "Buc^Jérôme", "Buc^Jérôme".encode("latin-1")),
    (b"ISO_IR 144", "Люкceм", "Люкceм".encode("iso8859-5")),
    (b"ISO_IR 192", "Wang^XiaoDong=王^小東=", "Wang^XiaoDong=王^小東=".encode()),
    (b"GB18030", "Wang^XiaoDong=王^小东=", "Wang^XiaoDong=王^小东=".encode("gb18030")),
    (
        b"\\ISO 2022 IR 87",
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
    ),
    (
        b"ISO 2022 IR 13\\ISO 2022 IR 87",
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
    ),
    (
        b"\\ISO 2022 IR 149",
        "Hong^Gildong=洪^吉洞=홍^길동",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
    ),
    (b"\\ISO 2022 IR 58", "Zhang^XiaoDong=张^小东=", b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab="),
]


@pytest.mark.parametrize(("declared", "text", "encoded"), EXAMPLES, ids=lambda value: repr(value)[:24])
def test_the_examples_of_the_standard_decode_and_encode(declared, text, encoded):
    """The names in the annexes of PS3.5 are read exactly and written as they stand there."""
    charsets = charsets_of(declared)
    assert decode_strict(encoded, charsets, "PN") == text
    assert encode(text, charsets, "PN") == encoded


@pytest.mark.parametrize("path", sorted(CHARSET_FILES.glob("chr*.dcm")), ids=lambda path: path.name)
def test_names_are_those_that_pydicom_reads(path):
    """PatientName of each test file for character sets decodes as pydicom decodes it."""
    dataset = read(path.read_bytes())
    if "PatientName" in dataset:
        charsets = charsets_of("\\".join(_terms(dataset)).encode())
        raw = dataset.PatientName.original_string
        assert decode(raw, charsets, "PN").text.rstrip("=") == str(dataset.PatientName).rstrip("=")


def _terms(dataset):
    value = dataset.get("SpecificCharacterSet") or ""
    return [value] if isinstance(value, str) else list(value)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (b"ISO-IR 100", ("ISO_IR 100",)),
        (b"ISO IR 192 ", ("ISO_IR 192",)),
        (b"iso_ir 100", ("ISO_IR 100",)),
        (b"ISO_IR_144", ("ISO_IR 144",)),
        (b"\\ISO-2022-IR-87", ("", "ISO 2022 IR 87")),
        (b"UTF-8", ("ISO_IR 192",)),
        (b"ISO 8859-1", ("ISO_IR 100",)),
        (b"GB18030\\ISO 2022 IR 87", ("GB18030",)),
        (b"", DEFAULT),
    ],
)
def test_misspelt_character_sets_are_understood(written, meant):
    """Usual misspellings count as what they stand for; sets without code extensions stand alone."""
    assert charsets_of(written) == meant
    assert is_known(charsets_of(written))


def test_unknown_character_sets_are_told():
    """A term that means nothing is not known, and no text beyond ASCII is exact in it."""
    charsets = charsets_of(b"KLINGON")
    assert not is_known(charsets)
    assert decode(b"Roe", charsets, "LO").exact
    assert not decode(b"R\xf6e", charsets, "LO").exact


def test_undeclared_text_is_a_best_guess():
    """Bytes beyond ASCII without a declared character set are taken for UTF-8, else Latin-1, and are not exact."""
    for encoding in ("utf-8", "latin-1"):
        decoded = decode("Jérôme".encode(encoding), DEFAULT, "LO")
        assert (decoded.text, decoded.exact) == ("Jérôme", False)


@pytest.mark.parametrize("declared", [b"ISO_IR 192", b"\\ISO 2022 IR 149", b"\\ISO 2022 IR 87", b"GB18030"])
def test_broken_text_is_a_best_guess(declared):
    """Bytes that are wrong in the declared set are replaced, told, and refused by the strict decoder."""
    broken = b"Roe^\x1b$B\xff\xfe\xff" if b"IR 87" in declared else b"Roe^\xff\xfe\xff"
    decoded = decode(broken, charsets_of(declared), "PN")
    assert decoded.text.startswith("Roe^")
    assert not decoded.exact
    with pytest.raises(CharsetError):
        decode_strict(broken, charsets_of(declared), "PN")


def test_a_delimiter_takes_back_to_the_first_character_set():
    """Behind ^ the first set is in force again, and so is behind a backslash in other text."""
    charsets = charsets_of(b"ISO 2022 IR 100\\ISO 2022 IR 144")
    cyrillic = b"\x1b-L" + "Л".encode("iso8859-5")
    assert decode_strict(cyrillic + b"^\xe9", charsets, "PN") == "Л^é"
    assert decode_strict(cyrillic + b"\\\xe9", charsets, "LO") == "Л\\é"


@pytest.mark.parametrize("declared", sorted(python_encoding))
@given(text=st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=20))
def test_what_is_encoded_decodes_to_itself(declared, text):
    """In every character set: either a text cannot be held and that is told, or it comes back as it was."""
    for charsets in (charsets_of(declared.encode()), charsets_of(b"\\" + declared.encode())):
        for vr in ("LO", "PN"):
            try:
                encoded = encode(text, charsets, vr)
            except CharsetError:
                assert not text.isascii()
                continue
            assert decode_strict(encoded, charsets, vr) == text


@given(value=st.binary(max_size=60), declared=st.sampled_from(sorted(python_encoding)))
def test_any_bytes_decode_to_something(value, declared):
    """Decoding never raises."""
    for charsets in (charsets_of(declared.encode()), charsets_of(f"\\{declared}\\ISO 2022 IR 87".encode())):
        assert isinstance(decode(value, charsets, "PN").text, str)
