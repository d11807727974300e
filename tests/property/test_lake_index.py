"""The index of a lake's table against a dictionary: whatever was added, merged in pieces, and read back."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catchment.changes.columns import Rows, Truths
from catchment.targets.lake import index as lake_index
from catchment.targets.lake.index import KeyIndex
from catchment.targets.lake.local import LocalStore

steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 40), st.integers(0, 2**32)),
        st.tuples(st.just("merge"), st.integers(1, 4), st.just(0)),
        st.tuples(st.just("drop"), st.integers(0, 20), st.just(0)),
        st.tuples(st.just("open"), st.just(0), st.just(0)),
    ),
    min_size=5,
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(steps, st.sampled_from([1, 7, 50]), st.sampled_from([2**64 - 1, 5]))
def test_promise_1_the_index_has_an_entry_of_every_row_however_far_it_is_merged(
    steps: list[tuple[str, int, int]], at_once: int, largest: int
) -> None:
    with TemporaryDirectory() as root, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(os, "fsync", os.fstat)
        monkeypatch.setattr(lake_index, "_AT_ONCE", at_once)
        cache = LocalStore(Path(root))
        index = KeyIndex.open(cache, "t", "t")
        index.save(0, ())
        rows: dict[str, list[tuple[int, int]]] = {}
        for version, (step, number, seed) in enumerate(steps, 1):
            if step == "add":
                hashes = np.random.default_rng(seed).integers(0, largest, (number, 2), np.uint64, endpoint=True)
                rows[f"file {version}"] = [(int(first), int(second)) for first, second in hashes]
                index.add(f"file {version}", hashes, np.arange(number))
                index.save(version, rows)
            elif step == "merge":
                for _ in range(number):
                    merge(index, rows)
            elif step == "drop" and rows:
                del rows[sorted(rows)[number % len(rows)]]
                index.save(version, rows)
            elif step == "open":
                seed_before = index.seed
                index = KeyIndex.open(cache, "t", "t")
                assert index.seed == seed_before
        while merge(index, rows):
            pass
        everything = {(hash_, file, place) for file, hashes in rows.items() for place, hash_ in enumerate(hashes)}
        wanted = sorted({hash_ for hash_, _, _ in everything} | {(1, 1)}, key=lambda each: (each[1], each[0]))
        which, files, places = index.find(np.array(wanted, np.uint64))
        alive = present(index, rows, files)
        found = [
            (wanted[each], index.files[file], place)
            for each, file, place in zip(
                which[alive].tolist(), files[alive].tolist(), places[alive].tolist(), strict=True
            )
        ]
        assert len(found) == len(set(found))
        assert set(found) == everything


def merge(index: KeyIndex, rows: dict[str, list[tuple[int, int]]]) -> bool:
    return index.merge(lambda files, _: present(index, rows, files))


def present(index: KeyIndex, rows: dict[str, list[tuple[int, int]]], files: Rows) -> Truths:
    return np.array([index.files.get(number) in rows for number in files.tolist()], np.bool_)
