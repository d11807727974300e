"""Changes as JSON lines: what ``catchment log show`` prints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catchment.changes.columns import Rows, codes, concatenate, letters, take
from catchment.changes.run import BEFORE, DELETE
from catchment.model.batch import (
    COMMITTED_AT,
    LSN,
    META,
    OP,
    SEQ,
    UNCHANGED,
    XID,
    Event,
    Message,
    Place,
    RefillFinished,
    RefillStarted,
    SchemaChanged,
    TableRows,
    Truncated,
)
from catchment.model.lsn import Lsn
from catchment.model.table import ReplicaIdentity, Table

_TEXT = pa.large_string()


def render(source: str, rows: Sequence[TableRows], events: Sequence[Event] = (), log: UUID | None = None) -> bytes:
    """A batch as UTF-8 text, one JSON object a line: the events, then the rows of all tables in the order of ``_seq``.

    A row is ``{"source", "table", "op", "seq", "lsn", "xid", "committed_at", "row", "unchanged"}``: ``row`` has the
    values as PostgreSQL prints them, ``unchanged`` names the columns whose TOASTed values were not sent. What was not
    sent is not in ``row``: neither these, nor anything but the key of a row before its change, unless the replica
    identity is FULL. ``log``: of which log they are, told where a refill begins: in another one ``seq`` begins anew.
    """
    said = "".join(_json({"source": source} | _event(event, log)) + "\n" for event in events).encode()
    parts = [part for table_rows in rows for part in _parts(source, table_rows)]
    if not parts:
        return said
    lines = concatenate([lines for _, lines in parts])
    if len(parts) > 1:
        lines = take(lines, np.argsort(np.concatenate([seq for seq, _ in parts])))
    return b"".join((said, letters(lines).data))


def _parts(source: str, rows: TableRows) -> Iterator[tuple[Rows, pa.Array[Any]]]:
    """``_seq`` and lines of rows of which the same columns were sent."""
    table, data = rows.table, rows.data
    unchanged: pa.Array[Any] = data.column(UNCHANGED)
    only_key = np.isin(letters(data.column(OP)), (BEFORE, DELETE)) & (table.identity is not ReplicaIdentity.FULL)
    left_out: Any = pc.binary_join(unchanged.cast(pa.list_(pa.string())), ",")
    sort = codes([left_out]) * 2 + only_key
    for number in np.unique(sort):
        alike = np.flatnonzero(sort == number)
        positions = unchanged[alike[0]].as_py() or []
        shown = table.key_positions if only_key[alike[0]] else range(len(table.columns))
        part = data if len(alike) == len(sort) else data.take(pa.array(alike, pa.int64()))
        yield part.column(SEQ).to_numpy(), _lines(source, table, part, sorted({*shown} - {*positions}), positions)


def _lines(
    source: str, table: Table, data: pa.RecordBatch, shown: Sequence[int], unchanged: Sequence[int]
) -> pa.Array[Any]:
    """One line for each row, its end included, with the columns at the positions ``shown``."""
    names = [_json(column.name) for column in table.columns]
    pieces: list[str | pa.Array[Any]] = [f'{{"source": {_json(source)}, "table": {_json(str(table))}, "op": "']
    pieces += [data.column(OP), '", "seq": ', data.column(SEQ), ', "lsn": "', _lsn_texts(data.column(LSN))]
    pieces += ['", "xid": ', data.column(XID), ', "committed_at": "', _instants(data.column(COMMITTED_AT))]
    before = '", "row": {'
    for position in shown:
        values, quote = _values(data.column(len(META) + position))
        pieces += [f"{before}{names[position]}: {quote}", values]
        before = f"{quote}, "
    left_out = ", ".join(names[position] for position in unchanged)
    pieces += [f'{before.removesuffix(", ")}}}, "unchanged": [{left_out}]}}\n']
    texts: list[Any] = [pa.scalar(piece, _TEXT) if isinstance(piece, str) else piece.cast(_TEXT) for piece in pieces]
    lines: pa.Array[Any] = pc.binary_join_element_wise(*texts, pa.scalar("", _TEXT))
    return lines


def _values(column: pa.Array[Any]) -> tuple[pa.Array[Any], str]:
    """Texts as JSON writes them, and the quote that still has to be put around all of them.

    Where there are nulls the texts have their quotes already. Non-ASCII characters stay as they are.
    """
    texts: Any = column.cast(_TEXT)
    data = letters(texts)
    special = set(data[(data < 0x20) | (data == ord('"')) | (data == ord("\\"))].tobytes())
    # The backslash first: the others are replaced by texts that begin with one.
    for character in sorted(map(chr, special), key=lambda character: character != "\\"):
        texts = pc.replace_substring(texts, character, _json(character)[1:-1])
    if not texts.null_count:
        return texts, '"'
    quote = pa.scalar('"', _TEXT)
    return pc.binary_join_element_wise(quote, texts, quote, pa.scalar("", _TEXT)).fill_null("null"), ""


def _lsn_texts(column: pa.Array[Any]) -> pa.Array[Any]:
    """Positions as ``pg_lsn`` prints them. They are commits, so that far fewer differ than there are rows."""
    encoded: Any = column.dictionary_encode()
    return pa.array([str(Lsn(lsn)) for lsn in encoded.dictionary.to_pylist()], _TEXT).take(encoded.indices)


def _instants(column: pa.Array[Any]) -> pa.Array[Any]:
    """ISO 8601 in UTC, with microseconds."""
    texts: Any = column.cast(pa.timestamp("us")).cast(pa.string())
    instants: pa.Array[Any] = pc.binary_join_element_wise(pc.replace_substring(texts, " ", "T"), "Z", "")
    return instants


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _event(event: Event, log: UUID | None) -> dict[str, object]:
    match event:
        case SchemaChanged(table, before):
            columns = [column.name for column in table.columns]
            changed: dict[str, object] = {"event": "schema_changed", "table": str(table), "columns": columns}
            return changed if before is None else changed | _since(before, table)
        case Truncated(tables, place):
            return {"event": "truncated", "tables": [str(table) for table in tables]} | _place(place)
        case RefillStarted(refill, tables, targets):
            names = [str(table) for table in tables]
            began: dict[str, object] = {"event": "refill_started", "refill": refill, "tables": names}
            return began | {"targets": list(targets)} | ({} if log is None else {"log": str(log)})
        case RefillFinished(refill):
            return {"event": "refill_finished", "refill": refill}
        case Message(prefix, content, place):
            return {"event": "message", "prefix": prefix, "content": _content(content)} | _place(place)


def _since(before: Table, table: Table) -> dict[str, object]:
    """What the rows from before have to be told: where they were, and what their columns were called or lack."""
    old = {column.number: column.name for column in before.columns}
    was = {column.name: old[column.number] for column in table.columns if column.number in old}
    missing = {column.name: column.missing for column in table.columns if column.number not in old}
    return {"before": str(before), "were": was, "missing": missing}


def _place(place: Place) -> dict[str, object]:
    committed_at = place.committed_at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return {"seq": place.seq, "lsn": str(place.lsn), "xid": place.xid, "committed_at": committed_at}


def _content(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return rf"\x{content.hex()}"
