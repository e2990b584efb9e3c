"""The metadata of a call."""

from typing import Any, cast

from grpc.aio import ServicerContext

from service_runtime.metadata import WithMetadata, value_of


class Context:
    """A call's context, of which nobody is to ask the metadata."""

    def time_remaining(self) -> float | None:
        """A deadline."""
        return 1.5


def test_metadata_are_those_that_were_read_and_all_else_is_the_contexts() -> None:
    """However often they are asked for, the metadata of a call are not made again; the rest is as without."""
    read = (("key", b"bytes"), ("key", "first"), ("key", "second"))
    context = WithMetadata(cast("ServicerContext[Any, Any]", Context()), read)
    assert [value_of(context.invocation_metadata(), key) for key in ("key", "other")] == ["first", ""]
    assert context.time_remaining() == 1.5
