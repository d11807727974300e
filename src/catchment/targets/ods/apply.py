"""Changes of one table into one relation of the ODS."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from catchment.changes.bag import coalesce_bag
from catchment.changes.coalesce import coalesce
from catchment.changes.columns import Truths
from catchment.changes.run import CREATE, READ
from catchment.model.batch import META, UNCHANGED
from catchment.model.errors import TableMisshapen
from catchment.model.table import Table
from catchment.targets.ods import shapes
from catchment.targets.ods.script import Add
from catchment.targets.ods.session import ALL_JOINS, BY_INDEX, OdsColumn, Staging
from catchment.wire.twin import render

_ROWS_TO_SORT = 1_000  # so that the index is walked in its order
_ROWS_TO_PASS = 1_000


def apply_changes(
    add: Add, staging: Staging, table: Table, changes: Sequence[pa.RecordBatch], source: str, filling: bool
) -> None:
    """Add what brings the staging's relation from before the changes to after them. ``filling``: a refill brings rows.

    Raises TableMisshapen before anything is added, and psycopg's errors.
    """
    columns = _columns(staging, table, source)
    if {column.name for column in staging.columns.values() if column.equals} != set(table.key):
        raise _meddled(staging, table, source, "has another primary key")
    if table.key:
        _apply_keyed(add, staging, table, columns, changes, filling)
    else:
        _apply_bag(add, staging, table, columns, changes, source)


def append_rows(add: Add, staging: Staging, table: Table, rows: Iterable[pa.RecordBatch], source: str) -> None:
    """Add what puts rows of a refill into a relation that has no key yet: each of them is one more.

    Raises TableMisshapen before anything is added.
    """
    names = [column.name for column in _columns(staging, table, source)]
    copy = staging.statement(("copy", *names), lambda: _copy(staging.relation.identifier, names))
    for batch in rows:
        add(copy, render(batch.columns[len(META) :]))


def _columns(staging: Staging, table: Table, source: str) -> list[OdsColumn]:
    try:
        return [staging.columns[column.name] for column in table.columns]
    except KeyError as missing:
        raise _meddled(staging, table, source, f"has no column {missing}") from None


def _meddled(staging: Staging, table: Table, source: str, what: str) -> TableMisshapen:
    return shapes.misshapen(f"{staging.relation.quoted} in the ODS {what}", source, staging.relation, table)


def _apply_keyed(
    add: Add, staging: Staging, table: Table, columns: list[OdsColumn], changes: Sequence[pa.RecordBatch], filling: bool
) -> None:
    """Net deletes first, then one MERGE that sets the key too: 1.0 and 1.00 are one key with two texts.

    A staged row without a key of its own (``c``) is a delete of the one at its origin (``o``). Between the two, many
    rows that should not be there yet go straight into the relation: for the server that is half the work.
    """
    net = coalesce(table, changes)
    key = [columns[position] for position in table.key_positions]
    new = net.begun_by == CREATE
    if filling:
        new |= net.begun_by == READ
    if np.count_nonzero(new) < _ROWS_TO_PASS or not staging.may_pass():
        new[:] = False
    rows, origin = _those(~new, net.rows, net.origin)
    left_out = rows.column(UNCHANGED)
    positions = tuple(sorted(pc.unique(pc.list_flatten(left_out)).to_numpy().tolist()))
    moved = origin[0].null_count < len(origin[0])
    in_order = net.rows.num_rows >= _ROWS_TO_SORT
    names = [column.told for column in columns]
    if len(net.gone[0]):
        _stage(add, staging, [column.origin for column in key], net.gone)
    if rows.num_rows:
        staged = list(names)
        values = rows.columns[len(META) :]
        if positions:
            staged.append("left_out")
            values.append(_array_text(left_out))
        if moved:
            staged += [column.origin for column in key]
            values += origin
        _stage(add, staging, staged, values)
        if positions and moved:
            add(staging.statement(("fill", positions), lambda: _fill(staging, columns, key, positions)))
            add(staging.planned("drop unfilled", lambda: _drop_unfilled(staging, key)))
    if len(net.gone[0]):
        # Not to be planned when the table is empty: it would then be read whole for each row gone.
        add(staging.statement("delete gone", lambda: _delete(staging, key)))
    if new.any():
        passing, _ = _those(new, net.rows, net.origin)
        content = render(passing.columns[len(META) :])
        into = [column.name for column in columns]
        staging.filled(passing.num_rows, content.nbytes)
        add(
            staging.statement(("copy", *into), lambda: _copy(staging.relation.identifier, into)),
            content,
            check=staging.passed,
            otherwise=staging.statement(("stage", *names), lambda: _copy(staging.identifier, names)),
        )
    if net.rows.num_rows:
        which = ("merge", positions, in_order)
        add(staging.planned(which, lambda: _merge(staging, columns, key, positions, in_order)))
    if len(net.gone[0]) or net.rows.num_rows:
        add(staging.clearing())


def _those(
    which: Truths, rows: pa.RecordBatch, origin: list[pa.Array[Any]]
) -> tuple[pa.RecordBatch, list[pa.Array[Any]]]:
    """Only these of the rows, with their origins."""
    if which.all():
        return rows, origin
    mask: Any = pa.array(which)
    return rows.filter(mask), [column.filter(mask) for column in origin]


def _fill(staging: Staging, columns: list[OdsColumn], key: list[OdsColumn], positions: tuple[int, ...]) -> sql.Composed:
    """A row whose key changes takes what was left out from its old place."""
    values = [
        sql.SQL("{} = {}").format(_told(columns[position]), _kept(columns[position], position))
        for position in positions
    ]
    return sql.SQL("UPDATE {} s SET left_out = NULL, {} FROM {} t WHERE s.left_out IS NOT NULL AND {}").format(
        staging.identifier, sql.SQL(", ").join(values), staging.relation.identifier, _at_origin(key)
    )


def _drop_unfilled(staging: Staging, key: list[OdsColumn]) -> sql.Composed:
    """Without an old place it waits for its re-read."""
    return sql.SQL("DELETE FROM {} s WHERE s.left_out IS NOT NULL AND s.{} IS NOT NULL").format(
        staging.identifier, _origin(key[0])
    )


def _delete(staging: Staging, key: list[OdsColumn]) -> sql.Composed:
    return sql.SQL("DELETE FROM {} t USING {} s WHERE s.{} IS NULL AND {}").format(
        staging.relation.identifier, staging.identifier, _told(key[0]), _at_origin(key)
    )


def _merge(
    staging: Staging, columns: list[OdsColumn], key: list[OdsColumn], left_out: tuple[int, ...], in_order: bool
) -> sql.Composed:
    own = sql.SQL(" AND ").join(sql.SQL("t.{} {} s.{}").format(_name(c), c.equals, _told(c)) for c in key)
    order = sql.SQL(" ORDER BY ") + _list(_told(column) for column in key) if in_order else sql.SQL("")
    assignments = [
        sql.SQL("{} = {}").format(_name(column), _kept(column, position) if position in left_out else _staged(column))
        for position, column in enumerate(columns)
    ]
    return sql.SQL(
        "MERGE INTO {target} t USING (SELECT * FROM {staging} WHERE {key} IS NOT NULL{order}) s ON {own} "
        "WHEN MATCHED THEN UPDATE SET {assignments} "
        "WHEN NOT MATCHED AND s.left_out IS NULL THEN INSERT ({names}) VALUES ({values})"
    ).format(
        target=staging.relation.identifier,
        staging=staging.identifier,
        key=_told(key[0]),
        order=order,
        own=own,
        assignments=_list(assignments),
        names=_list(map(_name, columns)),
        values=_list(map(_staged, columns)),
    )


def _apply_bag(
    add: Add, staging: Staging, table: Table, columns: list[OdsColumn], changes: Sequence[pa.RecordBatch], source: str
) -> None:
    """Rows are the same when they print the same: that holds for types without an equality too (json, point, xml)."""
    net = coalesce_bag(table, changes)
    if net.removed.num_rows:
        names = [*(column.told for column in columns), "copies"]
        _stage(add, staging, names, [*net.removed.columns, net.copies.cast(pa.string())])
        copies = int(net.copies.to_numpy().sum())

        def check(removed: int) -> None:
            if removed < copies:
                raise TableMisshapen(
                    f"{staging.relation.quoted} in the ODS lacks rows that were deleted at the source",
                    source=source,
                    table=str(table),
                    remedy=f"refill it: `catchment backfill {source} {table}`",
                )

        add(staging.statement("all joins", lambda: ALL_JOINS))
        add(staging.statement("remove", lambda: _remove(staging, columns)), check=check)
        add(staging.statement("by index", lambda: BY_INDEX))
        add(staging.clearing())
    if net.added.num_rows:
        names = [column.name for column in columns]
        copy = staging.statement(("copy", *names), lambda: _copy(staging.relation.identifier, names))
        add(copy, render(net.added.columns))


def _remove(staging: Staging, columns: list[OdsColumn]) -> sql.Composed:
    return sql.SQL(
        "WITH wanted AS ("
        " SELECT ROW({staged})::text AS image, sum(s.copies) AS copies FROM {staging} s GROUP BY image"
        "), found AS ("
        " SELECT t.ctid AS place, row_number() OVER (PARTITION BY w.image) AS number, w.copies"
        " FROM {target} t JOIN wanted w ON ROW({values})::text = w.image"
        ") DELETE FROM {target} t USING found f WHERE t.ctid = f.place AND f.number <= f.copies"
    ).format(
        staged=_list(map(_staged, columns)),
        staging=staging.identifier,
        target=staging.relation.identifier,
        values=_list(sql.SQL("t.{}").format(_name(column)) for column in columns),
    )


def _stage(add: Add, staging: Staging, names: list[str], values: Sequence[pa.Array[Any]]) -> None:
    content = render(values)
    staging.filled(len(values[0]), content.nbytes)
    add(staging.statement(("stage", *names), lambda: _copy(staging.identifier, names)), content)


def _copy(relation: sql.Identifier, names: Iterable[str]) -> sql.Composed:
    return sql.SQL("COPY {} ({}) FROM STDIN").format(relation, _list(map(sql.Identifier, names)))


def _name(column: OdsColumn) -> sql.Identifier:
    return sql.Identifier(column.name)


def _told(column: OdsColumn) -> sql.Identifier:
    return sql.Identifier(column.told)


def _origin(column: OdsColumn) -> sql.Identifier:
    return sql.Identifier(column.origin)


def _staged(column: OdsColumn) -> sql.Composed:
    return sql.SQL("s.{}").format(_told(column))


def _kept(column: OdsColumn, position: int) -> sql.Composed:
    """The staged value, or what the row ``t`` has where that was left out: a TOASTed value is not even read then."""
    return sql.SQL("CASE WHEN {} = ANY (s.left_out) THEN t.{} ELSE {} END").format(
        position, _name(column), _staged(column)
    )


def _at_origin(key: list[OdsColumn]) -> sql.Composed:
    return sql.SQL(" AND ").join(sql.SQL("t.{} {} s.{}").format(_name(c), c.equals, _origin(c)) for c in key)


def _list(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)


def _array_text(lists: pa.Array[Any]) -> pa.Array[Any]:
    joined: Any = pc.binary_join(lists.cast(pa.list_(pa.string())), ",")
    return cast("pa.Array[Any]", pc.binary_join_element_wise("{", joined, "}", ""))
