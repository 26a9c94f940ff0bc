"""What a replay costs: python -m tests.bench.replay [--rows 100000 --rows 1000000] [--recompute ROWS]

The floor reads the same clicks and features, scores them, and writes their decisions as a Delta table, all through Spark's frames; beside
it stands what `slidr score` does for first decisions of them, by the names of files. A replay is planned and applied in turns with both, in
this process. Prints the ratios, rows a second, the growth with the window, a replay that changes 1 % of the clicks against one that changes
a quarter, and the longest silence of the progress.
"""

import argparse
import math
import tempfile
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
from pyspark.sql import SparkSession

from slidr import config, data_files, deciding, scoring, session
from slidr.bundle import Bundle, preparation_for
from slidr.features import counters
from slidr.lake import Lake
from slidr.progress import Progress
from slidr.replay import apply
from slidr.replay.audit import Who
from slidr.replay.plan import make_plan
from slidr.replay.request import Request
from slidr.tables import CLICKS, CORRECTIONS, CURRENT_DECISIONS, DECISIONS, LABELS, REPLAY_DECISIONS, REPLAYS, features_table
from slidr.version import Version
from tests import expressions
from tests.bench.clicks import DAYS, START, fill, write_parquet
from tests.bench.measure import Tree
from tests.bundles import LOGIN_SLICES

CONF = config.load(config.shipped("local.yaml"))
SPEC = CONF.spec
FIRST = datetime.fromtimestamp(START / 1e6, timezone.utc)
LAST = FIRST + timedelta(days=DAYS)
NOW = LAST + timedelta(days=3)
WHO = Who("bench", "bench")
FLOOR = DECISIONS.__class__("floor", "Decisions of the floor", DECISIONS.grain, DECISIONS.partitions, DECISIONS.columns)


@dataclass
class Silence:
    """The longest time between two lines of progress, in seconds."""

    longest: float = 0.0
    last: float = field(default_factory=time.monotonic)

    def hear(self, _: str) -> None:
        now = time.monotonic()
        self.longest, self.last = max(self.longest, now - self.last), now


def bundle(threshold: float) -> Bundle:
    """A network of the shipped size with random weights: what it says does not matter here, what it costs does."""
    random = np.random.default_rng(3)
    preparation = preparation_for(SPEC)
    sizes = (preparation.inputs, *CONF.training.hidden, 1)
    layers = tuple(
        ((random.standard_normal((m, n)) / math.sqrt(n)).astype(np.float32), np.zeros(m, dtype=np.float32))
        for n, m in zip(sizes, sizes[1:], strict=False)
    )
    parts = {name: {} for name in ("labels", "table_versions", "config", "libraries", "metrics")}
    names = tuple(column.name for column in SPEC.columns)
    return Bundle(SPEC, names, preparation, layers, LOGIN_SLICES, {}, threshold, sha256=f"{threshold}", **parts)


def prepare(spark: SparkSession, root: Path, rows: int) -> Lake:
    """Clicks, features as known then, first decisions by version 1."""
    lake = Lake(spark, str(root / "lake"))
    write_parquet(root / "clicks", rows, hot=0.01)
    fill(lake, spark, root / "clicks")
    for table in (DECISIONS, CURRENT_DECISIONS, REPLAY_DECISIONS, CORRECTIONS, REPLAYS, LABELS):
        lake.create(table)
    lake.create(features_table(SPEC))
    days = [FIRST.date() + timedelta(days=n) for n in range(DAYS)]
    before = counters.there(lake, SPEC, days, "then")
    counters.replace_days(lake, data_files.of(lake, CLICKS), before, days, spec=SPEC, known="then", zones=CONF.marketplaces)
    return lake


def decide(lake: Lake, threshold: float) -> None:
    deciding.decide(lake, Version("1", "stable", bundle(threshold)), FIRST, LAST, run_id="r", decided_time=LAST)


def score(lake: Lake, threshold: float, turn: int) -> None:
    """First decisions of the same clicks in a lake of their own."""
    own = Path(f"{lake.root}-{turn}")
    own.mkdir()
    for table in (CLICKS.name, "features"):
        (own / table).symlink_to(Path(lake.root) / table)
    decide(Lake(lake.spark, str(own)), threshold)


def floor(lake: Lake) -> None:
    """Scan, score, write."""
    days = [FIRST.date() + timedelta(days=n) for n in range(DAYS)]
    stored = counters.prefer_logged(lake.read(features_table(SPEC), days))
    scored = expressions.decisions(lake.read(CLICKS, days), stored, bundle(0.5), version="2", run_id="r", decided_time=LAST)
    lake.replace_days(scored, FLOOR, days)


