"""A million made clicks of three seeds: the network beats both baselines as published, and two trainings give equal bytes. Slow."""

import filecmp
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from slidr import bundle
from slidr.learning.clicks import choose_days, labelled_clicks, read_versions
from slidr.learning.judge import make_bundle
from tests.bench.methods import AS_OF, judged, prepared, require, text

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_network_beats_both_baselines(spark: SparkSession, tmp_path: Path, seed: int) -> None:
    rows = judged(tmp_path, spark, seed=seed)
    print(text(rows))
    require(rows)


def test_two_trainings_on_the_same_tables_give_equal_bytes(spark: SparkSession, tmp_path: Path) -> None:
    _, job = prepared(tmp_path, spark, seed=4, clicks=100_000)
    for again in ("first", "second"):
        job.conf = job.conf.model_copy(update={"work": job.conf.work.model_copy(update={"root": tmp_path / again})})
        days, versions = choose_days(job, AS_OF), read_versions(job)
        clicks = labelled_clicks(job, days, versions).repartition(2 if again == "first" else 5)
        bundle.save(make_bundle(job, days, clicks, "0" * 64, versions, None).bundle, tmp_path / again / "bundle")
    names = sorted(path.name for path in (tmp_path / "first" / "bundle").iterdir())
    assert len(names) == 3
    same, *others = filecmp.cmpfiles(tmp_path / "first" / "bundle", tmp_path / "second" / "bundle", names, shallow=False)
    assert (sorted(same), *others) == (names, [], [])
