"""Training loaders over a snapshot, and its feature statistics. Petastorm's one home.

Shapes: B clicks of a batch, R clicks of a row group, C columns, F features.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from petastorm import make_batch_reader
from petastorm.etl import dataset_metadata
from petastorm.reader import Reader
from pyarrow.filesystem import LocalFileSystem
from torch import Tensor

from slidr.bundle import SMALLEST_STD, Preparation
from slidr.errors import ConfigError, InputError
from slidr.training.snapshot import Manifest, load_manifest, write_snapshot

# Petastorm 0.13.1 uses pyarrow's legacy dataset, which is deprecated at every call; both are pinned together.
warnings.filterwarnings("ignore", category=FutureWarning, module=r"petastorm\.")
# A row group is read, shuffled and copied in arrays of megabytes that soon are free again. Arrow's default, jemalloc, and glibc give
# most of their pages back to the system and take them anew, which is a third of a pass; mimalloc keeps them for the next.
with suppress(NotImplementedError):  # a build of pyarrow without mimalloc
    pa.set_memory_pool(pa.mimalloc_memory_pool())


def _no_schema(_pickled: bytes) -> NoReturn:
    raise dataset_metadata.PetastormMetadataError("slidr reads no pickle")


# Petastorm unpickles a schema that it finds in `_common_metadata`, and what it allows there (builtins) runs anything; snapshots have none.
dataset_metadata.depickle_legacy_package_name_compatible = _no_schema


class _LocalFiles(LocalFileSystem):  # type: ignore[misc] # pyarrow has no types
    """Petastorm's file system of local files, but the files it opens are Arrow's, not Python's.

    Arrow's threads let go of a file after the rows are there. To let go of one of Python's they need the interpreter; a process that
    ended meanwhile was aborted ("terminate called without an active exception").
    """

    def __init__(self) -> None:
        pass  # the class that both pins share only warns there that it is deprecated

    def open(self, path: str, mode: str = "rb") -> pa.NativeFile:
        return pa.OSFile(path, mode)


__all__ = ["Manifest", "feature_statistics", "load_manifest", "steps", "write_snapshot"]

Batch = tuple[Tensor, Tensor, Tensor]
Step = dict[int, Batch]  # by lane
Columns = list[NDArray[np.float32]]  # of a row group, one array (R,) for each column of the manifest


def steps(manifest: Manifest, lanes: Sequence[int], *, batch_size: int, seed: int, epoch: int) -> Iterator[Step]:
    """One epoch of some lanes: as many steps as the whole snapshot has, each with the batches of the lanes that still have clicks.

    A batch is raw features x_BF (NaN for NULL), label y_B, weight w_B, float32. Every lane reads for itself, row groups and
    their rows in an order of its own by seed and epoch, so its batches are the same whoever reads the others. Raises
    InputError where the rows read are not the manifest's.
    """
    if seed < 1:
        raise ConfigError(f"expected a seed of at least 1, found {seed}: petastorm takes 0 for no seed; set training.seed")
    seeds = {lane: seed + epoch * manifest.lanes + lane for lane in lanes}
    with ExitStack() as stack:
        # All are opened before the first is read: a reader that is asked at once sleeps until its thread has started.
        readers = {lane: stack.enter_context(_reader(manifest, lane, seeds[lane])) for lane in lanes}
        share = manifest.share(batch_size)
        batch_of = {lane: _batches(_row_groups(manifest, lane, readers[lane]), share) for lane in lanes}
        for _ in range(manifest.steps(batch_size)):
            step = {lane: next(batches, None) for lane, batches in batch_of.items()}
            yield {lane: batch for lane, batch in step.items() if batch is not None}
        for batches in batch_of.values():
            next(batches, None)  # past its last batch: there it checks that every row was read


def _batches(columns_of_groups: Iterator[Columns], rows: int) -> Iterator[Batch]:
    """Batches of `rows` clicks in the order of the groups; the last batch may be smaller. They are views of columns: no row is ever
    put together."""
    rest_CR: NDArray[np.float32] | None = None
    for columns in columns_of_groups:
        left = 0 if rest_CR is None else rest_CR.shape[1]
        group_CR = _empty(len(columns), left + len(columns[0]))
        if rest_CR is not None:
            group_CR[:, :left] = rest_CR
        for copy, column in zip(group_CR, columns, strict=True):
            copy[left:] = column
        whole = group_CR.shape[1] - group_CR.shape[1] % rows
        for start in range(0, whole, rows):
            yield _tensors(group_CR[:, start : start + rows])
        rest_CR = group_CR[:, whole:]
    if rest_CR is not None and rest_CR.shape[1]:
        yield _tensors(rest_CR)


def _empty(columns: int, rows: int) -> NDArray[np.float32]:
    """An array (columns, rows) in Arrow's memory, where what is read is freed all the time; its values are arbitrary."""
    size = columns * rows * np.dtype(np.float32).itemsize
    return np.frombuffer(pa.allocate_buffer(size), dtype=np.float32).reshape(columns, rows)


