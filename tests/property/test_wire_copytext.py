"""COPY text reads back as it was written, whatever the text."""

from __future__ import annotations

from contextlib import suppress

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_twins import Twin

from catchment.model.errors import DecodeError

anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
awkward = st.text(st.sampled_from("\\\t\n\r\b\f\vNnx01.é\0"), max_size=6)
values = st.one_of(st.none(), anything, awkward)


@st.composite
def tables(draw: st.DrawFn) -> list[pa.Array]:
    rows, columns = draw(st.integers(0, 6)), draw(st.integers(1, 4))
    column = st.lists(values, min_size=rows, max_size=rows)
    return [pa.array(draw(column), pa.string()) for _ in range(columns)]


@settings(deadline=None, max_examples=400)
@given(tables())
def test_what_was_rendered_parses_to_the_same(twin: Twin, columns: list[pa.Array]) -> None:
    assert twin.parse(bytes(twin.render(columns)), len(columns)) == columns


@settings(deadline=None)
@given(tables(), st.data())
def test_a_slice_renders_as_its_copy(twin: Twin, columns: list[pa.Array], data: st.DataObject) -> None:
    rows = len(columns[0])
    first = data.draw(st.integers(0, rows))
    count = data.draw(st.integers(0, rows - first))
    copies = [pa.array(column.to_pylist()[first : first + count], pa.string()) for column in columns]
    assert twin.render([column.slice(first, count) for column in columns]) == twin.render(copies)


def one_by_one(text: str) -> str:
    """What PostgreSQL's documentation says about a value, said once more in the plainest way."""
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


@settings(deadline=None)
@given(tables())
def test_rendering_equals_the_plain_way(twin: Twin, columns: list[pa.Array]) -> None:
    rows = zip(*(column.to_pylist() for column in columns), strict=True)
    lines = ["\t".join("\\N" if value is None else one_by_one(value) for value in row) + "\n" for row in rows]
    assert twin.render(columns) == "".join(lines).encode()


pieces = st.sampled_from([b"\\", b"\t", b"\n", b"N", b"n", b"x4", b"10", b"a", b"\xc3", b"\xa9", b"\xff"])


@settings(deadline=None, max_examples=400)
@given(st.lists(pieces, max_size=12).map(b"".join), st.integers(0, 3))
def test_any_bytes_parse_or_raise_decode_error(twin: Twin, data: bytes, columns: int) -> None:
    with suppress(DecodeError):
        parsed = twin.parse(data, columns)
        for array in parsed:
            array.validate(full=True)
        assert twin.parse(bytes(twin.render(parsed)), columns) == parsed
