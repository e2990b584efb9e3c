"""Elements with new values: as an edit sets them, or as a treatment replaces them."""

from typing import Final

from tag_service.domain.editing import edits
from tag_service.domain.editing.scope import Scope
from tag_service.domain.editing.transcode import conflict
from tag_service.domain.editing.treatment import Fate, Treatment
from tag_service.domain.standard import charset, dictionary, paths, values
from tag_service.domain.standard.charset import CharsetError, Charsets
from tag_service.domain.standard.elements import MAX_SHORT_FORM_BYTES, element, is_short_form
from tag_service.domain.standard.paths import Attribute, PrivateAttribute
from tag_service.domain.standard.text import text_of

UNKNOWN_VR: Final = "sets a private attribute whose VR neither the dictionary nor the file tells"


class WrongEdit(Exception):  # noqa: N818 - it is told as a violation, among others
    """A value that does not fit this file; the message is a violation's description."""


def new_element(
    attribute: Attribute, text: str, tag: int, *, file_vr: str, scope: Scope, root: Scope, charsets: Charsets
) -> bytes:
    """The element that an edit makes of an attribute; `file_vr` is "" where the file holds none.

    Raises WrongEdit, and CHARSET_CONFLICT where the character set cannot hold the text.
    """
    vr = vr_of_new(attribute, file_vr, scope, root)
    if not vr:
        raise WrongEdit(UNKNOWN_VR)
    # For what the dictionary says, it was checked before there was a file.
    if vr != paths.vr_of(attribute) and (problem := edits.check(attribute, vr, text)):
        raise WrongEdit(problem)
    try:
        value = values.encode(
            vr,
            text,
            little_endian=scope.encoding.little_endian,
            encode_text=lambda text: charset.encode(text, charsets, vr),
        )
    except CharsetError:
        # The file's character set was taken for another one, which is known by now to be wrong.
        raise conflict(tag, "is to hold a value that the character set of its item cannot") from None
    if is_short_form(vr, scope.encoding) and len(value) > MAX_SHORT_FORM_BYTES:
        raise WrongEdit(f"takes more than the {MAX_SHORT_FORM_BYTES} bytes that an attribute of VR {vr} may have")
    return element(tag, vr, value, scope.encoding)


def vr_of_new(attribute: Attribute, file_vr: str, scope: Scope, root: Scope) -> str:
    """The VR of a new value: the dictionary's, else that of the file; "" where neither tells."""
    vr = paths.vr_of(attribute)
    in_file = file_vr if scope.encoding.explicit else ""
    if isinstance(attribute, PrivateAttribute):
        # What is known of private attributes comes second to what the maker wrote.
        return in_file if in_file in values.SETTABLE_VRS else vr
    if vr == edits.EITHER_INTEGER_VR:
        # PS3.5 A.1: it follows from PixelRepresentation.
        return in_file if in_file in {"US", "SS"} else ("SS" if _has_signed_pixels(scope, root) else "US")
    return vr


def _has_signed_pixels(scope: Scope, root: Scope) -> bool:
    for around in (scope, root):
        if around.facts is not None and around.facts.has_signed_pixels is not None:
            return around.facts.has_signed_pixels
    return False


def treated(scope: Scope, treatment: Treatment, tag: int, vr: str, value: bytes | None) -> bytes | None:
    """What a treatment makes of an element, None where it stays; its value is None for one of bulk data."""
    fate = treatment.fate(tag, vr, scope.creator_of(tag))
    if fate is Fate.KEEP:
        return None
    if fate is Fate.REMOVE:
        return b""
    known = dictionary.implicit_vr(tag) if vr == "UN" else vr
    if fate is Fate.EMPTY or known not in values.SETTABLE_VRS:
        return element(tag, vr, b"", scope.encoding)
    text = None
    if value is not None:
        text = text_of(value, known, scope.charsets).text if value and known in values.TEXTUAL_VRS else ""
    new = treatment.replacement(tag, known, text)
    if new == text and known in values.TEXTUAL_VRS:
        return None
    encoded = values.encode(
        known, new, little_endian=scope.encoding.little_endian, encode_text=lambda text: text.encode("ascii")
    )
    is_too_long = is_short_form(known, scope.encoding) and len(encoded) > MAX_SHORT_FORM_BYTES
    # PS3.5 6.2.2: what is too long for its VR is UN.
    return element(tag, "UN" if is_too_long else known, encoded, scope.encoding)
