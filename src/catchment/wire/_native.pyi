from collections.abc import Collection, Sequence
from typing import Any

import pyarrow as pa

from catchment.wire._messages import Messages
from catchment.wire.messages import Relation

Buffers = list[tuple[bool, memoryview | None, memoryview, memoryview]]
Taken = tuple[
    Relation,
    int,
    memoryview,
    memoryview,
    memoryview,
    memoryview,
    memoryview,
    tuple[memoryview, memoryview] | None,
    Buffers,
]

class Held:
    sequence: int
    count: int
    size: int
    until: int
    lsn: int
    time: int
    xid: int
    in_transaction: bool
    skipping: bool
    @property
    def begun(self) -> list[int]: ...
    @property
    def full(self) -> bool: ...
    @property
    def unknown(self) -> int | None: ...
    def __init__(self, resume: int) -> None: ...
    def add(self, oid: int, relation: Relation) -> None: ...
    def forget(self, oid: int) -> None: ...
    def run(self, messages: Sequence[bytes], start: int, most_rows: int, most_bytes: int) -> int: ...
    def take(self) -> list[Taken]: ...

def kinds(messages: Sequence[bytes]) -> bytes: ...
def pack(messages: Sequence[bytes], start: int, xid: int) -> tuple[int, bytes]: ...
def unpack(data: bytes, aborted: Collection[int]) -> tuple[int, Messages]: ...
def parse(data: bytes | memoryview, width: int) -> tuple[int, Buffers] | None: ...
def render(columns: Sequence[pa.Array[Any]]) -> memoryview: ...
