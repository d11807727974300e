"""Change feeds: every change of a source as a line of JSON in files."""

from catchment.targets.feed.target import FeedTarget

__all__ = ["FeedTarget"]
