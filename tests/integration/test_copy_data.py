"""What arrives in COPY mode, taken by psycopg's functions and by the compiled loop alike."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from wire_twins import NATIVE_IS_BUILT, REFERENCE, Twin, compiled

from catchment.model.errors import SourceUnreachable
from catchment.postgres import copydata
from catchment.postgres.bell import Bell
from catchment.postgres.connection import of_source
from catchment.postgres.copydata import KEEPALIVE, consume, copied, take_wal, wait_for_wal
from catchment.postgres.replication import ReplicationConnection
from catchment.wire.twin import Messages

ROWS = "SELECT n, repeat('x', n % 100) FROM generate_series(1, 200000) n"


@pytest.fixture(params=["psycopg", "compiled"])
def gathering(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[Messages]:
    """Which functions take messages, and what they gather them in."""
    if request.param == "psycopg":
        monkeypatch.setattr(copydata, "_libpq", None)
        return gathers(REFERENCE, monkeypatch)
    if not NATIVE_IS_BUILT:
        pytest.skip("the compiled twin is not built here")
    monkeypatch.setenv("CATCHMENT_WIRE", "native")
    monkeypatch.setattr(copydata, "_libpq", copydata._compiled())
    assert copydata._libpq is not None
    return gathers(compiled(), monkeypatch)


def gathers(twin: Twin, monkeypatch: pytest.MonkeyPatch) -> type[Messages]:
    monkeypatch.setattr(copydata, "Messages", twin.Messages)
    monkeypatch.setattr(copydata, "joined", twin.joined)
    return twin.Messages


@pytest.fixture
def connection(source_database: str, gathering: type[Messages]) -> Iterator[psycopg.Connection]:
    with psycopg.connect(source_database, autocommit=True) as connection:
        yield connection


def test_a_table_comes_in_whole_rows_and_pieces(connection: psycopg.Connection) -> None:
    pieces = list(map(bytes, copied(connection, f"COPY ({ROWS}) TO STDOUT".encode())))
    assert len(pieces) > 1
    assert all(piece.endswith(b"\n") for piece in pieces)
    assert b"".join(pieces) == b"".join(b"%d\t%s\n" % (n, b"x" * (n % 100)) for n in range(1, 200001))
    assert list(copied(connection, b"COPY (SELECT 1 WHERE false) TO STDOUT")) == []


def test_an_error_on_the_way_is_raised_and_leaves_the_connection_usable(connection: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        list(copied(connection, b"COPY (SELECT 1 / (n - 90000) FROM generate_series(1, 100000) n) TO STDOUT"))
    with pytest.raises(psycopg.errors.UndefinedTable):
        list(copied(connection, b"COPY nothing TO STDOUT"))
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_leaving_early_ends_the_copy(connection: psycopg.Connection) -> None:
    pieces = copied(connection, f"COPY ({ROWS}) TO STDOUT".encode())
    assert next(pieces)
    pieces.close()
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_connection_that_is_cut_raises_operational_error(
    connection: psycopg.Connection, source_database: str
) -> None:
    pieces = copied(connection, f"COPY ({ROWS}) TO STDOUT".encode())
    assert next(pieces)
    with psycopg.connect(source_database, autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])
    with pytest.raises(psycopg.OperationalError):
        list(pieces)


def test_a_connection_that_is_closed_raises_operational_error(
    connection: psycopg.Connection, gathering: type[Messages]
) -> None:
    connection.close()
    with pytest.raises(psycopg.OperationalError):
        take_wal(connection.pgconn, gathering(), 1)
    with pytest.raises(psycopg.OperationalError):
        consume(connection.pgconn)


def test_to_look_for_more_on_a_connection_that_was_cut_raises_operational_error(
    connection: psycopg.Connection, source_database: str
) -> None:
    with psycopg.connect(source_database, autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])
    consume(connection.pgconn)  # the server's last words come first
    with pytest.raises(psycopg.OperationalError):
        consume(connection.pgconn)


def test_what_is_no_wal_data_ends_a_run(source_database: str, gathering: type[Messages]) -> None:
    with psycopg.connect(source_database, autocommit=True) as admin:
        admin.execute("CREATE PUBLICATION p FOR ALL TABLES; CREATE TABLE t (n int)")
        admin.execute("SELECT pg_create_logical_replication_slot('copy_data', 'pgoutput')")
        with ReplicationConnection(source_database, of_source("s")) as replication:
            replication.execute(
                "START_REPLICATION SLOT copy_data LOGICAL 0/0 (proto_version '1', publication_names 'p')"
            )
            admin.execute("INSERT INTO t SELECT generate_series(1, 1000)")
            messages = gathering()
            others: list[bytes] = []
            while not (messages and messages[-1][:1] == b"C" and others):
                taken = take_wal(replication.pgconn, messages, 1 << 20)
                if taken.other is not None:
                    others.append(taken.other)
                elif taken.state == 0:
                    replication.wait_readable(1.0)
                    consume(replication.pgconn)
            assert bytes(message[0] for message in messages) == b"BR" + b"I" * 1000 + b"C"
            assert {(other[:1], len(other)) for other in others} == {(b"k", 18)}
            few = gathering()
            admin.execute("INSERT INTO t SELECT generate_series(1, 1000)")
            while not few:
                replication.wait_readable(1.0)
                consume(replication.pgconn)
                take_wal(replication.pgconn, few, 1)
            assert len(few) == 1
    with pytest.raises(SourceUnreachable):
        replication.wait_readable(0)


@contextmanager
def streaming(dsn: str) -> Iterator[tuple[psycopg.Connection, ReplicationConnection]]:
    """Somebody who writes, and a slot that has told all that there was."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("CREATE PUBLICATION p FOR ALL TABLES; CREATE TABLE t (n int)")
        admin.execute("SELECT pg_create_logical_replication_slot('waiting', 'pgoutput')")
        with ReplicationConnection(dsn, of_source("s")) as replication:
            replication.execute("START_REPLICATION SLOT waiting LOGICAL 0/0 (proto_version '1', publication_names 'p')")
            yield admin, replication


