"""``catchment verify`` from outside: nothing wrong is missed, nothing right is called wrong, whatever goes on."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from places import execute
from running_hub import COMMAND, RunningHub, eventually
from verified import wrong
from workload import Traffic, make_tables

from catchment.assembly import build_log, build_source
from catchment.config import load
from catchment.demo.cluster import Cluster
from catchment.pipeline import verify_place
from catchment.pipeline.verify import TableReport, Verification
from catchment.postgres.reading import SourceReader
from catchment.targets.ods.reading import OdsReader

CANARY = "canary7391"

FEW_TABLES = f"""
CREATE TABLE plain (id int PRIMARY KEY, exact numeric, words text, secret text);
INSERT INTO plain SELECT n, 1.0, '', '{CANARY}' FROM generate_series(1, 9000) n;
CREATE TABLE exacts (id numeric PRIMARY KEY, n int);
INSERT INTO exacts SELECT n + 0.0, n FROM generate_series(1, 300) n;
CREATE TABLE names (id uuid PRIMARY KEY, n int);
INSERT INTO names SELECT md5(n::text)::uuid, n FROM generate_series(1, 3000) n;
CREATE TABLE bag (a int, b text);
ALTER TABLE bag REPLICA IDENTITY FULL;
INSERT INTO bag SELECT n % 50, 'it''s \\ ' || n % 3 FROM generate_series(1, 3000) n;
INSERT INTO bag VALUES (NULL, ''), (NULL, NULL), (NULL, NULL);
"""

OTHER_TABLES = f"""
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN amount AS bigint CHECK (VALUE < 1000000);
CREATE TABLE emptied (id int PRIMARY KEY, words text);
INSERT INTO emptied SELECT n, 'x' FROM generate_series(1, 30) n;
CREATE TABLE empty (id int PRIMARY KEY);
CREATE TABLE composite (a int, b text, c int, PRIMARY KEY (a, b));
INSERT INTO composite SELECT n % 7, 'k' || n, n FROM generate_series(1, 3000) n;
CREATE TABLE texts (id text PRIMARY KEY, n int);
INSERT INTO texts SELECT chr(65 + n % 58) || '''"\\ ☃,' || n, n FROM generate_series(1, 3000) n;
CREATE TABLE sorted (id text COLLATE "POSIX" PRIMARY KEY, n int);
INSERT INTO sorted SELECT chr(65 + n % 58) || n, n FROM generate_series(1, 3000) n;
CREATE TABLE moods (id mood PRIMARY KEY, n int);
INSERT INTO moods VALUES ('happy', 1), ('sad', 2);
CREATE TABLE pairs (id pair PRIMARY KEY, n int);
INSERT INTO pairs SELECT (n, 'b ' || n)::pair, n FROM generate_series(1, 300) n;
CREATE TABLE domains (id amount PRIMARY KEY, n int);
INSERT INTO domains SELECT n, n FROM generate_series(1, 300) n;
CREATE TABLE shared (id int PRIMARY KEY, n int, kept_back text);
INSERT INTO shared SELECT n, n, '{CANARY}' FROM generate_series(1, 100) n;
CREATE TABLE parted (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (100);
CREATE TABLE parted_high PARTITION OF parted FOR VALUES FROM (100) TO (1000);
INSERT INTO parted SELECT n, n FROM generate_series(0, 199) n;
CREATE TABLE "odd "" 名" ("the "" key" int PRIMARY KEY, "%s" text);
INSERT INTO "odd "" 名" VALUES (1, '%s'), (2, '%L');
"""

FEW = f"{FEW_TABLES}CREATE PUBLICATION catchment FOR ALL TABLES"

ALL = f"""{FEW_TABLES}{OTHER_TABLES}
CREATE PUBLICATION catchment FOR TABLE plain, emptied, empty, composite, texts, sorted, moods, pairs, exacts, names,
    domains, bag, shared (id, n) WHERE (id <= 50), parted, "odd "" 名" WITH (publish_via_partition_root);
"""

CORRUPTION = """
UPDATE shop.plain SET exact = 1.00 WHERE id = 10;
UPDATE shop.plain SET words = NULL, secret = 'canary7391!' WHERE id = 4500;
DELETE FROM shop.plain WHERE id IN (1, 9000);
INSERT INTO shop.plain VALUES (-1), (20000);
UPDATE shop.plain SET id = 30000 WHERE id = 77;
DELETE FROM shop.emptied;
INSERT INTO shop.empty VALUES (1);
UPDATE shop.composite SET b = 'K8' WHERE b = 'k8';
DELETE FROM shop.texts WHERE n = 5;
UPDATE shop.sorted SET n = 0 WHERE id = 'B1';
INSERT INTO shop.sorted VALUES ('zzz', 1);
UPDATE shop.moods SET id = 'furious' WHERE id = 'sad';
UPDATE shop.pairs SET id = '(7,"b  7")' WHERE n = 7;
UPDATE shop.exacts SET id = 7.00 WHERE n = 7;
DELETE FROM shop.names WHERE n = 3000;
INSERT INTO shop.domains VALUES (5000000, 1);
DELETE FROM shop.bag WHERE ctid = (SELECT min(ctid) FROM shop.bag WHERE a IS NULL AND b IS NULL);
UPDATE shop.bag SET b = b || ' ' WHERE ctid = (SELECT min(ctid) FROM shop.bag WHERE a = 3);
INSERT INTO shop.shared VALUES (51, 51);
UPDATE shop.parted SET n = 0 WHERE id IN (99, 100);
UPDATE shop."odd "" 名" SET "%s" = '%' WHERE "the "" key" = 2;
"""

WRONG: dict[str, set[tuple[str, ...]]] = {
    "plain": {
        ("differs", "10", "exact"),
        ("differs", "4500", "words secret"),
        ("missing", "1"),
        ("missing", "9000"),
        ("extra", "-1"),
        ("extra", "20000"),
        ("missing", "77"),
        ("extra", "30000"),
    },
    "emptied": {("missing", str(n)) for n in range(1, 31)},
    "empty": {("extra", "1")},
    "composite": {("missing", "1", "k8"), ("extra", "1", "K8")},
    "texts": {("missing", "F'\"\\ ☃,5")},
    "sorted": {("differs", "B1", "n"), ("extra", "zzz")},
    "moods": {("missing", "sad"), ("extra", "furious")},
    "pairs": {("missing", '(7,"b 7")'), ("extra", '(7,"b  7")')},
    "exacts": {("missing", "7.0"), ("extra", "7.00")},
    "names": {("missing", "e93028bd-c1aa-cdfb-3687-181f2031765d")},
    "domains": {("extra", "5000000")},
    "shared": {("extra", "51")},
    "parted": {("differs", "99", "n"), ("differs", "100", "n")},
    'odd " 名': {("differs", "2", "%s")},
}


def found(hub: RunningHub, *tables: str) -> dict[str, dict[str, Any]]:
    """What ``verify --json`` says, by table."""
    done = hub.command("verify", "shop", *tables, "--json", expect=None)
    assert CANARY not in done.stdout + done.stderr
    assert done.stderr == ""
    reports = {table["table"].removeprefix("public."): table for table in json.loads(done.stdout)["tables"]}
    all_equal = all(report["state"] == "equal" for report in reports.values())
    assert done.returncode == (0 if all_equal else 1)
    return reports


@pytest.fixture
def hub(hub_factory: Callable[..., RunningHub], source_database: str, ods_database: str) -> RunningHub:
    return hub_factory({"shop": source_database}, ods=ods_database)


def test_everything_wrong_is_found_and_nothing_else(hub: RunningHub) -> None:
    """Keys of all sorts, with a hub that does not run: what the slot has for it is known to be nothing."""
    assert hub.ods
    execute(hub.sources["shop"], ALL)
    hub.until_caught_up()
    reports = found(hub)
    assert {name: report["state"] for name, report in reports.items()} == dict.fromkeys([*WRONG, "bag"], "equal")
    assert reports["plain"]["rows"] == 9000
    assert reports["shared"]["rows"] == 50
    assert reports["plain"]["position"]
    execute(hub.ods, CORRUPTION)
    reports = found(hub)
    assert {name: wrong(report) for name, report in reports.items() if name != "bag"} == WRONG
    assert (reports["bag"]["state"], reports["bag"]["missing"], reports["bag"]["extra"]) == ("different", 2, 1)
    shown = hub.command("verify", "shop", "public.plain", "public.emptied", expect=1).stdout
    assert CANARY not in shown
    assert 'different  id="4500": words, secret' in shown
    assert "and 10 more; --json has them all" in shown
    assert "no hub runs" in hub.command("verify", "shop", "public.plain", "--repair", expect=1).stderr
    hub.start()
    eventually(lambda: hub.source_status("shop")["state"] == "streaming", "the hub")
    repaired = hub.command("verify", "shop", "--repair").stdout
    assert "public.plain: 8 rows read" in repaired
    assert {report["state"] for report in found(hub).values()} == {"equal"}


@pytest.mark.server_versions
def test_what_was_not_delivered_yet_is_not_called_wrong(hub: RunningHub) -> None:
    """Nor right: the hub does not run, and only the slot knows of the change."""
    execute(hub.sources["shop"], FEW)
    hub.until_caught_up()
    execute(
        hub.sources["shop"],
        "UPDATE plain SET words = 'new' WHERE id = 5; INSERT INTO plain VALUES (9999)",
        "DELETE FROM bag WHERE a = 7",
        "TRUNCATE names",
    )
    reports = found(hub)
    states = {name: report["state"] for name, report in reports.items() if report["state"] != "equal"}
    assert states == dict.fromkeys(["plain", "bag", "names"], "unverified")
    assert reports["plain"]["waiting"] == 2
    hub.until_caught_up()
    assert {report["state"] for report in found(hub).values()} == {"equal"}


def test_no_false_alarm_while_everything_changes(hub: RunningHub, source_cluster: Cluster) -> None:
    """Then one value is spoilt in a row that nobody touches, and found amidst the same traffic."""
    assert hub.ods
    seed = random.randrange(2**32)
    print(f"seed: {seed}")
    source = hub.sources["shop"]
    source_cluster.run("pgbench", "-i", "-q", "-s", "1", source)
    make_tables(source)
    execute(source, "INSERT INTO kinds (id, words) VALUES (-500, 'right')")
    hub.start()
    traffic = Traffic(source, source_cluster.binaries, seed, 120)
    try:
        eventually(
            lambda: {table["state"] for table in hub.source_status("shop")["tables"]} == {"streaming"}, "the reading"
        )
        eventually(lambda: hub.status()["targets"][0]["state"] == "streaming", "delivery")
        eventually(
            lambda: found(hub, "public.pgbench_tellers")["pgbench_tellers"]["state"] == "equal", "the first load"
        )
        reports = found(hub)
        assert {name: (one["state"], one["reason"]) for name, one in reports.items()} == dict.fromkeys(
            reports, ("equal", None)
        )
        execute(hub.ods, "UPDATE shop.kinds SET words = 'wrong' WHERE id = -500")
        assert wrong(found(hub, "public.kinds")["kinds"]) == {("differs", "-500", "words")}
    finally:
        traffic.stop()


@pytest.fixture
def stuck_ods(hub: RunningHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningHub]:
    """A hub that runs, and an ODS that takes nothing any more, with the patience for it cut short."""
    assert hub.ods
    execute(hub.sources["shop"], FEW)
    monkeypatch.setattr(verify_place, "_STANDSTILL_SECONDS", 1.0)
    hub.until_caught_up()
    hub.start()
    eventually(lambda: {one["state"] for one in hub.status()["targets"]} == {"streaming"}, "delivery")
    with psycopg.connect(hub.ods) as blocking:
        blocking.execute("LOCK catchment.frontier IN SHARE MODE")
        yield hub


def compared(hub: RunningHub, *tables: str) -> dict[str, TableReport]:
    """The same in this process."""
    settings = load(hub.config)
    source = build_source(settings.one("shop"))
    assert settings.ods
    with (
        closing(build_log(settings)) as log,
        SourceReader(source) as reader,
        OdsReader(settings.ods.dsn, "shop") as target,
    ):
        verification = Verification(source, reader, target, log, lambda: True)
        reports = verification.run(verification.tables([f"public.{name}" for name in tables]), lambda *_: None)
        return {report.table.removeprefix("public."): report for report in reports}


def test_an_ods_that_stands_still_is_compared_where_it_stands(stuck_ods: RunningHub) -> None:
    source = stuck_ods.sources["shop"]
    execute(source, "UPDATE plain SET words = 'new' WHERE id = 5", "INSERT INTO bag VALUES (1, 'new')")
    reports = compared(stuck_ods, "plain", "exacts", "bag")
    assert {name: (one.state, one.waiting) for name, one in reports.items()} == {
        "plain": ("unverified", 1),
        "exacts": ("equal", 0),
        "bag": ("unverified", 1),
    }
    # What the log has for this key does not excuse another.
    assert stuck_ods.ods
    execute(stuck_ods.ods, "DELETE FROM shop.plain WHERE id = 6")
    (report,) = compared(stuck_ods, "plain").values()
    assert [(one.key, one.kind) for one in report.differences] == [(("6",), "missing")]
    assert report.waiting == 1


def test_a_table_that_takes_no_changes_is_said_to(hub: RunningHub) -> None:
    assert hub.ods
    execute(hub.sources["shop"], FEW)
    hub.until_caught_up()
    execute(
        hub.ods,
        "DROP TABLE shop.names",
        "UPDATE catchment.tables SET current = false, stopped = 'stopped: for a reason' WHERE name = 'plain'",
        "ALTER TABLE shop.exacts DROP COLUMN n",
    )
    reports = found(hub, "public.names", "public.plain", "public.exacts")
    assert {report["state"] for report in reports.values()} == {"unverified"}
    assert "is not in the ODS yet" in reports["names"]["reason"]
    assert reports["plain"]["reason"] == "stopped: for a reason"
    assert "column" in reports["exacts"]["reason"]


def test_bad_input_and_servers_that_go_away_get_one_line(hub: RunningHub, source_cluster: Cluster) -> None:
    source = hub.sources["shop"]
    execute(source, FEW)
    assert "nothing was ever delivered" in error_of(hub, 1)
    hub.until_caught_up()
    assert "no table public.nothing" in error_of(hub, 1, "public.nothing")
    ended = threading.Event()
    cutting = threading.Thread(target=cut, args=(source, ended))
    cutting.start()
    try:
        line = error_of(hub, 1)
    finally:
        ended.set()
        cutting.join()
    assert line.startswith("error: source shop")
    with subprocess.Popen(
        [*COMMAND, "verify", "shop", "--config", str(hub.config)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        eventually(lambda: connected(source), "reading")
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate()
    assert complaints == b""
    assert process.returncode == 130
    eventually(lambda: not connected(source), "its connections are closed")


def error_of(hub: RunningHub, status: int, *tables: str) -> str:
    done = hub.command("verify", "shop", *tables, expect=status)
    assert CANARY not in done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    return line


def connected(dsn: str) -> bool:
    with psycopg.connect(dsn) as admin:
        row = admin.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE application_name = 'catchment' AND datname = current_database()"
        ).fetchone()
        return row is not None and row[0] > 0


def cut(dsn: str, ended: threading.Event) -> None:
    """End every connection of ours again and again."""
    while not ended.is_set():
        time.sleep(0.02)
        execute(
            dsn,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'catchment' AND datname = current_database()",
        )
