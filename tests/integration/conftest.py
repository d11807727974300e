"""An ODS, and a source whose batches are written by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ods_batches import Ods, Source

from catchment.targets.ods.target import OdsTarget


@pytest.fixture
def ods(ods_database: str) -> Iterator[Ods]:
    ods = Ods(ods_database)
    yield ods
    ods.connection.close()


@pytest.fixture
def source(ods_database: str) -> Iterator[Source]:
    target = OdsTarget(ods_database, {"orders": "orders", "stock": "stock"})
    yield Source(target)
    target.close()
