"""A hub under test: `catchment run` in a process of its own, seen from outside only."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
from feed_replay import replay
from psycopg import sql

from catchment.cli.status import gather
from catchment.config import load

COMMAND = [sys.executable, "-m", "catchment.cli.main"]
PATIENCE = 180.0  # seconds; only so that a test that hangs ends


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"it did not come to pass: {what}"
        time.sleep(0.1)


class RunningHub:
    """One catchment.toml in a directory, with the commands that a person would type."""

    def __init__(self, directory: Path, sources: Mapping[str, str], ods: str | None = None, feed: bool = False) -> None:
        self.directory = directory
        self.sources = dict(sources)
        self.ods = ods
        self.feed = feed
        self.extra = ""
        self.process: subprocess.Popen[str] | None = None
        self.output = directory / "run.log"
        self.write()

    @property
    def config(self) -> Path:
        return self.directory / "catchment.toml"

    def write(self) -> None:
        """Write catchment.toml."""
        parts = [f'[[source]]\nname = "{name}"\ndsn = "{dsn}"\n' for name, dsn in self.sources.items()]
        parts += [f'[ods]\ndsn = "{self.ods}"\n'] if self.ods else []
        parts += ['[[feed]]\npath = "feed/{source}.jsonl"\n'] if self.feed else []
        self.config.write_text(self.extra + "\n".join(parts))

    def command(self, *arguments: str, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        done = subprocess.run(
            [*COMMAND, *arguments, "--config", str(self.config)], capture_output=True, text=True, timeout=PATIENCE
        )
        assert expect is None or done.returncode == expect, (
            f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done

    def start(self, *arguments: str) -> None:
        """`catchment run`, in the background."""
        with self.output.open("a") as output:
            self.process = subprocess.Popen(
                [*COMMAND, "run", *arguments, "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                text=True,
            )

    def stop(self) -> int:
        """Ctrl-C; returns its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(PATIENCE)
        self.process = None
        return status

    def kill_supervisor(self) -> None:
        """SIGKILL to the supervisor only."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        if self.process is None:
            return []
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()] if children.exists() else []

    def kill_worker(self, chance: random.Random) -> None:
        """SIGKILL to one of the workers."""
        if pids := self.workers():
            os.kill(chance.choice(pids), signal.SIGKILL)

    def until_caught_up(self) -> None:
        """`catchment run --until-caught-up`, to its end."""
        self.command("run", "--until-caught-up")

    def status(self) -> dict[str, Any]:
        """What `catchment status --json` prints, without a process of its own each time."""
        return gather(load(self.config))

    def source_status(self, name: str) -> dict[str, Any]:
        """The status of one source."""
        (found,) = [source for source in self.status()["sources"] if source["name"] == name]
        return dict(found)

    def table_state(self, source: str, table: str) -> str | None:
        """The state of one table, ``schema.table``; none as long as nothing was reported of it."""
        return {each["name"]: each["state"] for each in self.source_status(source)["tables"]}.get(table)

    def feed_lines(self, source: str) -> Iterable[bytes]:
        """All lines of a feed, the rotated files first, as far as they are committed."""
        active = self.directory / "feed" / f"{source}.jsonl"
        length = json.loads(active.with_name(active.name + ".frontier").read_text())["length"]
        for rotated in sorted(active.parent.glob(f"{source}-*.jsonl")):
            yield from rotated.read_bytes().splitlines()
        yield from active.read_bytes()[:length].splitlines()

    def close(self) -> None:
        """End whatever still runs."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(PATIENCE)
            self.process = None


STYLE = "-c DateStyle=ISO -c IntervalStyle=iso_8601 -c TimeZone=UTC -c bytea_output=hex -c extra_float_digits=1"


def rows(dsn: str, schema: str, table: str, columns: Sequence[str]) -> list[tuple[str | None, ...]]:
    """All rows as the server prints them, without those of tables that inherit from it, in an order of our own."""
    names, relation = sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(schema, table)
    with psycopg.connect(dsn, options=STYLE) as connection:
        partitioned = "SELECT relkind = 'p' FROM pg_class WHERE oid = %s::regclass"
        root = connection.execute(partitioned, [relation.as_string(connection)]).fetchone() == (True,)
        statement = sql.SQL("COPY (SELECT {} FROM {}{}) TO STDOUT")
        with connection.cursor().copy(statement.format(names, sql.SQL("" if root else "ONLY "), relation)) as copy:
            return sorted(copy.rows(), key=repr)


def tables(dsn: str, publication: str = "catchment") -> dict[str, list[str]]:
    """The published tables of schema public with their columns."""
    query = """SELECT p.tablename, array_agg(a.attname::text ORDER BY a.attnum) FROM pg_publication_tables p
               JOIN pg_attribute a ON a.attrelid = format('%%I.%%I', p.schemaname, p.tablename)::regclass
               WHERE p.pubname = %s AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' GROUP BY 1"""
    with psycopg.connect(dsn) as connection:
        return dict(connection.execute(query, (publication,)).fetchall())


def assert_ods_equals_source(ods: str, dataset: str, source: str) -> None:
    """Every published table, row for row as text."""
    for table, columns in tables(source).items():
        there, here = rows(source, "public", table, columns), rows(ods, dataset, table, columns)
        assert here == there, f"{dataset}.{table}: {len(here)} rows instead of {len(there)}"


def assert_feed_equals_source(hub: RunningHub, name: str, keys: Mapping[str, list[str]]) -> None:
    """The feed, replayed, gives every published table."""
    source = hub.sources[name]
    replayed = replay(hub.feed_lines(name), {f"public.{table}": key for table, key in keys.items()})
    for table, columns in tables(source).items():
        found = [tuple(row.get(column) for column in columns) for row in replayed.get(f"public.{table}", [])]
        there = rows(source, "public", table, columns)
        assert sorted(found, key=repr) == there, f"feed of {name}, {table}: {len(found)} rows instead of {len(there)}"
