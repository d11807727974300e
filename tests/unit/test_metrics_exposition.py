"""What Prometheus and probes are told, from what loops have reported."""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from exposition_lint import Scrape, problems
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import CollectorRegistry

from catchment.api.exposition import Exposition
from catchment.api.health import not_alive, not_ready
from catchment.api.metrics import METRICS
from catchment.api.observer import Observer
from catchment.hub.base import Status
from catchment.hub.memory import MemoryHub
from catchment.hub.sqlite import SqliteHub
from catchment.hub.summary import lag
from catchment.model.errors import TargetRefused, TargetUnreachable
from catchment.pipeline.counters import LATENCY_BUCKETS
from catchment.pipeline.status import LoopStatus
from catchment.pipeline.supervisor import Supervisor

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
LONG_AGO = timedelta(minutes=2)


class Hub:
    """One worker with one source and one target, both well."""

    def __init__(self) -> None:
        self.hub = MemoryHub()
        self.supervisor = Supervisor({"worker-1": []}, self.hub)
        self.observer = Observer(self.hub, self.supervisor, ["orders"], ["ods"], Path())
        self.collect, self.deliver = LoopStatus("orders"), LoopStatus("orders", "ods")
        self.collect.well("streaming", position="0/20", passed="0/20", wal_position="0/30", offset=7, tables=[])
        self.deliver.well("streaming", frontier="0/10", offset=5, loaded=True)

    def report(self) -> None:
        self.hub.report("worker-1", [loop.report("worker-1") for loop in (self.collect, self.deliver)])

    def scrape(self) -> Scrape:
        return scrape(self.observer)

    def age(self, by: timedelta) -> None:
        """Let everything that was said be so much older."""
        self.supervisor.started_at -= by
        (told,) = self.hub._statuses.values()
        self.hub._statuses["worker-1"] = tuple(older(status, by) for status in told)


def older(status: Status, by: timedelta) -> Status:
    assert status.reported_at is not None
    at = status.reported_at - by
    return Status(
        status.source, status.target, status.worker, status.state, status.remedy, status.beat, status.detail, at
    )


def registry(observer: Observer) -> CollectorRegistry:
    made = CollectorRegistry()
    made.register(Exposition(observer))
    return made


def scrape(observer: Observer) -> Scrape:
    return Scrape(generate_latest(registry(observer)).decode())


@pytest.fixture
def hub() -> Hub:
    hub = Hub()
    hub.report()
    return hub


def test_every_metric_is_told_even_without_samples(hub: Hub) -> None:
    told = {family.name for family in hub.scrape().families}
    assert told == {metric.name.removesuffix("_total") for metric in METRICS}


def test_openmetrics_is_spoken_too(hub: Hub) -> None:
    page = generate_openmetrics(registry(hub.observer)).decode()
    assert len(list(text_string_to_metric_families(page))) == len(METRICS)


def test_the_lint_finds_what_prometheus_would_not_like() -> None:
    family = GaugeMetricFamily("catchment_lag_ms_total", "lag", labels=["Source"])
    family.add_metric(["orders"], 1)
    assert [problem.partition(": ")[2] for problem in problems(family)] == [
        "no sentence of help",
        "not a base unit",
        "only counters end in _total",
        "a label is not snake_case",
    ]


def test_lag_is_the_same_as_in_status(hub: Hub) -> None:
    scrape = hub.scrape()
    assert scrape.value("catchment_source_lag_bytes", source="orders") == 0x10
    assert scrape.value("catchment_target_lag_bytes", source="orders", target="ods") == 0x20
    assert scrape.value("catchment_source_lag_seconds", source="orders") is None  # no transaction was seen yet


