"""Which shape each table has at the place of the stream that is being read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from catchment.changes.columns import letters
from catchment.changes.run import CREATE
from catchment.log.base import State
from catchment.model.batch import OP, Event, SchemaChanged, TableRows
from catchment.model.errors import TableLocked
from catchment.model.lsn import Lsn
from catchment.model.table import ReplicaIdentity, Table
from catchment.pipeline.fingerprint import Change, change, only_renamed, renamed, same_shape
from catchment.pipeline.state import KEPT, TABLE, KnownTable
from catchment.postgres.catalog import PublishedTable
from catchment.wire.messages import Relation

Published = Mapping[int, PublishedTable]


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes known of some tables at one place of the stream, and the events that say so."""

    tables: tuple[KnownTable, ...]
    events: tuple[Event, ...] = ()


class Shapes:
    """Follows Relation messages, with the catalog for what they do not say.

    A Relation states the shape at its place in the stream, the catalog the shape of now: the catalog is believed only
    where the two agree. Where they do not, and where old rows have changed without a word in the stream, the table's
    changes are left out until a refill has read it as it is: targets show it as it was until then.
    ``pipeline/fingerprint.py`` tells what a change amounts to.

    ``look_up`` asks the catalog for one table, or for all; it may raise TableLocked.
    """

    def __init__(
        self,
        source: str,
        state: Mapping[str, bytes],
        look_up: Callable[[int | None], Published],
        now: Callable[[], str],
    ) -> None:
        self._source = source
        self._look_up = look_up
        self._now = now
        self._saved: dict[str, bytes | None] = {}
        self._summary: list[dict[str, str | None]] | None = None
        self._waiting: dict[int, tuple[PublishedTable, Lsn]] = {}
        self._compared_at = Lsn(0)
        self._unchanged: set[int] = set()
        self.known = KnownTable.of(state)
        self.unfilled = {oid for oid, known in self.known.items() if known.refill}
        """Tables whose rows have to be read (again) for all targets."""
        self.reading: int | None = None
        """The table that a backfill is reading, if any: what is not followed of it has to be kept all the same."""
        self.estimates: Mapping[int, int | None] = {}
        """About how many rows each published table has, where the planner knows."""
        self.emptied = False
        """Whether what is being read is void: truncated while it was not followed, or changed so that it is not good
        any more."""

    @property
    def unsaved(self) -> bool:
        """Whether there are changes to be handed out."""
        return bool(self._saved)

    def changes(self) -> State:
        """What has to be saved with the next batch; handed out once."""
        saved, self._saved = self._saved, {}
        return saved

    def summary(self) -> list[dict[str, str | None]]:
        """What ``status`` shows of the tables; made anew only when one has changed."""
        if self._summary is None:
            self._summary = [known.summary() for known in self.known.values()]
        return self._summary

    def trouble(self) -> str | None:
        """The sentence of the first table that has stopped."""
        return next((table["remedy"] for table in self.summary() if table["remedy"]), None)

    def read(self, oid: int | None) -> None:
        """A backfill begins to read this table, or has ended."""
        self.reading, self.emptied = oid, False

    def rows(self, relation: Relation, data: pa.RecordBatch) -> TableRows | None:
        """These rows as they go into the log; null when they are left out."""
        known = self.known.get(relation.oid)
        if known is None:
            return None
        if known.relation != relation:
            if known.followed:
                self._keep(_unfollowed(known))  # they are of a shape that it was thought to have no more
            return None
        if not known.table.columns:
            self._keep(_unfollowed(known))  # no target can tell such rows apart: reading it says what is to be done
            return None
        if _names_rows_without_a_key(known.table, data):
            # They are from before its key was dropped. Once ANALYZE has noticed that it has no index any more, which it
            # writes down as if that had always been so, Relation messages show none for the time before either.
            self._keep(_unfollowed(known))
            return None
        if known.followed:
            return TableRows(known.table, data)
        return TableRows(known.table, data, KEPT) if relation.oid == self.reading else None

    def truncated(self, oids: Sequence[int]) -> tuple[Table, ...]:
        """Those of these tables that are followed."""
        known = [self.known[oid] for oid in oids if oid in self.known]
        self.emptied |= any(table.table.oid == self.reading and not table.followed for table in known)
        return tuple(table.table for table in known if table.followed)

    def meet(self, relation: Relation, place: Lsn) -> Step | None:
        """What a Relation message means in the transaction that commits at ``place``.

        Null when rows are told as before. The step is to be taken once what came before it has been told.
        """
        known = self.known.get(relation.oid)
        if known and known.relation == relation and relation.oid in self._unchanged and place < self._compared_at:
            return None  # a stream that begins anew says all of them again
        try:
            published = self._look_up(relation.oid).get(relation.oid)
        except TableLocked:
            if known is None or known.relation == relation:
                return None  # what its catalog would say is found when it can be asked again
            return Step((_unfollowed(known),))
        if published is None:
            return None if known is None or known.retired else Step((_retired(known),))
        agreed = published.relation == relation
        if known is None:
            new, told = self._new(published, followed=agreed)
            others = self._told(self._gave_way_to(published))
            return Step((*others.tables, new), (*others.events, *told))
        found = change(known, published)
        if not known.followed:
            same = found is Change.NOTHING and not known.retired
            return None if same else Step((self._left_out(known, published, found),))
        if not agreed and known.relation == relation and found is Change.IN_PLACE:
            return None  # what the catalog shows is still to come
        if not agreed or found >= Change.REFILL:
            return Step((self._left_out(known, published, found),))
        if found is Change.NOTHING:
            self._note(known, published)
            return None
        with_it = self._gave_way_to(published) if renamed(known.table, published.table) else []
        return self._told([(known, published), *with_it])

    def take(self, step: Step) -> tuple[Event, ...]:
        """From here on it is so; returns the events that say it."""
        for known in step.tables:
            self._keep(known)
        return step.events

    def _gave_way_to(self, published: PublishedTable) -> list[tuple[KnownTable, PublishedTable]]:
        """The table that had this name before, and so on: they have got others, though their turn is still to come."""
        holders = {str(known.table): known for known in self.known.values() if known.followed}
        if str(published.table) not in holders:
            return []
        try:
            now = self._look_up(None)
        except TableLocked:
            return []
        changed: list[tuple[KnownTable, PublishedTable]] = []
        taken = published.table
        while (holder := holders.pop(str(taken), None)) is not None and holder.table.oid != published.table.oid:
            named = now.get(holder.table.oid)
            if named is None or not only_renamed(holder, named):
                break
            changed.append((holder, named))
            taken = named.table
        return changed

    def _told(self, changed: Iterable[tuple[KnownTable, PublishedTable]]) -> Step:
        """The step that lets tables go on in their new shape."""
        tables: list[KnownTable] = []
        events: list[Event] = []
        for known, published in changed:
            table = replace(published.table, version=known.table.version + 1)
            tables.append(replace(known, table=table, relation=published.relation, fingerprint=published.fingerprint))
            events.append(SchemaChanged(table, before=known.table))
        return Step(tuple(tables), tuple(events))

    def _left_out(self, known: KnownTable, published: PublishedTable, found: Change) -> KnownTable:
        """Not followed until it has been read again as it is now."""
        if known.followed or not same_shape(known.table, published.table):
            known = replace(known, table=replace(published.table, version=known.table.version + 1))
        after_open = found is Change.REFILL_AFTER_OPEN or known.retired
        return replace(
            known,
            relation=published.relation,
            fingerprint=published.fingerprint,
            followed=False,
            refill=True,
            floor=self._now() if after_open else known.floor,
        )

    def _new(self, published: PublishedTable, followed: bool) -> tuple[KnownTable, tuple[Event, ...]]:
        """A table that is new here. Its changes from before it was published are nowhere in the stream."""
        table, relation, fingerprint = published.table, published.relation, published.fingerprint
        known = KnownTable(table, relation, fingerprint, followed, refill=True, floor=self._now())
        return known, ((SchemaChanged(table),) if followed else ())

    def adopt(self, published: PublishedTable, for_all: bool) -> Table:
        """Take the catalog's shape for the one to follow: the rows were read in it, for all targets or for some."""
        known = self.known[published.table.oid]
        table = known.table
        if known.relation != published.relation or not same_shape(table, published.table):
            table = replace(published.table, version=table.version + 1)
        if for_all:
            self._keep(KnownTable(table, published.relation, published.fingerprint))
        # Else the others still have to be told of a new shape, which the stream does when it comes to it.
        return table

    def expect(self, published: Published, from_the_start: Collection[int]) -> None:
        """The tables of a log that begins here: a backfill of all tables is to come anyway.

        ``from_the_start``: those that were published before the slot was made. Of any other, what was open when it was
        added may have written rows that are nowhere in the stream.
        """
        self.estimates = {oid: table.estimated_rows for oid, table in published.items()}
        for oid, table in published.items():
            floor = None if oid in from_the_start else self._now()
            self._keep(KnownTable(table.table, table.relation, table.fingerprint, floor=floor))

    def notice(self, published: Published, since: Lsn, until: Lsn, passed: Lsn) -> list[Step]:
        """Compare with what is published now; returns the steps to be taken at once, between two transactions.

        What has other names now is one step, any other table its own: a target may keep readers waiting for each.

        ``since`` and ``until``: WAL positions up to which ``published`` shows everything, and behind all of that;
        ``passed``: how far the stream has been read. What can be followed in place is so where the stream tells of it,
        or as soon as it has passed what was seen; what has to be read again is left out at once.
        """
        self.estimates = {oid: table.estimated_rows for oid, table in published.items()}
        self._compared_at, self._unchanged = since, set()
        for oid in self.known.keys() - published.keys():
            if not self.known[oid].retired:
                self.retire(oid)
        in_place = [
            (known, table)
            for oid, table in published.items()
            if (known := self.known.get(oid)) is not None and self._compared(known, table) is Change.IN_PLACE
        ]
        seen = {known.table.oid: self._seen(known.table.oid, table, until) for known, table in in_place}
        due = [(known, table) for known, table in in_place if seen[known.table.oid][1] <= passed]
        together = [each for each in due if renamed(each[0].table, each[1].table)]
        groups = [together] if together else []
        groups += [[each] for each in due if each not in together]
        self._waiting = {oid: each for oid, each in seen.items() if each[1] > passed}
        # A name may be free only when another table has got its new one.
        held = {str(self.known[oid].table) for oid in self._waiting}
        for oid, table in published.items():
            if oid not in self.known and str(table.table) not in held:
                self._keep(self._new(table, followed=True)[0])
        return [self._told(group) for group in groups]

    def _compared(self, known: KnownTable, published: PublishedTable) -> Change:
        """What is new of one table; all but what is in place is taken in."""
        found = change(known, published)
        if not known.followed:
            if found is not Change.NOTHING or known.retired:
                self._keep(self._left_out(known, published, found))
            return Change.NOTHING
        if found is Change.NOTHING:
            self._note(known, published)
            self._unchanged.add(known.table.oid)
        elif found >= Change.REFILL:
            self._keep(self._left_out(known, published, found))
        return found

    def _seen(self, oid: int, published: PublishedTable, until: Lsn) -> tuple[PublishedTable, Lsn]:
        """Since when the catalog has shown this."""
        before = self._waiting.get(oid)
        same = before is not None and (before[0].table, before[0].relation) == (published.table, published.relation)
        return before if before is not None and same else (published, until)

    @property
    def awaited(self) -> Lsn | None:
        """The WAL position behind which the stream can tell no more of a change that the catalog has shown."""
        return min((until for _, until in self._waiting.values()), default=None)

    def leave_out(self, published: PublishedTable, found: Change) -> None:
        """What was found of this table is why it has to be read again."""
        self._keep(self._left_out(self.known[published.table.oid], published, found))

    def want(self, oid: int) -> None:
        """Its rows have to be read again, for all targets, while its changes are followed as before."""
        self._keep(replace(self.known[oid], refill=True))

    def unreadable(self, oid: int, sentence: str) -> None:
        """Only a person can have its rows read again; what the stream brings of it goes on."""
        self._keep(replace(self.known[oid], refill=True, stopped=sentence))

    def retire(self, oid: int) -> None:
        """The publication no longer has this table: what the stream still holds of it is left out."""
        self._keep(_retired(self.known[oid]))

    def _note(self, known: KnownTable, published: PublishedTable) -> None:
        """Rows are told as before, though the catalog is not the same."""
        if known.fingerprint != published.fingerprint:
            self._keep(replace(known, fingerprint=published.fingerprint))

    def _keep(self, known: KnownTable) -> None:
        oid = known.table.oid
        self.emptied |= oid == self.reading and not known.followed
        self.known[oid] = known
        self._waiting.pop(oid, None)
        self._unchanged.discard(oid)
        self._summary = None
        self._saved[f"{TABLE}{oid}"] = known.encode()
        (self.unfilled.add if known.refill else self.unfilled.discard)(oid)


def _unfollowed(known: KnownTable) -> KnownTable:
    """Left out as it is: another version, since targets miss changes."""
    return replace(known, table=replace(known.table, version=known.table.version + 1), followed=False, refill=True)


def _names_rows_without_a_key(table: Table, data: pa.RecordBatch) -> bool:
    if table.key or table.identity is ReplicaIdentity.FULL:
        return False
    return bool(np.any(letters(data.column(OP)) != CREATE))


def _retired(known: KnownTable) -> KnownTable:
    return replace(known, followed=False, refill=False, stopped=None)
