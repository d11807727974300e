"""Minor releases of PostgreSQL with a fault in logical decoding, from its release notes.

Only what the notes of that very release say is listed; ``https://www.postgresql.org/docs/release/15.13/`` is where to
read it. A minor upgrade changes programs only: stop the server, install, start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from catchment.postgres.finding import Check, Finding

FAULTS = Check(
    "minor_version",
    "warning",
    "PostgreSQL {version} has known faults: {faults}",
    "they are mended in later minor releases",
    "upgrade to PostgreSQL {fixed} or newer; see https://www.postgresql.org/docs/release/{fixed}/",
)


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong; by major version, in which minor release it came (``since``) and was mended (``fixed``)."""

    what: str
    fixed: Mapping[int, int]
    since: Mapping[int, int] = field(default_factory=dict)

    def concerns(self, major: int, minor: int) -> bool:
        return self.since.get(major, 0) <= minor < self.fixed.get(major, 0)


KNOWN = (
    Fault("an update sends columns that the publication leaves out", {15: 2}),
    Fault("null is sent in place of the default of a column that was added", {15: 6, 16: 2}),
    Fault("decoding may begin with a wrong view of the catalog", {15: 6}),
    Fault("a new slot may begin within a transaction", {15: 8, 16: 4}),
    Fault("a slot may want WAL that is gone already, after a restart", {15: 10, 16: 6, 17: 2}),
    Fault("changes are lost when a table is added to the publication or altered while it is written to",
          {14: 18, 15: 13, 16: 9, 17: 5}),
    Fault("decoding runs out of memory when several transactions alter tables",
          {14: 19, 15: 14, 16: 10, 17: 6}, since={14: 18, 15: 13, 16: 9, 17: 5}),
    Fault("decoding may wait for ever after a crash of the server", {14: 19, 15: 14, 16: 10, 17: 6}),
    Fault("INSERT … ON CONFLICT DO UPDATE and MERGE change tables without a replica identity, and it is not told",
          {15: 15, 16: 11, 17: 7}),
    Fault("slots are invalidated without need", {18: 1}),
    Fault("a new slot may be invalidated at once by a checkpoint", {15: 16, 16: 12, 17: 8, 18: 2}),
    Fault("the server may not shut down while a slot is streamed from", {15: 18, 17: 10, 18: 4}),
    Fault("what a savepoint that was rolled back did to a table may be believed, and the first snapshot of a slot may "
          "miss rows", {15: 20}),
)  # fmt: skip


def check_minor_version(number: int, where: str) -> Iterator[Finding]:
    """``number`` as in ``server_version_num``."""
    major, minor = divmod(number, 10_000)
    found = [fault for fault in KNOWN if fault.concerns(major, minor)]
    if found:
        fixed = f"{major}.{max(fault.fixed[major] for fault in found)}"
        faults = "; ".join(fault.what for fault in found)
        yield FAULTS.found(where, version=f"{major}.{minor}", faults=faults, fixed=fixed)
