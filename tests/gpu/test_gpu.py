"""What only a GPU can show; runs by itself where there is one: pytest tests/gpu"""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pyspark.sql import SparkSession

from tests.test_distributed import kill_a_worker, lesson, trained

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


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_of_one_machine_take_a_gpu_each(spark: SparkSession, tmp_path: Path, workers: int) -> None:
    """TorchDistributor and nccl; with one GPU for two processes nccl would refuse."""
    if torch.cuda.device_count() < workers:
        pytest.skip(f"fewer than {workers} GPUs")
    given = replace(lesson(tmp_path, epochs=6), device="gpu")
    _, alone = trained(given, spark, "driver", 1)
    _, losses = trained(replace(given, folder=str(tmp_path / "workers")), spark, "local", workers)
    np.testing.assert_allclose(losses, alone, rtol=1e-3)


def test_a_killed_gpu_worker_is_made_good(spark: SparkSession, tmp_path: Path) -> None:
    """With one GPU the only worker is killed, with more the second."""
    workers = min(torch.cuda.device_count(), 2)
    given = replace(lesson(tmp_path, rows=20_000, epochs=8), device="gpu")
    _, alone = trained(given, spark, "driver", 1)
    watched = replace(given, folder=str(tmp_path / "watched"))
    killed: list[int] = []
    killer = threading.Thread(target=kill_a_worker, args=(Path(watched.folder), killed), kwargs={"rank": workers - 1})
    killer.start()
    _, losses = trained(watched, spark, "local", workers, restarts=2)
    killer.join()
    assert len(killed) == 1
    np.testing.assert_allclose(losses, alone, rtol=1e-3)
