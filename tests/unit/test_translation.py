"""Which of our errors becomes of psycopg's."""

from __future__ import annotations

import psycopg
import pytest

from catchment.model.errors import SourceRefused, SourceUnreachable, TableLocked
from catchment.postgres.connection import of_source, of_target


def test_a_connection_that_breaks_in_the_midst_of_a_result_is_tried_again() -> None:
    # What psycopg makes of a result that libpq made up itself.
    broken = psycopg.DatabaseError("server closed the connection unexpectedly\n\tThis probably means …")
    error = of_source("orders")(broken)
    assert isinstance(error, SourceUnreachable)
    assert str(error).startswith("source orders: server closed the connection unexpectedly;")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (psycopg.errors.AdminShutdown(), SourceUnreachable),
        (psycopg.errors.LockNotAvailable(), TableLocked),
        (psycopg.errors.InsufficientPrivilege(), SourceRefused),
        (psycopg.OperationalError('FATAL:  password authentication failed for user "a"'), SourceRefused),
        (psycopg.OperationalError("connection refused"), SourceUnreachable),
        (psycopg.OperationalError('database file "x" does not exist'), SourceUnreachable),
        (psycopg.InterfaceError("the cursor is closed"), SourceRefused),
    ],
)
def test_each_error_is_retried_or_waits_for_a_person(given: psycopg.Error, expected: type[Exception]) -> None:
    assert type(of_source("orders")(given)) is expected


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ('password authentication failed for user "a"', "correct the password"),
        ("fe_sendauth: no password supplied", "password=${VARIABLE}"),
        ('no pg_hba.conf entry for host "h", user "a", database "d"', "pg_hba.conf"),
        ('role "a" does not exist', "correct user in the dsn, or have that role created"),
        ('database "d" does not exist', "correct dbname in the dsn, or have that database created"),
    ],
)
def test_promise_5_a_connection_that_is_refused_says_what_to_correct(said: str, remedy: str) -> None:
    for translation in (of_source("orders"), of_target("orders")):
        assert remedy in str(translation(psycopg.OperationalError(f"FATAL:  {said}")))


def test_promise_5_a_missing_privilege_gets_the_advice_of_its_side() -> None:
    denied = psycopg.errors.InsufficientPrivilege()
    assert "`catchment source sql orders`" in str(of_source("orders")(denied))
    assert "source sql" not in str(of_target("orders")(denied))
    assert "in the ODS" in str(of_target("orders")(denied))
