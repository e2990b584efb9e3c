"""What a servicer sees of a call: its metadata in and out, and who calls."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import contextmanager
from typing import Any

from pacs_gateway.domain.registry import User
from service_runtime.identity import CALLER, Caller
from tests.unit.pacs_gateway.fakes import TECHNOLOGIST


class FakeContext:
    """A call's context; `initial` is the metadata that the servicer sent."""

    def __init__(self, **metadata: str) -> None:
        self.initial: dict[str, str] = {}
        self._metadata = tuple((name.replace("_", "-"), value) for name, value in metadata.items())

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """What the client sent."""
        return self._metadata

    def time_remaining(self) -> float | None:
        """No deadline."""
        return None

    async def send_initial_metadata(self, metadata: Iterable[tuple[str, str]]) -> None:
        """Keeps what the servicer sends."""
        self.initial |= dict(metadata)


@contextmanager
def called_by(user: User = TECHNOLOGIST) -> Any:
    """Has the call be this user's."""
    token = CALLER.set(Caller(user.id, "token", user.role, user.full_name))
    try:
        yield
    finally:
        CALLER.reset(token)


async def stream_of(*messages: Any) -> AsyncGenerator[Any, None]:
    """The messages of a request; an exception among them breaks it there."""
    for message in messages:
        if isinstance(message, BaseException):
            raise message
        yield message
