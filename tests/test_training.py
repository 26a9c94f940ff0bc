"""Snapshot, loaders and loop: every epoch reads every row, and the same seed gives the same bytes."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pyspark.sql import DataFrame, SparkSession

from slidr import bundle
from slidr.errors import ConfigError, GuardrailError, InputError
from slidr.models.network import Mlp
from slidr.training import loop
from slidr.training.data import Manifest, feature_statistics, load_manifest, steps, write_snapshot
from slidr.training.progress import Progress
from slidr.training.snapshot import arrangement
from tests.test_bundle import FEATURES, SPEC, raw_features

ROWS = 1000
PREPARATION = bundle.preparation_for(SPEC)
TYPES = {"user_clicks_1h": "int", "user_clicks_7d": "int", "logged_in": "int"}


def training_frame(spark: SparkSession) -> tuple[DataFrame, np.ndarray]:
    """Clicks with nullable features, and what a snapshot of them must hold: features, label, weight, in order of click_id."""
    x_BF = raw_features(ROWS)
    label, weight = (np.arange(ROWS) % 4 > 0).astype(float), 0.5 + np.arange(ROWS) / ROWS
    rows = [
        (f"c{number:04}", float(label[number]), float(weight[number]), *[_cell(*cell) for cell in zip(FEATURES, x_F.tolist(), strict=True)])
        for number, x_F in enumerate(x_BF)
    ]
    schema = "click_id string, label double, weight double, " + ", ".join(f"{name} {TYPES.get(name, 'double')}" for name in FEATURES)
    return spark.createDataFrame(rows, schema), np.column_stack([x_BF, label, weight]).astype(np.float32)


def _cell(name: str, value: float) -> float | int | None:
    if np.isnan(value):
        return None
    return int(value) if name in TYPES else value


def snapshot(df: DataFrame, folder: Path, **changed: object) -> Manifest:
    arguments = {"features": FEATURES, "spec": SPEC, "seed": 7, "row_group_rows": 130, "table_versions": {"clicks": 3}}
    return write_snapshot(df, str(folder), **{**arguments, **changed})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def written(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, np.ndarray, DataFrame]:
    df, expected = training_frame(spark)
    return snapshot(df, tmp_path_factory.mktemp("with space") / "snapshot"), expected, df


def epoch_rows(manifest: Manifest, epoch: int, seed: int = 7, lanes: Sequence[int] | None = None) -> np.ndarray:
    own = range(manifest.lanes) if lanes is None else lanes
    read = steps(manifest, own, batch_size=64, seed=seed, epoch=epoch)
    return np.concatenate([torch.column_stack(batch).numpy() for step in read for batch in step.values()])


def ordered(rows: np.ndarray) -> np.ndarray:
    return rows[np.argsort(rows[:, -1])]  # weights are distinct and grow with click_id


def numbered(number: int, rows: int) -> pa.Table:
    """Rows that tell which file they are of."""
    return pa.table({name: np.full(rows, number, np.float32) for name in (*FEATURES, "label", "weight")})


def local_snapshot(
    folder: Path,
    groups: list[int],
    lanes: int = 1,
    table: Callable[[int, int], pa.Table] = numbered,
    features: Sequence[str] = FEATURES,
) -> Manifest:
    """A snapshot written without Spark, for what concerns the loaders alone."""
    (folder / "data").mkdir(parents=True)
    files = []
    for number, rows in enumerate(groups):
        pq.write_table(table(number, rows), folder / "data" / f"{number}.parquet")
        data = (folder / "data" / f"{number}.parquet").read_bytes()
        files.append(
            {"path": f"data/{number}.parquet", "rows": rows, "row_groups": [rows], "size": len(data), "sha256": sha256(data).hexdigest()}
        )
    content = {"files": files, "rows": sum(groups), "human": sum(groups), "non_human": 0, "lanes": lanes}
    content["identity"] = {"features": list(features)}
    (folder / "manifest.json").write_text(json.dumps(content))
    return load_manifest(str(folder))


def test_snapshot_holds_every_row_cast(written: tuple[Manifest, np.ndarray, DataFrame]) -> None:
    manifest, expected, _ = written
    assert (manifest.rows, manifest.human, manifest.non_human) == (ROWS, 250, 750)
    assert len(manifest.files) == 8
    assert all(90 < file.rows < 170 and file.row_groups == (file.rows,) for file in manifest.files)
    assert manifest.identity["spec_id"] == SPEC.spec_id
    table = pq.ParquetFile(Path(manifest.folder) / manifest.files[0].path).read()
    assert table.schema.names == [*FEATURES, "label", "weight"]
    assert {field.type for field in table.schema} == {pa.float32()}
    assert sum(column.null_count for column in table.columns) == 0
    rows = epoch_rows(manifest, 0)
    np.testing.assert_array_equal(ordered(rows), expected)


def test_every_epoch_reads_every_row_in_an_order_of_its_own(written: tuple[Manifest, np.ndarray, DataFrame]) -> None:
    manifest, expected, _ = written
    epochs = [epoch_rows(manifest, epoch) for epoch in range(4)]
    for rows in epochs:
        np.testing.assert_array_equal(ordered(rows), expected)
    assert len({rows.tobytes() for rows in epochs}) == 4


def test_same_seed_same_bytes(written: tuple[Manifest, np.ndarray, DataFrame]) -> None:
    manifest = written[0]
    assert epoch_rows(manifest, 1).tobytes() == epoch_rows(manifest, 1).tobytes()
    assert epoch_rows(manifest, 1).tobytes() != epoch_rows(manifest, 1, seed=70).tobytes()


def test_steps_take_an_equal_share_of_every_lane(written: tuple[Manifest, np.ndarray, DataFrame]) -> None:
    manifest = written[0]
    assert manifest.lanes == 8
    made = list(steps(manifest, range(8), batch_size=640, seed=1, epoch=0))
    rows = [manifest.lane_rows(lane) for lane in range(8)]
    assert len(made) == manifest.steps(640) == -(-max(rows) // 80)
    for lane in range(8):
        sizes = [len(step[lane][1]) for step in made if lane in step]
        assert sizes == [80] * (rows[lane] // 80) + [rows[lane] % 80] * (rows[lane] % 80 > 0)
    assert made[0][0][0].shape == (80, len(FEATURES))
    assert {tensor.dtype for step in made for batch in step.values() for tensor in batch} == {torch.float32}


def test_a_lane_reads_the_same_whoever_reads_the_others(written: tuple[Manifest, np.ndarray, DataFrame]) -> None:
    manifest = written[0]
    alone, beside = (
        [step[3] for step in steps(manifest, lanes, batch_size=64, seed=7, epoch=2) if 3 in step] for lanes in ((3,), (1, 3, 5, 7))
    )
    assert [batch[2].tolist() for batch in alone] == [batch[2].tolist() for batch in beside]
    halves = [epoch_rows(manifest, 2, lanes=range(first, 8, 2)) for first in (0, 1)]
    np.testing.assert_array_equal(ordered(np.concatenate(halves)), written[1])


@pytest.mark.parametrize(
    ("rows", "expected"), [(10, (1, 1)), (140, (1, 1)), (200, (2, 2)), (1000, (8, 8)), (1500, (8, 8)), (2000, (8, 16))]
)
def test_files_of_about_the_wanted_size_equally_many_a_lane(rows: int, expected: tuple[int, int]) -> None:
    assert arrangement(rows, 130) == expected


def test_bytes_do_not_depend_on_partitioning_and_order(written: tuple[Manifest, np.ndarray, DataFrame], tmp_path: Path) -> None:
    manifest, _, df = written
    again = snapshot(df.repartition(5, "weight").sortWithinPartitions("label"), tmp_path / "again")
    assert [file.sha256 for file in again.files] == [file.sha256 for file in manifest.files]
    first = epoch_rows(manifest, 0)
    assert epoch_rows(again, 0).tobytes() == first.tobytes()
    assert 0.6 < np.nanmean(first[:100, -3]) / np.nanmean(first[:, -3]) < 1.4
    assert abs(np.corrcoef(np.arange(ROWS), first[:, -1])[0, 1]) < 0.15  # shuffled


def test_a_whole_snapshot_is_used_again_a_damaged_or_other_one_is_written_anew(spark: SparkSession, tmp_path: Path) -> None:
    df = training_frame(spark)[0].limit(40).coalesce(1).localCheckpoint()
    first = snapshot(df, tmp_path / "s")
    before = sorted(path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("*.parquet"))
    assert snapshot(df, tmp_path / "s") == first
    assert sorted(path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("*.parquet")) == before
    other = snapshot(df, tmp_path / "s", table_versions={"clicks": 4})
    assert other.identity["table_versions"] == {"clicks": 4}
    (tmp_path / "s" / other.files[0].path).unlink()
    mended = snapshot(df, tmp_path / "s", table_versions={"clicks": 4})
    assert [file.sha256 for file in mended.files] == [file.sha256 for file in first.files]
    (tmp_path / "s" / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"manifest\.json"):
        load_manifest(str(tmp_path / "s"))


def test_unusable_rows_are_all_named_and_nothing_is_written(spark: SparkSession, tmp_path: Path) -> None:
    df = training_frame(spark)[0].limit(4).coalesce(1)
    broken = df.selectExpr(
        "click_id", "if(click_id = 'c0000', 0.5D, label) label", "if(click_id = 'c0001', NULL, weight) weight",
        "CAST(-2 AS INT) user_clicks_1h", "user_clicks_7d", "CAST('Infinity' AS DOUBLE) ip_since_prev",
        "hour_sin", "hour_cos", "weekday_sin", "weekday_cos", "logged_in",
    )  # fmt: skip
    with pytest.raises(InputError) as caught:
        snapshot(broken, tmp_path / "s")
    for name in ("label (1 rows)", "weight (1 rows)", "user_clicks_1h (4 rows)", "ip_since_prev (4 rows)"):
        assert name in str(caught.value)
    with pytest.raises(InputError, match="found 0 rows"):
        snapshot(df.limit(0), tmp_path / "s")
    with pytest.raises(InputError, match="features of the spec"):
        snapshot(df, tmp_path / "s", features=FEATURES[1:])
    with pytest.raises(ConfigError, match="seed"):
        snapshot(df, tmp_path / "s", seed=0)
    assert not (tmp_path / "s").exists()


def test_rows_read_must_be_the_manifests(tmp_path: Path) -> None:
    manifest = local_snapshot(tmp_path / "s", [30, 50, 20])
    for rows in (99, 101):
        files = (replace(manifest.files[0], rows=rows - 70), *manifest.files[1:])
        with pytest.raises(InputError, match=f"expected {rows} rows .* read 100"):
            epoch_rows(replace(manifest, files=files), 0)
    assert len(epoch_rows(replace(manifest, files=manifest.files[1:], rows=70), 0)) == 70  # its list, not the folder
    (tmp_path / "s" / manifest.files[1].path).unlink()
    with pytest.raises(InputError, match="readable files"):
        epoch_rows(manifest, 0)
    with pytest.raises(InputError, match=r"data/1\.parquet is missing"):
        load_manifest(manifest.folder)


def test_manifest_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    manifest = local_snapshot(tmp_path / "s", [30, 50])
    path = tmp_path / "s" / "manifest.json"
    good = path.read_text()
    path.write_text(good.replace('"rows": 80', '"rows": 81'))
    with pytest.raises(InputError, match="81 rows"):
        load_manifest(manifest.folder)
    path.write_text(good[: len(good) // 2])
    with pytest.raises(InputError, match=r"manifest\.json"):
        load_manifest(manifest.folder)
    path.write_text(good)
    file = tmp_path / "s" / manifest.files[0].path
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"data/0\.parquet: expected"):
        load_manifest(manifest.folder)


def test_leaving_an_epoch_early_closes_the_reader(tmp_path: Path) -> None:
    manifest = local_snapshot(tmp_path / "s", [30] * 20)
    before = set(threading.enumerate())
    epoch = steps(manifest, (0,), batch_size=10, seed=1, epoch=0)
    next(epoch)
    epoch.close()
    assert set(threading.enumerate()) <= before


def test_reading_prints_and_warns_nothing(tmp_path: Path) -> None:
    manifest = local_snapshot(tmp_path / "s", [30, 20])
    script = (
        "from slidr.training.data import load_manifest, steps; "
        f"read = steps(load_manifest({manifest.folder!r}), (0,), batch_size=8, seed=1, epoch=0); "
        "print(sum(len(step[0][1]) for step in read))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)  # a fresh process: default filters
    assert (done.returncode, done.stdout, done.stderr) == (0, "50\n", "")


def test_python_opens_no_file_that_arrow_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = local_snapshot(tmp_path / "s", [30, 20])
    opened, real = [], open

    def spy(path: str | Path, *args: Any, **settings: Any) -> Any:
        opened.append(Path(path).suffix)
        return real(path, *args, **settings)

    monkeypatch.setattr("builtins.open", spy)
    assert len(epoch_rows(manifest, 0)) == 50
    assert ".parquet" not in opened


def test_many_epochs_read_every_row(tmp_path: Path) -> None:
    manifest = local_snapshot(tmp_path / "s", [3, 5, 7, 11], lanes=2)
    for epoch in range(50):
        rows = epoch_rows(manifest, epoch)
        assert sorted(rows[:, 0].tolist()) == [0] * 3 + [1] * 5 + [2] * 7 + [3] * 11


def test_loaders_refuse_seed_zero(tmp_path: Path) -> None:
    manifest = local_snapshot(tmp_path / "s", [3])
    with pytest.raises(ConfigError, match="seed"):
        epoch_rows(manifest, 0, seed=0)
    with pytest.raises(ConfigError, match="seed"):
        loop.seeded(0)


def test_feature_statistics(written: tuple[Manifest, np.ndarray, DataFrame], tmp_path: Path) -> None:
    manifest, expected, _ = written
    x_RF = expected[:, :-2].astype(np.float64)
    x_RF = np.where(np.isnan(x_RF), np.array(PREPARATION.fill), x_RF)
    x_RF[:, :3] = np.log1p(x_RF[:, :3])
    measured = feature_statistics(manifest, PREPARATION)
    np.testing.assert_allclose(measured.mean, x_RF.mean(axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(measured.std, x_RF.std(axis=0), rtol=1e-12)
    assert measured == feature_statistics(manifest, PREPARATION)
    assert (measured.fill, measured.log) == (PREPARATION.fill, PREPARATION.log)
    missing = np.isnan(expected[:, [PREPARATION.names.index(name) for name in PREPARATION.flags]])
    human = np.column_stack([x_RF, missing])[expected[:, -2] == 0]
    assert 0 < len(human) < len(x_RF)
    np.testing.assert_allclose(measured.human, human.mean(axis=0), rtol=1e-12, atol=1e-12)
    constant = feature_statistics(local_snapshot(tmp_path / "s", [5]), PREPARATION)
    assert set(constant.std) == {1.0}


Epochs = Callable[[int], Iterator[loop.Step]]


def toy(clicks: int = 512) -> Epochs:
    """Clicks that the number of clicks of the last hour separates; a heavy weight on nothing."""
    x_BF = np.nan_to_num(raw_features(clicks)).astype(np.float32)
    y_B = (x_BF[:, 0] > np.median(x_BF[:, 0])).astype(np.float32)
    tensors = torch.from_numpy(x_BF), torch.from_numpy(y_B), torch.ones(clicks)

    def epochs(epoch: int) -> Iterator[loop.Step]:
        order = torch.from_numpy(np.random.default_rng(epoch + 1).permutation(clicks))
        for start in range(0, clicks, 128):
            x, y, w = (tensor[order[start : start + 128]] for tensor in tensors)
            yield {0: (x, y, w)}

    return epochs


def trained(epochs: Epochs, hidden: tuple[int, ...] = (16, 8), l2: float = 0.0, count: int = 12, lanes: int = 1) -> tuple[Mlp, list[float]]:
    loop.seeded(11)
    model = Mlp(PREPARATION, hidden)
    return model, loop.fit(model, epochs, loop.Recipe(lanes, count, learning_rate=0.02, l2=l2))


def test_same_seed_gives_bit_equal_weights(written: tuple[Manifest, np.ndarray, DataFrame]) -> None:
    manifest = written[0]

    def epochs(epoch: int) -> Iterator[loop.Step]:
        return steps(manifest, range(8), batch_size=128, seed=7, epoch=epoch)

    first, second = (trained(epochs, count=2, lanes=8)[0].state_dict() for _ in range(2))
    assert all(first[name].numpy().tobytes() == second[name].numpy().tobytes() for name in first)


def test_learns_a_separable_toy() -> None:
    model, history = trained(toy(), count=24)
    assert len(history) == 24
    assert history[-1] < 0.2 < history[0]
    assert not model.training


def test_lanes_are_one_batch() -> None:
    """A step cut into lanes moves the weights as the whole batch does."""

    def cut(epoch: int) -> Iterator[loop.Step]:
        for step in toy()(epoch):
            yield {lane: tuple(tensor[lane::3] for tensor in step[0]) for lane in range(3)}

    whole, parts = trained(toy(), count=2, l2=0.01)[0], trained(cut, count=2, l2=0.01, lanes=3)[0]
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        np.testing.assert_allclose(one.detach().numpy(), other.detach().numpy(), rtol=0, atol=1e-5)


def test_training_goes_on_after_the_last_kept_epoch(tmp_path: Path) -> None:
    """Stopped in the third epoch, then started again: the weights of an undisturbed training, bit for bit."""

    def stopped(epoch: int) -> Iterator[loop.Step]:
        if epoch == 2:
            raise KeyboardInterrupt
        return toy()(epoch)

    recipe = loop.Recipe(1, 5, learning_rate=0.02, l2=0.001)

    def run(epochs: Epochs, progress: Progress | None) -> tuple[Mlp, list[float]]:
        loop.seeded(11)
        model = Mlp(PREPARATION, (16, 8))
        return model, loop.fit(model, epochs, recipe, progress=progress)

    expected, losses = run(toy(), None)
    with pytest.raises(KeyboardInterrupt):
        run(stopped, Progress(tmp_path, "a"))
    assert Progress(tmp_path, "a").history() == losses[:2]
    model, history = run(toy(), Progress(tmp_path, "a"))
    assert history == losses
    for one, other in zip(expected.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert Progress(tmp_path, "another training").history() == []


def test_l2_shrinks_intermediate_weights_only() -> None:
    free, held = trained(toy())[0], trained(toy(), l2=0.5)[0]
    for number in (0, 1):
        assert held.linear[number].weight.norm() < 0.2 * free.linear[number].weight.norm()
    logistic = [trained(toy(), hidden=(), l2=l2)[0].linear[0].weight for l2 in (0.0, 0.5)]
    assert torch.equal(*logistic)


def test_weights_decide_what_is_learnt() -> None:
    """Two clicks of opposite label with equal features: the score goes to the weighted share, and the loss is weighted."""
    x_BF, y_B, w_B = torch.zeros(2, len(FEATURES)), torch.tensor([1.0, 0.0]), torch.tensor([3.0, 1.0])
    model, history = trained(lambda epoch: iter([{0: (x_BF, y_B, w_B)}]), hidden=(), count=400)
    assert torch.sigmoid(model(x_BF))[0].item() == pytest.approx(0.75, abs=1e-3)
    assert history[-1] == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)), abs=1e-4)


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    x_BF = torch.zeros(2, len(FEATURES))
    x_BF[0, 0] = float("inf")
    with pytest.raises(GuardrailError, match="finite training loss") as caught:
        trained(lambda epoch: iter([{0: (x_BF, torch.ones(2), torch.ones(2))}]))
    assert caught.value.exit_code == 4
    with pytest.raises(InputError, match="none"):
        trained(lambda epoch: iter([]))
