"""What a person did to a table in the ODS: it stops there alone, and is told with what removes the obstacle."""

from __future__ import annotations

from dataclasses import replace

import psycopg
import pytest
from ods_batches import Ods, Source, reshaped, table

from catchment.model.batch import RefillFinished, RefillStarted, SchemaChanged
from catchment.model.errors import TableRefused, TargetRefused
from catchment.postgres.connection import Translation
from catchment.postgres.unchanged import pulse
from catchment.targets.ods import script, transaction
from catchment.targets.ods.target import OdsTarget

ACCOUNTS = table("accounts", "id int4", "name text")
PLACES = table("places", "id int4")
KEPT = table("kept", "id int4")
AGAIN = "then run `catchment backfill orders public.accounts`"

_TRIGGER = """
CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''canary''; END';
CREATE TRIGGER refuse BEFORE INSERT OR UPDATE OR DELETE ON orders.accounts FOR EACH ROW EXECUTE FUNCTION refuse();
"""
_DEFERRED = """
CREATE TABLE public.known (id int4 PRIMARY KEY);
ALTER TABLE orders.accounts ADD CONSTRAINT is_known FOREIGN KEY (id) REFERENCES known DEFERRABLE INITIALLY DEFERRED
    NOT VALID;
"""


@pytest.mark.parametrize(
    ("meddling", "said", "mending"),
    [
        pytest.param(
            "ALTER TABLE orders.accounts ADD CONSTRAINT short CHECK (length(name) < 5)",
            'constraint "short" of "orders"."accounts" refuses it (CheckViolation, SQLSTATE 23514); ',
            'ALTER TABLE "orders"."accounts" DROP CONSTRAINT "short";',
            id="check",
        ),
        pytest.param(
            _TRIGGER,
            'trigger "refuse" refuses it (RaiseException, SQLSTATE P0001); ',
            'DROP TRIGGER "refuse" ON "orders"."accounts";',
            id="trigger",
        ),
        pytest.param(
            "ALTER TABLE orders.accounts ADD COLUMN own int; UPDATE orders.accounts SET own = 1;"
            "ALTER TABLE orders.accounts ALTER own SET NOT NULL",
            'column "own" is NOT NULL',
            'ALTER TABLE "orders"."accounts" ALTER COLUMN "own" DROP NOT NULL;',
            id="not null",
        ),
        pytest.param(
            "CREATE UNIQUE INDEX names ON orders.accounts (left(name, 0))",
            'unique index "orders"."names" refuses it',
            'DROP INDEX "orders"."names";',
            id="unique index",
        ),
        pytest.param(
            _DEFERRED,
            'constraint "is_known" of "orders"."accounts" refuses it',
            'ALTER TABLE "orders"."accounts" DROP CONSTRAINT "is_known";',
            id="deferred",
        ),
    ],
)
def test_what_a_person_put_on_a_table_stops_that_table_alone_and_its_remedy_mends_it(
    ods: Ods, source: Source, meddling: str, said: str, mending: str
) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    source.load(PLACES, ("1",))
    ods.execute(meddling)
    told = source.batch(source.rows(ACCOUNTS, [("c", "2", "canary")]), source.rows(PLACES, [("c", "2")]))
    with pytest.raises(TableRefused) as caught:
        source.apply(told)
    assert caught.value.retry
    assert said in str(caught.value)
    assert mending in caught.value.remedy
    assert AGAIN in caught.value.remedy
    assert "canary" not in str(caught.value)
    source.apply(told)
    assert ods.rows("orders.places") == ["(1)", "(2)"]
    assert ods.one("SELECT count(*) FROM orders.accounts") == 1
    assert source.out_of_date() == {"public.accounts": str(caught.value)}
    # A refill that meets the same again, told in one piece, stops it again, alone.
    refill = source.batch(
        RefillStarted("r9", (ACCOUNTS,), ("ods",)),
        source.rows(ACCOUNTS, [("r", "1", "ann"), ("r", "2", "canary")], "r9"),
    )
    finish = source.batch(RefillFinished("r9"), source.rows(PLACES, [("d", "1")]))
    with pytest.raises(TableRefused):
        source.apply(refill, finish)
    source.apply(refill, finish)
    assert ods.rows("orders.places") == ["(2)"]
    assert list(source.out_of_date()) == ["public.accounts"]
    ods.execute(mending)
    source.load(ACCOUNTS, ("1", "ann"), ("2", "canary"))
    source.change(ACCOUNTS, ("c", "3", "canary"))
    assert source.out_of_date() == {}
    assert ods.one("SELECT count(*) FROM orders.accounts") == 3


