"""Ways that take turns, so that all of them see the same machine, and what each took."""

import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn took: seconds, and of which part of the stack how many seconds of processor."""

    seconds: float
    cpu: Mapping[str, float] = field(default_factory=dict)

    def and_then(self, later: "Turn") -> "Turn":
        """Both, one after the other, as one."""
        return Turn(self.seconds + later.seconds, {part: taken + later.cpu[part] for part, taken in self.cpu.items()})


Way = Callable[[], Awaitable[Turn]]


async def in_turns(ways: Mapping[str, Way], *, rounds: int) -> Mapping[str, Sequence[Turn]]:
    """The turns of each way, each round running every way once; every other round the other way round."""
    turns: dict[str, list[Turn]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in reversed(list(ways)) if number % 2 else ways:
            turns[name].append(await ways[name]())
    return turns


def seconds_of(work: Callable[[], Awaitable[object]]) -> Way:
    """A way that is timed here."""

    async def way() -> Turn:
        began = time.perf_counter()
        await work()
        return Turn(time.perf_counter() - began)

    return way


def median_seconds(turns: Sequence[Turn]) -> float:
    """The median of what turns took."""
    return statistics.median(turn.seconds for turn in turns)


def speed_ratio(ours: Sequence[Turn], reference: Sequence[Turn]) -> float:
    """How fast ours is to the reference, which does as much: the median of the ratios of each round, in which both saw
    the same machine.
    """
    return statistics.median(theirs.seconds / mine.seconds for mine, theirs in zip(ours, reference, strict=True))


def spread(ours: Sequence[Turn], reference: Sequence[Turn]) -> tuple[float, float]:
    """The least and the most of those ratios."""
    ratios = [theirs.seconds / mine.seconds for mine, theirs in zip(ours, reference, strict=True)]
    return min(ratios), max(ratios)


def cpu_of(turns: Sequence[Turn], *parts: str) -> float:
    """The median of the seconds of processor that parts took together."""
    return statistics.median(sum(turn.cpu[part] for part in parts) for turn in turns)
