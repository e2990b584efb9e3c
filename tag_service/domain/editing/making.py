"""What edits add to a file: attributes, sequences, items, and the record of what was there before."""

from __future__ import annotations

from collections.abc import Callable

from service_runtime.errors import Reason, ServiceError
from tag_service.domain.editing import provenance
from tag_service.domain.editing.edits import Edit
from tag_service.domain.editing.findings import Findings
from tag_service.domain.editing.new_values import UNKNOWN_VR, WrongEdit, new_element, vr_of_new
from tag_service.domain.editing.plan import Addition, Node
from tag_service.domain.editing.provenance import MODIFIED_ATTRIBUTES_SEQUENCE, ORIGINAL_ATTRIBUTES_SEQUENCE, Provenance
from tag_service.domain.editing.scope import END, OpenSequence, Scope, addition_bytes
from tag_service.domain.editing.survey import SPECIFIC_CHARACTER_SET, Survey
from tag_service.domain.editing.transcode import UTF_8_VALUE
from tag_service.domain.editing.treatment import Treatment
from tag_service.domain.editing.window import Window
from tag_service.domain.standard import charset, dictionary, paths
from tag_service.domain.standard.charset import Charsets
from tag_service.domain.standard.elements import element, header, item_header
from tag_service.domain.standard.paths import Attribute, PrivateAttribute
from tag_service.domain.standard.transfer_syntax import Encoding


