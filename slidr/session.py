"""The one place that builds a SparkSession: Delta, UTC, sane defaults.

A session that exists already is used as it is, after a check that it has Delta.
"""

import os
import sys
import time

from pyspark.sql import SparkSession

from slidr import jars, redaction
from slidr.config import SparkConf
from slidr.errors import SetupError

DELTA_SETTINGS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
}
# Tasks of the counters exchange few large values: a batch of all of them would not fit the memory.
BATCH_BYTES = {"spark.sql.execution.arrow.maxBytesPerBatch": str(32 << 20)}
DEFAULTS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.adaptive.enabled": "true",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "50000",
    **BATCH_BYTES,
    # A side of a join whose parts are small is hashed, not sorted: clicks with scores take a tenth less.
    "spark.sql.adaptive.maxShuffledHashJoinLocalMapThreshold": str(64 << 20),
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.redaction.regex": redaction.SPARK,  # its own default lets account keys through
    "spark.executorEnv.TZ": "UTC",
    "spark.executorEnv.OMP_NUM_THREADS": "1",
    "spark.executorEnv.OPENBLAS_NUM_THREADS": "1",
}


def build(conf: SparkConf, app: str = "slidr", log: str = "OFF") -> SparkSession:
    """A session by the settings; under spark-submit its master, memory and jars win. Raises SetupError without Delta.

    `log` is Spark's own level: what went wrong is told by the command that failed, in one line, without Spark's traces before it."""
    use_utc()
    active = SparkSession.getActiveSession()
    if active:
        return _ready(active)
    builder = SparkSession.builder.appName(app)
    if "PYSPARK_GATEWAY_PORT" not in os.environ:  # not under spark-submit: nobody else chose these
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        builder = builder.master(conf.master).config("spark.driver.memory", conf.driver_memory)
        builder = builder.config("spark.jars", ",".join(str(path) for path in jars.ensure(conf.jars)))
        builder = builder.config("spark.ui.enabled", "false").config("spark.log.level", log)
        builder = builder.config("spark.driver.extraJavaOptions", "-Duser.timezone=UTC")
    builder = builder.config("spark.sql.shuffle.partitions", str(conf.shuffle_partitions))
    for key, value in {**DELTA_SETTINGS, **DEFAULTS, **conf.settings}.items():
        builder = builder.config(key, value)
    return _ready(builder.getOrCreate())


def use_utc() -> None:
    """Makes this process UTC, whatever the host's zone: PySpark converts timestamps by the process's zone."""
    os.environ["TZ"] = "UTC"
    time.tzset()


def _ready(spark: SparkSession) -> SparkSession:
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    for key, value in BATCH_BYTES.items():
        spark.conf.set(key, value)
    if "DeltaSparkSessionExtension" not in (spark.conf.get("spark.sql.extensions", "") or "") or not _has_delta(spark):
        raise SetupError(
            "expected a Spark session with Delta, found one without; start it with "
            '`--jars "$(slidr doctor --jars)"` and the settings of docs/cluster.md'
        )
    return spark


def _has_delta(spark: SparkSession) -> bool:
    loader = spark._jvm.Thread.currentThread().getContextClassLoader()  # type: ignore[union-attr]
    try:
        loader.loadClass("io.delta.sql.DeltaSparkSessionExtension")
    except Exception as error:
        if "ClassNotFoundException" in str(error):
            return False
        raise
    return True
