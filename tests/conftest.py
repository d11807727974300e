"""Real PostgreSQL servers, the same for the whole session, and fresh databases for each test.

A test marked ``server_versions`` runs against the oldest and the newest major version found on this machine, a dense
one marked ``every_server_version`` against all of them, any other against the newest.
Tests marked ``soak`` run only when asked for (``make soak``); ``CATCHMENT_ROUNDS`` says how many rounds they make.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import psycopg
import pytest
import structlog
from psycopg import sql
from running_hub import RunningHub
from s3_server import S3Server
from wire_twins import NATIVE_IS_BUILT, REFERENCE, Twin, compiled

from catchment.demo.binaries import find_binaries, installed, version
from catchment.demo.cluster import Cluster
from catchment.wire.choice import NATIVE, PYTHON, chosen

# Shared memory in files of the data directory: a killed server leaves nothing elsewhere.
SETTINGS = {"fsync": "off", "shared_buffers": "32MB", "dynamic_shared_memory_type": "mmap"}

# Hundreds of clusters come and go, a thousand files each: several times faster in memory, where there is plenty.
_MEMORY = Path("/dev/shm")  # noqa: S108 - mkdtemp makes the names
if _MEMORY.exists() and shutil.disk_usage(_MEMORY).free > 8 << 30:
    os.environ.setdefault("CATCHMENT_SCRATCH", str(_MEMORY))

_numbers = count(1)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "server_versions: runs against the oldest and the newest PostgreSQL here")
    config.addinivalue_line("markers", "every_server_version: runs against every PostgreSQL found on this machine")
    config.addinivalue_line("markers", "soak: random faults for a long time; only with `-m soak`")
    if not config.option.markexpr:
        config.option.markexpr = "not soak"


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    # Drawn here rather than by hypothesis, so that the header shows it and a failure can be repeated.
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = random.randrange(2**32)


def pytest_report_header(config: pytest.Config) -> list[str]:
    versions = ", ".join(version(binaries) for binaries in installed().values())
    seed = config.option.hypothesis_seed
    twins = f"wire: {chosen()} where both are not tested, compiled twin {'built' if NATIVE_IS_BUILT else 'not built'}"
    return [
        f"PostgreSQL: {versions or 'none found'}",
        twins,
        f"hypothesis seed: {seed} (--hypothesis-seed={seed} repeats it)",
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server_version" not in metafunc.fixturenames:
        return
    majors = list(installed())
    marked = metafunc.definition.get_closest_marker
    if marked("every_server_version") is None:
        majors = sorted({*majors[:1], *majors[-1:]}) if marked("server_versions") else []
    if majors:
        ids = [f"postgresql-{major}" for major in majors]
        metafunc.parametrize("server_version", majors, ids=ids, indirect=True, scope="session")


@pytest.fixture(autouse=True)
def quiet_program_log() -> None:
    """What loops in threads log must not go to a stream that pytest has closed by then."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory(), cache_logger_on_first_use=False)


@pytest.fixture(scope="session")
def server_version(request: pytest.FixtureRequest) -> int:
    """The major version of the servers that this test gets."""
    return request.param if hasattr(request, "param") else max(installed(), default=18)


@pytest.fixture(scope="session", params=[PYTHON, NATIVE])
def twin(request: pytest.FixtureRequest) -> Twin:
    """Each twin of ``catchment.wire`` that there is here."""
    if request.param == PYTHON:
        return REFERENCE
    if not NATIVE_IS_BUILT:
        pytest.skip("the compiled twin is not built here")
    return compiled()


@pytest.fixture(scope="session")
def rounds() -> int:
    """How many rounds a soak test makes."""
    return int(os.environ.get("CATCHMENT_ROUNDS", "10"))


@pytest.fixture(scope="session")
def cluster_factory() -> Iterator[Callable[[str, int], Cluster]]:
    """``cluster_factory(role, major)``: the session's running server of that role and version. Never stop these."""
    clusters: dict[tuple[str, int], Cluster] = {}
    with ExitStack() as stack:

        def get(role: str, major: int) -> Cluster:
            if (role, major) not in clusters:
                clusters[role, major] = stack.enter_context(Cluster(find_binaries(major), settings=SETTINGS))
            return clusters[role, major]

        yield get


