"""The metadata of a call."""

from typing import Any, cast

from grpc.aio import ServicerContext

from service_runtime.metadata import ReadOnce, value_of


class CountingContext:
    """A call's context that counts how often its metadata are read."""

    def __init__(self) -> None:
        self.reads = 0

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """What the client sent."""
        self.reads += 1
        return (("key", b"bytes"), ("key", "first"), ("key", "second"))

    def time_remaining(self) -> float | None:
        """A deadline."""
        return 1.5


def test_metadata_are_read_once_and_all_else_is_the_contexts() -> None:
    """However often they are asked for, grpc makes the metadata of a call once; the rest is as without."""
    counting = CountingContext()
    context = ReadOnce(cast("ServicerContext[Any, Any]", counting))
    assert [value_of(context.invocation_metadata(), key) for key in ("key", "other")] == ["first", ""]
    assert counting.reads == 1
    assert context.time_remaining() == 1.5