def replay(lake: Lake, number: str, threshold: float, mode: str, silence: Silence) -> tuple[int, float]:
    """Plans and applies; (clicks changed, seconds until planned)."""
    began = time.monotonic()
    bounds = {"max_changed_share": 1.0, "max_money_micros": 2**60, "max_advertiser_micros": 2**60, "approval_above_micros": 2**60}
    conf = CONF.model_copy(update={"replay": CONF.replay.model_copy(update=bounds)})
    version, progress = Version(number, "stable", bundle(threshold)), Progress(silence.hear)
    request = Request(FIRST, LAST, mode=mode, allow_charges=True)
    silence.last = time.monotonic()
    plan = make_plan(lake, request=request, version=version, conf=conf, now=NOW, who=WHO, progress=progress)
    planned = time.monotonic() - began
    apply.apply_plan(lake, plan_id=plan.plan_id, version=version, now=NOW, who=WHO, progress=progress)
    return sum(plan.counts[name] for name in ("newly_invalid", "reinstated")), planned


def timed(way, *given):  # type: ignore[no-untyped-def]
    began = time.monotonic()
    with Tree() as tree:
        result = way(*given)
    return tree.cpu, time.monotonic() - began, result


def thresholds_of(lake: Lake, shares: list[float]) -> list[float]:
    """Thresholds at which these shares of the clicks are invalid."""
    stored = counters.prefer_logged(lake.read(features_table(SPEC))).sample(fraction=min(1.0, 2e5 / lake.read(CLICKS).count()), seed=1)
    return scoring.with_scores(stored, bundle(0.5)).approxQuantile("score", [1 - share for share in shares], 0.0)


def measure(spark: SparkSession, rows: int, runs: int, warm: int) -> float:
    """Prints the table of one size and returns the seconds of a replay that changes 1 %; the first `warm` rounds are not counted."""
    with tempfile.TemporaryDirectory() as scratch:
        lake = prepare(spark, Path(scratch), rows)
        first, one, many = thresholds_of(lake, [0.12, 0.13, 0.37])
        decide(lake, first)
        silence, seen = Silence(), []
        for turn in range(warm + runs):
            bottom, scored = timed(floor, lake), timed(score, lake, first, turn)
            little = timed(replay, lake, str(10 + turn), one + turn * 1e-9, "rescore", silence)
            timed(replay, lake, str(20 + turn), first + turn * 1e-9, "rescore", silence)
            much = timed(replay, lake, str(30 + turn), many + turn * 1e-9, "rescore", silence)
            timed(replay, lake, str(40 + turn), first - turn * 1e-9, "rescore", silence)
            if turn >= warm:
                seen.append((bottom, scored, little, much))
        for bottom, scored, little, much in seen:
            print(
                f"{rows:,} clicks: floor {bottom[1]:.1f} s ({bottom[0]:.0f} CPU s); replay changing {little[2][0]:,}: {little[1]:.1f} s "
                f"({little[0]:.0f} CPU s), {little[1] / bottom[1]:.2f} x floor ({little[0] / bottom[0]:.2f} by CPU), "
                f"{little[1] / scored[1]:.2f} x slidr score ({scored[1]:.1f} s, {little[0] / scored[0]:.2f} by CPU), "
                f"{rows / little[1]:,.0f} clicks a second, planned after {little[2][1]:.1f} s; changing {much[2][0]:,}: {much[1]:.1f} s "
                f"({much[1] / bottom[1]:.2f} x floor)",
                flush=True,
            )
        print(f"longest silence of the progress: {silence.longest:.1f} s", flush=True)
        return min(little[1] for _, _, little, _ in seen)


def recompute(spark: SparkSession, rows: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        lake, silence = prepare(spark, Path(scratch), rows), Silence()
        first, one = thresholds_of(lake, [0.12, 0.13])
        decide(lake, first)
        cpu, wall, (changed, planned) = timed(replay, lake, "2", one, "recompute", silence)
    print(
        f"recompute of {rows:,} clicks: {wall:.0f} s from plan to applied ({cpu:.0f} CPU s; planned after {planned:.0f} s), {changed:,} "
        f"changed; longest silence {silence.longest:.1f} s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, action="append")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--recompute", type=int)
    given = parser.parse_args()
    settings = config.load(config.shipped("local.yaml"), ("spark.shuffle_partitions=8",)).spark
    spark = session.build(settings, app="slidr-bench")
    sizes = given.rows or ([] if given.recompute else [100_000, 1_000_000])
    # Java and the plans' compiler are warm after one round, whatever its size.
    taken = [measure(spark, rows, given.runs, warm=number == 0) for number, rows in enumerate(sizes)]
    if len(taken) > 1:
        slope = np.polyfit(np.log(sizes), np.log(taken), 1)[0]
        print(f"growth with the window, log-log slope: {slope:.2f}")
    if given.recompute:
        recompute(spark, given.recompute)
    spark.stop()


if __name__ == "__main__":
    main()
