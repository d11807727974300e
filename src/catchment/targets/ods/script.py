"""Statements that travel to the ODS together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Protocol

import psycopg
from psycopg import pq
from psycopg.abc import PQGen
from psycopg.waiting import Ready, Wait

from catchment.model.errors import TableMisshapen
from catchment.postgres.connection import Translation
from catchment.targets.ods.refusal import Place, Refusal, refusals
from catchment.targets.ods.session import Session

_PIECE = 1 << 18  # bytes: the server reads one while the next is handed over


@dataclass(frozen=True, slots=True)
class _Step:
    place: Place
    statement: bytes
    content: memoryview | None
    check: Callable[[int], None] | None = None
    otherwise: bytes | None = None


class Add(Protocol):
    """Takes the next statement of one table."""

    def __call__(
        self,
        statement: bytes,
        content: memoryview | None = None,
        check: Callable[[int], None] | None = None,
        otherwise: bytes | None = None,
    ) -> None:
        """``content`` is what a COPY reads; ``check`` is told how many rows the statement met, before any commit.

        ``otherwise``: the COPY that takes the content where this one meets a row that it collides with; 0 met then.
        """
        ...


class Script:
    """Statements, COPY among them, that go out as one query: we wait for the server once, and once for each COPY.

    One that may fail is a query of its own, in a subtransaction.

    psycopg would wait several times for each, which costs more than to apply a few rows.
    https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-MULTI-STATEMENT
    """

    def __init__(self, session: Session, translation: Translation) -> None:
        self._session = session
        self._translation = translation
        self._steps: list[_Step] = []

    def about(self, place: Place) -> Add:
        """How to add statements, each of them just one, about one place."""

        def add(
            statement: bytes,
            content: memoryview | None = None,
            check: Callable[[int], None] | None = None,
            otherwise: bytes | None = None,
        ) -> None:
            self._steps.append(_Step(place, statement, content, check, otherwise))

        return add

    def run(self) -> None:
        """Do it all in the transaction that is open. Raises Refusal and the translation's errors.

        The server is left at work once it has been given all that it needs: who wants the session's connection next
        waits for it, and meets what came of it.
        """
        for alone, steps in groupby(self._steps, key=lambda step: step.otherwise is not None):
            if alone:
                for step in steps:
                    self._try(step)
            else:
                self._send(list(steps))

    def _send(self, steps: Sequence[_Step]) -> None:
        exchange = self._exchange(self._session.connection, steps)
        next(exchange)
        self._session.leave(partial(next, exchange, None))

    def _exchange(self, connection: psycopg.Connection, steps: Sequence[_Step]) -> Iterator[None]:
        """Send the statements and what they read, pause, and take in their results.

        The server keeps results back until it has done all, or wants to be sent more.
        """
        pgconn, wait = connection.pgconn, connection.wait
        with self._translation.around():
            pgconn.send_query(b"; ".join(step.statement for step in steps))
            wait(_flush(pgconn))
        to_feed = sum(step.content is not None for step in steps)
        if not to_feed:
            yield
        for step in steps:
            with refusals(step.place, self._translation):
                if step.content is not None:
                    wait(_result(pgconn))
                    wait(_put(pgconn, step.content))
                    to_feed -= 1
                    if not to_feed:
                        yield
                result = wait(_result(pgconn))
            if step.check:
                try:
                    step.check((result and result.command_tuples) or 0)
                except TableMisshapen as error:
                    raise Refusal(step.place, error) from None
        with self._translation.around():
            wait(_result(pgconn))

    def _try(self, step: _Step) -> None:
        """Nothing stays of what fails half-way."""
        met = 0
        connection = self._session.connection
        failing = suppress(psycopg.IntegrityError)  # what is more than a collision fails the other way too
        with refusals(step.place, self._translation), failing, connection.transaction():
            cursor = connection.cursor()
            with cursor.copy(step.statement) as copy:
                copy.write(step.content or b"")
            met = cursor.rowcount
        if step.check:
            step.check(met)
        if not met and step.otherwise:
            self._send([_Step(step.place, step.otherwise, step.content)])


def _result(pgconn: pq.abc.PGconn) -> PQGen[pq.abc.PGresult | None]:
    """The next result, null behind the last."""
    while pgconn.is_busy():
        yield Wait.R
        pgconn.consume_input()
    result = pgconn.get_result()
    if result and result.status == pq.ExecStatus.FATAL_ERROR:
        raise psycopg.errors.error_from_result(result)
    return result


def _put(pgconn: pq.abc.PGconn, content: memoryview) -> PQGen[None]:
    for start in range(0, len(content), _PIECE):
        pgconn.put_copy_data(content[start : start + _PIECE])
        yield from _flush(pgconn)
    pgconn.put_copy_end()
    yield from _flush(pgconn)


def _flush(pgconn: pq.abc.PGconn) -> PQGen[None]:
    while pgconn.flush():
        # A server that cannot tell us something does not listen either.
        if (yield Wait.RW) & Ready.R:
            pgconn.consume_input()
