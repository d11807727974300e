"""Connections whose settings do not depend on who configured the server, and errors in our own words."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo

from catchment.model.errors import (
    CatchmentError,
    ConfigError,
    SourceRefused,
    SourceUnreachable,
    TableLocked,
    TargetRefused,
    TargetUnreachable,
)

PINNED = {
    "DateStyle": "ISO",
    "IntervalStyle": "iso_8601",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "lc_monetary": "C",
    "search_path": "pg_catalog",
    "quote_all_identifiers": "off",
    "xmloption": "content",
    "array_nulls": "on",
    "default_transaction_isolation": "read\\ committed",
    "default_transaction_read_only": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "row_security": "off",
    # A hub that vanished without a word leaves no locks and snapshots behind for two hours. No tcp_user_timeout, which
    # also ends the connection of one that is busy and does not read for so long; no client_connection_check_interval,
    # which servers on some platforms refuse. Over a Unix socket these mean nothing, and are taken all the same.
    "tcp_keepalives_idle": "20",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    # To compile what we ask of a catalog takes a second; to answer it, some milliseconds.
    "jit": "off",
}
"""Settings under which values are rendered and parsed; databases and roles may bring others, so each session says them.

https://www.postgresql.org/docs/current/runtime-config-client.html
https://www.postgresql.org/docs/current/runtime-config-connection.html#RUNTIME-CONFIG-TCP-SETTINGS
"""

# A peer that vanished without a word is noticed within a minute; statements themselves may take as long as they need.
_LIBPQ = {
    "application_name": "catchment",
    "connect_timeout": "10",
    "keepalives": "1",
    "keepalives_idle": "20",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}

_RETRIED_CLASSES = {"08", "40", "53", "57", "58"}
_LOCK_NOT_AVAILABLE = "55P03"
_RETRIED_STATES = {_LOCK_NOT_AVAILABLE, "55006", "25006"}
# libpq hands on no SQLSTATE when connecting fails, only the server's words.
_REFUSALS = {
    "password authentication failed": "correct the password: it is in the dsn, in the variable that the dsn names, in "
    "~/.pgpass or in the service file",
    "no password supplied": "give it one: in the dsn as password=${VARIABLE}, in ~/.pgpass or in the service file",
    "no pg_hba.conf entry": "let a line of that server's pg_hba.conf have this host, user and database",
    "must be superuser or replication role": "on that server: ALTER ROLE … REPLICATION",
    "permission denied for database": "on that server: GRANT CONNECT ON DATABASE … TO …",
    "permission denied": "grant what the role of the dsn lacks",
}
_MISSING = re.compile(r'(role|database) "(.*)" does not exist')
_UNKNOWN = re.compile(r'invalid (?:connection option|URI query parameter:) "(\w+)"')
_NAMED_BY = {"role": "user", "database": "dbname"}
# Their messages quote the value that was wrong.
_CLASSES_WITH_VALUES = {"21", "22", "23", "P0"}
_SOURCE_REMEDIES = {
    "42501": "grant it; `catchment source sql NAME` prints all that a source needs, `catchment check` what is missing",
    "55000": "`catchment check` says which setting is missing",
    "42704": "`catchment check` says what is missing",
}
_TARGET_REMEDIES = {"42501": "grant it in the ODS; `catchment check` says what is missing there"}


def conninfo(dsn: str, **parameters: str) -> str:
    """The dsn with pinned settings; what it says of its own (timeouts, options) stays unless we depend on it.

    Raises ConfigError when libpq cannot read it.
    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
    """
    given = read_dsn(dsn)
    pinned = " ".join(f"-c {name}={value}" for name, value in PINNED.items())
    options = f"{given.pop('options', '')} {pinned}".strip()
    return make_conninfo("", **{**_LIBPQ, **given, "options": options, "client_encoding": "UTF8", **parameters})


def read_dsn(dsn: str) -> dict[str, str]:
    """The parameters of a connection string or URI. Raises ConfigError without repeating it: it may hold a password."""
    try:
        given = {name: str(value) for name, value in conninfo_to_dict(dsn).items() if value is not None}
    except psycopg.ProgrammingError as error:
        if (misspelt := _UNKNOWN.search(str(error))) and (meant := _keyword_like(misspelt[1])):
            raise ConfigError(
                f"the dsn has a keyword {misspelt[1]}, which libpq does not know", remedy=f"did you mean {meant}?"
            ) from None
        raise ConfigError(
            "the dsn is not a connection string that libpq understands",
            remedy="write it as 'host=… dbname=… user=…', as 'service=…' or as a postgresql:// URI",
        ) from None
    ports = given.get("port", "").replace(",", "")
    if "@" in given.get("host", "") or not (ports == "" or ports.isdigit()):
        # What libpq then takes for a host or a port is a piece of the password, and it would print it.
        raise ConfigError(
            "the dsn's host or port is not one", remedy="percent-encode the password if it has @, / or : in it"
        )
    return given


def _keyword_like(word: str) -> str | None:
    """Null where nothing is alike: then it may be a piece of a password, which is not repeated."""
    known = [option.keyword.decode() for option in Conninfo.get_defaults()]
    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=0.7)), None)


def masked(dsn: str) -> str:
    """The dsn as it may be printed."""
    return make_conninfo("", **{**read_dsn(dsn), **({"password": "***"} if "password" in read_dsn(dsn) else {})})


@dataclass(frozen=True, slots=True)
class Translation:
    """Turns psycopg's errors into ours, on the side that it is made for."""

    unreachable: type[CatchmentError]
    refused: type[CatchmentError]
    remedies: Mapping[str, str]
    source: str | None = None
    locked: type[CatchmentError] | None = None

    def __call__(self, error: psycopg.Error, table: str | None = None) -> CatchmentError:
        """Our error for psycopg's. DETAIL and CONTEXT are dropped, as are messages that quote values."""
        state = error.sqlstate
        if state is None:
            text = next((line for line in str(error).splitlines() if line.strip()), "connection lost")
            # A result that libpq makes up itself when the connection breaks has neither SQLSTATE nor class.
            if not isinstance(error, psycopg.OperationalError) and type(error) is not psycopg.DatabaseError:
                return self.refused(
                    text, source=self.source, table=table, remedy="please report this defect of Catchment"
                )
            if remedy := _refusal_remedy(text):
                return self.refused(text, source=self.source, remedy=remedy)
            return self.unreachable(text, source=self.source, table=table)
        if state[:2] in _CLASSES_WITH_VALUES:
            text = f"PostgreSQL reports {type(error).__name__} (SQLSTATE {state})"
        else:
            text = f"{error.diag.message_primary} (SQLSTATE {state})"
        if state == _LOCK_NOT_AVAILABLE and self.locked is not None:
            return self.locked(text, source=self.source, table=table)
        retried = state[:2] in _RETRIED_CLASSES or state in _RETRIED_STATES
        if retried:
            return self.unreachable(text, source=self.source, table=table, remedy="it is tried again")
        remedy = self.remedies.get(state, "see what the server's own log says about it")
        return self.refused(text, source=self.source, table=table, remedy=remedy)

    @contextlib.contextmanager
    def around(self, table: str | None = None) -> Iterator[None]:
        """Raise our errors for psycopg's inside this block."""
        try:
            yield
        except psycopg.Error as error:
            raise self(error, table) from None


def of_source(source: str) -> Translation:
    """Errors of a source's server."""
    return Translation(SourceUnreachable, SourceRefused, _SOURCE_REMEDIES, source, locked=TableLocked)


def of_target(source: str | None = None) -> Translation:
    """Errors of the server that a target is on, about what it has of this source."""
    return Translation(TargetUnreachable, TargetRefused, _TARGET_REMEDIES, source)


def _refusal_remedy(text: str) -> str | None:
    """Of what a server says that lets nobody in; null for anything else, such as one that does not answer."""
    if missing := _MISSING.search(text):
        return f"correct {_NAMED_BY[missing[1]]} in the dsn, or have that {missing[1]} created on that server"
    return next((remedy for refusal, remedy in _REFUSALS.items() if refusal in text), None)


def connect(dsn: str, translation: Translation, **parameters: str) -> psycopg.Connection:
    """An autocommit connection with pinned settings. Raises the translation's errors."""
    with translation.around():
        connection = psycopg.connect(conninfo(dsn, **parameters), autocommit=True, prepare_threshold=None)
        if connection.info.server_version >= 170000:
            connection.execute("SET transaction_timeout = 0")
    # Server notices can quote rows, and nobody reads them.
    connection.add_notice_handler(lambda _: None)
    return connection
