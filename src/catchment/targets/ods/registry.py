"""What the ODS knows of itself: how far each source has got, and which tables it has of it."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import psycopg

from catchment.model.errors import TableMisshapen
from catchment.model.frontier import Frontier
from catchment.model.lsn import Lsn
from catchment.model.table import Table
from catchment.targets.ods.naming import Relation, shadow_relation

CREATION = """
CREATE SCHEMA catchment;
CREATE TABLE catchment.frontier (
    source text PRIMARY KEY, log uuid NOT NULL, "offset" bigint NOT NULL, lsn pg_lsn NOT NULL,
    committed_at timestamptz NOT NULL);
CREATE TABLE catchment.tables (
    source text, oid oid, schema text, name text, shape text, current boolean NOT NULL,
    refill text, shadow_shape text, stopped text, PRIMARY KEY (source, oid));
COMMENT ON TABLE catchment.frontier IS 'how far the ODS has got with each source';
COMMENT ON TABLE catchment.tables IS 'private to Catchment: the tables built from each source, and refills under way';
"""

# Which registry it is: another one where the ODS was restored from a dump, and all oids are others. The oid alone does
# not tell, since servers that are new count from the same number on. Null where we may not ask which server it is.
_REGISTRY = "current_setting('catchment.server', true) || '/' || 'catchment.tables'::regclass::oid"

SHADOW = "to_regclass('catchment.' || quote_ident('shadow_' || t.source || '_' || t.oid))"
"""Of the table that is recorded in ``t``."""

_ENTRIES = f"""
SELECT oid, schema, name, shape, current, refill, shadow_shape, stopped,
       (SELECT c.oid || '/' || c.xmin FROM pg_class c
        WHERE c.oid = to_regclass(quote_ident(t.schema) || '.' || quote_ident(t.name))),
       {_REGISTRY},
       (SELECT concat_ws('/', c.oid, c.xmin, i.indexrelid)
        FROM pg_class c LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary WHERE c.oid = {SHADOW})
FROM catchment.tables t
WHERE source = %s AND """

_PREPARATION = "PREPARE entries (text, oid[]) AS " + _ENTRIES % "$1" + "oid = ANY ($2)"

# Which relation it is stands beside what its shape says, and not in a column of its own: what an earlier version has
# saved, or saves again, does not have it, and is believed.
_SAVE = f"""
INSERT INTO catchment.tables (source, oid, schema, name, shape, current, refill, shadow_shape, stopped)
VALUES (%s, %s, %s, %s, (%s::jsonb || jsonb_build_object('relation', %s::text, 'registry', {_REGISTRY}))::text,
        %s, %s, %s, %s)
ON CONFLICT (source, oid) DO UPDATE SET (schema, name, shape, current, refill, shadow_shape, stopped) = (
    excluded.schema, excluded.name, excluded.shape, excluded.current, excluded.refill, excluded.shadow_shape,
    excluded.stopped)
"""

_RESHAPED = """
UPDATE catchment.tables
SET schema = NULL, name = NULL, shape = CASE WHEN shape <> '' THEN %s END,
    shadow_shape = CASE WHEN shadow_shape <> '' THEN %s END
WHERE source = %s AND oid = %s
"""

FRONTIER = 'SELECT log, "offset", lsn::text, committed_at FROM catchment.frontier WHERE source = %s'
SAVE_FRONTIER = """
INSERT INTO catchment.frontier (source, log, "offset", lsn, committed_at) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (source) DO UPDATE SET (log, "offset", lsn, committed_at)
= (excluded.log, excluded."offset", excluded.lsn, excluded.committed_at)
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """A relation of the ODS that holds a version of a table.

    ``stamp`` begins with the relation's oid and is another one when it is another relation or got other columns; that
    of a shadow has a third part as soon as it has its key. ``recorded``: which relation it is, not its name alone.
    """

    relation: Relation
    shape: Table
    stamp: str = ""
    recorded: bool = True

    @property
    def oid(self) -> str:
        """The relation's, as the stamp has it."""
        return self.stamp.partition("/")[0]

    @property
    def lacks_key(self) -> bool:
        """Of a shadow: whether its table has a key that it has yet to get."""
        return bool(self.shape.key) and self.stamp.count("/") < 2


