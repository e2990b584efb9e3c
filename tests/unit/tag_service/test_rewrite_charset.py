"""New values and the character set of the file."""

import pydicom.data
import pytest

from service_runtime.errors import Reason, ServiceError
from tests.unit.tag_service.building import (
    ENCODINGS,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    NAMES,
    Writer,
    body,
    edit,
    every_element,
    plain,
    read,
    same,
)

EXPLICIT = Writer(EXPLICIT_LITTLE)
CYRILLIC = "Иванов^Иван"
in_every_encoding = pytest.mark.parametrize("writer", ENCODINGS, ids=NAMES)


def charset(writer, *terms):
    """(0008,0005) of these terms."""
    return writer.text(0x00080005, "CS", "\\".join(terms))


def refused(data, **edits):
    """The error of an edit that the text of the file does not let pass."""
    with pytest.raises(ServiceError) as caught:
        edit(data, **edits)
    assert caught.value.reason is Reason.CHARSET_CONFLICT
    return caught.value


@in_every_encoding
def test_a_value_that_the_character_set_holds_is_encoded_in_it(writer):
    """M5: A new value in the file's own character set changes nothing else."""
    old = writer.element(0x00081030, "LO", "Größe ".encode("latin-1"))
    data = writer.file(*plain(writer, charset(writer, "ISO_IR 100"), old))
    result = edit(data, study_description="Schädel")
    new = writer.element(0x00081030, "LO", "Schädel ".encode("latin-1"))
    assert body(result) == b"".join(plain(writer, charset(writer, "ISO_IR 100"), new))


@in_every_encoding
def test_all_text_is_carried_over_to_utf_8(writer):
    """M5: Text at every depth and after the pixels becomes UTF-8 with the new value; all that is no text stays."""

    def elements(encoding, term, name):
        def text(tag, vr, value):
            encoded = value.encode(encoding)
            return writer.element(tag, vr, encoded + b" " * (len(encoded) % 2))

        nested = writer.sequence(0x00081115, text(0x0008103E, "LO", "Übersicht"), undefined=True)
        written = plain(
            writer,
            charset(writer, term),
            text(0x00081030, "LO", "Größe\\Maß"),
            text(0x00080081, "ST", "Straße\r\n1"),
            text(0x00104000, "LT", "größer"),
            text(0x00400310, "ST", "ascii"),
            writer.sequence(0x00081140, nested),
            writer.element(0x00420011, "OB", "é".encode("latin-1") * 2),
        )
        old_name = writer.text(0x00100010, "PN", "Roe^Richard")
        return [text(0x00100010, "PN", name) if element == old_name else element for element in written]

    data = writer.file(*elements("latin-1", "ISO_IR 100", "Roe^Richard"))
    assert body(edit(data, patient_name=CYRILLIC)) == b"".join(elements("utf-8", "ISO_IR 192", CYRILLIC))


def test_a_file_without_a_character_set_gets_one():
    """M5: In a file that declares none a new value beyond ASCII makes it declare ISO_IR 192."""
    data = EXPLICIT.file(*plain(EXPLICIT))
    result = edit(data, patient_name=CYRILLIC)
    assert read(result).SpecificCharacterSet == "ISO_IR 192"
    assert read(result).PatientName == CYRILLIC
    assert same(read(data), read(result), but={0x00080005, 0x00100010})
    assert b"ISO_IR" not in body(edit(data, patient_name="Ivanov^Ivan"))


def test_items_with_their_own_character_set_keep_their_text():
    """M5, R7: An item's text is decoded in the item's own character set, which changes with the file's."""
    name = "Иванов"
    item = charset(EXPLICIT, "ISO_IR 144") + EXPLICIT.element(0x00100010, "PN", name.encode("iso8859-5"))
    inherited = EXPLICIT.element(0x00100010, "PN", "José^Ana".encode("latin-1"))
    nested = EXPLICIT.sequence(0x00081140, item + EXPLICIT.sequence(0x00081115, item[18:]), inherited)
    data = EXPLICIT.file(*plain(EXPLICIT, charset(EXPLICIT, "ISO_IR 100"), nested))
    result = read(edit(data, study_description="山"))
    first, second = result.ReferencedImageSequence
    assert first.SpecificCharacterSet == "ISO_IR 192"
    assert first.PatientName == name
    assert first.ReferencedSeriesSequence[0].PatientName == name
    assert second.PatientName == "José^Ana"
    assert "SpecificCharacterSet" not in second


