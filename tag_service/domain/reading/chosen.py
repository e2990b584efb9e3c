"""Which attributes a request asks for, and what it gets of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from service_runtime.errors import InvalidFieldError, Violation
from tag_service.domain.reading.wanted import Found
from tag_service.domain.standard import paths
from tag_service.domain.standard.charset import Decoded
from tag_service.domain.standard.dictionary import entry_of, is_private_creator, tag_text
from tag_service.domain.standard.numbers import NUMBERS, SIZES, numbers, tags
from tag_service.domain.standard.paths import Attribute, Path, PathError
from tag_service.domain.standard.text import text_of
from tag_service.domain.standard.vr import BULK_VRS, VRS

MAX_CHOSEN: Final = 200


@dataclass(frozen=True, slots=True)
class Choice:
    """The paths that a request asks for: as it spells them, and parsed."""

    texts: tuple[str, ...] = ()
    paths: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class ChosenAttribute:
    """One attribute that was asked for; ris.tags.v1.Attribute explains the fields."""

    path: str
    tag: str = ""
    vr: str = ""
    value: str = ""
    is_present: bool = False
    item_count: int = 0
    size_bytes: int = 0


def choose(texts: Sequence[str]) -> Choice:
    """The paths of ris.tags.v1.ReadTagsRequest.tags. Raises INVALID_FIELD with a violation for each wrong one."""
    if len(texts) > MAX_CHOSEN:
        raise InvalidFieldError(Violation("tags", f"holds more than {MAX_CHOSEN} paths"))
    chosen: dict[Path, str] = {}
    violations: list[Violation] = []
    for index, text in enumerate(texts):
        field = f"tags[{index}]"
        try:
            path = paths.parse(text, paths.unreadable)
        except PathError as error:
            violations.append(Violation(field, str(error)))
            continue
        if path in chosen:
            violations.append(Violation(field, f"names what {chosen[path]} names already"))
        chosen.setdefault(path, field)
    if violations:
        raise InvalidFieldError(*violations)
    return Choice(tuple(texts), tuple(chosen))


def shown(text: str, attribute: Attribute, found: Found | None) -> tuple[ChosenAttribute, bool]:
    """What was found of an attribute that the request spells `text`, and whether its value is exact."""
    if found is None:
        return ChosenAttribute(text), True
    vr, little = _vr_of(attribute, found)
    tag = tag_text(found.tag)
    if found.item_count is not None:
        return ChosenAttribute(text, tag, vr, is_present=True, item_count=found.item_count), True
    value = found.value
    if value is None or (value and vr in BULK_VRS) or len(value) % SIZES.get(vr, 1):
        return ChosenAttribute(text, tag, vr, is_present=True, size_bytes=found.size_bytes), True
    decoded = _decoded(found, vr, value, little=little)
    return ChosenAttribute(text, tag, vr, decoded.text, is_present=True), decoded.exact


def _vr_of(attribute: Attribute, found: Found) -> tuple[str, bool]:
    """The VR of a value that was found, and whether its bytes are little endian."""
    vr = found.vr if found.vr in VRS else "UN"
    little = found.scope.encoding.little_endian
    if vr == "UN":
        # Whoever wrote UN kept the value as implicit VR little endian (PS3.5 6.2.2).
        known = "LO" if is_private_creator(found.tag) else paths.vr_of(attribute)
        return (known if known in VRS and known != "SQ" else vr), True
    if vr == "US" and not found.scope.encoding.explicit and found.scope.is_signed:
        entry = entry_of(found.tag)
        vr = "SS" if entry is not None and "SS" in entry[0] else vr
    return vr, little


def _decoded(found: Found, vr: str, value: bytes, *, little: bool) -> Decoded:
    if vr in NUMBERS:
        return Decoded("\\".join(map(repr, numbers(vr, value, little=little))))
    if vr == "AT":
        return Decoded("\\".join(map(tag_text, tags(value, little=little))))
    return text_of(value, vr, found.scope.charsets)
