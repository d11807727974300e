"""Verify: source and target hold the same rows, shown without stopping either."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from catchment.log.base import Log
from catchment.model.errors import CatchmentError, SourceUnreachable, TableStopped, TargetUnreachable
from catchment.model.lsn import Lsn
from catchment.pipeline.state import KnownTable, Refill
from catchment.pipeline.verify_place import Places
from catchment.pipeline.verify_table import Comparison
from catchment.pipeline.verify_verdict import Difference
from catchment.postgres.catalog import PublishedTable
from catchment.postgres.reading import SourceReader
from catchment.postgres.source import Source
from catchment.targets.base import TargetReader

Watch = Callable[[str, int, int | None], None]
"""Hears which table is being compared, how many of its rows were, and of about how many."""


@dataclass(frozen=True, slots=True)
class TableReport:
    """What has come out for one table in one target.

    ``rows``: of the source, compared. ``position``: the target was there, or further, whenever anything was compared.
    ``differences``: by key, which ``key`` names; of a table without a key there are only counts, ``missing`` and
    ``extra``. ``waiting``: rows that differ because the target was not yet told of them. ``reason``: the sentence of
    why the table could not be compared, or not to its end.
    """

    target: str
    table: str
    key: tuple[str, ...]
    rows: int
    position: Lsn | None
    differences: tuple[Difference, ...] = ()
    missing: int = 0
    extra: int = 0
    waiting: int = 0
    reason: str | None = None

    @property
    def state(self) -> Literal["equal", "different", "unverified"]:
        """Different if any row is; unverified if none is known to be, but not all are known not to be."""
        if self.differing:
            return "different"
        return "unverified" if self.waiting or self.reason else "equal"

    @property
    def differing(self) -> int:
        """How many rows differ."""
        return len(self.differences) + self.missing + self.extra

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` prints it. Keys are values of rows."""
        return {
            "target": self.target,
            "table": self.table,
            "state": self.state,
            "rows": self.rows,
            "position": None if self.position is None else str(self.position),
            "differing": self.differing,
            "missing": self.missing + sum(one.kind == "missing" for one in self.differences),
            "extra": self.extra + sum(one.kind == "extra" for one in self.differences),
            "waiting": self.waiting,
            "reason": self.reason,
            "differences": [
                {"key": dict(zip(self.key, one.key, strict=True)), "kind": one.kind, "columns": list(one.columns)}
                for one in self.differences
            ],
        }


class Verification:
    """Compares one source with one target. ``running`` says whether a hub moves log and target on."""

    def __init__(
        self, source: Source, reader: SourceReader, target: TargetReader, log: Log, running: Callable[[], bool]
    ) -> None:
        self._source = source
        self._reader = reader
        self._target = target
        self._log = log
        self._places = Places(source.name, reader, target, log, running)

    def tables(self, names: Sequence[str]) -> list[PublishedTable]:
        """The published tables of these names, all when there is none. Raises TableStopped for a name of none."""
        published = {str(each.table): each for each in self._reader.tables().values()}
        for name in names:
            if name not in published:
                raise TableStopped(
                    f"publication {self._source.publication} has no table {name}",
                    source=self._source.name,
                    remedy="name tables as schema.table; `catchment check` counts those that are shared",
                )
        return [each for name, each in published.items() if not names or name in names]

    def run(self, tables: Sequence[PublishedTable], watch: Watch) -> Iterator[TableReport]:
        """Compare these tables, one after the other. Raises SourceUnreachable, TargetUnreachable."""
        for published in tables:
            table = published.table

            def count(rows: int, published: PublishedTable = published) -> None:
                watch(str(published.table), rows, published.estimated_rows)

            comparison = Comparison(self._places, self._reader, published, count)
            reason = None
            count(0)
            try:
                self._require_followed(published)
                comparison.run()
            except (SourceUnreachable, TargetUnreachable):
                raise
            except CatchmentError as error:
                reason = str(error)
            report = TableReport(
                target=self._target.name,
                table=str(table),
                key=table.key,
                rows=comparison.rows,
                position=comparison.position,
                differences=tuple(comparison.differences),
                missing=comparison.missing,
                extra=comparison.extra,
                waiting=comparison.waiting,
                reason=reason,
            )
            yield self._reconsidered(report, published)

    def _reconsidered(self, report: TableReport, published: PublishedTable) -> TableReport:
        """A table that turned out meanwhile to need reading again is not called different."""
        if report.state == "different":
            try:
                self._require_followed(published)
            except TableStopped as error:
                return replace(report, differences=(), missing=0, extra=0, reason=str(error))
        return report

    def _require_followed(self, published: PublishedTable) -> None:
        """Raises TableStopped when the log is not meant to have all that happens to the table."""
        state = self._log.state(self._source.name)
        table = published.table
        known = KnownTable.of(state).get(table.oid)
        if known is not None and known.stopped:
            raise TableStopped(known.stopped)
        awaited = {
            oid
            for refill in Refill.of(state)
            if refill.finished is None and not refill.keys and self._target.name in refill.targets
            for oid in refill.tables
        }
        if known is None or known.retired:
            what, remedy = "is not in the log yet", "wait until `catchment status` shows it, then verify again"
        elif known.refill or not known.followed or table.oid in awaited:
            what, remedy = "is being read again", "verify it when that is done; `catchment status` shows it"
        elif known.relation != published.relation:
            what, remedy = "has just changed its shape", "verify it again in a moment"
        else:
            return
        raise TableStopped(what, source=self._source.name, table=str(table), remedy=remedy)
