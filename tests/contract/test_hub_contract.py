"""What every hub promises; then what the one in a file promises besides."""

from __future__ import annotations

import math
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from catchment.hub.base import Hub, Status
from catchment.hub.memory import MemoryHub
from catchment.hub.sqlite import _FORMATS, FORMAT, SqliteHub
from catchment.model.errors import HubError

NOON = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture(params=["memory", "sqlite"])
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Hub]:
    made: Hub = MemoryHub() if request.param == "memory" else SqliteHub(tmp_path / "hub.sqlite")
    with closing(made):
        yield made


def status(source: str, worker: str = "w1", target: str | None = None, state: str = "running") -> Status:
    return Status(source, target, worker, state, remedy=None, beat=NOON, detail={})


def unstamped(hub: Hub) -> list[Status]:
    """The statuses as they were reported, without when."""
    return [replace(status, reported_at=None) for status in hub.statuses()]


def names(hub: Hub) -> list[tuple[str, str | None, str]]:
    return [(status.source, status.target, status.worker) for status in hub.statuses()]


def test_a_status_comes_back_as_it_was_reported(hub: Hub) -> None:
    told = Status(
        "orders",
        "ods",
        "w1",
        "stopped",
        "source orders: café 'x'; do this",
        NOON.astimezone(timezone(timedelta(hours=5, minutes=30))),
        {
            "lag_bytes": 2**60,
            "slot": {"active": True, "wal_status": None},
            "rows_per_second": 0.1,
            "tables": ["a", "b"],
        },
    )
    waiting = Status("orders", None, "w1", "waiting", None, None, {})
    hub.report("w1", [told, waiting])
    assert unstamped(hub) == [waiting, told]


def test_a_report_replaces_all_of_this_worker_and_nothing_of_others(hub: Hub) -> None:
    hub.report("w1", [status("billing"), status("orders")])
    hub.report("w2", [status("stock", "w2")])
    hub.report("w1", [status("orders", state="stopped")])
    assert [(s.source, s.state) for s in hub.statuses()] == [("orders", "stopped"), ("stock", "running")]
    hub.report("w1", [])
    assert names(hub) == [("stock", None, "w2")]


def test_a_loop_that_only_lives_on_has_another_beat_and_the_same_detail(hub: Hub) -> None:
    told = replace(status("orders"), detail={"offset": 7})
    hub.report("w1", [told, status("billing")])
    later = replace(told, beat=NOON + timedelta(seconds=5))
    hub.report("w1", [later, status("billing")])
    assert unstamped(hub) == [status("billing"), later]


def test_it_is_known_when_a_worker_last_reported(hub: Hub) -> None:
    before = datetime.now(UTC)
    hub.report("w1", [status("orders")])
    hub.report("w2", [status("stock", "w2")])
    first = [told.reported_at for told in hub.statuses()]
    hub.report("w2", [status("stock", "w2")])
    again = [told.reported_at for told in hub.statuses()]
    assert again[0] == first[0]
    times = [time for time in (before, *first, again[1], datetime.now(UTC)) if time is not None]
    assert len(times) == 5
    assert times == sorted(times)


def test_statuses_are_ordered_the_collect_loop_before_its_targets(hub: Hub) -> None:
    hub.report("w2", [status("b", "w2", "ods"), status("b", "w2", "feed"), status("b", "w2")])
    hub.report("w1", [status("c"), status("a")])
    assert names(hub) == [
        ("a", None, "w1"),
        ("b", None, "w2"),
        ("b", "feed", "w2"),
        ("b", "ods", "w2"),
        ("c", None, "w1"),
    ]


def test_a_forgotten_worker_is_no_longer_shown(hub: Hub) -> None:
    hub.report("w1", [status("orders")])
    hub.report("w2", [status("stock", "w2")])
    hub.forget_worker("w1")
    hub.forget_worker("unheard of")
    assert names(hub) == [("stock", None, "w2")]


