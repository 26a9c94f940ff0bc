"""The network against both baselines on made traffic, at one FPR, by weak labels and by who really made the clicks.

python -m tests.bench.methods                 seeds 1, 2, 3
python -m tests.bench.methods --seed 2        one of them
python -m tests.bench.methods --clicks 5000000 --keep FOLDER

The published system found that both baselines lose; this asserts it: at an FPR of 1 % and the simulator's default difficulty
the network's IVR is at least 1.3 times that of logistic regression, and it finds more of the robots than both baselines.
"""

import argparse
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession
from rich.console import Console

from slidr import config, judging, session
from slidr.learning.clicks import choose_days, labelled_clicks, read_versions
from slidr.learning.methods import learn
from slidr.run import Job
from slidr.simulator.evaluation import judge_scores, read_truth
from slidr.tables import LABELS
from tests.commands import World

FPR = 0.01
LEAST_GAIN = 1.3
CLICKS = 1_000_000  # with a quarter of it three purchases decide where FPR 1% is
# Few days, since the longest window's warm-up takes a week of clicks that nothing is learned from; many users to judge by,
# since the FPR is a share of their purchases.
SETTINGS = {
    "training.train_days": "5",
    "training.calibration_days": "1",
    "training.judging_days": "4",
    "training.batch_size": "512",  # 30,000 clicks in batches of 4096 are 60 steps: the network would not have learned much yet
    "training.epochs": "20",
    "training.user_shares": "[0.5, 0.05, 0.45]",
    "calibration.method": "quadratic",  # next to no users are left for calibration: they judge
}
START, WARM, LABELLED, END, AS_OF = "2025-03-01", "2025-03-08", "2025-03-18", "2025-03-20", datetime(2025, 3, 20, tzinfo=timezone.utc)
COLUMNS = ("method", "threshold", "ivr", "fpr", "high_rfm_fpr", "coverage", "recall", "harm")


def judged(root: Path, spark: SparkSession, *, seed: int, clicks: int = CLICKS) -> list[dict[str, Any]]:
    """`judge_scores` of all methods on the judging clicks of one seed: days and users that none of them has learned from."""
    _, job = prepared(root, spark, seed=seed, clicks=clicks)
    days = choose_days(job, AS_OF)
    labelled = labelled_clicks(job, days, read_versions(job)).localCheckpoint()
    methods = learn(job, labelled, "0" * 12, {}).methods
    with judging.scored(labelled, methods, None, lake=job.lake, days=days.judging, zones=job.conf.marketplaces) as (rows, _):
        long = judging.by_method(rows.where("part = 'judging'"), "click_id", *judging.SIGNS)
        return judge_scores(long, read_truth(spark, str(root / "traffic")), fpr=FPR)


def prepared(root: Path, spark: SparkSession, *, seed: int, clicks: int) -> tuple[World, Job]:
    """A lake of one seed's traffic with features and labels, made where there is none yet."""
    world = World(root, spark, SETTINGS)
    conf = config.load(config.shipped("local.yaml"), tuple(world.options[3::2]))
    job = Job(conf, "bench", AS_OF, Console(stderr=True, quiet=True), actor="bench")
    job.__dict__["spark"] = spark
    if world.lake.exists(LABELS) and world.rows(LABELS):
        return world, job
    traffic = str(root / "traffic")
    world.ok("init")
    world.ok("simulate", traffic, "--clicks", str(clicks), "--days", "19", "--start", START, "--seed", str(seed))
    world.ok("ingest", "--source", "canonical_purchases", f"{traffic}/purchases")
    world.ok("ingest", "--source", "canonical", f"{traffic}/clicks")
    world.ok("features", "--from", WARM, "--to", LABELLED)
    world.ok("labels", "--from", WARM, "--to", LABELLED, "--as-of", END)
    return world, job


def require(rows: list[dict[str, Any]]) -> float:
    """The network's IVR / that of logistic regression; AssertionError where it does not win as published."""
    by_method = {row["method"]: row for row in rows}
    mlp, baselines = by_method["mlp"], [by_method["logistic"], by_method["velocity"]]
    gain = mlp["ivr"] / by_method["logistic"]["ivr"]
    assert gain >= LEAST_GAIN, f"IVR of the network is {gain:.2f} times that of logistic regression; {LEAST_GAIN} is the least"
    assert all(mlp["recall"] > row["recall"] for row in baselines), f"a baseline finds more robots: {rows}"
    return gain


def text(rows: list[dict[str, Any]]) -> str:
    lines = ["  ".join(f"{name:>12}" for name in COLUMNS)]
    for row in rows:
        lines.append("  ".join(f"{row[name]:>12.4f}" if name != "method" else f"{row[name]:>12}" for name in COLUMNS))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, action="append", help="repeatable; default 1, 2, 3")
    parser.add_argument("--clicks", type=int, default=CLICKS)
    parser.add_argument("--keep", type=Path, help="folder that keeps lake and models; default: a temporary one")
    given = parser.parse_args()
    conf = config.load(config.shipped("local.yaml"), ("spark.shuffle_partitions=2",))
    spark = session.build(conf.spark, app="slidr-methods")
    problems = []
    for seed in given.seed or [1, 2, 3]:
        with tempfile.TemporaryDirectory() as scratch:
            began = time.monotonic()
            rows = judged((given.keep or Path(scratch)) / f"seed-{seed}", spark, seed=seed, clicks=given.clicks)
        print(f"\nseed {seed}: {rows[0]['clicks']:,} judging clicks, {time.monotonic() - began:.0f} s\n{text(rows)}", flush=True)
        try:
            print(f"IVR of mlp / logistic: {require(rows):.2f}", flush=True)
        except AssertionError as problem:
            problems.append(f"seed {seed}: {problem}")
    spark.stop()
    if problems:
        raise SystemExit("\n".join(problems))


if __name__ == "__main__":
    main()
