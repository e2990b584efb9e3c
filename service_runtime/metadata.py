"""Reading the metadata of a call."""

from collections.abc import Iterable

Metadata = Iterable[tuple[str, str | bytes]]


def value_of(metadata: Metadata | None, key: str) -> str:
    """The first text value of `key` (lower case), empty where there is none."""
    return next((value for name, value in metadata or () if name == key and isinstance(value, str)), "")
