"""The reading half, asked in one call, and its tree written back byte by byte."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pydicom.data

from service_runtime.errors import ServiceError
from tag_service.domain.parsing import tokens
from tag_service.domain.parsing.tokenizer import Tokenizer
from tag_service.domain.standard.limits import Limits
from tests.unit.tag_service.tree import DicomFile, Element, Fragments, Items

TEST_FILES = Path(pydicom.data.__file__).parent / "test_files"
CHARSET_FILES = Path(pydicom.data.__file__).parent / "charset_files"


def bytes_of(name: str) -> bytes:
    """One of pydicom's test files."""
    return (TEST_FILES / name).read_bytes()


def cut(data: bytes, size: int) -> list[bytes]:
    """The data in pieces of this size."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def elements_of(run: tokens.Run) -> list[tuple[int, str, bytes, bytes, int]]:
    """Tag, VR, header, value and offset of each element of a run."""
    buffer = run.buffer
    return [
        (tag, vr, buffer[start:value], buffer[value:stop], run.base + start)
        for tag, vr, start, value, stop in run.elements
    ]


def outcome(pieces: Iterable[bytes], limits: Limits | None = None) -> list[object]:
    """The elements and tokens of a file, chunks of one value joined, and its problems; at the end the reason that ended
    it early.
    """
    tokenizer = Tokenizer(limits or Limits())
    found: list[object] = []
    chunk = b""

    def take(stream):
        nonlocal chunk
        for token in stream:
            if isinstance(token, tokens.Run):
                found.extend(elements_of(token))
                continue
            if token[0] in {tokens.CHUNK, tokens.TRAILING}:
                chunk += token[4]
                continue
            if chunk:
                found.append(chunk)
                chunk = b""
            found.append(token)

    try:
        for piece in pieces:
            take(tokenizer.feed(piece))
        take(tokenizer.close())
    except ServiceError as error:
        # What of a value came before the error depends on the cuts.
        return [*found, error.reason, error.metadata]
    return [*found, chunk, tokenizer.problems, tokenizer.transfer_syntax_uid, tokenizer.encoding]


def every(elements: list[Element]) -> Iterator[Element]:
    """The elements and those in their items, in the order of the file."""
    for element in elements:
        yield element
        if isinstance(element.value, Items):
            for item in element.value.items:
                yield from every(item.elements)


def written(file: DicomFile) -> bytes:
    """The bytes that the tree keeps: those of the file, when nothing was lost."""
    start = file.preamble + b"DICM" if file.preamble else b""
    return start + _written(file.meta) + _written(file.elements) + file.trailing


def _written(elements: list[Element]) -> bytes:
    parts = []
    for element in elements:
        parts.append(element.header)
        if isinstance(element.value, Items):
            parts += [item.header + _written(item.elements) + item.delimiter for item in element.value.items]
            parts.append(element.value.delimiter)
        elif isinstance(element.value, Fragments):
            parts.append(element.value.data)
        else:
            parts.append(element.value)
    return b"".join(parts)
