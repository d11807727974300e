"""``catchment verify`` of the lake: whatever somebody did to its tables is found by its keys, and nothing else is."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from hashlib import md5
from typing import Any
from uuid import UUID

import psycopg
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from places import execute
from running_hub import RunningHub, eventually
from verified import wrong
from workload import insert, make_tables

import catchment.lake

CANARY = "canary7391"

TABLES = f"""
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE moods (id mood PRIMARY KEY, n int);
INSERT INTO moods VALUES ('happy', 1), ('sad', 2);
CREATE TABLE names (id uuid PRIMARY KEY, n int, secret text);
INSERT INTO names SELECT md5(n::text)::uuid, n, '{CANARY}' FROM generate_series(1, 5000) n;
CREATE TABLE exacts (id numeric, n numeric(7, 3), PRIMARY KEY (id, n));
INSERT INTO exacts SELECT n + 0.0, n / 8.0 FROM generate_series(1, 300) n;
CREATE TABLE empty (id int PRIMARY KEY);
"""


def found(hub: RunningHub, *options: str) -> dict[tuple[str, str], dict[str, Any]]:
    """What ``verify --json`` says, by target and table."""
    done = hub.command("verify", "shop", "--json", *options, expect=None)
    assert CANARY not in done.stdout + done.stderr
    assert done.stderr == ""
    told = {(each["target"], each["table"].removeprefix("public.")): each for each in json.loads(done.stdout)["tables"]}
    assert done.returncode == (0 if {each["state"] for each in told.values()} == {"equal"} else 1)
    return told


@pytest.fixture
def hub(hub_factory: Callable[..., RunningHub], source_database: str, ods_database: str) -> RunningHub:
    """A lake and an ODS that have rows of every type, most of them odd ones."""
    seed = random.randrange(2**32)
    print(f"seed: {seed}")
    chance = random.Random(seed)
    execute(source_database, TABLES)
    make_tables(source_database)
    with psycopg.connect(source_database) as connection:
        for key in range(300):
            insert(connection, chance, key)
        connection.execute("INSERT INTO bag SELECT n % 5, '[1]', '(1,2)' FROM generate_series(1, 200) n")
        connection.execute("INSERT INTO bag VALUES (NULL, NULL, NULL), (NULL, NULL, NULL), (77, '[]', NULL)")
    hub = hub_factory({"shop": source_database}, ods=ods_database)
    hub.extra = """[lake]
uri = "lake"
[lake.columns]
"shop.public.exacts.id" = "decimal(20,5)"
"shop.public.kinds.any_exact" = "decimal(10,4)"
"""
    hub.write()
    hub.until_caught_up()
    return hub


def spoil(hub: RunningHub) -> dict[str, set[tuple[str, ...]]]:
    """What nobody should do: write to the lake's tables. Returns what is wrong then."""
    at = hub.directory / "lake" / "shop"
    twice = catchment.lake.open(str(hub.directory / "lake")).at("shop")["public.kinds"].to_arrow().slice(0, 1)
    kinds, names, exacts = (str(at / f"public.{name}") for name in ("kinds", "names", "exacts"))
    (identity,) = twice.column("id").to_pylist()
    spoilt, gone = [n for n in range(300) if n != identity][:2]
    write_deltalake(kinds, twice, mode="append")
    write_deltalake(kinds, twice.set_column(0, "id", pa.array([-9], pa.int64())), mode="append")
    DeltaTable(kinds).update(predicate=f"id = {spoilt}", updates={"words": "'spoilt'", "padded": "'spoilt'"})
    DeltaTable(kinds).delete(f"id = {gone}")
    DeltaTable(names).delete("n = 4999 OR n = 1")
    DeltaTable(exacts).update(predicate="id = 7", updates={"id": "7000.5"})
    DeltaTable(str(at / "public.moods")).delete("id = 'sad'")
    DeltaTable(str(at / "public.bag")).delete("a = 77")
    write_deltalake(str(at / "public.empty"), pa.table({"id": pa.array([1], pa.int32())}), mode="append")
    return {
        "kinds": {
            ("extra", str(identity)),
            ("extra", "-9"),
            ("differs", str(spoilt), "words padded"),
            ("missing", str(gone)),
        },
        "names": {("missing", str(UUID(md5(n, usedforsecurity=False).hexdigest()))) for n in (b"1", b"4999")},
        "exacts": {("missing", "7", "0.875"), ("extra", "7000.5", "0.875")},
        "moods": {("missing", "sad")},
        "empty": {("extra", "1")},
    }


def test_everything_wrong_in_the_lake_is_found_and_nothing_else_and_repaired(hub: RunningHub) -> None:
    reports = found(hub)
    assert {(target, report["state"], report["reason"]) for (target, _), report in reports.items()} == {
        ("ods", "equal", None),
        ("lake", "equal", None),
    }
    assert reports["lake", "names"]["rows"] == 5000
    assert reports["lake", "kinds"]["position"]
    spoilt = spoil(hub)
    reports = found(hub)
    assert {report["state"] for (target, _), report in reports.items() if target == "ods"} == {"equal"}
    assert [report["reason"] for report in reports.values() if report["reason"]] == []
    assert {name: wrong(report) for (target, name), report in reports.items() if report["differences"]} == spoilt
    assert (reports["lake", "bag"]["missing"], reports["lake", "bag"]["extra"]) == (1, 0)
    shown = hub.command("verify", "shop", "public.names", expect=1).stdout
    assert "equal       public.names in the ODS: 5,000 rows compared, at " in shown
    assert "different   public.names in the lake: 2 missing; 5,000 rows compared, at " in shown
    assert shown.endswith("1 table in the ODS: 1 equal\n1 table in the lake: 1 different\n")
    assert_what_the_hub_finds_is_repaired(hub)
    assert_what_cannot_be_compared_is_said(hub)


def assert_what_the_hub_finds_is_repaired(hub: RunningHub) -> None:
    """It goes on with what somebody made of the table, and its next record names that."""
    execute(hub.sources["shop"], "UPDATE names SET n = 0 WHERE n = 2")
    hub.start()
    eventually(lambda: hub.source_status("shop")["state"] == "streaming", "the hub")
    repaired = found(hub, "public.names", "--repair")
    assert {report["state"] for report in repaired.values()} == {"equal"}
    assert hub.stop() == 0


def assert_what_cannot_be_compared_is_said(hub: RunningHub) -> None:
    at = hub.directory / "lake" / "shop"
    for file in (at / "public.names").rglob("part-*.parquet"):
        file.write_bytes(b"PAR1 not any more PAR1")
    for file in (at / "public.exacts").rglob("part-*.parquet"):
        file.unlink()
    record = max((hub.directory / "lake" / "_frontier" / "shop").glob("*.json"))
    told = json.loads(record.read_bytes())
    for entry in told["tables"]:
        entry |= {"takes": entry["name"] != "moods", "version": None if entry["name"] == "empty" else entry["version"]}
    record.write_text(json.dumps(told))
    reports = found(hub)
    said = {name: report["reason"] for (target, name), report in reports.items() if target == "lake"}
    assert "does not read back" in said["names"]
    assert "is gone" in said["exacts"]
    assert "`catchment backfill" in said["exacts"]
    assert "is being read again" in said["moods"]
    assert "is not in the lake yet" in said["empty"]