@pytest.mark.parametrize("then", ["rows of another table", "another shape", "the end"])
def test_the_table_that_refuses_is_blamed_though_the_next_is_made_ready_meanwhile(
    ods: Ods, source: Source, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    monkeypatch.setattr(transaction, "_MOST_ROWS", 1)
    monkeypatch.setattr(script, "_MUCH", 0)
    source.load(ACCOUNTS, ("1", "ann"))
    source.load(PLACES, ("1",))
    source.change(PLACES, ("c", "2"))
    ods.execute("ALTER TABLE orders.accounts ADD CONSTRAINT short CHECK (length(name) < 5)")
    next_parts = {
        "rows of another table": [source.rows(PLACES, [("c", "3")])],
        "another shape": [SchemaChanged(reshaped(PLACES, *PLACES.columns, "note text"), PLACES)],
        "the end": [],
    }[then]
    told = [source.batch(source.rows(ACCOUNTS, [("c", "2", "canary")]), ends=False), source.batch(*next_parts)]
    with pytest.raises(TableRefused, match=r'constraint "short" of "orders"\."accounts" refuses it'):
        source.apply(*told)
    source.apply(*told)
    assert ods.one("SELECT count(*) FROM orders.places") == (3 if then.startswith("rows") else 2)
    assert list(source.out_of_date()) == ["public.accounts"]


def test_a_privilege_that_was_taken_away_is_told_with_its_grant(ods: Ods) -> None:
    role = "clerk_" + str(ods.one("SELECT current_database()"))
    ods.execute(f"CREATE ROLE {role} LOGIN; GRANT CREATE ON DATABASE {ods.one('SELECT current_database()')} TO {role}")
    target = OdsTarget(f"{ods.dsn} user={role}", {"orders": "orders"})
    source = Source(target)
    source.load(ACCOUNTS, ("1", "ann"))
    owner = str(ods.one("SELECT current_user"))
    ods.execute(f"ALTER TABLE orders.accounts OWNER TO {owner}")
    with pytest.raises(TableRefused) as caught:
        source.change(ACCOUNTS, ("c", "2", "bob"))
    grant = f'GRANT SELECT, INSERT, UPDATE, DELETE ON "orders"."accounts" TO "{role}";'
    assert f'role "{role}" lacks a privilege on it' in str(caught.value)
    assert grant in caught.value.remedy
    ods.execute(grant)
    source.load(ACCOUNTS, ("1", "ann"), ("2", "bob"))
    assert ods.rows("orders.accounts") == ["(1,ann)", "(2,bob)"]
    target.close()
    ods.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


def test_what_may_not_be_altered_stops_that_table_alone(ods: Ods) -> None:
    database, owner = (str(ods.one(f"SELECT {what}")) for what in ("current_database()", "current_user"))
    role = f"clerk_{database}"
    ods.execute(f"CREATE ROLE {role} LOGIN; GRANT CREATE ON DATABASE {database} TO {role}")
    target = OdsTarget(f"{ods.dsn} user={role}", {"orders": "orders"})
    source = Source(target)
    new = table("news", "id int4")
    for shape in (ACCOUNTS, PLACES, KEPT):
        source.load(shape, ("1",))
    source.begin("r1", new, ("1",))
    ods.execute(f"ALTER TABLE orders.accounts OWNER TO {owner}; GRANT ALL ON orders.accounts TO {role}")
    ods.execute(f"REVOKE CREATE ON DATABASE {database} FROM {role}; REVOKE CREATE ON SCHEMA orders FROM {role}")
    wider, moved = reshaped(ACCOUNTS, *ACCOUNTS.columns, "note text"), replace(PLACES, schema="sales", version=2)
    told = [SchemaChanged(wider, ACCOUNTS), SchemaChanged(moved, PLACES), RefillFinished("r1")]
    source.apply(*(source.batch(event) for event in told))
    source.apply(source.batch(*(source.rows(shape, [("c", "2")]) for shape in (wider, moved, new, KEPT))))
    assert ods.rows("orders.kept") == ["(1)", "(2)"]
    assert ods.rows("orders.accounts") == ["(1,)"]
    stopped = {name: str(sentence) for name, sentence in source.out_of_date().items()}
    create = f'GRANT USAGE, CREATE ON SCHEMA "orders" TO "{role}";'
    assert f'ALTER TABLE "orders"."accounts" OWNER TO "{role}"; {create} then' in stopped.pop("public.accounts")
    assert f"in the ODS: {create} then `catchment backfill orders sales.places`" in stopped.pop("public.places")
    assert f"in the ODS: {create} then `catchment backfill orders public.news`" in stopped.pop("public.news")
    assert stopped == {}
    ods.execute(f"ALTER TABLE orders.accounts OWNER TO {role}; {create}")
    source.load(wider, ("1", None, "n"))
    source.load(moved, ("3",))
    grant = f'GRANT CREATE ON DATABASE "{database}" TO "{role}";'
    assert f"{grant} then `catchment backfill orders sales.places`" in str(source.out_of_date()["public.places"])
    ods.execute(grant)
    source.load(moved, ("3",))
    source.load(new, ("4",))
    assert [ods.rows(name) for name in ("orders.accounts", "orders__sales.places", "orders.news")] == [
        ["(1,,n)"],
        ["(3)"],
        ["(4)"],
    ]
    target.close()
    ods.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


@pytest.mark.parametrize(
    ("is_recorded", "remedy"),
    [
        (True, "rename or drop it, then `catchment backfill orders public.accounts`"),
        (False, 'rename or drop "orders"."accounts" in the ODS: it is then made and read again'),
    ],
    ids=["recorded", "known by its name"],
)
def test_something_else_in_the_place_of_a_table_stops_it_alone(
    ods: Ods, source: Source, is_recorded: bool, remedy: str
) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    source.load(PLACES, ("1",))
    if not is_recorded:
        ods.forget_relations()
    ods.execute("CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw")
    ods.execute(
        "DROP TABLE orders.accounts; CREATE FOREIGN TABLE orders.accounts (id int4) SERVER files"
        " OPTIONS (filename '/dev/null')"
    )
    wider = reshaped(ACCOUNTS, *ACCOUNTS.columns, "note text")
    source.apply(source.batch(SchemaChanged(wider, ACCOUNTS), source.rows(PLACES, [("c", "2")])))
    assert ods.rows("orders.places") == ["(1)", "(2)"]
    sentence = str(source.out_of_date()["public.accounts"])
    assert remedy in sentence
    ods.execute("ALTER FOREIGN TABLE orders.accounts RENAME TO somebodys")
    assert source.out_of_date() == {"public.accounts": None}
    source.load(wider, ("1", "ann", "n"))
    assert ods.rows("orders.accounts") == ["(1,ann,n)"]


def test_a_table_whose_values_the_ods_does_not_take_keeps_no_other_from_appearing(ods: Ods, source: Source) -> None:
    told = source.batch(
        RefillStarted("r1", (ACCOUNTS, PLACES), ("ods",)),
        source.rows(ACCOUNTS, [("r", "canary", "ann")], "r1"),
        source.rows(PLACES, [("r", "1")], "r1"),
    )
    with pytest.raises(TableRefused) as caught:
        source.apply(told)
    assert "canary" not in str(caught.value)
    source.apply(told)
    source.finish("r1")
    source.change(PLACES, ("c", "2"))
    assert ods.rows("orders.places") == ["(1)", "(2)"]
    assert source.out_of_date() == {"public.accounts": str(caught.value)}
    source.load(ACCOUNTS, ("1", "ann"))
    assert source.out_of_date() == {}
    assert ods.rows("orders.accounts") == ["(1,ann)"]


def test_an_error_that_is_about_no_table_is_not_blamed_on_one(ods: Ods, source: Source) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    ods.execute("ALTER TABLE catchment.frontier ADD CONSTRAINT no CHECK (false) NOT VALID")
    told = source.batch(source.rows(ACCOUNTS, [("c", "2", "bob")]))
    with pytest.raises(TargetRefused, match="SQLSTATE 23514"):
        source.apply(told)
    ods.execute("ALTER TABLE catchment.frontier DROP CONSTRAINT no")
    source.apply(told)
    assert ods.rows("orders.accounts") == ["(1,ann)", "(2,bob)"]


@pytest.mark.parametrize(
    ("meddling", "said"),
    [
        ("ALTER TABLE orders.accounts RENAME COLUMN name TO title", "has no column name"),
        ("ALTER TABLE orders.accounts DROP COLUMN name", "has no column name"),
        ("ALTER TABLE orders.accounts ALTER name TYPE varchar(9)", "name of type character varying(9) instead of text"),
        ("ALTER TABLE orders.accounts DROP CONSTRAINT accounts_pkey", "has another primary key"),
    ],
    ids=["renamed", "dropped", "type", "key"],
)
def test_an_altered_table_stops_before_a_change_meets_it(ods: Ods, source: Source, meddling: str, said: str) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    assert source.out_of_date() == {}
    ods.execute(meddling)
    (sentence,) = source.out_of_date().values()
    assert said in str(sentence)
    source.change(ACCOUNTS, ("c", "2", "bob"))
    assert source.out_of_date() == {"public.accounts": sentence}
    assert ods.one("SELECT count(*) FROM orders.accounts") == 1
    ods.execute("DROP TABLE orders.accounts")
    source.load(ACCOUNTS, ("1", "ann"), ("2", "bob"))
    assert source.out_of_date() == {}


def test_promise_1_a_table_that_a_crash_would_empty_stops_until_it_is_logged_again(ods: Ods, source: Source) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    assert source.out_of_date() == {}
    ods.execute("ALTER TABLE orders.accounts SET UNLOGGED")
    sentence = str(source.out_of_date()["public.accounts"])
    assert '"orders"."accounts" in the ODS is unlogged' in sentence
    assert f'ALTER TABLE "orders"."accounts" SET LOGGED; {AGAIN}' in sentence
    source.change(ACCOUNTS, ("c", "2", "bob"))
    ods.execute("DELETE FROM orders.accounts")  # as a crash does
    source.load(ACCOUNTS, ("1", "ann"), ("2", "bob"))
    assert source.out_of_date() == {"public.accounts": sentence}
    ods.execute('ALTER TABLE "orders"."accounts" SET LOGGED')
    source.load(ACCOUNTS, ("1", "ann"), ("2", "bob"))
    assert source.out_of_date() == {}
    assert ods.rows("orders.accounts") == ["(1,ann)", "(2,bob)"]


def test_what_people_add_to_a_table_is_theirs(ods: Ods, source: Source) -> None:
    users = table("users", "id int4", "name public.citext@citext")
    source.load(users, ("1", "ann"))
    ods.execute("ALTER TABLE orders.users ADD COLUMN note text DEFAULT 'x'; CREATE INDEX ON orders.users (note)")
    ods.execute("CREATE EXTENSION citext")
    assert source.out_of_date() == {}
    source.change(users, ("c", "2", "bob"))
    assert ods.rows("orders.users") == ["(1,ann,x)", "(2,bob,x)"]
    assert source.out_of_date() == {}


def test_one_look_at_the_ods_does_for_many_sources(ods: Ods, monkeypatch: pytest.MonkeyPatch) -> None:
    target = OdsTarget(ods.dsn, {name: name for name in ("orders", "payments", "stock")})
    orders, payments, stock = sources = [Source(target, name) for name in ("orders", "payments", "stock")]
    for one in sources:
        one.load(ACCOUNTS, ("1", "ann"))
    monkeypatch.setattr("catchment.targets.ods.target._LOOK_SECONDS", float("inf"))
    looks = []

    def look(connection: psycopg.Connection, translation: Translation) -> str:
        looks.append(1)
        return pulse(connection, translation)

    monkeypatch.setattr("catchment.targets.ods.target.pulse", look)
    assert [one.out_of_date() for one in sources] == [{}, {}, {}]
    assert len(looks) == 1
    payments.change(ACCOUNTS, ("c", "2", "bob"))
    ods.execute("ALTER TABLE payments.accounts DROP COLUMN name; ALTER TABLE stock.accounts DROP COLUMN name")
    assert list(payments.out_of_date()) == ["public.accounts"]
    assert list(stock.out_of_date()) == ["public.accounts"]
    assert orders.out_of_date() == {}
    assert len(looks) == 2
    target.close()
