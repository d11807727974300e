"""Rows that a backfill has read and holds until the stream has passed its fence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from catchment.model.errors import LogFull


class HeldRows:
    """A file of columns of text. It is not durable: after a crash the table is read again."""

    def __init__(self, path: Path, columns: int) -> None:
        """Raises LogFull when there is no space."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        self._path = path
        self._schema = pa.schema([pa.field(str(position), pa.string()) for position in range(columns)])
        self.rows = 0
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._writer = pa.ipc.new_stream(str(path), self._schema, options=options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def write(self, columns: Sequence[pa.Array[Any]]) -> None:
        """Hold these rows too. Raises LogFull when there is no space."""
        batch = pa.RecordBatch.from_arrays(list(columns), schema=self._schema)
        try:
            self._writer.write_batch(batch)
        except OSError as error:
            raise LogFull(f"no space to hold the rows of a backfill ({error.strerror or error})") from None
        self.rows += batch.num_rows

    def chunks(self) -> Iterator[list[pa.Array[Any]]]:
        """The rows again, as they were written."""
        with pa.memory_map(str(self._path)) as file, pa.ipc.open_stream(file) as reader:
            for batch in reader:
                yield batch.columns

    def remove(self) -> None:
        """Delete the file."""
        self._path.unlink(missing_ok=True)
