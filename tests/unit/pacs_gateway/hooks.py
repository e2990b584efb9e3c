"""Places in a fake where a test can wait, fail or count."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

Hook = Callable[[], Awaitable[None]]


class Hooks:
    """What a fake does besides its work, at places that it names; how often each was passed."""

    def __init__(self) -> None:
        self.passed: Counter[str] = Counter()
        self._hooks: dict[str, Hook] = {}

    def at(self, place: str, hook: Hook) -> None:
        """Has the fake run `hook` whenever it comes to `place`."""
        self._hooks[place] = hook

    def clear(self) -> None:
        """Has the fake do its work and nothing else again."""
        self._hooks.clear()

    async def reach(self, place: str) -> None:
        """Is called by the fake at `place`."""
        self.passed[place] += 1
        if place in self._hooks:
            await self._hooks[place]()


class Gate:
    """A hook that lets a test come in: `reached` is set when the fake is there, and it goes on once `opened` is."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def __call__(self) -> None:
        """Waits at the gate."""
        self.reached.set()
        await self.opened.wait()


def raising(error: Callable[[], Exception], *, on: int = 1, times: int = 1_000) -> Hook:
    """A hook that raises, from the `on`-th time that its place is reached, `times` times."""
    seen = 0

    async def hook() -> None:
        nonlocal seen
        seen += 1
        if on <= seen < on + times:
            raise error()

    return hook
