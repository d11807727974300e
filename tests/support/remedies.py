"""Doing what a finding says."""

from __future__ import annotations

import re
import time

import psycopg

from catchment.postgres.finding import Finding

_STATEMENT = re.compile(r"(?:ALTER|COMMIT|CREATE|DROP|GRANT|ROLLBACK|SELECT) [^;]*(?=;)")
_PATIENCE = 30.0


def do(dsn: str, statements: str) -> None:
    """Run them, each in a transaction of its own where they are one."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statements)


def follow(dsn: str, remedy: str) -> None:
    """Run the SQL of a remedy exactly as it is printed: of several ways the first that leaves nothing to fill in."""
    ways = [_STATEMENT.findall(f"{way};") for way in remedy.split("; or ")]
    way = next(way for way in ways if way and "…" not in "".join(way))
    for statement in way:
        do(dsn, statement)


def names(findings: list[Finding]) -> list[str]:
    """Which checks have found something, but for what every server here has."""
    usual = {"ready", "max_slot_wal_keep_size", "minor_version"}
    return [finding.check for finding in findings if finding.check not in usual]


def at(findings: list[Finding], check: str) -> Finding:
    """The one finding of this check."""
    (found,) = (finding for finding in findings if finding.check == check)
    return found


def until_gone(look: object, check: str) -> None:
    """A setting takes effect a moment after the server was told to read it."""
    assert callable(look)
    deadline = time.monotonic() + _PATIENCE
    while check in names(look()):
        assert time.monotonic() < deadline, check
        time.sleep(0.05)
