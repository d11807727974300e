"""A scrape, parsed and held against Prometheus' conventions, as `promtool check metrics` does."""

from __future__ import annotations

import re

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

# https://prometheus.io/docs/practices/naming/#base-units and what promtool takes for another unit
_OTHER_UNITS = re.compile(
    r"(milli|micro|nano|kilo|mega|giga|kibi|mebi|gibi)|_(ms|us|ns|minutes|hours|days|kb|mb|gb|bits)_"
)
_TYPES = re.compile(r"_(gauge|counter|histogram|summary|untyped|metric)(_|$)")


class Scrape:
    """Fails to be made when the page breaks a convention."""

    def __init__(self, page: str) -> None:
        self.families = list(text_string_to_metric_families(page))
        self._values = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families
            for sample in family.samples
        }
        assert len(self._values) == sum(len(family.samples) for family in self.families), "a sample is there twice"
        helped = re.findall(r"^# HELP (\S+) (.*)$", page, re.MULTILINE)
        assert len(helped) == len({name for name, _ in helped}) == len(self.families)
        assert not [problem for family in self.families for problem in problems(family)]

    def value(self, name: str, **labels: str) -> float | None:
        """Of one sample; null when there is none."""
        return self._values.get((name, frozenset(labels.items())))


def problems(family: Metric) -> list[str]:
    """What promtool would say of it."""
    name = family.name  # of a counter, without _total
    found = []
    if not re.fullmatch(r"catchment(_[a-z0-9]+)+", name):
        found.append("not snake_case with our prefix")
    if not re.fullmatch(r"[A-Z0-9].*\.|1 for .*", family.documentation):
        found.append("no sentence of help")
    if _OTHER_UNITS.search(f"{name}_"):
        found.append("not a base unit")
    if _TYPES.search(name):
        found.append("its type is in its name")
    if family.type != "counter" and name.endswith("_total"):
        found.append("only counters end in _total")
    if family.type != "histogram" and re.search(r"_(count|sum|bucket)$", name):
        found.append("reserved for histograms")
    for sample in family.samples:
        if family.type == "counter" and sample.name != f"{name}_total":
            found.append("a counter ends in _total")
        if not all(re.fullmatch(r"[a-z]+(_[a-z]+)*", label) for label in sample.labels):
            found.append("a label is not snake_case")
        if family.type != "histogram" and sample.labels.keys() & {"le", "quantile"}:
            found.append("a label is reserved")
        if family.type in ("counter", "histogram") and sample.value < 0:
            found.append("counts downwards")
    return [f"{name}: {problem}" for problem in dict.fromkeys(found)]
