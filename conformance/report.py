"""What was found over all files, as text that names neither file nor patient unless that was asked for."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from conformance.differences import Kind
from conformance.judging import DONE, READ, Judgement

_MB: Final = 1_000_000
# Of a kind of difference, no more places are listed.
_MAX_PLACES: Final = 20


@dataclass(slots=True)
class Report:
    """Counts what is added, and writes it down. `root`: names of files are told, relative to it; None tells none."""

    root: Path | None = None
    _files: int = 0
    _bytes: int = 0
    _elements: int = 0
    _outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    _seconds: dict[str, float] = field(default_factory=dict)
    _kinds: Counter[Kind] = field(default_factory=Counter)
    _places: dict[Kind, Counter[str]] = field(default_factory=dict)
    _names: dict[Kind, set[str]] = field(default_factory=dict)

    def add(self, path: Path, judgement: Judgement) -> None:
        """Counts one file."""
        self._files += 1
        self._bytes += judgement.size_bytes
        self._elements += judgement.elements
        self._outcomes.update(judgement.outcomes.items())
        for name, seconds in judgement.seconds.items():
            self._seconds[name] = self._seconds.get(name, 0.0) + seconds
        self._kinds.update({difference.kind for difference in judgement.differences})
        for difference in judgement.differences:
            self._places.setdefault(difference.kind, Counter())[difference.where] += 1
            if self.root is not None:
                self._names.setdefault(difference.kind, set()).add(str(path.relative_to(self.root)))

    @property
    def is_good(self) -> bool:
        """Whether a rule explains every difference."""
        return all(kind.rule for kind in self._kinds)

    def lines(self, *, seconds: float, processes: int) -> Iterator[str]:
        """The report."""
        yield (
            f"{self._files} files, {self._bytes / _MB:.1f} MB, {self._elements} elements, items and delimiters; "
            f"{seconds:.1f} s on {processes} processes"
        )
        yield ""
        yield f"{'What became of them':<40}{'files':>8}{'engine s':>10}"
        for (name, outcome), count in sorted(self._outcomes.items()):
            took = f"{self._seconds[name]:>10.2f}" if name in self._seconds and outcome in {READ, DONE} else ""
            yield f"  {name:<14}{outcome:<24}{count:>8}{took}"
        yield ""
        yield from self._differences("Differences that a rule explains", [kind for kind in Kind if kind.rule])
        yield ""
        yield from self._differences("Differences that nothing explains", [kind for kind in Kind if not kind.rule])

    def _differences(self, heading: str, kinds: list[Kind]) -> Iterator[str]:
        found = [kind for kind in kinds if self._kinds[kind]]
        yield f"{heading + ('' if found else ': none'):<100}{'files' if found else '':>8}".rstrip()
        for kind in found:
            yield f"  {kind.rule:<8}{kind.text:<90}{self._kinds[kind]:>8}"
            places = Counter({place: count for place, count in self._places[kind].items() if place})
            if places and not kind.rule:
                yield from (f"{'':<12}{place} {count}" for place, count in places.most_common(_MAX_PLACES))
            yield from (f"{'':<12}{name}" for name in sorted(self._names.get(kind, ())))
