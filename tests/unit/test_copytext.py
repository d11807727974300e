"""COPY text as PostgreSQL writes and reads it."""

from __future__ import annotations

import pyarrow as pa
import pytest
from wire_twins import Twin

from catchment.model.errors import DecodeError


def parsed(twin: Twin, data: bytes, columns: int) -> list[list[str | None]]:
    arrays = twin.parse(data, columns)
    for array in arrays:
        array.validate(full=True)
        assert array.type == pa.string()
    return [array.to_pylist() for array in arrays]


def rendered(twin: Twin, *columns: list[str | None]) -> bytes:
    return bytes(twin.render([pa.array(column, pa.string()) for column in columns]))


def test_rows_become_columns(twin: Twin) -> None:
    assert parsed(twin, b"1\tone\n2\ttwo\n", 2) == [["1", "2"], ["one", "two"]]


def test_no_rows_are_empty_columns(twin: Twin) -> None:
    assert parsed(twin, b"", 2) == [[], []]


def test_an_empty_line_is_an_empty_text_of_one_column(twin: Twin) -> None:
    assert parsed(twin, b"\n\na\n", 1) == [["", "", "a"]]


def test_a_table_without_columns_gives_empty_lines(twin: Twin) -> None:
    assert parsed(twin, b"\n\n", 0) == []


def test_null_is_only_the_whole_value(twin: Twin) -> None:
    assert parsed(twin, b"\\N\t\t\\\\N\tx\\N\n", 4) == [[None], [""], ["\\N"], ["xN"]]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (rb"\b\f\n\r\t\v\\", "\b\f\n\r\t\v\\"),
        (rb"\\n", "\\n"),
        (rb"\\\n", "\\\n"),
        (rb"\q\.", "q."),
        (rb"\101\0612\7z", "A12\7z"),
        (rb"\x41\x4z\xg", "A\x04zxg"),
        (rb"\303\xa9", "é"),
        (b"\\\t\\\n", "\t\n"),
    ],
)
def test_escapes_are_read_as_postgresql_reads_them(twin: Twin, written: bytes, meant: str) -> None:
    assert parsed(twin, b"a\t" + written + b"\t\\N\n\t\\N\t" + written + b"\n", 3) == [
        ["a", ""],
        [meant, None],
        [None, meant],
    ]


@pytest.mark.parametrize(
    ("data", "columns", "position"),
    [
        (b"1\n", 2, 1),
        (b"1\t2\t3\n", 2, 3),
        (b"1\t2\n3\n", 2, 5),
        (b"1\t2\n3\t4", 2, 7),
        (b"1", 1, 1),
        (b"1\\\n", 1, 3),
        (b"1\\", 1, 2),
        (b"1\t", 2, 2),
        (b"a\n", 0, 1),
        (b"\t\n", 0, 0),
        (b"ab\xff\n", 1, 2),
        (b"\\\\\\N\xff\n", 1, 4),
        (b"a\\377\n", 1, 2),
        (b"\xc3\t\xa9\n", 2, 0),
    ],
)
def test_refused_at_the_byte(twin: Twin, data: bytes, columns: int, position: int) -> None:
    with pytest.raises(DecodeError) as caught:
        twin.parse(data, columns)
    assert caught.value.position == position


def test_values_never_appear_in_errors(twin: Twin) -> None:
    with pytest.raises(DecodeError) as caught:
        twin.parse(b"secret\xff\n", 1)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_rendered_rows(twin: Twin) -> None:
    assert rendered(twin, ["1", "2"], ["one", None], [None, ""]) == b"1\tone\t\\N\n2\t\\N\t\n"


def test_rendered_escapes(twin: Twin) -> None:
    assert rendered(twin, ["\\N", "\t\n\r\\", "é\b"]) == b"\\\\N\n\\t\\n\\r\\\\\n" + "é\b\n".encode()


def test_no_columns_and_no_rows_render_to_nothing(twin: Twin) -> None:
    assert rendered(twin) == rendered(twin, []) == rendered(twin, [], []) == b""


def test_slices_render_only_their_own_rows(twin: Twin) -> None:
    whole = pa.array(["a\\", None, "c", "d"], pa.string())
    assert bytes(twin.render([whole.slice(1, 2), whole.slice(2, 2)])) == b"\\N\tc\nc\td\n"
    assert bytes(twin.render([whole.slice(4)])) == b""


def test_the_rendered_text_is_plain_bytes_that_libpq_takes(twin: Twin) -> None:
    text = twin.render([pa.array(["é"], pa.string())])
    assert (text.format, text.itemsize, text.nbytes, text) == ("B", 1, 3, "é\n".encode())
