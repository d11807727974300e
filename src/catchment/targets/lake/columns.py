"""Which columns a table has in the lake, and what Delta calls them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import pyarrow as pa

from catchment.changes.cast import TIMESTAMP, is_numeric, type_of
from catchment.model.table import Table

EXACT = "_exact"
DAY = "_day"
EXACT_TYPE = pa.map_(pa.string(), pa.string())
HISTORY_FIELDS: list[pa.Field[Any]] = [
    pa.field("_op", pa.string()),
    pa.field("_seq", pa.int64()),
    pa.field("_lsn", pa.int64()),
    pa.field("_xid", pa.int64()),
    pa.field("_committed_at", TIMESTAMP),
    pa.field("_unchanged", pa.list_(pa.string())),
]
"""What each row of a history says of its change, before the table's columns."""

# https://github.com/delta-io/delta/blob/master/PROTOCOL.md#schema-serialization-format; Spark refuses these letters.
_NOT_IN_NAMES = re.compile(r"[ ,;{}()\n\t=]")
_PRIMITIVES: dict[pa.DataType, str] = {
    pa.bool_(): "boolean",
    pa.int16(): "short",
    pa.int32(): "integer",
    pa.int64(): "long",
    pa.float32(): "float",
    pa.float64(): "double",
    pa.date32(): "date",
    TIMESTAMP: "timestamp",
    pa.binary(): "binary",
    pa.string(): "string",
}
Types = Mapping[str, pa.DataType]
"""Types that were chosen for numeric columns of a table, by their names in the source."""

_BY_NAME = {name: type_ for type_, name in _PRIMITIVES.items()}


@dataclass(frozen=True, slots=True)
class LakeColumn:
    """``name``: in the lake; ``column``: in the source."""

    name: str
    column: str
    type: pa.DataType


def chosen_types(settings: Mapping[str, str], source: str, table: Table) -> dict[str, str]:
    """Of ``[lake.columns]``, which has columns by source, schema, table and name: those of one table."""
    prefix = f"{source}.{table}."
    return {name.removeprefix(prefix): type_ for name, type_ in settings.items() if name.startswith(prefix)}


def types_of(chosen: Mapping[str, str]) -> Types:
    """The same as types."""
    return {name: _arrow(type_) for name, type_ in chosen.items()}


def current_columns(table: Table, types: Types) -> list[LakeColumn]:
    """The columns of a current-state table, aligned with the source's; a list in the key stays text."""
    taken = {EXACT}
    columns = []
    for column in table.columns:
        type_ = type_of(column)
        if is_numeric(column):
            type_ = types.get(column.name, type_)
        if column.name in table.key and isinstance(type_, pa.ListType):
            type_ = pa.string()
        columns.append(LakeColumn(_distinct(column.name, taken), column.name, type_))
    return columns


def history_columns(table: Table, known: Sequence[LakeColumn], types: Types) -> list[LakeColumn]:
    """The columns of a history that a version of the table fills, aligned with the source's.

    One of another name or type than all ``known`` gets a column of its own: nothing in a history ever changes.
    """
    taken = {EXACT, DAY, *(field.name for field in HISTORY_FIELDS), *(column.name.lower() for column in known)}
    by_origin = {(column.column, column.type): column for column in known}
    columns = []
    for column, wanted in zip(table.columns, current_columns(table, types), strict=True):
        found = by_origin.get((column.name, wanted.type))
        columns.append(found or LakeColumn(_distinct(column.name, taken), column.name, wanted.type))
    return columns


def _distinct(name: str, taken: set[str]) -> str:
    """Delta's names are the same when only their case differs."""
    plain = _NOT_IN_NAMES.sub("_", name)
    tries = (plain if number == 1 else f"{plain}__{number}" for number in count(1))
    chosen = next(each for each in tries if each.lower() not in taken)
    taken.add(chosen.lower())
    return chosen


def delta_schema(fields: Iterable[pa.Field[Any]], columns: Iterable[LakeColumn], exact: bool) -> dict[str, Any]:
    """The schema of a Delta table, with the source's names beside those of the lake."""
    told = [_field(field.name, field.type, {}) for field in fields]
    told += [_field(column.name, column.type, {"catchment.column": column.column}) for column in columns]
    if exact:
        told.append(_field(EXACT, EXACT_TYPE, {}))
    return {"type": "struct", "fields": told}


def known_columns(schema: dict[str, Any]) -> list[LakeColumn]:
    """The source's columns in a Delta schema that ``delta_schema`` made."""
    return [
        LakeColumn(field["name"], field["metadata"]["catchment.column"], _arrow(field["type"]))
        for field in schema["fields"]
        if "catchment.column" in field["metadata"]
    ]


def has_field(schema: dict[str, Any], name: str) -> bool:
    """Whether a Delta schema has a field of this name."""
    return any(field["name"] == name for field in schema["fields"])


def _field(name: str, type_: pa.DataType, metadata: dict[str, str]) -> dict[str, Any]:
    return {"name": name, "type": _delta(type_), "nullable": True, "metadata": metadata}


def _delta(type_: pa.DataType) -> Any:
    match type_:
        case pa.Decimal128Type():
            return f"decimal({type_.precision},{type_.scale})"
        case pa.ListType():
            return {"type": "array", "elementType": _delta(type_.value_type), "containsNull": True}
        case pa.MapType():
            return {
                "type": "map",
                "keyType": _delta(type_.key_type),
                "valueType": _delta(type_.item_type),
                "valueContainsNull": True,
            }
    return _PRIMITIVES[type_]


def _arrow(told: Any) -> pa.DataType:
    if isinstance(told, dict):
        return pa.list_(_arrow(told["elementType"]))
    if told.startswith("decimal"):
        precision, scale = re.findall("[0-9]+", told)
        return pa.decimal128(int(precision), int(scale))
    return _BY_NAME[told]
