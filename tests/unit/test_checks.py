"""Checks: their sentences can be filled, and the page about them is not out of date."""

from __future__ import annotations

import re
import runpy
import string
from pathlib import Path

import pytest

from catchment.postgres.finding import Check, Finding

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
PAGE = runpy.run_path(str(REFERENCE / "generate_checks.py"))
CHECKS: list[Check] = [check for module in (*PAGE["SOURCES"], PAGE["ods"]) for check in PAGE["checks"](module)]


def test_the_page_of_checks_is_generated_from_them() -> None:
    assert (REFERENCE / "checks.md").read_text() == PAGE["render"](), "run: python docs/reference/generate_checks.py"


def test_every_module_of_the_preflight_is_on_the_page() -> None:
    written = (Path(str(PAGE["faults"].__file__)).parent).glob("*.py")
    told = {Path(str(module.__file__)).name for module in PAGE["SOURCES"]}
    assert {file.name for file in written if re.search(r"= Check\(", file.read_text())} == told


def test_a_check_has_a_name_of_its_own() -> None:
    names = [check.name for check in CHECKS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_a_finding_says_why_it_matters_and_an_error_what_to_do(check: Check) -> None:
    if check.level != "good":
        assert check.why
    if check.level in ("error", "warning"):
        assert check.remedy
    gaps = {
        gap for text in (check.what, check.why, check.remedy) for _, gap, _, _ in string.Formatter().parse(text) if gap
    }
    found = check.found("source shop", **dict.fromkeys(gaps, "{x}"))
    assert "\n" not in str(found)


def test_promise_5_a_finding_is_one_line_with_where_what_why_and_remedy() -> None:
    finding = Finding("error", "wal_level", "source shop", "wal_level is replica", "too little", "ALTER SYSTEM …;")
    assert str(finding) == "error: source shop: wal_level is replica (too little); ALTER SYSTEM …;"
    assert list(finding.to_json()) == ["level", "check", "where", "what", "why", "remedy"]
