"""What messages are gathered in, by either twin."""

from __future__ import annotations

import pytest
from wire_twins import NATIVE_IS_BUILT, Twin, compiled, gathered

MANY = [bytes([number % 256]) * (number % 300) for number in range(5000)]


def test_messages_are_a_sequence_of_bytes(twin: Twin) -> None:
    messages = gathered(twin, MANY)
    assert len(messages) == len(MANY)
    assert list(messages) == MANY
    assert messages[7] == MANY[7]
    assert messages[-1] == MANY[-1]
    assert messages[0] == b""
    for place in (len(MANY), -len(MANY) - 1):
        with pytest.raises(IndexError):
            messages[place]
    assert not gathered(twin, [])
    assert list(gathered(twin, [])[:]) == []


def test_a_part_is_a_sequence_too_and_outlives_the_whole(twin: Twin) -> None:
    part = gathered(twin, MANY)[1000:4000]
    assert list(part) == MANY[1000:4000]
    assert part[-1] == MANY[3999]
    part = part[500:][:-1]
    assert list(part) == MANY[1500:3999]
    assert twin.kinds(part) == twin.kinds(MANY[1500:3999])
    assert list(part[9:3]) == list(part[9000:]) == []


def test_messages_are_joined_and_make_room_for_others(twin: Twin) -> None:
    messages = gathered(twin, MANY)
    with twin.joined(messages) as together:
        assert bytes(together) == b"".join(MANY)
    messages.clear()
    assert not messages
    with twin.joined(messages) as together:
        assert bytes(together) == b""
    messages.append(b"other")
    assert list(messages) == [b"other"]


def test_nothing_is_added_to_memory_that_somebody_else_reads() -> None:
    if not NATIVE_IS_BUILT:
        pytest.skip("the compiled twin is not built here")
    twin = compiled()
    messages = twin.Messages()
    messages.append(b"a")
    part = messages[:1]
    for either in (messages, part):
        with pytest.raises(BufferError):
            either.append(b"b")  # type: ignore[attr-defined]
        with pytest.raises(BufferError):
            either.clear()  # type: ignore[attr-defined]
    assert list(part) == list(messages) == [b"a"]
    del part, either
    messages.append(b"b")
    with twin.joined(messages), pytest.raises(BufferError):
        messages.append(b"c")
    messages.append(b"c")
    assert list(messages) == [b"a", b"b", b"c"]
    with pytest.raises(ValueError, match="stand together"):
        messages[::2]
    with pytest.raises(TypeError):
        messages.append(None)  # type: ignore[arg-type]
