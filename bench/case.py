"""The words of a measurement: cases, what they find, the bars that findings are held to."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.lab import Lab


@dataclass(frozen=True, slots=True)
class Bar:
    """What a figure is to be at least, or at most."""

    limit: float
    least: bool

    def met_by(self, figure: float) -> bool:
        """Whether the figure is good enough."""
        return figure >= self.limit if self.least else figure <= self.limit

    def __str__(self) -> str:
        return f"{'>=' if self.least else '<='} {self.limit:g}"


def at_least(limit: float) -> Bar:
    """A figure that is not to be smaller."""
    return Bar(limit, least=True)


def at_most(limit: float) -> Bar:
    """A figure that is not to be larger."""
    return Bar(limit, least=False)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. The bar is for the ratio; where there is no reference, for the figure itself."""

    case: str
    what: str
    ours: float
    unit: str
    reference: float | None = None
    # Where the ratio is not `ours / reference`, as with the median of many.
    ratio: float | None = None
    bar: Bar | None = None
    # What the figure is held against, and whatever else is to be known of it.
    against: str = ""
    note: str = ""
    details: Mapping[str, object] = field(default_factory=dict)

    @property
    def compared(self) -> float | None:
        """The ratio to the reference."""
        if self.ratio is not None or not self.reference:
            return self.ratio
        return self.ours / self.reference

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None where there is none."""
        if self.bar is None:
            return None
        figure = self.ours if self.compared is None else self.compared
        return self.bar.met_by(figure)


@dataclass(frozen=True, slots=True)
class Failure:
    """A case that could not be measured, or of which something was to be measured that is not to be had here."""

    case: str
    why: str
    # Whether the machine lacks something, which is no fault.
    skipped: bool = False


Finding = Row | Failure
# Yields what it found of the cases named; what it raises fails those of which nothing was found.
Measure = Callable[["Lab", frozenset[str]], AsyncIterator[Finding]]


@dataclass(frozen=True, slots=True)
class Group:
    """Cases that share their data and their reference, and so are measured together."""

    cases: Sequence[str]
    measure: Measure
