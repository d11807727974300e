"""The stored form of a batch."""

from __future__ import annotations

from base64 import b85decode
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catchment.changes.backfilled import as_rows
from catchment.log.payload import FORMAT, decode, encode
from catchment.model.batch import (
    Batch,
    Event,
    Message,
    PackedRows,
    Place,
    RefillFinished,
    RefillStarted,
    SchemaChanged,
    TableRows,
    Truncated,
    rows_schema,
)
from catchment.model.errors import LogCorrupt
from catchment.model.lsn import Lsn
from catchment.model.table import Column, ReplicaIdentity, Table
from catchment.pipeline.held import HeldRows

NOW = datetime(2026, 11, 23, 10, 11, 12, 131415, tzinfo=UTC)
BEFORE = (
    "0stpSa6w1}00000000CcO&DN6f}jEb0PueR0RRAdB6Dwba${v8IwEg!WMy)5A}k_dW^`q8B04cFB6V(bX>1}oIV>V@VRCdLIxs9EWo~41Uvz"
    "R|ZgXK{bZKvHB06+(b!99fV{dJ3X>@dDWM5%)B03^6FfukRF)=MNGgL7!Ix#UiF)}VOGchzVH7hVMIxsLIEFxugWo~qHB05`pB4u`EZZ-h$0"
    "(5e9Zew9|Wn>~OB6MM5Y-Jw+a4=mgB5-VBqyT?gGAuYOH7s5L4}e{LT`VGUZ+Acd@dR5iEN*pdY%Dc7GF@FPB6DbAa99BFBQi5MU445ZZ)s#"
    "AIyWpLb7N>_ZDArhB5-wLY-wX6EFx}UZDk@lB6K1wB4clCb!~1=0AqV1Zgp*9AOQm+01$4k07iLmWnV-9lxJUKVRT_^Z)Y0-11kVRX>N2h69"
    "ABHZ)74mEio)2od5vr0COTbW?^h|WlI2IWq5RDZgXJ)03iU9EFx`bb8~5KXAb}X-vICkYh`&NI$I)cB3&#ZX=G(?bZK;XB03^G0fA;|Y-Mh5"
    "WM$a^GInKhNB}W0eE<Ofk^ley|M&p_02B@Y@Bjb+3;-4Y1^@*B2mlNK3=sf;0|WpV0000`3;+QF0PqG102lxa00aOC015yA06YNz01yBGKLP"
    "~;02LAn01g5G69^Lk1PA~V0T2KHL;wf^00a;K1SkLiga8Nv00a;K1RwwyARPb)5C8-q01+q_00sg81P}lOAOI6E8vq25024S600bZa6F?9E1"
    "OfmL5C9bfKmZd+IRFy^2mk;A000~S1aJTZ0ss#X05uFq00aU64;TOe02BZdV<7+&0|)>BoB#j<01yQQ0HFW?09VmC(C%Oc3;+xQ007hgfHW}"
    "x000000000000"
)
"""A batch in format 2, as it was written then."""

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
lsns = st.integers(0, 2**63 - 1).map(Lsn)
times = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
places = st.builds(Place, st.integers(0, 2**63 - 1), lsns, st.integers(0, 2**64 - 1), times)
columns = st.builds(
    Column, st.integers(1, 1600), texts, texts, texts, st.integers(-1, 2**31 - 1), st.booleans(), st.none() | texts
)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    shape = tuple(draw(st.lists(columns, max_size=4)))
    key = tuple(column.name for column in shape[: draw(st.integers(0, len(shape)))])
    return Table(
        draw(st.integers(1, 2**32 - 1)),
        draw(texts),
        draw(texts),
        shape,
        key,
        draw(st.sampled_from(ReplicaIdentity)),
        draw(st.integers(0, 2**32 - 1)),
        draw(st.integers(1, 1000)),
    )


@st.composite
def table_rows(draw: st.DrawFn, shapes: st.SearchStrategy[Table]) -> TableRows:
    table = draw(shapes)
    count = draw(st.integers(0, 5))

    def values(strategy: st.SearchStrategy[object]) -> list[object]:
        return draw(st.lists(strategy, min_size=count, max_size=count))

    int64 = st.integers(-(2**63), 2**63 - 1)
    unchanged = st.none() | st.lists(st.integers(0, 1599), max_size=3)
    schema = rows_schema(column.name for column in table.columns)
    meta = [values(strategy) for strategy in (st.sampled_from("rcudb"), int64, int64, int64, times, unchanged)]
    arrays = [pa.array(column, field.type) for column, field in zip(meta, schema, strict=False)]
    arrays += [pa.array(values(st.none() | texts), pa.string()) for _ in table.columns]
    data = pa.RecordBatch.from_arrays(arrays, schema=schema)
    return TableRows(table, data.slice(draw(st.integers(0, count))), draw(st.none() | texts))


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    shapes = st.sampled_from(draw(st.lists(tables(), min_size=1, max_size=3)))
    several = st.lists(shapes, max_size=3).map(tuple)
    events: st.SearchStrategy[Event] = st.one_of(
        st.builds(SchemaChanged, shapes, st.none() | shapes),
        st.builds(Truncated, several, places),
        st.builds(RefillStarted, texts, several, st.lists(texts, max_size=3).map(tuple)),
        st.builds(RefillFinished, texts),
        st.builds(Message, texts, st.binary(max_size=20), places),
    )
    return Batch(
        draw(texts),
        draw(lsns),
        draw(lsns),
        draw(st.integers(0, 2**40)),
        draw(st.booleans()),
        draw(times),
        tuple(draw(st.lists(events, max_size=4))),
        tuple(draw(st.lists(table_rows(shapes), max_size=3))),
    )


