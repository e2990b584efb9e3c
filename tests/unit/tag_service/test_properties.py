"""Properties of the tag engine over random files (hypothesis): the checks that the fuzzer runs for longer."""

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings

from conformance.walker import BrokenError, walk
from tests.files import sample_bytes
from tests.unit.tag_service import checks, fuzz
from tests.unit.tag_service.building import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, Writer
from tests.unit.tag_service.random_files import JPEG, BuiltFile, Fragments, Items, Value

# The same examples every time: chance is the fuzzer's. A failure is shown small, with what makes hypothesis repeat it.
properties = settings(
    max_examples=200,
    derandomize=True,
    deadline=None,
    database=None,
    print_blob=True,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
# Hundreds of examples take a slow machine minutes.
pytestmark = pytest.mark.timeout(600)
randoms = st.randoms(use_true_random=False)


def seen(data: bytes) -> None:
    """Shows the file of a failure, as far as it can be looked at."""
    note(f"{len(data)} bytes: {data[:4000].hex()}")


@properties
@given(randoms)
def test_a_file_is_read_as_it_was_made(random):
    """R1, R3, R4, R5, R6, R7: tokens, tags and JSON are those of the tree, in every encoding, however it is cut."""
    checks.check_reading(random, seen)


@properties
@given(randoms)
def test_rewriting_changes_nothing(random):
    """M1, M2, M3, M13: with nothing to change the data set is the same bytes but for group lengths."""
    checks.check_rewriting(random, seen)


@properties
@given(randoms)
def test_edits_change_what_they_name(random):
    """M1, M2, M3, M6, M9: random edits make of a file what they make of its tree, and all else is the same bytes."""
    checks.check_edits(random, seen)


@properties
@given(randoms)
def test_recorded_edits_keep_what_was(random):
    """M1, M7: recorded edits do what they do otherwise, and the elements as they were are in one item more."""
    checks.check_recording(random, seen)


@properties
@given(randoms)
def test_de_identified_files_keep_their_pixels_and_nothing_private(random):
    """M1, M2, M9: de-identification is the same for all pieces, and leaves pixels alone."""
    checks.check_deidentifying(random, seen)


@properties
@given(randoms)
def test_a_value_beyond_the_character_set_makes_all_text_utf_8(random):
    """M5: all text at every depth is transcoded, and every declaration with it."""
    checks.check_transcoding(random, seen)


@properties
@given(randoms)
def test_a_file_that_is_cut_off_is_an_error(random):
    """R9, M11: reading and editing tell of every cut that is not between two elements of the data set."""
    checks.check_cuts(random, seen)


@settings(properties, max_examples=600)
@given(randoms)
def test_damage_is_an_answer_or_an_error(random):
    """R1, R8, R9: damaged bytes give an answer or a ServiceError, the same for all pieces and within the limits."""
    checks.check_damage(random, seen)


@settings(properties, max_examples=400)
@given(randoms)
def test_a_file_edited_by_its_ends_is_the_file_edited(random):
    """M14: header and rest are byte by byte what editing the file gives, or the same error, or nothing is told."""
    checks.check_headers(random, seen)


@settings(properties, max_examples=400)
@given(randoms)
def test_bulk_that_is_kept_leaves_the_edited_file_as_it_is(random):
    """M14: whatever is passed over of bulk that goes out as it is, the file that is put together is the same."""
    checks.check_skipping(random, seen)


def small_file(uid: str) -> BuiltFile:
    """A file with what can be cut: text, numbers, both forms of sequences, items in a UN, bulk or fragments."""
    writer = Writer(uid)
    text = Value(0x00100010, "PN", b"Roe^Richard ", shown=[{"Alphabetic": "Roe^Richard"}], text="Roe^Richard")
    item = (Value(0x00081155, "UI", b"1.2\0", shown=["1.2"], text="1.2"),)
    inner = Items(0x00081199, "SQ", (item, ()), undefined=True, open_items=(True, False))
    outer = Items(0x00081115, "SQ", ((inner,), item), undefined=False, open_items=(False, True))
    hidden = Items(0x00091010, "UN", (item,), undefined=True, open_items=(True,))
    pixels = Fragments(0x7FE00010, "OB", (b"", b"\xff\xd8")) if uid == JPEG else Value(0x7FE00010, "OW", bytes(70_000))
    head = Value(0x00080016, "UI", b"1.2.840.10008.5.1.4.1.1.7\0", shown=["1.2.840.10008.5.1.4.1.1.7"])
    return BuiltFile((head, outer, hidden, text, pixels), writer, "")


@pytest.mark.parametrize("uid", [EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, JPEG])
def test_every_cut_of_a_made_file_is_an_error(uid):
    """R9, M11: reading, validating and editing tell of a cut after each byte but between two elements."""
    file = small_file(uid)
    data = file.data
    header = min(len(data), 1000)
    for size in (*range(header), *range(header, len(data), 4999), len(data) - 1):
        checks.check_cut(file, data[:size])


@pytest.mark.parametrize("name", ["image_dfl.dcm", "JPEG2000-embedded-sequence-delimiter.dcm", "reportsi.dcm"])
def test_every_cut_of_a_real_file_is_an_error(name):
    """R9, M11: a real file is an error wherever it is cut, save between two of its elements, as another reader sees."""
    data = sample_bytes(name)
    whole = walk(data)
    for size in (*range(0, min(len(data), 3000), 3), *range(len(data) - 1, 3000, -997)):
        cut = data[:size]
        try:
            walked = walk(cut)
        except BrokenError:
            walked = None
        else:
            assert walked.parts == whole.parts[: len(walked.parts)]
        for read in (lambda cut=cut: checks.json_of([cut]), lambda cut=cut: checks.edit(cut, patient_id="NEW")):
            assert (checks.attempt(read) is None) is (walked is None), size


def test_the_fuzzer_stops_at_a_failure(monkeypatch, tmp_path, capfd):
    """A failing case is told with its seed, kept as a file, and fails again when it is run once more."""

    def check(random, seen):
        data = bytes([random.randrange(256)])
        seen(data)
        assert data[0] % 3

    monkeypatch.setattr(fuzz, "CHECKS", {"thirds": check})
    monkeypatch.setattr(fuzz, "OUTPUT", tmp_path / "fuzz")
    monkeypatch.setattr(fuzz.resource, "setrlimit", lambda *_: None)
    assert fuzz.main(["--seconds", "60", "--seed", "abc"]) == 1
    (path,) = (tmp_path / "fuzz").iterdir()
    assert path.read_bytes()[0] % 3 == 0
    case = f"thirds:{path.stem.removeprefix('thirds-')}"
    assert f"--replay {case}" in capfd.readouterr().err
    assert fuzz.main(["--replay", case]) == 1
    assert fuzz.main(["--seconds", "0", "--seed", "abc"]) == 0
