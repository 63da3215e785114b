"""The one Spark session of a process, with Delta and with local settings that do not cost seconds a commit.

Here: how a session is built. Not here: tables (lake.py), queries (sql/lake/), the environment (dagster_project/settings.py).
pyspark is imported inside functions: Dagster and Streamlit import this module and must load in seconds.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

JAR_DIR = Path(sys.prefix) / "share" / "glasshouse" / "jars"
LOGGING = Path(__file__).with_name("spark-log4j2.properties")
DELTA_COORDINATE = "io.delta:delta-spark_2.13:4.0.0"


@dataclass(frozen=True)
class SparkSettings:
    """How to reach Spark.

    master: any Spark master URL; `local[2]` by default.
    delta: `jar` (the slim jar made at set-up), `maven` (fetched by coordinate) or `provided` (the cluster has its own).
    memory: heap of the driver, which locally is the only JVM.
    conf: further Spark settings, taken last.
    """

    master: str = "local[2]"
    delta: str = "jar"
    memory: str = "3g"
    conf: dict[str, str] = field(default_factory=dict)


def _delta_conf(how: str) -> dict[str, str]:
    if how == "provided":
        return {}
    if how == "maven":
        return {"spark.jars.packages": DELTA_COORDINATE}
    jars = sorted(JAR_DIR.glob("delta-spark_*.jar"))
    if not jars:
        raise FileNotFoundError(
            f"no Delta jar in {JAR_DIR}: run `make setup`, or set GLASSHOUSE_SPARK_DELTA=maven (or =provided)"
        )
    # extraClassPath rather than spark.jars: local executors share the driver's class loader.
    path = str(jars[-1])
    return {"spark.driver.extraClassPath": path, "spark.executor.extraClassPath": path}


def get_spark(settings: SparkSettings | None = None) -> SparkSession:
    """Return this process's session, starting it (about 6 s) the first time.

    Raises FileNotFoundError where the Delta jar has not been made; the message names the ways out.
    """
    from pyspark.sql import SparkSession

    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    settings = settings or SparkSettings()
    # Executors of a local cluster look the driver up by host name, which a closed machine may not resolve.
    if settings.master.startswith("local"):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    # Executor processes of a local cluster start elsewhere; on a real one the project is installed.
    local = {
        "spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1",
        "spark.executorEnv.PYTHONPATH": str(Path(__file__).resolve().parent.parent),
    }  # fmt: skip
    conf = {
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.session.timeZone": "UTC",
        "spark.driver.memory": settings.memory,
        # Defaults made for clusters: 200 shuffle partitions and 50 snapshot partitions cost seconds per commit here.
        "spark.sql.shuffle.partitions": "4",
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        # Errors only, and none of the lines that Spark prints where it finds no configuration of log4j.
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile=file://{LOGGING}",
        **(local if settings.master.startswith("local") else {}),
        **_delta_conf(settings.delta),
        **settings.conf,
    }
    builder = SparkSession.builder.master(settings.master).appName("glasshouse")
    for key, value in conf.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()
