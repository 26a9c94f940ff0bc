"""What sample weights bring: the same network with and without them, by night and by day, on made traffic.

python -m tests.bench.weights [--seed 1] [--clicks 1000000] [--keep FOLDER]

Both score the same judging clicks and take the one threshold at which their FPR over all hours is 1 %; night is midnight to
six, local time.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from slidr import config, judging, session
from slidr.learning.clicks import choose_days, labelled_clicks, read_versions
from slidr.learning.methods import learn
from slidr.simulator.evaluation import judge_scores, read_truth
from tests.bench.methods import AS_OF, CLICKS, FPR, prepared

NIGHT = 6  # hours
WAYS = {"weighted": ["hour", "logged_in", "label"], "unweighted": []}


def compared(root: Path, spark: SparkSession, *, seed: int, clicks: int) -> list[dict[str, Any]]:
    """One row per way and half of the day: clicks, IVR, FPR, recall (of robots' clicks), harm (of people's)."""
    _, job = prepared(root, spark, seed=seed, clicks=clicks)
    days = choose_days(job, AS_OF)
    labelled = labelled_clicks(job, days, read_versions(job)).localCheckpoint()
    bundles = {}
    for number, (way, dimensions) in enumerate(WAYS.items()):
        settings = job.conf.weights.model_copy(update={"dimensions": dimensions})
        job.conf = job.conf.model_copy(update={"weights": settings})
        lesson = learn(job, labelled, f"{number}" * 12, {})
        bundles[way] = lesson.methods["mlp"]
        effective, largest = (lesson.weighing[name] for name in ("weights_effective_share", "weights_largest"))
        print(f"{way}: effective share of the clicks {effective:.2f}, largest weight {largest:.1f}", flush=True)
    with judging.scored(labelled, bundles, None, lake=job.lake, days=days.judging, zones=job.conf.marketplaces) as (rows, _):
        long = judging.by_method(rows.where("part = 'judging'"), "click_id", "hour_of_week", *judging.SIGNS)
        truth = read_truth(spark, str(root / "traffic"))
        thresholds = {row["method"]: row["threshold"] for row in judge_scores(long, truth, fpr=FPR)}
        return by_half(long.join(truth, "click_id"), thresholds)


def by_half(rows: DataFrame, thresholds: dict[str, float]) -> list[dict[str, Any]]:
    threshold = F.create_map(*[F.lit(item) for pair in thresholds.items() for item in pair])[F.col("method")]
    half = F.when(F.col("hour_of_week") % 24 < NIGHT, "night").otherwise("day").alias("half")
    invalid = F.col("score") > threshold

    def share(of: Any) -> Any:
        return F.count_if(invalid & of) / F.count_if(of)

    robot, bought = F.col("is_robot"), F.col("is_purchase")
    shares = {"ivr": share(F.lit(True)), "fpr": share(bought), "recall": share(robot), "harm": share(~robot)}
    counts = {"clicks": F.count("*"), "purchasing": F.count_if(bought)}
    table = rows.groupBy("method", half).agg(*[value.alias(name) for name, value in {**counts, **shares}.items()])
    return [row.asDict() for row in table.orderBy("half", "method").collect()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clicks", type=int, default=CLICKS)
    parser.add_argument(
        "--keep", type=Path, help="folder that keeps lake and models, also of tests.bench.methods; default: a temporary one"
    )
    given = parser.parse_args()
    spark = session.build(config.load(config.shipped("local.yaml"), ("spark.shuffle_partitions=2",)).spark, app="slidr-weights")
    with tempfile.TemporaryDirectory() as scratch:
        for row in compared((given.keep or Path(scratch)) / f"seed-{given.seed}", spark, seed=given.seed, clicks=given.clicks):
            print("  ".join(f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items()))
    spark.stop()


if __name__ == "__main__":
    main()
