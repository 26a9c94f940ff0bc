"""Training loaders over a snapshot, and its feature statistics. Petastorm's one home.

Shapes: B clicks of a batch, R clicks of a row group, C columns, F features.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from petastorm import make_batch_reader
from petastorm.reader import Reader
from torch import Tensor

from slidr.bundle import SMALLEST_STD, Preparation
from slidr.errors import ConfigError, InputError
from slidr.training.snapshot import Manifest, load_manifest, write_snapshot

# Petastorm 0.13.1 uses pyarrow's legacy dataset, which is deprecated at every call; both are pinned together.
warnings.filterwarnings("ignore", category=FutureWarning, module=r"petastorm\.")

__all__ = ["Manifest", "batches", "feature_statistics", "load_manifest", "steps", "write_snapshot"]

Batch = tuple[Tensor, Tensor, Tensor]
Step = dict[int, Batch]  # by lane


def steps(manifest: Manifest, lanes: Sequence[int], *, batch_size: int, seed: int, epoch: int) -> Iterator[Step]:
    """One epoch of some lanes: as many steps as the whole snapshot has, each with the batches of the lanes that still have clicks.

    Every lane reads for itself, in an order of its own by seed and epoch, so its batches are the same whoever reads the others.
    """
    batch_of = {lane: batches(manifest, lane, rows=manifest.share(batch_size), seed=seed, epoch=epoch) for lane in lanes}
    for _ in range(manifest.steps(batch_size)):
        step = {lane: next(lane_batches, None) for lane, lane_batches in batch_of.items()}
        yield {lane: batch for lane, batch in step.items() if batch is not None}
    for lane_batches in batch_of.values():
        next(lane_batches, None)  # past its last batch: there it checks that every row was read


def batches(manifest: Manifest, lane: int, *, rows: int, seed: int, epoch: int) -> Iterator[Batch]:
    """One epoch of a lane in batches of `rows` clicks: raw features x_BF (NaN for NULL), label y_B, weight w_B, float32.

    Row groups come in random order and rows are shuffled within; the last batch may be smaller. Raises InputError where
    the rows read are not the manifest's.
    """
    if seed < 1:
        raise ConfigError(f"expected a seed of at least 1, found {seed}: petastorm takes 0 for no seed; set training.seed")
    rest_CR = np.empty((len(manifest.columns), 0), dtype=np.float32)
    for group_CR in _row_groups(manifest, lane, seed=seed + epoch * manifest.lanes + lane):
        rest_CR = np.concatenate([rest_CR, group_CR], axis=1)
        whole = rest_CR.shape[1] - rest_CR.shape[1] % rows
        for start in range(0, whole, rows):
            yield _tensors(rest_CR[:, start : start + rows])
        rest_CR = rest_CR[:, whole:]
    if rest_CR.shape[1]:
        yield _tensors(rest_CR)


def feature_statistics(manifest: Manifest, preparation: Preparation) -> Preparation:
    """The preparation with mean and std of the snapshot's filled, log-scaled features, unweighted; constant features get std 1.

    One pass in float64 in the order of the lanes, so equal snapshots give equal digits.
    """
    log_F, fill_F = np.array(preparation.log), np.array(preparation.fill)
    rows, mean_F, square_F = 0, np.zeros(len(log_F)), np.zeros(len(log_F))
    for group_CR in (group_CR for lane in range(manifest.lanes) for group_CR in _row_groups(manifest, lane, seed=None)):
        x_RF = group_CR[:-2].T.astype(np.float64, order="C")
        x_RF = np.where(np.isnan(x_RF), fill_F, x_RF)
        x_RF = np.where(log_F, np.log1p(np.where(log_F, x_RF, 0.0)), x_RF)
        # Chan's update: squares are summed around the mean, so nothing cancels.
        delta_F = x_RF.mean(axis=0) - mean_F
        square_F += ((x_RF - x_RF.mean(axis=0)) ** 2).sum(axis=0) + delta_F**2 * rows * len(x_RF) / (rows + len(x_RF))
        rows += len(x_RF)
        mean_F += delta_F * len(x_RF) / rows
    std_F = np.sqrt(square_F / rows)
    std_F = np.where(std_F < SMALLEST_STD, 1.0, std_F)
    return replace(preparation, mean=tuple(mean_F.tolist()), std=tuple(std_F.tolist()))


def _row_groups(manifest: Manifest, lane: int, *, seed: int | None) -> Iterator[NDArray[np.float32]]:
    """Each row group of a lane once as float32 (C, R); in random order, its rows too, where a seed is given."""
    rows = 0
    with _reader(manifest, lane, seed) as reader:
        for group in reader:
            group_CR = np.stack([getattr(group, name) for name in manifest.columns])
            if group_CR.dtype != np.float32:
                raise InputError(f"expected float32 columns in the snapshot {manifest.folder}, found {group_CR.dtype}; train again")
            rows += group_CR.shape[1]
            yield group_CR
    if rows != manifest.lane_rows(lane):
        raise InputError(
            f"expected {manifest.lane_rows(lane)} rows in lane {lane} of the snapshot {manifest.folder}, read {rows}; "
            "its files changed: train again"
        )


@contextmanager
def _reader(manifest: Manifest, lane: int, seed: int | None) -> Iterator[Reader]:
    # The dummy pool reads in this thread. Petastorm 0.13.1's thread pool tests "all workers are idle" before "all work was
    # handed out", so it ends early now and then and drops row groups without an error. One reader per epoch: it shuffles once.
    urls = [f"file://{Path(manifest.folder, file.path).absolute()}" for file in manifest.lane(lane)]
    shuffle = seed is not None
    try:
        reader = make_batch_reader(
            urls,
            schema_fields=[f"^{name}$" for name in manifest.columns],
            reader_pool_type="dummy",
            shuffle_row_groups=shuffle,
            shuffle_rows=shuffle,
            seed=seed,
            num_epochs=1,
        )
        try:
            yield reader
        finally:  # not `with reader`: its exit prints to stdout, which belongs to --json
            reader.stop()
            reader.join()
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"expected readable files in the snapshot {manifest.folder}: {error}; delete the folder and train again"
        ) from error


def _tensors(batch_CB: NDArray[np.float32]) -> Batch:
    # Transposed batch by batch: that stays in the cache, a whole row group does not.
    return (
        torch.from_numpy(np.ascontiguousarray(batch_CB[:-2].T)),
        torch.from_numpy(batch_CB[-2].copy()),
        torch.from_numpy(batch_CB[-1].copy()),
    )
