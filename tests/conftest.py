"""One Spark session for all tests: two cores, UTC, few partitions, cheap Delta operations."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from slidr import config, session
from slidr.lake import Lake
from tests import worlds
from tests.faults.summary import pytest_collection_modifyitems, pytest_terminal_summary  # noqa: F401  (hooks; a line under the results)

CHEAP = {
    # Tiny frames: compiling a query costs more than running it.
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.ui.retainedExecutions": "1",
    "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -Duser.timezone=UTC",
    "spark.sql.warehouse.dir": "/nonexistent",
}


@pytest.fixture(scope="session")
def conf() -> config.Config:
    return config.load(config.shipped("local.yaml"), ("spark.shuffle_partitions=2", "spark.driver_memory=2g"))


@pytest.fixture(scope="session")
def spark(conf: config.Config) -> Iterator[SparkSession]:
    settings = conf.spark.model_copy(update={"settings": CHEAP})
    spark = session.build(settings, app="slidr-tests")
    yield spark
    spark.stop()


@pytest.fixture
def lake(spark: SparkSession, tmp_path: Path) -> Lake:
    return Lake(spark, str(tmp_path / "lake"))


@pytest.fixture(scope="session")
def loose(conf: config.Config) -> config.Config:
    return worlds.loose(conf)


@pytest.fixture(scope="session")
def template(spark: SparkSession, loose: config.Config, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Root of a filled lake of `tests.worlds`, to be copied."""
    root = str(tmp_path_factory.mktemp("template") / "lake")
    worlds.fill(Lake(spark, root), loose)
    return root


@pytest.fixture
def world(template: str, spark: SparkSession, tmp_path: Path) -> Lake:
    return worlds.copy_of(template, spark, str(tmp_path / "lake"))
