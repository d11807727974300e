"""Engines that people use read the lake: the same counts and sums as the source.

delta-rs and Polars are always there. Spark and DuckDB's delta extension are large, or are there for some versions of
DuckDB only: ``make engines`` fetches them into an environment of their own, and runs these tests.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars
import psycopg
import pyarrow as pa
import pytest
from deltalake import DeltaTable, QueryBuilder
from running_hub import RunningHub
from workload import change, insert, make_tables

import catchment.lake
from catchment.demo.cluster import Cluster

ENGINES = Path(os.environ.get("CATCHMENT_ENGINES", "nothing"))
READER = Path(__file__).parents[1] / "support" / "engines.py"

SUMS = {
    "pgbench_accounts": "sum(abalance)",
    "pgbench_tellers": "sum(tbalance)",
    "pgbench_branches": "sum(bbalance)",
    "pgbench_history": "sum(delta)",
    "kinds": "sum(large)",
    "bag": "sum(a)",
}


@pytest.fixture
def lake(source_database: str, source_cluster: Cluster, hub_factory: Callable[..., RunningHub]) -> RunningHub:
    """A lake whose tables have changed after they were filled: some rows are marked as deleted."""
    seed = random.randrange(2**32)
    print(f"seed: {seed}")
    chance = random.Random(seed)
    source_cluster.run("pgbench", "-i", "-q", "-s", "1", source_database)
    make_tables(source_database)
    hub = hub_factory({"orders": source_database})
    hub.extra = '[lake]\nuri = "lake"\n'
    hub.write()
    with psycopg.connect(source_database) as connection:
        for key in range(100):
            insert(connection, chance, key)
    hub.until_caught_up()
    source_cluster.run("pgbench", "-n", "-t", "300", source_database)
    with psycopg.connect(source_database) as connection:
        for _ in range(50):
            change(connection, chance)
        connection.execute("INSERT INTO bag VALUES (1, '[1]', '(1,1)')")
    hub.until_caught_up()
    return hub


def asked(hub: RunningHub) -> dict[str, dict[str, Any]]:
    """What an engine is to look at: each current state and each history, at the versions of the last record."""
    view = catchment.lake.open(str(hub.directory / "lake")).at("orders")
    told = {}
    for kind, tables in (("current", view.tables), ("history", view.histories)):
        for table in tables.values():
            name = table.name.removeprefix("public.")
            told[f"{kind} {name}"] = {"path": table.uri, "version": table.version, "sum": SUMS[name]}
    return told


def expected(hub: RunningHub) -> dict[str, list[Any]]:
    """Of the source's tables, and of their histories as far as delta-rs reads them."""
    with psycopg.connect(hub.sources["orders"]) as connection:
        told = {
            f"current {name}": list(
                connection.execute(f"SELECT count(*), ({total})::text FROM {name}").fetchone() or ()
            )
            for name, total in SUMS.items()
        }
    histories = {name: each for name, each in asked(hub).items() if name.startswith("history")}
    return told | delta_rs(histories)


def delta_rs(asked: dict[str, dict[str, Any]]) -> dict[str, list[Any]]:
    found = {}
    for name, each in asked.items():
        query = QueryBuilder().register("t", DeltaTable(each["path"], version=each["version"]))
        table = pa.table(query.execute(f"SELECT count(*), CAST({each['sum']} AS varchar) FROM t").read_all())
        found[name] = [column.to_pylist()[0] for column in table.columns]
    return found


def by_polars(asked: dict[str, dict[str, Any]]) -> dict[str, list[Any]]:
    found = {}
    for name, each in asked.items():
        table = polars.read_delta(each["path"], version=each["version"])
        column = each["sum"].removeprefix("sum(").removesuffix(")")
        found[name] = [table.height, str(table[column].sum())]
    return found


def test_delta_rs_and_polars_read_the_counts_and_sums_of_the_source(lake: RunningHub) -> None:
    there = expected(lake)
    assert all(count > 0 for count, _ in there.values())
    assert any(file["deletionVector"] for file in actions(lake, "pgbench_accounts") if "deletionVector" in file)
    assert delta_rs(asked(lake)) == there
    assert by_polars(asked(lake)) == there


def actions(hub: RunningHub, table: str) -> list[dict[str, Any]]:
    """Of all files that were added to a table."""
    log = hub.directory / "lake" / "orders" / f"public.{table}" / "_delta_log"
    told = [json.loads(line) for file in log.glob("*.json") for line in file.read_text().splitlines()]
    return [each["add"] for each in told if "add" in each]


@pytest.mark.parametrize("engine", ["duckdb", "spark"])
def test_engines_that_are_fetched_read_the_counts_and_sums_of_the_source(
    request: pytest.FixtureRequest, engine: str
) -> None:
    python = ENGINES / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{engine} is not here: `make engines` fetches it and runs this test")
    if engine == "spark" and shutil.which("java") is None:
        pytest.skip("Spark needs Java, and there is none")
    hub = request.getfixturevalue("lake")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(python), str(READER), engine, str(ENGINES)],
        input=json.dumps(asked(hub)),
        capture_output=True,
        text=True,
        env=environment,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == expected(hub)