def test_what_loops_count_is_told_by_source_and_target(hub: Hub) -> None:
    hub.collect.moved(2, 30)
    hub.deliver.moved(1, 20)
    hub.deliver.failed(TargetUnreachable("away"))
    hub.deliver.failed(TargetUnreachable("away"))
    hub.deliver.failed(TargetRefused("no"))
    hub.deliver.restarted()
    hub.report()
    scrape = hub.scrape()
    target = {"source": "orders", "target": "ods"}
    assert scrape.value("catchment_source_changes_total", source="orders") == 30
    assert scrape.value("catchment_source_batches_total", source="orders") == 2
    assert scrape.value("catchment_target_changes_total", **target) == 20
    assert scrape.value("catchment_loop_errors_total", **target, error="TargetUnreachable") == 2
    assert scrape.value("catchment_loop_errors_total", **target, error="TargetRefused") == 1
    assert scrape.value("catchment_loop_errors_total", **target, error="LogFull") == 0  # which a rate needs
    assert scrape.value("catchment_loop_errors_total", source="orders", target="", error="SlotLost") == 0
    assert scrape.value("catchment_loop_restarts_total", **target) == 1
    assert scrape.value("catchment_loop_restarts_total", source="orders", target="") == 0
    assert scrape.value("catchment_loop_state", **target, state="stopped") == 1
    assert scrape.value("catchment_loop_state", **target, state="streaming") == 0
    assert scrape.value("catchment_loop_up", **target) == 0
    assert scrape.value("catchment_loop_up", source="orders", target="") == 1


def test_slot_tables_refills_and_log_are_told(hub: Hub) -> None:
    slot = {"active": True, "wal_status": "extended", "retained_bytes": 4096}
    tables = [{"name": f"public.t{n}", "state": state, "remedy": None} for n, state in enumerate(["stopped"] * 2)]
    refills = [{"tables": ["public.t0"], "rows": 5, "of": None, "rows_per_second": 1}]
    hub.collect.note(slot=slot, tables=tables, refills=refills, log={"bytes": 99, "first": 3})
    hub.report()
    scrape = hub.scrape()
    assert scrape.value("catchment_slot_active", source="orders") == 1
    assert scrape.value("catchment_slot_retained_bytes", source="orders") == 4096
    assert scrape.value("catchment_slot_wal_status", source="orders", wal_status="extended") == 1
    assert scrape.value("catchment_slot_wal_status", source="orders", wal_status="lost") == 0
    assert scrape.value("catchment_tables", source="orders", state="stopped") == 2
    assert scrape.value("catchment_tables", source="orders", state="streaming") == 0
    assert scrape.value("catchment_refills", source="orders") == 1
    assert scrape.value("catchment_refill_rows_read", source="orders") == 5
    assert scrape.value("catchment_refill_rows_estimated", source="orders") is None
    assert scrape.value("catchment_log_bytes", source="orders") == 99
    assert scrape.value("catchment_log_first_offset", source="orders") == 3
    assert scrape.value("catchment_log_last_offset", source="orders") == 7


@pytest.mark.parametrize(("ago", "bound"), [(0.02, "0.025"), (3.0, "5.0"), (-60.0, "0.01"), (10_000.0, "+Inf")])
def test_latency_falls_into_one_bucket_and_all_above(hub: Hub, ago: float, bound: str) -> None:
    hub.deliver.applied([datetime.now(UTC) - timedelta(seconds=ago)])
    hub.report()
    scrape = hub.scrape()
    bounds = [*map(str, LATENCY_BUCKETS), "+Inf"]
    name, labels = "catchment_commit_to_applied_seconds", {"source": "orders", "target": "ods"}
    found = [scrape.value(f"{name}_bucket", **labels, le=each) for each in bounds]
    assert found == [float(bounds.index(each) >= bounds.index(bound)) for each in bounds]
    assert scrape.value(f"{name}_count", **labels) == 1
    total = scrape.value(f"{name}_sum", **labels)
    assert total is not None
    assert total >= max(ago, 0.0)


def test_a_dropped_source_is_told_no_more(hub: Hub) -> None:
    hub.collect.dropped()
    hub.hub.report("worker-1", [hub.collect.report("worker-1")])
    scrape = hub.scrape()
    assert scrape.value("catchment_loop_up", source="orders", target="") is None
    assert scrape.value("catchment_loop_up", source="orders", target="ods") is None
    assert scrape.value("catchment_worker_last_report_timestamp_seconds", worker="worker-1") is not None
    assert not_ready(hub.observer) == []


def test_what_cannot_be_read_is_told_without_a_traceback(tmp_path: Path) -> None:
    hub = SqliteHub(tmp_path / "hub.sqlite")
    supervisor = Supervisor({"worker-1": []}, hub)
    supervisor.workers[0].restarts = 3
    observer = Observer(hub, supervisor, ["orders"], ["ods"], tmp_path)
    hub.close()
    told = scrape(observer)
    assert told.value("catchment_up") == 0
    assert told.value("catchment_worker_restarts_total", worker="worker-1") == 3
    for reasons in (not_alive(observer), not_ready(observer)):
        (line,) = reasons
        assert line.startswith(f"cannot use {tmp_path}/hub.sqlite: ")


