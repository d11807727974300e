"""Readers of one snapshot, and what they do when somebody wants the table for himself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import psycopg
import pytest
from places import execute, one

from catchment.model.errors import TableLocked
from catchment.postgres import reading, snapshot
from catchment.postgres.catalog import PublishedTable, published_tables
from catchment.postgres.connection import connect, of_source
from catchment.postgres.reading import SourceReader
from catchment.postgres.snapshot import SnapshotReader
from catchment.postgres.source import Source

TRANSLATION = of_source("shop")


@pytest.fixture
def published(source_database: str) -> PublishedTable:
    execute(
        source_database,
        "CREATE TABLE items (id int PRIMARY KEY)",
        "INSERT INTO items SELECT generate_series(1, 1000)",
        "CREATE PUBLICATION catchment FOR TABLE items",
    )
    with connect(source_database, TRANSLATION) as connection:
        (table,) = published_tables(connection, "catchment", TRANSLATION).values()
    return table


@contextmanager
def locked_by_another(dsn: str, statement: str = "TRUNCATE items") -> Iterator[None]:
    """Somebody waits for the exclusive lock that this needs, and gets it after the block."""
    thread = threading.Thread(target=execute, args=(dsn, statement), daemon=True)
    thread.start()
    while not one(dsn, "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"):
        pass
    yield
    thread.join()


def read(reader: SnapshotReader, published: PublishedTable) -> int:
    (leaf,) = reader.leaves()
    return sum(len(columns[0]) for columns in reader.read(published, leaf, 0, leaf.blocks))


def test_readers_that_joined_see_what_the_first_one_sees(source_database: str, published: PublishedTable) -> None:
    with (
        SnapshotReader(source_database, "catchment", published.table, TRANSLATION) as first,
        SnapshotReader(source_database, "catchment", published.table, TRANSLATION) as second,
    ):
        first.begin()
        execute(source_database, "DELETE FROM items WHERE id > 10", "INSERT INTO items VALUES (-1)")
        second.join(first.share())
        assert read(second, published) == read(first, published) == 1000


def test_promise_2_a_reader_does_not_queue_behind_who_waits_for_it(
    source_database: str, published: PublishedTable
) -> None:
    with SnapshotReader(source_database, "catchment", published.table, TRANSLATION) as reader:
        reader.begin()
        with locked_by_another(source_database):
            with pytest.raises(TableLocked):
                read(reader, published)
            reader.close()
    assert one(source_database, "SELECT count(*) FROM items") == 0


def test_promise_2_a_reader_gives_way_to_who_waits_for_an_index(
    source_database: str, published: PublishedTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "_LOOK_EVERY_SECONDS", 0)
    with SnapshotReader(source_database, "catchment", published.table, TRANSLATION) as reader:
        reader.begin()
        read(reader, published)
        with locked_by_another(source_database, "REINDEX TABLE items"):
            with pytest.raises(TableLocked):
                read(reader, published)
            reader.close()


def test_promise_2_a_second_reader_does_not_either(source_database: str, published: PublishedTable) -> None:
    with (
        SnapshotReader(source_database, "catchment", published.table, TRANSLATION) as first,
        SnapshotReader(source_database, "catchment", published.table, TRANSLATION) as second,
    ):
        first.begin()
        shared = first.share()
        with locked_by_another(source_database):
            with pytest.raises(TableLocked):
                second.join(shared)
            first.close()
            second.close()
    with psycopg.connect(source_database) as connection:
        assert connection.execute("SELECT count(*) FROM items").fetchone() == (0,)


@pytest.mark.timeout(20)
def test_promise_2_comparing_does_not_queue_behind_who_waits_for_it(
    source_database: str, published: PublishedTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_LOOK_EVERY_SECONDS", 60)
    with SourceReader(Source("shop", source_database, "catchment", "catchment_shop")) as reader, ExitStack() as waiting:

        def compare() -> None:
            with reader.snapshot(published):
                waiting.enter_context(locked_by_another(source_database))
                reader.compared(published, frozenset()).buckets()

        with pytest.raises(TableLocked):
            compare()
    assert one(source_database, "SELECT count(*) FROM items") == 0


@pytest.mark.timeout(20)
def test_promise_2_a_long_comparison_gives_way(source_database: str, published: PublishedTable) -> None:
    long = replace(published, row_filter="(pg_sleep(1) IS NOT NULL)")
    with SourceReader(Source("shop", source_database, "catchment", "catchment_shop")) as reader, ExitStack() as waiting:

        def compare() -> None:
            with reader.snapshot(published):
                assert reader.compared(published, frozenset()).buckets().rows.sum() == 1000
                waiting.enter_context(locked_by_another(source_database))
                reader.compared(long, frozenset()).buckets()

        with pytest.raises(TableLocked, match="verify it again"):
            compare()
    assert one(source_database, "SELECT count(*) FROM items") == 0


def test_what_inherits_from_a_table_is_not_touched(source_database: str, published: PublishedTable) -> None:
    execute(
        source_database,
        "CREATE FOREIGN DATA WRAPPER unreachable; CREATE SERVER far FOREIGN DATA WRAPPER unreachable",
        "CREATE FOREIGN TABLE far_items () INHERITS (items) SERVER far",
    )
    with SnapshotReader(source_database, "catchment", published.table, TRANSLATION) as reader:
        reader.begin()
        assert read(reader, published) == 1000
    source = Source("shop", source_database, "catchment", "catchment_shop")
    with SourceReader(source) as verifying, verifying.snapshot(published):
        assert verifying.compared(published, frozenset()).buckets().rows.sum() == 1000
