"""SQL that this project did not write, run against a source while a hub runs: PostgreSQL's own regression tests.

``make regress REGRESS=/path/to/postgres/src/test/regress`` takes the scripts from a checkout of PostgreSQL's sources;
psql runs them. Before what they drop is gone, and after each script, every published table is compared, and in the end
``catchment verify`` has its say too. Statements that this server refuses, for want of the regression library or because
it is of another version, are left failing. Names of tables and the sentences of what is stopped are printed, no rows.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psycopg
from psql_script import statements
from psycopg import sql
from running_hub import RunningHub

from catchment.demo.binaries import find_binaries
from catchment.demo.cluster import Cluster
from catchment.model.lsn import Lsn

PATIENCE = 60.0
SETTINGS: dict[str, str | int] = {"fsync": "off", "max_prepared_transactions": 10, "dynamic_shared_memory_type": "mmap"}
# What PostgreSQL's own runner sets, so that the scripts find what they expect, and we other styles than ours.
DATABASE = """
CREATE DATABASE regression TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C';
ALTER DATABASE regression SET lc_messages TO 'C';
ALTER DATABASE regression SET timezone TO 'PST8PDT';
ALTER DATABASE regression SET datestyle TO 'Postgres, MDY';
ALTER DATABASE regression SET intervalstyle TO 'postgres_verbose'
"""
# A table without a key takes no update or delete while it is published, unless it sends whole rows.
WHOLE_ROWS = """
CREATE SCHEMA whole_rows;
CREATE FUNCTION whole_rows.send() RETURNS event_trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE made oid;
BEGIN
    FOR made IN SELECT c.oid FROM pg_event_trigger_ddl_commands() d JOIN pg_class c ON c.oid = d.objid
                WHERE d.classid = 'pg_class'::regclass AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
                  AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
    LOOP EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', made::regclass); END LOOP;
END $$;
CREATE EVENT TRIGGER whole_rows ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO')
    EXECUTE FUNCTION whole_rows.send()
