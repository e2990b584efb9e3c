"""What a run found: one table for people, the same as JSON, and a chart."""

import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from bench import machine
from bench.case import Failure, Finding, Row
from bench.chart import chart

_HEADINGS = ("case", "what", "ours", "reference", "ratio", "bar", "met")


def surroundings(versions: Mapping[str, str]) -> Mapping[str, str]:
    """What the figures are of. `versions` are those of servers."""
    return {
        "when": time.strftime("%Y-%m-%d %H:%M"),
        "machine": f"{machine.cores()} cores, {machine.cpu_model()}; client and services share them",
        **versions,
        "Python": platform.python_version(),
        "grpcio": version("grpcio"),
        "kernel": platform.release(),
    }


def table(around: Mapping[str, str], findings: Sequence[Finding]) -> str:
    """The table, with what it is of above it."""
    rows = [_HEADINGS, *(_cells(finding) for finding in findings if isinstance(finding, Row))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = [f"{name}: {value}" for name, value in around.items()]
    lines.append("")
    notes = ["", *(finding.note for finding in findings if isinstance(finding, Row))]
    for number, (row, note) in enumerate(zip(rows, notes, strict=True)):
        lines.append(_line(row, widths))
        lines += [f"{'':<{widths[0] + 2}}{note}"] if note else []
        lines += ["-" * (sum(widths) + 2 * len(widths) - 2)] if number == 0 else []
    for finding in findings:
        if isinstance(finding, Failure):
            lines.append(f"{finding.case}: {'skipped' if finding.skipped else 'FAILED'}: {finding.why}")
    return "\n".join(lines)


def write(folder: Path, around: Mapping[str, str], findings: Sequence[Finding]) -> Path:
    """Writes the findings as JSON, and the rows with a bar as a chart; the path of both, without a suffix."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / time.strftime("%Y%m%d-%H%M%S")
    rows = [finding for finding in findings if isinstance(finding, Row)]
    found = {
        "surroundings": around,
        "rows": [
            {**asdict(row), "bar": str(row.bar) if row.bar else None, "ratio": row.compared, "met": row.met}
            for row in rows
        ],
        "not_measured": [asdict(finding) for finding in findings if isinstance(finding, Failure)],
    }
    path.with_suffix(".json").write_text(json.dumps(found, indent=2) + "\n")
    path.with_suffix(".svg").write_text(chart(rows, subtitle=around["machine"]))
    return path


def _cells(row: Row) -> tuple[str, ...]:
    met = {True: "met", False: "NOT MET", None: ""}[row.met]
    reference = "" if row.reference is None else f"{_number(row.reference)} {row.unit} ({row.against})"
    ratio = "" if row.compared is None else f"{row.compared:.2f}"
    return (row.case, row.what, f"{_number(row.ours)} {row.unit}", reference, ratio, str(row.bar or ""), met)


def _number(figure: float) -> str:
    return f"{figure:.0f}" if figure >= 100 else f"{figure:.3g}"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
