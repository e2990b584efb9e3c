"""Reading the fields of requests: every wrong value is told, each in a violation of its own, in one error.

The readers return what the use cases take, or a value that nobody will see, once `expect_valid` has raised.
"""

import re
from collections.abc import Collection
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any, TypeVar
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from pacs_gateway.domain.identifiers import is_exact, is_uid
from service_runtime.errors import InvalidFieldError, Violation

EnumT = TypeVar("EnumT", bound=StrEnum)

NIL = UUID(int=0)
# The canonical form (RFC 9562 4), and no other that Python's UUID takes.
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_DA = re.compile(r"[0-9]{8}", re.ASCII)
_ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
# What PostgreSQL keeps without loss, and nobody needs more.
_EARLIEST, _LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)


class Fields:
    """Collects what is wrong with the fields of one request."""

    def __init__(self) -> None:
        self._violations: list[Violation] = []

    def expect_valid(self) -> None:
        """Raises InvalidFieldError if any value read so far was wrong."""
        if self._violations:
            raise InvalidFieldError(*self._violations)

    def wrong(self, field: str, description: str) -> None:
        """Notes a wrong value. The description never quotes it."""
        self._violations.append(Violation(field, description))

    def uuid(self, field: str, value: str) -> UUID:
        """A UUID that must be there."""
        if not _UUID.fullmatch(value):
            self.wrong(field, "must be a UUID, such as 123e4567-e89b-42d3-a456-426614174000")
            return NIL
        return UUID(value)

    def optional_uuid(self, field: str, value: str) -> UUID | None:
        """A UUID, None where the field is empty."""
        return self.uuid(field, value) if value else None

    def uid(self, field: str, value: str) -> str:
        """A UID that must be there."""
        if not is_uid(value):
            self.wrong(field, "must be a UID: digits and dots, at most 64 characters")
        return value

    def exact(self, field: str, value: str, *, max_length: int = 64) -> str:
        """An identifier that must be there."""
        if not is_exact(value, max_length=max_length):
            self.wrong(
                field,
                f"must be 1 to {max_length} printable characters, without spaces around them and without * ? \\",
            )
        return value

    def optional_exact(self, field: str, value: str, *, max_length: int = 64) -> str | None:
        """An identifier, None where the field is empty."""
        return self.exact(field, value, max_length=max_length) if value else None

    def text(self, field: str, value: str, *, max_length: int) -> str:
        """A text that must be there and holds more than spaces."""
        if not value.strip() or len(value) > max_length or not value.isprintable():
            self.wrong(field, f"must be 1 to {max_length} printable characters")
        return value

    def choice(self, field: str, value: str, choices: type[EnumT]) -> EnumT:
        """One of a few words."""
        if value not in choices.__members__.values():
            self.wrong(field, f"must be one of {', '.join(choices)}")
            return next(iter(choices))
        return choices(value)

    def word(self, field: str, value: str, words: Collection[str]) -> str:
        """One of a few words that have no type of their own."""
        if value not in words:
            self.wrong(field, f"must be one of {', '.join(word or 'empty' for word in words)}")
        return value

    def optional_da(self, field: str, value: str) -> str | None:
        """A day as DICOM writes it (DA, PS3.5 6.2), None where the field is empty."""
        if value and not (_DA.fullmatch(value) and _is_day(value, "%Y%m%d")):
            self.wrong(field, "must be a day, YYYYMMDD")
        return value or None

    def optional_day(self, field: str, value: str) -> date | None:
        """A day as RFC 3339 writes it, None where the field is empty."""
        if not value:
            return None
        if not (_ISO_DATE.fullmatch(value) and _is_day(value, "%Y-%m-%d")):
            self.wrong(field, "must be a day, YYYY-MM-DD")
            return None
        return date.fromisoformat(value)

    def time(self, field: str, value: Timestamp) -> datetime:
        """A point in time."""
        try:
            found: datetime = value.ToDatetime(tzinfo=UTC)
        except (ValueError, OverflowError):
            found = _LATEST
        if not _EARLIEST <= found < _LATEST:
            self.wrong(field, "must be a time between 1900 and 9998")
        return found

    def period(self, request: Any, first: str, last: str) -> tuple[datetime | None, datetime | None]:
        """The times in two fields of a request, None where they are not set."""
        since, until = (
            self.time(name, getattr(request, name)) if request.HasField(name) else None for name in (first, last)
        )
        if since is not None and until is not None and since > until:
            self.wrong(last, "must not lie before " + first)
        return since, until

    def count(self, field: str, number: int, *, at_most: int) -> None:
        """How many entries a list has."""
        if not 1 <= number <= at_most:
            self.wrong(field, f"must have 1 to {at_most} entries")


def _is_day(value: str, form: str) -> bool:
    try:
        datetime.strptime(value, form).replace(tzinfo=UTC)
    except ValueError:
        return False
    return True
