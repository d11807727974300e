"""The references of the command line and of catchment.toml are not out of date, and leave nothing out."""

from __future__ import annotations

import runpy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from catchment.hub.summary import summarise

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


@pytest.fixture(scope="module")
def generated() -> dict[str, Any]:
    return runpy.run_path(str(REFERENCE / "generate.py"))


@pytest.mark.parametrize("page", ["configuration", "cli"])
def test_the_page_is_generated_from_the_code(generated: dict[str, Any], page: str) -> None:
    text = generated[f"render_{page}"]()
    assert (REFERENCE / f"{page}.md").read_text() == text, "run: python docs/reference/generate.py"


def test_every_key_of_status_is_explained(generated: dict[str, Any]) -> None:
    summary = summarise(["orders"], ["ods"], (), True, datetime.now(UTC))
    explained = generated["CLI_FOOT"]
    for entry in (*summary["sources"], *summary["targets"]):
        for key in entry:
            assert f"`{key}`" in explained