def test_readers_never_see_half_a_report(hub: Hub) -> None:
    hub.report("w1", [status("a", state="0"), status("b", state="0")])
    with ThreadPoolExecutor(2) as threads:
        writer = threads.submit(
            lambda: [hub.report("w1", [status("a", state=str(n)), status("b", state=str(n))]) for n in range(200)]
        )
        while not writer.done():
            assert len({s.state for s in hub.statuses()}) == 1
            assert len(hub.statuses()) == 2
        writer.result()


def test_a_request_can_be_followed_from_asking_to_its_outcome(hub: Hub) -> None:
    before = datetime.now(UTC)
    number = hub.request("backfill", "orders", {"tables": ["public.items"], "targets": None}, "ann@host")
    asked = hub.find(number)
    assert (asked.id, asked.kind, asked.source, asked.by) == (number, "backfill", "orders", "ann@host")
    assert asked.arguments == {"tables": ["public.items"], "targets": None}
    assert before <= asked.asked_at <= datetime.now(UTC)
    assert (asked.worker, asked.finished_at, asked.outcome) == (None, None, None)

    taken = hub.claim("w1", ["orders"], ["backfill"])
    assert taken is not None
    assert taken == hub.find(number)
    assert (taken.worker, taken.finished_at) == ("w1", None)

    hub.finish(number, "2 tables, 17 rows")
    done = hub.find(number)
    assert (done.worker, done.outcome) == ("w1", "2 tables, 17 rows")
    assert done.finished_at is not None
    assert asked.asked_at <= done.finished_at <= datetime.now(UTC)


def test_what_nobody_has_taken_is_seen_until_somebody_has(hub: Hub) -> None:
    first, second = (hub.request("backfill", "orders", {}, "ann@host") for _ in range(2))
    hub.request("drop", "stock", {}, "ann@host")
    assert sorted(hub.unclaimed()) == [("orders", "backfill"), ("stock", "drop")]
    assert hub.claim("w1", ["orders"], ["backfill"]) == hub.find(first)
    assert ("orders", "backfill") in hub.unclaimed()
    assert hub.claim("w1", ["orders"], ["backfill"]) == hub.find(second)
    assert set(hub.unclaimed()) == {("stock", "drop")}
    hub.finish(first, "done")
    hub.release("orders")
    assert sorted(hub.unclaimed()) == [("orders", "backfill"), ("stock", "drop")]
    hub.withdraw(3, "not wanted")
    assert set(hub.unclaimed()) == {("orders", "backfill")}


def test_the_oldest_request_for_my_sources_and_kinds_is_claimed_first(hub: Hub) -> None:
    asked = [
        hub.request(kind, source, {}, "ann")
        for kind, source in [
            ("drop", "orders"),
            ("backfill", "stock"),
            ("backfill", "orders"),
            ("backfill", "billing"),
            ("backfill", "orders"),
        ]
    ]
    assert asked == sorted(set(asked))
    mine = [hub.claim("w1", ["orders", "billing"], ["backfill", "verify"]) for _ in range(4)]
    assert [request and request.id for request in mine] == [asked[2], asked[3], asked[4], None]
    assert hub.claim("w1", [], ["backfill"]) is None
    assert hub.claim("w1", ["stock"], []) is None


def test_a_request_is_given_to_one_worker_only(hub: Hub) -> None:
    asked = [hub.request("backfill", "orders", {}, "ann") for _ in range(40)]

    def work(worker: str) -> list[int]:
        claimed = []
        while (request := hub.claim(worker, ["orders"], ["backfill"])) is not None:
            assert request.worker == worker
            claimed.append(request.id)
        return claimed

    with ThreadPoolExecutor(4) as threads:
        claimed = [number for numbers in threads.map(work, ["w1", "w2", "w3", "w4"]) for number in numbers]
    assert sorted(claimed) == asked


def test_what_a_dead_worker_had_claimed_can_be_claimed_again(hub: Hub) -> None:
    finished, dropped = [hub.request("backfill", "orders", {}, "ann") for _ in range(2)]
    other = hub.request("backfill", "stock", {}, "ann")
    for _ in range(2):
        hub.claim("w1", ["orders"], ["backfill"])
    hub.claim("w2", ["stock"], ["backfill"])
    hub.finish(finished, "good")

    hub.release("orders")
    again = hub.claim("w3", ["orders", "stock"], ["backfill"])
    assert again is not None
    assert (again.id, again.worker) == (dropped, "w3")
    assert hub.claim("w3", ["orders", "stock"], ["backfill"]) is None
    assert (hub.find(finished).worker, hub.find(other).worker) == ("w1", "w2")


