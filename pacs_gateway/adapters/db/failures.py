"""Which failures mean that PostgreSQL is away, too slow or not ready. The one place that decides it.

Everything else that the libraries raise is a defect of the statements here, and stays what it is.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from service_runtime.errors import Reason, ServiceError

_RETRY_AFTER_SECONDS: Final = 5
# SQLSTATE classes and codes (PostgreSQL, appendix A).
_AWAY: Final = (
    "08",  # connection exceptions
    "53",  # insufficient resources: too many connections, disk full, out of memory
    "57",  # operator intervention: shutdown, starting up, statement_timeout
    "58",  # system error: input/output
    "28",  # the login is refused
    "3D000",  # no such database
    "25006",  # read only, after a failover
    "25P03",  # idle_in_transaction_session_timeout
    "40001",  # serialization failure
    "40P01",  # deadlock
    "55P03",  # lock_timeout
)
_NOT_MIGRATED: Final = (
    "42P01",  # no such table
    "42703",  # no such column
    "3F000",  # no such schema
    "0A000",  # a table has changed under a prepared statement
)


def unavailable() -> ServiceError:
    """The error for a database that does not answer."""
    return ServiceError(
        Reason.DATABASE_UNAVAILABLE,
        "The database cannot be reached, or is too slow. Retry.",
        retry_after=_RETRY_AFTER_SECONDS,
    )


def not_migrated() -> ServiceError:
    """The error for a database that is at another revision than the code."""
    return ServiceError(
        Reason.DATABASE_UNAVAILABLE,
        "The database is not at the revision that this version needs: run the migrations.",
        retry_after=_RETRY_AFTER_SECONDS,
    )


def overtaken() -> ServiceError:
    """The error for a change that another transaction, committed meanwhile, has made impossible as it was meant."""
    return ServiceError(
        Reason.DATABASE_UNAVAILABLE,
        "The RIS changed the patient at the same moment. Retry.",
        retry_after=_RETRY_AFTER_SECONDS,
    )


@asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[None]:
    """Around one exchange with the server: raises DATABASE_UNAVAILABLE where it takes longer, or fails in a way that
    says that the server is away.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except Exception as error:
        told = _told(error)
        if told is None:
            raise
        raise told from error


def is_away(error: Exception) -> bool:
    """Whether an error says that the server is away, or, of a connection that is closed, that it is."""
    return isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError) or _told(error) is not None


def sqlstate(error: BaseException) -> str:
    """The SQLSTATE of an error of the driver, as it is or as SQLAlchemy wraps it; "" where there is none."""
    origin = error.orig if isinstance(error, DBAPIError) else error
    return str(getattr(origin, "sqlstate", None) or "")


def _told(error: Exception) -> ServiceError | None:
    if isinstance(error, OSError | PoolTimeoutError | PendingRollbackError):  # TimeoutError is an OSError
        return unavailable()
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return unavailable()
    if isinstance(error, DBAPIError | asyncpg.PostgresError):
        state = sqlstate(error)
        if state.startswith(_AWAY):
            return unavailable()
        if state.startswith(_NOT_MIGRATED):
            return not_migrated()
    return None


def constraint(error: DBAPIError) -> str:
    """The name of the constraint that a statement violated; "" where it is no such error."""
    return str(getattr(error.orig.__cause__ if error.orig else None, "constraint_name", None) or "")
