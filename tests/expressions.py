"""First decisions by Spark's own expressions."""

from collections.abc import Iterator
from datetime import datetime

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from slidr import scoring
from slidr.bundle import Bundle
from slidr.scoring import NOTHING, REASONS, USED
from slidr.slices import report_slice
from slidr.tables import DECISIONS


def with_score_and_reasons(features: DataFrame, bundle: Bundle) -> DataFrame:
    """Rows that hold the bundle's features, with `score`, NOTHING and REASONS: what `slidr.deciding.scores` must equal."""

    @F.pandas_udf(", ".join(["score double", *(f"{name} int" for name in NOTHING), *(f"{name} string" for name in REASONS)]))
    def score(batches: Iterator[pd.Series]) -> Iterator[pd.DataFrame]:
        for batch in batches:
            x_BF = np.stack(batch.to_list())
            scores, texts = scoring.scores_and_reasons(bundle, x_BF)
            yield pd.DataFrame({"score": scores, **scoring.nothing(x_BF), **dict(zip(REASONS, texts.T, strict=True))})

    found = features.withColumn("found", score(scoring.packed(bundle)))
    return found.withColumns({name: F.col(f"found.{name}") for name in ("score", *NOTHING, *REASONS)}).drop("found")


def scores(features: DataFrame, bundle: Bundle) -> DataFrame:
    """What `slidr.deciding.scores` finds of these rows."""
    used = {USED + name: F.col(name).cast("double") for name in bundle.slices.features}
    return with_score_and_reasons(features, bundle).withColumns(used).select("click_id", "score", *NOTHING, *REASONS, *used)


def score_clicks(clicks: DataFrame, features: DataFrame, bundle: Bundle) -> DataFrame:
    """Every click as `scoring.decided` gives it, by its row of features, where it has one."""
    return scoring.decided(clicks, scores(features, bundle), bundle)


def decisions(clicks: DataFrame, features: DataFrame, bundle: Bundle, *, version: str, run_id: str, decided_time: datetime) -> DataFrame:
    """Rows of `decisions` for the clicks, decided by one model version: what `slidr.deciding` must equal, row for row."""
    return (
        score_clicks(clicks, features, bundle)
        .withColumns(
            {
                "report_slice": report_slice(),
                "model_version": F.lit(version),
                "spec_id": F.lit(bundle.spec.spec_id),
                "run_id": F.lit(run_id),
                "decided_time": F.lit(decided_time),
            }
        )
        .select(*DECISIONS.names)
    )
