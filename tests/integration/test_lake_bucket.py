"""A lake in an object store from outside: a hub that is killed while it writes there, and what readers see of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from threading import Event, Thread
from typing import Any

import duckdb
import polars
import psycopg
import pytest
from running_hub import RunningHub, eventually
from s3_server import S3Server
from tcp_proxy import TcpProxy
from typer.testing import CliRunner

import catchment.lake
from catchment.cli.main import app
from catchment.targets.lake.place import open_store

TABLES = {
    "accounts": "id int PRIMARY KEY, balance int NOT NULL",
    "moves": "id int PRIMARY KEY, amount int, note text",
    "café b": "amount int",
}
_MOVE = """
    UPDATE accounts SET balance = balance - {n} WHERE id = {n} % 20;
    UPDATE accounts SET balance = balance + {n} WHERE id = ({n} + 7) % 20;
    INSERT INTO moves VALUES ({n}, {n}, repeat(md5('{n}'), 50));
    INSERT INTO "café b" VALUES ({n} % 3);
    DELETE FROM moves WHERE id = {n} - 30;
    DELETE FROM "café b" WHERE ctid = (SELECT ctid FROM "café b" ORDER BY ctid LIMIT 1);
"""


def source_rows(connection: psycopg.Connection, table: str) -> list[tuple[Any, ...]]:
    return sorted(connection.execute(f'SELECT * FROM "{table}"').fetchall())


def replayed(history: polars.DataFrame) -> list[tuple[Any, ...]]:
    """What the history of a table whose first column is the key says is there, or of one without a key."""
    found: dict[Any, tuple[Any, ...]] = {}
    for change in history.sort("_seq").to_dicts():
        row = tuple(value for name, value in change.items() if not name.startswith("_"))
        if change["_op"] in "bd":
            at = row[0] if len(row) > 1 else next(key for key, known in found.items() if known == row)
            found.pop(at)
        else:
            found[row[0] if len(row) > 1 else change["_seq"]] = row
    return sorted(found.values())


def command(hub: RunningHub, *arguments: str) -> str:
    """Run one in this process."""
    done = CliRunner().invoke(app, [*arguments, "--config", str(hub.config)])
    assert done.exit_code == 0, done.output
    return done.output


def test_promises_1_and_3_hold_in_a_bucket_whatever_is_killed_and_cut(
    source_database: str,
    hub_factory: Callable[..., RunningHub],
    s3_server: S3Server,
    s3_bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance, over = random.Random(seed), Event()
    uri, options = f"s3://{s3_bucket}/a/lake", s3_server.options
    secret = options["secret_access_key"]
    store = open_store(uri, options)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", options["access_key_id"])
    monkeypatch.setenv("LAKE_SECRET", secret)
    with psycopg.connect(source_database, autocommit=True) as connection, TcpProxy(s3_server.port) as proxy:
        for table, columns in TABLES.items():
            connection.execute(f'CREATE TABLE "{table}" ({columns})')
        connection.execute('ALTER TABLE "café b" REPLICA IDENTITY FULL')
        connection.execute("INSERT INTO accounts SELECT n, 100 FROM generate_series(0, 19) n")
        connection.execute("CREATE PUBLICATION catchment FOR ALL TABLES")
        hub = hub_factory({"orders": source_database})
        endpoint = s3_server.options_through(proxy.port)["endpoint"]
        hub.extra = (
            f'[lake]\nuri = "{uri}"\n[lake.options]\nendpoint = "{endpoint}"\nallow_http = "true"\n'
            'region = "us-east-1"\nsecret_access_key = "${LAKE_SECRET}"\n'
        )
        hub.write()
        hub.until_caught_up()

        def writes(known: int) -> bool:
            return len(store.files("")) > known or hub.process is None or hub.process.poll() is not None

        def cut() -> None:
            while not over.wait(chance.uniform(0.2, 1)):
                proxy.cut()

        cutting = Thread(target=cut)
        cutting.start()
        proxy.delay = 0.01
        try:
            for n in range(100):
                connection.execute(_MOVE.format(n=n))
            hub.start("--until-caught-up")
            for _ in range(3):
                known = len(store.files(""))
                eventually(lambda known=known: writes(known), "it writes, or has written all")
                hub.kill_worker(chance)
            assert hub.process is not None
            assert hub.process.wait(180) == 0
        finally:
            over.set()
            cutting.join()

        view = catchment.lake.open(uri, options).at("orders")
        for table in TABLES:
            there = source_rows(connection, table)
            found, history = view[f"public.{table}"], view.histories[f"public.{table}"]
            assert sorted(found.to_polars().collect().rows()) == there, table
            assert sorted(zip(*found.to_arrow().to_pydict().values(), strict=True)) == there, table
            assert sorted(found.to_duckdb(duckdb.connect()).fetchall()) == there, table
            assert replayed(history.to_polars().collect()) == there, table
        assert catchment.lake.open(uri, options).at("orders", view.frontier.lsn) == view
        assert uri in command(hub, "lake", "show", "orders")
        assert f"{uri} can be written" in command(hub, "check")
        assert secret not in hub.output.read_text()
        command(hub, "source", "drop", "orders", "--purge")
        assert [file.path for file in store.files("")] == ["_frontier/.conditional"]
