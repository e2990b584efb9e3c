"""Editing a file while it streams: pieces of the file in, pieces of the edited file out, memory of a header.

The header is held until all of it has come, up to HELD_BYTES, so that what its edits depend on is known; what is wrong
with the edits or the header is told before a byte is given. From there on each piece is written as it comes. What no
edit touches is written as the bytes it came as, bulk data without a copy.

An error once pieces were given leaves them without their end: whoever passes them on must not let them pass for a file.
"""

import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from service_runtime.errors import InvalidFieldError, Reason, ServiceError, Violation
from tag_service.domain import charset, dictionary, edits, file_meta, paths, provenance, tokens, values
from tag_service.domain.charset import Charsets, CharsetError
from tag_service.domain.edits import Edit
from tag_service.domain.elements import MAX_SHORT_FORM_BYTES, element, header, is_short_form, item_header
from tag_service.domain.limits import MIB, Limits
from tag_service.domain.paths import Attribute, PrivateAttribute
from tag_service.domain.plan import Addition, Node, tree_of
from tag_service.domain.provenance import MODIFIED_ATTRIBUTES_SEQUENCE, ORIGINAL_ATTRIBUTES_SEQUENCE, Provenance
from tag_service.domain.scope import END, OpenSequence, Scope, addition_bytes
from tag_service.domain.survey import (
    PATIENT_ID,
    SERIES_INSTANCE_UID,
    SOP_INSTANCE_UID,
    SPECIFIC_CHARACTER_SET,
    STUDY_INSTANCE_UID,
    Survey,
)
from tag_service.domain.text import text_of
from tag_service.domain.tokenizer import Tokenizer
from tag_service.domain.tokens import Run, Token
from tag_service.domain.transcode import UTF_8_VALUE, conflict, text_vr, transcoded
from tag_service.domain.transfer_syntax import IMPLICIT_LE, Encoding
from tag_service.domain.treatment import Fate, Identity, Treatment
from tag_service.domain.vr import UNDEFINED_LENGTH
from tag_service.domain.window import Window

# A header may be longer; what stands behind is edited as it comes.
HELD_BYTES: Final = 8 * MIB
_FILE_META_GROUP: Final = 0x0002
_DERIVED_UIDS: Final = (STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, SOP_INSTANCE_UID)
