"""A thousand epochs while the machine is busy: ours read every row; Petastorm's own thread pool does not."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from petastorm import make_batch_reader

from slidr.training.data import steps
from slidr.training.snapshot import Manifest
from tests.test_training import local_snapshot

pytestmark = pytest.mark.slow
EPOCHS = 1000
GROUPS = [50, 70, 90, 110, 130, 150, 170, 190] * 2


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return local_snapshot(tmp_path / "snapshot", GROUPS, lanes=8)


def spin() -> None:
    while True:
        pass


@contextmanager
def busy(processes: int = 4) -> Iterator[None]:
    """Twice as many processes at work as there are cores."""
    working = [multiprocessing.Process(target=spin, daemon=True) for _ in range(processes)]
    for process in working:
        process.start()
    yield
    for process in working:
        process.kill()


def test_a_thousand_epochs_read_every_row(manifest: Manifest) -> None:
    with busy():
        for epoch in range(EPOCHS):
            rows = [batch[0][:, 0] for step in steps(manifest, range(8), batch_size=256, seed=3, epoch=epoch) for batch in step.values()]
            counts = [0] * len(GROUPS)
            for numbers in rows:
                for number in numbers.int().tolist():
                    counts[number] += 1
            assert counts == GROUPS, f"epoch {epoch}"


def test_petastorms_own_thread_pool_loses_rows(manifest: Manifest) -> None:
    """The reason for the pool that `slidr.training.data` uses. Once this is skipped on a new release, look at it again."""
    urls = [f"file://{Path(manifest.folder, file.path).absolute()}" for file in manifest.files]
    short = 0
    with busy():
        for epoch in range(EPOCHS):
            reader = make_batch_reader(urls, reader_pool_type="thread", workers_count=4, seed=epoch + 1, num_epochs=1)
            short += sum(len(group.weight) for group in reader) < manifest.rows
            reader.stop()
            reader.join()
            if short >= 3:
                return
    if not short:
        pytest.skip(f"the stock thread pool of Petastorm read every row in {EPOCHS} epochs here")
