"""What a change of a table amounts to, read from two looks at the catalog.

Relation messages show names, types and the replica identity of the published columns, at their place in the stream. The
catalog shows everything, at the moment of the look. Between two looks:

==============================================  =====================================================================
the publication's entry, options, filter, list  refill, once what is open has ended: changes in between were not sent
an enum's label renamed, a composite altered    refill, once what is open has ended: old rows print otherwise, no lock
                                                was taken
an enum's label added                           nothing: no row has it yet
filenode and an attribute                       refill: the table was rewritten (a type, a default that had to be
                                                computed for each row, ALTER … USING)
filenode and TOAST table                        refill: it may have been unlogged for a while, and changed
filenode alone                                  nothing: VACUUM FULL or CLUSTER; a TRUNCATE is in the stream; but refill
                                                where no TOAST table tells them from ``SET UNLOGGED`` and back
a leaf gone, attached, or with another file     refill: its rows came or went without a change in the stream
a leaf that was made as a partition             nothing: all its rows are in the stream
a column dropped and another one added          refill: which Relation shows which of them cannot be told
a column added                                  in place, with the constant that PostgreSQL kept for old rows
a column dropped or renamed                     in place: by its number
a type that prints all old values the same      in place: other lengths, varchar and text
another type, though without a rewrite          refill: cidr as inet, regclass as oid print otherwise
the key, shown by Relation messages             in place
the key under REPLICA IDENTITY FULL             refill: Relation messages do not show it, so its place is unknown
the table's name or schema                      in place
==============================================  =====================================================================

What is in place is so at the place of a Relation message that the catalog agrees with, or where the stream has passed
everything that the catalog showed. In doubt the table is read again, which is always exact.
https://www.postgresql.org/docs/current/sql-altertable.html#SQL-ALTERTABLE-NOTES
"""

from __future__ import annotations

from dataclasses import replace
from enum import IntEnum

from catchment.model.table import Column, ReplicaIdentity, Table
from catchment.pipeline.state import KnownTable
from catchment.postgres.catalog import Fingerprint, PublishedTable

_TEXTS = {("pg_catalog", "text"), ("pg_catalog", "varchar")}


class Change(IntEnum):
    """What has to be done; the greater includes the smaller."""

    NOTHING = 0
    IN_PLACE = 1
    """The targets are told of the new shape."""
    REFILL = 2
    """The rows have to be read again."""
    REFILL_AFTER_OPEN = 3
    """The same, once every transaction that is open now has ended: one may have written as it was before."""


def change(known: KnownTable, published: PublishedTable) -> Change:
    """What has become of the table since it was known like this, now that the catalog shows it like that."""
    before, after = known.fingerprint, published.fingerprint
    if before.entry != after.entry or _types_changed(before, after):
        return Change.REFILL_AFTER_OPEN
    if _rewritten(before, after) or _leaves_changed(before, after):
        return Change.REFILL
    if known.relation == published.relation and same_shape(known.table, published.table):
        return Change.NOTHING
    return Change.REFILL if _is_doubtful(known, published) else Change.IN_PLACE


def same_shape(one: Table, other: Table) -> bool:
    """Whether rows of both are told alike."""
    return _plain(one) == _plain(other)


def renamed(old: Table, new: Table) -> bool:
    """Whether the table has another name now."""
    return (old.schema, old.name) != (new.schema, new.name)


def only_renamed(known: KnownTable, published: PublishedTable) -> bool:
    """Whether its name is all that is new."""
    table = replace(published.table, schema=known.table.schema, name=known.table.name)
    relation = replace(published.relation, schema=known.relation.schema, name=known.relation.name)
    return (
        renamed(known.table, published.table)
        and change(known, published) is Change.IN_PLACE
        and change(known, replace(published, table=table, relation=relation)) is Change.NOTHING
    )


def _plain(table: Table) -> Table:
    columns = tuple(replace(column, missing=None) for column in table.columns)
    return replace(table, columns=columns, filenode=0, version=0)


def _types_changed(before: Fingerprint, after: Fingerprint) -> bool:
    return any(after.types.get(name, version) != version for name, version in before.types.items())


def _rewritten(before: Fingerprint, after: Fingerprint) -> bool:
    altered = before.attributes != after.attributes or before.toast != after.toast or not after.toast
    return before.filenode != after.filenode and altered


def _leaves_changed(before: Fingerprint, after: Fingerprint) -> bool:
    gone_or_other = any(after.leaves.get(oid) != leaf for oid, leaf in before.leaves.items())
    return gone_or_other or bool(after.leaves.keys() - before.leaves.keys() - {*after.made})


def _is_doubtful(known: KnownTable, published: PublishedTable) -> bool:
    old, new = _by_number(known.table), _by_number(published.table)
    if added := new.keys() - old.keys():
        # An attribute that was added and dropped again, or one that is not published, may have come in between.
        all_added = published.fingerprint.attributes.keys() - known.fingerprint.attributes.keys()
        told = {new[number].name for number in added}.isdisjoint(published.unread_defaults)
        if old.keys() - new.keys() or all_added != {str(number) for number in added} or not told:
            return True
    if any(not _prints_the_same(old[number], new[number]) for number in old.keys() & new.keys()):
        return True
    full = ReplicaIdentity.FULL in (known.table.identity, published.table.identity)
    return full and key_numbers(known.table) != key_numbers(published.table)


def _prints_the_same(old: Column, new: Column) -> bool:
    """Given that the table was not rewritten."""
    types = {(column.type_schema, column.type_name) for column in (old, new)}
    extensions = {old.type_extension, new.type_extension}
    alike = extensions != {None} and len(extensions) == 1 and old.type_name == new.type_name
    return alike or len(types) == 1 or types <= _TEXTS


def _by_number(table: Table) -> dict[int, Column]:
    return {column.number: column for column in table.columns}


def key_numbers(table: Table) -> tuple[int, ...]:
    """The columns of the key by ``attnum``."""
    return tuple(table.columns[position].number for position in table.key_positions)
