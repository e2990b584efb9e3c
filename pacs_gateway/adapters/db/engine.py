"""Connecting to PostgreSQL: what a URL means, and the limits that every connection is under."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import asyncpg

from pacs_gateway.adapters.db.prepared import Record

_CONNECT_SECONDS: Final = 5
_SCHEMES: Final = ("postgresql", "postgres", "postgresql+asyncpg")


def connector(url: str, *, settings: Mapping[str, str]) -> Callable[[], Awaitable[Any]]:
    """Opens connections to `url`, for SQLAlchemy's `async_creator`; `settings` are PostgreSQL's, for the session.

    `url` is read by asyncpg, as libpq reads it (`postgresql://user@/name?host=/folder/of/socket&sslmode=...`), with or
    without SQLAlchemy's `+asyncpg`. Raises ValueError when it is of another kind, without quoting it: it may hold a
    password.
    """
    scheme, separator, rest = url.partition("://")
    if scheme not in _SCHEMES or not separator:
        raise ValueError("The database's URL must begin with postgresql://")
    dsn = f"postgresql://{rest}"

    async def connect() -> Any:
        return await asyncpg.connect(
            dsn,
            timeout=_CONNECT_SECONDS,
            server_settings={"application_name": "pacs_gateway", **settings},
            record_class=Record,
        )

    return connect
