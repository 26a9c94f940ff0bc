"""Workers: any number of them, wherever they run, ends with the same weights; a lost one is made good; lacks are told at once."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from slidr.errors import GuardrailError, SetupError
from slidr.training import distributed
from slidr.training.distributed import Lesson, Place
from tests.test_bundle import FEATURES, raw_features
from tests.test_training import PREPARATION, local_snapshot

Layers = list[np.ndarray]


def lesson(folder: Path, *, rows: int = 600, epochs: int = 3) -> Lesson:
    """Clicks that the number of clicks of the last hour separates, in four lanes of a snapshot."""
    snapshot = folder / "snapshot"
    if not snapshot.exists():
        local_snapshot(snapshot, [rows] * 4, lanes=4, table=separable)
    return Lesson(
        snapshot=str(snapshot),
        folder=str(folder / "progress"),
        preparation=asdict(PREPARATION),
        hidden=(16, 8),
        batch_size=256,
        epochs=epochs,
        learning_rate=0.01,
        l2=0.001,
        seed=7,
        device="cpu",
        timeout_minutes=1,
    )


def separable(number: int, rows: int) -> pa.Table:
    x_BF = raw_features(rows, seed=number + 1).astype(np.float32)
    label = (np.nan_to_num(x_BF[:, 0]) > 15).astype(np.float32)
    columns = dict(zip(FEATURES, x_BF.T, strict=True))
    return pa.table({**columns, "label": label, "weight": 0.5 + np.arange(rows, dtype=np.float32) / rows})


def trained(given: Lesson, spark: SparkSession, place: Place, workers: int, restarts: int = 0) -> tuple[Layers, list[float]]:
    told: list[tuple[int, float]] = []
    layers, history = distributed.train(
        given, spark, place=place, workers=workers, restarts=restarts, say=lambda epoch, loss: told.append((epoch, loss))
    )
    assert told == list(enumerate(history))
    return [part for layer in layers for part in layer], history


def equal(one: Layers, other: Layers) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


def test_two_workers_end_with_the_weights_of_one_process(spark: SparkSession, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    given = lesson(tmp_path)
    alone, losses = trained(given, spark, "driver", 1)
    assert losses[-1] < 0.8 * losses[0]
    capfd.readouterr()
    two, again = trained(replace(given, folder=str(tmp_path / "two")), spark, "local", 2)
    assert equal(alone, two)
    assert losses == again
    assert capfd.readouterr().out == ""  # stdout belongs to --json


@pytest.mark.slow
@pytest.mark.parametrize(("place", "workers"), [("local", 1), ("local", 4), ("cluster", 1), ("cluster", 2)])
def test_any_workers_end_with_the_same_weights(spark: SparkSession, tmp_path: Path, place: Place, workers: int) -> None:
    given = lesson(tmp_path)
    alone, losses = trained(given, spark, "driver", 1)
    other, again = trained(replace(given, folder=str(tmp_path / "other")), spark, place, workers)
    assert equal(alone, other)
    assert losses == again


@pytest.mark.slow
@pytest.mark.parametrize("place", ["local", "cluster"])
def test_a_killed_worker_is_made_good(spark: SparkSession, tmp_path: Path, place: Place) -> None:
    given = lesson(tmp_path, rows=20_000, epochs=8)
    alone, losses = trained(given, spark, "driver", 1)
    watched = replace(given, folder=str(tmp_path / "watched"))
    killed: list[int] = []
    killer = threading.Thread(target=kill_a_worker, args=(Path(watched.folder), killed))
    killer.start()
    other, again = trained(watched, spark, place, 2, restarts=2)
    killer.join()
    assert len(killed) == 1
    assert equal(alone, other)
    assert losses == again


def kill_a_worker(folder: Path, killed: list[int], rank: int = 1) -> None:
    """kill -9 of a worker once an epoch is kept."""
    ends = time.monotonic() + 200
    while time.monotonic() < ends and not killed:
        if (folder / "progress.safetensors").exists():
            for pid in workers_of(rank):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
        time.sleep(0.05)


def workers_of(rank: int) -> Iterator[int]:
    """Processes that torchrun started as this rank."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment = (path / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"RANK={rank}".encode() in environment and any(item.startswith(b"TORCHELASTIC_RUN_ID=") for item in environment):
            yield int(path.name)


@pytest.mark.slow
def test_what_a_worker_finds_wrong_is_told_as_it_is_and_not_tried_again(spark: SparkSession, tmp_path: Path) -> None:
    def infinite(number: int, rows: int) -> pa.Table:
        table = separable(number, rows)
        return table.set_column(0, table.schema[0], pa.array(np.full(rows, np.inf, dtype=np.float32)))

    local_snapshot(tmp_path / "snapshot", [50, 50], lanes=2, table=infinite)
    with pytest.raises(GuardrailError, match="expected a finite training loss"):
        trained(lesson(tmp_path), spark, "local", 2, restarts=2)


def test_lacks_are_told_before_anything_starts(spark: SparkSession, tmp_path: Path) -> None:
    given = lesson(tmp_path)
    started = time.monotonic()
    with pytest.raises(SetupError, match="3 slots at once .* found 2; see conf/gpu.yaml"):
        trained(given, spark, "cluster", 3)
    with pytest.raises(SetupError, match=r"spark.task.resource.gpu.amount, found it unset"):
        trained(replace(given, device="gpu"), spark, "cluster", 1)
    with pytest.raises(SetupError, match=r"spark.driver.resource.gpu.amount, found it unset"):
        trained(replace(given, device="gpu"), spark, "local", 1)
    with pytest.raises(SetupError, match="expected a GPU that torch can use on the driver, found none"):
        trained(replace(given, device="gpu"), spark, "driver", 1)
    assert time.monotonic() - started < 5
    assert not Path(given.folder).exists()
