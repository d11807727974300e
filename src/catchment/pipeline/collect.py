"""Collect: read the stream, decode, append to the log, acknowledge."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from catchment.log.base import State
from catchment.model.batch import Batch
from catchment.model.lsn import Lsn
from catchment.pipeline.cut import Cutter
from catchment.pipeline.rest import rest
from catchment.pipeline.spool import Spool
from catchment.pipeline.status import Stopping
from catchment.postgres.stream import Stream

IDLE_SECONDS = 10.0  # `verify` waits for so long where nobody commits
IDLE_BYTES = 16 * 2**20
_ROUND_SECONDS = 0.5
_REST_SECONDS = IDLE_SECONDS  # what is due is due when the rest is over
_ASK_SECONDS = 0.1


class Work(Protocol):
    """What a collector does beside the stream, between transactions."""

    @property
    def awaited(self) -> Lsn | None:
        """A WAL position that somebody waits for; null when nobody does."""
        ...

    @property
    def at_rest(self) -> bool:
        """Whether there is nothing to do before the stream brings something, or somebody ends its ``receive``."""
        ...

    def between_transactions(self) -> None:
        """Do what is due; called whenever the log ends with a whole transaction and nothing more is decoded yet."""
        ...

    def passed(self, position: Lsn, at: datetime) -> None:
        """Nothing more is to come from before this WAL position; the server's clock said ``at``."""
        ...

    def beat(self) -> None:
        """The loop goes round."""
        ...


def collect(
    stream: Stream, spool: Spool, cutter: Cutter, append: Callable[[Batch, State], Lsn], work: Work, stopping: Stopping
) -> None:
    """The loop. ``append`` makes a batch durable and returns how far the log now reaches: nothing else is acknowledged.

    While nothing of interest happens the server's own position is stated in the log now and then, and acknowledged: an
    idle source frees its WAL, and everybody downstream sees time pass.
    """
    until = cutter.until
    stated = asked = 0.0
    while not stopping:
        work.beat()
        awaited = work.awaited
        received = stream.receive(_ASK_SECONDS if awaited else rest(_REST_SECONDS) if work.at_rest else _ROUND_SECONDS)
        for messages in spool.whole(received.messages):
            for batch, state in cutter.batches(messages):
                until = append(batch, state)
                stream.acknowledge(until)
                if cutter.at_boundary:
                    work.between_transactions()
        now = time.monotonic()
        if cutter.at_boundary:
            position = received.position or until
            if received.position:
                work.passed(received.position, received.sent_at)
            due = received.reply_requested or position - until >= IDLE_BYTES or now - stated >= IDLE_SECONDS
            awaited = work.awaited
            if position > until and (due or (awaited is not None and until < awaited)):
                until = append(*cutter.idle(position, received.sent_at))
                stated = now
            work.between_transactions()
        ask = awaited is not None and now - asked >= _ASK_SECONDS
        asked = now if ask else asked
        stream.acknowledge(until, ask)
