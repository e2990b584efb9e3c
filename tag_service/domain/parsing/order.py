"""The order of the elements of a data set or item: ascending, each tag once (PS3.5 7.1)."""

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from operator import lt
from typing import Final

from tag_service.domain.standard.problems import MAX_PROBLEMS, ProblemCode

MESSAGES: Final = {
    ProblemCode.DUPLICATE_TAG: "The element stands here a second time; the first one counts.",
    ProblemCode.OUT_OF_ORDER: "The element stands behind one with a higher tag.",
}


class TagOrder:
    """Watches one data set or item. A million elements take it 4 MB.

    `ascending`: the tags so far that were each higher than all before; whoever finds one of his own that is higher
    than the last of them may append it instead of asking `check`.
    """

    __slots__ = ("_stragglers", "ascending")

    def __init__(self) -> None:
        self.ascending = array("I")
        self._stragglers: set[int] = set()

    def check(self, tag: int) -> ProblemCode | None:
        """What is wrong with an element of this tag standing next; None when nothing is."""
        ascending = self.ascending
        if not ascending or tag > ascending[-1]:
            ascending.append(tag)
            return None
        if tag in self._stragglers or ascending[bisect_left(ascending, tag)] == tag:
            return ProblemCode.DUPLICATE_TAG
        # So many are problems enough for one file, and what more there are need not be told apart.
        if len(self._stragglers) < MAX_PROBLEMS:
            self._stragglers.add(tag)
        return ProblemCode.OUT_OF_ORDER

    def take(self, tags: Sequence[int]) -> bool:
        """Takes in elements of these tags, one or more, if nothing is wrong with any of them; whether that is so."""
        ascending = self.ascending
        if (ascending and tags[0] <= ascending[-1]) or not all(map(lt, tags, tags[1:])):
            return False
        ascending.extend(tags)
        return True