def test_an_edit_in_an_item_uses_the_character_set_of_the_item():
    """M5: What an item's own character set holds is written in it, and the file stays as it is."""
    item = charset(EXPLICIT, "ISO_IR 144")
    data = EXPLICIT.file(*plain(EXPLICIT, EXPLICIT.sequence(0x00081140, item)))
    result = edit(data, set=(f"ReferencedImageSequence[0].PatientName={CYRILLIC}",))
    name = EXPLICIT.element(0x00100010, "PN", CYRILLIC.encode("iso8859-5") + b" ")
    assert body(result) == b"".join(plain(EXPLICIT, EXPLICIT.sequence(0x00081140, item + name)))


def test_code_extensions_are_used_and_carried_over():
    """A name in ISO 2022 escapes stays so for a Japanese value, and becomes UTF-8 for a Hebrew one."""
    data = pathed("chrH31.dcm")
    before = read(data)
    assert "\x1b" in body(data).decode("latin-1")
    japanese = edit(data, study_description="山田")
    assert read(japanese).SpecificCharacterSet == before.SpecificCharacterSet
    assert read(japanese).StudyDescription == "山田"
    hebrew = read(edit(data, study_description="בית"))
    assert hebrew.SpecificCharacterSet == "ISO_IR 192"
    assert hebrew.PatientName == before.PatientName
    assert hebrew.StudyDescription == "בית"


@pytest.mark.parametrize(
    "name",
    [
        "chrArab",
        "chrFren",
        "chrGerm",
        "chrGreek",
        "chrH31",
        "chrH32",
        "chrHbrw",
        "chrI2",
        "chrKoreanMulti",
        "chrRuss",
        "chrFrenMulti",
        "chrJapMulti",
        "chrJapMultiExplicitIR6",
        "chrSQEncoding",
        "chrSQEncoding1",
        "chrX1",
    ],
)
def test_names_of_many_languages_survive(name):
    """The names of pydicom's character-set files are the same text in UTF-8."""
    data = pathed(f"{name}.dcm")
    before, after = read(data), read(edit(data, study_description="山 é д א"))
    assert after.SpecificCharacterSet == "ISO_IR 192"
    assert after.StudyDescription == "山 é д א"
    assert [str(element.value) for element in every_element(after) if element.VR == "PN"] == [
        str(element.value) for element in every_element(before) if element.VR == "PN"
    ]


def pathed(name):
    """One of pydicom's character-set files."""
    path = next(path for path in map(str, pydicom.data.get_charset_files(name)))
    with open(path, "rb") as file:  # noqa: PTH123 - pydicom gives text
        return file.read()


def test_text_that_is_no_text_is_a_conflict():
    """M5: Bytes that the declared character set does not know are refused by tag, never replaced by a guess."""
    bad = EXPLICIT.element(0x00081030, "LO", b"Gr\xf6\xdfe!")
    undeclared = EXPLICIT.file(*plain(EXPLICIT, bad))
    misdeclared = EXPLICIT.file(*plain(EXPLICIT, bad, charset(EXPLICIT, "ISO_IR 192")))
    error = refused(undeclared, patient_name=CYRILLIC)
    assert error.metadata == {"tag": "(0008,1030)"}
    assert "Gr" not in error.message.replace("(0008,1030)", "")
    # UTF-8 holds every value, so nothing has to be carried over.
    assert bad in edit(misdeclared, patient_name=CYRILLIC)
    nested = EXPLICIT.file(*plain(EXPLICIT, EXPLICIT.sequence(0x00081140, bad)))
    refused(nested, patient_name=CYRILLIC)
    unknown = EXPLICIT.file(*plain(EXPLICIT, bad, charset(EXPLICIT, "NO SUCH SET")))
    refused(unknown, patient_name=CYRILLIC)


def test_text_that_the_edits_replace_or_remove_is_no_conflict():
    """Undecodable text that goes with the same edits does not stand in the way, in whatever order they come."""
    bad = EXPLICIT.element(0x00081030, "LO", b"Gr\xf6\xdfe!")
    data = EXPLICIT.file(*plain(EXPLICIT, bad))
    assert read(edit(data, patient_name=CYRILLIC, study_description="Größe")).StudyDescription == "Größe"
    assert read(edit(data, patient_name=CYRILLIC, remove=("StudyDescription",))).PatientName == CYRILLIC


