"""Edits applied to a tree.

Values that the character set in force cannot hold are left out at first: once every edit is applied, the whole file is
transcoded and they are filled in. So text that an edit replaces or removes never stands in the way of transcoding.
"""

from dataclasses import dataclass, field

from service_runtime.errors import InvalidFieldError, Violation
from tag_service.domain import charset, dictionary, edits, paths, values
from tag_service.domain.charset import CharsetError
from tag_service.domain.dataset import DicomFile, Element, Item, Items
from tag_service.domain.edits import Edit
from tag_service.domain.paths import Attribute, PrivateAttribute, Step
from tag_service.domain.scopes import Scope, insert, root, scopes
from tag_service.domain.serialise import MAX_SHORT_FORM_BYTES, is_short_form
from tag_service.domain.transcode import transcode

_PIXEL_REPRESENTATION = 0x00280103
# Private blocks are reserved by elements (gggg,0010) to (gggg,00FF) (PS3.5 7.8.1).
_BLOCKS = range(0x10, 0x100)


@dataclass(slots=True)
class _Pending:
    """A new value that waits for the file to be transcoded."""

    edit: Edit
    element: Element
    text: str
    scope: Scope


@dataclass(slots=True)
class _Work:
    """What there is to do for a file, and what came up on the way."""

    file: DicomFile
    pending: list[_Pending] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)


class _NotInFile(Exception):  # noqa: N818 - no error when something is to be removed
    """A path that leads nowhere in this file; the message is a violation's description."""


def drop_elements(file: DicomFile, *, private: bool) -> None:
    """Removes the group lengths (gggg,0000), and where asked for all that is private, at every depth."""
    for scope in scopes(file):
        kept = [
            element
            for element in scope.elements
            if element.tag & 0xFFFF and not (private and dictionary.is_private(element.tag))
        ]
        if len(kept) < len(scope.elements):
            scope.elements[:] = kept


def apply(file: DicomFile, planned: tuple[Edit, ...]) -> None:
    """Changes the tree. Raises INVALID_FIELD for what only the file could tell, and CHARSET_CONFLICT."""
    work = _Work(file)
    for edit in planned:
        try:
            scope = _enter(file, edit)
            if edit.value is None:
                _remove(scope, edit.path.attribute)
            else:
                _set(work, scope, edit, edit.value)
        except _NotInFile as problem:
            # What is absent need not be removed.
            if edit.value is not None:
                work.violations.append(Violation(edit.field, str(problem)))
    if not work.violations and work.pending:
        transcode(file)
        for pending in work.pending:
            encoded = values.pad(pending.element.vr, charset.encode(pending.text, charset.UTF_8, pending.element.vr))
            _put(work, pending.edit, pending.element, encoded, pending.scope)
    if work.violations:
        raise InvalidFieldError(*work.violations)


def _enter(file: DicomFile, edit: Edit) -> Scope:
    """The scope that the steps of a path lead to; for a new value, item 0 of an absent or empty sequence is made."""
    scope = root(file)
    for step in edit.path.steps:
        scope = _step(scope, step, make=edit.value is not None)
    return scope


def _step(scope: Scope, step: Step, *, make: bool) -> Scope:
    found = _find(scope, step.sequence)
    if len(found) > 1:
        raise _NotInFile("leads into a sequence that the file holds more than once")
    element = found[0] if found else None
    if element is None or element.value == b"":
        if step.item or not make:
            raise _NotInFile("leads into an item that the file does not hold")
        element = _make_sequence(scope, step.sequence, element)
    items = element.value
    if not isinstance(items, Items):
        raise _NotInFile("leads into an attribute that is no sequence in the file")
    if make and step.item == 0 and not items.items:
        items.items.append(Item(b"", []))
    if step.item >= len(items.items):
        raise _NotInFile("leads into an item that the file does not hold")
    return scope.inside(items, step.item)


def _make_sequence(scope: Scope, attribute: Attribute, empty: Element | None) -> Element:
    if paths.vr_of(attribute) != "SQ":
        raise _NotInFile("leads into an attribute that is not known to be a sequence")
    if empty is not None:
        empty.vr, empty.header, empty.value = "SQ", b"", Items([])
        return empty
    element = Element(_new_tag(scope, attribute), "SQ", b"", Items([]))
    insert(scope.elements, element)
    return element


def _remove(scope: Scope, attribute: Attribute) -> None:
    found = {id(element) for element in _find(scope, attribute)}
    if found:
        scope.elements[:] = [element for element in scope.elements if id(element) not in found]


