"""Parts of transactions in progress become whole transactions, as protocol version 1 would have sent them."""

from __future__ import annotations

from pathlib import Path
from struct import pack

import pytest
from pgoutput_messages import begin, commit, insert

from catchment.model.errors import DecodeError
from catchment.pipeline.spool import Spool

STOP = b"E"


def start(xid: int, first: bool = True) -> bytes:
    return b"S" + pack(">IB", xid, first)


def part(xid: int, message: bytes) -> bytes:
    return message[:1] + pack(">I", xid) + message[1:]


def committed(xid: int, lsn: int) -> bytes:
    return b"c" + pack(">IBqqq", xid, 0, lsn, lsn + 8, 0)


def aborted(xid: int, subtransaction: int) -> bytes:
    return b"A" + pack(">II", xid, subtransaction)


def row(number: int) -> bytes:
    return insert(1, [str(number)])


def whole(directory: Path, *received: list[bytes]) -> list[bytes]:
    spool = Spool(directory)
    told = [message for messages in received for some in spool.whole(messages) for message in some]
    spool.close()
    assert not list(directory.iterdir())
    return told


def test_a_transaction_appears_at_its_commit_behind_those_that_were_committed_before(tmp_path: Path) -> None:
    other = [begin(50, xid=9), row(3), commit(50)]
    told = whole(
        tmp_path,
        [start(7), part(7, row(1)), STOP],
        other,
        [start(7, first=False), part(7, row(2)), STOP, committed(7, 100)],
    )
    assert told == [*other, begin(100, xid=7), row(1), row(2), commit(100)]


def test_what_is_rolled_back_is_left_out(tmp_path: Path) -> None:
    told = whole(
        tmp_path,
        [start(7), part(7, row(1)), part(8, row(2)), part(9, row(3)), STOP, aborted(7, 8)],
        [start(7, first=False), part(7, row(4)), STOP, committed(7, 100)],
        [start(10), part(10, row(5)), STOP, aborted(10, 10)],
    )
    assert told == [begin(100, xid=7), row(1), row(3), row(4), commit(100)]


def test_two_transactions_in_progress_do_not_mix(tmp_path: Path) -> None:
    told = whole(
        tmp_path,
        [
            start(7),
            part(7, row(1)),
            STOP,
            start(8),
            part(8, row(2)),
            STOP,
            start(7, first=False),
            part(7, row(3)),
            STOP,
        ],
        [committed(8, 100), committed(7, 200)],
    )
    assert told == [begin(100, xid=8), row(2), commit(100), begin(200, xid=7), row(1), row(3), commit(200)]


def test_a_message_larger_than_a_piece_and_many_pieces_come_in_order(tmp_path: Path) -> None:
    rows = [insert(1, [str(number) * 1_000_000]) for number in range(9)]
    told = whole(tmp_path, [start(7), *(part(7, each) for each in rows), STOP], [committed(7, 100)])
    assert told == [begin(100, xid=7), *rows, commit(100)]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "7.messages").write_bytes(b"left")
    assert whole(tmp_path, [start(7), part(7, row(1)), STOP, committed(7, 100)])[1] == row(1)


@pytest.mark.parametrize("message", [b"S", b"S\0\0", start(7) + b"x", b"c\0", b"A\0\0\0\0", b"Ex"])
def test_malformed_blocks_raise_nothing_else(tmp_path: Path, message: bytes) -> None:
    with pytest.raises(DecodeError):
        list(Spool(tmp_path).whole([message]))


def test_a_part_without_its_number_is_malformed(tmp_path: Path) -> None:
    with pytest.raises(DecodeError):
        list(Spool(tmp_path).whole([start(7), b"I\0\0"]))
