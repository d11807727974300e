"""Positions in PostgreSQL's write-ahead log."""

from __future__ import annotations

from typing import Self

_PAGE = 8192
_SHORT_PAGE_HEADER = 24
_LONG_PAGE_HEADER = 40


class Lsn(int):
    """A byte position in the write-ahead log, printed as PostgreSQL's ``pg_lsn`` prints it.

    Order and difference are those of ``int``; a difference is a number of bytes.
    https://www.postgresql.org/docs/current/datatype-pg-lsn.html
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``'0/16B3748'``. Raises ValueError for anything else."""
        high, slash, low = text.partition("/")
        if not slash or not 1 <= len(high) <= 8 or not 1 <= len(low) <= 8:
            raise ValueError(f"not a WAL position: {text!r}")
        return cls((int(high, 16) << 32) | int(low, 16))

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"Lsn('{self}')"

    def before_page_header(self, segment_bytes: int) -> Lsn:
        """This position, or the end of the page before when it stands just behind a page's header.

        ``pg_current_wal_insert_lsn()`` names the place of the *next* record, which on a fresh page is behind the
        page's header; no record and no keepalive ever ends between the two, so waiting for it would wait for
        the next write. A segment's first page has the long header.
        """
        if self % segment_bytes == _LONG_PAGE_HEADER:
            return Lsn(self - _LONG_PAGE_HEADER)
        if self % _PAGE == _SHORT_PAGE_HEADER and self % segment_bytes > _PAGE:
            return Lsn(self - _SHORT_PAGE_HEADER)
        return self
