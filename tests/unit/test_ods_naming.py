"""Names in the ODS."""

from __future__ import annotations

import pytest

from catchment.model.errors import TableMisshapen
from catchment.model.table import ReplicaIdentity, Table
from catchment.targets.ods.naming import live_relation, shortened


def in_schema(schema: str) -> Table:
    return Table(1, schema, "Order Lines", (), (), ReplicaIdentity.FULL, 1)


def test_public_lands_in_the_datasets_schema_and_others_beside_it() -> None:
    assert live_relation("shop", "orders", in_schema("public")).quoted == '"orders"."Order Lines"'
    assert live_relation("shop", "orders", in_schema("Sales")).quoted == '"orders__Sales"."Order Lines"'


def test_a_schema_that_postgresql_would_cut_is_refused_with_a_remedy() -> None:
    assert live_relation("s", "a" * 30, in_schema("é" * 15 + "x"))
    with pytest.raises(TableMisshapen) as caught:
        live_relation("s", "a" * 30, in_schema("é" * 16))
    assert caught.value.table == "é" * 16 + ".Order Lines"
    assert caught.value.remedy


def test_a_shortened_name_keeps_its_suffix_and_whole_characters() -> None:
    assert shortened("accounts", "_pkey") == "accounts_pkey"
    assert shortened("é" * 31, "_pkey") == "é" * 29 + "_pkey"
