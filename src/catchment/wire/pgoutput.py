"""Decodes the messages of the output plugin pgoutput, protocol version 1.

This is the reference: plain Python that a compiled twin must equal.
https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import datetime, timedelta
from struct import Struct

import pyarrow as pa

from catchment.model.batch import Place
from catchment.model.errors import DecodeError
from catchment.model.lsn import Lsn
from catchment.wire import control
from catchment.wire.control import Begin
from catchment.wire.messages import Control, LogicalMessage, Relation, Truncate
from catchment.wire.rows import Rows

_BEGIN, _COMMIT, _ORIGIN, _RELATION, _TYPE, _TRUNCATE, _MESSAGE = b"BCORYTM"
_INSERT, _UPDATE, _DELETE = _ROWS = b"IUD"
_KEY, _OLD, _NEW = b"KON"
_NULL, _UNCHANGED, _TEXT = b"nut"

_row_head = Struct(">BIBH").unpack_from
_tuple_head = Struct(">BH").unpack_from
_length = Struct(">I").unpack_from

_FIRST_OP = {
    (_INSERT, _NEW): "c",
    (_UPDATE, _NEW): "u",
    (_UPDATE, _KEY): "b",
    (_UPDATE, _OLD): "b",
    (_DELETE, _KEY): "d",
    (_DELETE, _OLD): "d",
}


def kinds(messages: Sequence[bytes]) -> bytes:
    """The first byte of each message, 0 for an empty one."""
    return bytes([message[0] if message else 0 for message in messages])


class Decoder:
    """Turns pgoutput messages into Arrow columns.

    ``resume``: a transaction is skipped if and only if its final LSN is before this. Its rows are not even looked into.
    ``sequence``: the last ``_seq`` given out. ``rows``: held since the last ``take``; ``size``: bytes of the messages
    that made them. ``in_transaction``: between Begin and Commit, of a skipped transaction too. ``until``: end of the
    last transaction that was not skipped, at first ``resume``. ``xids``: of the transactions that began since the last
    ``take``, skipped ones left out. After a DecodeError a decoder is of no more use.
    """

    def __init__(self, resume: Lsn, sequence: int) -> None:
        self.sequence = sequence
        self.rows = 0
        self.size = 0
        self.in_transaction = False
        self.until = resume
        self.xids: list[int] = []
        self._resume = resume
        self._skipping = False
        self._begin = Begin(Lsn(0), 0, 0)
        self._transactions: list[tuple[int, Begin]] = []  # each with the first _seq that its rows can have
        self._relations: dict[int, Relation] = {}
        self._filling: dict[int, Rows] = {}
        self._held: list[Rows] = []

    @property
    def committed_at(self) -> datetime:
        """Commit time of the transaction that is open or was the last, skipped or not; before the first, 2000-01-01."""
        return control.EPOCH + timedelta(microseconds=self._begin.time)

    @property
    def commits_at(self) -> Lsn:
        """Where the transaction that is open or was the last commits, skipped or not; before the first, 0."""
        return self._begin.final_lsn

    def decode(
        self, messages: Sequence[bytes], start: int, most_rows: int, most_bytes: int
    ) -> tuple[int, Control | None]:
        """Consume messages from ``start`` on; return the index of the first one left, and what ended the run.

        A run ends behind a Relation, a Truncate or a LogicalMessage, which is returned, and behind the row message
        that makes ``rows`` reach ``most_rows`` or ``size`` reach ``most_bytes`` (at most 1 GB, since Arrow's strings
        end at 2). Raises DecodeError, and nothing else whatever the bytes.
        """
        index = start
        while index < len(messages):
            message = messages[index]
            if not message:
                control.ends_early(message)
            if message[0] not in _ROWS:
                index += 1
                event = self._control(message)
                if event is not None:
                    return index, event
            elif not self.in_transaction:
                raise DecodeError("a row outside of a transaction")
            elif self._skipping:
                index += 1
            else:
                index = self._append(messages, index, most_rows, most_bytes)
                if self.rows >= most_rows or self.size >= most_bytes:
                    return index, None
        return index, None

    def take(self) -> list[tuple[Relation, pa.RecordBatch]]:
        """The rows held, by relation in order of first appearance, laid out as ``rows_schema``; none are left.

        Raises DecodeError when a value is not valid UTF-8.
        """
        taken = [(rows.relation, rows.to_arrow(self._transactions)) for rows in self._held]
        self._transactions = self._transactions[-1:]
        self._filling = {}
        self._held = []
        self.xids = []
        self.rows = self.size = 0
        return taken

    def _append(self, messages: Sequence[bytes], start: int, most_rows: int, most_bytes: int) -> int:
        """Take in Inserts, Updates and Deletes from ``start`` on; return the index of the first message left.

        A busy source spends nearly all of its time here: hence the local variables, and no check of a value's bounds. A
        length beyond the end makes a short slice and leaves ``position`` behind the end, which is noticed once a row.
        """
        sequence, size = self.sequence, self.size
        last_sequence = sequence + most_rows - self.rows
        filled, width = None, 0
        index, end = start, len(messages)
        message = b""
        try:
            while index < end:
                message = messages[index]
                if message[0] not in _ROWS:
                    break
                index += 1
                kind, oid, marker, count = _row_head(message)
                op = _FIRST_OP.get((kind, marker))
                if op is None:
                    raise DecodeError(f"unknown kind of row {marker:#04x}", position=5)
                if oid != filled:
                    rows = self._filling.get(oid) or self._fill(oid)
                    values, unchanged, ops, sequences = rows.values, rows.unchanged, rows.ops, rows.sequences
                    filled, width = oid, rows.width
                position = 8
                while True:
                    if count != width:
                        raise DecodeError(f"{count} columns where there should be {width}", position=position - 2)
                    for _ in range(width):
                        kind = message[position]
                        if kind == _TEXT:
                            first = position + 5
                            position = first + _length(message, position + 1)[0]
                            values.append(message[first:position])
                        elif kind == _NULL:
                            position += 1
                            values.append(None)
                        elif kind == _UNCHANGED:
                            position += 1
                            unchanged.append(len(values))
                            values.append(None)
                        else:
                            raise DecodeError(f"unknown kind of value {kind:#04x}", position=position)
                    sequence += 1
                    sequences.append(sequence)
                    ops.append(op)
                    if op != "b":
                        break
                    marker, count = _tuple_head(message, position)
                    if marker != _NEW:
                        raise DecodeError(f"unknown kind of row {marker:#04x}", position=position)
                    op = "u"
                    position += 3
                if position != len(message):
                    control.check_end(message, position)
                size += position
                if sequence >= last_sequence or size >= most_bytes:
                    break
        except (IndexError, struct.error):
            control.ends_early(message)
        self.rows += sequence - self.sequence
        self.sequence, self.size = sequence, size
        return index

    def _fill(self, oid: int) -> Rows:
        rows = Rows(self._known(oid))
        self._filling[oid] = rows
        self._held.append(rows)
        return rows

    def _known(self, oid: int) -> Relation:
        relation = self._relations.get(oid)
        if relation is None:
            raise DecodeError(f"no relation was announced for oid {oid}")
        return relation

    def _control(self, message: bytes) -> Control | None:
        kind = message[0]
        if kind == _BEGIN:
            self._begin_transaction(control.begin(message))
        elif kind == _COMMIT:
            self._end_transaction(*control.commit(message))
        elif kind == _RELATION:
            return self._announce(control.relation(message))
        elif kind == _TRUNCATE:
            return self._truncate(control.truncate(message))
        elif kind == _MESSAGE:
            return self._message(*control.logical_message(message))
        elif kind == _ORIGIN:
            control.check_origin(message)
        elif kind == _TYPE:
            control.check_type(message)
        else:
            raise DecodeError(f"unknown kind of message {kind:#04x}")
        return None

    def _begin_transaction(self, begin: Begin) -> None:
        if self.in_transaction:
            raise DecodeError("a transaction begins inside another")
        self.in_transaction = True
        self._begin = begin
        self._skipping = begin.final_lsn < self._resume
        if self._skipping:
            return
        self.xids.append(begin.xid)
        first = self.sequence + 1
        if self._transactions and self._transactions[-1][0] == first:
            # The last one had no rows. An idle table's stream is nothing but such transactions.
            self._transactions.pop()
        self._transactions.append((first, begin))

    def _end_transaction(self, lsn: Lsn, end_lsn: Lsn) -> None:
        if not self.in_transaction:
            raise DecodeError("a transaction ends that did not begin")
        if lsn != self._begin.final_lsn:
            raise DecodeError("a transaction ends that is not the one that began", position=2)
        self.in_transaction = False
        if not self._skipping:
            self.until = end_lsn

    def _announce(self, relation: Relation) -> Relation:
        if self._relations.get(relation.oid) != relation:
            self._relations[relation.oid] = relation
            self._filling.pop(relation.oid, None)
        return relation

    def _truncate(self, oids: tuple[int, ...]) -> Truncate | None:
        if not self.in_transaction:
            raise DecodeError("a TRUNCATE outside of a transaction")
        for oid in oids:
            self._known(oid)
        return None if self._skipping else Truncate(oids, self._next_place(self._begin.final_lsn, self._begin.xid))

    def _message(self, transactional: bool, lsn: Lsn, prefix: str, content: bytes) -> LogicalMessage | None:
        if transactional != self.in_transaction:
            where = "outside of" if transactional else "inside"
            raise DecodeError(f"this logical message cannot be {where} a transaction", position=1)
        if transactional:
            if self._skipping:
                return None
            place = self._next_place(self._begin.final_lsn, self._begin.xid)
        else:
            # A message is placed by the end of its record, a transaction by the beginning of its commit.
            if lsn <= self._resume:
                return None
            place = self._next_place(lsn, 0)
        return LogicalMessage(prefix, content, transactional, place)

    def _next_place(self, lsn: Lsn, xid: int) -> Place:
        self.sequence += 1
        return Place(self.sequence, lsn, xid, self.committed_at)
