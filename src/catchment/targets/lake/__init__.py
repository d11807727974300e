"""The lake: Delta tables of what every source has, and of how it became so."""

from catchment.targets.lake.target import LakeTarget

__all__ = ["LakeTarget"]
