"""What must hold of random files. Each check makes one, shows it to `seen`, and asserts; tests and fuzzer run them."""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import wraps
from random import Random
from typing import Any
from unittest.mock import patch

import pytest

from conformance.trees import tree_of
from conformance.walker import walk
from service_runtime.errors import Reason, ServiceError
from tag_service.domain.deidentify.options import Dates, Options
from tag_service.domain.deidentify.profile import Profile
from tag_service.domain.editing import rewrite
from tag_service.domain.editing.edits import Edits, Mode
from tag_service.domain.editing.provenance import ModificationReason
from tag_service.domain.editing.rewrite import Rewriter, rewriter_of
from tag_service.domain.parsing import tokens
from tag_service.domain.parsing.tokenizer import Tokenizer
from tag_service.domain.reading.chosen import choose
from tag_service.domain.reading.chosen_reading import ChosenReader
from tag_service.domain.reading.dicom_json import JsonWriter
from tag_service.domain.reading.header_reader import HeaderReader
from tag_service.domain.standard.dictionary import tag_text
from tag_service.domain.standard.limits import Limits
from tag_service.domain.validating.validation import Validator, Verdict
from tag_service.use_cases import heading
from tag_service.use_cases.heading import EditedHeader, Ends, Heading
from tag_service.use_cases.modifying import Modifying
from tests.unit.tag_service.building import AT, DEFLATED, body, edit
from tests.unit.tag_service.damaging import damaged_file
from tests.unit.tag_service.random_edits import new_value, random_edits, replaced, transcoded, without_group_lengths
from tests.unit.tag_service.random_files import (
    PIXEL_DATA,
    BuiltFile,
    Items,
    Tree,
    Value,
    as_json,
    encode,
    encode_node,
    is_private,
    random_file,
)
from tests.unit.tag_service.tokens import elements_of, outcome

Seen = Callable[[bytes], None]

_NAMES = {"patient_id": 0x00100020, "patient_name": 0x00100010, "study_date": 0x00080020, "modality": 0x00080060}


def random_pieces(random: Random, data: bytes) -> list[bytes]:
    """The data in pieces: of one size, or of all sizes. Only where the chance for them begins is hypothesis' own, which
    takes longer over each piece than most checks do.
    """
    random = Random(random.getrandbits(64))  # noqa: S311 - chance need not be secret
    size = random.choice([1, 2, 3, 7, 64, 509, 4096])
    if len(data) > 4096:
        size = max(size, 7)
    pieces, position = [], 0
    is_even = random.randrange(2)
    while position < len(data):
        stop = position + (size if is_even else random.randrange(2 * size + 1))
        pieces.append(data[position:stop])
        position = stop
    return pieces


