"""Ranges of blocks: each is handed out once, in order, and what was not is where the next cycle begins."""

from __future__ import annotations

from itertools import chain

from catchment.pipeline.ranges import BLOCKS, Range, Ranges
from catchment.postgres.snapshot import Leaf, Reached

FIRST = Leaf(10, "public", "first", filenode=100, blocks=2 * BLOCKS + 1)
EMPTY = Leaf(11, "public", "empty", filenode=110, blocks=0)
LAST = Leaf(12, "public", "last", filenode=120, blocks=5)


def taken(ranges: Ranges) -> list[tuple[str, int, int]]:
    return [(part.leaf.name, part.begin, part.end) for part in ranges]


def test_all_blocks_of_all_leaves_are_handed_out() -> None:
    ranges = Ranges([FIRST, EMPTY, LAST], None, None)
    assert ranges.count == 4
    assert taken(ranges) == [
        ("first", 0, BLOCKS),
        ("first", BLOCKS, 2 * BLOCKS),
        ("first", 2 * BLOCKS, 2 * BLOCKS + 1),
        ("last", 0, 5),
    ]
    assert ranges.reached is None


def test_several_readers_get_each_range_once() -> None:
    ranges = Ranges([FIRST, EMPTY, LAST], None, None)
    shared = list(chain.from_iterable(zip(ranges, ranges, strict=False)))
    assert len(set(shared)) == len(shared) == 4


def test_when_the_time_is_over_the_rest_is_left_for_the_next_cycle() -> None:
    ranges = Ranges([FIRST, LAST], None, seconds=-1.0)
    assert taken(ranges) == taken(ranges) == []
    assert ranges.reached == Reached(FIRST.oid, FIRST.filenode, 0, FIRST.blocks)


def test_the_next_cycle_begins_there_and_reads_no_blocks_that_came_later() -> None:
    grown = Leaf(10, "public", "first", filenode=100, blocks=9 * BLOCKS)
    ranges = Ranges([EMPTY, grown, LAST], Reached(10, 100, BLOCKS, FIRST.blocks), None)
    assert list(ranges)[:2] == [
        Range(grown, BLOCKS, 2 * BLOCKS, FIRST.blocks),
        Range(grown, 2 * BLOCKS, FIRST.blocks, FIRST.blocks),
    ]
    before = Ranges([FIRST, LAST], Reached(12, 120, 3, 5), None)
    assert taken(before) == [("last", 3, 5)]


def test_what_is_left_of_a_dropped_leaf_is_not_missed() -> None:
    ranges = Ranges([LAST], Reached(10, 100, BLOCKS, FIRST.blocks), None)
    assert (taken(ranges), ranges.another_file) == ([("last", 0, 5)], False)


def test_blocks_of_another_file_are_not_read() -> None:
    ranges = Ranges([FIRST, LAST], Reached(10, 99, BLOCKS, FIRST.blocks), None)
    assert (taken(ranges), ranges.another_file) == ([], True)


def test_what_is_not_to_be_divided_is_one_range_however_long_it_takes() -> None:
    whole = Leaf(9, "public", "root", filenode=0, blocks=9 * BLOCKS, whole=True)
    ranges = Ranges([whole], None, seconds=-1.0)
    assert (ranges.count, taken(ranges), ranges.reached) == (1, [("root", 0, 9 * BLOCKS)], None)
    # What was begun in pieces is begun again: the rest cannot be told from what was read.
    again = Ranges([whole], Reached(10, 100, BLOCKS, FIRST.blocks), None)
    assert (taken(again), again.another_file) == ([], True)
