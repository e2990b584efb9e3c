"""Files that are made to exhaust whoever reads them, and what reading them takes.

python -m tests.unit.tag_service.hostile writes a JSON object for each file and reader: their names, the reason that the
file is refused for ("" where it is not), the seconds of CPU that the reader took, and the bytes of memory at most.
"""

import json
import os
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from service_runtime.errors import ServiceError
from tag_service.domain.editing.edits import Edits
from tag_service.domain.editing.rewrite import rewriter_of
from tag_service.domain.reading.dicom_json import JsonWriter
from tag_service.domain.reading.header_reader import HeaderReader
from tag_service.domain.standard.limits import MIB, Limits
from tag_service.domain.validating.validation import Validator
from tests.unit.tag_service.building import AT, DEFLATED, EXPLICIT_LITTLE, IMPLICIT_LITTLE, Writer, part10

EXPLICIT = Writer(EXPLICIT_LITTLE)
IMPLICIT = Writer(IMPLICIT_LITTLE)
UNDEFINED = 0xFFFFFFFF
MILLION = 1_000_000
PIECE_BYTES = 256 * 1024
ITEM = EXPLICIT.tag(0xFFFEE000, 0)
OPEN_ITEM = EXPLICIT.tag(0xFFFEE000, UNDEFINED)
# Without the other attributes that identify it, no reader of the 20 is done before the end of the header.
START = EXPLICIT.text(0x00080016, "UI", "1.2.840.10008.5.1.4.1.1.7") + EXPLICIT.text(0x00080018, "UI", "1.2.3.4")
HEAD = part10(START + EXPLICIT.element(0x00081030, "LO", b"x" * 64) * 16, EXPLICIT_LITTLE)


