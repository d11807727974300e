"""``check`` and the ODS: what it may do there, which names are taken, and how the sources' types land."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from places import need_extension
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from remedies import at, do, follow, names

from catchment.demo.cluster import Cluster
from catchment.model.errors import ConfigError
from catchment.model.table import Column, ReplicaIdentity, Table
from catchment.postgres.finding import Finding
from catchment.postgres.preflight import Report, check_source
from catchment.postgres.source import Source
from catchment.targets.ods.preflight import check_ods
from catchment.targets.ods.registry import CREATION

every_version = pytest.mark.server_versions

ACCOUNTS = Table(
    oid=4711,
    schema="public",
    name="accounts",
    columns=(Column(1, "id", "pg_catalog", "int4", -1, False),),
    key=("id",),
    identity=ReplicaIdentity.DEFAULT,
    filenode=4711,
)


def look(dsn: str, *tables: Table) -> list[Finding]:
    return check_ods(dsn, {"shop": "shop"}, {"shop": Report(tables=tables)}).findings


@pytest.fixture
def writer(ods_database: str) -> str:
    """The ODS for a role that may connect, create and stage."""
    database = conninfo_to_dict(ods_database)["dbname"]
    do(ods_database, "DROP ROLE IF EXISTS writer_preflight; CREATE ROLE writer_preflight LOGIN")
    do(ods_database, f"GRANT CREATE, TEMPORARY ON DATABASE {database} TO writer_preflight")
    return make_conninfo(ods_database, user="writer_preflight")


@every_version
def test_an_empty_ods_is_ready(ods_database: str) -> None:
    (finding,) = look(ods_database, ACCOUNTS)
    assert (finding.level, finding.where) == ("good", "ods")


@every_version
def test_following_the_remedies_makes_an_ods_ready(ods_database: str, writer: str) -> None:
    database = conninfo_to_dict(ods_database)["dbname"]
    do(ods_database, f"REVOKE ALL ON DATABASE {database} FROM public, writer_preflight")
    do(ods_database, f"GRANT CONNECT ON DATABASE {database} TO writer_preflight")
    findings = look(writer)
    assert [finding.what for finding in findings] == [
        "privilege CREATE on the database is missing",
        "privilege TEMPORARY on the database is missing",
    ]
    for finding in findings:
        follow(ods_database, finding.remedy)
    assert names(look(writer)) == []


@every_version
def test_schemas_of_another_role_are_in_the_way(ods_database: str, writer: str) -> None:
    database = conninfo_to_dict(ods_database)["dbname"]
    do(ods_database, "DROP ROLE IF EXISTS builder_preflight; CREATE ROLE builder_preflight LOGIN")
    do(ods_database, f"GRANT CREATE ON DATABASE {database} TO builder_preflight")
    do(make_conninfo(ods_database, user="builder_preflight"), f"{CREATION}; CREATE SCHEMA shop")
    findings = look(writer, ACCOUNTS)
    assert [(finding.check, finding.what) for finding in findings] == [
        ("ods_owner", "schema catchment belongs to role builder_preflight"),
        ("ods_owner", "schema shop belongs to role builder_preflight"),
    ]
    do(ods_database, "GRANT ALL ON SCHEMA catchment TO writer_preflight")
    assert names(look(writer, ACCOUNTS)) == ["ods_owner", "ods_owner"], "its tables are another's all the same"
    follow(ods_database, findings[0].remedy)
    assert names(look(writer, ACCOUNTS)) == []


@every_version
def test_a_schema_that_was_made_for_us_is_welcome(ods_database: str, writer: str) -> None:
    do(ods_database, "CREATE SCHEMA shop; GRANT USAGE, CREATE ON SCHEMA shop TO writer_preflight")
    assert names(look(writer, ACCOUNTS)) == []


@every_version
def test_tables_of_others_are_in_the_way_where_ours_would_be(ods_database: str) -> None:
    do(ods_database, 'CREATE SCHEMA shop; CREATE TABLE shop.notes (); CREATE VIEW shop."accounts" AS SELECT 1 AS id')
    findings = look(ods_database, ACCOUNTS)
    assert names(findings) == ["ods_table", "ods_schema"]
    assert at(findings, "ods_table").where == "ods, source shop, table public.accounts"
    assert at(findings, "ods_schema").level == "notice"
    follow(ods_database, at(findings, "ods_table").remedy.replace("…", "elsewhere"))
    assert names(look(ods_database, ACCOUNTS)) == ["ods_schema"]


@every_version
def test_a_schema_of_others_with_our_own_name_is_in_the_way(ods_database: str) -> None:
    do(ods_database, "CREATE SCHEMA catchment")
    assert names(look(ods_database)) == ["ods_own_schema"]
    do(ods_database, "ALTER SCHEMA catchment RENAME TO land")
    assert names(look(ods_database)) == []


def test_our_own_tables_are_not_in_the_way(ods_database: str) -> None:
    fill(ods_database)
    assert names(look(ods_database, ACCOUNTS)) == []
    do(ods_database, "ALTER TABLE shop.accounts ADD COLUMN note text")
    assert names(look(ods_database, ACCOUNTS)) == []


def test_what_does_not_go_on_in_the_ods_is_told_with_its_remedy(ods_database: str) -> None:
    fill(ods_database)
    do(ods_database, "ALTER TABLE shop.accounts RENAME COLUMN id TO number")
    finding = at(look(ods_database, ACCOUNTS), "ods_stopped")
    assert (finding.level, finding.where) == ("error", "ods, source shop, table public.accounts")
    assert finding.what == 'it is stopped: "shop"."accounts" in the ODS has no column id: somebody altered it there'
    assert 'DROP TABLE "shop"."accounts"; in the ODS' in finding.remedy
    do(
        ods_database,
        "UPDATE catchment.tables SET current = false, stopped = 'source shop, table public.accounts: a; b'",
    )
    finding = at(look(ods_database, ACCOUNTS), "ods_stopped")
    assert (finding.what, finding.remedy) == ("it is stopped: a", "b")
    do(ods_database, "DROP TABLE shop.accounts")
    assert names(look(ods_database, ACCOUNTS)) == ["ods_dropped"]


def fill(ods: str) -> None:
    """Have it hold the accounts, as if they had been delivered."""
    tables = "CREATE TABLE shop.accounts (id int PRIMARY KEY); CREATE TABLE shop.analysis ();"
    do(ods, f"CREATE SCHEMA shop; {tables} {CREATION}")
    known = "INSERT INTO catchment.tables (source, oid, schema, name, shape, current) VALUES"
    do(ods, f"{known} ('shop', 4711, 'shop', 'accounts', '{json.dumps(ACCOUNTS.to_json())}', true)")


def test_a_name_that_would_be_cut_is_an_error(ods_database: str) -> None:
    finding = at(look(ods_database, replace(ACCOUNTS, schema="s" * 60)), "ods_name")
    assert "longer than 63 bytes" in finding.what
    assert finding.where == f"ods, source shop, table {'s' * 60}.accounts"


@every_version
def test_types_that_the_ods_does_not_have_are_told(source_database: str, ods_database: str) -> None:
    need_extension(source_database, "citext")
    do(source_database, "CREATE EXTENSION citext; CREATE TYPE mood AS ENUM ('fine'); CREATE DOMAIN age AS int")
    do(source_database, "CREATE TABLE people (id int PRIMARY KEY, name citext, m mood, ms mood[], a age, t text)")
    do(source_database, "CREATE PUBLICATION catchment FOR TABLE people")
    source = check_source(Source("shop", source_database, "catchment", "catchment_shop"))

    def ods() -> list[Finding]:
        return check_ods(ods_database, {"shop": "shop"}, {"shop": source}).findings

    assert at(ods(), "ods_text").what == "lands as text: m (mood), ms (_mood)"
    finding = at(ods(), "ods_extension")
    assert (finding.level, finding.what) == ("warning", "lands as text: name (citext)")
    follow(ods_database, finding.remedy)
    assert names(ods()) == ["ods_text"]


def test_a_key_whose_type_has_no_order_lands_as_text(ods_database: str) -> None:
    point = Column(1, "id", "pg_catalog", "point", -1, False)
    assert at(look(ods_database, replace(ACCOUNTS, columns=(point,))), "ods_text").what == "lands as text: id (point)"


@every_version
def test_promise_1_a_key_that_is_coarser_in_the_ods_is_told(
    source_database: str, ods_database: str, ods_cluster: Cluster, database_factory: Callable[..., str]
) -> None:
    need_extension(source_database, "citext")
    do(source_database, "CREATE EXTENSION citext; CREATE TABLE people (name citext PRIMARY KEY, other citext)")
    do(source_database, "CREATE PUBLICATION catchment FOR TABLE people")
    source = check_source(Source("shop", source_database, "catchment", "catchment_shop"))

    def ods(dsn: str) -> list[Finding]:
        return check_ods(dsn, {"shop": "shop"}, {"shop": source}).findings

    other = database_factory(ods_cluster, "other", "TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'")
    assert names(ods(other)) == ["ods_extension"]
    for dsn in (ods_database, other):
        do(dsn, "CREATE EXTENSION citext")
    assert names(ods(ods_database)) == []
    finding = at(ods(other), "ods_locale")
    assert (finding.level, finding.where) == ("warning", "ods, source shop, table public.people")
    assert finding.what == "its key has citext: name, and the locale is C, in the ODS C.UTF-8"
    do(other, "DROP EXTENSION citext")
    assert names(ods(other)) == ["ods_extension"]


@every_version
def test_a_source_is_no_place_for_the_ods(source_database: str) -> None:
    do(source_database, "CREATE TABLE people (id int PRIMARY KEY); CREATE PUBLICATION catchment FOR TABLE people")
    source = check_source(Source("shop", source_database, "catchment", "catchment_shop"))
    findings = check_ods(source_database, {"shop": "shop"}, {"shop": source}).findings
    assert at(findings, "ods_apart").what.endswith("is also that of source shop")


def test_an_encoding_that_cannot_hold_everything_is_an_error(
    ods_cluster: Cluster, database_factory: Callable[..., str]
) -> None:
    latin = database_factory(ods_cluster, "latin", "TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    assert at(look(latin), "ods_encoding").what == "the database's encoding is LATIN1"


def test_few_free_connections_are_a_warning(private_cluster_factory: Callable[..., Cluster]) -> None:
    cluster = private_cluster_factory(max_connections=6, max_wal_senders=2)
    finding = at(look(cluster.dsn()), "ods_connections")
    assert finding.level == "warning"
    follow(cluster.dsn(), finding.remedy)
    cluster.restart()
    assert names(look(cluster.dsn())) == []


def test_an_ods_that_is_down_is_one_line() -> None:
    (finding,) = look("host=127.0.0.1 port=1", ACCOUNTS)
    assert (finding.level, finding.where) == ("error", "ods")
    assert finding.remedy == "check that the server runs and that the dsn is right"


def test_a_role_that_may_not_connect_is_one_line_about_the_ods(ods_database: str) -> None:
    (finding,) = look(make_conninfo(ods_database, user="nobody_preflight"), ACCOUNTS)
    assert finding.where == "ods"
    assert "source sql" not in str(finding)


def test_a_dsn_that_is_none_is_a_matter_of_configuration() -> None:
    with pytest.raises(ConfigError, match="not a connection string"):
        look("canary7391 = = ")
