"""What a change between two looks at the catalog amounts to: the table of cases, one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from catchment.model.table import Column, ReplicaIdentity, Table
from catchment.pipeline.fingerprint import Change, change, only_renamed
from catchment.pipeline.state import KnownTable
from catchment.postgres.catalog import Fingerprint, PublishedTable
from catchment.wire.messages import Relation, RelationColumn

OIDS = {"int4": 23, "text": 25, "varchar": 1043, "inet": 869, "cidr": 650, "citext": 20_000}


def column(number: int, name: str, kind: str = "text", typmod: int = -1) -> Column:
    extension = "citext" if kind == "citext" else None
    return Column(number, name, "public" if extension else "pg_catalog", kind, typmod, True, extension)


def look(
    *columns: Column,
    key: tuple[str, ...] = ("id",),
    identity: ReplicaIdentity = ReplicaIdentity.DEFAULT,
    name: str = "places",
    fingerprint: Fingerprint | None = None,
    unread: frozenset[str] = frozenset(),
) -> PublishedTable:
    columns = columns or (column(1, "id", "int4"), column(2, "a"), column(3, "b"))
    table = Table(1, "public", name, columns, key, identity, 1)
    full = identity is ReplicaIdentity.FULL
    told = tuple(RelationColumn(c.name, OIDS[c.type_name], c.typmod, full or c.name in key) for c in columns)
    fingerprint = fingerprint or replace(SAME, attributes={str(c.number): "1" for c in columns})
    return PublishedTable(table, Relation(1, "public", name, identity, told), None, False, None, fingerprint, unread)


SAME = Fingerprint(
    "100", {"1": "1", "2": "1", "3": "1"}, "7/7", {"50": "50"}, ("50",), {"60": "6", "composite 61": "1/6"}, "110"
)
ID, A, B = column(1, "id", "int4"), column(2, "a"), column(3, "b")
FULL = ReplicaIdentity.FULL
DROPPED_B = {"1": "1", "2": "1", "3": "9"}


def known(published: PublishedTable) -> KnownTable:
    return KnownTable(published.table, published.relation, published.fingerprint)


def with_types(**types: str) -> Fingerprint:
    return replace(SAME, types={**SAME.types, **{name.replace("_", " "): value for name, value in types.items()}})


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (look(), Change.NOTHING),
        (look(fingerprint=replace(SAME, filenode="101")), Change.NOTHING),
        (look(fingerprint=replace(SAME, filenode="101", toast="111")), Change.REFILL),
        (look(fingerprint=replace(SAME, toast="111")), Change.NOTHING),
        (look(fingerprint=replace(SAME, attributes={**SAME.attributes, "2": "9"})), Change.NOTHING),
        (
            look(fingerprint=replace(SAME, filenode="101", attributes={**SAME.attributes, "2": "9"})),
            Change.REFILL,
        ),
        (look(fingerprint=replace(SAME, entry="8/8")), Change.REFILL_AFTER_OPEN),
        (look(fingerprint=with_types(**{"60": "9"})), Change.REFILL_AFTER_OPEN),
        (look(fingerprint=with_types(composite_61="1/6 2/9")), Change.REFILL_AFTER_OPEN),
        (look(fingerprint=with_types(**{"62": "9"})), Change.NOTHING),
        (look(fingerprint=replace(SAME, leaves={})), Change.REFILL),
        (look(fingerprint=replace(SAME, leaves={"50": "51"})), Change.REFILL),
        (look(fingerprint=replace(SAME, leaves={"50": "50", "70": "70"})), Change.REFILL),
        (look(fingerprint=replace(SAME, leaves={"50": "50", "70": "70"}, made=("50", "70"))), Change.NOTHING),
        (look(ID, A, B, column(4, "c")), Change.IN_PLACE),
        (look(ID, A, B, column(4, "c"), unread=frozenset({"c"})), Change.REFILL),
        (look(ID, A, B, column(5, "c"), fingerprint=replace(SAME, attributes={**SAME.attributes, "4": "9", "5": "9"})),
         Change.REFILL),
        (look(ID, A, fingerprint=replace(SAME, attributes=DROPPED_B)), Change.IN_PLACE),
        (look(ID, A, column(4, "b"), fingerprint=replace(SAME, attributes={**DROPPED_B, "4": "9"})), Change.REFILL),
        (look(ID, column(2, "b"), column(3, "a")), Change.IN_PLACE),
        (look(ID, A, column(3, "b", "varchar", 20)), Change.IN_PLACE),
        (look(ID, A, column(3, "b", "inet")), Change.REFILL),
        (look(ID, A, B, key=("a",)), Change.IN_PLACE),
        (look(ID, A, B, identity=FULL), Change.IN_PLACE),
        (look(ID, A, B, key=(), identity=FULL), Change.REFILL),
        (look(ID, A, B, name="sites"), Change.IN_PLACE),
        (look(ID, replace(A, nullable=False), B), Change.IN_PLACE),
    ],
)  # fmt: skip
def test_every_case_of_the_table(now: PublishedTable, expected: Change) -> None:
    assert change(known(look()), now) is expected


@pytest.mark.parametrize("full", [True, False])
def test_a_key_that_relation_messages_do_not_show_has_no_known_place(full: bool) -> None:
    before = look(identity=FULL) if full else look()
    now = look(key=("a",), identity=FULL if full else ReplicaIdentity.DEFAULT)
    assert change(known(before), now) is (Change.REFILL if full else Change.IN_PLACE)


@pytest.mark.parametrize(("toast", "expected"), [("", Change.REFILL), ("none", Change.NOTHING)])
def test_without_a_toast_table_a_new_file_is_in_doubt_unless_it_cannot_be_unlogged(
    toast: str, expected: Change
) -> None:
    before = look(fingerprint=replace(SAME, toast=toast))
    assert change(known(before), look(fingerprint=replace(SAME, toast=toast, filenode="101"))) is expected


def test_a_type_of_an_extension_may_have_another_length() -> None:
    before = look(ID, column(2, "a", "citext", 3))
    assert change(known(before), look(ID, column(2, "a", "citext", 4))) is Change.IN_PLACE


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (lambda: look(name="sites"), True),
        (look, False),
        (lambda: look(ID, A, B, column(4, "c"), name="sites"), False),
        (lambda: look(name="sites", fingerprint=replace(SAME, entry="8/8")), False),
    ],
)
def test_only_a_name_is_new(now: Callable[[], PublishedTable], expected: bool) -> None:
    assert only_renamed(known(look()), now()) is expected


def test_a_table_whose_fingerprint_was_never_taken_is_read_again() -> None:
    published = look()
    assert change(KnownTable(published.table, published.relation), published) is Change.REFILL_AFTER_OPEN
