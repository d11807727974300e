"""Promise 4: every value, of every type, arrives in the ODS as PostgreSQL itself prints it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import psycopg
import pytest
from every_type import USER_TYPES, Kind, kinds
from places import execute
from psycopg import sql
from running_hub import RunningHub, eventually

EXTENSIONS = ("citext", "hstore", "ltree", "cube", "vector")
ROWS = 24

# What a database, or a role in it, may bring along, and under what values are compared: it may change nothing.
SETTINGS = {
    "DateStyle": ("German", "ISO"),
    "IntervalStyle": ("sql_standard", "iso_8601"),
    "TimeZone": ("America/St_Johns", "UTC"),
    "bytea_output": ("escape", "hex"),
    "extra_float_digits": ("-10", "1"),
    "client_encoding": ("LATIN1", "UTF8"),
    "search_path": ("hostile", "pg_catalog"),
    "xmloption": ("document", "content"),
    "array_nulls": ("off", "on"),
    "standard_conforming_strings": ("off", "on"),
    "transform_null_equals": ("on", "off"),
    "quote_all_identifiers": ("on", "off"),
    "row_security": ("on", "off"),
    "session_replication_role": ("replica", "origin"),
    "default_transaction_read_only": ("on", "off"),
    "default_transaction_deferrable": ("on", "off"),
    "default_transaction_isolation": ("serializable", "read\\ committed"),
    "statement_timeout": ("1", "0"),
    "lock_timeout": ("1", "0"),
    "idle_in_transaction_session_timeout": ("1", "0"),
    "idle_session_timeout": ("1", "0"),
}
PLAIN = " ".join(f"-c {name}={plain}" for name, (_, plain) in SETTINGS.items())


@contextmanager
def plainly(dsn: str) -> Iterator[psycopg.Connection]:
    """A connection with the settings under which values are compared."""
    with psycopg.connect(dsn, options=PLAIN, client_encoding="UTF8") as connection:
        yield connection


def make_hostile(dsn: str) -> None:
    """Half of it is the database's, half the role's."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        name = sql.Identifier(connection.info.dbname)
        for number, (setting, (hostile, _)) in enumerate(SETTINGS.items()):
            whose = "ALTER ROLE postgres IN DATABASE {}" if number % 2 else "ALTER DATABASE {}"
            connection.execute(
                sql.SQL(whose + " SET {} = {}").format(name, sql.Identifier(setting), sql.Literal(hostile))
            )


def supported(dsn: str) -> list[str]:
    """Which of what a server may lack this one has."""
    with psycopg.connect(dsn) as connection:
        offered = "SELECT name FROM pg_available_extensions WHERE name = ANY (%s)"
        found = [name for (name,) in connection.execute(offered, [list(EXTENSIONS)])]
        try:
            connection.execute("SELECT ''::xml")
        except psycopg.errors.FeatureNotSupported:
            return found
        return [*found, "xml"]


def columns_of(kinds: Sequence[Kind]) -> sql.Composed:
    """Each is called as its type is."""
    return sql.SQL(", ").join(sql.SQL("{} {}").format(sql.Identifier(kind.type), sql.SQL(kind.type)) for kind in kinds)


TABLES = {"public": 'keyed "by" Default ☃', "My Types": 'a "b"', "select": "bag"}