def _set(work: _Work, scope: Scope, edit: Edit, text: str) -> None:
    attribute = edit.path.attribute
    found = _find(scope, attribute)
    vr = _vr(work.file, scope, attribute, found)
    if problem := edits.check(attribute, vr, text):
        work.violations.append(Violation(edit.field, problem))
        return
    if not found:
        element = Element(_new_tag(scope, attribute), vr, b"", b"")
        insert(scope.elements, element)
        found = [element]
    # An attribute that the file holds twice is changed twice, for readers differ in which one they take.
    for element in found:
        _write(work, scope, edit, element, vr=vr, text=text)


def _vr(file: DicomFile, scope: Scope, attribute: Attribute, found: list[Element]) -> str:
    """The VR of a new value: the dictionary's, else that of the file."""
    vr = paths.vr_of(attribute)
    in_file = found[0].vr if found and scope.encoding.explicit else ""
    if isinstance(attribute, PrivateAttribute):
        # What is known of private attributes comes second to what the maker wrote.
        vr = in_file if in_file in values.SETTABLE_VRS else vr
        if not vr:
            raise _NotInFile("sets a private attribute whose VR neither the dictionary nor the file tells")
    if vr == edits.EITHER_INTEGER_VR:
        # PS3.5 A.1: it follows from PixelRepresentation.
        vr = in_file if in_file in {"US", "SS"} else ("SS" if _has_signed_pixels(file, scope) else "US")
    return vr


def _has_signed_pixels(file: DicomFile, scope: Scope) -> bool:
    for around in (scope, root(file)):
        for element in around.elements:
            if element.tag == _PIXEL_REPRESENTATION and isinstance(element.value, bytes):
                return any(element.value)
    return False


def _write(work: _Work, scope: Scope, edit: Edit, element: Element, *, vr: str, text: str) -> None:
    """Gives an element a value, or makes it wait for one."""
    try:
        encoded = values.encode(
            vr,
            text,
            little_endian=scope.encoding.little_endian,
            encode_text=lambda text: charset.encode(text, scope.charsets, vr),
        )
    except CharsetError:
        element.vr, element.header, element.value = vr, b"", b""
        work.pending.append(_Pending(edit, element, text, scope))
        return
    element.vr = vr
    _put(work, edit, element, encoded, scope)


def _put(work: _Work, edit: Edit, element: Element, encoded: bytes, scope: Scope) -> None:
    if is_short_form(element.vr, scope.encoding) and len(encoded) > MAX_SHORT_FORM_BYTES:
        problem = f"takes more than the {MAX_SHORT_FORM_BYTES} bytes that an attribute of VR {element.vr} may have"
        work.violations.append(Violation(edit.field, problem))
        return
    element.header, element.value = b"", encoded


def _find(scope: Scope, attribute: Attribute) -> list[Element]:
    """The elements of an attribute; more than one where the file breaks the rules, or a creator has several blocks."""
    if isinstance(attribute, PrivateAttribute):
        tags = {_private_tag(attribute, block) for block in _blocks(scope, attribute)}
    else:
        tags = {attribute}
    return [element for element in scope.elements if element.tag in tags]


def _blocks(scope: Scope, attribute: PrivateAttribute) -> list[int]:
    """The blocks that the creator has reserved in this scope."""
    first = attribute.group << 16
    return [
        element.tag & 0xFF
        for element in scope.elements
        if first + _BLOCKS.start <= element.tag < first + _BLOCKS.stop
        and isinstance(element.value, bytes)
        and charset.decode(element.value, scope.charsets, "LO").text.strip(" \0") == attribute.creator
    ]


def _private_tag(attribute: PrivateAttribute, block: int) -> int:
    return attribute.group << 16 | block << 8 | attribute.element


def _new_tag(scope: Scope, attribute: Attribute) -> int:
    """The tag for an attribute that is absent; its creator reserves a block where it has none."""
    if not isinstance(attribute, PrivateAttribute):
        return attribute
    if reserved := _blocks(scope, attribute):
        return _private_tag(attribute, reserved[0])
    # A block is also taken where elements lie in it without a creator.
    elements = [element.tag & 0xFFFF for element in scope.elements if element.tag >> 16 == attribute.group]
    taken = {element if element < 0x100 else element >> 8 for element in elements}
    block = next((block for block in _BLOCKS if block not in taken), None)
    if block is None:
        raise _NotInFile("sets a private attribute in a group that has no block left")
    # A creator that comes this far is one of the private dictionary, all of which are ASCII.
    creator = values.pad("LO", charset.encode(attribute.creator, scope.charsets, "LO"))
    insert(scope.elements, Element(attribute.group << 16 | block, "LO", b"", creator))
    return _private_tag(attribute, block)
