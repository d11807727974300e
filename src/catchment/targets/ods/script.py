"""Statements that travel to the ODS together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
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
_MUCH = 1 << 18  # bytes: for less a thread would cost more than it saves


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
        """Do it all in the transaction that is open. Raises Refusal, Locked and the translation's errors.

        Much is done beside what the caller does next, in a thread of its own: who wants the session's connection waits
        for it, and meets what came of it.
        """
        connection = self._session.connection
        if sum(len(step.content or b"") for step in self._steps) < _MUCH:
            self._do(connection)
        else:
            self._session.leave(_begun(partial(self._do, connection)))

    def _do(self, connection: psycopg.Connection) -> None:
        for alone, steps in groupby(self._steps, key=lambda step: step.otherwise is not None):
            if alone:
                for step in steps:
                    self._try(connection, step)
            else:
                self._send(connection, list(steps))

    def _send(self, connection: psycopg.Connection, steps: Sequence[_Step]) -> None:
        pgconn, wait = connection.pgconn, connection.wait
        with self._translation.around():
            pgconn.send_query(b"; ".join(step.statement for step in steps))
            wait(_flush(pgconn))
        for step in steps:
            with refusals(step.place, self._translation):
                if step.content is not None:
                    wait(_result(pgconn))
                    wait(_put(pgconn, step.content))
                result = wait(_result(pgconn))
            if step.check:
                try:
                    step.check((result and result.command_tuples) or 0)
                except TableMisshapen as error:
                    raise Refusal(step.place, error) from None
        with self._translation.around():
            wait(_result(pgconn))

    def _try(self, connection: psycopg.Connection, step: _Step) -> None:
        """Nothing stays of what fails half-way."""
        met = 0
        failing = suppress(psycopg.IntegrityError)  # what is more than a collision fails the other way too
        with refusals(step.place, self._translation), failing, connection.transaction():
            cursor = connection.cursor()
            with cursor.copy(step.statement) as copy:
                copy.write(step.content or b"")
            met = cursor.rowcount
        if step.check:
            step.check(met)
        if not met and step.otherwise:
            self._send(connection, [_Step(step.place, step.otherwise, step.content)])


def _begun(act: Callable[[], None]) -> Callable[[], None]:
    """Begin this in a thread; returns what waits for its end, and raises what it has raised.

    A thread that a server keeps waiting must not keep the process from ending, as one of an executor would.
    """
    outcome = Future[None]()

    def run() -> None:
        try:
            act()
            outcome.set_result(None)
        except BaseException as error:  # noqa: BLE001  # it is raised where it is waited for
            outcome.set_exception(error)

    threading.Thread(target=run, name="ods", daemon=True).start()
    return outcome.result


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
