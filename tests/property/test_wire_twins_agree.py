"""Both twins tell the same of every stream and of every text: the same columns, or the same error at the same byte."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import pgoutput_messages as pg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pgoutput_streams import Stream, damaged, messages, streams
from wire_twins import NATIVE_IS_BUILT, REFERENCE, Piece, Twin, compiled, told_of_parts, told_of_stream, told_of_text


def test_the_compiled_twin_is_built_where_it_can_be() -> None:
    compiler = shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0])
    headers = Path(sysconfig.get_path("include"), "Python.h")
    assert NATIVE_IS_BUILT or not compiler or not headers.exists(), "install Catchment again: make clean install"


@pytest.fixture(scope="session")
def native() -> Twin:
    """The compiled twin."""
    if not NATIVE_IS_BUILT:
        pytest.skip("the compiled twin is not built here")
    return compiled()


@st.composite
def divided(draw: st.DrawFn, arrived: list[bytes]) -> list[Piece]:
    pieces, rest = [], arrived
    while rest:
        count = draw(st.integers(1, len(rest)))
        limits = draw(st.integers(1, 6)), draw(st.integers(1, 120))
        pieces.append(Piece(rest[:count], *limits, take=draw(st.booleans()), gathered=draw(st.booleans())))
        rest = rest[count:]
    return pieces


@settings(deadline=None, max_examples=200)
@given(st.one_of(streams(), damaged()), st.data())
def test_twins_agree_on_streams_whole_or_damaged(native: Twin, stream: Stream, data: st.DataObject) -> None:
    pieces = data.draw(divided(stream.messages))
    expected = told_of_stream(REFERENCE, stream.resume, 0, pieces)
    assert told_of_stream(native, stream.resume, 0, pieces) == expected


@settings(deadline=None, max_examples=200)
@given(st.lists(messages, max_size=5), st.data())
def test_twins_agree_on_any_bytes(native: Twin, arrived: list[bytes], data: st.DataObject) -> None:
    pieces = data.draw(divided([pg.begin(), *arrived]))
    assert told_of_stream(native, 0, 7, pieces) == told_of_stream(REFERENCE, 0, 7, pieces)
    assert native.kinds(arrived) == REFERENCE.kinds(arrived)


@settings(deadline=None, max_examples=200)
@given(st.lists(messages, max_size=5), st.integers(0, 2**32 - 1), st.integers(0, 20), st.booleans())
def test_twins_agree_on_parts(native: Twin, arrived: list[bytes], xid: int, cut: int, abort: bool) -> None:
    aborted = {xid, int.from_bytes(arrived[0][1:5])} if abort and arrived else set()
    expected = told_of_parts(REFERENCE, arrived, xid, aborted, cut)
    assert told_of_parts(native, arrived, xid, aborted, cut) == expected


text = st.sampled_from(
    [b"\\", b"\t", b"\n", b"N", b"n", b"x4", b"X", b"1", b"08", b"a", b"\xc3", b"\xa9", b"\xff", b"\0"]
)


@settings(deadline=None, max_examples=400)
@given(st.lists(text, max_size=14).map(b"".join), st.integers(0, 3), st.booleans())
def test_twins_agree_on_any_text(native: Twin, data: bytes, columns: int, ended: bool) -> None:
    data += b"\n" if ended else b""
    assert told_of_text(native, data, columns) == told_of_text(REFERENCE, data, columns)
