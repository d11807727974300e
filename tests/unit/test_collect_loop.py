"""The collect loop: what it appends, and that it acknowledges nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pgoutput_messages import begin, commit, delete, insert, logical_message, relation, truncate

from catchment.log.base import State
from catchment.log.memory import MemoryLog
from catchment.model.batch import Batch, Message, SchemaChanged, Truncated
from catchment.model.errors import LogFull
from catchment.model.lsn import Lsn
from catchment.model.table import Column, ReplicaIdentity, Table
from catchment.pipeline import cut
from catchment.pipeline.collect import IDLE_BYTES, collect
from catchment.pipeline.cut import Cutter
from catchment.pipeline.shapes import Shapes
from catchment.pipeline.spool import Spool
from catchment.pipeline.status import Stopping
from catchment.pipeline.streamed import Streamed
from catchment.postgres.catalog import Fingerprint, PublishedTable
from catchment.postgres.scripted import ScriptedStream
from catchment.postgres.stream import Received
from catchment.wire.messages import Relation, RelationColumn
from catchment.wire.twin import Decoder

AT = datetime(2026, 11, 23, tzinfo=UTC)
PLACES = Relation(
    oid=1,
    schema="public",
    name="places",
    identity=ReplicaIdentity.DEFAULT,
    columns=(RelationColumn("id", 23, -1, True), RelationColumn("name", 25, -1, False)),
)


def published(shape: Relation, filenode: int = 1) -> PublishedTable:
    columns = tuple(
        Column(number + 1, column.name, "pg_catalog", {23: "int4", 25: "text"}[column.type_oid], column.typmod, True)
        for number, column in enumerate(shape.columns)
    )
    key = tuple(column.name for column in shape.columns if column.in_key)
    table = Table(shape.oid, shape.schema, shape.name, columns, key, shape.identity, filenode)
    fingerprint = Fingerprint(str(filenode), {str(column.number): "1" for column in columns}, "1/1")
    return PublishedTable(table, shape, None, False, None, fingerprint)


class Nothing:
    """A collector that has nothing to do beside its stream."""

    awaited: Lsn | None = None
    at_rest = True

    def passed(self, position: Lsn, at: datetime) -> None:
        pass

    def between_transactions(self) -> None:
        pass

    def beat(self) -> None:
        pass


class Source:
    """The collect loop over a scripted stream and a log in memory; several runs continue each other as restarts do."""

    def __init__(self, *shapes: Relation) -> None:
        self.log = MemoryLog()
        self.catalog = {shape.oid: published(shape) for shape in shapes}
        self.work = Nothing()

    def run(self, *script: Received, append: Callable[[Batch, State], None] | None = None) -> ScriptedStream:
        stopping = Stopping()
        stream = ScriptedStream(script, stopping.now)
        writer = self.log.open_writer("orders")
        try:
            tail = writer.tail
            shapes = Shapes("orders", tail.state, lambda _: self.catalog, lambda: "1:1:")
            streamed = Streamed(tail.state)
            cutter = Cutter("orders", tail.frontier.lsn, Decoder(tail.frontier.lsn, 0), shapes, streamed)

            def append_to_log(batch: Batch, state: State) -> Lsn:
                if append:
                    append(batch, state)
                writer.append(batch, state)
                return writer.tail.frontier.lsn

            collect(stream, Spool(Path("nowhere")), cutter, append_to_log, self.work, stopping)
        finally:
            writer.close()
        return stream

    def batches(self) -> list[Batch]:
        span = self.log.wait("orders", 0, 0)
        return [batch for _, batch in self.log.read("orders", 0, span.last)]

    def names(self) -> list[str]:
        return [name for batch in self.batches() for rows in batch.rows for name in rows.data.column(7).to_pylist()]


def shapes_of(source: Source) -> Shapes:
    return Shapes("orders", source.log.state("orders"), lambda _: {}, str)


def transaction(lsn: int, *names: str, with_relation: bool = True) -> list[bytes]:
    rows = [insert(1, [str(number), name]) for number, name in enumerate(names)]
    return [begin(lsn), *([relation(PLACES)] if with_relation else []), *rows, commit(lsn, lsn + 8)]


def test_promise_1_only_what_the_log_holds_is_acknowledged() -> None:
    source = Source(PLACES)

    def full(batch: Batch, state: State) -> None:
        if batch.until > 100:
            raise LogFull("no space")

    with pytest.raises(LogFull):
        source.run(Received(transaction(50, "a")), Received(transaction(100, "b")), append=full)
    stream = source.run(Received([]))
    assert source.names() == ["a"]
    assert set(stream.acknowledged) == {58}


def test_promise_1_a_transaction_sent_again_is_taken_once() -> None:
    source = Source(PLACES)
    source.run(Received(transaction(50, "a")))
    source.run(Received(transaction(50, "a") + transaction(58, "next to it", with_relation=False)))
    assert source.names() == ["a", "next to it"]


def test_promise_3_a_half_received_transaction_is_neither_visible_nor_acknowledged() -> None:
    source = Source(PLACES)
    whole = transaction(50, "a", "b")
    stream = source.run(Received(whole[:-1], position=Lsn(70), reply_requested=True))
    assert source.batches() == []
    assert set(stream.acknowledged) == {0}


def test_promise_3_a_transaction_larger_than_a_batch_appears_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cut, "MOST_ROWS", 2)
    source = Source(PLACES)
    names = [f"name {number}" for number in range(7)]
    messages = transaction(20, "before") + transaction(50, *names, with_relation=False)
    stream = source.run(Received(messages[:8]))
    assert source.names() == ["before"]
    assert max(stream.acknowledged) == 28
    stream = source.run(Received(messages))
    assert source.names() == ["before", *names]
    assert [batch.part for batch in source.batches()] == [0, 0, 1, 2, 3]
    assert stream.acknowledged[-1] == 58


def test_a_backlog_that_ends_in_the_midst_of_a_transaction_is_acknowledged_up_to_there() -> None:
    source = Source(PLACES)
    half = transaction(60, "b", with_relation=False)[:-1]
    stream = source.run(Received([*transaction(50, "a"), *half]))
    assert source.names() == ["a"]
    assert stream.acknowledged[-1] == 58


def test_rows_before_a_change_of_shape_keep_their_shape() -> None:
    source = Source(PLACES)
    wider = Relation(1, "public", "places", PLACES.identity, (*PLACES.columns, RelationColumn("more", 25, -1, False)))
    source.run(Received(transaction(50, "a")))
    source.catalog = {1: published(wider)}
    later = [begin(70), relation(wider), insert(1, ["2", "c", "d"]), commit(70, 78)]
    source.run(Received([*transaction(60, "b"), *later]))
    told = [(len(rows.table.columns), rows.data.num_columns - 6) for batch in source.batches() for rows in batch.rows]
    assert told == [(2, 2), (2, 2), (3, 3)]
    assert [batch.ends_transaction for batch in source.batches()] == [True, True, True]


def test_promise_2_an_idle_source_is_acknowledged() -> None:
    source = Source(PLACES)
    far = Lsn(58 + IDLE_BYTES)
    stream = source.run(Received(transaction(50, "a")), Received([], position=far, sent_at=AT))
    assert stream.acknowledged[-1] == far
    assert source.batches()[-1].committed_at == AT


def test_promise_2_an_acknowledgement_that_is_asked_for_is_given_at_once() -> None:
    source = Source(PLACES)
    near = [Received([], position=Lsn(position), sent_at=AT) for position in (60, 70)]
    stream = source.run(Received(transaction(50, "a")), *near, Received([], Lsn(80), True, AT))
    assert stream.acknowledged[-1] == 80


def test_an_awaited_position_is_asked_for_and_stated_at_once() -> None:
    source = Source(PLACES)
    source.run(Received(transaction(50, "a")), Received([], Lsn(60), True, AT))
    source.work.awaited = Lsn(65)
    stream = source.run(Received([], Lsn(62), False, AT), Received([], Lsn(66), False, AT))
    assert stream.asked
    assert stream.acknowledged[-1] == 66


def test_events_stand_before_the_rows_that_follow_them() -> None:
    source = Source(PLACES)
    first, last = transaction(50, "before"), insert(1, ["9", "after"])
    source.run(Received([*first[:-1], truncate(1), last, logical_message("p", b"c"), last, commit(50, 58)]))
    told = [([type(event) for event in batch.events], batch.changes) for batch in source.batches()]
    assert told == [([SchemaChanged], 1), ([Truncated], 1), ([Message], 1)]


def test_a_message_outside_transactions_is_told_once() -> None:
    source = Source(PLACES)
    script = Received([logical_message("p", b"c", lsn=70, transactional=False)])
    source.run(script)
    source.run(script)
    assert [batch.until for batch in source.batches()] == [70]


def test_a_column_that_was_added_is_followed_in_place() -> None:
    source = Source(PLACES)
    source.run(Received(transaction(50, "a")))
    wider = Relation(1, "public", "places", PLACES.identity, (*PLACES.columns, RelationColumn("more", 25, -1, False)))
    source.catalog = {1: published(wider)}
    source.run(Received([begin(60), relation(wider), insert(1, ["2", "b", "c"]), commit(60, 68)]))
    (changed,) = [event for event in source.batches()[-1].events if isinstance(event, SchemaChanged)]
    assert [column.name for column in changed.table.columns] == ["id", "name", "more"]
    assert changed.table.version == 2
    assert changed.before is not None
    assert source.names() == ["a", "b"]
    assert shapes_of(source).known[1].followed


def test_a_type_that_was_changed_leaves_that_table_alone_out_until_a_refill() -> None:
    other = Relation(2, "public", "other", PLACES.identity, PLACES.columns)
    source = Source(PLACES, other)
    source.run(Received(transaction(50, "a")))
    changed = Relation(
        1, "public", "places", PLACES.identity, (PLACES.columns[0], RelationColumn("name", 23, -1, False))
    )
    source.catalog = {1: published(changed), 2: published(other)}
    messages = [begin(60), relation(changed), relation(other), insert(1, ["2", "3"]), insert(2, ["1", "x"])]
    source.run(Received([*messages, commit(60, 68)]))
    assert source.names() == ["a", "x"]
    known = shapes_of(source).known
    assert (known[1].followed, known[1].refill) == (False, True)
    assert known[2].followed


def test_rows_of_a_shape_that_was_given_up_too_early_bring_a_refill() -> None:
    sites = replace(PLACES, oid=2, name="sites")
    source = Source(PLACES, sites)
    rows = [insert(1, ["1", "a"]), insert(2, ["1", "b"])]
    first = [begin(50), relation(PLACES), relation(sites), *rows, commit(50, 58)]
    swapped = replace(PLACES, name="sites"), replace(sites, name="places")

    def swap(batch: Batch, state: State) -> None:
        if batch.until == 58:
            source.catalog = {shape.oid: published(shape) for shape in swapped}

    # The other table's new name is told with the first one's; then comes a row from before it had it.
    second = [begin(60), relation(swapped[0]), insert(1, ["2", "c"]), insert(2, ["2", "lost"]), commit(60, 68)]
    source.run(Received(first), Received(second), append=swap)
    told = [event.table.name for batch in source.batches() for event in batch.events if type(event) is SchemaChanged]
    assert told == ["places", "sites", "sites", "places"]
    assert source.names() == ["a", "b", "c"]
    known = shapes_of(source).known
    assert (known[2].followed, known[2].refill) == (False, True)


def test_the_catalog_is_asked_for_nothing_that_it_has_shown_since() -> None:
    asked: list[int | None] = []

    def look_up(oid: int | None) -> dict[int, PublishedTable]:
        asked.append(oid)
        return catalog

    catalog = {1: published(PLACES)}
    shapes = Shapes("orders", {}, look_up, str)
    shapes.expect(catalog, catalog)
    assert shapes.notice(catalog, since=Lsn(100), until=Lsn(100), passed=Lsn(50)) == []
    assert shapes.meet(PLACES, Lsn(99)) is None
    assert asked == []
    assert shapes.meet(PLACES, Lsn(100)) is None
    assert asked == [1]


def test_deletes_of_a_table_that_seems_to_have_had_no_key_bring_a_refill() -> None:
    source = Source(PLACES)
    source.run(Received(transaction(50, "a")))
    keyless = replace(PLACES, columns=tuple(replace(column, in_key=False) for column in PLACES.columns))
    source.catalog = {1: published(keyless)}
    source.run(Received([begin(60), relation(keyless), insert(1, ["2", "b"]), commit(60, 68)]))
    assert source.names() == ["a", "b"]
    source.run(Received([begin(70), relation(keyless), delete(1, key=["1", None]), commit(70, 78)]))
    assert source.names() == ["a", "b"]
    known = shapes_of(source).known
    assert (known[1].followed, known[1].refill) == (False, True)


def test_a_shape_that_the_catalog_does_not_have_any_more_is_left_out_until_a_refill() -> None:
    source = Source(PLACES)
    source.run(Received(transaction(50, "a")))
    wider = Relation(1, "public", "places", PLACES.identity, (*PLACES.columns, RelationColumn("more", 25, -1, False)))
    source.run(Received([begin(60), relation(wider), insert(1, ["2", "b", "c"]), commit(60, 68)]))
    assert source.names() == ["a"]
    shapes = shapes_of(source)
    assert not shapes.known[1].followed
    assert shapes.unfilled == {1}