def feature_statistics(manifest: Manifest, preparation: Preparation) -> Preparation:
    """The preparation with mean and std of the snapshot's filled, log-scaled features, and `human`, unweighted. Constant features get
    std 1; without human clicks `human` stays as it is.

    One pass in float64 in the order of the lanes, so equal snapshots give equal digits.
    """
    log_F, fill_F = np.array(preparation.log), np.array(preparation.fill)
    flagged = [preparation.names.index(name) for name in preparation.flags]
    rows, mean_F, square_F = 0, np.zeros(len(log_F)), np.zeros(len(log_F))
    humans, human_I = 0, np.zeros(preparation.inputs)
    for columns in _all_row_groups(manifest):
        x_RF = np.column_stack(columns[:-2]).astype(np.float64)
        missing_RF = np.isnan(x_RF)
        x_RF = np.where(missing_RF, fill_F, x_RF)
        x_RF = np.where(log_F, np.log1p(np.where(log_F, x_RF, 0.0)), x_RF)
        # Chan's update: squares are summed around the mean, so nothing cancels.
        delta_F = x_RF.mean(axis=0) - mean_F
        square_F += ((x_RF - x_RF.mean(axis=0)) ** 2).sum(axis=0) + delta_F**2 * rows * len(x_RF) / (rows + len(x_RF))
        rows += len(x_RF)
        mean_F += delta_F * len(x_RF) / rows
        human_R = columns[-2] == 0
        humans += int(human_R.sum())
        human_I += np.concatenate([x_RF, missing_RF[:, flagged]], axis=1)[human_R].sum(axis=0)
    std_F = np.sqrt(square_F / rows)
    std_F = np.where(std_F < SMALLEST_STD, 1.0, std_F)
    human = tuple((human_I / humans).tolist()) if humans else preparation.human
    return replace(preparation, mean=tuple(mean_F.tolist()), std=tuple(std_F.tolist()), human=human)


def _all_row_groups(manifest: Manifest) -> Iterator[Columns]:
    """Each row group once, lane by lane, in the order of the manifest."""
    for lane in range(manifest.lanes):
        with _reader(manifest, lane, None) as reader:
            yield from _row_groups(manifest, lane, reader)


def _row_groups(manifest: Manifest, lane: int, reader: Reader) -> Iterator[Columns]:
    """Each row group of a lane once, in the reader's order."""
    rows = 0
    with _retold(manifest):
        for group in reader:
            columns = [getattr(group, name) for name in manifest.columns]
            others = {str(column.dtype) for column in columns if column.dtype != np.float32}
            if others:
                raise InputError(f"expected float32 columns in the snapshot {manifest.folder}, found {', '.join(others)}; train again")
            rows += len(columns[0])
            yield columns
    if rows != manifest.lane_rows(lane):
        raise InputError(
            f"expected {manifest.lane_rows(lane)} rows in lane {lane} of the snapshot {manifest.folder}, read {rows}; "
            "its files changed: train again"
        )


@contextmanager
def _reader(manifest: Manifest, lane: int, seed: int | None) -> Iterator[Reader]:
    # The dummy pool reads in this thread. Petastorm 0.13.1's thread pool tests "all workers are idle" before "all work was
    # handed out", so it ends early now and then and drops row groups without an error. One reader per epoch: it shuffles once.
    # It gathers the rows of a group in any case, so it may as well do so in random order.
    urls = [f"file://{Path(manifest.folder, file.path).absolute()}" for file in manifest.lane(lane)]
    with _retold(manifest):
        reader = make_batch_reader(
            urls,
            reader_pool_type="dummy",
            shuffle_row_groups=seed is not None,
            shuffle_rows=seed is not None,
            seed=seed,
            num_epochs=1,
            filesystem=_LocalFiles(),
        )
    try:
        yield reader
    finally:  # not `with reader`: its exit prints to stdout, which belongs to --json
        reader.stop()
        reader.join()


@contextmanager
def _retold(manifest: Manifest) -> Iterator[None]:
    """What is wrong with a file, as an InputError."""
    try:
        yield
    except (OSError, pa.ArrowException, dataset_metadata.PetastormMetadataError) as error:
        raise InputError(
            f"expected readable files in the snapshot {manifest.folder}: {error}; delete the folder and train again"
        ) from error


def _tensors(batch_CB: NDArray[np.float32]) -> Batch:
    batch = torch.from_numpy(batch_CB)
    return batch[:-2].T, batch[-2], batch[-1]
