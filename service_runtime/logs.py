"""Structured logs: one JSON object a line on stdout, with the request id, without patient data.

Exceptions are logged as their type and the places they passed, never with their text: it may quote a tag's value.
"""

import logging
import sys
import traceback
from typing import Any

import structlog


def configure_logs(*, service: str, level: str) -> None:
    """Sets up structlog and the standard library's logging for this process."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stdout),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    # Libraries quote what they choke on (a multipart header, an SQL parameter): only their silence is safe.
    logging.basicConfig(handlers=[logging.NullHandler()], force=True)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def describe(error: BaseException) -> dict[str, Any]:
    """The exception as log fields: its type, its causes' types, and the places it passed, without any text of it."""
    kinds = [type(error).__qualname__]
    cause = error.__cause__ or error.__context__
    while cause is not None and len(kinds) < 8:
        kinds.append(type(cause).__qualname__)
        cause = cause.__cause__ or cause.__context__
    places = [
        f"{frame.f_code.co_filename}:{line}:{frame.f_code.co_name}"
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    return {"error": kinds, "at": places[-12:]}
