"""De-identification as the rewriter sees it: what becomes of each element, what takes its place, and what is added."""

from typing import Final

from service_runtime.errors import Reason, ServiceError
from tag_service.domain.deidentify import safe
from tag_service.domain.deidentify.actions import PATIENT_ID, Action, actions_of
from tag_service.domain.deidentify.cleaning import cleaned
from tag_service.domain.deidentify.options import Dates, Options, methods
from tag_service.domain.deidentify.pseudonyms import Pseudonyms, shifted
from tag_service.domain.editing.plan import Addition
from tag_service.domain.editing.treatment import Fate, Identity
from tag_service.domain.standard import dictionary

# What a value that says nothing looks like, for each VR whose values are text or numbers (PS3.5 6.2).
_DUMMIES: Final = {
    "AE": "ANONYMOUS",
    "AS": "000Y",
    "CS": "ANONYMOUS",
    "DA": "19000101",
    "DS": "0",
    "DT": "19000101000000",
    "FD": "0",
    "FL": "0",
    "IS": "0",
    "LO": "ANONYMOUS",
    "LT": "ANONYMOUS",
    "PN": "ANONYMOUS",
    "SH": "ANONYMOUS",
    "SL": "0",
    "SS": "0",
    "ST": "ANONYMOUS",
    "SV": "0",
    "TM": "000000",
    "UC": "ANONYMOUS",
    "UL": "0",
    "UR": "urn:anonymous",
    "US": "0",
    "UT": "ANONYMOUS",
    "UV": "0",
}
_TEXTS: Final = frozenset({"LO", "LT", "SH", "ST", "UC", "UT"})
_MOMENTS: Final = frozenset({"DA", "DT", "TM"})
# VRs whose values may say who or when, where a safe private element has another one than the table's.
_NOT_SAFE: Final = _MOMENTS | {"PN", "UI"}

_COMMAND_GROUP: Final = 0x0000
_DIRECTORY_GROUP: Final = 0x0004
# Curves and overlays (PS3.5 7.6): each instance of these groups, even ones only.
_REPEATING_GROUPS: Final = frozenset({0x5000, 0x6000})
_MAX_REMEMBERED: Final = 8192

_PATIENT_IDENTITY_REMOVED: Final = 0x00120062
_DEIDENTIFICATION_METHOD: Final = 0x00120063
_DEIDENTIFICATION_METHOD_CODE_SEQUENCE: Final = 0x00120064
_LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED: Final = 0x00280303
_CODE_VALUE: Final = 0x00080100
_CODING_SCHEME_DESIGNATOR: Final = 0x00080102
_CODE_MEANING: Final = 0x00080104
# The enumerated values of (0028,0303) (PS3.3 C.12.1).
_TEMPORAL_INFORMATION: Final = {Dates.REMOVE: "REMOVED", Dates.KEEP: "UNMODIFIED", Dates.SHIFT: "MODIFIED"}


# The VRs that an action finds a value for. Whatever else an attribute comes as is emptied.
_REPLACED_VRS: Final = {
    Action.DUMMY: frozenset(_DUMMIES),
    Action.UID: frozenset({"UI"}),
    Action.PATIENT: frozenset({"LO", "PN"}),
    Action.SHIFT: frozenset({"DA", "DT"}),
    Action.CLEAN: _TEXTS,
    Action.CLEAN_OR_DUMMY: _TEXTS,
}
# What is done to these sequences is done in their items. A dummy would be an item that says nothing, as no item does.
_INTO_ITEMS: Final = frozenset({Action.KEEP, Action.UID, Action.CLEAN, Action.CLEAN_OR_DUMMY})


