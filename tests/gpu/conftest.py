"""A session that knows the machine's GPUs, for `pytest tests/gpu` by itself: a session that exists already is used as it is."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pyspark.sql import SparkSession

from slidr import config, session
from tests.conftest import CHEAP

DISCOVER = Path(__file__).parents[2] / "conf" / "discover_gpus.sh"


@pytest.fixture(scope="session")
def spark(conf: config.Config) -> Iterator[SparkSession]:
    gpus = {
        "spark.driver.resource.gpu.amount": str(torch.cuda.device_count()),
        "spark.driver.resource.gpu.discoveryScript": str(DISCOVER),
    }
    spark = session.build(conf.spark.model_copy(update={"settings": {**CHEAP, **gpus}}), app="slidr-gpu-tests")
    yield spark
    spark.stop()
