"""One connection to the ODS, with the staging tables that live in it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Self

import psycopg
from psycopg import sql

from catchment.model.errors import TargetRefused
from catchment.model.frontier import Frontier
from catchment.model.table import Table
from catchment.postgres.connection import Translation, connect
from catchment.targets.ods.naming import Relation
from catchment.targets.ods.registry import CREATION, FRONTIER, SAVE_FRONTIER, prepare, read_frontier, saved_frontier

_OLDEST_SERVER = 15_00_00  # MERGE
LOCK = 0x0CA7C43E
"""Of what is ours among advisory locks."""
LOCK_TIMEOUT = "10s"
"""How long a lock is waited for: the session is wanted by other sources too, and what was rolled back is done again."""
MOST_STAGINGS = 200
"""How many staging tables a session keeps."""
_LOOK_FOR_CLIENT = "10s"
_MOST_STATEMENTS = 100
_ROWS_TO_TRUNCATE = 4_000
_BYTES_TO_TRUNCATE = 4 << 20
_MOST_WARY = 63

# To walk the key's index for each row is what few rows in a large table want, and what the planner misjudges: it may
# think that the table is small, all the more when it keeps the plan while the table grows.
_SETTINGS = f"""
SET lock_timeout = '{LOCK_TIMEOUT}';
SET jit = off; SET work_mem = '32MB';
SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_seqscan = off; SET enable_material = off;
SET plan_cache_mode = force_generic_plan
"""
_SET_JOINS = """
SELECT set_config('enable_' || name, '{}', true) FROM unnest('{{hashjoin,mergejoin,seqscan,material}}'::text[]) name
"""
ALL_JOINS = sql.SQL(_SET_JOINS.format("on"))
"""Before a statement that compares whole tables."""
BY_INDEX = sql.SQL(_SET_JOINS.format("off"))
"""Behind it."""

# What equality means for a key is what its index says: citext, for one, has operators of its own.
_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), key.schema, key.operator
FROM pg_attribute a LEFT JOIN (
    SELECT i.indrelid, part.attnum, n.nspname AS schema, o.oprname AS operator
    FROM pg_index i
    CROSS JOIN unnest(i.indkey::int2[], i.indclass::oid[]) AS part (attnum, opclass)
    JOIN pg_opclass c ON c.oid = part.opclass
    JOIN pg_amop m ON m.amopfamily = c.opcfamily AND m.amopstrategy = 3
                  AND m.amoplefttype = c.opcintype AND m.amoprighttype = c.opcintype
    JOIN pg_operator o ON o.oid = m.amopopr
    JOIN pg_namespace n ON n.oid = o.oprnamespace
    WHERE i.indisprimary
) key ON key.indrelid = a.attrelid AND key.attnum = a.attnum
WHERE a.attrelid = %s::oid AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""


@dataclass(frozen=True, slots=True)
class OdsColumn:
    """A column of a table in the ODS: its place among the others, its type, and equality if the key has it."""

    position: int
    name: str
    type: sql.SQL
    equals: sql.Composed | None

    @property
    def told(self) -> str:
        """The staging column with the value."""
        return f"c{self.position}"

    @property
    def origin(self) -> str:
        """The staging column with the part of the key under which the ODS knows the row."""
        return f"o{self.position}"


class Staging:
    """Where changes of one table of the ODS wait for the statement that applies them.

    A temporary table: ``c0 c1 …`` have the types of the table's columns, ``o0 o1 …`` those of its key's columns.
    """

    def __init__(self, session: Session, name: str, relation: Relation, columns: dict[str, OdsColumn]) -> None:
        self.identifier = sql.Identifier("pg_temp", name)
        self.relation = relation
        self.columns = columns
        self._session = session
        self._name = name
        self._statements: dict[Hashable, bytes] = {}
        self._plans: dict[Hashable, sql.Identifier] = {}
        self._plans_made = 0
        definitions: list[sql.Composable] = [sql.SQL("left_out int2[], copies int8")]
        for column in columns.values():
            definitions.append(sql.SQL("{} {}").format(sql.Identifier(column.told), column.type))
            if column.equals:
                definitions.append(sql.SQL("{} {}").format(sql.Identifier(column.origin), column.type))
        session.connection.execute(
            sql.SQL("CREATE TEMPORARY TABLE {} ({})").format(self.identifier, sql.SQL(", ").join(definitions))
        )
        self._rows = 0
        self._bytes = 0
        self._wary = self._passed_over = 0

    def statement(self, which: Hashable, compose: Callable[[], sql.Composable]) -> bytes:
        """The statement that ``compose`` makes, kept: composing takes longer than applying a few rows."""
        if which not in self._statements:
            self._statements[which] = compose().as_bytes(None)
        return self._statements[which]

    def planned(self, which: Hashable, compose: Callable[[], sql.Composable]) -> bytes:
        """The same for a statement that the server shall keep with its plan: planning, too, takes longer."""

        def prepare() -> sql.Composed:
            self._plans_made += 1
            plan = self._plans[which] = sql.Identifier(f"{self._name}_{self._plans_made}")
            self._session.connection.execute(sql.SQL("PREPARE {} AS {}").format(plan, compose()))
            return sql.SQL("EXECUTE {}").format(plan)

        return self.statement(which, prepare)

    def limit_statements(self) -> None:
        """Forget them all when they are many; to be called while none of them waits to be sent."""
        if len(self._statements) >= _MOST_STATEMENTS:
            self._forget_statements()

    def drop(self) -> None:
        self._forget_statements()
        self._session.connection.execute(sql.SQL("DROP TABLE {}").format(self.identifier))

    def _forget_statements(self) -> None:
        for plan in self._plans.values():
            self._session.connection.execute(sql.SQL("DEALLOCATE {}").format(plan))
        self._plans.clear()
        self._statements.clear()

    def filled(self, rows: int, size: int) -> None:
        """Take note of what was put in."""
        self._rows += rows
        self._bytes += size

    def may_pass(self) -> bool:
        """Whether to try once more to leave rows out of it that are thought to be new in the relation."""
        self._passed_over += 1
        return self._passed_over > self._wary

    def passed(self, rows: int) -> None:
        """So many did, none where one of them was there already: after that it is tried less and less often."""
        self._passed_over, self._wary = 0, 0 if rows else min(2 * self._wary + 1, _MOST_WARY)

    def clearing(self) -> bytes:
        """The statement that empties it.

        DELETE is several times cheaper for a few rows, but the place is not used again and each scan reads over it.
        """
        if self._rows < _ROWS_TO_TRUNCATE and self._bytes < _BYTES_TO_TRUNCATE:
            return self.planned("delete all", lambda: sql.SQL("DELETE FROM {}").format(self.identifier))
        self._rows = self._bytes = 0
        return self.statement("truncate", lambda: sql.SQL("TRUNCATE {}").format(self.identifier))


class Session:
    """A connection with the staging tables that it has made; good for nothing once a block on it failed."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self._client = psycopg.ClientCursor(connection)
        self._finish: Callable[[], None] | None = None
        self._stagings: dict[tuple[Relation, str, Table], Staging] = {}
        self._made = 0

    @classmethod
    def open(cls, dsn: str, translation: Translation) -> Self:
        """Connect and see that the ODS is ready to be written to. Raises the translation's errors and TargetRefused."""
        connection = connect(dsn, translation)
        try:
            with translation.around():
                _prepare(connection, translation.source)
        except BaseException:
            connection.close()
            raise
        return cls(connection)

    @property
    def connection(self) -> psycopg.Connection:
        """Free for the next statement, as soon as what is under way has been done. Raises what came of that."""
        finish, self._finish = self._finish, None
        if finish:
            finish()
        return self._connection

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._connection.info.backend_pid

    def leave(self, finish: Callable[[], None]) -> None:
        """Something is being done with the connection, beside what the caller does next; ``finish`` waits for it."""
        self._finish = finish

    def begin(self, source: str, durable: bool = True) -> Frontier | None:
        """Begin a transaction that no other one for the same source runs beside; how far the ODS has got with it.

        Unless it is to be ``durable``, its commit does not wait for the disk: it is lost in a crash only together with
        all that was committed after it (https://www.postgresql.org/docs/current/wal-async-commit.html).
        """
        lasting = "" if durable else "SET LOCAL synchronous_commit = off; "
        # Statements that parameters are written into may travel together.
        self._client.execute(
            f"BEGIN; {lasting}SELECT pg_advisory_xact_lock(%s, hashtext(%s)); {FRONTIER}", (LOCK, source, source)
        )
        while self._client.nextset():
            pass
        return read_frontier(self._client)

    def commit(self, source: str, frontier: Frontier | None) -> None:
        """Make an end, together with a new frontier."""
        connection = self.connection
        if frontier is None:
            connection.execute("COMMIT")
        else:
            self._client.execute(f"{SAVE_FRONTIER}; COMMIT", saved_frontier(source, frontier))

    def staging(self, relation: Relation, stamp: str, table: Table) -> Staging:
        """An empty staging table for changes of this version of a table; its columns follow the relation's.

        It stays for the next ``MOST_STAGINGS - 1`` calls for others, and its statements until it is asked for again.
        """
        key = (relation, stamp, table)
        staging = self._stagings.pop(key, None) or self._make(relation, stamp)
        staging.limit_statements()
        self._stagings[key] = staging
        if len(self._stagings) > MOST_STAGINGS:
            self._stagings.pop(next(iter(self._stagings))).drop()
        return staging

    def _make(self, relation: Relation, stamp: str) -> Staging:
        self._made += 1
        return Staging(self, f"staging_{self._made}", relation, read_columns(self.connection, stamp))

    def close(self) -> None:
        with contextlib.suppress(Exception):  # what came of it is of no interest any more
            _ = self.connection
        self._connection.close()


