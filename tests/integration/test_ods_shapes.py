"""Tables of the ODS follow the shapes of the source's tables."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest
from ods_batches import Ods, Source, reshaped, table

from catchment.model.batch import RefillFinished, SchemaChanged
from catchment.model.errors import TargetUnreachable
from catchment.model.table import ReplicaIdentity, Table

pytestmark = pytest.mark.server_versions

ACCOUNTS = table("accounts", "id int4", "name varchar%14")
PLACES = table("places", "id int4", "name text")


def named(old: Table, name: str, schema: str = "public") -> Table:
    return replace(old, schema=schema, name=name, version=old.version + 1)


def file_of(ods: Ods, relation: str) -> object:
    return ods.one("SELECT pg_relation_filenode(%s)", relation)


def test_a_column_comes_with_what_old_rows_have_in_it_and_no_row_is_written(ods: Ods, source: Source) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    before = file_of(ods, "orders.accounts"), ods.one("SELECT xmin::text FROM orders.accounts")
    wider = reshaped(ACCOUNTS, *ACCOUNTS.columns, "kind text", "note text")
    kind = replace(wider.columns[2], missing='it\'s \\ "quoted"')
    wider = replace(wider, columns=(*wider.columns[:2], kind, wider.columns[3]))
    source.apply(source.batch(SchemaChanged(wider, ACCOUNTS), source.rows(wider, [("c", "2", "bob", None, "n")])))
    assert ods.one("SELECT array_agg(kind ORDER BY id) FROM orders.accounts") == ['it\'s \\ "quoted"', None]
    assert ods.one("SELECT array_agg(note ORDER BY id) FROM orders.accounts") == [None, "n"]
    assert (file_of(ods, "orders.accounts"), ods.one("SELECT min(xmin::text) FROM orders.accounts")) == before


def test_a_wider_type_is_followed_without_a_rewrite_also_in_a_shadow(ods: Ods, source: Source) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    source.begin("r2", ACCOUNTS, ("1", "ann"))
    file = file_of(ods, "orders.accounts")
    wider = replace(ACCOUNTS, columns=(ACCOUNTS.columns[0], replace(ACCOUNTS.columns[1], typmod=-1)), version=2)
    long = "a name of more than ten letters"
    source.apply(source.batch(SchemaChanged(wider, ACCOUNTS), source.rows(wider, [("u", "1", long)])))
    assert ods.one("SELECT name FROM orders.accounts") == long
    assert file_of(ods, "orders.accounts") == file
    source.finish("r2")
    assert ods.one("SELECT name FROM orders.accounts") == long


def test_a_type_in_a_view_stops_the_table_and_names_the_view(ods: Ods, source: Source) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    ods.execute("CREATE VIEW public.seen AS SELECT * FROM orders.accounts")
    wider = replace(ACCOUNTS, columns=(ACCOUNTS.columns[0], replace(ACCOUNTS.columns[1], typmod=-1)), version=2)
    source.apply(source.batch(SchemaChanged(wider, ACCOUNTS), source.rows(wider, [("c", "2", "bob")])))
    assert ods.rows("public.seen") == ["(1,ann)"]
    sentence = str(source.out_of_date()["public.accounts"])
    assert "in the ODS drop what depends on it (public.seen), then `catchment backfill orders" in sentence
    ods.execute("DROP VIEW public.seen")
    source.load(wider, ("1", "ann"), ("2", "bob"))
    assert ods.rows("orders.accounts") == ["(1,ann)", "(2,bob)"]


@pytest.mark.parametrize("key", [("name",), ("name", "id"), ()], ids=["another", "wider", "none"])
def test_a_key_is_followed_and_views_stay(ods: Ods, source: Source, key: tuple[str, ...]) -> None:
    source.load(PLACES, ("1", "a"), ("2", "b"))
    ods.execute("CREATE VIEW public.seen AS SELECT * FROM orders.places")
    identity = ReplicaIdentity.DEFAULT if key else ReplicaIdentity.FULL
    changed = replace(PLACES, key=key, identity=identity, version=2)
    rows = [("d", "2", "b"), ("c", "3", "c")] + ([] if key == ("name", "id") else [("c", None, "d")])
    source.apply(source.batch(SchemaChanged(changed, PLACES), source.rows(changed, rows[: 3 if not key else 2])))
    assert ods.rows("public.seen") == sorted(["(1,a)", "(3,c)"] + ([] if key else ["(,d)"]))


def test_tables_follow_their_names_and_swap_them(ods: Ods, source: Source) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    source.load(PLACES, ("7", "home"))
    ods.execute("CREATE VIEW public.seen AS SELECT * FROM orders.accounts")
    first, second = named(ACCOUNTS, "places"), named(PLACES, "accounts")
    source.apply(source.batch(SchemaChanged(first, ACCOUNTS), SchemaChanged(second, PLACES)))
    source.change(first, ("c", "2", "bob"))
    source.change(second, ("c", "8", "work"))
    assert ods.rows("orders.places") == ["(1,ann)", "(2,bob)"] == ods.rows("public.seen")
    assert ods.rows("orders.accounts") == ["(7,home)", "(8,work)"]
    moved = named(first, "accounts", "sales")
    source.apply(source.batch(SchemaChanged(moved, first), source.rows(moved, [("d", "1")])))
    assert ods.rows("orders__sales.accounts") == ["(2,bob)"] == ods.rows("public.seen")
    assert not ods.exists("orders.places")


def test_a_name_that_somebody_else_has_in_the_ods_stops_that_table_alone(ods: Ods, source: Source) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    source.load(PLACES, ("7", "home"))
    ods.execute("CREATE TABLE orders.people (x int)")
    renamed = named(ACCOUNTS, "people")
    source.apply(source.batch(SchemaChanged(renamed, ACCOUNTS), source.rows(renamed, [("c", "2", "bob")])))
    source.change(PLACES, ("c", "8", "work"))
    assert ods.rows("orders.places") == ["(7,home)", "(8,work)"]
    assert "rename or drop it, then `catchment backfill" in str(source.out_of_date()["public.accounts"])
    ods.execute("DROP TABLE orders.people")
    source.load(renamed, ("1", "ann"), ("2", "bob"))
    assert ods.rows("orders.people") == ["(1,ann)", "(2,bob)"]


def test_a_new_table_gets_the_name_that_another_one_has_left(ods: Ods, source: Source) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    kept = named(ACCOUNTS, "accounts_kept")
    source.happen(SchemaChanged(kept, ACCOUNTS))
    anew = replace(table("accounts", "code text", key=("code",)), oid=4_000_000_000)
    source.load(anew, ("a",))
    source.change(kept, ("c", "2", "bob"))
    assert ods.rows("orders.accounts") == ["(a)"]
    assert ods.rows("orders.accounts_kept") == ["(1,ann)", "(2,bob)"]


def test_a_shadow_of_another_type_replaces_the_table_with_its_grants_and_indexes(ods: Ods, source: Source) -> None:
    source.load(PLACES, ("1", "5"))
    ods.execute("CREATE INDEX by_name ON orders.places (name)")
    ods.execute("GRANT SELECT ON orders.places TO PUBLIC; GRANT UPDATE (name) ON orders.places TO pg_monitor")
    other = replace(PLACES, columns=(PLACES.columns[0], replace(PLACES.columns[1], type_name="int4")), version=2)
    source.begin("r2", other, ("1", "5"))
    source.change(other, ("c", "2", "6"))
    assert ods.rows("orders.places") == ["(1,5)"]  # nobody told how it got its shape: it stays as it was
    source.finish("r2")
    assert ods.rows("orders.places") == ["(1,5)", "(2,6)"]
    assert ods.one("SELECT sum(name) FROM orders.places") == 11
    assert ods.one("SELECT has_table_privilege('pg_read_all_stats', 'orders.places', 'SELECT')") is True
    assert ods.one("SELECT has_column_privilege('pg_monitor', 'orders.places', 'name', 'UPDATE')") is True
    assert ods.exists("orders.by_name")
    assert ods.one("SELECT conname FROM pg_constraint WHERE conrelid = 'orders.places'::regclass") is not None


def test_no_reader_sees_a_gap_while_a_table_is_replaced(ods: Ods, source: Source) -> None:
    kinds = ["text", "int4", "int8", "numeric"]
    source.load(replace(PLACES, columns=(PLACES.columns[0], replace(PLACES.columns[1], type_name="text"))), ("1", "0"))
    stop = threading.Event()

    def watch() -> set[object]:
        seen: set[object] = set()
        with psycopg.connect(ods.dsn) as reader:
            while not stop.is_set():
                reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                reader.execute("SELECT 1")
                for _ in range(3):
                    seen.add(reader.execute("SELECT count(*) FROM orders.places").fetchone())
                reader.rollback()
        return seen

    with ThreadPoolExecutor(2) as workers:
        watching = [workers.submit(watch) for _ in range(2)]
        for version, kind in enumerate(kinds[1:] * 3, 2):
            shape = replace(
                PLACES, columns=(PLACES.columns[0], replace(PLACES.columns[1], type_name=kind)), version=version
            )
            refill = f"r{version}"
            source.begin(refill, shape, ("1", "7"))
            source.apply(source.batch(RefillFinished(refill)))
        stop.set()
        seen = set.union(*(each.result() for each in watching))
    assert seen == {(1,)}


def test_a_reader_that_keeps_a_table_from_its_new_shape_is_named(ods: Ods, source: Source) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    changed = source.batch(SchemaChanged(reshaped(ACCOUNTS, *ACCOUNTS.columns, "note text"), ACCOUNTS))
    with psycopg.connect(ods.dsn) as reader:
        reader.execute("SELECT FROM orders.accounts")
        with pytest.raises(TargetUnreachable, match=rf"\(pid {reader.info.backend_pid}\) holds .*accounts"):
            source.apply(changed)
    source.apply(changed)
    assert ods.rows("orders.accounts") == ["(1,ann,)"]