def test_a_full_disk_is_told_although_nothing_can_be_reported_any_more(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (hub.scrape().value("catchment_state_free_bytes") or 0) > 0
    monkeypatch.setattr("catchment.hub.space.free_bytes", lambda _: 1_500_000)
    (line,) = not_ready(hub.observer)
    assert line.startswith("the disk with [hub] state . has 1.5 MB left: ")


def test_a_hub_in_order_is_alive_and_ready(hub: Hub) -> None:
    assert (not_alive(hub.observer), not_ready(hub.observer)) == ([], [])


def test_a_refill_beside_the_stream_leaves_it_ready(hub: Hub) -> None:
    hub.collect.well("refilling")
    hub.report()
    assert not_ready(hub.observer) == []


def test_what_is_not_ready_is_named_with_its_remedy(hub: Hub) -> None:
    hub.deliver.failed(TargetUnreachable("no answer", source="orders"))
    hub.report()
    (line,) = not_ready(hub.observer)
    assert line.startswith("target ods, source orders: retrying: source orders: no answer; check that")
    assert not_alive(hub.observer) == []


def test_a_table_that_is_stopped_is_not_ready(hub: Hub) -> None:
    table = {"name": "public.places", "state": "streaming", "remedy": None}
    hub.collect.note(tables=[table, {"name": "public.t", "state": "stopped", "remedy": "table public.t: mend it"}])
    hub.deliver.note(stopped={"public.places": "table public.places: mend it"})
    hub.report()
    assert not_ready(hub.observer) == ["stopped: table public.places: mend it", "stopped: table public.t: mend it"]


def test_a_target_in_its_first_load_is_not_ready(hub: Hub) -> None:
    hub.deliver.well("refilling", loaded=False)
    hub.report()
    assert not_ready(hub.observer) == ["target ods, source orders: the first load is under way"]
    assert hub.scrape().value("catchment_target_loaded", source="orders", target="ods") == 0


def test_what_was_never_heard_of_is_not_ready_and_yet_alive() -> None:
    hub = Hub()
    assert not_ready(hub.observer) == ["source orders: starting", "target ods, source orders: starting"]
    assert not_alive(hub.observer) == []


def test_what_an_earlier_run_reported_does_not_count(hub: Hub) -> None:
    hub.supervisor.started_at = datetime.now(UTC)
    assert "source orders: starting" in not_ready(hub.observer)


def test_a_worker_that_falls_silent_is_named(hub: Hub) -> None:
    hub.age(LONG_AGO)
    (reason,) = not_alive(hub.observer)
    assert reason.startswith("worker-1: has not reported for 12")
    assert len(not_ready(hub.observer)) == 2
    told = hub.scrape()
    assert told.value("catchment_loop_state", source="orders", target="ods", state="silent") == 1
    assert told.value("catchment_loop_up", source="orders", target="ods") == 0
    hub.supervisor.workers[0].finished = True  # it was to run until it was caught up
    assert not_alive(hub.observer) == []


def test_a_supervisor_that_hangs_is_not_alive(hub: Hub) -> None:
    hub.supervisor.beat -= LONG_AGO
    (reason,) = not_alive(hub.observer)
    assert reason.startswith("supervisor: has not looked after its workers for 12")


def test_the_history_of_lag_is_ten_minutes_long() -> None:
    loop = LoopStatus("orders")
    samples: Sequence[float | None] = [*map(float, range(130)), None]
    for seconds in samples:
        loop.behind(seconds)
    assert loop.report("worker-1").detail["lag_history"] == list(samples[-120:])


def test_lag_of_a_loop_alone_follows_the_rules_of_status() -> None:
    hub = Hub()
    collect, deliver = hub.collect.report("worker-1"), hub.deliver.report("worker-1")
    assert lag(collect, collect, datetime.now(UTC)) == {"lag_bytes": 0x10, "lag_seconds": None}
    assert lag(None, deliver, datetime.now(UTC)) == {"lag_bytes": None, "lag_seconds": None}


def test_the_reference_of_metrics_is_generated_from_their_table() -> None:
    page = runpy.run_path(str(REFERENCE / "generate.py"))["render_metrics"]()
    assert (REFERENCE / "metrics.md").read_text() == page, "run: python docs/reference/generate.py"
