"""The order of the elements of a data set or item: ascending, each tag once (PS3.5 7.1)."""

from typing import Final

from tag_service.domain.problems import ProblemCode

MESSAGES: Final = {
    ProblemCode.DUPLICATE_TAG: "The element stands here a second time; the first one counts.",
    ProblemCode.OUT_OF_ORDER: "The element stands behind one with a higher tag.",
}


class TagOrder:
    """Watches one data set or item."""

    __slots__ = ("_last", "_seen")

    def __init__(self) -> None:
        self._last = -1
        self._seen: set[int] = set()

    def check(self, tag: int) -> ProblemCode | None:
        """What is wrong with an element of this tag standing next; None when nothing is."""
        if tag > self._last:
            self._last = tag
            self._seen.add(tag)
            return None
        if tag in self._seen:
            return ProblemCode.DUPLICATE_TAG
        self._seen.add(tag)
        return ProblemCode.OUT_OF_ORDER
