"""The operational data store: every source's tables in one PostgreSQL, as they are there."""

from catchment.targets.ods.target import OdsTarget

__all__ = ["OdsTarget"]