def test_a_wrong_field_is_told_before_a_conflict():
    """A request that does not fit the file is told so, whatever the character set would have said."""
    data = EXPLICIT.file(*plain(EXPLICIT, EXPLICIT.element(0x00081030, "LO", b"Gr\xf6\xdfe!")))
    with pytest.raises(ServiceError) as caught:
        edit(data, patient_name=CYRILLIC, set=("ReferencedImageSequence[1].StudyID=1",))
    assert caught.value.reason is Reason.INVALID_FIELD


def test_text_too_long_in_utf_8_is_a_conflict():
    """M5: Text that outgrows its VR in UTF-8 is refused with explicit VR."""
    long_text = ("é" * 64 + "\\").encode("latin-1") * 800
    for writer in (EXPLICIT, Writer(IMPLICIT_LITTLE)):
        data = writer.file(*plain(writer, charset(writer, "ISO_IR 100"), writer.element(0x00101000, "LO", long_text)))
        if writer is EXPLICIT:
            assert refused(data, patient_name=CYRILLIC).metadata == {"tag": "(0010,1000)"}
        else:
            assert read(edit(data, patient_name=CYRILLIC)).PatientName == CYRILLIC


def test_unknown_elements_are_text_where_a_dictionary_says_so():
    """Values of VR UN are carried over for attributes that are known to be text, and stay untouched for others."""
    data = EXPLICIT.file(
        *plain(
            EXPLICIT,
            charset(EXPLICIT, "ISO_IR 100"),
            EXPLICIT.element(0x00104000, "UN", "größer".encode("latin-1")),
            EXPLICIT.text(0x00190010, "LO", "SIEMENS MR HEADER"),
            EXPLICIT.element(0x00191009, "UN", "é!".encode("latin-1")),
            EXPLICIT.text(0x00290010, "LO", "NOBODY"),
            EXPLICIT.element(0x00291010, "UN", "é!".encode("latin-1")),
            EXPLICIT.element(0x00291110, "UN", "é!".encode("latin-1")),
            EXPLICIT.element(0x00290012, "UN", "ACMÉ".encode("latin-1")),
        )
    )
    result = body(edit(data, patient_name=CYRILLIC))
    assert EXPLICIT.element(0x00104000, "UN", "größer".encode()) in result
    assert EXPLICIT.element(0x00191009, "UN", "é! ".encode()) in result
    assert EXPLICIT.element(0x00290012, "UN", "ACMÉ ".encode()) in result
    for tag in (0x00291010, 0x00291110):
        assert EXPLICIT.element(tag, "UN", "é!".encode("latin-1")) in result


def test_text_in_private_sequences_is_carried_over():
    """M5, R6: With implicit VR a private sequence of defined length is known by the items in it, at every depth."""
    writer = Writer(IMPLICIT_LITTLE)
    meaning = writer.element(0x00080104, "LO", "Größe!".encode("latin-1"))
    inner = writer.sequence(0x20051081, meaning)
    private = writer.text(0x20050010, "LO", "ACME"), writer.sequence(0x20051080, meaning + inner)
    data = writer.file(*plain(writer, charset(writer, "ISO_IR 100"), *private))
    result = body(edit(data, patient_name=CYRILLIC))
    assert result.count("Größe!".encode()) == 2
    assert writer.element(0x00080104, "LO", "Größe!".encode()) in result
    assert "Größe!".encode("latin-1") not in result
    assert body(edit(data, patient_id="NEW")).endswith(body(data)[body(data).index(private[0]) :])


def test_text_that_nobody_looks_for_is_a_conflict():
    """M5, M10: A sequence that came as UN, too long to be held, may have text in it that would be taken for UTF-8."""
    items = Writer(IMPLICIT_LITTLE).sequence(0, Writer(IMPLICIT_LITTLE).element(0x00104000, "LT", b"\xe4" * 70_000))[8:]
    data = EXPLICIT.file(*plain(EXPLICIT, charset(EXPLICIT, "ISO_IR 100"), EXPLICIT.element(0x00400275, "UN", items)))
    assert refused(data, patient_name=CYRILLIC).metadata == {"tag": "(0040,0275)"}
    assert items in edit(data, patient_id="NEW")


def test_a_creator_beyond_ascii_is_found():
    """M9: A creator is compared as text in the character set of the file."""
    data = EXPLICIT.file(
        *plain(
            EXPLICIT,
            charset(EXPLICIT, "ISO_IR 100"),
            EXPLICIT.element(0x00290010, "LO", "Größe!".encode("latin-1")),
            EXPLICIT.text(0x00291010, "LO", "old"),
        )
    )
    assert EXPLICIT.text(0x00291010, "LO", "new") in edit(data, set=('(0029,"Größe!",10)=new',))
