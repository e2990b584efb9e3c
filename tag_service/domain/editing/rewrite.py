"""Editing a file while it streams: pieces of the file in, pieces of the edited file out, memory of a header.

The header is held until all of it has come, up to HELD_BYTES, so that what its edits depend on is known; what is wrong
with the edits or the header is told before a byte is given. From there on each piece is written as it comes. What no
edit touches is written as the bytes it came as, bulk data without a copy.

The same file and the same edits always give the same bytes: nothing here asks for the time, and only Derive for chance.
"""

import zlib
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import chain
from typing import Any, Final

from service_runtime.errors import ServiceError
from tag_service.domain.editing import file_meta
from tag_service.domain.editing.edits import Edit, Edits, Mode, plan
from tag_service.domain.editing.plan import Addition, Node, tree_of
from tag_service.domain.editing.provenance import Provenance
from tag_service.domain.editing.survey import (
    PATIENT_ID,
    SERIES_INSTANCE_UID,
    SOP_INSTANCE_UID,
    STUDY_INSTANCE_UID,
    Survey,
)
from tag_service.domain.editing.treatment import Both, Derive, Fate, Identity, RemovePrivate, Treatment
from tag_service.domain.editing.writer import DataSetWriter
from tag_service.domain.parsing.tokenizer import Tokenizer
from tag_service.domain.parsing.tokens import DATA_SET, TRAILING, Event, Run
from tag_service.domain.reading.dicom_tags import FIELDS, DicomTags
from tag_service.domain.standard import charset, paths
from tag_service.domain.standard.charset import CharsetError, Charsets
from tag_service.domain.standard.dictionary import implicit_vr
from tag_service.domain.standard.limits import MIB, Limits
from tag_service.domain.standard.paths import Attribute
from tag_service.domain.standard.text import text_of

# A header may be longer; what stands behind is edited as it comes.
HELD_BYTES: Final = 8 * MIB
# The elements and tokens of a header that are kept beside its bytes, which spares most files being parsed twice.
_MAX_SEEN: Final = 1000
# Of what was held, as much is written at a time.
_PART_BYTES: Final = 256 * 1024
_UIDS: Final = (STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, SOP_INSTANCE_UID)