class Everything:
    """A source with a row of all types in three tables, and the ODS that follows it."""

    def __init__(self, source: str, ods: str, kinds: Sequence[Kind]) -> None:
        self.source = source
        self.ods = ods
        self.kinds = kinds
        values = [kind.some() for kind in kinds]
        # The columns are shifted against each other, so that not all edges are in one row.
        self.rows = [
            [column[(row + shift) % len(column)] for shift, column in enumerate(values)] for row in range(ROWS)
        ]

    def create(self) -> None:
        with psycopg.connect(self.source) as connection:
            connection.execute("SET search_path = public, ext")
            connection.execute(USER_TYPES)
            connection.execute('CREATE SCHEMA "select"')
            for schema, name in TABLES.items():
                create = sql.SQL("CREATE TABLE {} (id int{}, {})").format(
                    sql.Identifier(schema, name),
                    sql.SQL("" if name == "bag" else " PRIMARY KEY"),
                    columns_of(self.kinds),
                )
                connection.execute(create)
                if name != TABLES["public"]:
                    full = sql.SQL("ALTER TABLE {} REPLICA IDENTITY FULL")
                    connection.execute(full.format(sql.Identifier(schema, name)))
            connection.execute("CREATE TABLE public.told (id int PRIMARY KEY)")
            connection.execute("CREATE PUBLICATION catchment FOR ALL TABLES")

    def insert(self, connection: psycopg.Connection, first: int) -> None:
        places = sql.SQL(", ").join([sql.Placeholder()] * (len(self.kinds) + 1))
        for schema, name in TABLES.items():
            insert = sql.SQL("INSERT INTO {} VALUES ({})").format(sql.Identifier(schema, name), places)
            connection.cursor().executemany(insert, [[first + at, *row] for at, row in enumerate(self.rows)])

    def change(self, connection: psycopg.Connection) -> None:
        """Rows inserted, changed whole, in one column, in their key, set to null, deleted."""
        self.insert(connection, ROWS)
        connection.commit()
        names = [sql.Identifier(kind.type) for kind in self.kinds]
        for schema, name in TABLES.items():
            table = sql.Identifier(schema, name)
            everything = sql.SQL(", ").join(sql.SQL("{0} = other.{0}").format(column) for column in names)
            nothing = sql.SQL(", ").join(sql.SQL("{} = NULL").format(column) for column in names)
            connection.execute(
                sql.SQL("UPDATE {0} t SET {1} FROM {0} other WHERE t.id % 6 = 1 AND other.id = t.id + 1").format(
                    table, everything
                )
            )
            connection.execute(sql.SQL("UPDATE {} SET {} WHERE id % 12 = 3").format(table, nothing))
            connection.execute(sql.SQL("UPDATE {} SET id = id + 1000 WHERE id % 6 = 2").format(table))
            connection.execute(sql.SQL("DELETE FROM {} WHERE id % 12 = 4").format(table))
            for number, column in enumerate(names):
                connection.execute(
                    sql.SQL("UPDATE {0} SET {1} = (SELECT {1} FROM {0} WHERE id = %s) WHERE id = %s").format(
                        table, column
                    ),
                    [number % ROWS, ROWS + (number + 1) % ROWS],
                )
            connection.commit()

    def told(self, number: int) -> None:
        """Wait until the ODS has everything up to here."""
        with plainly(self.source) as connection:
            connection.execute("INSERT INTO public.told VALUES (%s)", [number])
        eventually(lambda: self._has(number), "the ODS to follow")

    def _has(self, number: int) -> bool:
        with plainly(self.ods) as connection:
            if connection.execute("SELECT to_regclass('orders.told')").fetchone() == (None,):
                return False
            return connection.execute("SELECT FROM orders.told WHERE id = %s", [number]).fetchone() is not None

    def assert_equal(self) -> None:
        for schema, name in TABLES.items():
            here, there = self._texts(self.source, schema, name), self._texts(self.ods, dataset(schema), name)
            assert here.keys() == there.keys(), name
            wrong = [
                (name, id_, kind.type, left[:80], right[:80])
                for id_ in here
                for kind, left, right in zip(self.kinds, map(str, here[id_]), map(str, there[id_]), strict=True)
                if left != right
            ]
            assert not wrong, wrong[:9]

    def _texts(self, dsn: str, schema: str, name: str) -> dict[str | None, tuple[str | None, ...]]:
        names = sql.SQL(", ").join(sql.Identifier(kind.type) for kind in self.kinds)
        statement = sql.SQL("COPY (SELECT id, {} FROM {}) TO STDOUT").format(names, sql.Identifier(schema, name))
        with plainly(dsn) as connection, connection.cursor().copy(statement) as copy:
            return {id_: values for id_, *values in copy.rows()}

    def types(self, dsn: str, schema: str) -> dict[str, str]:
        """What PostgreSQL calls the types of the columns, wherever an extension lives."""
        query = """SELECT attname, replace(replace(format_type(atttypid, atttypmod), 'ext.', ''), 'public.', '')
                   FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 1 ORDER BY attnum"""
        with plainly(dsn) as connection:
            return dict(
                connection.execute(query, [sql.Identifier(schema, TABLES["public"]).as_string(None)]).fetchall()
            )


def dataset(schema: str) -> str:
    return "orders" if schema == "public" else f"orders__{schema}"


@pytest.mark.every_server_version
def test_promise_4_values_of_every_type_arrive_as_postgresql_prints_them(
    source_database: str, ods_database: str, hub_factory: Callable[..., RunningHub], server_version: int
) -> None:
    there = supported(source_database)
    extensions = [name for name in EXTENSIONS if name in there]
    execute(source_database, "CREATE SCHEMA ext", *(f"CREATE EXTENSION {name} SCHEMA ext" for name in extensions))
    execute(ods_database, *(f"CREATE EXTENSION {name}" for name in extensions if name != "cube"))
    all_kinds = kinds(there, server_version)
    everything = Everything(source_database, ods_database, all_kinds)
    everything.create()
    with plainly(source_database) as connection:
        everything.insert(connection, 0)
    make_hostile(source_database)
    make_hostile(ods_database)
    hub = hub_factory({"orders": source_database}, ods=ods_database)
    hub.start()
    everything.told(1)
    everything.assert_equal()
    here = everything.types(source_database, "public")
    expected = {kind.type: kind.ods or here[kind.type] for kind in all_kinds}
    assert everything.types(ods_database, "orders") == expected
    with plainly(source_database) as connection:
        everything.change(connection)
    everything.told(2)
    everything.assert_equal()
    assert "equal" in hub.command("verify", "orders").stdout


@pytest.mark.every_server_version
def test_no_type_of_this_server_is_forgotten(source_database: str, server_version: int) -> None:
    query = """SELECT format_type(oid, NULL) FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace
               AND typtype IN ('b', 'r', 'm') AND typcategory <> 'A' AND typname !~ '^(pg_brin_|pg_mcv|pg_nd|pg_dep)'"""
    with plainly(source_database) as connection:
        found = {name for (name,) in connection.execute(query)}
    tested = {kind.type.split("(")[0] for kind in kinds(["xml"], server_version)}
    assert found - tested == {"pg_node_tree", "gtsvector"}, "nobody can make values of these"
