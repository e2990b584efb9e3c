"""The conformance command: what it finds in real files, and that it finds what is wrong."""

import dataclasses
import json
import multiprocessing
import os
import shutil
import threading
from pathlib import Path

import pydicom.data
import pytest

from conformance import __main__ as command
from conformance import oracle, subject
from conformance.differences import Difference, Kind
from conformance.judging import READ, Judgement, judge
from conformance.pool import judge_all
from conformance.walker import BrokenError, walk
from service_runtime.errors import Reason, ServiceError
from tag_service.domain.editing.edits import Edits
from tag_service.domain.standard.limits import Limits
from tests.unit.tag_service.building import (
    DEFLATED,
    ENCODINGS,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    NAMES,
    Writer,
    part10,
    plain,
)

EXPLICIT = Writer(EXPLICIT_LITTLE)
IMPLICIT = Writer(IMPLICIT_LITTLE)
UNDEFINED = 0xFFFFFFFF
# An item with a sequence in it, neither of which ends.
NEST = EXPLICIT.tag(0xFFFEE000, UNDEFINED) + EXPLICIT.header(0x00081140, "SQ", UNDEFINED)
DATA = Path(pydicom.data.__file__).parent
SAMPLES = sorted(path for path in DATA.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"})

# What pydicom reads and we do not, on purpose.
BROKEN = {
    "MR_truncated.dcm": Kind.TRUNCATED,
    "rtplan_truncated.dcm": Kind.TRUNCATED,
    # Its last item is longer than the sequence it stands in, and than the file.
    "DICOMDIR-nooffset": Kind.BROKEN,
}


@pytest.fixture(autouse=True)
def _without_dcmdump(monkeypatch):
    """Whether dcmdump is installed decides about no test."""
    monkeypatch.setattr(oracle, "DCMDUMP", None)


@pytest.fixture
def sample(tmp_path):
    """A small file with a group length, a sequence and pixel data."""
    item = EXPLICIT.element(0x00080000, "UL", bytes(4)) + EXPLICIT.text(0x00081155, "UI", "1.2")
    path = tmp_path / "sample.dcm"
    path.write_bytes(EXPLICIT.file(*plain(EXPLICIT, EXPLICIT.sequence(0x00081140, item))))
    return path


def kinds(judgement):
    """The kinds of the differences."""
    return {difference.kind for difference in judgement.differences}


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_a_bundled_file_is_read_and_kept_as_it_should(path):
    """R5, M1, M13: what pydicom reads we read, with equal tags and elements, and edits change what they name alone."""
    judgement = judge(path)
    assert all(kind.rule for kind in kinds(judgement)), judgement.differences
    if path.name in BROKEN:
        assert BROKEN[path.name] in kinds(judgement)
    elif oracle.read(path.read_bytes(), force=False) is not None:
        assert {judgement.outcomes[name] for name in ("20 tags", "all elements", "JSON model")} == {READ}


def test_the_bundled_files_are_many():
    """The test above runs over pydicom's files, not over none."""
    assert sum(oracle.read(path.read_bytes(), force=False) is not None for path in SAMPLES) > 150


@pytest.mark.parametrize("writer", ENCODINGS, ids=NAMES)
def test_the_walker_cuts_up_every_encoding(writer):
    """The parts of the walker make up the data set, and say how deep in it they stand."""
    inner = writer.sequence(0x00081199, writer.text(0x00081155, "UI", "1.2"), undefined=True)
    walked = walk(writer.file(*plain(writer, writer.sequence(0x00081115, inner, b""))))
    assert b"".join(part.header + part.value for part in walked.parts) == walked.body
    depths = {part.tag: part.depth for part in walked.parts if part.tag < 0xFFFE0000}
    assert (depths[0x00081115], depths[0x00081199], depths[0x00081155], depths[0x00100020]) == (0, 1, 2, 0)
    assert walked.deepest == 2


@pytest.mark.parametrize("cut", [10, 150, 400, -1])
def test_the_walker_sees_where_a_file_ends(cut):
    """A file that is cut inside an element is broken for the walker."""
    with pytest.raises(BrokenError):
        walk(EXPLICIT.file(*plain(EXPLICIT))[:cut])


def test_a_good_file_has_no_differences(sample):
    """The sample that the tests below damage has nothing wrong with it."""
    judgement = judge(sample)
    assert not judgement.differences
    assert judgement.outcomes == {
        "20 tags": READ,
        "all elements": READ,
        "JSON model": READ,
        "pydicom": READ,
        "rewrite": "done",
        "edit": "done",
    }


def changed_tags(data):
    """Tags of which one is wrong."""
    return REAL["tags_of"](data)._replace(patient_id="MRN8")


def changed_json(data):
    """JSON with a wrong value inside a sequence."""
    model = json.loads(REAL["json_of"](data))
    model["00081140"]["Value"][0]["00081155"]["Value"] = ["1.3"]
    return json.dumps(model)


def shorter_json(data):
    """JSON without one of the attributes."""
    model = json.loads(REAL["json_of"](data))
    del model["00100020"]
    return json.dumps(model)


def lost_element(data, _size=0):
    """Tokens without the last element."""
    tokenized = REAL["tokenized"](data)
    return dataclasses.replace(tokenized, parts=tokenized.parts[:-1])


def cut_dependent(data, size=subject.PIECE_BYTES):
    """Tokens that depend on the pieces."""
    tokenized = REAL["tokenized"](data, size)
    return tokenized if size == subject.PIECE_BYTES else dataclasses.replace(tokenized, trailing=b"\0")


def otherwise_cut(data, edits, size=subject.PIECE_BYTES):
    """A rewriter whose result depends on the pieces."""
    return REAL["rewritten"](data, edits) + bytes(size != subject.PIECE_BYTES)


def misplaced_json(data):
    """JSON that refers to another place of the file."""
    return REAL["json_of"](data).replace(b"&length=64", b"&length=62")


def refusing(_data):
    """A reader that takes nothing."""
    raise ServiceError(Reason.TRUNCATED_FILE, "The file ends.")


def failing(_data):
    """A reader with a defect."""
    raise IndexError


def swapped(old, new):
    """A rewriter that changes bytes as well that nobody asked it to."""

    def rewritten(data, edits, _size=0):
        result = REAL["rewritten"](data, edits)
        assert old in result
        return result.replace(old, new)

    return rewritten


def not_edited(data, _edits, _size=0):
    """A rewriter that leaves the edit out."""
    return REAL["rewritten"](data, Edits())


def not_rewritten(data, _edits, _size=0):
    """A rewriter that hands the file back."""
    return data


def cut_off(data, edits, _size=0):
    """A rewriter that loses the end."""
    return REAL["rewritten"](data, edits)[:-10]


REAL = {name: getattr(subject, name) for name in ("tags_of", "json_of", "tokenized", "rewritten")}
FAULTS = {
    "a wrong tag": ("tags_of", changed_tags, {Kind.TAG}),
    "a wrong value in JSON": ("json_of", changed_json, {Kind.JSON}),
    "an attribute missing in JSON": ("json_of", shorter_json, {Kind.JSON}),
    "a wrong reference in JSON": ("json_of", misplaced_json, {Kind.JSON}),
    "another result for other pieces": ("rewritten", otherwise_cut, {Kind.CHUNKING}),
    "an element lost": ("tokenized", lost_element, {Kind.STRUCTURE, Kind.ELEMENTS, Kind.JSON}),
    "other tokens for other pieces": ("tokenized", cut_dependent, {Kind.CHUNKING}),
    "a good file refused": ("tags_of", refusing, {Kind.REFUSED}),
    "a defect": ("json_of", failing, {Kind.DEFECT}),
    "a neighbour changed": ("rewritten", swapped(b"A17 ", b"A18 "), {Kind.NOT_IDENTICAL}),
    "pixels changed": ("rewritten", swapped(bytes(range(64)), bytes(64)), {Kind.NOT_IDENTICAL}),
    "a preamble left": ("rewritten", swapped(bytes(128) + b"DICM", b"MZ" + bytes(126) + b"DICM"), {Kind.PREAMBLE}),
    "meta information lost": ("rewritten", swapped(b"SENDER", b"NOBODY"), {Kind.META}),
    "an edit left out": ("rewritten", not_edited, {Kind.NOT_EDITED, Kind.NOT_IDENTICAL}),
    "nothing done": (
        "rewritten",
        not_rewritten,
        {Kind.PREAMBLE, Kind.NOT_EDITED, Kind.NOT_IDENTICAL},
    ),
    "an end lost": ("rewritten", cut_off, {Kind.NOT_READABLE}),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(sample, monkeypatch, name):
    """Each way of being wrong is told as what it is, and no rule explains it."""
    function, faulty, expected = FAULTS[name]
    monkeypatch.setattr(subject, function, faulty)
    assert kinds(judge(sample)) == expected
    assert not any(kind.rule for kind in expected)


def test_what_only_pydicom_takes_is_explained(tmp_path):
    """R6, R9: a file that is cut off, duplicates, and items inside a UN are differences that a rule explains."""
    path = tmp_path / "file.dcm"
    path.write_bytes(EXPLICIT.file(*plain(EXPLICIT))[:-1])
    assert kinds(judge(path)) == {Kind.TRUNCATED}
    path.write_bytes(EXPLICIT.file(*plain(EXPLICIT, EXPLICIT.text(0x00100020, "LO", "MRN8"))))
    assert kinds(judge(path)) == {Kind.DUPLICATES}
    hidden = IMPLICIT.sequence(0x00091010, IMPLICIT.text(0x00081155, "UI", "1.2"))[8:]
    path.write_bytes(EXPLICIT.file(*plain(EXPLICIT, EXPLICIT.element(0x00091010, "UN", hidden))))
    assert kinds(judge(path)) == {Kind.HIDDEN_SEQUENCE}


def hostile(name):
    """A file that is past a limit."""
    if name == "deep":
        return part10(EXPLICIT.header(0x00081140, "SQ", UNDEFINED) + 101 * NEST, EXPLICIT_LITTLE)
    if name == "very deep":
        return part10(EXPLICIT.header(0x00081140, "SQ", UNDEFINED) + 100_000 * NEST, EXPLICIT_LITTLE)
    if name == "many":
        return part10(EXPLICIT.element(0x00080050, "SH", b"") * 1001, EXPLICIT_LITTLE)
    return Writer(DEFLATED).file(Writer(DEFLATED).element(0x7FE00010, "OW", bytes(100_000_000)))


@pytest.mark.parametrize("name", ["deep", "very deep", "many", "bomb"])
def test_what_is_past_a_limit_is_explained(tmp_path, monkeypatch, name):
    """R8: a file that is refused for its depth, its elements or what it inflates to is past the limit here too."""
    monkeypatch.setattr(subject, "LIMITS", Limits(elements=1000))
    path = tmp_path / name
    path.write_bytes(hostile(name))
    judgement = judge(path)
    assert kinds(judgement) == {Kind.LIMITED}
    assert judgement.outcomes["all elements"] == Reason.STRUCTURE_LIMIT


def test_a_file_that_hangs_is_given_up(sample, tmp_path):
    """What takes too long is ended, and the files after it are judged all the same."""
    hanging = tmp_path / "hanging"
    os.mkfifo(hanging)
    found = dict(judge_all([hanging, sample], processes=1, seconds=3))
    assert kinds(found[hanging]) == {Kind.TIMEOUT}
    assert not found[sample].differences
    assert found[sample].outcomes["edit"] == "done"


def test_a_process_that_dies_is_told(sample, tmp_path):
    """A process that dies over a file is a difference, and another takes its place."""
    hanging = tmp_path / "hanging"
    os.mkfifo(hanging)

    def kill():
        # Goes on when the process has begun to read.
        with hanging.open("wb"):
            for child in multiprocessing.active_children():
                child.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    found = dict(judge_all([hanging, sample], processes=1, seconds=60))
    killer.join()
    assert kinds(found[hanging]) == {Kind.CRASH}
    assert found[sample].outcomes["edit"] == "done"


@pytest.mark.usefixtures("sample")
def test_the_report_names_nobody(tmp_path, capsys):
    """Exit status 0 and neither file name nor value for a folder that is as it should be; names where asked for."""
    (tmp_path / "inside").mkdir()
    shutil.copy(DATA / "test_files" / "MR_truncated.dcm", tmp_path / "inside" / "Roe-Richard.dcm")
    (tmp_path / "inside" / "notes.txt").write_text("no DICOM")
    assert command.main([str(tmp_path), "--processes", "2"]) == 0
    report = capsys.readouterr().out
    assert report.startswith("3 files, ")
    assert "R9      cut off" in report
    assert not any(name in report for name in ("Roe", "MRN7", "sample", "notes"))
    assert command.main([str(tmp_path), "--names"]) == 0
    assert "inside/Roe-Richard.dcm" in capsys.readouterr().out


@pytest.mark.usefixtures("sample")
def test_the_exit_status_tells_of_what_nothing_explains(tmp_path, monkeypatch, capsys):
    """Exit status 1 for a difference without a rule, 2 for a folder without files."""

    def judged(paths, **_):
        return [(path, Judgement(differences=[Difference(Kind.VALUE, "(0010,0020)")])) for path in paths]

    monkeypatch.setattr(command, "judge_all", judged)
    assert command.main([str(tmp_path)]) == 1
    assert "(0010,0020) 1" in capsys.readouterr().out
    assert command.main([str(tmp_path / "nowhere")]) == 2
