"""Files of rows: Parquet, written whole, read by column and place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catchment.changes.cast import Typed
from catchment.changes.columns import Rows, take
from catchment.targets.lake.columns import EXACT, EXACT_TYPE, LakeColumn
from catchment.targets.lake.naming import stamped
from catchment.targets.lake.store import Store

_MOST_ROWS = 1 << 16
_MOST_BYTES = 16 << 20
_SAMPLE = 1_000


def new_name(version: int, directory: str = "") -> str:
    """Of a file that nobody else writes, for this version of a table."""
    return f"{directory}{'/' if directory else ''}part-{stamped(version)}.parquet"


def table_of(columns: Sequence[LakeColumn], values: Sequence[Typed]) -> pa.Table:
    """The values under their names in the lake, and ``_exact`` if one of them needs it."""
    arrays = [one.values for one in values]
    names = [column.name for column in columns]
    exact = {column.name: one.exact for column, one in zip(columns, values, strict=True) if one.exact is not None}
    if exact:
        arrays.append(_map(exact))
        names.append(EXACT)
    return pa.table(arrays, names=names)


def schema_of(columns: Sequence[LakeColumn], exact: bool, before: Iterable[pa.Field[Any]] = ()) -> pa.Schema:
    """Of rows with these columns, and ``_exact`` if they have it."""
    fields = [pa.field(column.name, column.type) for column in columns]
    return pa.schema([*before, *fields, *([pa.field(EXACT, EXACT_TYPE)] if exact else [])])


def content(rows: pa.Table) -> pa.Buffer:
    """As Parquet, in groups small enough that reading a single row stays cheap."""
    return content_of(rows.schema, [rows])


def content_of(schema: pa.Schema, parts: Iterable[pa.Table]) -> pa.Buffer:
    """The same of parts that need not be in memory together; a column that one of them lacks is null there."""
    sink = pa.BufferOutputStream()
    writer: pq.ParquetWriter | None = None
    for part in parts:
        rows = _with_all(schema, part)
        if not rows.num_rows:
            continue  # nothing can be said of what is repetitive in it
        if writer is None:
            writer = pq.ParquetWriter(
                sink,
                schema,
                compression="zstd",
                compression_level=1,
                use_dictionary=_repetitive(rows),  # type: ignore[arg-type]  # the stub does not know of lists of names
            )
        writer.write_table(rows, row_group_size=_rows_in_group(max(1, rows.nbytes // max(1, rows.num_rows))))
    if writer is not None:
        writer.close()
    return sink.getvalue()


def _with_all(schema: pa.Schema, rows: pa.Table) -> pa.Table:
    present = set(rows.column_names)
    columns = [
        rows.column(field.name).cast(field.type) if field.name in present else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _repetitive(rows: pa.Table) -> list[str]:
    """Columns of few values: to look for repetitions in others takes longer than all the rest of writing them."""
    sample = rows.slice(0, _SAMPLE)
    return [
        field.name
        for field in rows.schema
        if not pa.types.is_nested(field.type) and len(sample.column(field.name).unique()) < sample.num_rows // 8
    ]


def read(store: Store, path: str, names: Sequence[str] | None = None) -> pa.Table:
    """These columns, or all, of all rows; of those the file has."""
    with store.open(path) as file:
        parquet = pq.ParquetFile(file)
        if names is None:
            return parquet.read()
        known = set(parquet.schema_arrow.names)
        return parquet.read([name for name in names if name in known])


def read_rows(store: Store, path: str, names: Sequence[str], rows: Rows) -> pa.Table:
    """These columns of the rows at these places, in their order; of those the file has."""
    with store.open(path) as file:
        parquet = pq.ParquetFile(file)
        known = set(parquet.schema_arrow.names)
        wanted = [name for name in names if name in known]
        sizes = [parquet.metadata.row_group(number).num_rows for number in range(parquet.num_row_groups)]
        ends = np.cumsum(sizes)
        group = np.searchsorted(ends, rows, side="right")
        groups = np.unique(group)
        begins = np.concatenate([[0], np.cumsum(np.array(sizes)[groups])])
        place = rows - (ends - sizes)[group] + begins[np.searchsorted(groups, group)]
        found: pa.Table = _usual(parquet.read_row_groups(groups.tolist(), wanted)).take(pa.array(place))
        return found


def typed_in(rows: pa.Table, column: LakeColumn) -> Typed:
    """A column as it was before it was written; nulls when the file does not have it."""
    if column.name not in rows.column_names:
        return Typed(pa.array([None] * rows.num_rows, column.type))
    values = _whole(rows, column.name)
    if EXACT not in rows.column_names:
        return Typed(values)
    lookup: Any = pc.map_lookup
    exact = lookup(_whole(rows, EXACT), column.name, "first")
    return Typed(values, exact if exact.null_count < len(exact) else None)


def spread(found: Typed, place: Rows) -> Typed:
    """The values at these places, null at -1."""
    return Typed(take(found.values, place), None if found.exact is None else take(found.exact, place))


def _usual(rows: pa.Table) -> pa.Table:
    """Whoever else has written the file, to compact the table for instance, may have written other sorts of texts."""
    return rows.cast(pa.schema([field.with_type(_usual_type(field.type)) for field in rows.schema]))


def _usual_type(found: pa.DataType) -> pa.DataType:
    match found:
        case pa.MapType():
            return EXACT_TYPE
        case pa.ListType() | pa.LargeListType():
            return pa.list_(_usual_type(found.value_type))
    if pa.types.is_string_view(found) or pa.types.is_large_string(found):
        return pa.string()
    return pa.binary() if pa.types.is_binary_view(found) or pa.types.is_large_binary(found) else found


def _whole(rows: pa.Table, name: str) -> pa.Array[Any]:
    column: Any = _usual(rows.select([name])).column(name).combine_chunks()
    array: pa.Array[Any] = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
    return array


def _rows_in_group(bytes_per_row: int) -> int:
    return max(1, min(_MOST_ROWS, _MOST_BYTES // bytes_per_row))


def _map(exact: dict[str, pa.Array[Any]]) -> pa.Array[Any]:
    """Of each row, the texts that it has; null when it has none."""
    valid = np.stack([np.asarray(texts.is_valid()) for texts in exact.values()], axis=1)
    names = np.tile(np.arange(len(exact)), len(valid))[valid.ravel()]
    rows = np.repeat(np.arange(len(valid)), len(exact))[valid.ravel()]
    whole = pa.concat_arrays(list(exact.values()))
    texts = take(whole, names * len(valid) + rows)
    keys = take(pa.array(list(exact)), names)
    counts = valid.sum(axis=1)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    nothing = pa.array(offsets, mask=np.append(counts == 0, False))
    of: Any = pa.MapArray
    made: pa.Array[Any] = of.from_arrays(nothing, keys, texts)
    return made.cast(EXACT_TYPE)