class Profile:
    """The basic profile of PS3.15 annex E with options, for one file, under a key: a `Treatment`.

    The same key gives the same UIDs for the same ones, and the same pseudonym and shift for the same patient, in
    whatever file they stand.
    """

    depends_on: frozenset[int] = frozenset({PATIENT_ID})

    def __init__(self, options: Options, key: bytes) -> None:
        self._options = options
        self._actions = actions_of(options)
        self._pseudonyms = Pseudonyms(key)
        self._patient_id = ""
        self._days = 0
        self._fates: dict[tuple[int, str], Fate] = {}

    def begin(self, identity: Identity) -> None:
        """Takes the PatientID, on which pseudonym and shift depend."""
        self._patient_id = identity.patient_id
        self._days = self._pseudonyms.days(identity.patient_id)

    def fate(self, tag: int, vr: str, creator: str) -> Fate:
        """What becomes of an element at any depth, and of one of the file meta information.

        Raises EDIT_REFUSED for what only a DICOMDIR holds.
        """
        if dictionary.is_private(tag):
            return self._private_fate(tag, vr, creator)
        fate = self._fates.get((tag, vr))
        if fate is None:
            fate = self._fate_of(tag, vr)
            if len(self._fates) < _MAX_REMEMBERED:
                self._fates[tag, vr] = fate
        return fate

    def replacement(self, tag: int, vr: str, text: str | None) -> str:
        """The value in place of one that is to be replaced; "" empties the element."""
        text = text or ""
        # Of private elements UIDs alone are replaced.
        match Action.UID if dictionary.is_private(tag) else self._action(tag, vr):
            case Action.UID:
                return "\\".join(self._pseudonyms.uid(single) for single in text.split("\\"))
            case Action.SHIFT:
                return shifted(vr, text, self._days)
            case Action.CLEAN:
                return cleaned(vr, text)
            case Action.CLEAN_OR_DUMMY:
                return cleaned(vr, text) or _DUMMIES[vr]
            case Action.PATIENT:
                # Items may speak of another patient by another identifier; names have none beside them.
                return self._pseudonyms.patient(text if tag == PATIENT_ID else self._patient_id) if text else ""
            case _:
                return _DUMMIES[vr]

    def additions(self) -> tuple[Addition, ...]:
        """What says in the file that it is de-identified, and how (PS3.3 C.7.1.1, PS3.15 E.1.1)."""
        codes = tuple(methods(self._options))
        items = tuple(
            (
                Addition(_CODE_VALUE, "SH", method.value),
                Addition(_CODING_SCHEME_DESIGNATOR, "SH", "DCM"),
                Addition(_CODE_MEANING, "LO", method.meaning),
            )
            for method in codes
        )
        return (
            Addition(_PATIENT_IDENTITY_REMOVED, "CS", "YES"),
            Addition(_DEIDENTIFICATION_METHOD, "LO", "\\".join(method.meaning for method in codes)),
            Addition(_DEIDENTIFICATION_METHOD_CODE_SEQUENCE, "SQ", items),
            Addition(_LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED, "CS", _TEMPORAL_INFORMATION[self._options.dates]),
        )

    def _private_fate(self, tag: int, vr: str, creator: str) -> Fate:
        if not self._options.retain_safe_private:
            return Fate.REMOVE
        if dictionary.is_private_creator(tag):
            return Fate.KEEP if safe.names_safe_block(tag, creator) else Fate.REMOVE
        element = safe.element_of(tag, creator)
        if element in safe.UIDS:
            return Fate.KEEP if self._options.retain_uids else Fate.REPLACE
        if element in safe.SEQUENCES:
            return Fate.REPLACE
        return Fate.KEEP if element in safe.PLAIN and vr not in _NOT_SAFE else Fate.REMOVE

    def _fate_of(self, tag: int, vr: str) -> Fate:
        if tag >> 16 == _DIRECTORY_GROUP:
            raise ServiceError(
                Reason.EDIT_REFUSED,
                "The file is a DICOMDIR, which lists other files and is not de-identified. Make one of the new files.",
            )
        if vr == "UN":
            # What somebody on the way did not know.
            vr = dictionary.implicit_vr(tag)
        action = self._action(tag, vr)
        if action is Action.REMOVE:
            return Fate.REMOVE
        if vr == "SQ":
            # Replaced and not kept, so that no bytes pass in which nobody found the items.
            return Fate.REPLACE if action in _INTO_ITEMS else Fate.EMPTY
        if action is Action.KEEP and dictionary.implicit_vr(tag) != "SQ":
            return Fate.KEEP
        return Fate.REPLACE if vr in _REPLACED_VRS.get(action, ()) else Fate.EMPTY

    def _action(self, tag: int, vr: str) -> Action:
        listed = self._actions.get(tag)
        if listed is None:
            return self._unlisted(tag, vr)
        if listed is Action.DUMMY and vr == "UI":
            return Action.UID
        # A time of the day stays when its day is another, and so does the time zone.
        if listed is Action.SHIFT and vr in {"TM", "SH"} and vr == dictionary.implicit_vr(tag):
            return Action.KEEP
        return listed

    def _unlisted(self, tag: int, vr: str) -> Action:
        """The action of an attribute that the table passes over: it stays, unless it may say who or when, or nobody
        knows what it is.
        """
        group = tag >> 16
        if group == _COMMAND_GROUP or group & 0xFF00 in _REPEATING_GROUPS:
            return Action.REMOVE
        if dictionary.entry_of(tag) is None:
            return Action.REMOVE
        if vr == "PN":
            return Action.EMPTY
        if vr not in _MOMENTS or self._options.dates is Dates.KEEP:
            return Action.KEEP
        if self._options.dates is Dates.REMOVE:
            return Action.EMPTY
        return Action.KEEP if vr == "TM" else Action.SHIFT
