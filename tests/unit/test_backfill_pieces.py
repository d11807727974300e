"""What a cycle has read goes into the log only where the table is what it was, also as its catalog shows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pytest

from catchment.changes.snapshot import Snapshot
from catchment.log.memory import MemoryLog
from catchment.model.batch import Batch, TableRows
from catchment.model.errors import TableStopped
from catchment.model.lsn import Lsn
from catchment.model.table import Column, ReplicaIdentity, Table
from catchment.pipeline.cycle import Cycle, Piece
from catchment.pipeline.held import HeldRows
from catchment.pipeline.kept import Kept
from catchment.pipeline.pieces import Pieces
from catchment.pipeline.shapes import Shapes
from catchment.pipeline.state import KnownTable, Progress, Refill
from catchment.pipeline.tell import Teller
from catchment.postgres.catalog import Fingerprint, PublishedTable
from catchment.postgres.snapshot import Reached
from catchment.wire.messages import Relation, RelationColumn
from catchment.wire.twin import Decoder

OID, KEY = 1, (1,)
BLOCKS = [Reached(OID, 10, block, 4096) for block in (1024, 2048)]
READ_IN_PART = Refill("r1", (OID,), ("ods",), True, started=1, progress=(Progress(OID, 1, BLOCKS[0], 1, 500),))
BY_KEY = Refill("m1", (OID,), ("ods",), False, keys=(("x", "gone"),), key=KEY)


def described(*names: str, key: str = "a", **fingerprint: Any) -> PublishedTable:
    """What the catalog shows of the table with these columns."""
    columns = tuple(Column(number, name, "pg_catalog", "text", -1, True) for number, name in enumerate(names, 1))
    return PublishedTable(
        Table(OID, "public", "t", columns, (key,), ReplicaIdentity.DEFAULT, 10),
        Relation(
            OID, "public", "t", ReplicaIdentity.DEFAULT, tuple(RelationColumn(n, 25, -1, n == key) for n in names)
        ),
        None,
        False,
        None,
        Fingerprint(
            filenode="10", toast="5", attributes={str(c.number): "7" for c in columns}, **{"entry": "5", **fingerprint}
        ),
    )


class World:
    """A log, and what is known of the table: that it is ``before``."""

    def __init__(self, directory: Path, before: PublishedTable) -> None:
        self.log = MemoryLog()
        self.writer = self.log.open_writer("s")
        self.append(Batch("s", Lsn(0), Lsn(100), 0, True, datetime.now(UTC)), {})
        self.shapes = Shapes("s", {}, lambda _: {}, lambda: "90:90:")
        self.shapes.expect({OID: before}, [OID])
        self.shapes.read(OID)
        self.teller = Teller("s", self.writer, Decoder(Lsn(100), 0), self.append, self.shapes.changes)
        self.pieces = Pieces(["ods"], self.writer, self.shapes, Kept("s", self.log), self.teller)
        self._directory = directory

    def append(self, batch: Batch, state: Any) -> None:
        self.writer.append(batch, state)

    @property
    def known(self) -> KnownTable:
        return self.shapes.known[OID]

    def cycle(self, published: PublishedTable, piece: Piece, *chunks: Sequence[str]) -> Cycle:
        """One that has read rows, each of the same text in all columns, as the catalog shows them."""
        columns = len(published.table.columns)
        held = HeldRows(self._directory / "1.arrow", columns)
        for chunk in chunks:
            held.write([pa.array(chunk)] * columns)
        held.finish()
        ended = SimpleNamespace(
            known=self.known,
            table=self.known.table,
            piece=piece,
            keep=1,
            snapshot=Snapshot.parse("50:50:"),
            held=held,
            reached=BLOCKS[1],
            rows=held.rows,
            another_file=False,
        )
        return cast("Cycle", ended)

    def told(self) -> list[tuple[Batch, list[TableRows]]]:
        return [(batch, list(batch.rows)) for _, batch in self.log.read("s", 1, self.log.wait("s", 0, 0).last)]


@pytest.fixture
def world(tmp_path: Path) -> Callable[[PublishedTable], World]:
    return lambda before: World(tmp_path, before)


@pytest.mark.parametrize(
    ("before", "now", "waits"),
    [
        pytest.param(described("a", "b"), described("a", "b", entry="6"), True, id="another row filter"),
        pytest.param(
            described("a", "b", types={"1": "4"}), described("a", "b", types={"1": "5"}), True, id="a label renamed"
        ),
        pytest.param(
            described("a", "b", leaves={"7": "70"}), described("a", "b", leaves={"7": "71"}), False, id="a leaf emptied"
        ),
        pytest.param(
            described("a", "b", leaves={"7": "7"}),
            described("a", "b", leaves={"3": "3", "7": "7"}),
            False,
            id="a leaf attached",
        ),
    ],
)
def test_promise_1_a_table_read_in_part_that_has_become_another_since_is_left_out_and_read_again(
    world: Callable[[PublishedTable], World], before: PublishedTable, now: PublishedTable, waits: bool
) -> None:
    here = world(before)
    remaining = here.pieces.append(READ_IN_PART, here.cycle(now, Piece(BLOCKS[0]), ["x"]), now)
    assert remaining.progress == ()
    assert (here.known.followed, here.known.refill, here.known.fingerprint) == (False, True, now.fingerprint)
    assert here.known.floor == ("90:90:" if waits else None)
    assert here.told() == []


def test_promise_1_what_was_not_shared_before_a_first_piece_is_waited_for(
    world: Callable[[PublishedTable], World],
) -> None:
    here, now = world(described("a", "b")), described("a", "b", entry="6")
    begun = replace(READ_IN_PART, progress=())
    assert here.pieces.append(begun, here.cycle(now, Piece(), ["x"]), now) == begun
    assert here.known.floor == "90:90:"
    assert here.told() == []


def test_promise_1_a_table_read_in_part_is_begun_again_with_a_column_that_the_stream_has_not_told_of(
    world: Callable[[PublishedTable], World],
) -> None:
    here, now = world(described("a", "b")), described("a", "b", "c")
    remaining = here.pieces.append(READ_IN_PART, here.cycle(now, Piece(BLOCKS[0]), ["x"]), now)
    assert remaining.progress == ()
    assert here.known.followed
    assert here.told() == []


def test_promise_1_rows_read_by_their_keys_are_told_though_the_table_was_vacuumed_meanwhile(
    world: Callable[[PublishedTable], World],
) -> None:
    here, now = world(described("a", "b")), described("a", "b")
    cycle = here.cycle(now, Piece(None, [pa.array(["x", "gone"])], KEY, blocks=False), ["x"])
    vacuumed = replace(now, fingerprint=replace(now.fingerprint, filenode="11"))
    here.shapes.notice({OID: vacuumed}, Lsn(100), Lsn(100), Lsn(100))
    assert here.known is not cycle.known
    assert here.pieces.append(BY_KEY, cycle, now).tables == ()
    (*parts, end, _) = here.told()
    rows = [row for _, rows in parts for row in rows[0].data.select(["_op", "a"]).to_pylist()]
    assert rows == [{"_op": "d", "a": "gone"}, {"_op": "r", "a": "x"}]
    assert [batch.ends_transaction for batch, _ in (*parts, end)] == [False, False, True]


def test_promise_1_rows_read_by_their_keys_in_a_shape_that_was_not_told_yet_are_read_again(
    world: Callable[[PublishedTable], World],
) -> None:
    here, now = world(described("a", "b")), described("a", "b", "c")
    cycle = here.cycle(now, Piece(None, [pa.array(["x"])], KEY, blocks=False), ["x"])
    with pytest.raises(TableStopped, match="has a shape that the stream has not told of yet"):
        here.pieces.append(BY_KEY, cycle, now)
    assert here.told() == []


def test_promise_1_a_table_with_another_key_than_its_rows_were_asked_for_by_is_read_again(
    world: Callable[[PublishedTable], World],
) -> None:
    now = described("a", "b", key="b")
    here = world(now)
    cycle = here.cycle(now, Piece(None, [pa.array(["x"])], KEY, blocks=False))
    assert here.pieces.append(BY_KEY, cycle, now).tables == ()
    assert (here.known.followed, here.shapes.unfilled) == (True, {OID})


def test_the_keys_of_rows_that_were_read_again_are_kept_no_longer(world: Callable[[PublishedTable], World]) -> None:
    here = world(described("a", "b"))
    here.teller.finish(here.teller.keep(BY_KEY), 1)
    assert [(refill.id, refill.keys) for refill in Refill.of(here.writer.tail.state)] == [("m1", ())]
