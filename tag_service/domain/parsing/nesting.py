"""The sequences and items that are open around an element: what may begin and end there, and where it is."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from service_runtime.errors import Reason, ServiceError
from tag_service.domain.parsing.headers import PLAIN_HEADER
from tag_service.domain.parsing.tokens import FRAGMENTS, ITEM_BEGIN, ITEM_END, SEQUENCE, SEQUENCE_END, Token
from tag_service.domain.standard.dictionary import PIXEL_TAGS, is_private, tag_text
from tag_service.domain.standard.limits import Limits
from tag_service.domain.standard.transfer_syntax import IMPLICIT_LE, Encoding
from tag_service.domain.standard.vr import BULK_VRS, ITEM, ITEM_DELIMITATION, SEQUENCE_DELIMITATION, UNDEFINED_LENGTH

# The end of what ends at its delimiter.
OPEN: Final = 1 << 62
_FRAGMENT_VRS: Final = BULK_VRS - {"UN"}
_MAX_PATH_STEPS: Final = 8


@dataclass(slots=True)
class Frame:
    """An open sequence or item: where it ends (OPEN: at its delimiter), how what is in it is encoded, its count."""

    tag: int
    is_sequence: bool
    end: int
    encoding: Encoding
    count: int = 0


class Nesting:
    """The stack of what is open, the data set itself at its bottom, and the errors that say where they are."""

    def __init__(self, limits: Limits) -> None:
        self.stack: list[Frame] = []
        self._limits = limits

    def begin(self, encoding: Encoding) -> None:
        """Begins the data set."""
        self.stack.append(Frame(0, is_sequence=False, end=OPEN, encoding=encoding))

    def path_of(self, tag: int) -> str:
        """Where an element with this tag (0: none) stands at this moment: the sequences and items around it, and it."""
        steps = [
            tag_text(frame.tag) if frame.is_sequence else f"[{parent.count - 1}]."
            for parent, frame in pairwise(self.stack)
        ]
        if len(steps) > _MAX_PATH_STEPS:
            steps[:-_MAX_PATH_STEPS] = ["..."]
        # Between a sequence and its items there is no element: the tag is then the sequence's own.
        in_sequence = bool(self.stack) and self.stack[-1].is_sequence
        return ("".join(steps) + (tag_text(tag) if tag and not in_sequence else "")).removesuffix(".")

    def kind_of(self, tag: int, vr: str, offset: int) -> tuple[int, str]:
        """The kind of an element of undefined length, and its VR."""
        if vr in _FRAGMENT_VRS or tag in PIXEL_TAGS:
            return FRAGMENTS, vr
        if vr == "UN":
            return SEQUENCE, vr
        if is_private(tag) and not self.stack[-1].encoding.explicit:
            return SEQUENCE, "UN"
        raise self.malformed(tag, offset, "its VR does not allow an undefined length", rule="PS3.5 7.1.2")

    def enter_sequence(self, tag: int, vr: str, header: bytes, length: int, offset: int) -> Token:
        """Begins a sequence."""
        frame = self.stack[-1]
        if len(self.stack) // 2 >= self._limits.depth:
            raise self.too_much("depth", self._limits.depth)
        end = OPEN if length == UNDEFINED_LENGTH else offset + len(header) + length
        if end > frame.end and end != OPEN:
            raise self.malformed(tag, offset, "it is longer than the item it stands in")
        encoding = IMPLICIT_LE if vr == "UN" else frame.encoding
        self.stack.append(Frame(tag, is_sequence=True, end=end, encoding=encoding))
        return (SEQUENCE, tag, vr, header, b"", offset)

    def enter_or_end(self, header: bytes, offset: int) -> Token:
        """What stands in a sequence: an item, or the delimitation of the sequence."""
        frame = self.stack[-1]
        group, element, length = PLAIN_HEADER[frame.encoding.little_endian](header)
        tag = group << 16 | element
        if tag == ITEM:
            end = OPEN if length == UNDEFINED_LENGTH else offset + 8 + length
            if end > frame.end and end != OPEN:
                raise self.malformed(0, offset, "an item is longer than its sequence")
            frame.count += 1
            self.stack.append(Frame(frame.tag, is_sequence=False, end=end, encoding=frame.encoding))
            return (ITEM_BEGIN, ITEM, "", header, b"", offset)
        if tag == SEQUENCE_DELIMITATION and frame.end == OPEN:
            self.stack.pop()
            return (SEQUENCE_END, frame.tag, "", header, b"", offset)
        raise self.malformed(0, offset, "what stands in the sequence is no item")

    def leave(self, offset: int) -> Token:
        """The end of a sequence or item of defined length."""
        frame = self.stack.pop()
        if offset > frame.end:
            raise self.malformed(0, offset, "what stands in it is longer than it")
        kind = SEQUENCE_END if frame.is_sequence else ITEM_END
        return (kind, frame.tag if frame.is_sequence else ITEM, "", b"", b"", offset)

    def leave_by_delimiter(self, tag: int, header: bytes, offset: int) -> Token:
        """The end of an item of undefined length."""
        frame = self.stack[-1]
        if tag != ITEM_DELIMITATION or len(self.stack) == 1 or frame.end != OPEN:
            raise self.malformed(0, offset, "a delimiter or item stands where an element should")
        self.stack.pop()
        return (ITEM_END, ITEM, "", header, b"", offset)

    def truncated(self, tag: int, offset: int) -> ServiceError:
        """The error for a file that ends inside an element (0: an unknown one)."""
        where = self.path_of(tag)
        return ServiceError(
            Reason.TRUNCATED_FILE,
            f"The file ends inside {where or 'an element'}, at or behind offset {offset}.",
            metadata={"tag": where, "offset": str(offset)},
        )

    def malformed(self, tag: int, offset: int, what: str, *, rule: str = "PS3.5 7.5") -> ServiceError:
        """The error for a structure that is broken; `rule` is the paragraph that it breaks, by default of sequences."""
        where = self.path_of(tag)
        return ServiceError(
            Reason.MALFORMED_DICOM,
            f"The structure is broken at offset {offset}{f', {where}' if where else ''}: {what}.",
            metadata={"tag": where, "offset": str(offset), "rule": rule},
        )

    def too_much(self, what: str, limit: int) -> ServiceError:
        """The error for a structure that goes past a limit."""
        return ServiceError(
            Reason.STRUCTURE_LIMIT,
            f"The structure of the file goes past the limit of {limit} on {what}.",
            metadata={"limit": what, "limit_value": str(limit)},
        )
