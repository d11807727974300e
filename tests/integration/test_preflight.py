"""``check`` names every obstacle before it does harm, with what removes it; and says nothing when there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from catchment.demo.cluster import Cluster
from catchment.postgres.catalog import published_tables
from catchment.postgres.connection import connect, of_source
from catchment.postgres.finding import Finding
from catchment.postgres.preflight import check_ods, check_source
from catchment.postgres.snapshot import SnapshotReader
from catchment.postgres.source import Source

every_version = pytest.mark.server_versions

TABLES = """
CREATE TABLE customers (id int PRIMARY KEY, name text);
CREATE TABLE orders (id int PRIMARY KEY, total numeric);
"""


def do(dsn: str, statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statements)


def follow(dsn: str, remedy: str) -> None:
    """Do exactly what a finding says."""
    for statement in remedy.split("; or ")[0].split(";"):
        if statement.strip() and not statement.strip().startswith("then"):
            do(dsn, statement)


@pytest.fixture
def source(source_database: str) -> Source:
    """A source with two tables that a superuser reads, as it should be."""
    do(source_database, TABLES + "CREATE PUBLICATION catchment FOR TABLE customers, orders;")
    return Source("shop", source_database, "catchment", "catchment_shop_preflight")


@pytest.fixture
def reader(source: Source) -> Source:
    """The same source for a role that may log in and nothing else."""
    do(source.dsn, "DROP ROLE IF EXISTS reader_preflight; CREATE ROLE reader_preflight LOGIN;")
    return replace(source, dsn=make_conninfo(source.dsn, user="reader_preflight"))


def only(findings: list[Finding], level: str) -> list[Finding]:
    return [finding for finding in findings if finding.level == level]


def troubles(source: Source) -> list[str]:
    return [str(finding) for finding in check_source(source) if finding.level != "good"]


@every_version
def test_a_source_as_it_should_be_has_one_good_finding(source: Source) -> None:
    (finding,) = check_source(source)
    assert finding.level == "good"
    assert "2 tables are shared" in finding.what


@every_version
def test_following_the_remedies_makes_a_source_ready(source: Source, reader: Source) -> None:
    do(source.dsn, "REVOKE USAGE ON SCHEMA public FROM public; ALTER TABLE orders ENABLE ROW LEVEL SECURITY;")
    findings = only(check_source(reader), "error")
    assert {(finding.where, finding.what.partition(":")[0]) for finding in findings} == {
        ("source shop", "privilege REPLICATION is missing"),
        ("source shop", "privilege USAGE on schema public is missing"),
        ("source shop, table public.customers", "privilege SELECT is missing"),
        ("source shop, table public.orders", "privilege SELECT is missing"),
        ("source shop, table public.orders", "row-level security hides rows from role reader_preflight"),
    }
    for finding in findings:
        follow(source.dsn, finding.remedy)
    assert only(check_source(reader), "good") == check_source(reader)


def test_the_remedies_of_a_role_that_needs_quotes_can_be_run(source: Source) -> None:
    do(source.dsn, 'CREATE SCHEMA "Odd""s"; CREATE TABLE "Odd""s"."T x" (id int PRIMARY KEY)')
    do(source.dsn, 'ALTER PUBLICATION catchment ADD TABLE "Odd""s"."T x"')
    do(source.dsn, 'DROP ROLE IF EXISTS "Odd reader"; CREATE ROLE "Odd reader" LOGIN')
    odd = replace(source, dsn=make_conninfo(source.dsn, user="Odd reader"))
    for finding in only(check_source(odd), "error"):
        follow(source.dsn, finding.remedy)
    assert not troubles(odd)


def test_a_privilege_on_the_published_columns_is_enough(source: Source, reader: Source) -> None:
    do(source.dsn, "ALTER ROLE reader_preflight REPLICATION; GRANT SELECT ON customers TO reader_preflight")
    do(source.dsn, "GRANT SELECT (id) ON orders TO reader_preflight")
    (trouble,) = troubles(reader)
    assert trouble == (
        "error: source shop, table public.orders: privilege SELECT is missing; "
        'GRANT SELECT ON "public"."orders" TO reader_preflight;'
    )


@every_version
def test_columns_that_are_granted_and_published_can_be_read(source: Source, reader: Source) -> None:
    do(source.dsn, "ALTER ROLE reader_preflight REPLICATION; GRANT SELECT ON customers TO reader_preflight")
    do(source.dsn, "GRANT SELECT (id) ON orders TO reader_preflight")
    do(source.dsn, "DROP PUBLICATION catchment; CREATE PUBLICATION catchment FOR TABLE customers, orders (id)")
    assert not troubles(reader)
    translation = of_source("shop")
    with connect(reader.dsn, translation) as connection:
        tables = published_tables(connection, "catchment", translation).values()
    for published in tables:
        with SnapshotReader(reader.dsn, "catchment", published.table, translation) as snapshot:
            snapshot.begin()
            assert snapshot.describe() == published
            assert list(snapshot.read(published)) == []


def test_a_missing_publication_is_named(source: Source) -> None:
    (trouble,) = troubles(replace(source, publication="shared"))
    assert trouble.startswith("error: source shop: publication shared does not exist; run what `catchment source sql")


def test_an_empty_publication_is_named(source: Source) -> None:
    do(source.dsn, "CREATE PUBLICATION nothing")
    (trouble,) = troubles(replace(source, publication="nothing"))
    assert trouble == (
        'error: source shop: publication nothing shares no table; ALTER PUBLICATION "nothing" ADD TABLE …;'
    )


def test_a_publication_that_leaves_operations_out_is_a_warning(source: Source) -> None:
    do(source.dsn, "ALTER PUBLICATION catchment SET (publish = 'insert, update')")
    (finding,) = only(check_source(source), "warning")
    follow(source.dsn, finding.remedy)
    assert not troubles(source)


@every_version
@pytest.mark.parametrize(
    ("shape", "remedy"),
    [
        ("id int", 'ALTER TABLE "public"."t" ADD PRIMARY KEY (…); or ALTER TABLE "public"."t" REPLICA IDENTITY FULL;'),
        ("id int NOT NULL CONSTRAINT t_id UNIQUE", 'ALTER TABLE "public"."t" REPLICA IDENTITY USING INDEX "t_id";'),
        ("id int PRIMARY KEY DEFERRABLE", None),
        ("id int UNIQUE", None),
    ],
    ids=["no key", "unique index", "deferrable primary key", "nullable unique"],
)
def test_a_table_whose_updates_postgresql_would_refuse_is_a_warning(
    source: Source, shape: str, remedy: str | None
) -> None:
    do(source.dsn, f"CREATE TABLE t ({shape}); INSERT INTO t VALUES (1); ALTER PUBLICATION catchment ADD TABLE t")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        do(source.dsn, "DELETE FROM t")
    (finding,) = only(check_source(source), "warning")
    assert finding.where == "source shop, table public.t"
    if remedy is not None:
        assert finding.remedy == remedy
    follow(source.dsn, finding.remedy.rpartition("; or ")[2])
    do(source.dsn, "DELETE FROM t")
    assert not [finding for finding in check_source(source) if "refuses" in finding.what]


def test_identity_nothing_with_a_primary_key_goes_back_to_default(source: Source) -> None:
    do(source.dsn, "ALTER TABLE orders REPLICA IDENTITY NOTHING")
    (finding,) = only(check_source(source), "warning")
    assert finding.remedy == 'ALTER TABLE "public"."orders" REPLICA IDENTITY DEFAULT;'
    follow(source.dsn, finding.remedy)
    assert not troubles(source)


def test_a_table_that_only_gets_rows_may_do_without_an_identity(source: Source) -> None:
    do(source.dsn, "CREATE TABLE t (id int); ALTER PUBLICATION catchment ADD TABLE t")
    do(source.dsn, "ALTER PUBLICATION catchment SET (publish = 'insert')")
    assert not [trouble for trouble in troubles(source) if "refuses" in trouble]


@every_version
def test_a_column_list_without_the_identity_is_a_warning(source: Source) -> None:
    do(source.dsn, "INSERT INTO customers VALUES (1); ALTER PUBLICATION catchment SET TABLE customers (name)")
    with pytest.raises(psycopg.errors.InvalidColumnReference):
        do(source.dsn, "DELETE FROM customers")
    (trouble,) = troubles(source)
    assert trouble.startswith("warning: source shop, table public.customers: the publication leaves out id of its")


@every_version
def test_the_identity_of_a_partition_counts(source: Source) -> None:
    do(
        source.dsn,
        """CREATE TABLE sales (id int, PRIMARY KEY (id)) PARTITION BY RANGE (id);
           CREATE TABLE sales_1 PARTITION OF sales FOR VALUES FROM (0) TO (10);
           CREATE TABLE sales_2 PARTITION OF sales FOR VALUES FROM (10) TO (20);
           ALTER TABLE sales_2 REPLICA IDENTITY NOTHING;
           ALTER PUBLICATION catchment SET (publish_via_partition_root = true);
           ALTER PUBLICATION catchment ADD TABLE sales;""",
    )
    (trouble,) = troubles(source)
    assert "table public.sales_2" in trouble
    assert 'ALTER TABLE "public"."sales_2" REPLICA IDENTITY DEFAULT;' in trouble


def test_a_table_without_key_is_a_warning(source: Source) -> None:
    do(source.dsn, "CREATE TABLE t (id int); ALTER TABLE t REPLICA IDENTITY FULL")
    do(source.dsn, "ALTER PUBLICATION catchment ADD TABLE t")
    (trouble,) = troubles(source)
    assert trouble.startswith("warning: source shop, table public.t: it has no key: it is read whole in one cycle")


def test_an_unreachable_server_is_a_finding() -> None:
    (finding,) = check_source(Source("shop", "host=127.0.0.1 port=1 password=canary7391 user=x", "p", "s"))
    assert (finding.level, finding.where) == ("error", "source shop")
    assert "Connection refused" in finding.what
    assert "canary7391" not in str(finding)


def test_a_dsn_that_is_none_is_a_finding() -> None:
    (finding,) = check_source(Source("shop", "canary7391 = = ", "p", "s"))
    assert finding.level == "error"
    assert "not a connection string" in finding.what
    (finding,) = check_ods("canary7391 = = ", ["shop"])
    assert (finding.level, finding.where) == ("error", "ods")
    assert "canary7391" not in str(finding)


def test_a_missing_database_is_one_line(source: Source) -> None:
    (finding,) = check_source(replace(source, dsn=make_conninfo(source.dsn, dbname="nowhere")))
    assert 'database "nowhere" does not exist' in finding.what
    assert "\n" not in str(finding)


def test_a_server_that_is_set_up_for_less_is_told_what_to_set(private_cluster_factory: Callable[..., Cluster]) -> None:
    cluster = private_cluster_factory(wal_level="replica", max_replication_slots=1, max_wal_senders=0)
    do(cluster.dsn(), TABLES + "CREATE PUBLICATION catchment FOR TABLE customers")
    do(cluster.dsn(), "SELECT pg_create_physical_replication_slot('taken')")
    source = Source("shop", cluster.dsn(), "catchment", "catchment_shop")
    assert troubles(source) == [
        "error: source shop: wal_level is replica; ALTER SYSTEM SET wal_level = 'logical'; then restart the server",
        "error: source shop: all 1 replication slots are in use; "
        "ALTER SYSTEM SET max_replication_slots = 2; then restart the server",
        "error: source shop: all 0 walsenders are in use; "
        "ALTER SYSTEM SET max_wal_senders = 1; then restart the server",
    ]
    for finding in check_source(source):
        follow(cluster.dsn(), finding.remedy)
    cluster.settings = {
        name: setting
        for name, setting in cluster.settings.items()
        if name not in ("wal_level", "max_replication_slots", "max_wal_senders")
    }
    cluster.restart()
    assert not troubles(source)


def test_a_slot_of_somebody_else_is_named(source: Source) -> None:
    do(source.dsn, "SELECT pg_create_logical_replication_slot('catchment_shop_preflight', 'test_decoding')")
    (trouble,) = troubles(source)
    assert "is not a permanent pgoutput slot of this database; give the source another slot" in trouble


def test_our_own_slot_is_no_obstacle(source: Source) -> None:
    do(source.dsn, "SELECT pg_create_logical_replication_slot('catchment_shop_preflight', 'pgoutput')")
    assert not troubles(source)


def test_sql_ascii_is_a_warning(source_cluster: Cluster, database_factory: Callable[..., str]) -> None:
    dsn = database_factory(source_cluster, "ascii", "TEMPLATE template0 ENCODING 'SQL_ASCII'")
    do(dsn, TABLES + "CREATE PUBLICATION catchment FOR TABLE customers")
    (trouble,) = troubles(Source("shop", dsn, "catchment", "catchment_shop_preflight"))
    assert trouble.startswith("warning: source shop: the database's encoding is SQL_ASCII")


@every_version
def test_an_empty_ods_is_ready(ods_database: str) -> None:
    (finding,) = check_ods(ods_database, ["shop"])
    assert (finding.level, finding.where) == ("good", "ods")


@every_version
def test_following_the_remedies_makes_an_ods_ready(ods_database: str) -> None:
    do(ods_database, "DROP ROLE IF EXISTS writer_preflight; CREATE ROLE writer_preflight LOGIN")
    name = conninfo_to_dict(ods_database)["dbname"]
    do(ods_database, f"REVOKE ALL ON DATABASE {name} FROM public; GRANT CONNECT ON DATABASE {name} TO writer_preflight")
    writer = make_conninfo(ods_database, user="writer_preflight")
    findings = check_ods(writer, ["shop"])
    assert [finding.what for finding in findings] == [
        "privilege CREATE on the database is missing",
        "privilege TEMPORARY on the database is missing",
    ]
    for finding in findings:
        follow(ods_database, finding.remedy)
    assert only(check_ods(writer, ["shop"]), "good") == check_ods(writer, ["shop"])


def test_schemas_of_others_are_in_the_way(ods_database: str) -> None:
    do(ods_database, "CREATE SCHEMA shop; CREATE SCHEMA shop__audit; CREATE SCHEMA shopping; CREATE SCHEMA catchment")
    assert not only(check_ods(ods_database, ["shop"]), "error"), "an empty one was made for us"
    for schema in ("shop", "shop__audit", "shopping", "catchment"):
        do(ods_database, f"CREATE TABLE {schema}.t ()")
    assert [finding.what.split()[1] for finding in only(check_ods(ods_database, ["shop"]), "error")] == [
        "catchment",
        "shop",
        "shop__audit",
    ]


def test_our_own_schemas_are_not_in_the_way(ods_database: str) -> None:
    do(ods_database, "CREATE SCHEMA shop; CREATE TABLE shop.t (); CREATE SCHEMA catchment")
    do(ods_database, "CREATE TABLE catchment.tables (source text, schema text)")
    do(ods_database, "INSERT INTO catchment.tables VALUES ('shop', 'shop'), ('other', NULL)")
    assert not only(check_ods(ods_database, ["shop"]), "error")
