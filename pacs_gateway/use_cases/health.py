"""Whether everything that the gateway stands on is there."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from service_runtime.errors import ServiceError

_CHECK_SECONDS = 5


@dataclass(frozen=True, slots=True)
class PartHealth:
    """How one part is; `message` is its version, or what is wrong."""

    name: str
    healthy: bool
    message: str


class Health:
    """Checks the parts. A check returns what there is to say of a part that is well, and raises where it is not."""

    def __init__(self, checks: Mapping[str, Callable[[], Awaitable[str]]]) -> None:
        self._checks = checks

    async def parts(self) -> tuple[PartHealth, ...]:
        """Every part, checked at the same time, within 5 seconds."""
        checks = [self._part(name, check) for name, check in self._checks.items()]
        return tuple(await asyncio.gather(*checks))

    async def is_healthy(self) -> bool:
        """Whether every part is well."""
        return all(part.healthy for part in await self.parts())

    async def _part(self, name: str, check: Callable[[], Awaitable[str]]) -> PartHealth:
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                return PartHealth(name, healthy=True, message=await check())
        except ServiceError as error:
            return PartHealth(name, healthy=False, message=error.message)
        except TimeoutError:
            return PartHealth(name, healthy=False, message=f"No answer within {_CHECK_SECONDS} seconds.")
