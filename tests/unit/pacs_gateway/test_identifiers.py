"""Which texts can serve as identifiers."""

import pytest

from pacs_gateway.domain.identifiers import is_exact, is_uid, orthanc_id


@pytest.mark.parametrize(
    "value", ["1", "1.2.840.10008.1.2", "1.02.3", "9" * 64, "2.25.329800735698586629295641978511506172918"]
)
def test_a_uid_is_digits_and_dots(value: str) -> None:
    """Every UID that real files have is one."""
    assert is_uid(value)


@pytest.mark.parametrize(
    "value",
    ["", ".1", "1.2*", "1?", "1\\2", "1 ", " 1", "1\n", "1.2.x", "9" * 65, "\u0661.2", "1\x00", "-1"],
)
def test_what_is_no_uid(value: str) -> None:
    """Nothing that could stand for several UIDs, or for none, is one."""
    assert not is_uid(value)


@pytest.mark.parametrize("value", ["1", "MRN-1", "a b", "Müller", "x" * 64, "a/b", "a%2Fb", "山田"])
def test_what_matches_only_itself(value: str) -> None:
    """Ordinary identifiers are exact, in any script."""
    assert is_exact(value)


@pytest.mark.parametrize("value", ["", " ", "*", "a*", "?", "a\\b", " a", "a ", "a\n", "a\x00", "a\u200bb", "x" * 65])
def test_what_matches_more_than_itself(value: str) -> None:
    """A wildcard, a separator, padding, what cannot be seen, and nothing at all are not exact."""
    assert not is_exact(value)


def test_an_identifier_has_the_length_of_its_attribute() -> None:
    """The limit is the attribute's own."""
    assert is_exact("x" * 16, max_length=16)
    assert not is_exact("x" * 17, max_length=16)


def test_orthancs_id_is_the_one_that_orthanc_gives() -> None:
    """The ids are those that an Orthanc 1.10 answered with, also beyond ASCII."""
    assert orthanc_id("1CT1", "1.2", "1.2.1", "1.2.1.1") == "e5d48d18-9f63546b-d9e55fec-c24b9186-e3641208"
    assert orthanc_id("M\u00dcLLER", "1.2", "1.2.1", "1.2.1.1") == "92ca295d-14a03de5-8725e39d-8ced5ea6-76676fa2"
