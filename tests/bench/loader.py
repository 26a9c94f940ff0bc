"""What the training loader costs: python -m tests.bench.loader [--rows 1000000]

One pass over the same files by the loader and by a plain loop of pyarrow and torch (row groups in random order, rows permuted,
batches of one float32 tensor), in turns in this process, so both in the Arrow memory that the loader chooses; wall time with torch on
one thread, median of 7 after a warm pass.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from slidr.training.data import Batch, steps
from slidr.training.snapshot import Manifest
from tests.test_training import local_snapshot

BATCH, FEATURES, GROUP = 4096, 45, 65_536


def plain(manifest: Manifest, seed: int) -> Iterator[Batch]:
    random = np.random.default_rng(seed)
    for number in random.permutation(len(manifest.files)):
        table = pq.ParquetFile(Path(manifest.folder, manifest.files[number].path)).read(use_threads=False)
        group_CR = np.stack([column.to_numpy() for column in table.columns])
        group_RC = np.ascontiguousarray(group_CR.T)[random.permutation(table.num_rows)]
        for start in range(0, table.num_rows, BATCH):
            batch = torch.from_numpy(group_RC[start : start + BATCH])
            yield batch[:, :-2], batch[:, -2], batch[:, -1]


def ours(manifest: Manifest, seed: int) -> Iterator[Batch]:
    for step in steps(manifest, range(manifest.lanes), batch_size=BATCH, seed=seed, epoch=0):
        yield from step.values()


def seconds(batches: Iterator[Batch], rows: int) -> float:
    start = time.perf_counter()
    read = sum(len(y_B) for _, y_B, _ in batches)
    assert read == rows, f"expected {rows} rows, read {read}"
    return time.perf_counter() - start


def random_table(number: int, rows: int) -> pa.Table:
    random = np.random.default_rng(number)
    names = [*(f"f{n}" for n in range(FEATURES)), "label", "weight"]
    return pa.table({name: random.integers(0, 500, rows).astype(np.float32) for name in names})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        names = [f"f{n}" for n in range(FEATURES)]
        groups = [GROUP] * (rows // GROUP)
        manifest = local_snapshot(Path(folder) / "snapshot", groups, lanes=8, table=random_table, features=names)
        taken: dict[str, list[float]] = {"plain": [], "loader": []}
        for turn in range(8):
            taken["plain"].append(seconds(plain(manifest, turn), manifest.rows))
            taken["loader"].append(seconds(ours(manifest, turn + 1), manifest.rows))
    median = {name: statistics.median(times[1:]) for name, times in taken.items()}
    for name, value in median.items():
        print(f"{name}: {manifest.rows / value / 1e6:.2f} million rows a second")
    print(f"loader / plain throughput: {median['plain'] / median['loader']:.2f}")


if __name__ == "__main__":
    main()