def test_a_request_that_was_finished_without_a_claim_is_not_given_out(hub: Hub) -> None:
    number = hub.request("backfill", "orders", {}, "ann")
    hub.finish(number, "refused: there is no such table")
    assert hub.claim("w1", ["orders"], ["backfill"]) is None


def test_a_withdrawn_request_is_never_given_out(hub: Hub) -> None:
    number = hub.request("drop", "orders", {}, "ann")
    assert hub.withdraw(number, "withdrawn: Ctrl-C")
    assert hub.claim("w1", ["orders"], ["drop"]) is None
    hub.release("orders")
    assert hub.claim("w1", ["orders"], ["drop"]) is None
    found = hub.find(number)
    assert (found.worker, found.claimed_at, found.outcome) == (None, None, "withdrawn: Ctrl-C")
    assert found.finished_at is not None


def test_what_is_under_way_or_finished_cannot_be_withdrawn(hub: Hub) -> None:
    claimed = hub.request("drop", "orders", {}, "ann")
    finished = hub.request("drop", "stock", {}, "ann")
    hub.claim("w1", ["orders"], ["drop"])
    hub.finish(finished, "refused: no")
    assert not hub.withdraw(claimed, "withdrawn")
    assert not hub.withdraw(finished, "withdrawn")
    assert not hub.withdraw(finished, "withdrawn")
    assert (hub.find(claimed).outcome, hub.find(finished).outcome) == (None, "refused: no")
    assert hub.find(claimed).claimed_at is not None


def test_what_was_ever_claimed_cannot_be_withdrawn(hub: Hub) -> None:
    """It may be written down elsewhere by now: released, it is carried out all the same."""
    number = hub.request("backfill", "orders", {}, "ann")
    hub.claim("w1", ["orders"], ["backfill"])
    first = hub.find(number).claimed_at
    hub.release("orders")
    assert not hub.withdraw(number, "withdrawn")
    again = hub.claim("w2", ["orders"], ["backfill"])
    assert again is not None
    assert again.claimed_at == first


def test_a_request_is_either_claimed_or_withdrawn(hub: Hub) -> None:
    asked = [hub.request("backfill", "orders", {}, "ann") for _ in range(60)]
    with ThreadPoolExecutor(2) as threads:
        withdrawing = threads.submit(lambda: [number for number in reversed(asked) if hub.withdraw(number, "no")])
        claimed = []
        while (request := hub.claim("w1", ["orders"], ["backfill"])) is not None:
            claimed.append(request.id)
        withdrawn = withdrawing.result()
    assert sorted(claimed + withdrawn) == asked


def test_an_unknown_request_is_an_error_with_a_remedy(hub: Hub) -> None:
    with pytest.raises(HubError, match="no request 7; ask again"):
        hub.find(7)
    with pytest.raises(HubError, match="no request 7; ask again"):
        hub.finish(7, "good")
    with pytest.raises(HubError, match="no request 7; ask again"):
        hub.withdraw(7, "no")


def test_what_json_cannot_hold_is_refused(hub: Hub) -> None:
    hub.report("w1", [status("orders")])
    with pytest.raises(TypeError):
        hub.request("backfill", "orders", {"since": NOON}, "ann")
    with pytest.raises(TypeError):
        hub.report("w1", [Status("orders", None, "w1", "running", None, None, {"bytes": b""})])
    with pytest.raises(ValueError, match="JSON"):
        hub.report("w1", [Status("orders", None, "w1", "running", None, None, {"ratio": math.nan})])
    assert unstamped(hub) == [status("orders")]


