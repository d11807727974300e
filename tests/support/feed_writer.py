"""A process that writes a feed, to be killed: ``python feed_writer.py PATH ROTATE_BYTES SEED BATCHES``.

It reads one word a line and forks a child for each, so that only the first start costs time:

- ``write``: the child applies the history from where the feed stands, a few transactions at a time, to its end;
- ``line N``: the same, but the child kills itself before it executes the N-th line of Catchment's feed package;
- ``lines``: the same, and the child answers how many lines that were: ``lines COUNT``.

It answers ``started PID`` at once and ``ended STATUS`` when the child has ended, by ``os.waitpid``'s status.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import UUID

import pyarrow as pa

import catchment.targets.feed
from catchment.changes.jsonlines import render
from catchment.model.batch import Batch, Event, Message, Place, TableRows, rows_schema
from catchment.model.frontier import Frontier
from catchment.model.lsn import Lsn
from catchment.model.table import Column, ReplicaIdentity, Table
from catchment.targets.feed import FeedTarget

SOURCE = "orders"
COMMITTED_AT = datetime(2026, 11, 23, 4, 5, 6, 789012, UTC)
ACCOUNTS = Table(
    oid=16384,
    schema="public",
    name="accounts",
    columns=(
        Column(1, "id", "pg_catalog", "int8", -1, False),
        Column(2, "note", "pg_catalog", "text", -1, True),
    ),
    key=("id",),
    identity=ReplicaIdentity.DEFAULT,
    filenode=16384,
)

History = list[tuple[Frontier, Batch]]


@cache
def history(seed: int, batches: int) -> History:
    """Batches of one log: transactions of one to three batches, idle positions, events. The last ends a transaction."""
    chance = random.Random(seed)
    log = UUID(int=seed + 1)
    until, seq, part = Lsn(100), 0, 0
    made: History = []
    for offset in range(1, batches + 1):
        ends = offset == batches or part == 2 or chance.random() < 0.6
        after = until
        until = Lsn(until + chance.randrange(1, 99)) if ends else until
        events: tuple[Event, ...] = ()
        rows: tuple[TableRows, ...] = ()
        if part or not ends or chance.random() < 0.8:
            if chance.random() < 0.2:
                seq += 1
                events = (Message("from the test", b"\xff\n", Place(seq, until, offset, COMMITTED_AT)),)
            count = chance.randrange(1, 6)
            rows = (_rows(range(seq + 1, seq + count + 1), until, chance),)
            seq += count
        batch = Batch(SOURCE, after, until, part, ends, COMMITTED_AT, events, rows)
        part = 0 if ends else part + 1
        made.append((Frontier(log, offset, until, COMMITTED_AT), batch))
    return made


def _rows(seq: range, lsn: Lsn, chance: random.Random) -> TableRows:
    count = len(seq)
    arrays: list[Any] = [
        pa.array(["c"] * count),
        pa.array(seq, pa.int64()),
        pa.array([int(lsn)] * count, pa.int64()),
        pa.array([7] * count, pa.int64()),
        pa.array([COMMITTED_AT] * count, pa.timestamp("us", tz="UTC")),
        pa.nulls(count, pa.list_(pa.int16())),
        pa.array([str(number) for number in seq]),
        pa.array(["ä\n" * chance.randrange(20) for _ in seq]),
    ]
    return TableRows(ACCOUNTS, pa.RecordBatch.from_arrays(arrays, schema=rows_schema(["id", "note"])))


def rendered(taken: History) -> bytes:
    """What an uninterrupted feed of these batches holds."""
    return b"".join(render(SOURCE, batch.rows, batch.events) for _, batch in taken)


def transactions(taken: History) -> list[History]:
    """The same batches, grouped."""
    grouped: list[History] = [[]]
    for item in taken:
        grouped[-1].append(item)
        if item[1].ends_transaction:
            grouped.append([])
    return grouped[:-1]


def write(target: FeedTarget, taken: list[History], chance: random.Random) -> None:
    """Apply transactions from where the feed stands, now and then with some that it has already."""
    while True:
        frontier = target.frontier(SOURCE)
        missing = [
            number for number, items in enumerate(taken) if frontier is None or not frontier.covers(items[-1][0])
        ]
        if not missing:
            return
        first = max(0, missing[0] - chance.randrange(3))
        target.apply(SOURCE, (item for items in taken[first : missing[0] + chance.randrange(1, 4)] for item in items))


def _count_lines(fatal: int) -> list[int]:
    """Count the lines of the feed package that are executed from now on; die before the one with this number."""
    package = str(Path(catchment.targets.feed.__file__).parent)
    count = [0]

    def local(frame: FrameType, event: str, argument: object) -> Any:
        if event == "line":
            count[0] += 1
            if count[0] == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
        return local

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        return local if frame.f_code.co_filename.startswith(package) else None

    sys.settrace(trace)
    return count


def _serve(path: str, rotate_bytes: int, seed: int, batches: int) -> None:
    taken = transactions(history(seed, batches))
    # The first rendering loads much of pyarrow: here, so that not every child does it.
    rendered(history(seed, batches))
    for number, line in enumerate(sys.stdin):
        word, _, argument = line.strip().partition(" ")
        child = os.fork()
        if not child:
            chance = random.Random(f"{seed} {number}" if word == "write" else seed)
            count = [0] if word == "write" else _count_lines(int(argument or -1))
            write(FeedTarget("feed", path, rotate_bytes), taken, chance)
            sys.settrace(None)
            if word == "lines":
                print("lines", count[0], flush=True)
            os._exit(0)
        print("started", child, flush=True)
        print("ended", os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1], *map(int, sys.argv[2:]))
