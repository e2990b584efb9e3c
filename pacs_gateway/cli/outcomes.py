"""What became of the files, for people and for scripts. Nothing of a patient is shown unless that is asked for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

ALL_STORED, SOME_FAILED, NOT_POSSIBLE = 0, 1, 2

STORED: Final = "stored"
SKIPPED: Final = "skipped"
FAILED: Final = "failed"
# The last two: what the gateway says of files that a rerun sends again, or that on_conflict=KEEP keeps out.
_DONE: Final = (STORED, "already_stored", "kept")
# Of what is skipped, one thing must not go unnoticed.
_INCOMPLETE_MEDIUM: Final = "DIRECTORY_MISMATCH"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a file: its name here, and what the gateway said. `reason` and `message` explain what is not
    stored, `details` go with them.
    """

    name: str
    status: str
    reason: str = ""
    message: str = ""
    details: tuple[str, ...] = ()
    study_uid: str = ""
    patient_id: str = ""
    patient_name: str = ""

    @property
    def is_done(self) -> bool:
        """Whether the PACS has what it should."""
        return self.status in _DONE

    @property
    def is_failure(self) -> bool:
        """Whether somebody should look after it."""
        return not self.is_done and (self.status != SKIPPED or self.reason == _INCOMPLETE_MEDIUM)


def exit_code(outcomes: Iterable[Outcome]) -> int:
    """ALL_STORED or SOME_FAILED."""
    return SOME_FAILED if any(outcome.is_failure for outcome in outcomes) else ALL_STORED


def show(outcomes: Sequence[Outcome], console: Console, *, show_patients: bool, show_all: bool) -> None:
    """Prints the studies, what was not stored (with `show_all`, every file), and a line that sums up."""
    done = [outcome for outcome in outcomes if outcome.is_done]
    if done:
        console.print(_studies(done, show_patients=show_patients))
    told = [one for one in outcomes if show_all or not one.is_done]
    if told:
        console.print(_files(told))
    counts = {status: sum(one.status == status for one in outcomes) for status in (*_DONE, SKIPPED, FAILED)}
    parts = [f"{count} {status.replace('_', ' ')}" for status, count in counts.items() if count]
    console.print(", ".join(parts) or "Nothing was sent.")


def _studies(done: Sequence[Outcome], *, show_patients: bool) -> Table:
    table = Table("StudyInstanceUID", title="Studies")
    if show_patients:
        table.add_column("PatientID")
        table.add_column("PatientName")
    for status in _DONE:
        table.add_column(status.replace("_", " "), justify="right")
    studies: dict[str, list[Outcome]] = {}
    for outcome in done:
        studies.setdefault(outcome.study_uid, []).append(outcome)
    for uid, files in studies.items():
        patient = (printable(files[0].patient_id), printable(files[0].patient_name)) if show_patients else ()
        table.add_row(printable(uid), *patient, *(str(sum(one.status == status for one in files)) for status in _DONE))
    return table


def _files(told: Sequence[Outcome]) -> Table:
    table = Table("File", "Status", "Reason", "Message", title="Files")
    for outcome in told:
        message = "\n".join(map(printable, (outcome.message, *outcome.details)))
        table.add_row(printable(outcome.name), outcome.status, outcome.reason, message)
    return table


def printable(text: str) -> str:
    """The text without what a terminal, or rich, would take for a command."""
    return escape("".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text))
