"""What Prometheus is told: read from the hub's state at each scrape, nothing is kept here."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version
from itertools import accumulate

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from catchment.api import metrics
from catchment.api.metrics import METRICS, Metric
from catchment.api.observer import Observed, Observer
from catchment.hub.base import DROPPED, Status
from catchment.hub.space import free_bytes
from catchment.hub.summary import SILENT, Summary
from catchment.model.errors import HubError, LogError, SourceError, TargetError
from catchment.pipeline.counters import LATENCY_BUCKETS
from catchment.pipeline.status import STATES

_WAL_STATUSES = ("reserved", "extended", "unreserved", "lost")
_TABLE_STATES = ("streaming", "refilling", "stopped", "retired")
_ERRORS = {
    collects: [kind.__name__ for base in (side, LogError) for kind in base.__subclasses__()]
    for collects, side in ((True, SourceError), (False, TargetError))
}
"""Those that are to be expected: a rate needs the sample from before the first."""
_BOUNDS = (*(str(bound) for bound in LATENCY_BUCKETS), "+Inf")


class Exposition(Collector):
    """Where the hub's state cannot be read, what is known without it is told all the same."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def collect(self) -> Iterable[Family]:
        samples = _Samples()
        supervisor = self._observer.supervisor
        samples.put(metrics.BUILD, 1, version("catchment"), platform.python_version())
        samples.put(metrics.STARTED, supervisor.started_at.timestamp())
        samples.put(metrics.STATE_FREE, free_bytes(self._observer.state))
        for worker in supervisor.workers:
            samples.put(metrics.WORKER_RESTARTS, worker.restarts, worker.name)
        try:
            observed = self._observer.observe()
        except HubError:
            samples.put(metrics.UP, 0)
        else:
            samples.put(metrics.UP, 1)
            samples.put_all(observed)
        return samples.families()


class _Samples:
    """Families to which samples are put; what is unknown, null, is left out."""

    def __init__(self) -> None:
        kinds = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}
        self._plain = {
            metric.name: kinds[metric.kind](metric.name, metric.text, labels=metric.labels)
            for metric in METRICS
            if metric.kind in kinds
        }
        self._latency = HistogramMetricFamily(metrics.LATENCY.name, metrics.LATENCY.text, labels=metrics.LATENCY.labels)

    def families(self) -> list[Family]:
        return [*self._plain.values(), self._latency]

    def put(self, metric: Metric, value: float | None, *labels: str) -> None:
        if value is not None:
            self._plain[metric.name].add_metric(labels, value)

    def put_each(self, metric: Metric, values: Iterable[str], chosen: str | None, *labels: str) -> None:
        """1 for the one that is chosen, 0 for the others."""
        for value in values:
            self.put(metric, value == chosen, *labels, value)

    def put_all(self, observed: Observed) -> None:
        for worker, reported_at in observed.reported.items():
            self.put(metrics.WORKER_REPORTED, reported_at.timestamp(), worker)
        for source in observed.summary["sources"]:
            if source["state"] != DROPPED:
                self._put_source(source, observed.loops.get((source["name"], None)))
        for target in observed.summary["targets"]:
            if target["state"] != DROPPED:
                self._put_target(target, observed.loops.get((target["source"], target["name"])))

    def _put_source(self, source: Summary, loop: Status | None) -> None:
        name = source["name"]
        self._put_loop(source, loop, name, "")
        self.put(metrics.SOURCE_LAG_BYTES, source["lag_bytes"], name)
        self.put(metrics.SOURCE_LAG_SECONDS, source["lag_seconds"], name)
        if slot := source["slot"]:
            self.put(metrics.SLOT_ACTIVE, slot["active"], name)
            self.put_each(metrics.SLOT_WAL_STATUS, _WAL_STATUSES, slot["wal_status"], name)
            self.put(metrics.SLOT_RETAINED, slot["retained_bytes"], name)
        tables = Counter(table["state"] for table in source["tables"])
        for state in dict.fromkeys((*_TABLE_STATES, *tables)):
            self.put(metrics.TABLES, tables[state], name, state)
        self.put(metrics.REFILLS, len(source["refills"]), name)
        for refill in source["refills"]:
            self.put(metrics.REFILL_TABLES, len(refill["tables"]), name)
            self.put(metrics.REFILL_READ, refill["rows"], name)
            self.put(metrics.REFILL_ESTIMATED, refill["of"], name)
        if loop is not None:
            self.put(metrics.SOURCE_CHANGES, loop.detail["changes"], name)
            self.put(metrics.SOURCE_BATCHES, loop.detail["batches"], name)
            kept = loop.detail.get("log", {})
            self.put(metrics.LOG_BYTES, kept.get("bytes"), name)
            self.put(metrics.LOG_FIRST, kept.get("first"), name)
            self.put(metrics.LOG_LAST, loop.detail.get("offset"), name)

    def _put_target(self, target: Summary, loop: Status | None) -> None:
        labels = target["source"], target["name"]
        self._put_loop(target, loop, *labels)
        self.put(metrics.TARGET_LAG_BYTES, target["lag_bytes"], *labels)
        self.put(metrics.TARGET_LAG_SECONDS, target["lag_seconds"], *labels)
        if loop is not None:
            self.put(metrics.TARGET_LOADED, loop.detail.get("loaded", False), *labels)
            self.put(metrics.TARGET_OFFSET, loop.detail.get("offset"), *labels)
            self.put(metrics.TARGET_CHANGES, loop.detail["changes"], *labels)
            self.put(metrics.TARGET_BATCHES, loop.detail["batches"], *labels)
            latency = loop.detail["latency"]
            buckets = list(zip(_BOUNDS, accumulate(latency["counts"]), strict=True))
            self._latency.add_metric(labels, buckets, latency["seconds"])

    def _put_loop(self, told: Summary, loop: Status | None, *labels: str) -> None:
        self.put(metrics.LOOP_UP, told["state"] in ("streaming", "refilling"), *labels)
        self.put_each(metrics.LOOP_STATE, (*STATES, SILENT), told["state"], *labels)
        self.put(metrics.LOOP_TROUBLE, told["remedy"] is not None, *labels)
        if loop is not None:
            self.put(metrics.LOOP_RESTARTS, loop.detail["restarts"], *labels)
            expected = dict.fromkeys(_ERRORS[loop.target is None], 0)
            for error, count in {**expected, **loop.detail["errors"]}.items():
                self.put(metrics.LOOP_ERRORS, count, *labels, error)
