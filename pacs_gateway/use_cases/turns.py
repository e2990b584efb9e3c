"""The order among the files of one upload, which are stored side by side: what the one before makes of an instance, the
next one with the same instance finds.
"""

import asyncio


class Turns:
    """Gives each file its turn, in the order they came."""

    def __init__(self) -> None:
        self._last: Turn | None = None
        self.holders: dict[str, Turn] = {}

    def take(self) -> "Turn":
        """The turn of a file, after all before it."""
        self._last = Turn(self, after=self._last)
        return self._last


class Turn:
    """One file's."""

    def __init__(self, turns: Turns, *, after: "Turn | None") -> None:
        self._turns = turns
        self._after = after
        self._come = asyncio.Event()
        self._ended = asyncio.Event()
        self._instance = ""

    async def come(self, orthanc_id: str) -> None:
        """Waits until the instance of each file before is known, and those with this instance are done."""
        if self._after is not None:
            await self._after._come.wait()  # noqa: SLF001 - of the same class
            self._after = None
        before = self._turns.holders.get(orthanc_id)
        self._turns.holders[orthanc_id] = self
        self._instance = orthanc_id
        self._come.set()
        if before is not None:
            await before._ended.wait()  # noqa: SLF001

    def end(self) -> None:
        """The file is done, or given up."""
        self._come.set()
        self._ended.set()
        self._after = None
        if self._turns.holders.get(self._instance) is self:
            del self._turns.holders[self._instance]
