"""Events as JSON lines, and a batch's order."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from uuid import UUID

import pyarrow as pa

from catchment.changes.jsonlines import render
from catchment.model.batch import (
    Message,
    Place,
    RefillFinished,
    RefillStarted,
    SchemaChanged,
    TableRows,
    Truncated,
    rows_schema,
)
from catchment.model.lsn import Lsn
from catchment.model.table import Column, ReplicaIdentity, Table

TABLE = Table(
    1, "shop", "order", (Column(1, "ïd", "pg_catalog", "int4", -1, False),), ("ïd",), ReplicaIdentity.DEFAULT, 1
)
PLACE = Place(5, Lsn.parse("0/16B3748"), 77, datetime(2026, 1, 2, 1, tzinfo=timezone(timedelta(hours=1))))
PLACED = {"seq": 5, "lsn": "0/16B3748", "xid": 77, "committed_at": "2026-01-02T00:00:00.000000Z"}


def test_every_event_has_its_line_before_the_rows() -> None:
    row = [["c"], [6], [Lsn.parse("0/16B3748")], [77], [PLACE.committed_at], [None], ["1"]]
    schema = rows_schema(["ïd"])
    data = pa.RecordBatch.from_arrays(
        [pa.array(value, field.type) for value, field in zip(row, schema, strict=True)], schema=schema
    )
    events = (
        SchemaChanged(TABLE),
        Truncated((TABLE,), PLACE),
        RefillStarted("f1", (TABLE,), ("ods", "lake")),
        RefillFinished("f1"),
        Message("app", "é\n".encode(), PLACE),
        Message("app", b"\xff\x00", PLACE),
    )
    lines = [json.loads(line) for line in render("orders", [TableRows(TABLE, data)], events, UUID(int=7)).splitlines()]
    source = {"source": "orders"}
    log = "00000000-0000-0000-0000-000000000007"  # where it is another one, seq begins anew
    refilled = {"tables": ["shop.order"], "targets": ["ods", "lake"], "log": log}
    assert lines == [
        source | {"event": "schema_changed", "table": "shop.order", "columns": ["ïd"]},
        source | {"event": "truncated", "tables": ["shop.order"]} | PLACED,
        source | {"event": "refill_started", "refill": "f1"} | refilled,
        source | {"event": "refill_finished", "refill": "f1"},
        source | {"event": "message", "prefix": "app", "content": "é\n"} | PLACED,
        source | {"event": "message", "prefix": "app", "content": r"\xff00"} | PLACED,
        source | {"table": "shop.order", "op": "c"} | PLACED | {"seq": 6, "row": {"ïd": "1"}, "unchanged": []},
    ]


def test_nothing_to_say_is_no_line() -> None:
    assert render("orders", []) == b""
