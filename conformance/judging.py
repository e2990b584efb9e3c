"""One file: what the engine makes of it, and whether that is right."""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from conformance import json_model, oracle, round_trip, subject
from conformance.differences import Difference, Kind
from conformance.trees import Node, tree_of
from conformance.walker import BrokenError, Walked, walk
from service_runtime.errors import Reason, ServiceError
from tag_service.domain.editing.edits import Edits

ResultT = TypeVar("ResultT")

READ: Final = "read"
DONE: Final = "done"
_DIRECTORY_RECORD_SEQUENCE: Final = 0x00041220
_RATIO_FREE_BYTES: Final = 1024 * 1024


@dataclass(slots=True)
class Judgement:
    """`outcomes` and `seconds` are by what was done with the file: an outcome is a Reason, or READ or DONE."""

    size_bytes: int = 0
    outcomes: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    elements: int = 0


def judge(path: Path) -> Judgement:
    """Reads and rewrites a file in every way, and compares. Raises OSError."""
    data = path.read_bytes()
    judgement = Judgement(size_bytes=len(data))
    judgement.differences.extend(_Judge(data, judgement).differences())
    return judgement


class _Judge:
    def __init__(self, data: bytes, judgement: Judgement) -> None:
        self._data = data
        self._judgement = judgement
        self._walked: Walked | None = None
        self._broken: BrokenError | None = None
        try:
            self._walked = walk(data)
        except BrokenError as error:
            self._broken = error
        # pydicom inflates without a limit.
        is_bomb = self._broken is not None and self._broken.what == "bomb"
        self._pydicom = None if is_bomb else oracle.read(data, force=False)
        # What no engine takes for DICOM is not to be read by force.
        self._forced = self._pydicom or (oracle.read(data, force=True) if self._walked else None)

    def differences(self) -> Iterator[Difference]:
        """All that is different from what the others say."""
        found: list[Difference] = []
        tags = self._run("20 tags", lambda: subject.tags_of(self._data), found)
        tokenized = self._run("all elements", lambda: subject.tokenized(self._data), found)
        text = self._run("JSON model", lambda: subject.json_of(self._data), found)
        nodes: list[Node] = []
        walked = self._walked
        if tokenized:
            nodes = tree_of(tokenized.parts)
            found += self._compare_structure(tokenized)
        if self._forced is not None:
            self._judgement.outcomes["pydicom"] = READ
            # The elements first, as they came: pydicom converts those that it is asked for.
            found += oracle.compare_elements(nodes, self._forced, explicit=walked.explicit) if walked and nodes else ()
            found += oracle.compare_tags(tags, self._forced, nodes) if tags else ()
        else:
            self._judgement.outcomes["pydicom"] = "refused"
            if tokenized:
                found.append(Difference(Kind.ORACLE_FAILED))
        if text is not None and walked:
            found += json_model.compare(text, nodes, walked)
        if walked:
            found += self._rewrite(walked)
        # Several ways to read meet the same obstacle.
        yield from dict.fromkeys(found)

    def _run(self, name: str, work: Callable[[], ResultT], found: list[Difference]) -> ResultT | None:
        """What the engine gives, and how it came out."""
        began = time.perf_counter()
        try:
            result = work()
        except ServiceError as error:
            self._judgement.outcomes[name] = error.reason
            found += self._explained(error.reason)
            return None
        except Exception as error:  # noqa: BLE001 - nothing else may come out
            self._judgement.outcomes[name] = "defect"
            found.append(Difference(Kind.DEFECT, f"{name}: {type(error).__name__}"))
            return None
        self._judgement.seconds[name] = time.perf_counter() - began
        self._judgement.outcomes[name] = READ
        return result

    def _explained(self, reason: Reason) -> Iterator[Difference]:
        """What a refusal is: right, explained where pydicom reads on, or wrong."""
        what = self._broken.what if self._broken else ""
        if reason is Reason.EMPTY_FILE and not self._data:
            return
        if reason is Reason.NOT_DICOM and what == "no DICOM" and self._pydicom is None:
            return
        if reason is Reason.STRUCTURE_LIMIT and (self._broken or self._goes_past_limits()):
            yield Difference(Kind.LIMITED)
        elif reason in {Reason.TRUNCATED_FILE, Reason.MALFORMED_DICOM} and self._broken:
            if self._pydicom is not None:
                yield Difference(Kind.TRUNCATED if what == "truncated" else Kind.BROKEN)
        else:
            yield Difference(Kind.REFUSED, reason)

    def _goes_past_limits(self) -> bool:
        walked, limits = self._walked, subject.LIMITS
        if walked is None:
            return True
        size = len(walked.body)
        values = sum(
            len(part.header) + len(part.value) for part in walked.parts if len(part.value) <= subject.WHOLE_BYTES
        )
        return (
            walked.deepest > limits.depth
            or len(walked.parts) > limits.elements
            or values > limits.header_bytes
            or (walked.is_deflated and size > max(_RATIO_FREE_BYTES, limits.inflation_ratio * walked.deflated_bytes))
        )

    def _compare_structure(self, tokenized: subject.Tokenized) -> Iterator[Difference]:
        walked = self._walked
        self._judgement.elements = len(tokenized.parts)
        if walked is None:
            yield Difference(Kind.ACCEPTED, self._broken.what if self._broken else "")
            return
        for name in ("preamble", "meta", "parts", "trailing"):
            if getattr(tokenized, name) != getattr(walked, name):
                yield Difference(Kind.STRUCTURE, name)
        if subject.tokenized(self._data, subject.ODD_PIECE_BYTES) != tokenized:
            yield Difference(Kind.CHUNKING)

    # The round trip.

    def _rewrite(self, walked: Walked) -> Iterator[Difference]:
        found: list[Difference] = []
        for name, patient_id in (("rewrite", None), ("edit", round_trip.PATIENT_ID)):
            edits = Edits(patient_id=patient_id)
            began = time.perf_counter()
            try:
                result = subject.rewritten(self._data, edits)
            except ServiceError as error:
                self._judgement.outcomes[name] = error.reason
                found += self._refused_edit(error.reason, walked)
                continue
            except Exception as error:  # noqa: BLE001 - nothing else may come out
                self._judgement.outcomes[name] = "defect"
                found.append(Difference(Kind.DEFECT, f"{name}: {type(error).__name__}"))
                continue
            self._judgement.seconds[name] = time.perf_counter() - began
            self._judgement.outcomes[name] = DONE
            if subject.rewritten(self._data, edits, subject.ODD_PIECE_BYTES) != result:
                found.append(Difference(Kind.CHUNKING, name))
            found += round_trip.compare(walked, result, patient_id=patient_id)
            found += self._opened(result, patient_id)
        yield from found

    def _refused_edit(self, reason: Reason, walked: Walked) -> Iterator[Difference]:
        tags = {part.tag for part in walked.parts if part.depth == 0}
        if reason is Reason.EDIT_REFUSED and _DIRECTORY_RECORD_SEQUENCE in tags:
            yield Difference(Kind.DIRECTORY)
        else:
            yield from self._explained(reason)

    def _opened(self, result: bytes, patient_id: str | None) -> Iterator[Difference]:
        """Whether others open a rewritten file and find in it what they should."""
        data_set = oracle.read(result, force=False)
        if data_set is None:
            if self._forced is not None:
                yield Difference(Kind.NOT_READABLE, "pydicom")
            return
        if patient_id is not None:
            if data_set.get("PatientID") != patient_id:
                yield Difference(Kind.NOT_EDITED, "pydicom")
            if oracle.DCMDUMP:
                yield from self._dumped(result)

    def _dumped(self, result: bytes) -> Iterator[Difference]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "file.dcm"
            path.write_bytes(result)
            if oracle.dcmdump_opens(path):
                return
            path.write_bytes(self._data)
            opened_before = oracle.dcmdump_opens(path)
        yield Difference(Kind.NOT_READABLE if opened_before else Kind.NOT_OPENED, "dcmdump")