def random_cut(random: Random, data: bytes) -> int:
    """A size of pieces, not too many of them."""
    return max(random.choice([1, 3, 64, 509, 4096]), len(data) // 2000)


def check_reading(random: Random, seen: Seen) -> None:
    """R1, R3, R4, R5, R6, R7: tokens, tags and JSON are those of the tree, whatever the pieces are."""
    file = random_file(random)
    data = file.data
    seen(data)
    pieces = random_pieces(random, data)
    found = outcome(pieces)
    assert found == outcome([data])
    assert tokenized(pieces) == encode(file.tree, file.writer)
    assert json_model(file, pieces) == as_json(file.tree)
    tags = tags_of(pieces)
    texts = {node.tag: node.text for node in reversed(file.tree) if isinstance(node, Value)}
    for name, tag in _NAMES.items():
        assert getattr(tags, name) == (texts.get(tag) or "")
    assert verdict_of(pieces).is_valid
    every_text = sorted(texts_of(file.tree))
    asked = dict(random.sample(every_text, k=min(len(every_text), 20)))
    chosen_tags, chosen = chosen_of(pieces, list(asked))
    assert chosen_tags == tags
    assert {attribute.path: attribute.value for attribute in chosen} == asked


def texts_of(tree: Tree, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Path and text of the standard attributes that are text, at every depth."""
    for node in tree:
        path = f"{prefix}{tag_text(node.tag)}"
        if isinstance(node, Items):
            for number, item in enumerate(node.items):
                yield from texts_of(item, f"{path}[{number}].")
        elif isinstance(node, Value) and node.text is not None and not is_private(node):
            yield path, node.text


def looking_once_or_twice(check: Callable[[Random, Seen], None]) -> Callable[[Random, Seen], None]:
    """The check, with a rewriter that keeps all, some or nothing of what it sees when it first looks at a header."""

    @wraps(check)
    def checked(random: Random, seen: Seen) -> None:
        with patch.object(rewrite, "_MAX_SEEN", random.choice([0, 20, 1000])):
            check(random, seen)

    return checked


@looking_once_or_twice
def check_rewriting(random: Random, seen: Seen) -> None:
    """M1, M2, M3, M13: with nothing to change the data set is the same but for group lengths."""
    file = random_file(random)
    seen(file.data)
    result = edit(file.data, cut=random_cut(random, file.data))
    assert body(result) == encode(without_group_lengths(file.tree), file.writer)
    assert edit(result) == result


@looking_once_or_twice
def check_edits(random: Random, seen: Seen) -> None:
    """M1, M2, M3, M6, M9: edits change what they name, and lengths around it; all else is the same bytes."""
    file = random_file(random)
    edits = random_edits(random, file)
    seen(file.data)
    cut = random_cut(random, file.data)
    expected = encode(edits.tree, file.writer)
    assert body(edit(file.data, cut=cut, **edits.keywords)) == expected, edits.keywords
    # Where no more than a little is held, some edits cannot be done: but none is done wrongly.
    with patch.object(rewrite, "HELD_BYTES", random.randrange(len(file.data))):
        result = attempt(lambda: edit(file.data, cut=min(cut, 64), **edits.keywords))
    assert result is None or body(result) == expected, edits.keywords


@looking_once_or_twice
def check_recording(random: Random, seen: Seen) -> None:
    """M1, M7: recorded edits do the same, and keep the elements as they were in one item more of (0400,0561)."""
    file = random_file(random)
    edits = random_edits(random, file)
    seen(file.data)
    cut = random_cut(random, file.data)
    result = attempt(lambda: edit(file.data, cut=cut, record_original=ModificationReason.CORRECT, **edits.keywords))
    if result is None:
        # It takes no further item where it says UN, and stands before what follows the pixels.
        is_unknown = any(isinstance(node, Items) and (node.tag, node.vr) == (_ORIGINALS, "UN") for node in file.tree)
        assert is_unknown or max(edits.tags, default=0) > PIXEL_DATA or "(7FE1," in str(edits.keywords)
        return
    expected = tuple(node for node in edits.tree if node.tag != _ORIGINALS)
    nodes = tree_of(walk(result).parts)
    others = [node for node in nodes if node.tag != _ORIGINALS]
    assert b"".join(node.header + node.value + bytes(node.inner) for node in others) == encode(expected, file.writer)
    record = b"".join(bytes(node.inner) for node in nodes if node.tag == _ORIGINALS)
    for node in file.tree:
        if node.tag in edits.tags:
            assert encode_node(node, file.writer) in record


@looking_once_or_twice
def check_deidentifying(random: Random, seen: Seen) -> None:
    """M1, M2, M9: de-identified files are the same for all pieces, have their pixels, and nothing private."""
    file = random_file(random)
    seen(file.data)
    flags = {field.name: bool(random.randrange(2)) for field in fields(Options) if field.type is bool}
    options = Options(dates=random.choice(list(Dates)), **flags)
    result = deidentified(file.data, options, random_cut(random, file.data))
    assert deidentified(file.data, options, 1 << 20) == result
    before, after = walk(file.data).parts, walk(result).parts
    assert flags["retain_safe_private"] or not any((part.tag >> 16) % 2 for part in after)
    pixels = [[part for part in parts if part.tag == PIXEL_DATA and not part.depth] for parts in (before, after)]
    assert pixels[0] == pixels[1]


@looking_once_or_twice
def check_transcoding(random: Random, seen: Seen) -> None:
    """M5: for a value that the character set cannot hold, all text becomes UTF-8, and says so."""
    file = random_file(random)
    if file.charset == "ISO_IR 192":
        return
    seen(file.data)
    name = "山田^Ж=éΩ\u0e01"
    new = new_value(0x00100010, "PN", name, file.writer, "utf-8" if file.charset != "GB18030" else "gb18030")
    tree = without_group_lengths(file.tree)
    # GB18030 holds all of Unicode.
    tree = tree if file.charset == "GB18030" else transcoded(tree, file.charset)
    assert body(edit(file.data, cut=random_cut(random, file.data), patient_name=name)) == encode(
        replaced(tree, new, file.writer), file.writer
    )


def check_cuts(random: Random, seen: Seen) -> None:
    """R9, M11: a file that is cut off anywhere but between two elements of its data set is an error, also for edits."""
    file = random_file(random)
    data = file.data
    for _ in range(6):
        cut = data[: random.randrange(len(data))]
        seen(cut)
        check_cut(file, cut)


def check_cut(file: BuiltFile, cut: bytes) -> None:
    """What a beginning of a file gives: an error, or where it ends between two elements the elements before."""
    whole = whole_elements(file, len(cut))
    readers: list[Callable[[], Any]] = [lambda: json_of([cut]), lambda: edit(cut, patient_id="NEW")]
    if whole is not None:
        assert json_model(file, [cut]) == as_json(file.tree[:whole])
        readers[1]()
        return
    for read in readers:
        with pytest.raises(ServiceError) as caught:
            read()
        assert caught.value.reason in {Reason.TRUNCATED_FILE, Reason.NOT_DICOM, Reason.EMPTY_FILE}
    assert not verdict_of([cut]).is_valid


def whole_elements(file: BuiltFile, size: int) -> int | None:
    """How many elements of the data set a beginning of so many bytes holds; None where it ends inside one, or before
    the first.
    """
    if file.writer.transfer_syntax == DEFLATED:
        # Its end mark tells where it ends; a NUL may follow that.
        is_padding = file.data.endswith(b"\0") and size == len(file.data) - 1 and _inflates(file.data[:-1])
        return len(file.tree) if is_padding else None
    end = len(file.data) - len(encode(file.tree, file.writer))
    for count, node in enumerate(file.tree, 1):
        end += len(encode_node(node, file.writer))
        if end == size:
            return count
    return None


def _inflates(data: bytes) -> bool:
    try:
        tokenized([data])
    except ServiceError:
        return False
    return True


@looking_once_or_twice
def check_damage(random: Random, seen: Seen) -> None:
    """R1, R8, R9: whatever the bytes are, an answer comes out, the same for all pieces, or a ServiceError."""
    data = damaged_file(random)
    seen(data)
    pieces = random_pieces(random, data)
    whole = outcome([data])
    assert outcome(pieces) == whole
    limits = Limits(depth=random.randrange(5), elements=random.randrange(1, 60), header_bytes=random.randrange(2000))
    check_limits(data, limits)
    attempt(lambda: json.loads(json_of(pieces)))
    attempt(lambda: tags_of(pieces))
    verdict = verdict_of(pieces)
    assert verdict == verdict_of([data])
    assert verdict.is_valid is not isinstance(whole[-2], Reason)
    assert all(problem.rule for problem in verdict.problems)
    paths = ["Rows", "(0002,0010)", "PixelData", "(FFFA,FFFA)", _NESTED.partition("=")[0]]
    assert attempt(lambda: chosen_of(pieces, paths)) == attempt(lambda: chosen_of([data], paths))
    for edits in (
        {},
        {"patient_name": "Ж^é", "remove_private_tags": True},
        {"set": (_NESTED,), "remove": ("StudyID",)},
    ):
        result = edit_outcome(data, 1 << 20, **edits)
        assert edit_outcome(data, random_cut(random, data), **edits) == result
        if isinstance(result, bytes):
            # What comes out can be read and edited again.
            assert not isinstance(outcome([result])[-2], Reason)
            assert edit(result, **edits) == result
    cut = random_cut(random, data)
    recording = {"record_original": ModificationReason.COERCE, "patient_id": "NEW", "remove": (_SEQUENCE,)}
    assert edit_outcome(data, cut, **recording) == edit_outcome(data, 1 << 20, **recording)
    attempt(lambda: edit(data, cut=cut, mode=Mode.DERIVE))
    attempt(lambda: deidentified(data, Options(), cut))


@looking_once_or_twice
def check_headers(random: Random, seen: Seen) -> None:
    """M14: what the ends of a file, whole or damaged, are edited to by themselves is what editing the file gives."""
    if random.randrange(2):
        data = damaged_file(random)
        edits = random.choice([Edits(), Edits(patient_name="Ж^é", remove_private_tags=True), Edits(set=(_NESTED,))])
    else:
        file = random_file(random)
        data, edits = file.data, Edits(**random_edits(random, file).keywords)
    if random.randrange(2):
        edits = replace(edits, patient_id="NEW", record_original=ModificationReason.COERCE)
    seen(data)
    with patch.object(heading, "INLINE_BYTES", random.choice([1, 50, 500, 8192])):
        for size in {len(data), random.randrange(len(data) + 1), min(len(data), 600)}:
            check_header(data, size, edits, ending=min(random.choice([0, 10, 300]), len(data)))


def check_header(data: bytes, size: int, edits: Edits, *, ending: int = 0) -> bool:
    """The same of the ends of a file, so many bytes at its beginning and at its end; whether they told."""
    modifying = Modifying(Limits(), clock=lambda: AT)

    def edited() -> bytes:
        rewriter = modifying.begin(edits)
        return b"".join((*rewriter.feed(data), *rewriter.close()))

    expected = result_of(edited)
    by_header = Heading(modifying, Limits(), max_file_bytes=len(data) + 1)
    ends = Ends(data[:size], data[len(data) - ending :], len(data))
    found = result_of(lambda: asyncio.run(by_header.edit(ends, edits)))
    if not isinstance(found, EditedHeader):
        assert found == expected
        return True
    if found.original is not None:
        assert found.original == result_of(lambda: tags_of([data]))
    if found.needs_whole_file:
        assert (found.tags, found.header, found.header_size) == (None, b"", 0)
        return False
    assert found.header + data[found.header_size :] == expected
    assert found.tags == tags_of([expected])
    assert found.original is not None
    return True


@looking_once_or_twice
def check_skipping(random: Random, seen: Seen) -> None:
    """M14: bulk that nobody feeds to the rewriter leaves the edited file, and every error, as it is."""
    if random.randrange(2):
        data = damaged_file(random)
        edits: dict[str, Any] = random.choice([{}, {"patient_name": "Ж^é", "remove_private_tags": True}])
    else:
        file = random_file(random)
        data, edits = file.data, random_edits(random, file).keywords
    seen(data)
    assert result_of(lambda: edited_with_gaps(random, data, edits)) == result_of(lambda: edit(data, **edits))


def edited_with_gaps(random: Random, data: bytes, edits: dict[str, Any]) -> bytes:
    """The edited file, where parts of the bulk that goes out as it is are put in their places by who kept them."""
    rewriter = rewriter_of(Edits(**edits), Limits(), at=AT, system="TEST")
    found = bytearray()
    position, size = 0, random_cut(random, data)
    while position < len(data):
        passing = min(rewriter.passing_bytes, len(data) - position)
        if passing and random.randrange(3):
            gap = random.choice([passing, random.randrange(passing + 1)])
            found += data[position : position + gap]
            rewriter.skip(gap)
            position += gap
        else:
            for piece in rewriter.feed(data[position : position + size]):
                found += piece
            position += size
    return bytes(found) + b"".join(rewriter.close())


def result_of(work: Callable[[], Any]) -> Any:
    """What it gives, or why it gives nothing."""
    try:
        return work()
    except ServiceError as error:
        return error.reason, error.metadata, error.violations


# Behind preamble, prefix and the group length of the file meta information.
_META_BEGIN = 144
_ORIGINALS = 0x04000561
_SEQUENCE = "ReferencedImageSequence"
_NESTED = "ReferencedImageSequence[0].StudyID=1"


def attempt(work: Callable[[], Any]) -> Any:
    """What it gives; None where the caller would be told an error."""
    try:
        return work()
    except ServiceError:
        return None


def check_limits(data: bytes, limits: Limits) -> None:
    """The tokens of a file stay within the limits, be it with an error."""
    tokenizer = Tokenizer(limits)
    elements = depth = header_bytes = 0
    try:
        for event in (*tokenizer.feed(data), *tokenizer.close()):
            if isinstance(event, tokens.Run):
                elements += len(event.elements)
                header_bytes += sum(stop - start for _, _, start, _, stop in event.elements)
            else:
                elements += event[0] in {tokens.BULK, tokens.FRAGMENTS, tokens.SEQUENCE, tokens.ITEM_BEGIN}
                depth += (event[0] == tokens.SEQUENCE) - (event[0] == tokens.SEQUENCE_END)
            assert elements <= limits.elements
            assert depth <= limits.depth
            assert header_bytes <= limits.header_bytes
    except ServiceError:
        pass


# The engine, asked in pieces.


def tokenized(pieces: list[bytes]) -> bytes:
    """The data set, put together of its tokens again."""
    tokenizer = Tokenizer(Limits())
    found = bytearray()

    def take(stream: Iterator[tokens.Event]) -> None:
        for event in stream:
            if isinstance(event, tokens.Run):
                for _, _, header, value, _ in elements_of(event):
                    found.extend(header + value)
            elif event[0] not in {tokens.PREAMBLE, tokens.META_ELEMENT, tokens.TRAILING}:
                found.extend(event[3] + event[4])

    for piece in pieces:
        take(tokenizer.feed(piece))
    take(tokenizer.close())
    return bytes(found)


def json_of(pieces: list[bytes]) -> bytes:
    """The DICOM JSON model."""
    writer = JsonWriter(Limits())
    for piece in pieces:
        writer.feed(piece)
    writer.close()
    return writer.data()


def tags_of(pieces: list[bytes]) -> Any:
    """The 20 attributes."""
    reader = HeaderReader(Limits())
    if not any(map(reader.feed, pieces)):
        reader.close()
    return reader.header().tags


def json_model(file: BuiltFile, pieces: list[bytes]) -> Any:
    """The DICOM JSON model of a file, or a beginning of it; for each BulkDataURI the bytes that it refers to."""
    elements = encode(file.tree, file.writer)
    begin = len(file.data) - len(elements)
    if file.writer.transfer_syntax == DEFLATED:
        begin = _META_BEGIN + int.from_bytes(file.data[140:144], "little")

    def resolved(model: Any) -> Any:
        if isinstance(model, dict):
            return {
                name: slice_of(value) if name == "BulkDataURI" else resolved(value) for name, value in model.items()
            }
        return [resolved(value) for value in model] if isinstance(model, list) else model

    def slice_of(reference: str) -> bytes:
        offset, length = map(int, reference.removeprefix("?offset=").split("&length="))
        return elements[offset - begin : offset - begin + length]

    return resolved(json.loads(json_of(pieces)))


def edit_outcome(data: bytes, cut: int, **edits: Any) -> bytes | tuple[Reason, dict[str, str]]:
    """The edited file, or why there is none."""
    try:
        return edit(data, cut=cut, **edits)
    except ServiceError as error:
        return error.reason, error.metadata


def deidentified(data: bytes, options: Options, cut: int) -> bytes:
    """The file, de-identified in pieces of a size."""
    rewriter = Rewriter((), Limits(), treatment=Profile(options, b"key of the check"))
    pieces = [piece for start in range(0, len(data), cut) for piece in rewriter.feed(data[start : start + cut])]
    return b"".join((*pieces, *rewriter.close()))


CHECKS: dict[str, Callable[[Random, Seen], None]] = {
    "reading": check_reading,
    "rewriting": check_rewriting,
    "edits": check_edits,
    "recording": check_recording,
    "deidentifying": check_deidentifying,
    "transcoding": check_transcoding,
    "cuts": check_cuts,
    "damage": check_damage,
    "headers": check_headers,
    "skipping": check_skipping,
}


def chosen_of(pieces: list[bytes], paths: list[str]) -> Any:
    """The 20 attributes and those of these paths."""
    reader = ChosenReader(choose(paths), Limits())
    if not any(map(reader.feed, pieces)):
        reader.close()
    header, attributes = reader.answer()
    return header.tags, attributes


def verdict_of(pieces: list[bytes]) -> Verdict:
    """What the file is and what is wrong with it."""
    validator = Validator(Limits())
    for piece in pieces:
        validator.feed(piece)
    validator.close()
    return validator.verdict()
