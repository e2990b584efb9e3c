"""Statements for the driver alone."""

import pytest
from sqlalchemy import bindparam, update

from pacs_gateway.adapters.db.models import patients
from pacs_gateway.adapters.db.prepared import Prepared


def test_names_become_positions() -> None:
    """Each name is one parameter, however often it stands there, and its value comes at its place."""
    statement = Prepared("SELECT :b, :a, :b")
    assert statement.sql == "SELECT $1, $2, $1"
    assert statement.arguments({"a": 1, "b": 2}) == [2, 1]


def test_what_stands_in_the_statement_stays_there() -> None:
    """A value that the statement itself sets needs not be given."""
    row = patients.c.id == bindparam("patient")
    statement = Prepared(update(patients).where(row).values(sex="F", full_name=bindparam("name")))
    values = statement.arguments({"patient": "id", "name": "Smith^Anna"})
    assert sorted(values) == ["F", "Smith^Anna", "id"]
    assert statement.sql.count("$") == 3


def test_a_value_that_is_missing_is_a_defect() -> None:
    """No parameter is ever left to be null."""
    with pytest.raises(KeyError):
        Prepared("SELECT :a, :b").arguments({"a": 1})