@settings(max_examples=80, deadline=None)
@given(batches())
def test_promise_4_every_batch_reads_back_exactly(batch: Batch) -> None:
    read = decode(encode(batch))
    assert read == batch
    assert [type(event) for event in read.events] == [type(event) for event in batch.events]
    for rows, original in zip(read.rows, batch.rows, strict=True):
        rows.data.validate(full=True)
        assert rows.data.schema == original.data.schema


def eight_columns(rows: int) -> Batch:
    names = ["id", "email", "full_name", "status", "created_at", "updated_at", "balance", "notes"]
    shape = tuple(Column(number, name, "pg_catalog", "text", -1, False) for number, name in enumerate(names, 1))
    table = Table(16384, "public", "accounts", shape, ("id",), ReplicaIdentity.DEFAULT, 16384)
    meta: list[object] = ["u", 12, 34, 56, NOW, None]
    values = ["4711", "somebody@example.com", "Some Body", "active", str(NOW), str(NOW), "12.50", None]
    schema = rows_schema(names)
    arrays = [pa.array([value] * rows, field.type) for value, field in zip([*meta, *values], schema, strict=True)]
    data = pa.RecordBatch.from_arrays(arrays, schema=schema)
    return Batch("orders", Lsn(1), Lsn(2), 0, True, NOW, (), (TableRows(table, data),))


def test_small_transactions_stay_small() -> None:
    assert len(encode(eight_columns(1))) < 1200


def test_a_shape_is_stored_once() -> None:
    batch = eight_columns(1)
    table = batch.rows[0].table
    renamed = Table(table.oid, table.schema, "a table named nowhere else", table.columns, (), table.identity, 1)
    once = Batch("orders", Lsn(1), Lsn(2), 0, True, NOW, (SchemaChanged(renamed),))
    often = Batch("orders", Lsn(1), Lsn(2), 0, True, NOW, (SchemaChanged(renamed),) * 50)
    assert len(encode(often)) < len(encode(once)) + 200


@given(st.data())
def test_promise_5_a_damaged_byte_is_noticed(data: st.DataObject) -> None:
    stored = bytearray(encode(eight_columns(3)))
    at = data.draw(st.integers(0, len(stored) - 1))
    stored[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(LogCorrupt):
        decode(bytes(stored))


@given(st.integers(0, 400))
def test_promise_5_a_cut_batch_is_noticed(length: int) -> None:
    with pytest.raises(LogCorrupt):
        decode(encode(eight_columns(1))[:length])


def test_a_batch_in_the_format_before_is_read() -> None:
    table = Table(
        7, "public", "t", (Column(1, "n", "pg_catalog", "int4", -1, False),), ("n",), ReplicaIdentity.DEFAULT, 7
    )
    schema = rows_schema(["n"])
    values = [["c"], [3], [8], [5], [NOW], [None], ["41"]]
    arrays = [pa.array(value, field.type) for value, field in zip(values, schema, strict=True)]
    rows = TableRows(table, pa.RecordBatch.from_arrays(arrays, schema=schema))
    truncated = Truncated((table,), Place(2, Lsn(8), 5, NOW))
    assert decode(b85decode(BEFORE)) == Batch("orders", Lsn(1), Lsn(9), 0, True, NOW, (truncated,), (rows,))


def test_promise_4_rows_that_a_backfill_held_come_back_behind_the_others(tmp_path: Path) -> None:
    batch = eight_columns(2)
    table = batch.rows[0].table
    values = [pa.array([text, None, "", "é🦦\t"], pa.string()) for text in "abcdefgh"]
    held = HeldRows(tmp_path / "held", len(values))
    held.write(values)
    held.write([column.slice(1, 2) for column in values])
    held.finish()
    first = Place(7, Lsn(8), 0, NOW)
    told = []
    for (message, count), columns in zip(held.packed(), held.chunks(), strict=True):
        assert count == len(columns[0])
        packed = PackedRows(table, message, count, first, "refill")
        rows = decode(encode(replace(batch, packed=packed))).rows
        assert rows[:-1] == batch.rows
        assert rows[-1] == TableRows(table, as_rows(table, columns, first), "refill")
        rows[-1].data.validate(full=True)
        assert replace(batch, packed=packed).changes == batch.changes + count
        told.append(rows[-1].data.to_pydict())
    held.remove()
    assert told[0]["notes"] == ["h", None, "", "é🦦\t"]
    assert told[1]["_op"] == ["r", "r"]
    assert told[1]["_seq"] == [7, 8]


def test_another_format_is_refused_with_its_remedy() -> None:
    stored = (FORMAT + 1).to_bytes(2, "little") + encode(eight_columns(1))[2:]
    with pytest.raises(LogCorrupt, match=f"format {FORMAT + 1}.*use the version") as caught:
        decode(stored)
    assert caught.value.remedy
