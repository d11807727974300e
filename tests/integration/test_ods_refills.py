"""Refills: shadows, and their change-over into what readers see."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import uuid4

import psycopg
import pytest
from ods_batches import Ods, Source, reshaped, table
from places import need_extension

from catchment.model.batch import RefillFinished, RefillStarted, SchemaChanged
from catchment.model.errors import TableRefused, TargetUnreachable
from catchment.targets.ods import changeover

pytestmark = pytest.mark.server_versions

ACCOUNTS = table("accounts", "id int4", "name text")
ORDERS = table("orders", "id int4", "total numeric", schema="sales")
PLACES = table("places", "id int4", "name text")
FACTS = table("facts", "n int4", key=())


def test_a_first_load_appears_whole_with_what_the_stream_brought_meanwhile(ods: Ods, source: Source) -> None:
    source.begin("r1", ACCOUNTS, ("1", "ann"), ("2", "bob"))
    source.begin("r1", ORDERS, ("1", "1.50"))
    source.change(ACCOUNTS, ("u", "1", "anne"), ("c", "3", "cid"))
    assert not ods.exists("orders.accounts")
    source.finish("r1")
    assert ods.rows("orders.accounts") == ["(1,anne)", "(2,bob)", "(3,cid)"]
    assert ods.rows("orders__sales.orders") == ["(1,1.50)"]
    assert ods.one("SELECT count(*) FROM pg_class WHERE relname LIKE 'shadow%'") == 0
    index = "SELECT conname FROM pg_constraint WHERE conrelid = 'orders.accounts'::regclass AND contype = 'p'"
    assert ods.one(index) == "accounts_pkey"
    source.change(ACCOUNTS, ("d", "1"))
    assert ods.rows("orders.accounts") == ["(2,bob)", "(3,cid)"]


def test_rows_of_the_refill_and_of_the_stream_in_one_batch_are_taken_by_their_order(ods: Ods, source: Source) -> None:
    source.begin("r1", ACCOUNTS)
    earlier = source.rows(ACCOUNTS, [("c", "1", "old"), ("d", "2")])
    read = source.rows(ACCOUNTS, [("r", "1", "read"), ("r", "2", "read")], "r1")
    later = source.rows(ACCOUNTS, [("u", "2", "new")])
    source.apply(source.batch(later, read, earlier))
    source.finish("r1")
    assert ods.rows("orders.accounts") == ["(1,read)", "(2,new)"]


@pytest.mark.parametrize("shape", [ACCOUNTS, FACTS], ids=["keyed", "bag"])
def test_a_refill_brings_a_live_table_that_drifted_back(ods: Ods, source: Source, shape: object) -> None:
    if shape is FACTS:
        source.load(FACTS, ("1",), ("2",), ("2",))
        ods.execute("DELETE FROM orders.facts WHERE n = 1; INSERT INTO orders.facts VALUES (9)")
        source.load(FACTS, ("1",), ("2",), ("2",))
        assert ods.rows("orders.facts") == ["(1)", "(2)", "(2)"]
        return
    source.load(ACCOUNTS, ("1", "ann"), ("2", "bob"), ("3", "cid"))
    ods.execute("CREATE VIEW public.seen AS SELECT * FROM orders.accounts")
    untouched = ods.one("SELECT xmin::text FROM orders.accounts WHERE id = 1")
    ods.execute("DELETE FROM orders.accounts WHERE id = 2; INSERT INTO orders.accounts VALUES (9, 'zoe')")
    ods.execute("UPDATE orders.accounts SET name = 'x' WHERE id = 3")
    source.load(ACCOUNTS, ("1", "ann"), ("2", "bob"), ("3", "cid"))
    assert ods.rows("public.seen") == ["(1,ann)", "(2,bob)", "(3,cid)"]
    assert ods.one("SELECT xmin::text FROM orders.accounts WHERE id = 1") == untouched


def test_a_refill_changes_values_that_are_equal_but_not_the_same(ods: Ods, source: Source) -> None:
    source.load(ORDERS, ("1", "1.0"))
    source.load(ORDERS, ("1", "1.00"))
    assert ods.rows("orders__sales.orders") == ["(1,1.00)"]


def test_a_live_table_takes_changes_while_it_is_refilled(ods: Ods, source: Source) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    source.begin("r2", ACCOUNTS, ("1", "ann"))
    source.change(ACCOUNTS, ("c", "2", "bob"))
    assert ods.rows("orders.accounts") == ["(1,ann)", "(2,bob)"]
    source.truncate(ACCOUNTS)
    source.change(ACCOUNTS, ("c", "3", "cid"))
    assert ods.rows("orders.accounts") == ["(3,cid)"]
    source.finish("r2")
    assert ods.rows("orders.accounts") == ["(3,cid)"]


def test_a_refill_that_starts_again_starts_empty(ods: Ods, source: Source) -> None:
    source.begin("r1", ACCOUNTS, ("1", "ann"), ("2", "bob"))
    source.begin("r1", ACCOUNTS, ("2", "bob"))
    source.finish("r1")
    assert ods.rows("orders.accounts") == ["(2,bob)"]


def test_rows_of_a_refill_that_another_one_replaced_are_ignored(ods: Ods, source: Source) -> None:
    source.begin("r1", ACCOUNTS, ("1", "ann"))
    source.begin("r2", ACCOUNTS, ("2", "bob"))
    source.apply(source.batch(source.rows(ACCOUNTS, [("r", "3", "cid")], "r1")))
    source.finish("r1")
    assert not ods.exists("orders.accounts")
    source.finish("r2")
    assert ods.rows("orders.accounts") == ["(2,bob)"]


@pytest.mark.parametrize("gap", ["offset", "log"])
def test_after_a_gap_tables_stay_as_they_are_until_a_refill(ods: Ods, source: Source, gap: str) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    source.begin("r2", ACCOUNTS, ("1", "half"))
    if gap == "offset":
        source.offset += 5
    else:
        source.log = uuid4()
    source.change(ACCOUNTS, ("u", "1", "anne"), ("c", "2", "bob"))
    source.truncate(ACCOUNTS)
    source.finish("r2")
    assert ods.rows("orders.accounts") == ["(1,ann)"]
    source.begin("r3", ACCOUNTS, ("2", "bob"))
    source.change(ACCOUNTS, ("c", "3", "cid"))
    assert ods.rows("orders.accounts") == ["(1,ann)"]
    source.finish("r3")
    source.change(ACCOUNTS, ("c", "4", "dan"))
    assert ods.rows("orders.accounts") == ["(2,bob)", "(3,cid)", "(4,dan)"]


def test_a_reader_with_an_old_snapshot_never_sees_a_half_filled_table(ods: Ods, source: Source) -> None:
    source.begin("r1", ACCOUNTS, ("1", "ann"))
    with psycopg.connect(ods.dsn) as reader, ThreadPoolExecutor(1) as worker:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT 1")
        source.change(ACCOUNTS, ("c", "2", "bob"))
        finish = worker.submit(source.finish, "r1")
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            found = reader.execute("SELECT to_regclass('orders.accounts')").fetchone()
            assert found == (None,)
        assert not finish.done()
        reader.rollback()
        finish.result(timeout=30)
    assert ods.rows("orders.accounts") == ["(1,ann)", "(2,bob)"]


def test_a_snapshot_that_sees_all_rows_does_not_hold_the_table_back(ods: Ods, source: Source) -> None:
    source.begin("r1", ACCOUNTS, ("1", "ann"))
    with psycopg.connect(ods.dsn) as reader:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT 1")
        source.finish("r1")
        assert reader.execute("SELECT t::text FROM orders.accounts t").fetchall() == [("(1,ann)",)]


def test_an_old_snapshot_that_stays_is_named_and_the_change_over_is_retried(
    ods: Ods, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changeover, "_PATIENCE", 0.1)
    with psycopg.connect(ods.dsn) as reader:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT 1")
        source.begin("r1", ACCOUNTS, ("1", "ann"))
        finished = source.batch(RefillFinished("r1"))
        with pytest.raises(TargetUnreachable, match=f"pid {reader.info.backend_pid}"):
            source.apply(finished)
    source.apply(finished)
    assert ods.rows("orders.accounts") == ["(1,ann)"]


def test_readers_see_all_tables_of_a_refill_change_at_once(ods: Ods, source: Source) -> None:
    source.load(ACCOUNTS, ("0", "0"))
    source.begin("first", ORDERS, ("0", "0"))
    source.finish("first")
    stop = threading.Event()

    def watch() -> set[object]:
        seen = set()
        with psycopg.connect(ods.dsn, autocommit=True) as reader:
            while not stop.is_set():
                found = reader.execute(
                    "SELECT array_agg(name), (SELECT array_agg(total::text) FROM orders__sales.orders)"
                    " FROM orders.accounts"
                ).fetchone()
                seen.add(repr(found))
        return seen

    with ThreadPoolExecutor(1) as worker:
        watching = worker.submit(watch)
        for generation in map(str, range(1, 6)):
            source.begin(generation, ACCOUNTS, (generation, generation))
            source.begin(generation, ORDERS, (generation, generation))
            source.finish(generation)
        stop.set()
        seen = watching.result()
    assert seen <= {repr(([str(n)], [str(n)])) for n in range(6)}


def test_promise_3_readers_and_a_vacuum_do_not_hold_back_a_refill_of_the_same_shape(ods: Ods, source: Source) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    source.load(PLACES, ("1", "here"))
    source.load(FACTS, ("1",))
    with psycopg.connect(ods.dsn) as reader, psycopg.connect(ods.dsn) as vacuum:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT FROM orders.accounts")
        vacuum.execute("LOCK orders.places, orders.facts IN SHARE UPDATE EXCLUSIVE MODE")
        source.begin("r2", ACCOUNTS, ("1", "anne"), ("2", "bob"))
        source.begin("r2", PLACES, ("2", "there"))
        source.begin("r2", FACTS, ("2",))
        source.finish("r2")
        seen = reader.execute("SELECT a.id, a.name, n FROM orders.accounts a, orders.facts").fetchall()
        assert seen == [(1, "ann", 1)]
    assert ods.rows("orders.accounts") == ["(1,anne)", "(2,bob)"]
    assert ods.rows("orders.places") == ["(2,there)"]
    assert ods.rows("orders.facts") == ["(2)"]


def test_promise_3_no_reader_waits_while_rows_are_merged_whatever_is_altered_in_the_end(
    ods: Ods, source: Source
) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    source.load(PLACES, ("1", "here"))
    wider = reshaped(ACCOUNTS, *ACCOUNTS.columns, "note text")
    source.begin("r2", wider, ("1", "ann", "n"))
    source.begin("r2", PLACES, ("1", "there"))
    with ThreadPoolExecutor(1) as worker, psycopg.connect(ods.dsn) as writer, psycopg.connect(ods.dsn) as reader:
        writer.execute("SELECT FROM orders.places FOR UPDATE")
        finish = worker.submit(source.finish, "r2")
        merging = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = %s"
        while ods.one(merging, "transactionid") == 0:
            assert not finish.done()
        reader.execute("LOCK orders.accounts, orders.places IN ACCESS SHARE MODE NOWAIT")
        assert reader.execute("SELECT a.name, p.name FROM orders.accounts a, orders.places p").fetchall() == [
            ("ann", "here")
        ]
        reader.rollback()
        writer.rollback()
        finish.result(timeout=30)
    assert ods.rows("orders.accounts") == ["(1,ann,n)"]
    assert ods.rows("orders.places") == ["(1,there)"]


def test_columns_are_added_renamed_swapped_and_replaced(ods: Ods, source: Source) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    ods.execute("CREATE VIEW public.seen AS SELECT * FROM orders.accounts")
    number, name = ACCOUNTS.columns
    wider = reshaped(ACCOUNTS, number, name, "note varchar%14")
    source.apply(source.batch(SchemaChanged(wider), source.rows(wider, [("u", "1", "ann", "n"), ("c", "2", "b", "m")])))
    assert ods.rows("orders.accounts") == ["(1,ann,n)", "(2,b,m)"]
    note = wider.columns[2]
    swapped = reshaped(wider, number, replace(note, name="name"), replace(name, name="note"))
    source.apply(source.batch(SchemaChanged(swapped), source.rows(swapped, [("u", "1", "nn", "anne")])))
    assert ods.rows("orders.accounts") == ["(1,anne,nn)", "(2,b,m)"]
    replaced = reshaped(swapped, number, swapped.columns[1], "note int4")
    filled = source.rows(replaced, [("c", "3", "k", "7"), ("u", "1", "x", "8")])
    source.apply(source.batch(SchemaChanged(replaced), filled))
    assert ods.one("SELECT array_agg(note ORDER BY id)::text FROM orders.accounts") == "{8,NULL,7}"
    assert ods.rows("public.seen") == ["(1,anne)", "(2,b)", "(3,)"]


def test_a_type_that_cannot_be_followed_in_place_stops_the_table_until_it_is_dropped(ods: Ods, source: Source) -> None:
    source.load(ACCOUNTS, ("1", "1"))
    number, name = ACCOUNTS.columns
    changed = replace(ACCOUNTS, columns=(number, replace(name, type_name="int4")))
    told = source.batch(SchemaChanged(changed), source.rows(changed, [("c", "2", "2")]))
    source.apply(told)
    assert ods.rows("orders.accounts") == ["(1,1)"]
    assert 'DROP TABLE "orders"."accounts";' in str(source.out_of_date()["public.accounts"])
    ods.execute("DROP TABLE orders.accounts")
    assert source.out_of_date() == {"public.accounts": None}
    source.load(changed, ("1", "1"), ("2", "2"))
    assert ods.rows("orders.accounts") == ["(1,1)", "(2,2)"]
    assert source.out_of_date() == {}


def test_a_shadow_follows_its_table_and_so_does_the_live_one_at_the_change_over(ods: Ods, source: Source) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    source.offset += 1  # a gap: the live table takes no part any more
    wider = reshaped(ACCOUNTS, *ACCOUNTS.columns, "note text")
    source.begin("r2", ACCOUNTS, ("1", "ann"))
    source.happen(SchemaChanged(wider))
    source.apply(source.batch(source.rows(wider, [("r", "2", "bob", "n")], "r2")))
    assert ods.rows("orders.accounts") == ["(1,ann)"]
    source.finish("r2")
    assert ods.rows("orders.accounts") == ["(1,ann,)", "(2,bob,n)"]


def test_a_live_table_that_a_view_holds_in_its_shape_stops_alone_and_its_remedy_mends_it(
    ods: Ods, source: Source
) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    ods.execute("CREATE VIEW public.seen AS SELECT * FROM orders.accounts")
    source.offset += 1
    places = table("places", "id int4")
    other = replace(ACCOUNTS, columns=(ACCOUNTS.columns[0], replace(ACCOUNTS.columns[1], type_name="int4")))
    source.begin("r2", other, ("1", "5"))
    source.begin("r2", places, ("7",))
    source.finish("r2")
    source.change(other, ("c", "2", "6"))
    assert ods.rows("orders.accounts") == ["(1,ann)"]
    assert ods.rows("orders.places") == ["(7)"]
    sentence = str(source.out_of_date()["public.accounts"])
    assert "drop what depends on it (public.seen), then `catchment backfill orders public.accounts`" in sentence
    assert ods.one("SELECT count(*) FROM pg_class WHERE relname LIKE 'shadow%'") == 0
    ods.execute("DROP VIEW public.seen")
    source.load(other, ("1", "5"))
    source.change(other, ("c", "2", "6"))
    assert ods.rows("orders.accounts") == ["(1,5)", "(2,6)"]


def test_a_table_that_somebody_dropped_comes_back_with_its_refill(ods: Ods, source: Source) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    ods.execute("DROP TABLE orders.accounts")
    source.change(ACCOUNTS, ("c", "2", "bob"))
    assert source.out_of_date() == {"public.accounts": None}
    source.begin("r2", ACCOUNTS, ("1", "ann"), ("2", "bob"))
    assert source.out_of_date() == {}
    source.finish("r2")
    source.change(ACCOUNTS, ("d", "1"))
    assert ods.rows("orders.accounts") == ["(2,bob)"]


@pytest.mark.parametrize("is_known", [True, False], ids=["refill", "first load"])
def test_a_table_whose_shadow_somebody_dropped_is_refilled_again(ods: Ods, source: Source, is_known: bool) -> None:
    if is_known:
        source.load(ACCOUNTS, ("1", "old"))
    source.load(PLACES, ("1", "here"))
    source.begin("r2", ACCOUNTS, ("1", "ann"))
    source.begin("r2", PLACES, ("1", "there"))
    assert source.out_of_date() == {}
    ods.execute(f"DROP TABLE catchment.shadow_orders_{ACCOUNTS.oid}")
    assert source.out_of_date() == {"public.accounts": None}
    wider = reshaped(ACCOUNTS, *ACCOUNTS.columns, "note text")
    source.happen(SchemaChanged(wider, ACCOUNTS))
    source.finish("r2")
    assert ods.rows("orders.places") == ["(1,there)"]
    assert source.out_of_date() == {"public.accounts": None}
    source.load(wider, ("1", "ann", "n"))
    assert source.out_of_date() == {}
    assert ods.rows("orders.accounts") == ["(1,ann,n)"]


def test_what_somebody_dropped_is_missed_by_the_name_that_it_got_since(ods: Ods, source: Source) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    ods.execute("DROP TABLE orders.accounts")
    clients = replace(ACCOUNTS, name="clients", version=2)
    source.happen(SchemaChanged(clients, ACCOUNTS))
    assert source.out_of_date() == {"public.clients": None}
    source.load(replace(ACCOUNTS, oid=4_000_000_000), ("7", "new"))
    source.change(clients, ("c", "2", "bob"))
    assert source.out_of_date() == {"public.clients": None}
    source.load(clients, ("1", "ann"), ("2", "bob"))
    assert source.out_of_date() == {}
    assert ods.rows("orders.clients") == ["(1,ann)", "(2,bob)"]
    assert ods.rows("orders.accounts") == ["(7,new)"]


def test_a_table_that_stopped_before_it_appeared_is_told_by_its_name_whatever_happens(ods: Ods, source: Source) -> None:
    with pytest.raises(TableRefused) as caught:
        source.load(ACCOUNTS, ("canary", "ann"))
    source.offset -= 1
    source.finish("none")
    clients = replace(ACCOUNTS, name="clients", version=2)
    source.happen(SchemaChanged(clients, ACCOUNTS))
    assert source.out_of_date() == {"public.clients": str(caught.value)}
    source.begin("r2", clients, ("1", "ann"))
    source.offset += 1
    source.finish("none")
    assert source.out_of_date() == {"public.clients": str(caught.value)}
    source.load(clients, ("1", "ann"))
    assert source.out_of_date() == {}
    assert ods.rows("orders.clients") == ["(1,ann)"]


def test_somebody_elses_table_is_not_touched(ods: Ods, source: Source) -> None:
    ods.execute("CREATE SCHEMA orders; CREATE TABLE orders.accounts (x int)")
    source.load(ACCOUNTS, ("1", "ann"))
    assert ods.rows("orders.accounts") == []
    assert "rename or drop it" in str(source.out_of_date()["public.accounts"])


def test_a_table_that_the_source_made_anew_takes_the_place_of_the_old_one(ods: Ods, source: Source) -> None:
    shape = table("accounts", "id int4", "name text", "gone text")
    source.load(shape, ("1", "ann", "x"), ("2", "bob", "y"))
    ods.execute("CREATE VIEW public.seen AS SELECT id, name FROM orders.accounts")
    source.begin("r2", shape, ("1", "half", "x"))
    anew = replace(table("accounts", "name text", "note text", "id int4"), oid=4_000_000_000)
    source.begin("r3", anew, ("ann", "n", "1"))
    source.change(anew, ("c", "cid", "m", "3"))
    source.change(shape, ("d", "1"))
    assert ods.rows("public.seen") == ["(1,ann)", "(2,bob)"]
    source.finish("r2")
    source.finish("r3")
    source.change(anew, ("u", "cy", "m", "3"))
    assert ods.rows("public.seen") == ["(1,ann)", "(3,cy)"]
    assert ods.one("SELECT array_agg(note ORDER BY id)::text FROM orders.accounts") == "{n,m}"
    assert ods.one("SELECT count(*) FROM pg_class WHERE relname LIKE 'shadow%'") == 0


def test_a_table_made_anew_with_another_key_takes_the_place_of_the_old_one(ods: Ods, source: Source) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    anew = replace(table("accounts", "code text", "name text", key=("code",)), oid=4_000_000_000)
    source.load(anew, ("a", "ann"))
    source.change(anew, ("u", "a", "anne"))
    assert ods.one("SELECT array_agg(code || name)::text FROM orders.accounts") == "{aanne}"
    assert ods.one("SELECT attnotnull FROM pg_attribute WHERE attname = 'id' AND attnum = 1") is False


def test_the_key_of_a_table_that_somebody_renamed_keeps_its_name(ods: Ods, source: Source) -> None:
    for generation in ("1", "2", "3"):
        source.load(ACCOUNTS, (generation, "x"))
        assert ods.rows("orders.accounts") == [f"({generation},x)"]
        ods.execute(f"ALTER TABLE orders.accounts RENAME TO old_{generation}")
    assert ods.rows("orders.old_1") == ["(1,x)"]


def test_long_names_that_begin_alike(ods: Ods, source: Source) -> None:
    names = ["t" * 62 + end for end in "12"]
    for number, name in enumerate(names):
        source.begin("r1", table(name, "id int4"), (str(number),))
    source.finish("r1")
    assert [ods.rows(f"orders.{name}") for name in names] == [["(0)"], ["(1)"]]


def test_a_schema_that_somebody_dropped_during_a_refill_comes_back(ods: Ods, source: Source) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    source.begin("r2", ACCOUNTS, ("2", "bob"))
    ods.execute("DROP SCHEMA orders CASCADE")
    source.finish("r2")
    assert ods.rows("orders.accounts") == ["(2,bob)"]


@pytest.mark.parametrize(
    "meddling",
    ["CREATE EXTENSION citext", "ALTER TABLE orders.users ALTER id TYPE varchar(9)"],
    ids=["extension", "type"],
)
def test_a_live_table_of_other_types_than_the_refill_is_replaced(ods: Ods, source: Source, meddling: str) -> None:
    need_extension(ods.dsn, "citext")
    users = table("users", "id public.citext@citext", "name text")
    source.load(users, ("Ann", "a"))
    ods.execute(meddling)
    source.begin("r2", users, ("Ann", "b"))
    source.finish("r2")
    source.change(users, ("c", "Bob", "c"))
    assert ods.rows("orders.users") == ["(Ann,b)", "(Bob,c)"]


def test_types_are_the_same_where_the_ods_has_them_and_text_elsewhere(ods: Ods, source: Source) -> None:
    kinds = {
        "numeric%655366": "numeric(10,2)",
        "_varchar%24": "character varying(20)[]",
        "timestamptz%3": "timestamp(3) with time zone",
        "char": '"char"',
        "int4multirange": "int4multirange",
        "hstore@hstore": "text",
        "public.mood": "text",
        "_regclass": "text",
        "regrole": "text",
        "aclitem": "text",
        "pg_node_tree": "text",
        "pg_class": "text",
        "tsvector": "tsvector",
        "_json": "json[]",
        "oid": "oid",
        "bit": '"bit"',
        "bit%5": "bit(5)",
        "bpchar": "bpchar",
        "_bpchar%9": "character(5)[]",
        "interval%2147418115": "interval(3)",
    }
    wide = table("wide", "id int8", *(f"c{at} {kind}" for at, kind in enumerate(kinds)))
    source.load(wide)
    found = ods.connection.execute(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = 'orders.wide'::regclass AND attnum > 1 ORDER BY attnum"
    ).fetchall()
    assert [kind for (kind,) in found] == list(kinds.values())
    assert source.out_of_date() == {}


def test_forget_removes_what_was_built_from_one_source_only(ods: Ods, source: Source) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    source.apply(source.batch(RefillStarted("r9", (ORDERS,), ("ods",))))
    stock = Source(source.target, "stock")
    stock.load(ACCOUNTS, ("1", "ann"))
    source.target.forget("orders")
    assert ods.one("SELECT to_regnamespace('orders')::text") is None
    assert ods.one("SELECT count(*) FROM pg_class WHERE relname LIKE 'shadow%'") == 0
    assert source.target.frontier("orders") is None
    assert ods.rows("stock.accounts") == ["(1,ann)"]
    source.load(ACCOUNTS, ("2", "bob"))
    assert ods.rows("orders.accounts") == ["(2,bob)"]
