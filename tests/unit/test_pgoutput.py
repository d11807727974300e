"""What each message of pgoutput becomes, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from struct import pack

import pgoutput_messages as pg
import pytest
from pgoutput_messages import NO_LIMIT, SECOND, UNCHANGED
from wire_twins import Twin

from catchment.model.batch import Place, rows_schema
from catchment.model.errors import DecodeError
from catchment.model.lsn import Lsn
from catchment.model.table import ReplicaIdentity
from catchment.wire.messages import LogicalMessage, Relation, RelationColumn, Truncate

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
ORDERS = Relation(
    16384,
    "public",
    "orders",
    ReplicaIdentity.DEFAULT,
    (RelationColumn("id", 23, -1, True), RelationColumn("note", 25, -1, False)),
)
ITEMS = Relation(16400, "shop", "items", ReplicaIdentity.FULL, (RelationColumn("sku", 25, -1, True),))
ORDER = ORDERS.oid
OPENED = [pg.relation(ORDERS), pg.begin()]


def changes(twin: Twin, *messages: bytes) -> list[tuple[object, ...]]:
    """``(_op, _seq, _unchanged, *values)`` of the rows of one transaction."""
    rows = pg.decode(twin, [*OPENED, *messages, pg.commit()]).all_rows
    return [(op, seq, unchanged, *values) for op, seq, _, _, _, unchanged, *values in rows]


def test_insert_is_one_create(twin: Twin) -> None:
    assert changes(twin, pg.insert(ORDER, ["1", "a"])) == [("c", 1, None, "1", "a")]


def test_update_without_an_old_row_is_one_update(twin: Twin) -> None:
    assert changes(twin, pg.update(ORDER, ["1", "a"])) == [("u", 1, None, "1", "a")]


def test_update_with_the_old_key_is_linked_by_consecutive_sequence(twin: Twin) -> None:
    assert changes(twin, pg.update(ORDER, ["2", "a"], key=["1", None]), pg.insert(ORDER, ["3", "c"])) == [
        ("b", 1, None, "1", None),
        ("u", 2, None, "2", "a"),
        ("c", 3, None, "3", "c"),
    ]


def test_update_with_the_old_row_is_linked_by_consecutive_sequence(twin: Twin) -> None:
    assert changes(twin, pg.update(ORDER, ["1", "b"], old=["1", "a"])) == [
        ("b", 1, None, "1", "a"),
        ("u", 2, None, "1", "b"),
    ]


def test_delete_carries_the_key_or_the_whole_row(twin: Twin) -> None:
    assert changes(twin, pg.delete(ORDER, key=["1", None]), pg.delete(ORDER, old=["2", "b"])) == [
        ("d", 1, None, "1", None),
        ("d", 2, None, "2", "b"),
    ]


def test_unchanged_toast_is_marked_and_null_is_not(twin: Twin) -> None:
    assert changes(
        twin,
        pg.update(ORDER, ["1", UNCHANGED]),
        pg.update(ORDER, ["1", None]),
        pg.update(ORDER, [UNCHANGED, UNCHANGED]),
    ) == [("u", 1, [1], "1", None), ("u", 2, None, "1", None), ("u", 3, [0, 1], None, None)]


def test_empty_text_is_not_null(twin: Twin) -> None:
    assert changes(twin, pg.insert(ORDER, ["", None])) == [("c", 1, None, "", None)]


def test_any_utf8_passes_zero_bytes_too(twin: Twin) -> None:
    assert changes(twin, pg.insert(ORDER, ["\0", "naïve 🦦\t\n\\"])) == [("c", 1, None, "\0", "naïve 🦦\t\n\\")]


def test_rows_carry_their_own_transaction(twin: Twin) -> None:
    messages = [
        pg.relation(ORDERS),
        *(pg.begin(100, xid=7, time=SECOND), pg.insert(ORDER, ["1", "a"]), pg.commit(100)),
        *(pg.begin(150, xid=8, time=2 * SECOND), pg.commit(150)),
        *(
            pg.begin(200, xid=2**32 - 1, time=-3),
            pg.insert(ORDER, ["2", "b"]),
            pg.insert(ORDER, ["3", "c"]),
            pg.commit(200),
        ),
    ]
    decoded = pg.decode(twin, messages, sequence=41)
    assert [each[:5] for each in decoded.all_rows] == [
        ("c", 42, 100, 7, EPOCH + timedelta(seconds=1)),
        ("c", 43, 200, 2**32 - 1, EPOCH - timedelta(microseconds=3)),
        ("c", 44, 200, 2**32 - 1, EPOCH - timedelta(microseconds=3)),
    ]
    assert decoded.decoder.sequence == 44
    assert decoded.decoder.until == Lsn(208)
    assert decoded.decoder.committed_at == EPOCH - timedelta(microseconds=3)


def test_a_transaction_goes_on_after_take(twin: Twin) -> None:
    decoder = twin.Decoder(Lsn(0), 0)
    decoder.decode([pg.relation(ORDERS)], 0, NO_LIMIT, NO_LIMIT)
    decoder.decode([pg.begin(100, xid=7), pg.insert(ORDER, ["1", "a"])], 0, NO_LIMIT, NO_LIMIT)
    assert decoder.xids == [7]
    assert [each[1:4] for each in pg.take(decoder)[0][1]] == [(1, 100, 7)]
    assert (decoder.rows, decoder.size, decoder.xids, decoder.in_transaction) == (0, 0, [], True)
    decoder.decode([pg.insert(ORDER, ["2", "b"]), pg.commit(100)], 0, NO_LIMIT, NO_LIMIT)
    assert [each[1:4] for each in pg.take(decoder)[0][1]] == [(2, 100, 7)]
    assert not decoder.in_transaction
    assert decoder.take() == []


def test_a_new_decoder_says_so(twin: Twin) -> None:
    decoder = twin.Decoder(Lsn(5), 9)
    assert (decoder.until, decoder.sequence, decoder.committed_at) == (Lsn(5), 9, EPOCH)
    assert (decoder.rows, decoder.size, decoder.in_transaction, decoder.xids) == (0, 0, False, [])


def test_columns_are_laid_out_as_rows_schema_whatever_their_names(twin: Twin) -> None:
    odd = Relation(
        1, "s", "t", ReplicaIdentity.NOTHING, tuple(RelationColumn(n, 25, -1, False) for n in ("_op", "_op"))
    )
    decoder = twin.Decoder(Lsn(0), 0)
    decoder.decode([pg.relation(odd)], 0, NO_LIMIT, NO_LIMIT)
    decoder.decode([pg.begin(), pg.insert(1, ["x", "y"])], 0, NO_LIMIT, NO_LIMIT)
    [(shape, data)] = decoder.take()
    assert shape == odd
    assert data.schema.equals(rows_schema(["_op", "_op"]))


def test_a_table_without_columns_has_rows(twin: Twin) -> None:
    empty = Relation(1, "s", "t", ReplicaIdentity.NOTHING, ())
    [(_, rows)] = pg.decode(
        twin, [pg.relation(empty), pg.begin(), pg.insert(1, []), pg.insert(1, []), pg.commit()]
    ).rows
    assert [each[:2] for each in rows] == [("c", 1), ("c", 2)]


# Skipping what the log has already


def test_a_transaction_before_resume_is_skipped(twin: Twin) -> None:
    first = [pg.begin(100, xid=7), pg.insert(ORDER, ["1", "a"]), pg.commit(100, end_lsn=108)]
    decoded = pg.decode(twin, [pg.relation(ORDERS), *first], resume=108, sequence=5)
    assert decoded.all_rows == []
    assert (decoded.decoder.sequence, decoded.decoder.xids, decoded.decoder.until) == (5, [], Lsn(108))


def test_an_adjacent_transaction_whose_final_lsn_equals_resume_is_not_skipped(twin: Twin) -> None:
    first = [pg.begin(100, xid=7), pg.insert(ORDER, ["1", "a"]), pg.commit(100, end_lsn=108)]
    second = [pg.begin(108, xid=8), pg.insert(ORDER, ["2", "b"]), pg.commit(108, end_lsn=116)]
    decoded = pg.decode(twin, [pg.relation(ORDERS), *first, *second], resume=108, sequence=5)
    assert [each[1:4] for each in decoded.all_rows] == [(6, 108, 8)]
    assert decoded.decoder.until == Lsn(116)


def test_a_skipped_transaction_still_announces_relations_but_no_events(twin: Twin) -> None:
    decoder = twin.Decoder(Lsn(200), 0)
    skipped = [pg.begin(100, time=SECOND), pg.relation(ORDERS), pg.truncate(ORDER), pg.logical_message("p", b"x")]
    messages = [*skipped, pg.commit(100), pg.begin(200), pg.insert(ORDER, ["1", "a"])]
    assert decoder.decode(messages, 0, NO_LIMIT, NO_LIMIT) == (2, ORDERS)
    assert decoder.in_transaction
    assert decoder.committed_at == EPOCH + timedelta(seconds=1)
    assert decoder.decode(messages, 2, NO_LIMIT, NO_LIMIT) == (len(messages), None)
    assert (decoder.rows, decoder.sequence) == (1, 1)


# Where a run ends


def test_a_run_ends_behind_the_message_that_reaches_the_most_rows(twin: Twin) -> None:
    decoder = twin.Decoder(Lsn(0), 0)
    messages = [*OPENED, pg.insert(ORDER, ["1", "a"]), pg.update(ORDER, ["2", "a"], key=["1", None]), pg.commit()]
    assert decoder.decode(messages, 0, 2, NO_LIMIT) == (1, ORDERS)
    assert decoder.decode(messages, 1, 2, NO_LIMIT) == (4, None)
    assert decoder.rows == 3
    assert decoder.decode(messages, 4, 2, NO_LIMIT) == (5, None)


def test_a_run_ends_behind_the_message_that_reaches_the_most_bytes(twin: Twin) -> None:
    one = pg.insert(ORDER, ["1", "a"])
    messages = [*OPENED, one, one, one, pg.commit()]
    decoder = twin.Decoder(Lsn(0), 0)
    assert decoder.decode(messages, 0, NO_LIMIT, 2 * len(one)) == (1, ORDERS)
    assert decoder.decode(messages, 1, NO_LIMIT, 2 * len(one)) == (4, None)
    assert decoder.size == 2 * len(one)
    decoder.take()
    assert decoder.decode(messages, 4, NO_LIMIT, 2 * len(one)) == (6, None)
    assert decoder.size == len(one)


def test_truncate_takes_a_place_of_its_own(twin: Twin) -> None:
    decoded = pg.decode(
        twin,
        [
            *(pg.relation(ORDERS), pg.relation(ITEMS), pg.begin(100, xid=7, time=SECOND)),
            *(pg.insert(ORDER, ["1", "a"]), pg.truncate(ORDER, ITEMS.oid, options=3), pg.insert(ORDER, ["2", "b"])),
            pg.commit(100),
        ],
    )
    place = Place(2, Lsn(100), 7, EPOCH + timedelta(seconds=1))
    assert decoded.events[2:] == [Truncate((ORDER, ITEMS.oid), place)]
    assert [each[1] for each in decoded.all_rows] == [1, 3]


def test_a_transactional_message_takes_the_place_of_its_transaction(twin: Twin) -> None:
    decoded = pg.decode(
        twin, [pg.begin(100, xid=7, time=SECOND), pg.logical_message("p", b"\xff", lsn=90), pg.commit(100)]
    )
    place = Place(1, Lsn(100), 7, EPOCH + timedelta(seconds=1))
    assert decoded.events == [LogicalMessage("p", b"\xff", True, place)]


def test_a_message_that_is_not_transactional_stands_between_transactions(twin: Twin) -> None:
    before = [pg.begin(100, xid=7, time=SECOND), pg.commit(100)]
    decoded = pg.decode(
        twin, [*before, pg.logical_message("p", b"", lsn=120, transactional=False)], resume=100, sequence=3
    )
    place = Place(4, Lsn(120), 0, EPOCH + timedelta(seconds=1))
    assert decoded.events == [LogicalMessage("p", b"", False, place)]


@pytest.mark.parametrize(("lsn", "events"), [(100, 0), (101, 1)])
def test_a_message_that_ends_at_resume_is_skipped(twin: Twin, lsn: int, events: int) -> None:
    decoded = pg.decode(twin, [pg.logical_message("p", b"", lsn=lsn, transactional=False)], resume=100)
    assert len(decoded.events) == events
    assert decoded.decoder.sequence == events


def test_origin_and_type_are_swallowed(twin: Twin) -> None:
    assert changes(
        twin, pg.origin("elsewhere"), pg.data_type(70000, "public", "mood"), pg.insert(ORDER, ["1", "a"])
    ) == [("c", 1, None, "1", "a")]


# Relations


def test_a_relation_reads_back_as_it_was_sent(twin: Twin) -> None:
    assert pg.decode(twin, [pg.relation(ORDERS), pg.relation(ITEMS)]).events == [ORDERS, ITEMS]


def test_the_schema_that_postgresql_leaves_out_is_pg_catalog(twin: Twin) -> None:
    [relation] = pg.decode(twin, [pg.relation(Relation(1, "", "t", ReplicaIdentity.INDEX, ()))]).events
    assert relation == Relation(1, "pg_catalog", "t", ReplicaIdentity.INDEX, ())


def test_relations_come_in_order_of_their_first_row(twin: Twin) -> None:
    messages = [pg.relation(ORDERS), pg.relation(ITEMS), pg.begin()]
    messages += [pg.insert(ITEMS.oid, ["x"]), pg.insert(ORDER, ["1", "a"]), pg.insert(ITEMS.oid, ["y"]), pg.commit()]
    assert [(shape.name, len(rows)) for shape, rows in pg.decode(twin, messages).rows] == [("items", 2), ("orders", 1)]


def test_an_equal_relation_goes_on_with_the_same_rows(twin: Twin) -> None:
    one = pg.insert(ORDER, ["1", "a"])
    decoded = pg.decode(twin, [*OPENED, one, pg.relation(ORDERS), one, pg.commit()])
    assert [(shape, len(rows)) for shape, rows in decoded.rows] == [(ORDERS, 2)]


def test_another_relation_of_the_same_table_is_kept_apart(twin: Twin) -> None:
    grown = Relation(
        ORDER, "public", "orders", ORDERS.identity, (*ORDERS.columns, RelationColumn("extra", 25, -1, False))
    )
    messages = [*OPENED, pg.insert(ORDER, ["1", "a"]), pg.relation(grown), pg.insert(ORDER, ["2", "b", "c"])]
    decoded = pg.decode(twin, [*messages, pg.commit()])
    assert [(shape, [each[6:] for each in rows]) for shape, rows in decoded.rows] == [
        (ORDERS, [("1", "a")]),
        (grown, [("2", "b", "c")]),
    ]


# What is refused

GOOD_ROW = pg.insert(ORDER, ["1", "abc"])
REFUSED = {
    "an empty message": [b""],
    "an unknown message": [b"x"],
    "a streaming message of protocol 2": [b"S" + pack(">IB", 7, 1)],
    "Begin inside a transaction": [pg.begin(), pg.begin()],
    "Commit without Begin": [pg.commit()],
    "Commit of another transaction": [pg.begin(100), pg.commit(108)],
    "Commit with flags": [pg.begin(), b"C\1" + pg.commit()[2:]],
    "a row outside of a transaction": [pg.relation(ORDERS), GOOD_ROW],
    "a row of an unknown relation": [pg.begin(), GOOD_ROW],
    "too few columns": [*OPENED, pg.insert(ORDER, ["1"])],
    "too many columns": [*OPENED, pg.insert(ORDER, ["1", "2", "3"])],
    "a number of columns that is not that of the values": [*OPENED, GOOD_ROW.replace(pack(">h", 2), pack(">h", 1), 1)],
    "a negative number of columns in a row": [*OPENED, GOOD_ROW[:6] + pack(">h", -1)],
    "a binary value": [*OPENED, GOOD_ROW.replace(b"t\0\0\0\x03", b"b\0\0\0\x03")],
    "a length beyond the end": [*OPENED, GOOD_ROW.replace(b"t\0\0\0\x03", b"t\0\0\0\x04")],
    "a negative length": [*OPENED, GOOD_ROW.replace(b"t\0\0\0\x03", b"t\xff\xff\xff\xff")],
    "bytes behind a row": [*OPENED, GOOD_ROW + b"n"],
    "an insert with an old row": [*OPENED, GOOD_ROW.replace(b"N", b"O", 1)],
    "an update with an unknown marker": [*OPENED, pg.update(ORDER, ["1", "2"]).replace(b"N", b"X", 1)],
    "an update without its new row": [*OPENED, b"U" + pg.delete(ORDER, old=["1", "a"])[1:]],
    "an update with another old row in place of the new": [
        *OPENED,
        b"U" + pg.delete(ORDER, old="ab")[1:] + b"O" + pg.row("ab"),
    ],
    "a delete with a new row": [*OPENED, pg.delete(ORDER, old=["1", "a"]).replace(b"O", b"N", 1)],
    "TRUNCATE outside of a transaction": [pg.relation(ORDERS), pg.truncate(ORDER)],
    "TRUNCATE of an unknown relation": [*OPENED, pg.truncate(ORDER, 1)],
    "TRUNCATE of too many": [*OPENED, b"T" + pack(">iB", -1, 0)],
    "a transactional message outside of a transaction": [pg.logical_message("p", b"")],
    "a message that is not transactional inside a transaction": [
        pg.begin(),
        pg.logical_message("p", b"", transactional=False),
    ],
    "a message with unknown flags": [pg.begin(), b"M\2" + pg.logical_message("p", b"")[2:]],
    "a message with a negative length": [pg.begin(), pg.logical_message("p", b"")[:-4] + pack(">i", -1)],
    "an unknown replica identity": [pg.relation(ORDERS).replace(b"orders\0d", b"orders\0x")],
    "a negative number of columns in a relation": [pg.relation(ORDERS)[:20] + pack(">h", -1)],
    "a name that is not UTF-8": [pg.relation(ORDERS).replace(b"orders", b"\xffrders")],
    "a name without an end": [b"O" + pack(">q", 1) + b"name"],
    "a commit time that no calendar has": [pg.begin(time=2**63 - 1)],
    "a commit time before the year 1": [pg.begin(time=-(2**62))],
    "a final LSN that no column holds": [pg.begin(-1)],
    "an end LSN that no column holds": [pg.begin(100), pg.commit(100, end_lsn=-1)],
}


@pytest.mark.parametrize("messages", REFUSED.values(), ids=REFUSED.keys())
def test_refused(twin: Twin, messages: list[bytes]) -> None:
    with pytest.raises(DecodeError):
        pg.decode(twin, messages)


WHOLE = {
    "Begin": ([], pg.begin()),
    "Commit": ([pg.begin()], pg.commit()),
    "Relation": ([], pg.relation(ORDERS)),
    "Insert": (OPENED, pg.insert(ORDER, ["1", None])),
    "Update": (OPENED, pg.update(ORDER, ["1", UNCHANGED], old=["1", "a"])),
    "Delete": (OPENED, pg.delete(ORDER, key=["1", None])),
    "Truncate": (OPENED, pg.truncate(ORDER)),
    "Message": ([pg.begin()], pg.logical_message("prefix", b"content")),
    "Origin": ([], pg.origin("elsewhere")),
    "Type": ([], pg.data_type(70000, "public", "mood")),
}


@pytest.mark.parametrize(("before", "message"), WHOLE.values(), ids=WHOLE.keys())
def test_a_message_cut_short_anywhere_or_too_long_is_refused(twin: Twin, before: list[bytes], message: bytes) -> None:
    pg.decode(twin, [*before, message])
    for length in range(len(message)):
        with pytest.raises(DecodeError):
            pg.decode(twin, [*before, message[:length]])
    with pytest.raises(DecodeError) as caught:
        pg.decode(twin, [*before, message + b"\0"])
    assert caught.value.position == len(message)


def test_a_value_that_is_not_utf8_names_the_table_but_never_the_value(twin: Twin) -> None:
    with pytest.raises(DecodeError) as caught:
        pg.decode(twin, [*OPENED, pg.insert(ORDER, ["1", b"secret\xff"]), pg.commit()])
    assert caught.value.table == "public.orders"
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_an_error_says_at_which_byte(twin: Twin) -> None:
    with pytest.raises(DecodeError) as caught:
        pg.decode(twin, [*OPENED, GOOD_ROW.replace(b"t\0\0\0\x03", b"b\0\0\0\x03")])
    assert caught.value.position == GOOD_ROW.index(b"t\0\0\0\x03")
