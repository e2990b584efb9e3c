"""Timing two ways against each other, taking turns."""

import statistics
import time
from collections.abc import Awaitable, Callable


async def in_turns(ways: dict[str, Callable[[], Awaitable[object]]], *, rounds: int) -> dict[str, float]:
    """The median of the seconds that each way takes, each round running every way once."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            await way()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(taken) for name, taken in seconds.items()}
