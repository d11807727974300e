"""Reads Delta tables with one engine, in a process and with packages of its own: counts, sums and texts as JSON.

``python engines.py spark|duckdb DIRECTORY`` takes from standard input what to read: for each name a table's directory,
its version and an expression to sum up. DIRECTORY: where the engine's own downloads are kept.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

Asked = dict[str, dict[str, Any]]


def spark(asked: Asked, directory: Path) -> dict[str, list[Any]]:
    from delta import configure_spark_with_delta_pip
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[1]").config("spark.jars.ivy", str(directory / "ivy"))
    for name, value in {
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "1",
        "spark.databricks.delta.snapshotPartitions": "1",  # of 50 tasks for each log
        "spark.ui.enabled": "false",
        "spark.driver.memory": "700m",
        "spark.driver.host": "127.0.0.1",
    }.items():
        builder = builder.config(name, value)
    session = configure_spark_with_delta_pip(builder).getOrCreate()
    found = {}
    for name, each in asked.items():
        table = session.read.format("delta").option("versionAsOf", each["version"]).load(each["path"])
        (row,) = table.selectExpr("count(*)", f"cast({each['sum']} as string)").collect()
        found[name] = list(row)
    session.stop()
    return found


def duckdb(asked: Asked, directory: Path) -> dict[str, list[Any]]:
    import duckdb
    import duckdb_extension_delta

    (extension,) = Path(duckdb_extension_delta.__file__).parent.rglob("delta.duckdb_extension")
    connection = duckdb.connect(config={"extension_directory": str(directory / "duckdb")})
    connection.execute(f"LOAD '{extension}'")
    connection.execute("SET TimeZone = 'UTC'")
    return {
        name: list(
            connection.execute(f"SELECT count(*), ({each['sum']})::text FROM delta_scan('{each['path']}')").fetchone()
            or ()
        )
        for name, each in asked.items()
    }


if __name__ == "__main__":
    engine = {"spark": spark, "duckdb": duckdb}[sys.argv[1]]
    print(json.dumps(engine(json.load(sys.stdin), Path(sys.argv[2]))))
