"""``catchment verify`` without a server: what is wrong is said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from catchment.cli.main import app
from catchment.model.lsn import Lsn
from catchment.pipeline.verify import TableReport
from catchment.pipeline.verify_verdict import Difference

CANARY = "canary7391"
SOURCE = f'[[source]]\nname = "orders"\ndsn = "host=127.0.0.1 port=1 dbname=orders password={CANARY}"\n'
ODS = f'[ods]\ndsn = "postgresql://writer:{CANARY}@127.0.0.1:1/ods"\n'
FEED = '[[feed]]\npath = "feed/{source}.jsonl"\n'


@pytest.mark.parametrize(
    ("config", "name", "status", "line"),
    [
        (SOURCE + ODS, "customers", 2, "there is no source customers"),
        (SOURCE + FEED, "orders", 2, "there is no target to compare with; add [ods] with a dsn"),
        (SOURCE + ODS, "orders", 1, "source orders: "),
    ],
)
def test_an_error_is_one_line(tmp_path: Path, config: str, name: str, status: int, line: str) -> None:
    path = tmp_path / "catchment.toml"
    path.write_text(config)
    for more in ([], ["--json"]):
        result = CliRunner().invoke(app, ["verify", name, "--config", str(path), *more])
        assert result.exit_code == status, result.output
        assert result.stdout == ""
        (said,) = result.stderr.splitlines()
        assert said.startswith(f"error: {line}")
        assert CANARY not in said


def report(**found: object) -> TableReport:
    given: dict[str, object] = {
        "target": "lake",
        "table": "public.t",
        "key": ("a", "b"),
        "rows": 2,
        "position": Lsn(0x10),
        **found,
    }
    return TableReport(**given)  # type: ignore[arg-type]  # the fields of a test's choice


def test_a_table_is_equal_only_if_nothing_is_in_doubt() -> None:
    difference = Difference(("1", "x"), "differs", ("c",))
    assert report().state == "equal"
    assert report(waiting=1).state == "unverified"
    assert report(reason="stopped").state == "unverified"
    assert report(missing=1).state == "different"
    assert report(differences=(difference,), reason="given up").state == "different"


def test_json_has_every_key_by_its_columns() -> None:
    differences = (Difference(("1", "x"), "differs", ("c",)), Difference(("2", ""), "missing"))
    assert report(differences=differences).to_json() == {
        "target": "lake",
        "table": "public.t",
        "state": "different",
        "rows": 2,
        "position": "0/10",
        "differing": 2,
        "missing": 1,
        "extra": 0,
        "waiting": 0,
        "reason": None,
        "differences": [
            {"key": {"a": "1", "b": "x"}, "kind": "differs", "columns": ["c"]},
            {"key": {"a": "2", "b": ""}, "kind": "missing", "columns": []},
        ],
    }
