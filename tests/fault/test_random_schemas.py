"""Random changes of random schemas under random writes, with kills and a bad network in between; from outside."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from running_hub import RunningHub
from shared_tables import differences
from tcp_proxy import TcpProxy

KINDS = ["int", "bigint", "text", "varchar(12)", "numeric", "numeric(12,2)", "timestamptz", "jsonb", "int[]", "mood"]
CONSTANTS = {"int": "7", "text": "'it''s'", "varchar(12)": "'v'", "numeric": "1.50", "int[]": "'{1,2}'", "mood": "'ok'"}
TABLES = """SELECT format('%%I.%%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname IN ('public', 'other', 'another') AND c.relkind = ANY (%s) ORDER BY 1"""
COLUMNS = """SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
             WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"""


class Life:
    """One connection on which things happen. What the server refuses is left: the next thing is another one."""

    def __init__(self, dsn: str, seed: int) -> None:
        self.chance = random.Random(seed)
        self.connection = psycopg.connect(dsn, autocommit=True)
        self.connection.execute("SET lock_timeout = '300ms'; SET search_path = public")
        self._fresh = seed % 1000 * 10_000
        self.done = 0

    def close(self) -> None:
        self.connection.close()

    def fresh(self) -> int:
        self._fresh += 1
        return self._fresh

    def tables(self, kinds: str = "rp") -> list[str]:
        return [name for (name,) in self.connection.execute(TABLES, (list(kinds),))]

    def columns(self, table: str) -> list[tuple[str, str]]:
        return self.connection.execute(COLUMNS, (table,)).fetchall()

    def execute(self, statement: str) -> None:
        with contextlib.suppress(psycopg.Error):
            self.connection.execute(sql.SQL(statement))
            self.done += 1

    def together(self, work: Callable[[], None]) -> None:
        """In one transaction, some of it in one that is nested, which may come to nothing."""
        with contextlib.suppress(psycopg.Error), self.connection.transaction() as whole:
            for _ in range(self.chance.randint(1, 3)):
                with contextlib.suppress(psycopg.Error), self.connection.transaction() as part:
                    work()
                    if self.chance.random() < 0.15:
                        raise psycopg.Rollback(part)
            if self.chance.random() < 0.1:
                raise psycopg.Rollback(whole)

    def value(self, kind: str) -> str:
        number = self.chance.randint(-50, 50)
        match kind:
            case "integer" | "bigint":
                return str(self.fresh() if self.chance.random() < 0.7 else number)
            case "numeric":
                return f"{number}.{self.chance.choice(['0', '00', '5'])}"
            case "timestamp with time zone":
                return f"now() - interval '{number} days'"
            case "jsonb":
                return f"""'{{"n": {number}}}'"""
            case "integer[]":
                return f"ARRAY[{number}, NULL]"
            case "mood":
                return "(SELECT m FROM unnest(enum_range(NULL::mood)) m ORDER BY random() LIMIT 1)"
            case "character varying":
                return f"left('{self.fresh()} word', 3 + {abs(number) % 9})"
            case _ if self.chance.random() < 0.1:  # too long to stay in the row
                return "(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 300))"
            case _:
                return f"'word {self.fresh()}'"

    def write(self) -> None:
        """One statement."""
        if not (tables := self.tables()):
            return
        table = self.chance.choice(tables)
        columns = self.columns(table)
        some = f"WHERE (tableoid, ctid) IN (SELECT tableoid, ctid FROM {table} ORDER BY random() LIMIT 3)"
        match self.chance.choices(["insert", "update", "delete", "truncate"], [50, 35, 15, 1])[0]:
            case "insert":
                rows = self.chance.randint(1, 5)
                values = ", ".join(f"({', '.join(self.value(kind) for _, kind in columns)})" for _ in range(rows))
                self.execute(f"INSERT INTO {table} VALUES {values}")
            case "update" if columns:
                name, kind = self.chance.choice(columns)
                self.execute(f'UPDATE {table} SET "{name}" = {self.value(kind)} {some}')
            case "delete":
                self.execute(f"DELETE FROM {table} {some}")
            case "truncate":
                self.execute(f"TRUNCATE {table}")

    def alter(self) -> None:
        """One change of the schema."""
        plain, roots = self.tables("r"), self.tables("p")
        change = self.chance.choice(CHANGES)
        if len(plain) < 4 or change is make:
            make(self)
        elif change in OF_ROOTS:
            if roots:
                change(self, self.chance.choice(roots))
        else:
            change(self, self.chance.choice(plain if self.chance.random() < 0.8 else plain + roots))


def make(life: Life, _: str = "") -> None:
    if len(life.tables()) > 12:
        return
    name, extra = f"t{life.fresh()}", life.chance.sample(KINDS, 3)
    columns = ", ".join(f"c{life.fresh()} {kind}" for kind in extra)
    if life.chance.random() < 0.25:
        life.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, {columns}) PARTITION BY HASH (id)")
        for part in (0, 1):
            life.execute(
                f"CREATE TABLE {name}_{part} PARTITION OF {name} FOR VALUES WITH (MODULUS 2, REMAINDER {part})"
            )
    else:
        keyed = life.chance.random() < 0.8
        life.execute(f"CREATE TABLE {name} (id int{' PRIMARY KEY' if keyed else ''}, {columns})")
        if not keyed or life.chance.random() < 0.2:
            life.execute(f"ALTER TABLE {name} REPLICA IDENTITY FULL")


