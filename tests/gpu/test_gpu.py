"""What only a GPU can show; runs by itself where there is one: pytest tests/gpu"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pyspark.sql import SparkSession

from tests.test_distributed import lesson, trained

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")


def test_a_gpu_learns_what_the_cpu_learns(spark: SparkSession, tmp_path: Path) -> None:
    """bfloat16 in the forward pass: close, not equal."""
    given = lesson(tmp_path, epochs=6)
    _, on_cpu = trained(given, spark, "driver", 1)
    _, on_gpu = trained(replace(given, device="gpu", folder=str(tmp_path / "gpu")), spark, "driver", 1)
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=0.05)


def test_a_gpu_repeats_itself(spark: SparkSession, tmp_path: Path) -> None:
    given = replace(lesson(tmp_path), device="gpu")
    first, _ = trained(given, spark, "driver", 1)
    second, _ = trained(replace(given, folder=str(tmp_path / "again")), spark, "driver", 1)
    assert all(one.tobytes() == other.tobytes() for one, other in zip(first, second, strict=True))
