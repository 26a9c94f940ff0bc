"""What scoring costs beside a plain loop: python -m tests.bench.scoring [--rows 2000000 8000000] [--runs 3]

`slidr score` of a week without decisions, beside one process that reads the same Parquet with pyarrow, joins, runs the same forward pass,
finds the same reasons and writes the same rows of both tables; and scores alone through slidr, `mlflow.pyfunc.spark_udf` and
`predict_batch_udf`. CPU of the whole process tree, in turns; between two sizes the difference is the marginal cost, without what is fixed.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DoubleType
from rich.console import Console
from slidr.jobs.score import decide

from slidr import data_files, scoring, session
from slidr.bundle import Bundle, forward
from slidr.direct import Place
from slidr.lake import Lake
from slidr.reasons import strongest
from slidr.run import Job
from slidr.scoring import USED
from slidr.tables import CLICKS, CURRENT_DECISIONS, DECISIONS, features_table
from slidr.version import Version
from tests.bench import replay as made
from tests.bench.measure import Cost, side_by_side
from tests.bench.replay import CONF, SPEC

COPIED = [name for name in DECISIONS.names if name in CLICKS.names]
WEEK = [made.FIRST.date() + timedelta(days=number) for number in range(made.DAYS)]
INVALID = 0.1  # share of the clicks


def by_slidr(lake: Lake, bundle: Bundle) -> int:
    """The job itself, into tables without rows."""
    for table in (DECISIONS, CURRENT_DECISIONS):
        shutil.rmtree(lake.path(table), ignore_errors=True)
        lake.create(table)
    job = Job(CONF, "bench", made.LAST, Console(quiet=True), "bench")
    job.__dict__["lake"] = lake
    summary = decide(job, Version("1", "champion", bundle), made.FIRST, made.LAST).summary
    return sum(row["invalid"] for row in summary["by_basis"])


def by_loop(root: str, out: Path, bundle: Bundle) -> int:
    """Day by day in this process."""
    clicks, features = (data_files.of(Place(root), table).dataset() for table in (CLICKS, features_table(SPEC)))
    invalid = 0
    for day in WEEK:
        of_day = ds.field("click_date") == pa.scalar(day, pa.date32())
        scored = features.to_table(columns=["click_id", *bundle.features], filter=of_day)
        scored = scored.rename_columns(["click_id", *[USED + name for name in bundle.features]])
        rows = clicks.to_table(columns=COPIED, filter=of_day).join(scored, "click_id", join_type="left outer")
        decided = loop_decisions(rows, bundle)
        invalid += pc.sum(decided["is_invalid"]).as_py()
        for table in (DECISIONS, CURRENT_DECISIONS):
            write(decided, out / table.name, day)
    return int(invalid)


def loop_decisions(rows: pa.Table, bundle: Bundle) -> pa.Table:
    x_BF = np.column_stack([rows[USED + name].to_numpy().astype(np.float64) for name in bundle.features])
    scores = forward(bundle, x_BF)
    high = scores > bundle.default_threshold
    texts = np.full((len(scores), len(scoring.REASONS)), None, dtype=object)
    texts[high, 0], texts[high, 1:] = strongest(bundle, x_BF[high])
    login = pc.if_else(rows["logged_in"], "login", "guest")
    named = pc.binary_join_element_wise(rows["device"], login, "/")
    found = {name: rows[name] for name in COPIED}
    found |= {"slice": named, "report_slice": pc.binary_join_element_wise(named, rows["marketplace"], "/")}
    found |= {"score": pa.array(scores), "is_invalid": pa.array(high)}
    found |= {name: pa.array(permille) for name, permille in scoring.nothing(x_BF).items()}
    found |= {name: pa.array(column, pa.string()) for name, column in zip(scoring.REASONS, texts.T, strict=True)}
    constant = {"threshold": bundle.default_threshold, "basis": "unseen_slice", "model_version": "1", "spec_id": "s", "run_id": "r"}
    found |= {name: pa.repeat(value, len(rows)) for name, value in constant.items()}
    found |= {"ivt_class": pc.if_else(pa.array(high), "sivt", pa.scalar(None, pa.string()))}
    found |= {"decided_time": pa.repeat(pa.scalar(made.LAST, pa.timestamp("us", "UTC")), len(rows))}
    return pa.table(found).select(DECISIONS.names)


def write(decided: pa.Table, folder: Path, day: date) -> None:
    path = folder / f"click_date={day}"
    path.mkdir(parents=True, exist_ok=True)
    pq.write_table(decided.drop_columns(["click_date"]), path / "part-0.parquet", compression="snappy")


def scores_alone(lake: Lake, score: Callable[[list[str]], Column]) -> float:
    """Sum of the scores of all stored features."""
    names = [column.name for column in SPEC.columns]
    found = lake.read(features_table(SPEC)).select(score(names).alias("score")).agg(F.sum("score")).collect()
    return round(float(found[0][0]), 3)


def by_forward(lake: Lake, bundle: Bundle) -> float:
    found = scoring.with_scores(lake.read(features_table(SPEC)), bundle).agg(F.sum("score")).collect()
    return round(float(found[0][0]), 3)


class Model(mlflow.pyfunc.PythonModel):
    """The forward pass as MLflow's own users would wrap it."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def predict(self, model_input: pd.DataFrame) -> np.ndarray:
        return forward(self.bundle, model_input.to_numpy(dtype=np.float64))


