"""One table on one server, asked for digests, keys and rows, so that two servers can be compared."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

import numpy as np
import psycopg
import pyarrow as pa
from psycopg import sql
from psycopg.pq import TransactionStatus

from catchment.changes.digest import BUCKETS, Buckets, Columns, Digest, Key, no_buckets
from catchment.postgres.connection import Translation
from catchment.postgres.copydata import copied
from catchment.wire.twin import parse

SNAPSHOT: LiteralString = "ISOLATION LEVEL REPEATABLE READ READ ONLY"

_MOST_ARGUMENTS = 90  # of the 100 that a function takes
_KEYS_A_STATEMENT = 250

# Equality as the key's index means it: citext, for one, has operators of its own. What sorts alike on two servers has
# the same type of PostgreSQL's own and, if it is text, the same collation.
_KEY_COLUMNS = """
SELECT a.attname, key.schema, key.operator,
       CASE WHEN t.typtype = 'b' AND t.typname !~ '^reg'
            THEN format_type(t.oid, CASE WHEN own.oid = t.oid THEN a.atttypmod ELSE own.typtypmod END) END,
       CASE WHEN t.typnamespace = 'pg_catalog'::regnamespace THEN concat_ws(' ', t.typname,
            CASE WHEN c.collprovider = 'd' THEN (
                SELECT concat_ws(' ', d ->> 'datlocprovider',
                                 coalesce(d ->> 'datlocale', d ->> 'daticulocale', d ->> 'datcollate'),
                                 d ->> 'datcollversion')
                FROM (SELECT to_jsonb(pg_database) AS d FROM pg_database WHERE datname = current_database()) AS here)
            WHEN c.oid IS NOT NULL THEN (
                SELECT concat_ws(' ', j ->> 'collprovider',
                                 coalesce(j ->> 'colllocale', j ->> 'colliculocale', j ->> 'collcollate'),
                                 j ->> 'collversion')
                FROM to_jsonb(c) AS j) END) END
