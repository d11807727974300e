"""The decoder against a model, against every way to divide a stream, and against bytes of any kind.

These stand beside the message builder that they share with the unit tests.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pgoutput_messages as pg
from hypothesis import given, settings
from hypothesis import strategies as st
from pgoutput_streams import Stream, damaged, messages, streams
from wire_twins import Twin

from catchment.model.errors import DecodeError
from catchment.model.lsn import Lsn
from catchment.wire.messages import Control, Relation


def in_order(taken: list[tuple[Relation, list[tuple[Any, ...]]]]) -> list[tuple[Relation, tuple[Any, ...]]]:
    return sorted(((shape, row) for shape, rows in taken for row in rows), key=lambda each: each[1][1])


@settings(deadline=None)
@given(streams())
def test_decoding_is_the_inverse_of_sending(twin: Twin, stream: Stream) -> None:
    decoded = pg.decode(twin, stream.messages, resume=stream.resume)
    assert in_order(decoded.rows) == stream.rows
    assert decoded.events == stream.events
    assert (decoded.decoder.sequence, decoded.decoder.until) == (stream.sequence, stream.until)


@settings(deadline=None)
@given(streams(), st.data())
def test_dividing_the_stream_changes_nothing(twin: Twin, stream: Stream, data: st.DataObject) -> None:
    decoder = twin.Decoder(Lsn(stream.resume), 0)
    rows: list[tuple[Relation, tuple[Any, ...]]] = []
    events: list[Control] = []
    xids: list[int] = []
    rest = stream.messages
    while rest:
        count = data.draw(st.integers(1, len(rest)))
        arrived, rest = rest[:count], rest[count:]
        index = 0
        while index < len(arrived):
            most_rows, most_bytes = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 100))
            start, rows_before, size_before = index, decoder.rows, decoder.size
            index, event = decoder.decode(arrived, index, most_rows, most_bytes)
            assert index > start
            full = decoder.rows >= most_rows or decoder.size >= most_bytes
            assert index == len(arrived) or event is not None or full
            # Only the last message may have gone over a limit, with two rows at most.
            assert decoder.rows <= max(most_rows, rows_before + 1) + 1
            assert decoder.size - size_before <= most_bytes + max(map(len, arrived))
            if event is not None:
                events.append(event)
            if full or data.draw(st.booleans()):
                xids += decoder.xids
                rows += in_order(pg.take(decoder))
    xids += decoder.xids
    rows += in_order(pg.take(decoder))
    assert rows == stream.rows
    assert events == stream.events
    assert xids == stream.xids
    assert (decoder.sequence, decoder.until) == (stream.sequence, stream.until)


def decodes_or_is_refused(twin: Twin, messages: list[bytes]) -> None:
    with suppress(DecodeError):
        pg.decode(twin, messages)


@settings(deadline=None, max_examples=300)
@given(st.lists(messages, max_size=4))
def test_any_bytes_decode_or_raise_decode_error(twin: Twin, arrived: list[bytes]) -> None:
    decodes_or_is_refused(twin, [pg.begin(), *arrived])


@settings(deadline=None, max_examples=150)
@given(damaged())
def test_a_damaged_stream_decodes_or_raises_decode_error(twin: Twin, stream: Stream) -> None:
    decodes_or_is_refused(twin, stream.messages)
