"""Rows that a backfill has read and holds until the stream has passed its fence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from catchment.changes.backfilled import held_schema
from catchment.model.errors import LogFull


class HeldRows:
    """A file of columns of text. It is not durable: after a crash the table is read again. Raises LogFull."""

    def __init__(self, path: Path, columns: int) -> None:
        self._path = path
        self._schema = held_schema(columns)
        self._counts: list[int] = []
        self.rows = 0
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with full_disk("the rows of a backfill"):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.unlink(missing_ok=True)
            path.touch(mode=0o600)
            self._writer = pa.ipc.new_stream(str(path), self._schema, options=options)

    def write(self, columns: Sequence[pa.Array[Any]]) -> None:
        """Hold these rows too."""
        batch = pa.RecordBatch.from_arrays(list(columns), schema=self._schema)
        with full_disk("the rows of a backfill"):
            self._writer.write_batch(batch)
        self._counts.append(batch.num_rows)
        self.rows += batch.num_rows

    def finish(self) -> None:
        """There are no more."""
        with full_disk("the rows of a backfill"):
            self._writer.close()

    def chunks(self) -> Iterator[list[pa.Array[Any]]]:
        """The rows again, as they were written."""
        with pa.memory_map(str(self._path)) as file, pa.ipc.open_stream(file) as reader:
            for batch in reader:
                yield batch.columns

    def packed(self) -> Iterator[tuple[pa.Buffer, int]]:
        """The same, each chunk still packed, with the number of its rows."""
        with pa.memory_map(str(self._path)) as file:
            messages = pa.ipc.MessageReader.open_stream(file)
            messages.read_next_message()  # their schema
            for count in self._counts:
                yield messages.read_next_message().serialize(), count

    def remove(self) -> None:
        """Delete the file."""
        with suppress(OSError):
            self._writer.close()
        self._path.unlink(missing_ok=True)


@contextmanager
def full_disk(what: str) -> Iterator[None]:
    """Raise LogFull when this cannot be held."""
    try:
        yield
    except OSError as error:
        raise LogFull(f"cannot hold {what} ({error.strerror or type(error).__name__})") from None