def _many(part: bytes, count: int) -> Iterator[bytes]:
    """A part over and over, in pieces."""
    together = max(1, PIECE_BYTES // len(part))
    yield from repeat(part * together, count // together)
    yield part * (count % together)


def _ascending(count: int, vr: bytes, value: bytes) -> Iterator[bytes]:
    """Elements whose tags ascend, all of one VR and value."""
    tail = vr + struct.pack("<H", len(value)) + value
    for first in range(0, count, 0x4000):
        group = struct.pack("<H", 0x0030 + first // 0x4000)
        elements = range(1, 1 + 2 * min(0x4000, count - first), 2)
        yield group + (tail + group).join(element.to_bytes(2, "little") for element in elements) + tail


def _deflated(*parts: Iterable[bytes]) -> bytes:
    stream = zlib.compressobj(1, wbits=-15)
    body = b"".join(stream.compress(piece) for part in parts for piece in part)
    return part10(body + stream.flush(), DEFLATED)


def _open_sequence(vr: str = "SQ") -> bytes:
    return EXPLICIT.header(0x00400275, vr, UNDEFINED)


# By name: the file in pieces.
FILES: dict[str, Callable[[], Iterable[bytes]]] = {
    "100,000 nested items": lambda: [HEAD, (_open_sequence() + OPEN_ITEM) * 100_000],
    "100,000 nested items in UN": lambda: [
        HEAD,
        _open_sequence("UN") + OPEN_ITEM,
        (IMPLICIT.header(0x00400275, "SQ", UNDEFINED) + OPEN_ITEM) * 100_000,
    ],
    "UN in UN in UN": lambda: [HEAD, _nested_un(60_000)],
    "UN that nearly is a sequence": lambda: [HEAD, *repeat(_nearly_a_sequence(60_000), 900)],
    "text of 4 GiB": lambda: [HEAD, EXPLICIT.header(0x00204000, "UT", UNDEFINED - 1), bytes(MIB)],
    "bulk data of 4 GiB": lambda: [HEAD, EXPLICIT.header(0x00420011, "OB", UNDEFINED - 1), bytes(MIB)],
    "sequence of 4 GiB": lambda: [HEAD, EXPLICIT.header(0x00400275, "SQ", UNDEFINED - 1), ITEM * 1000],
    "item of 4 GiB": lambda: [HEAD, _open_sequence(), EXPLICIT.tag(0xFFFEE000, UNDEFINED - 1), bytes(MIB)],
    "fragment of 4 GiB": lambda: [
        HEAD,
        EXPLICIT.header(0x00420011, "OB", UNDEFINED),
        EXPLICIT.tag(0xFFFEE000, UNDEFINED - 1),
        bytes(MIB),
    ],
    "deflated bulk data": lambda: [
        _deflated([START, EXPLICIT.header(0x00420011, "OB", 64 * MIB)], repeat(bytes(MIB), 64))
    ],
    "a million elements": lambda: chain([HEAD], _ascending(MILLION, b"LO", b"")),
    "nearly a million elements": lambda: chain([HEAD], _ascending(MILLION - 1000, b"LO", b"")),
    "one element a million times": lambda: [HEAD, *_many(EXPLICIT.element(0x00080001, "SH", b""), MILLION)],
    "endless file meta information": lambda: [
        bytes(128) + b"DICM",
        *_many(EXPLICIT.element(0x00020102, "OB", bytes(60_000)), 1000),
    ],
    "a million elements of file meta information": lambda: [
        bytes(128) + b"DICM",
        *_many(EXPLICIT.element(0x00020102, "SH", b""), MILLION + 1),
    ],
    "a million empty items": lambda: [HEAD, _open_sequence(), *_many(ITEM, MILLION)],
    "a million empty sequences": lambda: [HEAD, *_many(EXPLICIT.header(0x00400275, "SQ", 0), MILLION)],
    "a sequence of a million items that never ends": lambda: [
        HEAD,
        _open_sequence(),
        *_many(OPEN_ITEM + EXPLICIT.element(0x00080050, "SH", b"") + EXPLICIT.tag(0xFFFEE00D, 0), MILLION),
    ],
    "64 MiB of text": lambda: [HEAD, *_many(EXPLICIT.element(0x00204000, "UT", b"x" * 1_000_000), 70)],
}


def _nearly_a_sequence(size: int) -> bytes:
    """A value of VR UN that is an item, but for its end."""
    item = IMPLICIT.tag(0xFFFEE000, UNDEFINED) + IMPLICIT.element(0x00111001, "UN", b"") * (size // 8)
    return EXPLICIT.element(0x00111001, "UN", item + bytes(8))


def _nested_un(size: int) -> bytes:
    """A value of VR UN that is an item with a UN in it, and so on."""
    value = b""
    while len(value) < size:
        value = IMPLICIT.tag(0xFFFEE000, len(value) + 8) + IMPLICIT.tag(0x00111001, len(value)) + value
        if len(value) % 4096 < 16:
            value = IMPLICIT.tag(0x00400275, len(value)) + value
    return EXPLICIT.element(0x00111001, "UN", value)


class _Editor:
    """A rewriter of which nobody keeps what it writes."""

    def __init__(self, limits: Limits) -> None:
        self._rewriter = rewriter_of(Edits(patient_id="MRN8"), limits, at=AT, system="TEST")

    def feed(self, data: bytes) -> None:
        for _ in self._rewriter.feed(data):
            pass

    def close(self) -> None:
        for _ in self._rewriter.close():
            pass


READERS: dict[str, Callable[[Limits], Any]] = {
    "20 tags": HeaderReader,
    "JSON": JsonWriter,
    "validator": Validator,
    "editor": _Editor,
}


def _measure(name: str, pieces: list[bytes], kind: str) -> dict[str, Any]:
    """Feeds a file to a reader, piece by piece; only what the reader does is counted."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _memory("VmRSS")
    began = time.process_time()
    reader = READERS[kind](Limits())
    try:
        for piece in pieces:
            for start in range(0, len(piece), PIECE_BYTES):
                reader.feed(piece[start : start + PIECE_BYTES])
        reader.close()
        reason = ""
        if isinstance(reader, Validator):
            reason = "".join(problem.code for problem in reader.verdict().problems if problem.severity == "error")
        elif isinstance(reader, JsonWriter):
            reader.data()
    except ServiceError as error:
        reason = error.reason
    taken = time.process_time() - began
    return {"file": name, "reader": kind, "reason": reason, "seconds": taken, "bytes": _memory("VmHWM") - before}


def _memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def main() -> None:
    """Measures each file with each reader in a process of its own, which finds no memory that another has left."""
    for name, make in FILES.items():
        pieces = list(make())
        children = []
        for kind in READERS:
            child = os.fork()
            if not child:
                sys.stdout.write(json.dumps(_measure(name, pieces, kind)) + "\n")
                sys.stdout.flush()
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)


if __name__ == "__main__":
    main()
