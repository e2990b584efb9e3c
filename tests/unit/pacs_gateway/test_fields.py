"""Reading the fields of requests."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from pacs_gateway.api.fields import Fields
from pacs_gateway.domain.registry import Role
from service_runtime.errors import InvalidFieldError

Reader = Callable[[Fields, Any], Any]
_UUID = "9b2c7f60-1d1e-4a53-8f0a-5d0c2b7e1a44"
_WIDE = "\uff12\uff10\uff12\uff10\uff10\uff11\uff10\uff11"  # 20200101 in full-width digits


def uuid(fields: Fields, value: str) -> Any:
    """Reads a UUID."""
    return fields.uuid("f", value)


def optional_uuid(fields: Fields, value: str) -> Any:
    """Reads a UUID that may be absent."""
    return fields.optional_uuid("f", value)


def uid(fields: Fields, value: str) -> Any:
    """Reads a UID."""
    return fields.uid("f", value)


def exact(fields: Fields, value: str) -> Any:
    """Reads an identifier of at most 16 characters."""
    return fields.exact("f", value, max_length=16)


def optional_exact(fields: Fields, value: str) -> Any:
    """Reads an identifier that may be absent."""
    return fields.optional_exact("f", value, max_length=16)


def text(fields: Fields, value: str) -> Any:
    """Reads a text."""
    return fields.text("f", value, max_length=10)


def choice(fields: Fields, value: str) -> Any:
    """Reads a role."""
    return fields.choice("f", value, Role)


def word(fields: Fields, value: str) -> Any:
    """Reads a sex."""
    return fields.word("f", value, ("M", "F", "O", ""))


def optional_da(fields: Fields, value: str) -> Any:
    """Reads a DICOM day."""
    return fields.optional_da("f", value)


def optional_day(fields: Fields, value: str) -> Any:
    """Reads a day."""
    return fields.optional_day("f", value)


def time(fields: Fields, value: Timestamp) -> Any:
    """Reads a time."""
    return fields.time("f", value)


@pytest.mark.parametrize(
    ("read", "value", "expected"),
    [
        (uuid, _UUID, UUID(_UUID)),
        (uuid, _UUID.upper(), UUID(_UUID)),
        (optional_uuid, _UUID, UUID(_UUID)),
        (optional_uuid, "", None),
        (uid, "1.2.3", "1.2.3"),
        (exact, "x" * 16, "x" * 16),
        (optional_exact, "", None),
        (optional_exact, "A-1", "A-1"),
        (text, "ten chars!", "ten chars!"),
        (choice, "viewer", Role.VIEWER),
        (word, "", ""),
        (word, "F", "F"),
        (optional_da, "", None),
        (optional_da, "20240229", "20240229"),
        (optional_day, "", None),
        (optional_day, "2024-02-29", date(2024, 2, 29)),
        (time, Timestamp(seconds=0), datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_right_value_is_read(read: Reader, value: Any, expected: Any) -> None:
    """Right values come out as what the use cases take."""
    fields = Fields()
    assert read(fields, value) == expected
    fields.expect_valid()


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (uuid, ""),
        (uuid, "42"),
        (uuid, "{" + _UUID + "}"),
        (uuid, "urn:uuid:" + _UUID),
        (uuid, _UUID.replace("-", "")),
        (uuid, _UUID + "\n"),
        (uuid, " " + _UUID),
        (optional_uuid, "null"),
        (uid, ""),
        (uid, "1.2.*"),
        (uid, "1.2\n"),
        (exact, ""),
        (exact, "x" * 17),
        (exact, "SMITH*"),
        (exact, "SMITH?"),
        (exact, "SMI\\TH"),
        (exact, " SMITH"),
        (exact, "SMI\x00TH"),
        (optional_exact, "SMITH*"),
        (text, ""),
        (text, "   "),
        (text, "eleven char"),
        (text, "SMI\nTH"),
        (text, "SMI\x00TH"),
        (choice, ""),
        (choice, "SMITH"),
        (choice, "VIEWER"),
        (word, "X"),
        (word, "MF"),
        (optional_da, "20230229"),
        (optional_da, "2024-02-29"),
        (optional_da, "2024022"),
        (optional_da, "20240229\n"),
        (optional_da, "00000000"),
        (optional_da, _WIDE),
        (optional_day, "2023-02-29"),
        (optional_day, "20240229"),
        (optional_day, "2024-2-29"),
        (optional_day, "2024-02-29T00:00:00"),
        (optional_day, "2024-W09-4"),
        (time, Timestamp(seconds=-(10**11))),
        (time, Timestamp(seconds=10**11 * 3)),
        (time, Timestamp(seconds=2**62)),
        (time, Timestamp(seconds=-(2**62))),
        (time, Timestamp(seconds=0, nanos=2**31 - 1)),
        (time, Timestamp(seconds=0, nanos=-1)),
    ],
)
def test_a_wrong_value_is_one_violation_that_does_not_quote_it(read: Reader, value: Any) -> None:
    """A wrong value raises nothing while it is read, and then one violation of its field, which never repeats it."""
    fields = Fields()
    read(fields, value)
    with pytest.raises(InvalidFieldError) as raised:
        fields.expect_valid()
    (violation,) = raised.value.violations
    assert violation.field == "f"
    told = f"{raised.value.message} {violation.description}"
    if isinstance(value, str) and len(value.strip()) > 3:
        assert value.strip() not in told
    assert "SMI" not in told


@pytest.mark.parametrize(("number", "right"), [(0, False), (1, True), (3, True), (4, False)])
def test_a_list_has_its_number_of_entries(number: int, right: bool) -> None:  # noqa: FBT001 - a parameter
    """An empty list and one that is too long are wrong."""
    fields = Fields()
    fields.count("f", number, at_most=3)
    if right:
        fields.expect_valid()
    else:
        with pytest.raises(InvalidFieldError):
            fields.expect_valid()


def test_every_wrong_value_is_told_at_once() -> None:
    """One error names all the fields that are wrong, in the order they were read."""
    fields = Fields()
    fields.uuid("a", "x")
    fields.uid("b", "1.2")
    fields.uid("c", "x")
    fields.text("d", "", max_length=3)
    with pytest.raises(InvalidFieldError) as raised:
        fields.expect_valid()
    assert [violation.field for violation in raised.value.violations] == ["a", "c", "d"]
