"""What a target lacks is told, or asked for, of tables that the source shares."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import cast

from catchment.hub.memory import MemoryHub
from catchment.log.memory import MemoryLog
from catchment.model.batch import Batch
from catchment.model.lsn import Lsn
from catchment.model.table import Column, ReplicaIdentity, Table
from catchment.pipeline.lacks import Lacks
from catchment.pipeline.session import REFILL
from catchment.pipeline.state import TABLE, KnownTable
from catchment.targets.base import Target
from catchment.wire.messages import Relation

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
SENTENCE = "somebody put another one in its place"


def known(oid: int, name: str) -> KnownTable:
    columns = (Column(1, "id", "pg_catalog", "int4", -1, False),)
    table = Table(oid, "public", name, columns, ("id",), ReplicaIdentity.DEFAULT, filenode=oid)
    return KnownTable(table, Relation(oid, "public", name, "d", ()))


def test_what_people_make_of_tables_that_are_shared_no_more_is_nobodys_trouble() -> None:
    tables = [
        known(1, "stopped"),
        known(2, "dropped"),
        replace(known(3, "stopped_once"), followed=False),
        replace(known(4, "dropped_once"), followed=False),
    ]
    found = {str(each.table): SENTENCE if "stopped" in each.table.name else None for each in tables}
    target = cast("Target", SimpleNamespace(name="ods", out_of_date=lambda _: found))
    log, hub = MemoryLog(), MemoryHub()
    with closing(log.open_writer("orders")) as writer:
        state = {f"{TABLE}{each.table.oid}": each.encode() for each in tables}
        writer.append(Batch("orders", Lsn(0), Lsn(1), 0, True, NOON, ()), state)
    lacks = Lacks("orders", target, log, hub)
    lacks.looked_after(1)
    assert lacks.stopped == {"public.stopped": SENTENCE}
    request = hub.claim("w1", ["orders"], [REFILL])
    assert request is not None
    assert request.arguments["tables"] == ["public.dropped"]