LONG = 600.0
"""Seconds that no test waits for."""


def position_of(keepalive: bytes | None) -> int:
    assert keepalive is not None
    kind, position, _, asks = KEEPALIVE.unpack(keepalive)
    assert (kind, asks) == (b"k", 0)
    return int(position)


def wal_of(
    replication: ReplicationConnection, gathering: type[Messages], most_bytes: int, seconds: float
) -> tuple[list[bytes], int]:
    """What ``take_wal`` gathers, in as many goes as the server states positions meanwhile; its last state."""
    messages = gathering()
    size = 0
    while (taken := take_wal(replication.pgconn, messages, most_bytes - size, seconds)).other is not None:
        size += taken.size
    return list(messages), taken.state


def test_what_arrives_within_the_time_is_gathered(
    source_database: str, gathering: type[Messages], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copydata, "_QUIET_SECONDS", LONG)
    with streaming(source_database) as (admin, replication):

        def write() -> None:
            for number in range(20):
                admin.execute("INSERT INTO t SELECT generate_series(1, 100) + %s * 100", [number])

        writing = threading.Timer(0.05, write)
        writing.start()
        header = 25
        most = 2000 * (header + 15)
        messages, state = wal_of(replication, gathering, most, LONG)
        writing.join()
        assert state == 1
        assert sum(len(message) + header for message in messages) in range(most, most + 1000)
        while [message[:1] for message in messages].count(b"C") < 20:
            rest, state = wal_of(replication, gathering, 1 << 20, 0.1)
            assert state == 0, "the time was over"
            messages += rest
        kinds = bytes(message[0] for message in messages)
        assert kinds == b"BR" + (b"I" * 100 + b"CB") * 19 + b"I" * 100 + b"C"


