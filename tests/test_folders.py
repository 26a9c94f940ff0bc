"""Folders that slidr makes are their owner's alone; those that are there keep their permissions."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from slidr import config, direct
from slidr.config import Config
from slidr.direct import Place
from slidr.folders import private, private_root
from slidr.registry.store import Store
from slidr.run import Outcome, execute
from slidr.tables import RUNS


@pytest.fixture(autouse=True)
def open_mask() -> Iterator[None]:
    """A machine whose users let everybody in."""
    kept = os.umask(0)
    yield
    os.umask(kept)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_missing_folders_are_private_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir(mode=0o775)
    private(tmp_path / "shared" / "a" / "b")
    private(tmp_path / "shared" / "a" / "b")
    assert [mode(tmp_path / "shared" / part) for part in ("", "a", "a/b")] == [0o775, 0o700, 0o700]


def test_roots_may_be_uris(tmp_path: Path) -> None:
    private_root(f"file://{tmp_path}/with%20space")
    private_root("s3a://bucket/lake")
    assert mode(tmp_path / "with space") == 0o700
    assert sorted(path.name for path in tmp_path.iterdir()) == ["with space"]


def test_lake_work_and_registry_are_private(conf: Config, tmp_path: Path) -> None:
    places = [f"lake.root={tmp_path}/a/lake", f"work.root={tmp_path}/b/work"]
    places += [f"registry.uri=sqlite:///{tmp_path}/c/registry.db", f"registry.artifacts={tmp_path}/d/artifacts"]
    own = config.changed(conf, places, option="--set")
    direct.create(Place(own.lake.root), RUNS)
    execute(["slidr", "test"], lambda job: Outcome({}), conf=own, as_json=True, quiet=True, verbose=False)
    Store(own.registry).init()
    for made in ("a", "a/lake", "b", "b/work", "b/work/runs", "c", "d", "d/artifacts"):
        assert mode(tmp_path / made) == 0o700, made