class Rewriter:
    """One file. `feed` it piece by piece, then `close` it; each gives the pieces of the edited file that are ready.

    After an error both give nothing more, and the pieces given before are no file: whoever passed them on must break
    off. Raises what reading the file raises, INVALID_FIELD for an edit that does not fit it, CHARSET_CONFLICT,
    EDIT_REFUSED, and MALFORMED_DICOM for file meta information inside the data set.

    The result has no group lengths, renewed file meta information, and a preamble of zeros, whatever the file had.
    """

    def __init__(
        self,
        edits: tuple[Edit, ...],
        limits: Limits,
        *,
        treatment: Treatment | None = None,
        record: Provenance | None = None,
        noted: frozenset[int] = frozenset(),
        watch: Callable[[Event], object] | None = None,
    ) -> None:
        """`edits` are planned; `treatment` comes to what they leave; `record` asks for the prior values to be kept in
        the file itself; `noted` are attributes of the data set that `text_before` is to tell; `watch` is called with
        the events of the header as it came, in order.
        """
        self._limits = limits
        self._treatment = treatment
        self._record = record
        self._root = tree_of(edits, treatment.additions() if treatment else ())
        self._survey = Survey(
            self._root, limits, recorded=self._recorded() if record else frozenset(), noted=noted, see=self._see
        )
        self._held: deque[bytes] = deque()
        self._held_bytes = 0
        # What is written of the header already.
        self._ready: list[bytes] = []
        self._tokenizer = self._survey.tokenizer
        self._writer: DataSetWriter | None = None
        self._deflater: _Deflater | None = None
        self._has_ended = False
        self._watch = watch
        # What the survey saw, None where that is too much to keep.
        self._seen: list[Event] | None = []
        self._seen_size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Takes in a piece."""
        if self._writer is not None:
            pieces: list[bytes] = []
            while self._held:
                pieces += self.catch_up()
            return pieces + self._write(self._writer, self._tokenizer.feed(data))
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > _PART_BYTES:
            self._seen = None
        is_known = self._survey.feed(data)
        # The file meta information is all that may take more, up to the limit on header bytes.
        if not is_known and (self._held_bytes <= HELD_BYTES or not self._survey.has_begun):
            return []
        if not is_known:
            self._survey.leave_off()
        self._begin()
        return self.catch_up()

    def end_header(self) -> None:
        """Takes in the end of the file as far as it ends the header; `close` does so, too, but all in one."""
        if self._writer is None:
            self._survey.close()
            self._begin()

    @property
    def is_behind(self) -> bool:
        """Whether some of a header that was held is not written yet, which may take long: `catch_up` then."""
        return self._writer is not None and bool(self._held)

    def catch_up(self) -> list[bytes]:
        """Writes a part of what was held; gives nothing before all of that is written."""
        assert self._writer is not None  # noqa: S101 - it is behind
        taken = 0
        while self._held and taken < _PART_BYTES:
            taken += len(self._held[0])
            self._ready += self._write(self._writer, self._tokenizer.feed(self._held.popleft()))
        if self._held or self._survey.has_closed:
            return []
        self._writer.findings.end_header()
        ready, self._ready = self._ready, []
        return ready

    def close(self) -> list[bytes]:
        """Takes in the end of the file."""
        self.end_header()
        pieces: list[bytes] = []
        while self._held:
            pieces += self.catch_up()
        writer = self._writer
        assert writer is not None  # noqa: S101 - it has begun
        pieces += self._ready
        pieces += self._write(writer, self._tokenizer.close())
        if not self._has_ended:
            self._has_ended = True
            writer.end()
        writer.findings.end_header()
        pieces += self._out(writer.window.pieces())
        if self._deflater is not None:
            pieces += self._deflater.close()
        return pieces

    @property
    def held_bytes(self) -> int:
        """How much of the file is held at this moment."""
        if self._writer is None or self._held:
            return self._held_bytes
        return self._writer.window.held_bytes

    @property
    def may_have_pixels(self) -> bool:
        """Whether the file has pixel data, or is not read far enough to tell."""
        return self._survey.has_pixel_data or not self._survey.done

    def text_before(self, tag: int, vr: str) -> str:
        """The value that the header had for an identifier, or for an attribute that is noted, "" where none was."""
        charsets = self._survey.facts[self._root].charsets or charset.DEFAULT
        return text_of(self._survey.values.get(tag, b""), vr, charsets).text

    def tags_after(self, before: DicomTags) -> DicomTags | None:
        """What becomes of the attributes of a header where all is in order; None where only the edited file tells."""
        writer = self._writer
        keeps_uids = self._treatment is None or isinstance(self._treatment, RemovePrivate)
        if writer is None or writer.to_utf_8 or not keeps_uids:
            return None
        changed: dict[str, Any] = {}
        for tag, name in FIELDS.items():
            edit = self._root.edits.get(tag)
            if isinstance(edit, Edit):
                changed[name] = text_of((edit.value or "").encode("utf-8"), implicit_vr(tag), charset.UTF_8).text
        return before._replace(**changed)

    def passes_on(self, size: int) -> bool:
        """Whether a piece of this many bytes would lie in a bulk value, and so take next to no time."""
        is_under_way = self._writer is not None and not self._held
        return is_under_way and self._deflater is None and self._tokenizer.bulk_left >= size

    @property
    def passing_bytes(self) -> int:
        """How many of the bytes that come next in the file go out as they are, so that nobody need see them."""
        if self._writer is None or self._held or self._deflater is not None or not self._writer.passes_chunks:
            return 0
        return self._tokenizer.bulk_left

    def skip(self, size: int) -> None:
        """Passes over so many of the `passing_bytes`: they are not fed, and stand next in the edited file."""
        assert self._writer is not None  # noqa: S101 - it has passing bytes
        self._tokenizer.skip(size)
        self._writer.window.pass_over(size)

    def _see(self, event: Event) -> Event:
        """Takes notice of what the survey sees."""
        if self._watch is not None:
            self._watch(event)
        if self._seen is not None:
            self._seen.append(event)
            self._seen_size += len(event.elements) if isinstance(event, Run) else 1
            if self._seen_size > _MAX_SEEN:
                self._seen = None
        return event

    def _begin(self) -> None:
        """Begins to write, with what the survey knows."""
        survey = self._survey
        encoding = survey.tokenizer.encoding
        if self._treatment is not None:
            self._treatment.begin(self._identity())
        self._writer = DataSetWriter(
            self._root,
            survey,
            encoding,
            to_utf_8=_needs_utf_8(self._root, survey),
            treatment=self._treatment,
            record=self._record,
        )
        before = {tag: file_meta.uid_of(survey.values.get(tag, b"")) for tag in file_meta.MIRRORED}
        after = {tag: self._uid_after(tag, uid) for tag, uid in before.items()}
        meta = file_meta.treated(survey.meta, self._treatment) if self._treatment else survey.meta
        self._ready = [file_meta.write(meta, survey.tokenizer.transfer_syntax_uid, before=before, after=after)]
        if encoding.deflated:
            self._deflater = _Deflater()
        if self._seen is None:
            survey.tokenizer.stop()
            self._tokenizer = Tokenizer(self._limits)
            return
        # Written at once, of what was seen, and no second look is taken at the bytes.
        seen, self._seen = self._seen, None
        self._held.clear()
        self._ready += self._write(self._writer, chain(seen, self._tokenizer.rest()))

    def _write(self, writer: DataSetWriter, stream: Iterable[Event]) -> list[bytes]:
        try:
            writer.take(self._in_data_set(writer, stream))
        except ServiceError:
            # What is wrong in the header is told before what is wrong behind it, however much of that came with it.
            writer.findings.end_header()
            raise
        return self._out(writer.window.pieces())

    def _in_data_set(self, writer: DataSetWriter, stream: Iterable[Event]) -> Iterable[Event]:
        """The tokens of the data set; what is before it is known, what is behind it only padding."""
        for token in stream:
            if not isinstance(token, Run):
                if token[0] == TRAILING:
                    self._end_data_set(writer, token[4])
                    continue
                if token[0] <= DATA_SET:
                    continue
            yield token

    def _end_data_set(self, writer: DataSetWriter, padding: bytes) -> None:
        if not self._has_ended:
            self._has_ended = True
            writer.end()
        # What pads a deflated stream stands behind it; it is deflated anew, and padded anew.
        if self._deflater is None:
            writer.window.write(padding)

    def _out(self, pieces: list[bytes]) -> list[bytes]:
        return pieces if self._deflater is None else [out for piece in pieces if (out := self._deflater.take(piece))]

    def _identity(self) -> Identity:
        return Identity(self._patient_id(), *(self.text_before(tag, "UI") for tag in _UIDS))

    def _patient_id(self) -> str:
        charsets = self._survey.facts[self._root].charsets or charset.DEFAULT
        value = self._survey.values.get(PATIENT_ID, b"")
        decoded = text_of(value, "LO", charsets)
        # A best guess may be the same for two patients.
        return decoded.text if decoded.exact else value.decode("latin-1").strip(" \0")

    def _uid_after(self, tag: int, uid: str) -> str:
        """What a UID of the data set becomes."""
        edit = self._root.edits.get(tag)
        if edit is not None:
            return str(edit.value or "")
        if self._treatment is None or not uid:
            return uid
        fate = self._treatment.fate(tag, "UI", "")
        return self._treatment.replacement(tag, "UI", uid) if fate is Fate.REPLACE else uid

    def _recorded(self) -> frozenset[Attribute]:
        """The attributes of the data set whose prior values are recorded."""
        edited = [attribute for attribute, edit in self._root.edits.items() if not isinstance(edit, Addition)]
        changes_uids = (
            self._treatment is not None and self._treatment.fate(STUDY_INSTANCE_UID, "UI", "") is Fate.REPLACE
        )
        return frozenset((*edited, *self._root.items, *(_UIDS if changes_uids else ())))


def rewriter_of(
    edits: Edits, limits: Limits, *, at: datetime, system: str, watch: Callable[[Event], object] | None = None
) -> Rewriter:
    """The rewriter for what a caller asks for; `at` and `system` are recorded where prior values are; `watch` as there.

    Raises what `edits.plan` raises.
    """
    planned = plan(edits)
    treatment: Treatment | None = RemovePrivate() if edits.remove_private_tags else None
    if edits.mode is Mode.DERIVE:
        named = {edit.path.attribute: edit.value for edit in planned if not edit.path.steps and edit.value}
        derive = Derive({tag: named[tag] for tag in Derive.depends_on if tag in named})
        treatment = Both(treatment, derive) if treatment else derive
    # Private attributes that are all removed are not recorded, for that would keep them.
    changes = bool(planned) or edits.mode is Mode.DERIVE
    record = Provenance(edits.record_original, at, system) if edits.record_original and changes else None
    return Rewriter(planned, limits, treatment=treatment, record=record, watch=watch)


def _needs_utf_8(root: Node, survey: Survey) -> bool:
    """Whether the character set in force somewhere cannot hold the new value that an edit sets there."""
    waiting: list[tuple[Node, Charsets]] = [(root, charset.DEFAULT)]
    while waiting:
        node, inherited = waiting.pop()
        facts = survey.facts.get(node)
        charsets = (facts.charsets if facts else None) or inherited
        for attribute, edit in node.edits.items():
            if isinstance(edit, Edit) and edit.value and not edit.value.isascii():
                try:
                    charset.encode(edit.value, charsets, paths.vr_of(attribute) or "LO")
                except CharsetError:
                    return True
        waiting += [(item, charsets) for items in node.items.values() for item in items.values()]
    return False


class _Deflater:
    """The data set deflated, with a NUL to even length (PS3.5 A.5, RFC 1951)."""

    def __init__(self) -> None:
        self._stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        self._size = 0

    def take(self, data: bytes) -> bytes:
        """What is ready."""
        deflated = self._stream.compress(data)
        self._size += len(deflated)
        return deflated

    def close(self) -> list[bytes]:
        """The rest."""
        deflated = self._stream.flush()
        return [deflated + b"\0" * ((self._size + len(deflated)) % 2)]
