"""Another relation in the place of a table of the ODS is somebody's, and told; what Catchment moved itself is not."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest
from ods_batches import Ods, Source, reshaped, table
from remedies import at, names

from catchment.demo.binaries import find_binaries
from catchment.demo.cluster import Cluster
from catchment.model.batch import SchemaChanged
from catchment.model.errors import TargetRefused
from catchment.model.table import Table
from catchment.postgres.finding import Finding
from catchment.postgres.preflight import Report
from catchment.targets.ods.preflight import check_ods
from catchment.targets.ods.reading import OdsReader
from catchment.targets.ods.target import OdsTarget

pytestmark = pytest.mark.server_versions

ACCOUNTS = table("accounts", "id int4", "name text")
PLACES = table("places", "id int4")
NEW_OID = 4_000_000_000
ABOUT = "source orders, table public.accounts: "
SENTENCE = (
    f'{ABOUT}"orders"."accounts" in the ODS is not the table that Catchment made: '
    "somebody put another one in its place; rename or drop it, then `catchment backfill orders public.accounts`"
)
AWAY = (
    f"{ABOUT}was not there in the ODS when changes came for it: somebody had renamed or moved it; "
    "run `catchment backfill orders public.accounts`"
)
IN_THE_WAY = '"orders"."accounts" is already there in the ODS and was not made by Catchment for this table; rename or'


def swap(ods: Ods) -> None:
    """As who restores a table from an older backup does."""
    ods.execute("ALTER TABLE orders.accounts RENAME TO kept")
    ods.execute("CREATE TABLE orders.accounts (LIKE orders.kept INCLUDING ALL)")
    ods.execute("INSERT INTO orders.accounts VALUES (9, 'older')")


@contextmanager
def going_on(ods: Ods, source: Source) -> Iterator[Source]:
    """The same source, delivered there by a hub that has just begun."""
    with closing(OdsTarget(ods.dsn, {"orders": "orders"})) as target:
        again = Source(target, log=source.log)
        again.offset = source.offset
        yield again


def checked(ods: Ods) -> list[Finding]:
    return check_ods(ods.dsn, {"orders": "orders"}, {"orders": Report(tables=(ACCOUNTS, PLACES))}).findings


@pytest.fixture
def loaded(ods: Ods, source: Source) -> Source:
    source.load(ACCOUNTS, ("1", "ann"))
    source.load(PLACES, ("1",))
    assert source.out_of_date() == {}
    return source


@pytest.mark.parametrize("what", ["change", "truncation"])
def test_promise_1_a_table_that_was_away_when_changes_came_stops_until_it_is_refilled(
    ods: Ods, loaded: Source, what: str
) -> None:
    ods.execute("ALTER TABLE orders.accounts SET SCHEMA public")
    loaded.change(ACCOUNTS, ("c", "2", "bob")) if what == "change" else loaded.truncate(ACCOUNTS)
    ods.execute("ALTER TABLE public.accounts SET SCHEMA orders")
    loaded.change(ACCOUNTS, ("c", "3", "cid"))
    assert loaded.out_of_date() == {"public.accounts": AWAY}
    assert ods.rows("orders.accounts") == ["(1,ann)"]
    loaded.load(ACCOUNTS, ("2", "bob"), ("3", "cid"))
    loaded.change(ACCOUNTS, ("d", "2"))
    assert loaded.out_of_date() == {}
    assert ods.rows("orders.accounts") == ["(3,cid)"]


@pytest.mark.parametrize("mending", ["drop", "rename", "put back"])
def test_promise_1_a_swapped_table_stops_alone_and_its_remedy_mends_it(ods: Ods, loaded: Source, mending: str) -> None:
    ods.execute("CREATE VIEW public.seen AS SELECT * FROM orders.accounts")
    swap(ods)
    assert loaded.out_of_date() == {"public.accounts": SENTENCE}
    loaded.apply(loaded.batch(loaded.rows(ACCOUNTS, [("c", "2", "bob")]), loaded.rows(PLACES, [("c", "2")])))
    loaded.truncate(ACCOUNTS)
    assert ods.rows("orders.places") == ["(1)", "(2)"]
    assert ods.rows("orders.accounts") == ["(9,older)"]
    assert loaded.out_of_date() == {"public.accounts": SENTENCE}
    if mending == "drop":
        ods.execute("DROP TABLE orders.accounts")
    else:
        ods.execute("ALTER TABLE orders.accounts RENAME TO older")
    if mending == "put back":
        ods.execute("ALTER TABLE orders.kept RENAME TO accounts")
        assert loaded.out_of_date() == {"public.accounts": SENTENCE}, "it misses what came meanwhile"
    else:
        assert loaded.out_of_date() == {"public.accounts": None}
    loaded.load(ACCOUNTS, ("2", "bob"))
    loaded.change(ACCOUNTS, ("c", "3", "cid"))
    assert loaded.out_of_date() == {}
    assert ods.rows("orders.accounts") == ["(2,bob)", "(3,cid)"]
    assert ods.rows("public.seen") == (["(2,bob)", "(3,cid)"] if mending == "put back" else ["(1,ann)"])
    if mending == "rename":
        assert ods.rows("orders.older") == ["(9,older)"]


@pytest.mark.parametrize("what", ["rows", "truncate", "shape"])
def test_what_meets_a_swapped_table_before_it_is_found_is_missed_for_certain(
    ods: Ods, loaded: Source, what: str
) -> None:
    swap(ods)
    if what == "rows":
        loaded.change(ACCOUNTS, ("c", "2", "bob"))
    elif what == "truncate":
        loaded.truncate(ACCOUNTS)
    else:
        loaded.happen(SchemaChanged(reshaped(ACCOUNTS, *ACCOUNTS.columns, "note text"), ACCOUNTS))
    assert ods.rows("orders.accounts") == ["(9,older)"]
    ods.execute("DROP TABLE orders.accounts; ALTER TABLE orders.kept RENAME TO accounts")
    assert loaded.out_of_date() == {"public.accounts": SENTENCE}
    loaded.load(ACCOUNTS, ("2", "bob"))
    assert loaded.out_of_date() == {}
    assert ods.rows("orders.accounts") == ["(2,bob)"]


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_refill_leaves_a_swapped_table_as_it_is_and_says_so(ods: Ods, loaded: Source, when: str) -> None:
    if when == "before":
        swap(ods)
    loaded.begin("r2", ACCOUNTS, ("2", "bob"))
    if when == "before":
        assert IN_THE_WAY in str(loaded.out_of_date()["public.accounts"]), "as early as may be"
    else:
        swap(ods)
    loaded.change(ACCOUNTS, ("c", "3", "cid"))
    loaded.finish("r2")
    assert IN_THE_WAY in str(loaded.out_of_date()["public.accounts"])
    assert (ods.rows("orders.accounts"), ods.rows("orders.kept")) == (["(9,older)"], ["(1,ann)"])
    ods.execute("DROP TABLE orders.accounts")
    loaded.load(ACCOUNTS, ("2", "bob"), ("3", "cid"))
    assert loaded.out_of_date() == {}
    assert ods.rows("orders.accounts") == ["(2,bob)", "(3,cid)"]


def test_check_and_verify_tell_of_a_swapped_table_while_no_hub_runs(ods: Ods, loaded: Source) -> None:
    swap(ods)
    finding = at(checked(ods), "ods_stopped")
    assert f"{finding.what}; {finding.remedy}" == SENTENCE.replace(ABOUT, "it is stopped: ")
    with OdsReader(ods.dsn, "orders") as reader:
        with pytest.raises(TargetRefused, match="is not the table that Catchment made"), reader.snapshot(ACCOUNTS):
            pass
        with reader.snapshot(PLACES):
            pass


def test_who_removes_a_source_keeps_what_he_put_in_a_tables_place(ods: Ods, loaded: Source) -> None:
    swap(ods)
    loaded.target.forget("orders")
    assert not ods.exists("orders.places")
    assert (ods.rows("orders.accounts"), ods.rows("orders.kept")) == (["(9,older)"], ["(1,ann)"])


def moved(ods: Ods, source: Source) -> Table:
    shape = replace(ACCOUNTS, schema="sales", version=2)
    source.happen(SchemaChanged(shape, ACCOUNTS))
    return shape


def replaced(ods: Ods, source: Source) -> Table:
    columns = (replace(ACCOUNTS.columns[0], type_name="int8"), ACCOUNTS.columns[1])
    shape = replace(ACCOUNTS, columns=columns, version=2)
    source.load(shape, ("1", "ann"))
    return shape


def refilled(ods: Ods, source: Source) -> Table:
    source.load(ACCOUNTS, ("1", "ann"))
    return ACCOUNTS


def made_anew(ods: Ods, source: Source) -> Table:
    shape = replace(ACCOUNTS, oid=NEW_OID)
    source.load(shape, ("1", "ann"))
    return shape


def set_aside(ods: Ods, source: Source) -> Table:
    other = replace(PLACES, name="accounts", version=2)
    source.happen(SchemaChanged(other, PLACES))
    assert source.out_of_date() == {}
    shape = replace(ACCOUNTS, name="clients", version=2)
    source.happen(SchemaChanged(shape, ACCOUNTS))
    return shape


def rewritten(ods: Ods, source: Source) -> Table:
    ods.execute("VACUUM FULL orders.accounts")
    ods.execute("CLUSTER orders.accounts USING accounts_pkey")
    ods.execute("VACUUM FULL catchment.tables")
    return ACCOUNTS


def put_back(ods: Ods, source: Source) -> Table:
    ods.execute("ALTER TABLE orders.accounts RENAME TO kept")
    ods.execute("ALTER TABLE orders.kept RENAME TO accounts")
    return ACCOUNTS


@pytest.mark.parametrize("how", [moved, replaced, refilled, made_anew, set_aside, rewritten, put_back])
def test_what_is_not_swapped_goes_on_without_a_word(
    ods: Ods, loaded: Source, how: Callable[[Ods, Source], Table]
) -> None:
    shape = how(ods, loaded)
    assert loaded.out_of_date() == {}
    loaded.change(shape, ("c", "2", "bob"))
    assert loaded.out_of_date() == {}
    where = f"{'orders__sales' if shape.schema == 'sales' else 'orders'}.{shape.name}"
    assert ods.rows(where) == ["(1,ann)", "(2,bob)"]
    ods.execute(f"CREATE TABLE public.copy (LIKE {where} INCLUDING ALL); DROP TABLE {where}")
    ods.execute(f"ALTER TABLE public.copy SET SCHEMA {where.split('.')[0]}")
    ods.execute(f"ALTER TABLE {where.split('.')[0]}.copy RENAME TO {shape.name}")
    assert "is not the table that Catchment made" in str(loaded.out_of_date()[str(shape)])


def test_an_ods_of_an_earlier_version_is_believed_once(ods: Ods, loaded: Source) -> None:
    ods.forget_relations()
    loaded.target.close()
    with going_on(ods, loaded) as again:
        again.change(ACCOUNTS, ("c", "2", "bob"))
        assert again.out_of_date() == {}
        swap(ods)
        assert again.out_of_date() == {"public.accounts": SENTENCE}


def test_an_ods_that_was_restored_from_a_dump_goes_on_without_a_word(
    ods: Ods, loaded: Source, private_cluster: Cluster, server_version: int
) -> None:
    binaries = find_binaries(server_version)
    dumped = subprocess.run(
        [binaries / "pg_dump", "--no-owner", ods.dsn], check=True, capture_output=True, text=True
    ).stdout
    subprocess.run(
        [binaries / "psql", "-q", "-v", "ON_ERROR_STOP=1", private_cluster.dsn()], check=True, input=dumped, text=True
    )
    restored = Ods(private_cluster.dsn())
    with closing(restored.connection), going_on(restored, loaded) as again:
        again.change(ACCOUNTS, ("c", "2", "bob"))
        assert again.out_of_date() == {}
        assert restored.rows("orders.accounts") == ["(1,ann)", "(2,bob)"]
        swap(restored)
        assert again.out_of_date() == {"public.accounts": SENTENCE}


def test_where_the_server_keeps_its_identity_to_itself_a_table_is_known_by_its_name(ods: Ods) -> None:
    database = str(ods.one("SELECT current_database()"))
    role = f"clerk_{database}"
    ods.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM public")
    ods.execute(f"CREATE ROLE {role} LOGIN; GRANT CREATE ON DATABASE {database} TO {role}")
    with closing(OdsTarget(f"{ods.dsn} user={role}", {"orders": "orders"})) as target:
        source = Source(target)
        source.load(ACCOUNTS, ("1", "ann"))
        swap(ods)
        ods.execute(f"ALTER TABLE orders.accounts OWNER TO {role}")
        assert source.out_of_date() == {}
        source.change(ACCOUNTS, ("c", "2", "bob"))
        assert ods.rows("orders.accounts") == ["(2,bob)", "(9,older)"]
    ods.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


def test_a_table_that_was_dropped_here_leaves_the_one_alone_that_has_its_name_now(ods: Ods, loaded: Source) -> None:
    ods.execute("DROP TABLE orders.accounts")
    other = replace(PLACES, name="accounts", version=2)
    loaded.happen(SchemaChanged(other, PLACES))
    assert names(checked(ods)) == []
    assert loaded.out_of_date() == {}, "the source may have dropped it"
    renamed = replace(ACCOUNTS, name="clients", version=2)
    loaded.happen(SchemaChanged(renamed, ACCOUNTS))
    assert loaded.out_of_date() == {"public.clients": None}
    loaded.load(renamed, ("1", "ann"))
    loaded.change(other, ("c", "2"))
    assert ods.rows("orders.clients") == ["(1,ann)"]
    assert ods.rows("orders.accounts") == ["(1)", "(2)"]
    assert loaded.out_of_date() == {}