def read_columns(connection: psycopg.Connection, stamp: str) -> dict[str, OdsColumn]:
    """The columns, by name, of the table that has this stamp in the registry."""
    found = connection.execute(_COLUMNS, (stamp.partition("/")[0],)).fetchall()
    return {
        name: OdsColumn(position, name, sql.SQL(type_), operator and _operator(schema, operator))
        for position, (name, type_, schema, operator) in enumerate(found)
    }


@contextlib.contextmanager
def creating_schema(connection: psycopg.Connection, source: str | None) -> Iterator[None]:
    """Say what to grant when a schema may not be created."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        grant = sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(
            sql.Identifier(connection.info.dbname), sql.Identifier(connection.info.user)
        )
        raise TargetRefused(
            f"{error.diag.message_primary} (SQLSTATE {error.sqlstate})",
            source=source,
            remedy=f"in the ODS: {grant.as_string(None)}",
        ) from None


def _operator(schema: str, name: str) -> sql.Composed:
    # An operator is made of characters that need no quotes.
    return sql.SQL("OPERATOR({}.{})").format(sql.Identifier(schema), sql.SQL(name))


def _prepare(connection: psycopg.Connection, source: str | None) -> None:
    if connection.info.server_version < _OLDEST_SERVER:
        raise TargetRefused(
            f"the ODS runs PostgreSQL {connection.info.server_version // 10000}",
            source=source,
            remedy="use PostgreSQL 15 or later for the ODS",
        )
    if connection.info.parameter_status("server_encoding") != "UTF8":
        raise TargetRefused(
            "the encoding of the ODS database cannot hold every character",
            source=source,
            remedy="create it with ENCODING 'UTF8'",
        )
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s, 0)", (LOCK,))
        if connection.execute("SELECT to_regclass('catchment.tables')").fetchone() == (None,):
            with creating_schema(connection, source):
                connection.execute(CREATION)
    connection.execute(_SETTINGS)
    # What is long under way must not go on for a hub that is gone: the next one would wait for it.
    with contextlib.suppress(psycopg.errors.InvalidParameterValue):  # not every system can tell
        connection.execute(f"SET client_connection_check_interval = '{_LOOK_FOR_CLIENT}'")
    prepare(connection)
