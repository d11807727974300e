"""``check`` names every obstacle in a source before it does harm, with what removes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from remedies import at, do, follow, names

from catchment.demo.cluster import Cluster
from catchment.model.errors import ConfigError
from catchment.postgres.catalog import published_tables
from catchment.postgres.connection import connect, of_source
from catchment.postgres.finding import Finding
from catchment.postgres.preflight import check_source
from catchment.postgres.snapshot import SnapshotReader
from catchment.postgres.source import Source

every_version = pytest.mark.every_server_version

TABLES = """
CREATE TABLE customers (id int PRIMARY KEY, name text);
CREATE TABLE orders (id int PRIMARY KEY, total numeric);
"""


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


def look(source: Source) -> list[Finding]:
    return check_source(source).findings


@every_version
def test_a_source_as_it_should_be_is_ready_and_says_what_is_free(source: Source) -> None:
    findings = look(source)
    assert names(findings) == []
    assert findings[0].level == "good"
    assert "tables shared: 2; free: 20 of 20 replication slots, 20 of 20 walsenders" in findings[0].what


@every_version
def test_following_the_remedies_makes_a_source_ready(source: Source, reader: Source) -> None:
    do(source.dsn, "REVOKE USAGE ON SCHEMA public FROM public; ALTER TABLE orders ENABLE ROW LEVEL SECURITY;")
    findings = [finding for finding in look(reader) if finding.level == "error"]
    assert {(finding.where, finding.check) for finding in findings} == {
        ("source shop", "replication"),
        ("source shop", "usage"),
        ("source shop, table public.customers", "select"),
        ("source shop, table public.orders", "select"),
        ("source shop, table public.orders", "row_security"),
    }
    for finding in findings:
        follow(source.dsn, finding.remedy)
    assert names(look(reader)) == []


def test_the_remedies_of_a_role_that_needs_quotes_can_be_run(source: Source) -> None:
    do(source.dsn, 'CREATE SCHEMA "Odd""s"; CREATE TABLE "Odd""s"."T {x" (id int PRIMARY KEY)')
    do(source.dsn, 'ALTER PUBLICATION catchment ADD TABLE "Odd""s"."T {x"')
    do(source.dsn, 'DROP ROLE IF EXISTS "Odd reader"; CREATE ROLE "Odd reader" LOGIN')
    odd = replace(source, dsn=make_conninfo(source.dsn, user="Odd reader"))
    for finding in look(odd):
        if finding.level == "error":
            follow(source.dsn, finding.remedy)
    assert names(look(odd)) == []


def test_a_privilege_on_the_published_columns_is_enough(source: Source, reader: Source) -> None:
    do(source.dsn, "ALTER ROLE reader_preflight REPLICATION; GRANT SELECT ON customers TO reader_preflight")
    do(source.dsn, "GRANT SELECT (id) ON orders TO reader_preflight")
    assert str(at(look(reader), "select")) == (
        "error: source shop, table public.orders: privilege SELECT is missing (a backfill cannot read it); "
        'GRANT SELECT ON "public"."orders" TO reader_preflight;'
    )


@every_version
def test_no_more_than_the_published_columns_is_asked_for(source: Source, reader: Source) -> None:
    do(source.dsn, "ALTER ROLE reader_preflight REPLICATION; GRANT SELECT ON customers TO reader_preflight")
    do(source.dsn, "ALTER PUBLICATION catchment SET TABLE customers, orders (id)")
    finding = at(look(reader), "select")
    assert finding.remedy == 'GRANT SELECT ("id") ON "public"."orders" TO reader_preflight;'
    follow(source.dsn, finding.remedy)
    assert names(look(reader)) == ["columns"]
    translation = of_source("shop")
    with connect(reader.dsn, translation) as connection:
        tables = published_tables(connection, "catchment", translation).values()
    for published in tables:
        with SnapshotReader(reader.dsn, "catchment", published.table, translation) as snapshot:
            snapshot.begin()
            (leaf,) = snapshot.leaves()
            assert leaf.whole == (published.table.name == "orders")
            assert snapshot.describe() == published
            assert list(snapshot.read(published, leaf, 0, leaf.blocks)) == []


def test_a_missing_publication_is_named(source: Source) -> None:
    finding = at(look(replace(source, publication="shared")), "publication")
    assert finding.what == "publication shared does not exist"
    assert finding.remedy.startswith("run what `catchment source sql shop` prints")


def test_an_empty_publication_is_named(source: Source) -> None:
    do(source.dsn, "CREATE PUBLICATION nothing")
    finding = at(look(replace(source, publication="nothing")), "publication_empty")
    assert finding.level == "error"
    assert finding.remedy == 'ALTER PUBLICATION "nothing" ADD TABLE …;'


PARTITIONED = """
CREATE TABLE sales (id int, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE sales_1 PARTITION OF sales FOR VALUES FROM (0) TO (10);
CREATE {} TABLE sales_2 PARTITION OF sales FOR VALUES FROM (10) TO (20);
ALTER PUBLICATION catchment SET (publish_via_partition_root = {});
ALTER PUBLICATION catchment ADD TABLE sales;
"""
IN_SCHEMA = "DROP PUBLICATION catchment; CREATE PUBLICATION catchment FOR TABLES IN SCHEMA public;"


@every_version
@pytest.mark.parametrize(
    ("broken", "check", "level", "where"),
    [
        ("ALTER PUBLICATION catchment SET (publish = 'insert, update')", "publication_operations", "warning", ""),
        ("CREATE TABLE t (id int); ALTER PUBLICATION catchment ADD TABLE t", "replica_identity", "warning", "public.t"),
        ("ALTER TABLE orders REPLICA IDENTITY NOTHING", "replica_identity", "warning", "public.orders"),
        (
            "ALTER PUBLICATION catchment SET TABLE orders WHERE (total > 0)",
            "replica_identity_filter",
            "warning",
            "public.orders",
        ),
        (PARTITIONED.format("", "false"), "publication_partitions", "notice", ""),
        (PARTITIONED.format("UNLOGGED", "true"), "partition_not_logged", "warning", "public.sales"),
        (
            PARTITIONED.format("", "true") + "ALTER TABLE sales_2 REPLICA IDENTITY NOTHING",
            "replica_identity",
            "warning",
            "public.sales_2",
        ),
        (IN_SCHEMA + "CREATE UNLOGGED TABLE u (id int PRIMARY KEY)", "unlogged_table", "warning", "public.u"),
    ],
    ids=[
        "operations",
        "no key",
        "identity nothing",
        "filter",
        "leaves",
        "unlogged leaf",
        "identity of leaf",
        "unlogged",
    ],
)
def test_what_is_broken_is_found_and_its_remedy_mends_it(
    source: Source, broken: str, check: str, level: str, where: str
) -> None:
    for statement in filter(str.strip, broken.split(";")):
        do(source.dsn, statement)
    finding = at(look(source), check)
    assert (finding.level, finding.where) == (level, f"source shop, table {where}" if where else "source shop")
    assert finding.why
    follow(source.dsn, finding.remedy)
    assert check not in names(look(source))


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
    finding = at(look(source), "replica_identity")
    assert finding.where == "source shop, table public.t"
    if remedy is not None:
        assert finding.remedy == remedy
    follow(source.dsn, finding.remedy)
    do(source.dsn, "DELETE FROM t")
    assert "replica_identity" not in names(look(source))


@every_version
def test_a_filter_that_postgresql_would_refuse_updates_for_is_a_warning(source: Source) -> None:
    do(source.dsn, "INSERT INTO orders VALUES (1, 5)")
    do(source.dsn, "ALTER PUBLICATION catchment SET TABLE orders WHERE (total > 0 AND id > 0)")
    with pytest.raises(psycopg.errors.InvalidColumnReference):
        do(source.dsn, "UPDATE orders SET total = 6")
    finding = at(look(source), "replica_identity_filter")
    assert finding.what == "the row filter needs total, not in its replica identity"
    follow(source.dsn, finding.remedy)
    do(source.dsn, "UPDATE orders SET total = 6")


def test_a_table_that_only_gets_rows_may_do_without_an_identity(source: Source) -> None:
    do(source.dsn, "CREATE TABLE t (id int); ALTER PUBLICATION catchment ADD TABLE t")
    do(source.dsn, "ALTER PUBLICATION catchment SET (publish = 'insert')")
    assert names(look(source)) == ["publication_operations", "keyless"]


@every_version
def test_a_column_list_without_the_identity_is_a_warning(source: Source) -> None:
    do(source.dsn, "INSERT INTO customers VALUES (1); ALTER PUBLICATION catchment SET TABLE customers (name)")
    with pytest.raises(psycopg.errors.InvalidColumnReference):
        do(source.dsn, "DELETE FROM customers")
    finding = at(look(source), "replica_identity_columns")
    assert finding.what == "the publication leaves out id of its replica identity"
    do(source.dsn, "ALTER PUBLICATION catchment SET TABLE customers (name, id)")
    assert names(look(source)) == []


def test_a_table_without_key_is_a_warning(source: Source) -> None:
    do(source.dsn, "CREATE TABLE t (id int); ALTER TABLE t REPLICA IDENTITY FULL")
    do(source.dsn, "ALTER PUBLICATION catchment ADD TABLE t")
    assert names(look(source)) == ["keyless"]
    do(source.dsn, "ALTER TABLE t REPLICA IDENTITY DEFAULT; ALTER PUBLICATION catchment SET (publish = 'insert')")
    assert "keyless" in names(look(source))


@every_version
def test_what_the_publication_leaves_out_is_told(source: Source) -> None:
    do(source.dsn, "ALTER PUBLICATION catchment SET TABLE customers (id), orders WHERE (id > 7)")
    findings = look(source)
    assert names(findings) == ["columns", "rows"]
    assert at(findings, "columns").what == "columns that the publication leaves out: name"
    assert at(findings, "rows").what == "only rows WHERE (id > 7) are shared"
    assert {finding.level for finding in findings} <= {"good", "notice", "warning"}


@every_version
def test_generated_columns_are_told_and_can_be_shared_from_18_on(source: Source, server_version: int) -> None:
    do(source.dsn, "ALTER TABLE orders ADD twice numeric GENERATED ALWAYS AS (total * 2) STORED")
    finding = at(look(source), "generated_columns")
    assert finding.what == "generated columns that are not shared: twice"
    if server_version >= 18:
        follow(source.dsn, finding.remedy)
        assert names(look(source)) == []
        do(source.dsn, "ALTER TABLE orders ADD thrice numeric GENERATED ALWAYS AS (total * 3) VIRTUAL")
        finding = at(look(source), "generated_columns")
        assert finding.what == "generated columns that are not shared: thrice"
    assert finding.remedy == "compute them in a view in the ODS"


@every_version
def test_a_publication_of_all_tables_is_told_and_what_it_leaves_out(source: Source) -> None:
    do(source.dsn, "DROP PUBLICATION catchment; CREATE PUBLICATION catchment FOR ALL TABLES")
    do(source.dsn, "CREATE FOREIGN DATA WRAPPER reader; CREATE SERVER files FOREIGN DATA WRAPPER reader")
    do(source.dsn, "CREATE FOREIGN TABLE passwords (line text) SERVER files")
    do(source.dsn, "CREATE UNLOGGED TABLE u (id int)")
    findings = look(source)
    assert names(findings) == ["publication_all_tables", "foreign_table", "unlogged_table"]
    assert at(findings, "foreign_table").where == "source shop, table public.passwords"


def test_tables_that_were_never_named_are_no_business_of_ours(source: Source) -> None:
    do(source.dsn, "CREATE UNLOGGED TABLE u (id int); CREATE TABLE v (id int)")
    assert names(look(source)) == []


def test_an_unreachable_server_is_one_finding() -> None:
    (finding,) = look(Source("shop", "host=127.0.0.1 port=1 password=canary7391 user=x", "p", "s"))
    assert (finding.level, finding.check, finding.where) == ("error", "connection", "source shop")
    assert "Connection refused" in finding.what
    assert "canary7391" not in str(finding)


def test_a_dsn_that_is_none_is_a_matter_of_configuration() -> None:
    with pytest.raises(ConfigError, match="not a connection string"):
        look(Source("shop", "canary7391 = = ", "p", "s"))


def test_a_missing_database_is_one_line(source: Source) -> None:
    (finding,) = look(replace(source, dsn=make_conninfo(source.dsn, dbname="nowhere")))
    assert 'database "nowhere" does not exist' in finding.what
    assert "\n" not in str(finding)


def test_sql_ascii_is_a_warning(source_cluster: Cluster, database_factory: Callable[..., str]) -> None:
    dsn = database_factory(source_cluster, "ascii", "TEMPLATE template0 ENCODING 'SQL_ASCII'")
    do(dsn, TABLES + "CREATE PUBLICATION catchment FOR TABLE customers")
    assert names(look(Source("shop", dsn, "catchment", "catchment_shop_preflight"))) == ["encoding"]
