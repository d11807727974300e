"""The lake from outside: a hub that is killed again and again, and what Delta's readers see of it."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import polars
import psycopg
import pyarrow as pa
import pytest
from deltalake import DeltaTable, QueryBuilder
from faults import inject
from running_hub import RunningHub, eventually, rows
from workload import Traffic, make_tables

from catchment.changes.cast import type_of, typed
from catchment.demo.cluster import Cluster
from catchment.model.table import Table


def records(hub: RunningHub, source: str) -> list[dict[str, Any]]:
    """All that are kept, the oldest first, after the first load."""
    files = sorted((hub.directory / "lake" / "_frontier" / source).glob("*.json"))
    found = [json.loads(file.read_bytes()) for file in files]
    return [each for each in found if each["tables"] and all(table["version"] is not None for table in each["tables"])]


def shape_of(path: Path) -> Table:
    return Table.from_json(json.loads(DeltaTable(str(path)).metadata().configuration["catchment.table"]))


def values(columns: Iterable[pa.Array]) -> list[str]:
    return sorted(map(repr, zip(*(column.to_pylist() for column in columns), strict=True)))


def source_rows(dsn: str, shape: Table) -> list[str]:
    """The rows of the source as typed values, then the texts of what the types cannot hold."""
    names = [column.name for column in shape.columns]
    texts = list(zip(*rows(dsn, shape.schema, shape.name, names), strict=True)) or [() for _ in names]
    cast = [
        typed(pa.array(text, pa.string()), type_of(column)) for text, column in zip(texts, shape.columns, strict=True)
    ]
    nothing = pa.nulls(len(texts[0]), pa.string())
    return values([*(one.values for one in cast), *(nothing if one.exact is None else one.exact for one in cast)])


def told(found: Iterable[dict[str, Any]], shape: Table) -> list[str]:
    """The same of rows of the lake, whose columns have the source's names here."""
    names = [column.name for column in shape.columns]
    return sorted(
        repr((*(row[name] for name in names), *((row.get("_exact") or {}).get(name) for name in names)))
        for row in found
    )


def replayed(history: polars.DataFrame, shape: Table, since: int) -> list[dict[str, Any]]:
    """What a history says is there at its end, row by row, as docs/reference/lake.md tells a reader to do it."""
    names = [column.name for column in shape.columns]
    keyed: dict[Any, dict[str, Any]] = {}
    bag: list[dict[str, Any]] = []
    before: dict[str, Any] | None = None
    for change in history.filter(polars.col("_seq") > since).sort("_seq").to_dicts():
        op, left_out = change["_op"], change["_unchanged"] or []
        exact = dict(change.get("_exact") or {})
        row = {name: change[name] for name in names} | {"_exact": exact}
        at = repr([(row[name], exact.get(name)) for name in shape.key])
        if op == "t":
            keyed.clear()
            bag.clear()
        elif op in "bd" and shape.key:
            before = keyed.pop(at, None)
        elif op in "bd":
            bag.remove(row)
            before = row
        else:
            known = before if op == "u" and before is not None else keyed.get(at)
            if left_out and known is not None:
                row |= {name: known[name] for name in left_out}
                row["_exact"] |= {name: known["_exact"][name] for name in left_out if name in known["_exact"]}
            if shape.key and (not left_out or known is not None):
                keyed[at] = row
            elif not shape.key:
                bag.append(row)
        before = before if op == "b" else None
    return [*keyed.values(), *bag]


BALANCES = {
    "pgbench_accounts": "abalance",
    "pgbench_tellers": "tbalance",
    "pgbench_branches": "bbalance",
    "pgbench_history": "delta",
}


def sums(hub: RunningHub, record: dict[str, Any]) -> set[int]:
    """What pgbench keeps equal, at the versions of one record."""
    found = set()
    for table in record["tables"]:
        if (column := BALANCES.get(table["name"])) is not None:
            rows = polars.scan_delta(str(hub.directory / "lake" / table["path"]), version=table["version"])
            found.add(rows.select(polars.col(column).sum()).collect().item())
    return found


@pytest.mark.parametrize("faults", [4, pytest.param(100, marks=pytest.mark.soak)])
def test_promises_1_3_and_4_hold_in_the_lake_whatever_is_killed(
    private_cluster: Cluster, hub_factory: Callable[..., RunningHub], faults: int
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    with psycopg.connect(private_cluster.dsn(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE payments")
    sources = {"orders": private_cluster.dsn(), "payments": private_cluster.dsn("payments")}
    for dsn in sources.values():
        private_cluster.run("pgbench", "-i", "-q", "-s", "1", dsn)
        make_tables(dsn)
    hub = hub_factory(sources)
    hub.extra = '[lake]\nuri = "lake"\n'
    hub.write()
    traffic = [Traffic(dsn, private_cluster.binaries, chance.randrange(2**32), 600) for dsn in sources.values()]
    try:
        hub.start()
        for _ in range(faults):
            time.sleep(chance.uniform(2, 5))
            inject(chance, hub, {"source": private_cluster})
    finally:
        for each in traffic:
            each.stop()
    hub.close()
    hub.until_caught_up()

    for name, dsn in sources.items():
        assert_lake_equals_source(hub, name, dsn)
        for record in records(hub, name):
            assert len(sums(hub, record)) == 1, record["frontier"]


def assert_lake_equals_source(hub: RunningHub, name: str, dsn: str) -> None:
    """Every table: the history replayed, the current state, and the rows of the source."""
    *_, last = records(hub, name)
    assert {table["name"] for table in last["tables"]} == {"kinds", "bag", *BALANCES}
    for table in last["tables"]:
        path = hub.directory / "lake" / table["path"]
        shape = shape_of(path)
        current = polars.read_delta(str(path), version=table["version"])
        there = source_rows(dsn, shape)
        assert told(current.to_dicts(), shape) == there, table["name"]
        count = QueryBuilder().register("t", DeltaTable(str(path))).execute("SELECT count(*) FROM t").read_all()
        assert pa.table(count).column(0).to_pylist() == [len(there)]
        history = polars.read_delta(f"{path}.history", version=table["history"])
        assert told(replayed(history, shape, table["since"]), shape) == there, table["name"]


def test_a_hub_ends_with_everything_in_the_lake_although_it_waits_for_more_between_commits(
    source_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    with psycopg.connect(source_database, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY)")
        connection.execute("CREATE PUBLICATION catchment FOR ALL TABLES")
        hub = hub_factory({"orders": source_database})
        hub.extra = '[lake]\nuri = "lake"\n'
        hub.write()
        hub.until_caught_up()
        hub.start()
        eventually(lambda: any(each["state"] == "streaming" for each in hub.status()["targets"]), "it streams")
        connection.execute("INSERT INTO t VALUES (1)")
        eventually(lambda: '"op": "c"' in hub.command("log", "show", "orders").stdout, "the log has it")
        assert hub.stop() == 0
    shown = [json.loads(line) for line in hub.command("lake", "show", "orders").stdout.splitlines()]
    assert [(each["kind"], each["table"]) for each in shown] == [("current", "public.t"), ("history", "public.t")]
    assert polars.read_delta(shown[1]["uri"], version=shown[1]["version"])["_op"].to_list() == ["c"]
    hub.command("lake", "show", "orders", "--lsn", "0/1", expect=1)
    assert polars.read_delta(str(hub.directory / "lake" / "orders" / "public.t"))["id"].to_list() == [1]