class Maker:
    """Writes to `window` what is not in the file. `root` is the scope of the data set; `replay` writes the recorded
    values, in a scope where nothing is edited.
    """

    def __init__(
        self,
        node: Node,
        survey: Survey,
        encoding: Encoding,
        *,
        to_utf_8: bool,
        treatment: Treatment | None,
        record: Provenance | None,
        replay: Callable[[Scope], None],
    ) -> None:
        self.window = Window()
        self.findings = Findings()
        self._survey = survey
        self._to_utf_8 = to_utf_8
        self._record = record
        self._replay = replay
        self.root = self.scope(node, encoding, charset.DEFAULT, treatment)
        if to_utf_8:
            self.root.expect(SPECIFIC_CHARACTER_SET)
        if record is not None:
            self.root.expect(ORIGINAL_ATTRIBUTES_SEQUENCE)

    def scope(self, node: Node | None, encoding: Encoding, charsets: Charsets, treatment: Treatment | None) -> Scope:
        """A scope, with what is due in it."""
        if node is None:
            return Scope(encoding, charsets, treatment)
        facts = self._survey.facts_of(node)
        scope = Scope(encoding, facts.charsets or charsets, treatment, node, facts)
        for attribute, edit in node.edits.items():
            if isinstance(edit, Addition) or edit.value is not None:
                scope.expect(attribute)
        for attribute, items in node.items.items():
            if any(item.sets_values for item in items.values()):
                scope.expect(attribute)
        return scope

    def new(self, scope: Scope, edit: Edit, text: str, tag: int, file_vr: str) -> bytes:
        """An element with a new value; `file_vr` is "" where the file holds none. Nothing where that is wrong."""
        charsets = charset.UTF_8 if self._to_utf_8 else scope.charsets
        try:
            return new_element(
                edit.path.attribute, text, tag, file_vr=file_vr, scope=scope, root=self.root, charsets=charsets
            )
        except WrongEdit as problem:
            self.findings.violate(edit, str(problem))
            return b""

    def add_due(self, scope: Scope, tag: int) -> None:
        """Writes what comes before an element with this tag."""
        while scope.due and scope.due[0][0] < tag:
            at, _, attribute = scope.due.pop(0)
            if isinstance(attribute, int) or at & 0xFFFF >= 0x1000:
                self._add(scope, attribute, at)
            elif scope.facts is not None and not scope.facts.holds(attribute):
                self._reserve(scope, attribute)

    def _reserve(self, scope: Scope, attribute: PrivateAttribute) -> None:
        assert scope.node is not None  # noqa: S101 - attributes are added where edits name them
        edit = scope.node.edits.get(attribute)
        if isinstance(edit, Edit) and not vr_of_new(attribute, "", scope, self.root):
            self.findings.violate(edit, UNKNOWN_VR)
            return
        if edit is None and paths.vr_of(attribute) != "SQ":
            self.findings.violate_all(
                scope.node.items[attribute], "leads into an attribute that is not known to be a sequence"
            )
            return
        tag, creator = scope.reserve(attribute)
        if tag is None:
            problem = "sets a private attribute in a group that has no block left"
            if isinstance(edit, Edit):
                self.findings.violate(edit, problem)
            else:
                self.findings.violate_all(scope.node.items[attribute], problem)
            return
        self.window.write(creator)
        scope.expect_at(tag, attribute)

    def _add(self, scope: Scope, attribute: Attribute, tag: int) -> None:
        """Writes an attribute, unless the scope holds it."""
        assert scope.facts is not None  # noqa: S101 - attributes are added where edits name them
        assert scope.node is not None  # noqa: S101 - as above
        if tag in scope.facts.tags or attribute in scope.entered:
            return
        scope.added.add(attribute)
        if scope is self.root and attribute == SPECIFIC_CHARACTER_SET:
            self.window.write(element(SPECIFIC_CHARACTER_SET, "CS", UTF_8_VALUE, scope.encoding))
        elif scope is self.root and attribute == ORIGINAL_ATTRIBUTES_SEQUENCE and self._record is not None:
            self._make_record_sequence()
        else:
            edit = scope.node.edits.get(attribute)
            if isinstance(edit, Addition):
                self.window.write(addition_bytes(edit, scope.encoding))
            elif edit is not None:
                self.window.write(self.new(scope, edit, edit.value or "", tag, ""))
            else:
                self.make_sequence(scope, tag, scope.node.items[attribute])

    def make_sequence(self, scope: Scope, tag: int, items: dict[int, Node]) -> None:
        """Writes a sequence with the one item that edits may make."""
        further = {number: node for number, node in items.items() if number and node.sets_values}
        self.findings.violate_all(further, "leads into an item that the file does not hold")
        first = items.get(0)
        if first is None or not first.sets_values:
            return
        if not dictionary.is_private(tag) and paths.vr_of(tag) != "SQ":
            self.findings.violate_all({0: first}, "leads into an attribute that is not known to be a sequence")
            return
        self._begin_made_sequence(scope.encoding, tag)
        self.make_item(first, scope)
        self.window.end()

    def _begin_made_sequence(self, encoding: Encoding, tag: int) -> None:
        self.window.begin(header(tag, "SQ", 0, encoding), little=encoding.little_endian, is_item=False)

    def make_item(self, node: Node, around: Scope | OpenSequence) -> None:
        """Writes a new item with the values that are set in it; as deep as a path, which has its limit, leads."""
        self.window.begin(item_header(around.encoding), little=around.encoding.little_endian, is_item=True)
        self.add_due(self.scope(node, around.encoding, around.charsets, None), END)
        self.window.end()

    # The record of prior values.

    def records_in(self, vr: str) -> bool:
        """Whether the record goes into an Original Attributes Sequence of this VR, which the file has. Raises
        EDIT_REFUSED where it cannot.
        """
        if self._record is None or ORIGINAL_ATTRIBUTES_SEQUENCE in self.root.added:
            # A second one stays as it is.
            return False
        if vr == "UN" and self.root.encoding.explicit:
            raise ServiceError(
                Reason.EDIT_REFUSED,
                "The file's Original Attributes Sequence is encoded as UN, so that nothing can be recorded in it. Edit "
                "without record_original.",
                metadata={"tag": dictionary.tag_text(ORIGINAL_ATTRIBUTES_SEQUENCE)},
            )
        self.root.added.add(ORIGINAL_ATTRIBUTES_SEQUENCE)
        return True

    def record_instead(self, value: bytes | None) -> bytes | None:
        """Writes the record in place of an Original Attributes Sequence that came as an empty element."""
        if ORIGINAL_ATTRIBUTES_SEQUENCE in self.root.added:
            return None
        self.records_in("SQ" if value == b"" else "UN")
        self._make_record_sequence()
        return b""

    def _make_record_sequence(self) -> None:
        self._begin_made_sequence(self.root.encoding, ORIGINAL_ATTRIBUTES_SEQUENCE)
        self.make_record(self.root.encoding)
        self.window.end()

    def make_record(self, encoding: Encoding) -> None:
        """Writes an item of the Original Attributes Sequence (PS3.3 C.12.1.1.9)."""
        assert self._record is not None  # noqa: S101 - asked for only then
        little = encoding.little_endian
        self.window.begin(item_header(encoding), little=little, is_item=True)
        self._begin_made_sequence(encoding, MODIFIED_ATTRIBUTES_SEQUENCE)
        self.window.begin(item_header(encoding), little=little, is_item=True)
        self._replay(Scope(encoding, self.root.charsets))
        self.window.end()
        self.window.end()
        self.window.write(provenance.facts_of(self._record, encoding))
        self.window.end()
