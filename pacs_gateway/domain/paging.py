"""Pages of lists (AIP-158)."""

from dataclasses import dataclass
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class PageRequest:
    """How many entries at most, and after which one: `after` is the `last` of the page before, () for the first."""

    limit: int
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Page(Generic[ItemT]):
    """Some entries of a list, how many there are in all, and the key of the last one: () when no page follows."""

    items: tuple[ItemT, ...]
    total_size: int
    last: tuple[str, ...] = ()
