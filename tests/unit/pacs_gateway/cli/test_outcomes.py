"""What the client shows, and its exit status."""

import io

import pytest
from rich.console import Console

from pacs_gateway.cli.outcomes import ALL_STORED, SOME_FAILED, Outcome, exit_code, show

STORED = Outcome("a.dcm", "stored", study_uid="1.2.3", patient_id="MRN-SMITH", patient_name="Smith^Anna")
AGAIN = Outcome("b.dcm", "already_stored", study_uid="1.2.3")
SKIPPED = Outcome("README.TXT", "skipped", "NOT_DICOM", "No DICOM file: it was passed over.")
FAILED = Outcome("c.dcm", "failed", "PATIENT_MISMATCH", "The file's PatientID is not the MRN.")
INCOMPLETE = Outcome("DICOMDIR", "skipped", "DIRECTORY_MISMATCH", "They differ.", details=("missing: A/B",))


def shown(*outcomes: Outcome, show_patients: bool = False, show_all: bool = False) -> str:
    """What is printed of them."""
    console = Console(file=(out := io.StringIO()), width=160)
    show(outcomes, console, show_patients=show_patients, show_all=show_all)
    return out.getvalue()


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ((), ALL_STORED),
        ((STORED, AGAIN), ALL_STORED),
        ((STORED, SKIPPED), ALL_STORED),
        ((Outcome("d", "kept"),), ALL_STORED),
        ((STORED, FAILED), SOME_FAILED),
        ((STORED, INCOMPLETE), SOME_FAILED),
        ((Outcome("d", "something new"),), SOME_FAILED),
    ],
)
def test_the_exit_status_tells_whether_all_is_stored(outcomes: tuple[Outcome, ...], expected: int) -> None:
    """What was there before is stored, what is no DICOM file is not missed; a CD with files missing is a failure."""
    assert exit_code(outcomes) == expected


def test_studies_and_what_is_not_stored_are_shown() -> None:
    """A line a study, one for each file that is not stored, why, and the sum; all files only where asked for."""
    text = shown(STORED, AGAIN, SKIPPED, FAILED, INCOMPLETE)
    assert "1.2.3" in text
    assert "PATIENT_MISMATCH" in text
    assert "missing: A/B" in text
    assert "a.dcm" not in text
    assert text.splitlines()[-1] == "1 stored, 1 already stored, 2 skipped, 1 failed"
    assert "a.dcm" in shown(STORED, show_all=True)
    assert shown() == "Nothing was sent.\n"


def test_patients_are_shown_only_where_asked_for() -> None:
    """Neither the number nor the name of a patient is printed by itself."""
    hidden, told = shown(STORED, show_all=True), shown(STORED, show_patients=True)
    assert all(text not in hidden and text in told for text in ("MRN-SMITH", "Smith^Anna"))


def test_nothing_that_comes_from_elsewhere_reaches_the_terminal_as_a_command() -> None:
    """Escape sequences and rich's own markup in names and messages are shown as text."""
    text = shown(Outcome("\x1b[2J[bold]x[/bold]", "failed", "X", "[red]y\x07"))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[bold]x[/bold]" in text
    assert "[red]y" in text
