"""Editing a file by its ends, for a caller who has the file and need not send all of it."""

from collections.abc import Iterator
from dataclasses import dataclass

from service_runtime.errors import InvalidFieldError, Reason, Violation
from service_runtime.zip_format import too_large
from tag_service.domain.editing.edits import Edits
from tag_service.domain.editing.rewrite import Rewriter
from tag_service.domain.reading.dicom_tags import DicomTags
from tag_service.domain.reading.header_reader import HeaderReader
from tag_service.domain.standard.limits import Limits
from tag_service.use_cases.feeding import INLINE_BYTES, feed, parts_of
from tag_service.use_cases.modifying import Modifying
from tag_service.use_cases.rewriting import closed, fed


@dataclass(frozen=True, slots=True)
class Ends:
    """What is known of a file: its first bytes, its last ones (they may overlap, and be none), and its size."""

    beginning: bytes
    ending: bytes
    file_size: int


@dataclass(frozen=True, slots=True)
class EditedHeader:
    """The edited file is `header`, and behind it the file from `header_size` on. `original` are the attributes of the
    file, `tags` those of the edited one. Where the ends do not tell (`needs_whole_file`), there is no header, and of
    the attributes at most the original ones.
    """

    original: DicomTags | None
    tags: DicomTags | None = None
    header: bytes = b""
    header_size: int = 0
    needs_whole_file: bool = False


class Heading:
    """Edits files by their ends, within limits; a file may have `max_file_bytes`."""

    def __init__(self, modifying: Modifying, limits: Limits, *, max_file_bytes: int) -> None:
        self._modifying = modifying
        self._limits = limits
        self._max_file_bytes = max_file_bytes

    async def edit(self, ends: Ends, edits: Edits) -> EditedHeader:
        """What comes of a file with these ends. Raises what `Rewriting.streamed` does of the file, and
        FILE_TOO_LARGE, INVALID_FIELD for a size that cannot be.
        """
        if ends.file_size < max(len(ends.beginning), len(ends.ending)):
            raise InvalidFieldError(Violation("file_size", "is less than what came of the file"))
        if ends.file_size > self._max_file_bytes:
            raise too_large(Reason.FILE_TOO_LARGE, "The file", "MAX_DICOM_FILE_SIZE_MB", self._max_file_bytes)
        reader = HeaderReader(self._limits)
        rewriter = self._modifying.begin(edits, watch=reader.watch)
        edited = await _edited(ends, rewriter)
        # What the header holds is known where all of it was seen, and else where it is enough.
        original = reader.header().tags if edited is not None or reader.done else None
        if edited is None:
            return EditedHeader(original, needs_whole_file=True)
        header, header_size = edited
        tags = rewriter.tags_after(original) if original is not None and reader.in_order else None
        if tags is None:
            tags = await self._tags(header, ends.beginning[header_size:])
        return EditedHeader(original, tags, header, header_size)

    async def _tags(self, header: bytes, rest: bytes) -> DicomTags:
        """The attributes of a file that consists of these two, as far as they go."""
        reader = HeaderReader(self._limits)
        if not (await feed(reader, header) or await feed(reader, rest)):
            reader.close()
        return reader.header().tags


async def _edited(ends: Ends, rewriter: Rewriter) -> tuple[bytes, int] | None:
    """The new header, and the size of what it stands for; None where the ends do not tell."""
    beginning, file_size = ends.beginning, ends.file_size
    is_whole = len(beginning) == file_size
    ending = beginning if is_whole else ends.ending
    pieces: list[bytes] = []
    taken = 0
    for part in _parts_of(beginning, rewriter):
        pieces += await fed(rewriter, part)
        taken += len(part)
        if 0 < rewriter.passing_bytes >= file_size - taken - len(ending):
            break
    # What is not looked at has to lie in one value that goes out as it is; what follows that has to be there.
    left = file_size - taken
    passing = min(left, rewriter.passing_bytes)
    if left - passing > len(ending) or (left and not passing):
        return None
    if passing:
        rewriter.skip(passing)
    behind = ending[len(ending) - (left - passing) :]
    last = [*(await fed(rewriter, behind) if behind else ()), *await closed(rewriter)]
    if b"".join(last) != behind:
        if not is_whole:
            return None
        pieces += [beginning[taken : taken + passing], *last]
        taken = file_size
    # What the edited file ends with as the beginning does need not be sent back.
    while pieces and beginning.endswith(pieces[-1], 0, taken):
        taken -= len(pieces.pop())
    return b"".join(pieces), taken


def _parts_of(beginning: bytes, rewriter: Rewriter) -> Iterator[bytes]:
    """The beginning in parts: a first one, where most headers end, that takes no worker."""
    yield beginning[:INLINE_BYTES]
    if len(beginning) > INLINE_BYTES:
        yield from parts_of(beginning[INLINE_BYTES:], rewriter)
