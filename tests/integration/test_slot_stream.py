"""The stream of a slot, from a real server."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest

from catchment.model.lsn import Lsn
from catchment.postgres import stream as slot_stream
from catchment.postgres.connection import of_source
from catchment.postgres.replication import ReplicationConnection
from catchment.postgres.stream import SlotStream

LONG = 600.0
"""Seconds that no test waits for."""


def test_small_beginnings_are_not_waited_for_while_a_stream_goes_on(
    source_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def let_nothing_pile_up() -> None:
        monkeypatch.setattr(slot_stream, "_BULK_SECONDS", 0.0)
        monkeypatch.setattr(slot_stream, "_GOES_ON_SECONDS", 0.0)

    let_nothing_pile_up()
    with psycopg.connect(source_database, autocommit=True) as admin:
        admin.execute("CREATE PUBLICATION p FOR ALL TABLES; CREATE TABLE t (n int)")
        admin.execute("SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
        admin.execute("INSERT INTO t SELECT generate_series(1, 100000)")
    with closing(SlotStream(ReplicationConnection(source_database, of_source("s")), "s", "p", Lsn(0))) as stream:
        kinds = b""
        while not kinds.endswith(b"C"):
            received = stream.receive(LONG)
            kinds += bytes(message[0] for message in received.messages)
            if received.goes_on:
                monkeypatch.setattr(SlotStream, "_more_belongs", lambda *_: pytest.fail("it was gathered anew"))
            else:
                monkeypatch.undo()
                let_nothing_pile_up()
    assert kinds == b"BR" + b"I" * 100_000 + b"C"
