"""Which of our errors becomes of psycopg's."""

from __future__ import annotations

import psycopg
import pytest

from catchment.model.errors import SourceRefused, SourceUnreachable, TableLocked
from catchment.postgres.connection import of_source


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
        (psycopg.InterfaceError("the cursor is closed"), SourceRefused),
    ],
)
def test_each_error_is_retried_or_waits_for_a_person(given: psycopg.Error, expected: type[Exception]) -> None:
    assert type(of_source("orders")(given)) is expected
