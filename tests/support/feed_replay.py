"""The tables that the lines of a feed amount to: docs/reference/feed.md as a function."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = dict[str, str | None]
Identity = tuple[object, ...]


class Copy:
    """One state of one table. Rows are found by their key, or, in a table without one, by all that they say."""

    def __init__(self, key: Sequence[str]) -> None:
        self.key = key
        self.found: dict[Identity, list[Row]] = {}

    def put(self, row: Row) -> None:
        rows = self.found.setdefault(self._identity(row), [])
        if self.key:
            rows.clear()
        rows.append(row)

    def take(self, row: Row) -> Row:
        """Remove one row and say what was known of it: nothing when it was not there."""
        identity = self._identity(row)
        rows = self.found.get(identity, [{}])
        taken = rows.pop()
        if not rows:
            self.found.pop(identity, None)
        return taken

    def reshape(self, told: Mapping[str, Any], key: Sequence[str]) -> None:
        rows, self.key, self.found = self.rows(), key, {}
        for row in rows:
            kept = {column: row.get(was) for column, was in told["were"].items()}
            self.put({**kept, **told["missing"]})

    def rows(self) -> list[Row]:
        return [row for rows in self.found.values() for row in rows]

    def _identity(self, row: Row) -> Identity:
        return tuple(row[column] for column in self.key) if self.key else tuple(sorted(row.items()))


def replay(lines: Iterable[bytes], keys: Mapping[str, Sequence[str]]) -> dict[str, list[Row]]:
    """The rows of each table after all lines. ``keys``: the key columns by table, ``schema.name``; none for a bag."""
    current: dict[str, Copy] = {}
    shadows: dict[str, Copy] = {}
    refills: dict[str, str] = {}
    before: Row | None = None
    displaced: dict[tuple[int, str], Copy] = {}  # by a table that has got its name: it gets another one at once

    def copies(table: str | None) -> list[Copy]:
        return [state[table] for state in (current, shadows) if table in state]

    for line in lines:
        told = json.loads(line)
        table = told.get("table")
        match told.get("event") or told["op"]:
            case "schema_changed":
                if (was := told.get("before")) is None:
                    continue
                for number, state in enumerate((current, shadows)):
                    copy = displaced.pop((number, was), None) or state.pop(was, None)
                    if copy is not None:
                        copy.reshape(told, keys.get(table, ()))
                        if table in state:
                            displaced[number, table] = state[table]
                        state[table] = copy
            case "truncated":
                for copy in [copy for emptied in told["tables"] for copy in copies(emptied)]:
                    copy.found.clear()
            case "refill_started":
                for told_anew in told["tables"]:
                    shadows[told_anew] = Copy(keys.get(told_anew, ()))
                    refills[told_anew] = told["refill"]
            case "refill_finished":
                for complete in [name for name in shadows if refills[name] == told["refill"]]:
                    current[complete] = shadows.pop(complete)
            case "b":
                before = told["row"]
            case "r" | "c" | "u" | "d" as op:
                if op != "r" or table not in shadows:
                    current.setdefault(table, Copy(keys.get(table, ())))
                for copy in copies(table)[-1:] if op == "r" else copies(table):
                    known = copy.take(before or told["row"]) if op in "ud" else {}
                    row = {**known, **(before or {}), **told["row"]}
                    if op != "d" and row.keys() >= set(told["unchanged"]):
                        copy.put(row)
                before = None
    return {table: copy.rows() for table, copy in current.items()}
