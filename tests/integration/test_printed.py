"""What the lake holds of a value prints as PostgreSQL printed it: PostgreSQL is asked."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from decimal import Decimal

import psycopg
import pyarrow as pa
from psycopg import sql
from running_hub import STYLE

from catchment.changes.cast import type_of, typed
from catchment.changes.printed import as_held, printed
from catchment.model.table import Column

VALUES = 1500


def floats(chance: random.Random) -> str:
    (bits,) = struct.unpack("<d", chance.randbytes(8))
    return repr(
        chance.choice(
            [bits, chance.randrange(10**6) / 100, 10.0 ** chance.randrange(-12, 25), 2.0 ** chance.randrange(60)]
        )
    )


def singles(chance: random.Random) -> str:
    (bits,) = struct.unpack("<f", chance.randbytes(4))
    return repr(
        chance.choice(
            [bits, chance.randrange(10**6) / 8, float(10 ** chance.randrange(12)), 1 / chance.randrange(1, 10**7)]
        )
    )


def numerics(chance: random.Random) -> str:
    return chance.choice(["NaN", f"{chance.randrange(-(10**9), 10**9)}e-{chance.randrange(4)}", "0", "-0.001"])


def moments(chance: random.Random) -> str:
    day = f"{chance.randrange(1, 9999):04}-{chance.randrange(1, 13):02}-{chance.randrange(1, 29):02}"
    time = f"{chance.randrange(24):02}:{chance.randrange(60):02}:{chance.randrange(60):02}"
    odd = ["infinity", "-infinity", "0044-03-15 BC", "12000-01-01"]
    return chance.choice([day, f"{day} {time}", f"{day} {time}.{chance.randrange(10**6):06}", chance.choice(odd)])


def words(chance: random.Random) -> str:
    return "".join(chance.choices('aZ"\\{},; \t\n\x0b\x0cü☃\u00a0', k=chance.randrange(6))) or chance.choice(
        ["", "null", "NULL", "nullo"]
    )


KINDS: dict[str, Callable[[random.Random], str]] = {
    "bool": lambda chance: chance.choice("tf"),
    "int2": lambda chance: str(chance.randrange(-(2**15), 2**15)),
    "int8": lambda chance: str(chance.randrange(-(2**63), 2**63)),
    "oid": lambda chance: str(chance.randrange(2**32)),
    "float4": singles,
    "float8": floats,
    "numeric(12,3)": numerics,
    "numeric(3,3)": lambda chance: f"0.{chance.randrange(1000):03}",
    "numeric(9,-2)": numerics,
    "numeric(38,20)": numerics,
    "numeric": numerics,
    "date": moments,
    "timestamp": moments,
    "timestamptz": moments,
    "bytea": lambda chance: "\\x" + chance.randbytes(chance.randrange(6)).hex(),
    "text": words,
}


def test_promise_4_what_is_held_typed_prints_as_postgresql_printed_it(source_database: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed: {seed}")
    chance = random.Random(seed)
    with psycopg.connect(source_database, options=STYLE) as connection:
        for kind, value in KINDS.items():
            given = [value(chance) if chance.random() < 0.95 else None for _ in range(VALUES)]
            for array in (False, True):
                column, texts = asked(connection, kind, given, array)
                assert printed(typed(texts, type_of(column)), column).to_pylist() == texts.to_pylist(), (kind, array)
            if kind == "numeric":
                assert_number_is_kept(*asked(connection, kind, given, False))


def asked(connection: psycopg.Connection, kind: str, given: list[str | None], array: bool) -> tuple[Column, pa.Array]:
    """The texts of a column of this type, or of arrays of a few values of it, as the server prints them."""
    connection.execute("DROP TABLE IF EXISTS printed")
    connection.execute(sql.SQL("CREATE TEMP TABLE printed (n int, v {}, a {}[])").format(*[sql.SQL(kind)] * 2))
    values = sql.SQL("INSERT INTO printed SELECT n, v::{} FROM unnest(%s::text[]) WITH ORDINALITY AS t (v, n)")
    connection.execute(values.format(sql.SQL(kind)), [given])
    arrays = "INSERT INTO printed (a) SELECT array_agg(v) FILTER (WHERE n % 40 > 0) FROM printed GROUP BY n / 4"
    connection.execute(arrays)
    name = "a" if array else "v"
    ((type_name, typmod),) = connection.execute(
        "SELECT typname, atttypmod FROM pg_attribute a JOIN pg_type t ON t.oid = atttypid "
        "WHERE attrelid = 'printed'::regclass AND attname = %s",
        [name],
    ).fetchall()
    with connection.cursor().copy(sql.SQL("COPY printed ({}) TO STDOUT").format(sql.Identifier(name))) as copy:
        texts = pa.array([row[0] for row in copy.rows()], pa.string())
    return Column(1, "v", "pg_catalog", type_name, typmod, nullable=True), texts


def assert_number_is_kept(column: Column, texts: pa.Array) -> None:
    """In a decimal that was chosen for it, or its text is kept; but for zeros at the end."""
    chosen = pa.decimal128(10, 2)
    values = typed(texts, chosen)
    kept = printed(values, column).to_pylist()
    assert kept == as_held(texts, column, chosen).to_pylist()
    assert [text and Decimal(text).normalize() for text in kept if text != "NaN"] == [
        text and Decimal(text).normalize() for text in texts.to_pylist() if text != "NaN"
    ]
    assert not any(text and "." in text and text.endswith("0") for text in kept)
    assert values.exact is not None
    assert 0 < values.exact.null_count < len(texts)
