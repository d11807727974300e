"""Errors: one line each, and a reference that is not out of date."""

from __future__ import annotations

import pickle
import runpy
from pathlib import Path

from catchment.model.errors import SlotLost, SourceUnreachable

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def test_promise_5_an_error_is_one_line_with_where_what_and_remedy() -> None:
    error = SlotLost("slot x\n  is gone", source="orders", table="public.places", remedy="do this")
    assert str(error) == "source orders, table public.places: slot x is gone; do this"
    assert str(SourceUnreachable("no answer")).startswith("no answer; check that the server runs")


def test_promise_5_a_remedy_names_the_source_as_soon_as_it_is_known() -> None:
    error = SourceUnreachable("broken", remedy='DROP TABLE "NAME"; `catchment source drop NAME` and a new run')
    assert "`catchment source drop NAME`" in str(error)
    error.source = "orders"
    assert str(error).endswith('DROP TABLE "NAME"; `catchment source drop orders` and a new run')


def test_errors_pass_between_processes_whole() -> None:
    error = pickle.loads(pickle.dumps(SlotLost("gone", source="orders", remedy="do this")))  # noqa: S301
    assert (str(error), error.source) == ("source orders: gone; do this", "orders")


def test_the_reference_of_errors_is_generated_from_the_tree() -> None:
    page = runpy.run_path(str(REFERENCE / "generate.py"))["render"]()
    assert (REFERENCE / "errors.md").read_text() == page, "run: python docs/reference/generate.py"
