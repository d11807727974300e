"""Streams of any kind as hypothesis draws them, with what a decoder must make of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pgoutput_messages as pg
from hypothesis import strategies as st
from pgoutput_messages import UNCHANGED

from catchment.model.batch import Place
from catchment.model.lsn import Lsn
from catchment.model.table import ReplicaIdentity
from catchment.wire.messages import Control, LogicalMessage, Relation, RelationColumn, Truncate

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=6)
values = st.one_of(st.none(), st.just(UNCHANGED), texts)
columns = st.builds(RelationColumn, names, st.integers(0, 2**32 - 1), st.integers(-(2**31), 2**31 - 1), st.booleans())


@st.composite
def relations(draw: st.DrawFn, oid: int) -> Relation:
    shape = draw(st.lists(columns, max_size=4))
    return Relation(oid, draw(names), draw(names), draw(st.sampled_from(ReplicaIdentity)), tuple(shape))


@dataclass
class Stream:
    """Messages, and what a decoder that resumes at ``resume`` must make of them.

    Rows: ``(relation, whole row with META first)`` in order.
    """

    resume: int
    messages: list[bytes] = field(default_factory=list)
    rows: list[tuple[Relation, tuple[Any, ...]]] = field(default_factory=list)
    events: list[Control] = field(default_factory=list)
    xids: list[int] = field(default_factory=list)
    sequence: int = 0
    until: int = 0

    def next_sequence(self) -> int:
        self.sequence += 1
        return self.sequence

    def expect(self, op: str, relation: Relation, row: Sequence[Any], place: tuple[Any, ...]) -> None:
        unchanged = [number for number, value in enumerate(row) if value is UNCHANGED] or None
        told = tuple(None if value is UNCHANGED else value for value in row)
        self.rows.append((relation, (op, self.next_sequence(), *place, unchanged, *told)))


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    stream = Stream(resume=draw(st.integers(100, 160)))
    stream.until = stream.resume
    known: dict[int, Relation] = {}
    end = 100
    for _ in range(draw(st.integers(1, 4))):
        final_lsn = end + draw(st.integers(0, 20))
        end = final_lsn + draw(st.integers(1, 20))
        xid = draw(st.integers(0, 2**32 - 1))
        time = draw(st.integers(-(10**15), 10**15))
        committed_at = EPOCH + timedelta(microseconds=time)
        told = final_lsn >= stream.resume
        stream.messages.append(pg.begin(final_lsn, xid, time))
        if told:
            stream.xids.append(xid)
        for _ in range(draw(st.integers(0, 8))):
            oid = draw(st.integers(1, 3))
            if oid not in known or draw(st.integers(0, 7)) == 0:
                known[oid] = draw(relations(oid))
                stream.messages.append(pg.relation(known[oid]))
                stream.events.append(known[oid])
            relation = known[oid]
            row = st.lists(values, min_size=len(relation.columns), max_size=len(relation.columns))
            place = (final_lsn, xid, committed_at)
            match draw(st.sampled_from("iuuKODTM")):
                case "i":
                    new = draw(row)
                    stream.messages.append(pg.insert(oid, new))
                    told_rows = [("c", new)]
                case "u":
                    new = draw(row)
                    stream.messages.append(pg.update(oid, new))
                    told_rows = [("u", new)]
                case ("K" | "O") as marker:
                    old, new = draw(row), draw(row)
                    before = {"key": old} if marker == "K" else {"old": old}
                    stream.messages.append(pg.update(oid, new, **before))
                    told_rows = [("b", old), ("u", new)]
                case "D":
                    old = draw(row)
                    stream.messages.append(pg.delete(oid, key=old))
                    told_rows = [("d", old)]
                case "T":
                    stream.messages.append(pg.truncate(oid))
                    told_rows = []
                    if told:
                        at = Place(stream.next_sequence(), Lsn(final_lsn), xid, committed_at)
                        stream.events.append(Truncate((oid,), at))
                case _:
                    prefix, content = draw(names), draw(st.binary(max_size=5))
                    stream.messages.append(pg.logical_message(prefix, content, lsn=final_lsn - 1))
                    told_rows = []
                    if told:
                        at = Place(stream.next_sequence(), Lsn(final_lsn), xid, committed_at)
                        stream.events.append(LogicalMessage(prefix, content, True, at))
            if told:
                for op, values_told in told_rows:
                    stream.expect(op, relation, values_told, place)
        stream.messages.append(pg.commit(final_lsn, end))
        if told:
            stream.until = end
    return stream


kinds = st.sampled_from([bytes([kind]) for kind in b"BCORYTMIUDSEcArKbPp"])
messages = st.one_of(st.binary(max_size=60), st.builds(lambda kind, rest: kind + rest, kinds, st.binary(max_size=60)))


@st.composite
def damaged(draw: st.DrawFn) -> Stream:
    """A stream of whose messages some bytes are others, too many or too few."""
    stream = draw(streams())
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(stream.messages) - 1))
        message = stream.messages[place]
        first = draw(st.integers(0, len(message)))
        last = draw(st.integers(first, min(len(message), first + 4)))
        stream.messages[place] = message[:first] + draw(st.binary(max_size=4)) + message[last:]
    return stream
