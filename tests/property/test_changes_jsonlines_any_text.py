"""JSON lines against ``json.dumps``, over any text."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from catchment.changes.jsonlines import render
from catchment.model.batch import META, TableRows, rows_schema
from catchment.model.lsn import Lsn
from catchment.model.table import Column, ReplicaIdentity, Table

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
texts = st.one_of(
    st.none(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.text('"\\\n\t\b\x01\x1f\x7fé\u2028', max_size=8),
)
instants = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))


@st.composite
def tables(draw: st.DrawFn) -> Table:
    columns = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    key = draw(st.lists(st.sampled_from(columns), unique=True))
    return Table(
        1,
        draw(names),
        draw(names),
        tuple(Column(number, name, "pg_catalog", "text", -1, True) for number, name in enumerate(columns, 1)),
        tuple(key),
        draw(st.sampled_from(ReplicaIdentity)),
        1,
    )


@st.composite
def table_rows(draw: st.DrawFn) -> list[tuple[Table, list[dict[str, object]]]]:
    """Rows of some tables, as dictionaries, with ``_seq`` dealt out over all of them."""
    parts: list[tuple[Table, list[dict[str, object]]]] = [(draw(tables()), []) for _ in range(draw(st.integers(0, 3)))]
    if not parts:
        return parts
    for seq in range(draw(st.integers(0, 12))):
        table, rows = draw(st.sampled_from(parts))
        positions = st.integers(0, len(table.columns) - 1)
        op = draw(st.sampled_from("rcubd"))
        rows.append(
            {
                "op": op,
                "seq": 2**53 + seq,
                "lsn": draw(st.integers(0, 2**63 - 1)),
                "xid": draw(st.integers(0, 2**32 - 1)),
                "committed_at": draw(instants),
                "values": [draw(texts) for _ in table.columns],
                "unchanged": draw(st.one_of(st.none(), st.lists(positions, min_size=1, unique=True).map(sorted)))
                if op == "u"
                else None,
            }
        )
    return parts


def as_table_rows(table: Table, rows: list[dict[str, object]]) -> TableRows:
    fields = ("op", "seq", "lsn", "xid", "committed_at", "unchanged")
    meta = [pa.array([row[name] for row in rows], META.field(place).type) for place, name in enumerate(fields)]
    columns = [pa.array([row["values"][place] for row in rows], pa.string()) for place in range(len(table.columns))]
    schema = rows_schema(column.name for column in table.columns)
    batch = pa.RecordBatch.from_arrays([*meta, *columns], schema=schema)
    # A slice with something before and behind it: positions within buffers must not be taken for granted.
    reverse = batch.take(pa.array(range(len(rows) - 1, -1, -1), pa.int64()))
    padded = pa.Table.from_batches([reverse, batch, reverse]).combine_chunks().to_batches()
    return TableRows(table, padded[0].slice(len(rows), len(rows)) if rows else batch)


def naive(source: str, table: Table, row: dict[str, object]) -> dict[str, object]:
    names = [column.name for column in table.columns]
    unchanged = [names[position] for position in row["unchanged"] or []]
    key_only = row["op"] in ("b", "d") and table.identity is not ReplicaIdentity.FULL
    shown = [name for name in names if name not in unchanged and (not key_only or name in table.key)]
    since_year_one = row["committed_at"] - datetime(1, 1, 1, tzinfo=UTC)
    committed_at = (datetime(1, 1, 1) + since_year_one).isoformat(timespec="microseconds") + "Z"
    return {
        "source": source,
        "table": f"{table.schema}.{table.name}",
        "op": row["op"],
        "seq": row["seq"],
        "lsn": str(Lsn(row["lsn"])),
        "xid": row["xid"],
        "committed_at": committed_at,
        "row": {name: value for name, value in zip(names, row["values"], strict=True) if name in shown},
        "unchanged": unchanged,
    }


@settings(max_examples=150, deadline=None)
@given(names, table_rows())
def test_lines_say_what_json_dumps_would_say(source: str, parts: list[tuple[Table, list[dict[str, object]]]]) -> None:
    rendered = render(source, [as_table_rows(table, rows) for table, rows in parts])
    assert rendered == b"" or rendered.endswith(b"\n")
    lines = rendered.decode().split("\n")[:-1]
    expected = sorted(
        (naive(source, table, row) for table, rows in parts for row in rows), key=lambda line: line["seq"]
    )
    assert [json.loads(line) for line in lines] == expected
    assert [list(json.loads(line)) for line in lines] == [list(line) for line in expected]