def drop(life: Life, table: str) -> None:
    life.execute(f"DROP TABLE {table}")


def make_anew(life: Life, table: str) -> None:
    life.together(
        lambda: life.execute(f"DROP TABLE {table}; CREATE TABLE {table} (c1 text, id bigint PRIMARY KEY, c2 int)")
    )


def rename(life: Life, table: str) -> None:
    life.execute(f"ALTER TABLE {table} RENAME TO t{life.fresh()}")


def swap(life: Life, table: str) -> None:
    schema, other = table.split(".")[0], life.chance.choice(life.tables("r"))
    if other.startswith(f"{schema}.") and other != table:
        one, two = table.split(".")[1], other.split(".")[1]
        life.together(
            lambda: life.execute(
                f"ALTER TABLE {table} RENAME TO aside; ALTER TABLE {other} RENAME TO {one};"
                f"ALTER TABLE {schema}.aside RENAME TO {two}"
            )
        )


def move(life: Life, table: str) -> None:
    life.execute(f"ALTER TABLE {table} SET SCHEMA {life.chance.choice(['public', 'other', 'another'])}")


def rename_schema(life: Life, _: str) -> None:
    life.together(
        lambda: life.execute(
            "ALTER SCHEMA other RENAME TO aside; ALTER SCHEMA another RENAME TO other;"
            "ALTER SCHEMA aside RENAME TO another"
        )
    )


def add_column(life: Life, table: str) -> None:
    kind = life.chance.choice(KINDS)
    default = life.chance.choice(["", f" DEFAULT {CONSTANTS.get(kind, 'NULL')}"])
    default = " DEFAULT random()" if kind == "numeric" and life.chance.random() < 0.3 else default
    life.execute(f"ALTER TABLE {table} ADD c{life.fresh()} {kind}{default}")


def drop_column(life: Life, table: str) -> None:
    name, _ = life.chance.choice(life.columns(table))
    life.execute(f'ALTER TABLE {table} DROP "{name}"')


def drop_and_add(life: Life, table: str) -> None:
    name, kind = life.columns(table)[-1]
    life.together(lambda: life.execute(f'ALTER TABLE {table} DROP "{name}"; ALTER TABLE {table} ADD "{name}" {kind}'))


def rename_column(life: Life, table: str) -> None:
    name, _ = life.chance.choice(life.columns(table))
    life.execute(f'ALTER TABLE {table} RENAME "{name}" TO c{life.fresh()}')


def swap_columns(life: Life, table: str) -> None:
    if len(columns := life.columns(table)) > 2:
        (one, _), (two, _) = life.chance.sample(columns, 2)
        life.together(
            lambda: life.execute(
                f'ALTER TABLE {table} RENAME "{one}" TO aside; ALTER TABLE {table} RENAME "{two}" TO "{one}";'
                f'ALTER TABLE {table} RENAME aside TO "{two}"'
            )
        )


def change_type(life: Life, table: str) -> None:
    name, kind = life.chance.choice(life.columns(table))
    to = life.chance.choice(
        {"integer": ["bigint", "int", "text"], "character varying": ["varchar(30)", "text"]}.get(kind, ["text", kind])
    )
    using = "" if life.chance.random() < 0.7 else f' USING "{name}"::{to}'
    life.execute(f'ALTER TABLE {table} ALTER "{name}" TYPE {to}{using}')


def change_key(life: Life, table: str) -> None:
    name, _ = life.chance.choice(life.columns(table))
    find = "SELECT conname FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'p'"
    constraint = life.connection.execute(find, (table,)).fetchone()
    drops = [f'DROP CONSTRAINT "{constraint[0]}"'] if constraint else []
    adds = [f'ADD PRIMARY KEY ("{name}")'] if life.chance.random() < 0.7 else []
    if drops or adds:
        life.execute(f"ALTER TABLE {table} {', '.join(drops + adds)}")


def change_identity(life: Life, table: str) -> None:
    life.execute(f"ALTER TABLE {table} REPLICA IDENTITY {life.chance.choice(['FULL', 'DEFAULT'])}")


def rewrite(life: Life, table: str) -> None:
    life.execute(f"{life.chance.choice(['VACUUM FULL', 'ANALYZE', 'TRUNCATE'])} {table}")


