"""Editing one whole file in memory: bytes and edits in, the bytes of the edited file out.

The same file and the same edits always give the same bytes: nothing here asks for the time or for chance.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from service_runtime.errors import Reason, ServiceError
from tag_service.domain import apply, dataset, file_meta
from tag_service.domain.edits import Edits, plan
from tag_service.domain.limits import Limits
from tag_service.domain.scopes import root
from tag_service.domain.serialise import in_pieces, serialise

_DIRECTORY_RECORD_SEQUENCE = 0x00041220
_FILE_META_GROUP = 0x0002


@dataclass(frozen=True, slots=True)
class Edited:
    """An edited file: its bytes in parts of any size, in order, and its SOPInstanceUID ("" where it has none)."""

    parts: tuple[bytes, ...]
    sop_instance_uid: str

    @property
    def size_bytes(self) -> int:
        """The length of the file."""
        return sum(map(len, self.parts))

    @property
    def data(self) -> bytes:
        """The whole file in one piece, which copies it."""
        return b"".join(self.parts)


def rewrite(data: bytes, edits: Edits, limits: Limits) -> Edited:
    """The file with the edits applied; what no edit names stays as it is, byte by byte.

    Besides the edits, group lengths are dropped, the file meta information is renewed, and the preamble is zeroed. A
    file without preamble or file meta information comes out with both.

    Raises what `edits.plan` and `dataset.load` raise, INVALID_FIELD for an edit that does not fit this file,
    CHARSET_CONFLICT, EDIT_REFUSED for a DICOMDIR and where no element is left, and MALFORMED_DICOM for file meta
    information inside the data set.
    """
    planned = plan(edits)
    file = dataset.load(data, limits)
    if any(element.tag == _DIRECTORY_RECORD_SEQUENCE for element in file.elements):
        # PS3.3 F.3.2.2: its records point to each other by their offsets in the file.
        raise ServiceError(Reason.EDIT_REFUSED, "A DICOMDIR cannot be edited: make a new one of the edited files.")
    before = file_meta.identity(file.elements)
    apply.drop_elements(file, private=edits.remove_private_tags)
    apply.apply(file, planned)
    if not file.elements:
        raise ServiceError(Reason.EDIT_REFUSED, "The edits leave no element in the data set.")
    if file.elements[0].tag >> 16 == _FILE_META_GROUP:
        # Behind the new file meta information it would be read as a part of it.
        raise ServiceError(Reason.MALFORMED_DICOM, "The data set holds file meta information among its elements.")
    body = serialise(file.elements, root(file).encoding)
    body = _deflate(body) if file.deflated else chain(body, (file.trailing,))
    parts = tuple(in_pieces(chain((file_meta.write(file, before),), body)))
    return Edited(parts, file_meta.uid_in(file.elements, file_meta.SOP_INSTANCE_UID))


def _deflate(parts: Iterator[bytes]) -> Iterator[bytes]:
    """The data set deflated, with a NUL to even length (PS3.5 A.5, RFC 1951)."""
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    size = 0
    for part in parts:
        deflated = stream.compress(part)
        size += len(deflated)
        yield deflated
    deflated = stream.flush()
    yield deflated + b"\0" * ((size + len(deflated)) % 2)
