"""First decisions by Spark's own expressions."""

from datetime import datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from slidr import scoring
from slidr.bundle import Bundle
from slidr.slices import report_slice
from slidr.tables import DECISIONS


def decisions(clicks: DataFrame, features: DataFrame, bundle: Bundle, *, version: str, run_id: str, decided_time: datetime) -> DataFrame:
    """Rows of `decisions` for the clicks, decided by one model version: what `slidr.deciding` must equal, row for row."""
    return (
        scoring.score_clicks(clicks, features, bundle)
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