@pytest.fixture
def source_cluster(cluster_factory: Callable[[str, int], Cluster], server_version: int) -> Cluster:
    """The session's server for sources."""
    return cluster_factory("source", server_version)


@pytest.fixture
def ods_cluster(cluster_factory: Callable[[str, int], Cluster], server_version: int) -> Cluster:
    """The session's server for the ODS."""
    return cluster_factory("ods", server_version)


@pytest.fixture
def database_factory() -> Iterator[Callable[..., str]]:
    """``database_factory(cluster, prefix, options)``: the dsn of a new database, dropped with its slots after the test.

    ``options`` follow CREATE DATABASE, for instance ``TEMPLATE template0 ENCODING 'SQL_ASCII'``.
    """
    with ExitStack() as stack:
        yield lambda cluster, prefix, options="": stack.enter_context(_database(cluster, prefix, options))


@pytest.fixture
def source_database(database_factory: Callable[..., str], source_cluster: Cluster) -> str:
    """The dsn of an empty database, ready for logical replication."""
    return database_factory(source_cluster, "source")


@pytest.fixture
def second_source_database(database_factory: Callable[..., str], source_cluster: Cluster) -> str:
    """Another one, on the same server as ``source_database``."""
    return database_factory(source_cluster, "source")


@pytest.fixture
def ods_database(database_factory: Callable[..., str], ods_cluster: Cluster) -> str:
    """The dsn of an empty database on another server."""
    return database_factory(ods_cluster, "ods")


@pytest.fixture
def private_cluster_factory(server_version: int) -> Iterator[Callable[..., Cluster]]:
    """``private_cluster_factory(name=setting, …)``: a running server of the test's own."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(
            Cluster(find_binaries(server_version), settings={**SETTINGS, **settings})
        )


@pytest.fixture
def private_cluster(private_cluster_factory: Callable[..., Cluster]) -> Cluster:
    """A running server of the test's own: to be restarted, killed, filled up."""
    return private_cluster_factory()


@pytest.fixture
def hub_factory(tmp_path: Path) -> Iterator[Callable[..., RunningHub]]:
    """``hub_factory(sources, ods=dsn, feed=True)``: a hub with a catchment.toml of its own, ended after the test."""
    hubs: list[RunningHub] = []

    def make(sources: Mapping[str, str], ods: str | None = None, feed: bool = False) -> RunningHub:
        hubs.append(RunningHub(tmp_path, sources, ods, feed))
        return hubs[-1]

    yield make
    for hub in hubs:
        hub.close()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """The session's server of the S3 protocol."""
    with S3Server() as server:
        yield server


@pytest.fixture
def s3_bucket(s3_server: S3Server) -> str:
    """The name of a bucket of the test's own."""
    return s3_server.bucket()


@contextmanager
def _database(cluster: Cluster, prefix: str, options: str) -> Iterator[str]:
    name = f"{prefix}_{next(_numbers)}"
    with psycopg.connect(cluster.dsn(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} {}").format(sql.Identifier(name), sql.SQL(options)))
    yield cluster.dsn(name)
    if cluster.running:
        with psycopg.connect(cluster.dsn(), autocommit=True) as admin:
            _drop_slots(admin, name)
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _drop_slots(admin: psycopg.Connection, database: str) -> None:
    slots = "SELECT slot_name, active_pid FROM pg_replication_slots WHERE database = %s AND NOT temporary"
    deadline = time.monotonic() + 30
    while (left := admin.execute(slots, [database]).fetchall()) and time.monotonic() < deadline:
        for slot, pid in left:
            if pid is not None:
                admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
                continue
            try:
                admin.execute("SELECT pg_drop_replication_slot(%s)", [slot])
            except (psycopg.errors.ObjectInUse, psycopg.errors.UndefinedObject):
                continue