def unlog(life: Life, table: str) -> None:
    life.execute(f"ALTER TABLE {table} SET UNLOGGED")
    life.execute(f"DELETE FROM {table} WHERE ctid IN (SELECT ctid FROM {table} LIMIT 2)")
    life.execute(f"ALTER TABLE {table} SET LOGGED")


def change_moods(life: Life, _: str) -> None:
    (labels,) = life.connection.execute("SELECT enum_range(NULL::mood)::text[]").fetchone() or ([],)
    if life.chance.random() < 0.5:
        life.execute(f"ALTER TYPE mood ADD VALUE 'm{life.fresh()}'")
    else:
        life.execute(f"ALTER TYPE mood RENAME VALUE '{life.chance.choice(labels[1:])}' TO 'm{life.fresh()}'")


def replace_leaf(life: Life, root: str) -> None:
    """Away, changed, and back; or another one in its place."""
    query = """SELECT inhrelid::regclass::text, pg_get_expr(c.relpartbound, c.oid)
               FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = %s::regclass"""
    if leaves := life.connection.execute(query, (root,)).fetchall():
        leaf, bound = life.chance.choice(leaves)
        life.execute(f"ALTER TABLE {root} DETACH PARTITION {leaf}")
        life.execute(f"DELETE FROM {leaf} WHERE ctid IN (SELECT ctid FROM {leaf} LIMIT 2)")
        life.execute(f"ALTER TABLE {root} ATTACH PARTITION {leaf} {bound}")


def truncate_leaf(life: Life, root: str) -> None:
    query = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass"
    if leaves := life.connection.execute(query, (root,)).fetchall():
        life.execute(f"TRUNCATE {life.chance.choice(leaves)[0]}")


OF_ROOTS: list[Callable[[Life, str], None]] = [replace_leaf, truncate_leaf]
CHANGES: list[Callable[[Life, str], None]] = [
    *(make, drop, make_anew, rename, swap, move, rename_schema),
    *(add_column, add_column, drop_column, drop_and_add, rename_column, swap_columns, change_type, change_type),
    *(change_key, change_identity, rewrite, unlog, change_moods),
    *OF_ROOTS,
]


@contextlib.contextmanager
def going_on(work: Callable[[], None]) -> Iterator[None]:
    """It is done again and again in a thread."""
    stop = threading.Event()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            while not stop.is_set():
                with contextlib.suppress(psycopg.Error):
                    work()
                stop.wait(0.005)
        except BaseException as error:  # noqa: BLE001 -- told below
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert not failed, failed


@pytest.mark.parametrize("at_root", [False, True], ids=["leaves", "roots"])
@pytest.mark.parametrize("seconds", [8, pytest.param(120, marks=pytest.mark.soak)])
def test_promise_1_whatever_happens_to_the_schemas_the_ods_is_equal_in_the_end(
    source_database: str, ods_database: str, hub_factory: Callable[..., RunningHub], seconds: int, at_root: bool
) -> None:
    seed = random.randrange(2**32)
    print(f"seed: {seed}")
    with psycopg.connect(source_database, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA other; CREATE SCHEMA another; CREATE TYPE mood AS ENUM ('ok', 'good', 'bad')")
        connection.execute(f"CREATE PUBLICATION catchment FOR ALL TABLES WITH (publish_via_partition_root = {at_root})")
    chance = random.Random(seed)
    with TcpProxy(int(conninfo_to_dict(source_database)["port"] or 0)) as network:
        reached = make_conninfo(source_database, host="127.0.0.1", port=network.port)
        hub = hub_factory({"orders": reached}, ods=ods_database)
        with contextlib.ExitStack() as all_at_once:
            lives = (contextlib.closing(Life(source_database, seed + number)) for number in range(3))
            altering, *writing = (all_at_once.enter_context(life) for life in lives)
            for _ in range(6):
                make(altering)
            for _ in range(100):
                writing[0].write()
            hub.start()
            for life in writing:
                work = [life.write, lambda life=life: life.together(life.write)]
                all_at_once.enter_context(going_on(lambda work=work: chance.choice(work)()))
            until = time.monotonic() + seconds
            troubled = time.monotonic()
            while time.monotonic() < until:
                with contextlib.suppress(psycopg.Error):
                    altering.alter()
                time.sleep(chance.choice([0, 0, 0.05, 0.3]))
                if time.monotonic() - troubled > 2:
                    network.delay = chance.choice([0.0, 0.0, 0.02])
                    chance.choice([network.cut, lambda: hub.kill_worker(chance)])()
                    troubled = time.monotonic()
        network.delay = 0.0
        hub.stop()
        hub.until_caught_up()
    print(f"{altering.done} changes of schemas, {sum(life.done for life in writing)} statements")
    assert not (wrong := list(differences(source_database, ods_database, "orders"))), "\n".join(wrong)
