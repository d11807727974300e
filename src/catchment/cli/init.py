"""``catchment init``: a catchment.toml to fill in."""

from __future__ import annotations

import os
import shlex

import typer

from catchment.cli.entry import DEFAULT_CONFIG, Config
from catchment.model.errors import ConfigError

_TEMPLATE = """\
# What Catchment collects, and where it goes. All settings: docs/reference/configuration.md
#
# A dsn is anything libpq takes: "host=… dbname=… user=…", "service=orders" or a postgresql:// URI. Keep passwords out
# of this file: ${NAME} takes one from the environment and quotes it; ~/.pgpass and service files work too.

# One section for each database. Its owners run, once, what `catchment source sql orders` prints.
[[source]]
name = "orders"                    # its tables land in this schema of the ODS
dsn = "host=orders-db.example dbname=orders user=catchment"    # fill in; with a password: … password=${ORDERS_PASSWORD}
# publication = "catchment"        # which tables, columns and rows its owners share
# slot = "catchment_orders"        # its replication slot
# backfill_readers = 2             # how many read a large table at the same time

# [[source]]
# name = "payments"
# dsn = "service=payments"

# The ODS: one PostgreSQL (15 or newer) where the tables of all sources stand side by side.
[ods]
dsn = "host=warehouse.example dbname=ods user=catchment"       # fill in; its user needs CREATE on that database

# Delta tables of what every source has, and of every change: for Spark, DuckDB, Polars and whatever reads Delta.
# [lake]
# uri = "file:///data/lake"        # or s3://bucket/prefix, gs://…, az://…
# keep = "7d"                      # for so long earlier frontiers can be read
# [lake.columns]                   # types for numeric columns that have none, or too large a one
# "orders.public.accounts.balance" = "decimal(38,10)"

# Every change as a JSON line, one file for each source.
# [[feed]]
# path = "feed/{source}.jsonl"

# [hub]
# state = "var"                    # logs and status; on a local disk, beside this file; one hub each

# [log]
# max_bytes = 10737418240          # kept for each source; a target further behind is refilled later

# [metrics]
# listen = "127.0.0.1:9187"        # /metrics for Prometheus, /livez, /readyz
"""


def init(config: Config = DEFAULT_CONFIG) -> None:
    """Write a commented catchment.toml to fill in.

    Never overwrites one. It ends by saying what comes next.

    Example: catchment init --config /etc/catchment/catchment.toml
    """
    try:
        with config.open("x", encoding="utf-8") as file:
            file.write(_TEMPLATE)
    except FileExistsError:
        remedy = "edit it, or name another with --config"
        raise ConfigError(f"{config} exists already, and stays as it is", remedy=remedy) from None
    except OSError as error:
        raise ConfigError(f"cannot write {config}: {error.strerror}", remedy="name another with --config") from None
    taken = os.environ.get("CATCHMENT_CONFIG", str(DEFAULT_CONFIG)) == str(config)
    named = "" if taken else f" --config {shlex.quote(str(config))}"
    typer.echo(f"wrote {config}. What comes next:")
    typer.echo("  1. Fill in both dsns, and name the source as you like.")
    typer.echo(f"  2. catchment source sql orders{named}    the SQL that the source's owners run once")
    typer.echo(f"  3. catchment check{named}    what stands in the way, each with its remedy")
    typer.echo(f"  4. catchment run{named}")
