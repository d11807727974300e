"""Every metric there is: docs/reference/metrics.md is made from this table.

Names follow https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """One family. ``name`` is as Prometheus stores it; ``text`` begins with a capital and is one line of HELP."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    labels: tuple[str, ...]
    text: str


_LOOP = ("source", "target")
_SOURCE = ("source",)
_TARGET = ("source", "target")
_WORKER = ("worker",)

UP = Metric("catchment_up", "gauge", (), "Whether the hub's state could be read: 0 leaves only what needs no reading.")
BUILD = Metric("catchment_build_info", "gauge", ("version", "python"), "Always 1; the labels say what runs.")
STARTED = Metric("catchment_start_time_seconds", "gauge", (), "When the supervisor was started, in seconds since 1970.")
STATE_FREE = Metric(
    "catchment_state_free_bytes", "gauge", (), "Free space on the disk with [hub] state, which holds the logs too."
)

WORKER_RESTARTS = Metric(
    "catchment_worker_restarts_total", "counter", _WORKER, "How often the supervisor has started this worker again."
)
WORKER_REPORTED = Metric(
    "catchment_worker_last_report_timestamp_seconds",
    "gauge",
    _WORKER,
    "When the worker last reported, in seconds since 1970; every 2.5 s at least when all is well.",
)

LOOP_UP = Metric(
    "catchment_loop_up", "gauge", _LOOP, "Whether the loop goes round: it is streaming or refilling, and not silent."
)
LOOP_STATE = Metric("catchment_loop_state", "gauge", (*_LOOP, "state"), "1 for the state that the loop is in, else 0.")
LOOP_TROUBLE = Metric(
    "catchment_loop_trouble",
    "gauge",
    _LOOP,
    "Whether something is wrong with the loop or a part of its work: `catchment status` says what to do.",
)
LOOP_ERRORS = Metric(
    "catchment_loop_errors_total",
    "counter",
    (*_LOOP, "error"),
    "Errors that ended the loop, by their names; 0 before the first.",
)
LOOP_RESTARTS = Metric(
    "catchment_loop_restarts_total", "counter", _LOOP, "How often the loop was run again after an error."
)

SOURCE_LAG_BYTES = Metric(
    "catchment_source_lag_bytes", "gauge", _SOURCE, "WAL position last seen of the source, minus that of the log."
)
SOURCE_LAG_SECONDS = Metric(
    "catchment_source_lag_seconds",
    "gauge",
    _SOURCE,
    "Age of the last transaction in the log; 0 when nothing is missing.",
)
SOURCE_CHANGES = Metric(
    "catchment_source_changes_total", "counter", _SOURCE, "Changes appended to the log, rows of backfills included."
)
SOURCE_BATCHES = Metric(
    "catchment_source_batches_total", "counter", _SOURCE, "Batches appended to the log, idle positions included."
)
TABLES = Metric("catchment_tables", "gauge", (*_SOURCE, "state"), "How many of the source's tables are in this state.")

SLOT_ACTIVE = Metric("catchment_slot_active", "gauge", _SOURCE, "Whether somebody streams from the replication slot.")
SLOT_WAL_STATUS = Metric(
    "catchment_slot_wal_status",
    "gauge",
    (*_SOURCE, "wal_status"),
    "1 for the slot's wal_status in pg_replication_slots, else 0.",
)
SLOT_RETAINED = Metric(
    "catchment_slot_retained_bytes", "gauge", _SOURCE, "WAL that the source keeps for the replication slot."
)

REFILLS = Metric("catchment_refills", "gauge", _SOURCE, "How many refills of the source are under way.")
REFILL_TABLES = Metric(
    "catchment_refill_tables", "gauge", _SOURCE, "Tables that the refill under way has still to read."
)
REFILL_READ = Metric("catchment_refill_rows_read", "gauge", _SOURCE, "Rows that the refill under way has read.")
REFILL_ESTIMATED = Metric(
    "catchment_refill_rows_estimated",
    "gauge",
    _SOURCE,
    "About how many rows the refill under way will have read; missing where the planner does not know.",
)

LOG_BYTES = Metric("catchment_log_bytes", "gauge", _SOURCE, "Stored size of the batches that the log keeps.")
LOG_FIRST = Metric("catchment_log_first_offset", "gauge", _SOURCE, "The oldest offset that the log keeps.")
LOG_LAST = Metric("catchment_log_last_offset", "gauge", _SOURCE, "The newest offset in the log.")

TARGET_LOADED = Metric(
    "catchment_target_loaded", "gauge", _TARGET, "Whether the target is past its first load of this source."
)
TARGET_LAG_BYTES = Metric(
    "catchment_target_lag_bytes", "gauge", _TARGET, "WAL position last seen of the source, minus the target's frontier."
)
TARGET_LAG_SECONDS = Metric(
    "catchment_target_lag_seconds",
    "gauge",
    _TARGET,
    "Age of the last transaction in the target; 0 when nothing is missing.",
)
TARGET_OFFSET = Metric("catchment_target_offset", "gauge", _TARGET, "The offset in the log that the target has got to.")
TARGET_CHANGES = Metric(
    "catchment_target_changes_total", "counter", _TARGET, "Changes applied, rows of backfills included."
)
TARGET_BATCHES = Metric(
    "catchment_target_batches_total", "counter", _TARGET, "Batches applied, idle positions included."
)
LATENCY = Metric(
    "catchment_commit_to_applied_seconds",
    "histogram",
    _TARGET,
    "From the commit in the source to the commit in the target: one observation a batch, by its last transaction.",
)

METRICS = (
    *(UP, BUILD, STARTED, STATE_FREE),
    *(WORKER_RESTARTS, WORKER_REPORTED),
    *(LOOP_UP, LOOP_STATE, LOOP_TROUBLE, LOOP_ERRORS, LOOP_RESTARTS),
    *(SOURCE_LAG_BYTES, SOURCE_LAG_SECONDS, SOURCE_CHANGES, SOURCE_BATCHES, TABLES),
    *(SLOT_ACTIVE, SLOT_WAL_STATUS, SLOT_RETAINED),
    *(REFILLS, REFILL_TABLES, REFILL_READ, REFILL_ESTIMATED),
    *(LOG_BYTES, LOG_FIRST, LOG_LAST),
    *(TARGET_LOADED, TARGET_LAG_BYTES, TARGET_LAG_SECONDS, TARGET_OFFSET, TARGET_CHANGES, TARGET_BATCHES, LATENCY),
)
"""In the order of the exposition."""