FROM unnest({names}::text[]) WITH ORDINALITY AS wanted (name, place)
JOIN pg_attribute a ON a.attrelid = {oid}::oid AND a.attname = wanted.name AND a.attnum > 0
JOIN pg_type own ON own.oid = a.atttypid
JOIN pg_type t ON t.oid = CASE own.typtype WHEN 'd' THEN own.typbasetype ELSE own.oid END
LEFT JOIN pg_collation c ON c.oid = a.attcollation
LEFT JOIN LATERAL (
    SELECT n.nspname AS schema, o.oprname AS operator
    FROM pg_index i
    CROSS JOIN unnest(i.indkey::int2[], i.indclass::oid[]) AS part (attnum, opclass)
    JOIN pg_opclass p ON p.oid = part.opclass
    JOIN pg_amop m ON m.amopfamily = p.opcfamily AND m.amopstrategy = 3
                  AND m.amoplefttype = p.opcintype AND m.amoprighttype = p.opcintype
    JOIN pg_operator o ON o.oid = m.amopopr
    JOIN pg_namespace n ON n.oid = o.oprnamespace
    WHERE i.indrelid = a.attrelid AND part.attnum = a.attnum AND i.indisunique AND i.indisvalid
    ORDER BY i.indisprimary DESC, i.indexrelid LIMIT 1
) AS key ON true
ORDER BY wanted.place
"""


@contextlib.contextmanager
def begun(connection: psycopg.Connection, how: LiteralString = "") -> Iterator[None]:
    """A transaction for the block that ends as if it had not been. A connection that broke ends it by itself."""
    connection.execute(sql.SQL("BEGIN {}").format(sql.SQL(how)))
    try:
        yield
    finally:
        if connection.info.transaction_status is TransactionStatus.ACTIVE:
            connection.close()  # Ctrl-C came in the middle of a statement
        elif not connection.closed:
            connection.rollback()


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """A column of a key.

    ``type``: what a text is turned into to find it by its index, null where another server may hold texts that this one
    cannot read (an enum's old label): it is then found by its text. ``order``: the same on two servers only if its
    values sort alike there; null when that cannot be said.
    """

    name: str
    equals: sql.Composed
    type: sql.SQL | None
    order: str | None


def key_columns(connection: psycopg.Connection, oid: int, names: Sequence[str]) -> list[KeyColumn]:
    """Those of these columns that the relation has, in this order."""
    query = sql.SQL(_KEY_COLUMNS).format(names=sql.Literal(list(names)), oid=sql.Literal(oid))
    return [
        KeyColumn(name, _operator(schema or "pg_catalog", operator or "="), type_ and sql.SQL(type_), order)
        for name, schema, operator, type_, order in connection.execute(query).fetchall()
    ]


def _operator(schema: str, name: str) -> sql.Composed:
    # An operator is made of characters that need no quotes.
    return sql.SQL("OPERATOR({}.{})").format(sql.Identifier(schema), sql.SQL(name))


def wanted_rows(key: Sequence[KeyColumn], keys: Columns) -> tuple[sql.Composed, sql.Composed]:
    """Keys, given as texts, as something to read from, and the condition that a row of ``t`` has one of them."""
    texts = sql.SQL(", ").join(sql.SQL("{}::text[]").format(sql.Literal(column.to_pylist())) for column in keys)
    names = sql.SQL(", ").join(sql.Identifier(f"k{place}") for place in range(len(keys)))
    # A cast to text does not always print what the type's output function does: 'true' where that prints 't'.
    conditions = sql.SQL(" AND ").join(
        sql.SQL("{} {} {}::{}").format(own, column.equals, given, column.type)
        if column.type
        else sql.SQL("format('%s', {}) = {}").format(own, given)
        for column, own, given in (
            (column, sql.Identifier("t", column.name), sql.Identifier("wanted", f"k{place}"))
            for place, column in enumerate(key)
        )
    )
    return sql.SQL("unnest({}) AS wanted ({})").format(texts, names), conditions


class ComparedTable:
    """The rows of ``relation``, as far as ``row_filter`` lets them through, in whatever snapshot the connection is.

    ``relation`` may begin with ONLY. ``trimmed``: numeric columns that are hashed without trailing zeros. Raises the
    translation's errors, and DecodeError for what is not UTF-8.
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        translation: Translation,
        name: str,
        relation: sql.Composable,
        columns: Sequence[str],
        key: Sequence[KeyColumn],
        row_filter: str | None = None,
        trimmed: frozenset[str] = frozenset(),
    ) -> None:
        self._connection = connection
        self._translation = translation
        self._name = name
        self._width = len(columns)
        self.key = key
        self.trimmed = trimmed
        self._columns = [sql.Identifier("t", column) for column in columns]
        self._keys = [sql.Identifier("t", column.name) for column in key]
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        # The team's own filter, as its own server prints it, in a place where only the table's columns have names.
        where = sql.SQL(f" WHERE {row_filter}" if row_filter else "")
        self._from = sql.SQL("(SELECT {} FROM {}{}) AS t").format(names, relation, where)
        self._hash = _hash(
            [
                sql.SQL("trim_scale({})").format(own) if column in trimmed else own
                for column, own in zip(columns, self._columns, strict=True)
            ]
        )
        self._bucket = sql.SQL("{} & {}").format(self._hash, sql.Literal(BUCKETS - 1))

    @property
    def sorted(self) -> ComparedTable | None:
        """Itself, if the columns of its key have ranges: types of PostgreSQL's own that another server can read."""
        return self if all(column.type and column.order for column in self.key) else None

    @property
    def order(self) -> list[str | None]:
        """What the order of each column of the key depends on; null when that cannot be said."""
        return [column.order for column in self.key]

    def digest(self, after: Key | None, until: Key | None) -> Digest:
        """Of the rows with ``after < key <= until``, as this server sorts them; null: without a limit."""
        ((rows,), (total,)) = self._texts(
            2, "SELECT count(*), coalesce(sum({}), 0) FROM {}{}", self._hash, self._from, self._within(after, until)
        )
        return Digest(int(str(rows)), int(str(total)) % 2**64)

    def boundary(self, after: Key | None, until: Key | None, rows: int) -> Key | None:
        """The key of the row that is this many rows behind ``after``; null when there are fewer."""
        keys = sql.SQL(", ").join(self._keys)
        within = self._within(after, until)
        offset = sql.Literal(rows - 1)
        statement = "SELECT {} FROM {}{} ORDER BY {} LIMIT 1 OFFSET {}"
        found = self._texts(len(self._keys), statement, keys, self._from, within, keys, offset)
        return tuple(column[0].as_py() for column in found) if len(found[0]) else None

    def hashes_within(self, after: Key | None, until: Key | None) -> Columns:
        """The columns of the key, and the row's hash, of all rows of this range."""
        keys = sql.SQL(", ").join(self._keys)
        statement = "SELECT {}, {} FROM {}{}"
        return self._texts(len(self._keys) + 1, statement, keys, self._hash, self._from, self._within(after, until))

    def hashes(self) -> Iterator[Columns]:
        """The same of all rows, some at a time."""
        query = self._query("SELECT {}, {} FROM {}", sql.SQL(", ").join(self._keys), self._hash, self._from)
        with self._translation.around(self._name):
            for data in copied(self._connection, query):
                yield parse(data, len(self._keys) + 1)

    def buckets(self) -> Buckets:
        """Of all rows, each in the bucket that its hash says."""
        statement = "SELECT bucket, count(*), sum(hash) FROM (SELECT {} AS bucket, {} AS hash FROM {}) AS b GROUP BY 1"
        number, count, total = self._texts(3, statement, self._bucket, self._hash, self._from)
        buckets = no_buckets()
        places = np.asarray(number.cast(pa.int64()))
        buckets.rows[places] = np.asarray(count.cast(pa.int64()))
        sums: list[Any] = total.to_pylist()
        buckets.totals[places] = [int(text) % 2**64 for text in sums]
        return buckets

    def held(self, position: int, texts: pa.Array[Any]) -> pa.Array[Any]:
        """A server of PostgreSQL prints what it was told."""
        return texts

    def rows(self, keys: Columns) -> Columns:
        """The rows with these keys, by what this server takes for equal, so that 1.0 may find 1.00."""
        found = [
            self._rows([column.slice(start, _KEYS_A_STATEMENT) for column in keys])
            for start in range(0, len(keys[0]), _KEYS_A_STATEMENT)
        ]
        return [pa.concat_arrays(parts) for parts in zip(*found, strict=True)]

    def _rows(self, keys: Columns) -> Columns:
        wanted, found = wanted_rows(self.key, keys)
        columns = sql.SQL(", ").join(self._columns)
        return self._texts(self._width, "SELECT {} FROM {} JOIN {} ON {}", columns, wanted, self._from, found)

    def _within(self, after: Key | None, until: Key | None) -> sql.Composable:
        conditions = [
            sql.SQL("ROW({}) {} ROW({})").format(
                sql.SQL(", ").join(self._keys),
                sql.SQL(operator),
                sql.SQL(", ").join(
                    sql.SQL("{}::{}").format(sql.Literal(text), column.type or sql.SQL("text"))
                    for text, column in zip(limit, self.key, strict=True)
                ),
            )
            for operator, limit in ((">", after), ("<=", until))
            if limit is not None
        ]
        return sql.SQL(" WHERE ") + sql.SQL(" AND ").join(conditions) if conditions else sql.SQL("")

    def _texts(self, width: int, statement: str, *parts: sql.Composable) -> Columns:
        with self._translation.around(self._name):
            data = b"".join(map(bytes, copied(self._connection, self._query(statement, *parts))))
        return parse(data, width)

    def _query(self, statement: str, *parts: sql.Composable) -> bytes:
        """As bytes: on a server that does not know its encoding the connection has none either."""
        return sql.SQL("COPY ({}) TO STDOUT").format(sql.SQL(statement).format(*parts)).as_string(None).encode()


def _hash(columns: Sequence[sql.Composable]) -> sql.Composed:
    """``%L`` prints a value as its type's output function does, which a cast to text does not always."""
    parts = [columns[start : start + _MOST_ARGUMENTS] for start in range(0, len(columns), _MOST_ARGUMENTS)]
    texts = [
        sql.SQL("format({}, {})").format(sql.Literal("%L," * len(part)), sql.SQL(", ").join(part)) for part in parts
    ]
    text = sql.SQL(" || ").join(texts) if texts else sql.SQL("''")
    hashed = "('x' || left(encode(sha256(convert_to({}, 'UTF8')), 'hex'), 16))::bit(64)::bigint"
    return sql.SQL(hashed).format(text)