def test_gathering_ends_once_nothing_comes(source_database: str, gathering: type[Messages]) -> None:
    with streaming(source_database) as (admin, replication):
        admin.execute("INSERT INTO t SELECT generate_series(1, 100)")
        messages: list[bytes] = []
        while not messages or messages[-1][:1] != b"C":
            found, state = wal_of(replication, gathering, 1 << 20, LONG)
            messages += found
            assert state == 0
        assert len(messages) == 103


def test_a_connection_that_is_cut_ends_a_gathering(
    source_database: str, gathering: type[Messages], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copydata, "_QUIET_SECONDS", LONG)
    with streaming(source_database) as (admin, replication):
        admin.execute("SELECT pg_terminate_backend(%s)", (replication.backend_pid,))

        def ended() -> bool:
            try:
                return wal_of(replication, gathering, 1 << 20, LONG)[1] < 0
            except psycopg.OperationalError:
                return True

        assert ended()


def test_positions_do_not_end_a_wait_and_the_last_is_told(source_database: str, gathering: type[Messages]) -> None:
    with streaming(source_database) as (admin, replication):
        messages = gathering()

        def write() -> None:
            for _ in range(5):
                admin.execute("SELECT pg_logical_emit_message(true, 'of nobody', 'x')")
            admin.execute("INSERT INTO t VALUES (1)")

        writing = threading.Timer(0.2, write)
        writing.start()
        first, taken = wait_for_wal(replication.pgconn, messages, None, LONG, False)
        writing.join()
        assert (taken.state, taken.other) == (1, None)
        assert [message[:1] for message in messages] == [b"B"]
        assert taken.size > len(messages[0])
        ((written,),) = admin.execute("SELECT (pg_current_wal_lsn() - '0/0')::bigint").fetchall()
        assert 0 < position_of(first) < written
        while messages[-1][:1] != b"C":
            wait_for_wal(replication.pgconn, messages, None, LONG, False)
        while (told := wait_for_wal(replication.pgconn, messages, None, 0.05, False))[0] is None:
            pass
        assert told[1] == (0, 0, None)
        assert position_of(told[0]) >= written


def test_a_position_that_was_asked_for_ends_a_wait(source_database: str, gathering: type[Messages]) -> None:
    with streaming(source_database) as (admin, replication):
        admin.execute("SELECT pg_logical_emit_message(true, 'of nobody', 'x')")
        position, taken = wait_for_wal(replication.pgconn, gathering(), None, LONG, True)
        assert position_of(position) > 0
        assert taken == (0, 0, None)


def test_a_bell_ends_a_wait(source_database: str, gathering: type[Messages]) -> None:
    with streaming(source_database) as (_, replication):
        bell = Bell()
        while wait_for_wal(replication.pgconn, gathering(), bell, 0.2, False)[0] is not None:
            pass
        ringing = threading.Timer(0.2, bell.ring)
        ringing.start()
        assert wait_for_wal(replication.pgconn, gathering(), bell, LONG, False) == (None, (0, 0, None))
        ringing.join()
        assert wait_for_wal(replication.pgconn, gathering(), bell, 0.0, False) == (None, (0, 0, None)), "it was heard"


def test_a_request_for_a_reply_ends_a_wait(source_database: str, gathering: type[Messages]) -> None:
    with streaming(f"{source_database} options='-c wal_sender_timeout=400ms'") as (_, replication):
        position, taken = wait_for_wal(replication.pgconn, gathering(), None, LONG, False)
        assert position is None or position_of(position)
        assert taken.other is not None
        assert KEEPALIVE.unpack(taken.other)[0::3] == (b"k", 1)


def test_a_connection_that_is_cut_ends_a_wait(source_database: str, gathering: type[Messages]) -> None:
    with streaming(source_database) as (admin, replication):

        def cut() -> None:
            admin.execute("SELECT pg_terminate_backend(%s)", (replication.backend_pid,))

        def ended() -> bool:
            try:
                return wait_for_wal(replication.pgconn, gathering(), None, LONG, False)[1].state < 0
            except psycopg.OperationalError:
                return True

        cutting = threading.Timer(0.2, cut)
        cutting.start()
        while not ended():
            pass
        cutting.join()
