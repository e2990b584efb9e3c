"""The studies of Orthanc in memory, held against Orthanc at every question.

Orthanc finds studies in no order, so the first page of a list takes all of them: most of a second for 10,000. What is
new since the last question it tells in a millisecond. Its log of changes names every study that came, unless it is gone
again, but not what was deleted; that shows in the number of studies:

- Number first, then changes. Each study that was there when Orthanc counted is among those known before and those that
  came since. Where these are as many as Orthanc counted, they are the same.
- Where they are not, Orthanc lists the ids of all, a tenth of a second for 10,000.
- Where its log does not reach back to the last question, or too much is in it, all is read anew; and so it is every
  few minutes, because attributes that are changed in place (`reconstruct`) are in no log. Who finds one says so.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from time import monotonic
from typing import Final

from pacs_gateway.adapters import orthanc_answers as answers
from pacs_gateway.adapters.orthanc_answers import parse
from pacs_gateway.adapters.orthanc_query import matches
from pacs_gateway.domain.study import PacsStudy, StudyFilter, StudyOrder, in_order

# Parsing so many studies takes the event loop two milliseconds.
_STUDIES_A_CALL: Final = 500
_CHANGES_A_CALL: Final = 1000
# To read more of them takes longer than to read all studies.
_MOST_CHANGES: Final = 20_000
_LIFESPAN_SECONDS: Final = 300
# How many entries of the log are looked for, to see that it goes back so far: one goes when its study does.
_MARKS: Final = 4
# Lists that are remembered in their order, until the studies change.
_MOST_LISTS: Final = 16

Ask = Callable[[str, str, Mapping[str, object] | None], Awaitable[bytearray]]


class StudyDirectory:
    """Lists studies. At most `most` are known; where Orthanc has more, none is."""

    def __init__(self, ask: Ask, *, most: int) -> None:
        """`ask` gives the body of Orthanc's answer to method, path and JSON."""
        self._ask = ask
        self._most = most
        self._known: dict[str, PacsStudy] = {}
        self._lists: OrderedDict[tuple[StudyFilter, tuple[StudyOrder, ...]], Sequence[PacsStudy]] = OrderedDict()
        # The entries of Orthanc's log of changes that were the last ones at the last times, none where nothing is
        # known; and when all was read.
        self._marks: deque[int] = deque(maxlen=_MARKS)
        self._read_at = float("-inf")
        self._turn = asyncio.Lock()
        self._begun = self._done = 0

    async def find(self, wanted: StudyFilter, order: Sequence[StudyOrder]) -> Sequence[PacsStudy] | None:
        """The studies that match, in that order, as of a moment after this was called; None where there are too many
        to know, or Orthanc's log of changes is empty. Not to be asked for modalities. The deadline is the caller's.
        """
        if not self._most:
            return None
        # What another question found out is as good where it was begun after this one was asked.
        asked = self._begun
        async with self._turn:
            if self._done <= asked:
                self._begun += 1
                begun = self._begun
                await self._follow()
                self._done = begun
            if not self._marks:
                return None
            return await self._listed(wanted, tuple(order))

    def compare(self, study: PacsStudy) -> None:
        """Takes notice of how Orthanc describes a study: where that is new, all is read again at the next question."""
        if self._known.get(study.orthanc_study_id, study) != study:
            self._read_at = float("-inf")

    async def _listed(self, wanted: StudyFilter, order: tuple[StudyOrder, ...]) -> Sequence[PacsStudy]:
        found = self._lists.get((wanted, order))
        if found is None:
            # Up to a twentieth of a second for 10,000, which is not the event loop's.
            found = await asyncio.to_thread(_chosen, list(self._known.values()), wanted, order)
            self._lists[wanted, order] = found
            if len(self._lists) > _MOST_LISTS:
                self._lists.popitem(last=False)
        self._lists.move_to_end((wanted, order))
        return found

    async def _follow(self) -> None:
        """Brings what is known up to date."""
        # A study that comes between the two questions is no reason to ask for all ids.
        for _ in range(2):
            total = await self._total()
            if total > self._most:
                self._forget()
                return
            if not await self._follow_changes():
                await self._read_all()
                return
            if len(self._known) == total:
                return
        await self._follow_ids()

    async def _follow_changes(self) -> bool:
        """Takes in what came since the last time; False where that cannot be told."""
        if monotonic() - self._read_at > _LIFESPAN_SECONDS:
            return False
        # An entry that is known is asked for once more: only if it is there still, none behind it is missing.
        for mark in reversed(self._marks):
            changes = await self._changes_from(mark)
            if changes and changes[0].number == mark:
                break
        else:
            return False
        changed = {change.id for change in changes[1:] if change.level == "Study"}
        if changed:
            kept = {key: study for key, study in self._known.items() if key not in changed}
            self._keep(kept | await self._read(changed))
        if changes[-1].number != self._marks[-1]:
            self._marks.append(changes[-1].number)
        return True

    async def _changes_from(self, number: int) -> Sequence[answers.Change]:
        """The log from this entry on; nothing where that is too much."""
        changes: list[answers.Change] = []
        since = number - 1
        while len(changes) <= _MOST_CHANGES:
            some = await self._changes(f"since={since}&limit={_CHANGES_A_CALL}")
            changes += some.changes
            if some.done or not some.changes:
                return changes
            since = some.last
        return ()

    async def _follow_ids(self) -> None:
        """Takes in what came and what went, by the ids of all studies."""
        ids = await self._ids()
        came = await self._read([key for key in ids if key not in self._known])
        self._keep({key: self._known[key] for key in ids if key in self._known} | came)

    async def _read_all(self) -> None:
        self._forget()
        # Before the studies: what comes while they are read is among the changes of the next time.
        last = (await self._changes("last")).changes
        if last:
            self._keep(await self._read(await self._ids()))
            self._marks.append(last[-1].number)
            self._read_at = monotonic()

    def _forget(self) -> None:
        self._keep({})
        self._marks.clear()

    def _keep(self, known: dict[str, PacsStudy]) -> None:
        self._known = known
        self._lists.clear()

    async def _read(self, ids: Collection[str]) -> dict[str, PacsStudy]:
        """The studies with these ids, without those that are gone."""
        wanted = list(ids)
        studies: dict[str, PacsStudy] = {}
        for start in range(0, len(wanted), _STUDIES_A_CALL):
            body = {"Resources": wanted[start : start + _STUDIES_A_CALL], "Level": "Study", "Metadata": False}
            found = await parse(answers.STUDIES, await self._ask("POST", "/tools/bulk-content", body))
            studies |= {study.id: study.as_pacs_study() for study in found}
        return studies

    async def _total(self) -> int:
        return (await parse(answers.STATISTICS, await self._ask("GET", "/statistics", None))).studies

    async def _ids(self) -> Sequence[str]:
        return await parse(answers.IDS, await self._ask("GET", "/studies", None))

    async def _changes(self, query: str) -> answers.Changes:
        return await parse(answers.CHANGES, await self._ask("GET", f"/changes?{query}", None))


def _chosen(studies: Sequence[PacsStudy], wanted: StudyFilter, order: tuple[StudyOrder, ...]) -> Sequence[PacsStudy]:
    return in_order([study for study in studies if matches(study, wanted)], order)