def mlflow_udf(spark: SparkSession, bundle: Bundle, folder: Path) -> Callable[[list[str]], Column]:
    mlflow.pyfunc.save_model(str(folder), python_model=Model(bundle))
    found = mlflow.pyfunc.spark_udf(spark, str(folder), result_type="double", env_manager="local")
    return lambda names: found(F.struct(*[F.col(name).cast("double") for name in names]))


def batch_udf(bundle: Bundle) -> Callable[[list[str]], Column]:
    def make() -> Callable[[np.ndarray], np.ndarray]:
        return lambda x_BF: forward(bundle, x_BF)

    width = len(bundle.features)
    found = predict_batch_udf(make, return_type=DoubleType(), batch_size=8192, input_tensor_shapes=[[width]])
    return lambda names: found(F.array(*[F.coalesce(F.col(name).cast("double"), F.lit(float("nan"))) for name in names]))


def measure(spark: SparkSession, rows: int, runs: int, warm: int, *, udfs: bool) -> dict[str, Cost]:
    with tempfile.TemporaryDirectory() as scratch:
        lake = made.prepare(spark, Path(scratch), rows)
        bundle = made.bundle(made.thresholds_of(lake, [INVALID])[0])
        ways: dict[str, Callable[[], Any]] = {
            "slidr score": partial(by_slidr, lake, bundle),
            "plain loop": partial(by_loop, lake.root, Path(scratch) / "loop", bundle),
        }
        alone: dict[str, Callable[[], Any]] = {
            "scores alone, slidr": partial(by_forward, lake, bundle),
            "scores alone, predict_batch_udf": partial(scores_alone, lake, batch_udf(bundle)),
            "scores alone, mlflow spark_udf": partial(scores_alone, lake, mlflow_udf(spark, bundle, Path(scratch) / "model")),
        }
        costs = side_by_side(ways | alone if udfs else ways, runs=runs, warm=warm)
        if costs["slidr score"].result != costs["plain loop"].result:
            raise AssertionError(f"expected the same invalid clicks, found {costs['slidr score'].result} and {costs['plain loop'].result}")
        return costs


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000_000, 8_000_000])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only-decisions", action="store_true", help="not the scores alone")
    given = parser.parse_args()
    spark = session.build(CONF.spark, app="bench")
    before: tuple[int, dict[str, Cost]] | None = None
    for number, rows in enumerate(given.rows):
        costs = measure(spark, rows, given.runs, warm=number == 0, udfs=not given.only_decisions)
        loop = costs["plain loop"]
        for name, cost in costs.items():
            each, over = 1e6 * cost.cpu / rows, 1 / cost.over(loop)
            line = f"{rows:>11,} clicks  {name:<34} {cost.cpu:7.1f} CPU s  {each:6.2f} us/click  loop / this {over:5.2f}"
            if before:
                marginal, of_loop = ((c.cpu - before[1][n].cpu) / (rows - before[0]) for c, n in ((cost, name), (loop, "plain loop")))
                line += f"  marginal {1e6 * marginal:6.2f} us/click, loop / this {of_loop / marginal:5.2f}"
            print(line, flush=True)
        before = (rows, costs)


if __name__ == "__main__":
    main()
