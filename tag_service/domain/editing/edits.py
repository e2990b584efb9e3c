"""The edits that a caller asks for, and the checks that need no file."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from service_runtime.errors import InvalidFieldError, Reason, ServiceError, Violation
from tag_service.domain.editing.provenance import ORIGINAL_ATTRIBUTES_SEQUENCE, ModificationReason
from tag_service.domain.standard import paths, values
from tag_service.domain.standard.paths import Attribute, Path, PathError, PrivateAttribute

PATIENT_ID = 0x00100020
_PATIENT_SEX = 0x00100040
# What identifies an instance and its kind: never without a value, replaced only with `force`.
_GUARDED_UIDS = {
    0x00080016: "SOPClassUID",
    0x00080018: "SOPInstanceUID",
    0x0020000D: "StudyInstanceUID",
    0x0020000E: "SeriesInstanceUID",
}
# Enumerated values that are checked besides the VR (PS3.3 C.7.1.1).
_ENUMERATED = {_PATIENT_SEX: ("M", "F", "O")}
# The keywords of the edits that have a field of their own, its name, and their paths.
_NAMED = {
    "PatientID": "patient_id",
    "PatientName": "patient_name",
    "PatientBirthDate": "patient_birth_date",
    "PatientSex": "patient_sex",
    "AccessionNumber": "accession_number",
    "StudyDate": "study_date",
    "StudyDescription": "study_description",
}
_PATHS = {keyword: paths.parse(keyword) for keyword in _NAMED}
# PS3.6 leaves these VRs to (0028,0103), so the file decides.
EITHER_INTEGER_VR = "US or SS"

# Every edit looks through the elements around it, of which there may be a million.
_MAX_EDITS = 200


class Mode(StrEnum):
    """`CORRECT`: the file stays the instance that it is. `DERIVE`: it becomes a new one, with UIDs of its own."""

    CORRECT = "CORRECT"
    DERIVE = "DERIVE"


@dataclass(frozen=True, slots=True)
class Edits:
    """The edits of ris.tags.v1.ModifyTagsRequest. None leaves an attribute alone, "" empties it.

    `record_original` is why prior values are recorded in the file, None where they are not.
    """

    patient_id: str | None = None
    patient_name: str | None = None
    patient_birth_date: str | None = None
    patient_sex: str | None = None
    accession_number: str | None = None
    study_date: str | None = None
    study_description: str | None = None
    remove_private_tags: bool = False
    set: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    force: bool = False
    mode: Mode = Mode.CORRECT
    record_original: ModificationReason | None = None


@dataclass(frozen=True, slots=True)
class Edit:
    """One change: `value` is the new one as text, None removes. `field` is where the request asked for it."""

    field: str
    path: Path
    value: str | None


def plan(edits: Edits) -> tuple[Edit, ...]:
    """The single edits, checked as far as they can be without the file.

    Raises INVALID_FIELD with a violation for each wrong value; EDIT_REFUSED for an edit that takes an identifier away,
    or replaces a UID without `force`.
    """
    planned: list[Edit] = []
    violations: list[Violation] = []
    if len(edits.set) + len(edits.remove) > _MAX_EDITS:
        raise InvalidFieldError(Violation("set", f"holds, with remove, more than {_MAX_EDITS} edits"))
    for field, text, value in _requested(edits):
        try:
            edit = _parse(field, text, value)
        except PathError as error:
            violations.append(Violation(field, str(error)))
            continue
        planned.append(edit)
        if problem := _problem_of(edit, edits):
            violations.append(Violation(field, problem))
    violations += _clashes(planned)
    if violations:
        raise InvalidFieldError(*violations)
    for edit in planned:
        _refuse_loss_of_identity(edit, force=edits.force)
    return tuple(planned)


def _requested(edits: Edits) -> Iterator[tuple[str, str, str | None]]:
    """The fields that ask for something, each with its PATH (of `set`: PATH=VALUE) and new value (of `set`: None)."""
    for keyword, name in _NAMED.items():
        value: str | None = getattr(edits, name)
        if value is not None:
            yield keyword, keyword, value
    for index, text in enumerate(edits.set):
        yield f"set[{index}]", text, None
    for index, text in enumerate(edits.remove):
        yield f"remove[{index}]", text, None


def _parse(field: str, text: str, value: str | None) -> Edit:
    if field in _NAMED:
        return Edit(field, _PATHS[field], value)
    if field.startswith("set["):
        text, value = paths.split_assignment(text)
    return Edit(field, paths.parse(text), value)


def _problem_of(edit: Edit, edits: Edits) -> str:
    """What is wrong with an edit by itself; "" when nothing."""
    if edit.value is None:
        if edits.record_original and not edit.path.steps and edit.path.attribute == ORIGINAL_ATTRIBUTES_SEQUENCE:
            return "removes what record_original adds to"
        return ""
    if edits.remove_private_tags and edit.path.is_private:
        return "sets a private attribute, which remove_private_tags takes away"
    attribute = edit.path.attribute
    vr = paths.vr_of(attribute)
    if vr:
        return check(attribute, vr, edit.value)
    # The file may tell the VR of a private attribute.
    return "" if isinstance(attribute, PrivateAttribute) else "names a tag that the dictionary does not know"


def check(attribute: Attribute, vr: str, value: str) -> str:
    """What is wrong with a new value of an attribute that has, or takes, this VR; "" when nothing."""
    vm = paths.vm_of(attribute)
    if vr == EITHER_INTEGER_VR:
        is_either = not values.check("US", value, vm) or not values.check("SS", value, vm)
        return "" if is_either else "is no value of VR US or SS"
    if vr not in values.SETTABLE_VRS:
        return f"names an attribute of VR {vr}, which cannot be set from text"
    if problem := values.check(vr, value, vm):
        return problem
    enumerated = _ENUMERATED.get(attribute) if isinstance(attribute, int) else None
    if value and enumerated and value not in enumerated:
        return f"is none of {', '.join(enumerated)}"
    return ""


def _clashes(planned: list[Edit]) -> Iterator[Violation]:
    """Edits of one path, and edits inside a sequence that another edit removes."""
    by_path: dict[tuple[tuple[paths.Step, ...], Attribute], str] = {}
    for edit in planned:
        key = (edit.path.steps, edit.path.attribute)
        if key in by_path:
            yield Violation(edit.field, f"edits what {by_path[key]} edits already")
        by_path.setdefault(key, edit.field)
    for edit in planned:
        for depth, step in enumerate(edit.path.steps):
            if (other := by_path.get((edit.path.steps[:depth], step.sequence))) is not None:
                yield Violation(edit.field, f"edits an item of a sequence that {other} edits already")
                break


def _refuse_loss_of_identity(edit: Edit, *, force: bool) -> None:
    if edit.path.steps:
        return  # an identifier inside a sequence is a reference to something else
    tag = edit.path.attribute
    is_emptied = edit.value is None or not edit.value.strip(" ")
    if tag == PATIENT_ID and is_emptied:
        raise _refused(edit, "PatientID cannot be removed or emptied.")
    name = _GUARDED_UIDS.get(tag) if isinstance(tag, int) else None
    if name is not None and is_emptied:
        raise _refused(edit, f"{name} cannot be removed or emptied.")
    if name is not None and not force:
        raise _refused(edit, f"{name} is replaced only with force=true.")


def _refused(edit: Edit, message: str) -> ServiceError:
    return ServiceError(Reason.EDIT_REFUSED, message, metadata={"field": edit.field})
