"""Rows in the ODS are exactly what the changes amount to."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from ods_batches import Ods, Source, table
from places import need_extension

from catchment.model.batch import Batch
from catchment.model.errors import TableRefused
from catchment.model.frontier import Frontier
from catchment.postgres.connection import conninfo
from catchment.targets.ods import script, transaction

pytestmark = pytest.mark.server_versions

ACCOUNTS = table("accounts", "id int4", "name text", "note text")
LONG = "long " * 2000


def test_rows_are_inserted_updated_and_deleted(ods: Ods, source: Source) -> None:
    source.load(ACCOUNTS, ("1", "ann", None), ("2", "bob", "x"))
    source.change(ACCOUNTS, ("c", "3", "cid", ""), ("u", "1", "anne", "y"), ("d", "2"))
    assert ods.rows("orders.accounts") == ["(1,anne,y)", '(3,cid,"")']


def test_values_with_every_kind_of_character_are_exact(ods: Ods, source: Source) -> None:
    text = "\\N \\. \t \n \r \\ ' \" \x01 ü 漢 \U0001f600"
    source.load(ACCOUNTS, ("1", text, "\\N"), ("2", "\\.", None))
    source.change(ACCOUNTS, ("c", "3", text, None))
    assert ods.one("SELECT name FROM orders.accounts WHERE id = 1") == text
    assert ods.one("SELECT name FROM orders.accounts WHERE id = 3") == text
    assert ods.one("SELECT note FROM orders.accounts WHERE id = 1") == "\\N"
    assert ods.one("SELECT name FROM orders.accounts WHERE id = 2") == "\\."


def test_a_key_changes_and_two_keys_are_swapped_in_one_batch(ods: Ods, source: Source) -> None:
    source.load(ACCOUNTS, ("1", "ann", "a"), ("2", "bob", "b"), ("3", "cid", "c"))
    moves = [("3", "4"), ("1", "9"), ("2", "1"), ("9", "2")]
    names = {"4": ("cid", "c"), "9": ("ann", "a"), "1": ("bob", "b"), "2": ("ann", "a")}
    changes = [change for old, new in moves for change in (("b", old), ("u", new, *names[new]))]
    source.change(ACCOUNTS, *changes)
    assert ods.rows("orders.accounts") == ["(1,bob,b)", "(2,ann,a)", "(4,cid,c)"]


def test_a_value_left_out_stays_as_it_is(ods: Ods, source: Source) -> None:
    source.load(ACCOUNTS, ("1", "ann", LONG), ("2", "bob", "short"))
    source.change(ACCOUNTS, ("u", "1", "anne", ...), ("u", "2", ..., "new"))
    assert ods.one("SELECT note FROM orders.accounts WHERE id = 1") == LONG
    assert ods.one("SELECT name FROM orders.accounts WHERE id = 1") == "anne"
    assert ods.rows("orders.accounts")[1] == "(2,bob,new)"


def test_a_value_left_out_of_a_wide_row_is_not_written_again(ods: Ods, source: Source) -> None:
    ods.execute("CREATE SCHEMA orders")
    noise = "SELECT string_agg(md5(i::text), '') FROM generate_series(1, 1000) i"
    value = str(ods.one(noise))
    source.load(ACCOUNTS, ("1", "ann", value))
    toast = ods.one("SELECT reltoastrelid::regclass::text FROM pg_class WHERE oid = 'orders.accounts'::regclass")
    before = ods.one(f"SELECT min(xmin::text) FROM {toast}")
    source.change(ACCOUNTS, ("u", "1", "anne", ...))
    assert ods.one(f"SELECT max(xmin::text) FROM {toast}") == before
    assert ods.one("SELECT note FROM orders.accounts") == value


def test_a_value_left_out_follows_its_row_to_another_key(ods: Ods, source: Source) -> None:
    source.load(ACCOUNTS, ("1", "ann", LONG), ("2", "bob", LONG + "2"), ("3", "cid", "c"))
    swap = [("b", "1"), ("u", "9", "ann", ...), ("b", "2"), ("u", "1", "bob", ...), ("b", "9"), ("u", "2", "ann", ...)]
    source.change(ACCOUNTS, *swap, ("b", "3"), ("u", "5", ..., "five"))
    assert ods.one("SELECT note FROM orders.accounts WHERE id = 1") == LONG + "2"
    assert ods.one("SELECT note FROM orders.accounts WHERE id = 2") == LONG
    assert ods.rows("orders.accounts")[2:] == ["(5,cid,five)"]


def test_an_incomplete_change_for_an_absent_key_is_ignored(ods: Ods, source: Source) -> None:
    source.load(ACCOUNTS, ("1", "ann", "a"))
    source.change(ACCOUNTS, ("u", "7", "gil", ...), ("b", "8"), ("u", "9", "hal", ...), ("u", "1", "anne", "a"))
    assert ods.rows("orders.accounts") == ["(1,anne,a)"]


def test_a_numeric_key_takes_the_text_that_the_source_prints(ods: Ods, source: Source) -> None:
    prices = table("prices", "id numeric", "name text")
    source.load(prices, ("1.0", "one"), ("2.0", "two"))
    source.change(prices, ("b", "1.0"), ("u", "1.00", "one"))
    source.change(prices, ("d", "2.0"), ("c", "2.000", "two"))
    assert ods.rows("orders.prices") == ["(1.00,one)", "(2.000,two)"]
    source.change(prices, ("b", "1.00"), ("u", "1.0", ...), ("d", "2.000"))
    assert ods.rows("orders.prices") == ["(1.0,one)"]


def test_a_citext_key_is_equal_as_citext_says(ods: Ods, source: Source) -> None:
    need_extension(ods.dsn, "citext")
    ods.execute("CREATE EXTENSION citext")
    users = table("users", "id public.citext@citext", "name text")
    source.load(users, ("Ann", "a"), ("Bob", "b"))
    assert ods.one("SELECT format_type(atttypid, -1) FROM pg_attribute WHERE attrelid = 'orders.users'::regclass"
                   " AND attnum = 1") == "citext"  # fmt: skip
    source.change(users, ("b", "Ann"), ("u", "ANN", "a2"), ("d", "Bob"), ("c", "BOB", "b2"))
    assert ods.rows("orders.users") == ["(ANN,a2)", "(BOB,b2)"]
    source.change(users, ("u", "BOB", "b3"), ("d", "ANN"))
    assert ods.rows("orders.users") == ["(BOB,b3)"]


@pytest.mark.parametrize(
    ("kind", "one", "two"),
    [
        ("bpchar%14", "ab        ", "abc       "),
        ("varchar%24", "ab", "ab "),
        ("name", "ab", "abc"),
        ("char", "a", "b"),
        ("bytea", "\\x00ff", "\\x00fe"),
        ("float8", "0.1", "1e-300"),
        ("timestamptz", "infinity", "2026-01-01 00:00:00.000001+00"),
        ("_int4", "{1,2}", "{{1,2},{3,4}}"),
        ("int4range", "[1,5)", "empty"),
        ("interval", "P1Y2M", "PT-0.000001S"),
        ("uuid", "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"),
        ("bit%3", "101", "010"),
        ("inet", "10.0.0.1/8", "::1"),
        ("public.mood", "sad", "happy"),
        ("xid", "4294967295", "0"),
        ("regclass", "pg_class", "public.nowhere"),
    ],
)
def test_keys_of_this_type_find_their_rows(ods: Ods, source: Source, kind: str, one: str, two: str) -> None:
    things = table("things", f"id {kind}", "value text")
    source.load(things, (one, "1"))
    source.change(things, ("c", two, "2"), ("u", one, "11"))
    source.change(things, ("u", two, "22"))
    with psycopg.connect(conninfo(ods.dsn)) as reader:
        found = dict(reader.execute("SELECT value, id::text FROM orders.things").fetchall())
    assert found.keys() == {"11", "22"}
    assert found["11"] == one.rstrip() if kind.startswith("bpchar") else one
    source.change(things, ("d", one), ("b", two), ("u", one, ...))
    assert ods.one("SELECT count(*) FROM orders.things") == 1
    assert ods.one("SELECT value FROM orders.things") == "22"


def test_keys_of_several_columns(ods: Ods, source: Source) -> None:
    lines = table("lines", "b text", "a int4", "value text", key=("a", "b"))
    source.load(lines, ("x", "1", "v"), ("y", "1", "w"))
    source.change(lines, ("b", "x", "1"), ("u", "x", "2", ...), ("d", "y", "1"), ("c", "z", "1", "q"))
    assert ods.rows("orders.lines") == ["(x,2,v)", "(z,1,q)"]


def test_a_bag_counts_its_copies_whatever_the_types(ods: Ods, source: Source) -> None:
    facts = table("facts", "j json", "p point", "b box", "n int4", key=())
    same, other = (
        ('{"b": 1,  "a": 2}', "(1,2)", "(3,4),(1,2)", None),
        ('{"b": 1, "a": 2}', "(1,2)", "(3,4),(1,2)", None),
    )
    source.load(facts, same, same, other, same)
    source.change(facts, ("d", *same), ("b", *other), ("u", *other[:3], "7"), ("c", *same), ("d", *same))
    assert ods.one("SELECT count(*) FROM orders.facts WHERE j::text = %s", same[0]) == 2
    assert ods.one("SELECT count(*) FROM orders.facts WHERE n = 7") == 1
    assert ods.one("SELECT count(*) FROM orders.facts") == 3


def test_a_bag_may_have_columns_of_any_name(ods: Ods, source: Source) -> None:
    names = ("image", "copies", "place", "number", "s", "t", "c0", "left_out", '%s {} {0} "x"', "é" * 31)
    facts = table("facts %s {}", *(f"{name} int4" for name in names), key=())
    row = tuple(map(str, range(len(names))))
    source.load(facts, row, row)
    source.change(facts, ("d", *row), ("b", *row), ("u", *row[:-1], "77"))
    found = ods.connection.execute('SELECT * FROM orders."facts %s {}"').fetchall()
    assert found == [(*range(len(names) - 1), 77)]


def test_keys_and_columns_may_have_any_name(ods: Ods, source: Source) -> None:
    shape = table('we"ird %s {}', "left_out int4", "o0 text", '%s {} "x" text', key=("left_out", "o0"))
    source.load(shape, ("1", "a", "x"), ("2", "b", "y"))
    source.change(shape, ("b", "1", "a"), ("u", "1", "c", ...), ("u", "2", "b", ...), ("d", "9", "z"))
    assert ods.rows('orders."we""ird %s {}"') == ["(1,c,x)", "(2,b,y)"]
    source.load(shape, ("1", "c", "z"))
    assert ods.rows('orders."we""ird %s {}"') == ["(1,c,z)"]


def test_a_bag_that_lacks_a_row_to_be_deleted_says_which_table_to_refill(ods: Ods, source: Source) -> None:
    facts = table("facts", "n int4", key=())
    source.load(facts, ("1",))
    with pytest.raises(TableRefused, match="lacks rows") as caught:
        source.change(facts, ("d", "1"), ("d", "1"))
    assert caught.value.table == "public.facts"
    assert "catchment backfill orders public.facts" in str(caught.value)
    assert ods.rows("orders.facts") == ["(1)"]


def test_a_table_is_emptied_before_the_rows_that_follow(ods: Ods, source: Source) -> None:
    source.load(ACCOUNTS, ("1", "ann", "a"))
    source.change(ACCOUNTS, ("c", "2", "bob", "b"))
    source.truncate(ACCOUNTS)
    source.change(ACCOUNTS, ("c", "1", "cid", "c"))
    assert ods.rows("orders.accounts") == ["(1,cid,c)"]


def test_batches_that_come_again_are_skipped(ods: Ods, source: Source) -> None:
    source.load(ACCOUNTS)
    first = source.batch(source.rows(ACCOUNTS, [("c", "1", "ann", "a")]))
    second = source.batch(source.rows(ACCOUNTS, [("d", "1"), ("c", "2", "bob", "b")]))
    third = source.batch(source.rows(ACCOUNTS, [("u", "2", "bo", "b")]))
    source.apply(first, second)
    source.apply(first, second, third)
    source.apply(first, second, third)
    assert ods.rows("orders.accounts") == ["(2,bo,b)"]
    assert source.target.frontier("orders") == third[0]


def test_changes_of_a_table_that_was_never_filled_are_ignored(ods: Ods, source: Source) -> None:
    source.change(ACCOUNTS, ("c", "1", "ann", "a"))
    source.truncate(ACCOUNTS)
    assert not ods.exists("orders.accounts")
    assert source.target.frontier("orders") is not None


def test_many_rows_are_applied_in_pieces(ods: Ods, source: Source) -> None:
    source.load(ACCOUNTS)
    parts = [
        source.batch(
            source.rows(ACCOUNTS, [("c", str(n), "x" * 500, None) for n in range(at, at + 9000)]), ends=at == 81_000
        )
        for at in range(0, 90_000, 9000)
    ]
    source.apply(*parts)
    assert ods.one("SELECT count(*) FROM orders.accounts") == 90_000
    source.change(ACCOUNTS, *[("d", str(n)) for n in range(1, 90_000)])
    assert ods.one("SELECT count(*) FROM orders.accounts") == 1


def test_more_is_read_while_the_server_works(ods: Ods, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction, "_MOST_ROWS", 1)
    monkeypatch.setattr(script, "_MUCH", 0)
    source.load(ACCOUNTS, ("1", "ann", "a"))
    source.change(ACCOUNTS, ("u", "1", "bea", "a"))  # to plan it wants a lock too
    with psycopg.connect(ods.dsn) as in_the_way:
        in_the_way.execute("LOCK TABLE orders.accounts IN SHARE MODE")

        def batches() -> Iterator[tuple[Frontier, Batch]]:
            yield source.batch(source.rows(ACCOUNTS, [("u", "1", "bob", "a")]))
            in_the_way.commit()  # who waited for the server before reading on would not come here
            yield source.batch(source.rows(ACCOUNTS, [("c", "2", "cid", "c")]))

        source.target.apply("orders", batches())
    assert ods.rows("orders.accounts") == ["(1,bob,a)", "(2,cid,c)"]


def test_many_new_rows_replace_those_that_somebody_has_put_there(ods: Ods, source: Source) -> None:
    source.load(ACCOUNTS, ("1", "ann", "a"))
    ods.execute("INSERT INTO orders.accounts VALUES (1500, 'mine', NULL), (5500, 'mine', NULL)")
    for start in range(2, 20_000, 2_000):
        source.change(ACCOUNTS, *[("c", str(n), f"name {n}", None) for n in range(start, start + 2_000)])
    assert ods.one("SELECT count(*) FROM orders.accounts") == 20_001
    assert ods.one("SELECT count(*) FROM orders.accounts WHERE name = 'name ' || id") == 20_000


def test_a_key_that_returns_with_another_text_is_not_deleted_with_the_old_one(ods: Ods, source: Source) -> None:
    prices = table("prices", "id numeric", "name text")
    source.begin("first", prices)  # it has not brought the old rows, and will not
    changes = [change for n in range(2_000) for change in (("d", f"{n}.0"), ("c", f"{n}.00", "again"))]
    source.change(prices, *changes)
    source.finish("first")
    assert ods.one("SELECT count(*) FROM orders.prices WHERE id::text LIKE '%.00'") == 2_000
