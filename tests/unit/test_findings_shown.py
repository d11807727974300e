"""What a terminal shows of the findings of ``check``."""

from __future__ import annotations

import sys

import pytest

from catchment.cli.findings import show
from catchment.postgres.finding import Check, Finding

ALIKE = Check("text", "notice", "lands as text: {columns}", "the type is the source's own")
GRAVE = Check("select", "error", "SELECT is missing", "it cannot be read", "GRANT …;")


def of_table(check: Check, table: str, **said: str) -> Finding:
    return check.found(f"source shop, table public.{table}", **said)


def test_notices_that_say_the_same_are_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    findings = [of_table(ALIKE, f"t{number}", columns="mood") for number in range(9)]
    findings += [of_table(ALIKE, "other", columns="size")]
    findings += [of_table(GRAVE, table) for table in ("a", "b")]
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show(findings)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    tables = "public.t0, public.t1, public.t2, public.t3, public.t4 and 4 more"
    assert f"notice  tables {tables}: lands as text: mood" in lines
    assert "notice  table public.other: lands as text: size" in lines
    assert [line for line in lines if "SELECT" in line] == [
        f"error   table public.{table}: SELECT is missing" for table in ("a", "b")
    ]
    assert lines[-1] == "2 errors, 0 warnings, 10 notices"
