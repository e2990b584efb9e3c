"""Rates of files: one way against another, with the time of the processors that each part took for a file."""

from collections.abc import Mapping, Sequence

from bench.case import Bar, Row
from bench.rounds import Turn, cpu_of, median_seconds, speed_ratio, spread


def rate(
    case: str,
    what: str,
    ours: Sequence[Turn],
    reference: Sequence[Turn],
    *,
    files: int,
    against: str,
    bar: Bar | None = None,
    megabytes: int | None = None,
) -> Row:
    """The line of a way beside that of its reference, each turn of which was of so many files: files in a second, or
    MB, where a turn's `megabytes` are told.
    """
    least, most = spread(ours, reference)
    amount = files if megabytes is None else megabytes
    return Row(
        case,
        what,
        amount / median_seconds(ours),
        "files/s" if megabytes is None else "MB/s",
        reference=amount / median_seconds(reference),
        ratio=speed_ratio(ours, reference),
        bar=bar,
        against=against,
        note=f"{least:.2f} to {most:.2f}; {costs(ours, files)}",
        details={"cpu_ms_per_file": {"ours": parts(ours, files), "reference": parts(reference, files)}},
    )


def parts(turns: Sequence[Turn], files: int) -> Mapping[str, float]:
    """The milliseconds of processor for a file, of each part."""
    return {part: round(cpu_of(turns, part) / files * 1000, 3) for part in turns[0].cpu}


def costs(turns: Sequence[Turn], files: int) -> str:
    """The same in words."""
    return "CPU ms " + ", ".join(f"{part} {ms:.2f}" for part, ms in parts(turns, files).items() if ms >= 0.05)
