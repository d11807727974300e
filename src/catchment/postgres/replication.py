"""A replication connection: a walsender's other end."""

from __future__ import annotations

import select
from collections.abc import Callable
from types import TracebackType
from typing import Self

from psycopg import errors, pq

from catchment.model.errors import SourceUnreachable
from catchment.postgres.connection import Translation, connect

Row = tuple[str, ...]

_WAITING_SECONDS = 1.0


class ReplicationConnection:
    """Takes replication commands and, being tied to a database, SQL without parameters.

    https://www.postgresql.org/docs/current/protocol-replication.html
    """

    def __init__(self, dsn: str, translation: Translation) -> None:
        """Raises the translation's errors."""
        self.translation = translation
        self._connection = connect(dsn, translation, replication="database")
        if self._connection.info.parameter_status("server_encoding") == "SQL_ASCII":
            # Such a server does not know what its bytes mean: asked for UTF-8 it ends the stream at the first that is
            # not, so it is taken at its word and the bytes are validated when they become columns.
            self._connection.close()
            self._connection = connect(dsn, translation, replication="database", client_encoding="SQL_ASCII")
        self.pgconn = self._connection.pgconn
        self.server_version = self.pgconn.server_version
        self.backend_pid = self.pgconn.backend_pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def execute(self, command: str, waiting: Callable[[], None] | None = None) -> list[Row]:
        """Run one command and return its rows as text, null as ''.

        ``waiting`` is called every second until the server answers; what it raises ends the command. Raises the
        translation's errors.
        """
        with self.translation.around():
            self.pgconn.send_query(command.encode())
            while self.pgconn.is_busy():
                if self.wait_readable(_WAITING_SECONDS if waiting else None):
                    self.pgconn.consume_input()
                elif waiting:
                    try:
                        waiting()
                    except BaseException:
                        self._cancel()
                        raise
            rows: list[Row] = []
            while (result := self.pgconn.get_result()) is not None:
                self.check(result)
                rows += [
                    tuple((result.get_value(row, column) or b"").decode() for column in range(result.nfields))
                    for row in range(result.ntuples)
                ]
                if result.status == pq.ExecStatus.COPY_BOTH:
                    break
        return rows

    def check(self, result: pq.abc.PGresult) -> None:
        """Raise psycopg's error when the result is one."""
        if result.status in (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE):
            raise errors.error_from_result(result)

    def wait_readable(self, timeout: float | None) -> bool:
        """Wait until bytes arrive, at most so many seconds: whether they have.

        Raises SourceUnreachable once the connection is gone.
        """
        if self.pgconn.status == pq.ConnStatus.BAD:
            raise SourceUnreachable("the replication connection is closed", source=self.translation.source)
        poller = select.poll()
        poller.register(self.pgconn.socket, select.POLLIN)
        return bool(poller.poll(None if timeout is None else max(0, timeout * 1000)))

    def _cancel(self) -> None:
        """Ask the server to end the command that is running, and wait until it has."""
        with self.translation.around():
            self._connection.cancel_safe()
            while self.pgconn.get_result() is not None:
                pass

    def close(self) -> None:
        """End the connection; its walsender lets go of the slot."""
        self._connection.close()
