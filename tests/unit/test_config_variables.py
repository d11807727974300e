"""``${NAME}`` in a dsn is one value, whatever is in it: libpq's own parser is the judge."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from catchment.variables import expanded

# What an environment variable can hold.
anything = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)))
NASTY = (r"it's a \'pass\' word=", "a b", "", "'", "\\", "é ${OTHER} %41", "x' host=evil", "p@ss/w:rd?#&=", "\n\t ")


def read(dsn: str, **variables: str) -> dict[str, object]:
    return dict(conninfo_to_dict(expanded(dsn, variables.__getitem__)))


@pytest.mark.parametrize(
    "dsn",
    [
        "host=h password=${X} dbname=d",
        "host=h password='${X}' dbname=d",
        "host=h dbname=d password = ${X}",
        "dbname=d password=${X}\nhost=h",
        "postgresql://h/d?password=${X}",
    ],
)
@settings(max_examples=60, deadline=None)
@given(secret=anything)
@example(NASTY[0])
@example(NASTY[2])
@example(NASTY[6])
def test_a_variable_is_one_value(dsn: str, secret: str) -> None:
    assert read(dsn, X=secret) == {"host": "h", "dbname": "d", "password": secret}


@pytest.mark.parametrize("secret", [secret for secret in NASTY if secret])
def test_a_password_in_a_uri(secret: str) -> None:
    found = read("postgresql://u:${X}@h:5432/d", X=secret)
    assert found == {"user": "u", "password": secret, "host": "h", "port": "5432", "dbname": "d"}


@settings(max_examples=60, deadline=None)
@given(first=anything, second=anything)
def test_variables_within_a_value_are_part_of_it(first: str, second: str) -> None:
    assert read(r"password=a\ \'${A}-${B} host=h", A=first, B=second)["password"] == f"a '{first}-{second}"
    assert read(r"password='a \' ${A}-${B}' host=h", A=first, B=second)["password"] == f"a ' {first}-{second}"


def test_a_variable_may_hold_a_whole_dsn_or_a_part_of_one() -> None:
    assert read("${DSN}", DSN="host=h password='a b'") == {"host": "h", "password": "a b"}
    assert read("${BASE} dbname=d", BASE="host=h user=u") == {"host": "h", "user": "u", "dbname": "d"}
    assert read("dbname=d ${MORE} user=u", MORE="host=h") == {"dbname": "d", "host": "h", "user": "u"}
    whole = read("${DSN}?password=${X}", DSN="postgresql://h/d", X="a&b'c")
    assert whole == {"host": "h", "dbname": "d", "password": "a&b'c"}


def test_what_has_no_variable_stays_as_it_is() -> None:
    for dsn in (r"host=h password='a\'b' options='-c x=1'", "service=orders", "postgresql://u:a%20b@h/d", "x = '"):
        assert expanded(dsn, {}.__getitem__) == dsn


def test_a_variable_is_not_looked_for_in_what_another_holds() -> None:
    assert read("dbname=${A}", A="${B}", B="no") == {"dbname": "${B}"}