"""

# Both sides print in one style, whatever the database says, and names of other objects with their schemas.
STYLE = (
    "-c DateStyle=ISO -c IntervalStyle=iso_8601 -c TimeZone=UTC -c bytea_output=hex -c extra_float_digits=1"
    " -c lc_monetary=C -c search_path=pg_catalog -c xmloption=content -c row_security=off -c jit=off -c lock_timeout=3s"
)
# Servers before 18 list generated columns, but do not publish them.
SHARED = """
SELECT p.schemaname, p.tablename, array_agg(a.attname::text ORDER BY a.attnum), c.relkind = 'p'
FROM pg_publication_tables p JOIN pg_class c ON c.oid = to_regclass(format('%I.%I', p.schemaname, p.tablename))
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = ANY (p.attnames)
WHERE p.pubname = 'catchment' AND (a.attgenerated = '' OR current_setting('server_version_num')::int >= 180000)
GROUP BY 1, 2, 4 ORDER BY 1, 2
"""

_TAKES_AWAY = re.compile(r"(?:\s|--[^\n]*\n)*(drop\s+(table|schema|owned|type|domain)|truncate)\b", re.IGNORECASE)


class Regression:
    """A source, a hub and an ODS, and what was found."""

    def __init__(self, source: str, hub: RunningHub, directory: Path, environment: dict[str, str]) -> None:
        self.source = source
        self.hub = hub
        self.directory = directory
        self.environment = environment
        self.counts = dict.fromkeys(("scripts", "statements", "comparisons", "tables"), 0)
        self.stopped: dict[str, str] = {}
        self.different: dict[str, str] = {}

    def run(self, script: Path) -> None:
        """All of its statements, and a comparison before each that takes tables away."""
        self.counts["scripts"] += 1
        mark = self.directory / "mark"
        with (self.directory / f"{script.stem}.out").open("wb") as output:
            psql = subprocess.Popen(
                ["psql", "-X", "-q", "-d", self.source],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=self.environment,
                cwd=self.directory,
            )
            assert psql.stdin is not None
            took_away = True
            with suppress(BrokenPipeError):  # some end themselves
                for statement in statements(script.read_text(errors="surrogateescape")):
                    self.counts["statements"] += 1
                    takes_away = _TAKES_AWAY.match(statement) is not None
                    if takes_away and not took_away:
                        mark.unlink(missing_ok=True)
                        psql.stdin.write(f"\\! touch {mark}\n".encode())
                        psql.stdin.flush()
                        if _comes_true(lambda: mark.exists() or psql.poll() is not None):
                            self.compare(script.stem)
                    took_away = takes_away
                    psql.stdin.write(statement.encode(errors="surrogateescape"))
                psql.stdin.close()
            psql.wait(10 * PATIENCE)
        with psycopg.connect(self.source, autocommit=True) as connection:
            for (left,) in connection.execute("SELECT gid FROM pg_prepared_xacts").fetchall():
                connection.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(left)))
        self.compare(script.stem)

    def compare(self, place: str) -> None:
        """Wait until the ODS has what the source has; what stays different is a finding."""
        self.counts["comparisons"] += 1
        different: dict[str, str] = {}

        def is_equal() -> bool:
            nonlocal different
            if not self._has_caught_up():
                different = different or {"": "the ODS does not catch up"}
                return False
            with suppress(psycopg.errors.LockNotAvailable):  # the script has locked what says which tables are shared
                different = dict(self._differences())
                return not different
            return True

        if not _comes_true(is_equal):
            for table, what in different.items():
                if self.different.setdefault(table, what) == what:
                    print(f"! {place}: {table} {what}", flush=True)

    def _has_caught_up(self) -> bool:
        with psycopg.connect(self.source) as connection:
            (position,) = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone() or ("",)
            connection.execute("SELECT pg_current_xact_id()")
        status = self.hub.status()
        (source,) = status["sources"]
        for table in source["tables"]:
            if table["state"] == "stopped" and table["name"] not in self.stopped:
                self.stopped[table["name"]] = table["remedy"]
                print(f"  stopped: {table['remedy']}", flush=True)
        deadline = time.monotonic() + PATIENCE / 4
        while time.monotonic() < deadline:
            status = self.hub.status()
            frontiers = [target["frontier"] for target in status["targets"] if target["state"] == "streaming"]
            here = [Lsn.parse(frontier) >= Lsn.parse(position) for frontier in frontiers if frontier]
            if len(here) == len(status["targets"]) and all(here) and not status["sources"][0]["refills"]:
                return True
            time.sleep(0.1)
        return False

    def _differences(self) -> Iterator[tuple[str, str]]:
        stopped = {table["name"] for table in self.hub.status()["sources"][0]["tables"] if table["state"] == "stopped"}
        with (
            psycopg.connect(self.source, options=STYLE, autocommit=True) as source,
            psycopg.connect(self.hub.ods or "", options=STYLE, autocommit=True) as ods,
        ):
            for schema, table, columns, is_root in source.execute(SHARED).fetchall():
                name = f"{schema}.{table}"
                try:
                    there = _printed(source, schema, table, columns, only=not is_root)
                except psycopg.Error:
                    continue  # the script has it locked, or a function that it is made of fails
                try:
                    here = _printed(ods, "orders" if schema == "public" else f"orders__{schema}", table, columns)
                except psycopg.Error as error:
                    if name not in stopped:
                        yield name, f"{type(error).__name__} in the ODS"
                    continue
                self.counts["tables"] += 1
                if here != there and name not in stopped:
                    either = (here - there).total() + (there - here).total()
                    yield name, f"has {here.total()} for {there.total()} rows, {either} of them in one only"

    def verify(self) -> None:
        """What ``catchment verify`` says in the end."""
        told = subprocess.run(
            [sys.executable, "-m", "catchment.cli.main", "verify", "orders", "--json", "--config", self.hub.config],
            capture_output=True,
            text=True,
            check=False,
        )
        for line in told.stdout.splitlines():
            for table in json.loads(line).get("tables", [json.loads(line)]):
                if table["state"] != "equal":
                    print(f"  verify: {table['table']} is {table['state']}: {table['reason']}", flush=True)
                if table["state"] == "different":
                    self.different.setdefault(table["table"], "verify says so")


def _printed(
    connection: psycopg.Connection, schema: str, table: str, columns: list[str], only: bool = True
) -> Counter[bytes]:
    """How often each row is there, as PostgreSQL prints it."""
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    relation = sql.SQL("ONLY {}" if only else "{}").format(sql.Identifier(schema, table))
    with connection.cursor().copy(sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT").format(names, relation)) as copy:
        return Counter(b"".join(bytes(part) for part in copy).split(b"\n")[:-1])


def _comes_true(condition: Callable[[], bool]) -> bool:
    """Whether it does within a minute; a crowded machine gets more looks than that takes."""
    deadline, looks = time.monotonic() + PATIENCE, 0
    while not condition():
        looks += 1
        if time.monotonic() > deadline and looks > 5:
            return False
        time.sleep(0.2)
    return True


def main() -> int:
    """Exit status 1 when a table was different."""
    parser = argparse.ArgumentParser(description="Run PostgreSQL's own regression tests against a source.")
    parser.add_argument("regress", type=Path, help="src/test/regress of a checkout of PostgreSQL")
    parser.add_argument("--server", type=int, help="major version of source and ODS; the newest here if not given")
    parser.add_argument("--whole-rows", action="store_true", help="tables without a key get REPLICA IDENTITY FULL")
    parser.add_argument("--at-root", action="store_true", help="publish partitions through their root")
    parser.add_argument("--only", nargs="*", help="these scripts; test_setup always comes first")
    given = parser.parse_args()
    schedule = (given.regress / "parallel_schedule").read_text()
    names = [name for line in re.findall(r"^test:(.*)", schedule, re.MULTILINE) for name in line.split()]
    names = ["test_setup", *given.only] if given.only else names
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="regress-")))
        directory.chmod(0o777)  # the server writes files there too
        binaries = find_binaries(given.server)
        source, ods = (stack.enter_context(Cluster(binaries, settings=SETTINGS)) for _ in range(2))
        for cluster, creation in ((source, DATABASE), (ods, "CREATE DATABASE ods")):
            with psycopg.connect(cluster.dsn(), autocommit=True) as admin:
                for statement in creation.split(";"):
                    admin.execute(sql.SQL(statement))
        with psycopg.connect(source.dsn("regression")) as connection:
            connection.execute(WHOLE_ROWS if given.whole_rows else "")
            connection.execute(
                sql.SQL("CREATE PUBLICATION catchment FOR ALL TABLES WITH (publish_via_partition_root = {})").format(
                    sql.Literal(given.at_root)
                )
            )
        hub = RunningHub(directory, {"orders": source.dsn("regression")}, ods=ods.dsn("ods"))
        stack.callback(hub.close)
        places = {
            "PG_ABS_SRCDIR": given.regress.resolve(),
            "PG_ABS_BUILDDIR": directory,
            "PG_LIBDIR": "",
            "PG_DLSUFFIX": "",
        }
        environment = {**os.environ, **{name: str(place) for name, place in places.items()}, "PGTZ": "PST8PDT"}
        regression = Regression(source.dsn("regression"), hub, directory, environment)
        hub.start()
        for name in names:
            script = given.regress / "sql" / f"{name}.sql"
            if script.exists():
                regression.run(script)
                print(f"{name}: {regression.counts}", flush=True)
        regression.verify()
        told = hub.output.read_text()
        defects = sorted(set(re.findall(r"unexpected \w+ at \S+|Traceback.*", told)))
        print(*defects, f"{len(regression.different)} tables were different", sep="\n")
        return 1 if regression.different or defects else 0


if __name__ == "__main__":
    sys.exit(main())