@dataclass(frozen=True, slots=True)
class Entry:
    """One table of a source, as it is in the ODS.

    ``live``: what readers see, null when there is none, also when somebody dropped it; ``taken``: what is found in its
    place when that is another relation than the recorded one; ``current``: it takes changes. ``shadow``: what the
    refill builds up. ``stopped``: the sentence of why what readers see takes no changes, if a person has to mend that.
    """

    oid: int
    live: Stored | None = None
    taken: Stored | None = None
    current: bool = False
    shadow: Stored | None = None
    refill: str | None = None
    stopped: str | None = None

    def stopped_by(self, error: TableMisshapen) -> Entry:
        """Readers keep what they see; it takes no changes until a refill brings it anew."""
        return replace(self, current=False, stopped=str(error))


class Connected(Protocol):
    """Whatever knows when its connection is free for the next statement."""

    @property
    def connection(self) -> psycopg.Connection: ...


class Registry:
    """What is recorded of one source, within one transaction. The session holds the source's lock."""

    def __init__(self, session: Connected, source: str) -> None:
        self._session = session
        self._source = source
        self._entries: dict[int, Entry] = {}

    def entry(self, oid: int) -> Entry:
        """The table with this oid in the source; an empty entry when it has never been heard of."""
        return self.entries([oid])[0]

    def entries(self, oids: Collection[int]) -> list[Entry]:
        """The same for several tables, asked for together."""
        if unknown := [oid for oid in oids if oid not in self._entries]:
            self._entries.update((oid, Entry(oid)) for oid in unknown)
            self._entries.update((entry.oid, entry) for entry in self._read_all("EXECUTE entries (%s, %s)", unknown))
        return [self._entries[oid] for oid in oids]

    def changed(self, oid: int) -> None:
        """Something of this table is another in the ODS than when it was read."""
        self._entries.pop(oid, None)

    def takes_changes(self) -> bool:
        """Whether any table of the source does, so that readers would see it stand still."""
        query = "SELECT FROM catchment.tables WHERE source = %s AND current LIMIT 1"
        return self._session.connection.execute(query, (self._source,)).fetchone() is not None

    def refilled(self, refill: str) -> list[Entry]:
        """The tables that this refill builds up."""
        return self._read_all(f"{_ENTRIES} refill = %s ORDER BY oid", refill)

    def at(self, live: Relation) -> list[Entry]:
        """The tables that readers find there."""
        return self._read_all(f"{_ENTRIES} schema = %s AND name = %s", live.schema, live.name)

    def out_of_date(self) -> dict[str, str | None]:
        """As the target's contract says: tables that have stopped, and those of which somebody dropped something."""
        query = f"{_ENTRIES} (shape IS NOT NULL OR stopped IS NOT NULL OR refill IS NOT NULL) ORDER BY oid"
        rows = psycopg.ClientCursor(self._session.connection).execute(query, (self._source,)).fetchall()
        entries = [(self._read(row), row[3] is not None, str(_table(row[3] or row[6]))) for row in rows]
        held = {entry.live.relation for entry, _, _ in entries if entry.live}
        found: dict[str, str | None] = {}
        for entry, appeared, name in entries:
            if entry.taken and entry.taken.relation in held:
                continue  # the source has given its name to another table, and tells later what it is called now
            if entry.refill:
                if entry.shadow is None:  # its refill goes on, and brings nothing
                    found[name] = None
            elif entry.stopped or not entry.live:
                # One that stopped before it ever appeared cannot have been dropped by anybody.
                found[name] = entry.stopped if entry.live or entry.taken or not appeared else None
        return found

    def all(self) -> list[Entry]:
        """Every table of the source."""
        return self._read_all(f"{_ENTRIES} true ORDER BY oid")

    def save(self, entry: Entry) -> None:
        """Record what has become of the table."""
        live, shadow = entry.live, entry.shadow
        place = (live.relation.schema, live.relation.name, _text(live.shape), live.oid) if live else (None,) * 4
        built = (entry.current, entry.refill, shadow and _text(shadow.shape), entry.stopped)
        self._session.connection.execute(_SAVE, (self._source, entry.oid, *place, *built))
        self._entries.pop(entry.oid, None)

    def stop(self, oid: int, sentence: str) -> None:
        """It takes no changes any more, and is missed where it was."""
        self._session.connection.execute(
            "UPDATE catchment.tables SET current = false, stopped = %s WHERE source = %s AND oid = %s",
            (sentence, self._source, oid),
        )
        self._entries.pop(oid, None)

    def forget(self) -> None:
        """Remove all records of the source."""
        self._session.connection.execute("DELETE FROM catchment.tables WHERE source = %s", (self._source,))
        self._session.connection.execute("DELETE FROM catchment.frontier WHERE source = %s", (self._source,))
        self._entries.clear()

    def reshaped(self, oid: int, shape: Table) -> None:
        """Nothing is there of this table, and its place may become another one's: its shape says what is missed."""
        self._session.connection.execute(_RESHAPED, (_text(shape), _text(shape), self._source, oid))
        self._entries.pop(oid, None)

    def outdate(self) -> None:
        """No table takes changes any more until a refill brings it anew, one that has yet to begin."""
        self._session.connection.execute(
            "UPDATE catchment.tables SET current = false, refill = NULL WHERE source = %s", (self._source,)
        )
        self._entries.clear()

    def _read_all(self, query: str, *values: object) -> list[Entry]:
        rows = psycopg.ClientCursor(self._session.connection).execute(query, (self._source, *values)).fetchall()
        return [self._read(row) for row in rows]

    def _read(self, row: Sequence[Any]) -> Entry:
        oid, schema, name, shape, current, refill, shadow_shape, stopped, live_stamp, registry, shadow_stamp = row
        live = taken = shadow = None
        if live_stamp:
            relation, recorded_by = _recorded(shape)
            recorded = registry is not None and recorded_by == registry
            live = Stored(Relation(schema, name), _table(shape), live_stamp, recorded)
            if recorded and relation != live.oid:
                live, taken = None, live
        if shadow_stamp and shadow_shape:
            shadow = Stored(shadow_relation(self._source, oid), _table(shadow_shape), shadow_stamp)
        return Entry(oid, live, taken, current, shadow, refill, stopped)


