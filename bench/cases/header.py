"""Reading a header: tag_service's tokenizer and its reader of the 20 attributes against pydicom, in this process.

Each reads the file from memory up to its pixel data. pydicom leaves the values of elements, and with them the items of
sequences of defined length, unread until they are asked for: where a header is mostly such sequences, it is asked.
"""

import io
import statistics
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

import pydicom

from bench.case import Finding, Group, Row, at_most
from bench.lab import Lab
from tag_service.domain.parsing import tokens
from tag_service.domain.parsing.tokenizer import Tokenizer
from tag_service.domain.reading.header_reader import HeaderReader
from tag_service.domain.standard.dictionary import PIXEL_TAGS
from tag_service.domain.standard.limits import Limits
from tests.files import sample_bytes

PLAIN = (
    "CT_small.dcm",
    "MR_small.dcm",
    "MR_small_implicit.dcm",
    "MR_small_bigendian.dcm",
    "JPEG2000.dcm",
    "693_J2KI.dcm",
)
MOSTLY_SEQUENCES = ("reportsi.dcm", "rtplan.dcm", "rtdose.dcm")
TOKENIZING_BAR = at_most(0.20)
TAGS_BAR = at_most(0.35)
ROUNDS = 100
REPEAT = 4
_BULK = frozenset({tokens.BULK, tokens.FRAGMENTS})


async def _measure(_lab: Lab, _wanted: frozenset[str]) -> AsyncIterator[Finding]:
    """The microseconds of CPU that each takes for a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = [row for name in PLAIN for row in _compare(name, _pydicom, "pydicom")]
        for name in MOSTLY_SEQUENCES:
            rows += _compare(name, _pydicom_whole, "pydicom, sequences read")
    for row in rows:
        yield row


def _compare(name: str, theirs: Callable[[bytes], None], against: str) -> Iterator[Row]:
    ways = {"tokens": _tokenize, "tags": _read_tags, "theirs": theirs}
    taken = _in_turns(ways, _up_to_pixels(sample_bytes(name)))
    for what, way, bar in (("tokens", "tokens", TOKENIZING_BAR), ("20 attributes", "tags", TAGS_BAR)):
        yield Row("header", f"{what} of {name}", taken[way], "us", reference=taken["theirs"], bar=bar, against=against)


def _in_turns(ways: dict[str, Callable[[bytes], None]], content: bytes) -> dict[str, float]:
    """The median of the microseconds of CPU that each way takes, in short turns, so that all see the same machine."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            began = time.process_time()
            for _ in range(REPEAT):
                way(content)
            taken[name].append(time.process_time() - began)
    return {name: statistics.median(seconds) / REPEAT * 1e6 for name, seconds in taken.items()}


def _up_to_pixels(content: bytes) -> bytes:
    """The file up to the header of its pixel data, so that nobody spends time on what is behind."""
    for event in Tokenizer(Limits()).feed(content):
        if not isinstance(event, tokens.Run) and event[0] in _BULK and event[1] in PIXEL_TAGS:
            return content[: event[5] + len(event[3])]
    return content


def _tokenize(content: bytes) -> None:
    for _ in Tokenizer(Limits()).feed(content):
        pass


def _read_tags(content: bytes) -> None:
    reader = HeaderReader(Limits())
    if not reader.feed(content):
        reader.close()
    reader.header()


def _pydicom(content: bytes) -> None:
    pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True).get("PatientID")


def _pydicom_whole(content: bytes) -> None:
    for _ in pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True).iterall():
        pass


GROUPS: Final = (Group(("header",), _measure),)
