"""A table that is read in pieces while it lives, against a naive model of its pages and of what a target knows."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

from histories import Change, History, Key, Row, as_batch, commands, initial, keyed_tables, keys_of, land
from hypothesis import given, settings
from hypothesis import strategies as st

from catchment.changes.coalesce import coalesce
from catchment.changes.forward import Forward
from catchment.changes.waiting import Keys, Waiting, together
from catchment.model.batch import META
from catchment.model.table import Table

BLOCKS = 4


@dataclass
class Pages:
    """In which block each row is: a row that changes moves, perhaps to where it has been read already."""

    history: History
    places: list[int]
    block: dict[Key, int] = field(default_factory=dict)
    seen: dict[Key, Row] = field(default_factory=dict)
    _moves: count = field(default_factory=count)

    def settle(self) -> None:
        for key in self.seen.keys() - self.history.now.keys():
            del self.block[key]
        for key, row in self.history.now.items():
            if self.seen.get(key) != row:
                self.block[key] = self.places[next(self._moves) % len(self.places)]
        self.seen = dict(self.history.now)

    def read(self, begin: int, end: int, keys: Keys) -> list[Row]:
        wanted = set(keys_of(keys)) if keys else set()
        return [row for key, row in self.seen.items() if begin <= self.block[key] < end] + [
            row for key, row in self.seen.items() if key in wanted
        ]


class Backfill:
    """What the pipeline does with these functions, without servers, threads and log."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.target: dict[Key, Row] = {}
        self.begun = False
        self.reached = 0
        self.left: Keys = []
        self.since: list[Change] = []

    @property
    def done(self) -> bool:
        return self.begun and self.reached >= BLOCKS and not self.left

    def stream(self, changes: list[Change]) -> None:
        if self.begun and changes:
            land(self.table, self.target, coalesce(self.table, [as_batch(changes)]))

    def keys(self, forgotten: list[Change] | None) -> Keys:
        changes = self.since if forgotten is None else forgotten
        among = self.left if forgotten is None and self.reached >= BLOCKS else None
        new = Waiting(self.table, [as_batch(changes)], among).keys if self.begun else []
        return together(self.left if forgotten is None else [], new)

    def append(self, held: list[Row], seen: list[Change], unseen: list[Change], keys: Keys, blocks: bool) -> None:
        window, hidden = [as_batch(seen + unseen)], [as_batch(unseen)]
        forward = Forward(self.table, hidden, told=self.begun)
        among = None if blocks else keys
        waiting = Waiting(self.table, window if self.begun else hidden, among)
        rows = as_batch([("r", row, None) for row in held])
        for columns in (forward.held(rows.columns[len(META) :]), forward.rest()):
            waiting.told(columns)
            for row in zip(*(column.to_pylist() for column in columns), strict=True):
                self.target[tuple(row[position] for position in self.table.key_positions)] = row
        self.begun, self.left, self.since = True, waiting.keys, []


phases = st.tuples(commands, commands, commands, st.integers(1, BLOCKS), st.booleans())


@settings(max_examples=60, deadline=None)
@given(
    keyed_tables,
    st.integers(0, 8),
    st.lists(phases, min_size=1, max_size=4),
    st.lists(st.integers(0, BLOCKS - 1), min_size=1),
)
def test_promise_1_a_table_read_in_pieces_is_whole(
    table: Table,
    rows: int,
    rounds: list[tuple[list, list, list, int, bool]],
    places: list[int],
) -> None:
    history = initial(table, rows)
    pages = Pages(history, places)
    pages.settle()
    backfill = Backfill(table)
    since_keep: list[Change] = []

    def live(some: list[tuple[int, int, int, int]]) -> list[Change]:
        before = len(history.changes)
        history.play(some, filtered=True, reads=False)
        pages.settle()
        changes = history.changes[before:]
        backfill.stream(changes)
        return changes

    idle = ([], [], [], BLOCKS, False)
    for between, seen, unseen, blocks, killed in [*rounds, *[idle] * 6]:
        backfill.since += live(between)
        since_keep += backfill.since
        keys = backfill.keys(since_keep if killed else None)
        left = backfill.reached < BLOCKS
        first = live(seen)
        held = pages.read(backfill.reached, backfill.reached + blocks, keys)
        then = live(unseen)
        backfill.append(held, first, then, keys, left)
        since_keep = first + then
        backfill.reached += blocks
        if backfill.done:
            break
    assert backfill.done, "it does not come to an end"
    assert backfill.target == history.now