def prepare(connection: psycopg.Connection) -> None:
    """Once in each session, before entries are read: to plan that takes longer than to run it."""
    asking = "SELECT has_function_privilege('pg_control_system()', 'EXECUTE')"
    if connection.execute(asking).fetchone() == (True,):
        naming = "SELECT set_config('catchment.server', system_identifier::text, false) FROM pg_control_system()"
        connection.execute(naming)
    connection.execute(_PREPARATION)


def read_frontier(cursor: psycopg.Cursor) -> Frontier | None:
    """What ``FRONTIER`` has found."""
    row = cursor.fetchone()
    return Frontier(row[0], row[1], Lsn.parse(row[2]), row[3]) if row else None


def saved_frontier(source: str, frontier: Frontier) -> tuple[object, ...]:
    """The parameters of ``SAVE_FRONTIER``."""
    return source, frontier.log, frontier.offset, str(frontier.lsn), frontier.committed_at


def _text(table: Table) -> str:
    return json.dumps(table.to_json())


@lru_cache(maxsize=1_000)
def _table(shape: str) -> Table:
    return Table.from_json(json.loads(shape))


@lru_cache(maxsize=1_000)
def _recorded(shape: str) -> tuple[str | None, str | None]:
    """Which relation it was, and which registry said so."""
    told = json.loads(shape)
    return told.get("relation"), told.get("registry")