def test_other_processes_see_it_at_once_and_it_survives_kill_9(tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from catchment.hub.base import Status
from catchment.hub.sqlite import SqliteHub
hub = SqliteHub(Path({str(tmp_path)!r}) / "hub.sqlite")
hub.report("w1", [Status("orders", None, "w1", "running", None, None)])
hub.request("backfill", "orders", {{"tables": ["a"]}}, "ann")
hub.claim("w1", ["orders"], ["backfill"])
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", program], check=False)
    assert ended.returncode == -signal.SIGKILL
    with closing(SqliteHub(tmp_path / "hub.sqlite")) as hub:
        assert names(hub) == [("orders", None, "w1")]
        assert hub.find(1).worker == "w1"


def test_processes_that_start_at_once_share_one_file_and_divide_the_requests(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from catchment.hub.sqlite import SqliteHub
worker, path = sys.argv[1:]
hub = SqliteHub(Path(path))
for _ in range(10):
    hub.request("backfill", "orders", {}, worker)
while (request := hub.claim(worker, ["orders"], ["backfill"])) is not None:
    hub.finish(request.id, worker)
    print(request.id)
"""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", program, worker, str(tmp_path / "hub.sqlite")], stdout=subprocess.PIPE, text=True
        )
        for worker in ("w1", "w2", "w3")
    ]
    claimed = [int(line) for worker in workers for line in worker.communicate()[0].split()]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    assert sorted(claimed) == list(range(1, 31))


def test_what_is_reported_again_is_there_again_though_another_process_had_it_forgotten(tmp_path: Path) -> None:
    told = [status("billing"), status("orders")]
    with closing(SqliteHub(tmp_path / "hub.sqlite")) as hub, closing(SqliteHub(tmp_path / "hub.sqlite")) as other:
        hub.report("w1", told)
        other.forget_worker("w1")
        assert names(hub) == []
        hub.report("w1", told)
        assert unstamped(other) == told


def test_its_files_can_be_read_by_their_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with closing(SqliteHub(tmp_path / "hub.sqlite")) as hub:
            hub.report("w1", [status("orders")])
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"hub.sqlite": 0o600, "hub.sqlite-wal": 0o600, "hub.sqlite-shm": 0o600}


def test_requests_are_on_disk_before_they_are_promised(tmp_path: Path) -> None:
    with closing(SqliteHub(tmp_path / "hub.sqlite")) as hub:
        assert hub._lasting.rows("PRAGMA synchronous") == [(2,)]  # FULL
        assert hub._lasting.rows("PRAGMA journal_mode") == [("wal",)]


def test_a_file_of_a_newer_catchment_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hub.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
    with pytest.raises(HubError, match=f"format {FORMAT + 1}.*newer Catchment"):
        SqliteHub(path)


def test_a_file_of_the_first_format_is_brought_up_to_date_and_keeps_its_requests(tmp_path: Path) -> None:
    path = tmp_path / "hub.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        for statement in _FORMATS[0]:
            connection.execute(statement)
        columns = 'kind, source, arguments, "by", asked_at, worker'
        insert = f"INSERT INTO request ({columns}) VALUES (?, ?, '{{}}', 'ann', ?, ?)"
        connection.execute(insert, ("drop", "orders", NOON.isoformat(), "w1"))
        connection.execute(insert, ("drop", "stock", NOON.isoformat(), None))
        connection.execute("INSERT INTO status VALUES ('w1', 'orders', NULL, 'running', NULL, NULL, '{}')")
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
    for _ in range(2):
        with closing(SqliteHub(path)) as hub:
            assert (hub.find(1).claimed_at, hub.find(2).claimed_at) == (NOON, None)
            assert [told.reported_at for told in hub.statuses()] == [None]


@pytest.mark.parametrize(
    ("name", "remedy"), [("damaged.sqlite", "move the file away"), ("missing/hub.sqlite", "see that its disk")]
)
def test_a_file_that_cannot_be_used_is_named_with_a_remedy(tmp_path: Path, name: str, remedy: str) -> None:
    (tmp_path / "damaged.sqlite").write_text("not a database, by any means" * 100)
    with pytest.raises(HubError, match=rf"cannot use .*{name}.*; .*{remedy}"):
        SqliteHub(tmp_path / name)


def test_the_light_supervisor_can_import_it() -> None:
    program = "import sys, catchment.hub.sqlite, catchment.hub.lock; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert "sqlite3" in loaded
    assert {"pyarrow", "psycopg", "pydantic", "numpy"}.isdisjoint(loaded)
