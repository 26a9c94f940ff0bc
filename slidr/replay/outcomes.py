"""What a replay does to each click: the planned rows, and the tables' rows that they become."""

from datetime import datetime, timedelta, timezone
from typing import Any

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T

from slidr import scoring
from slidr.bundle import Bundle
from slidr.tables import CORRECTIONS, CURRENT_DECISIONS, DECISIONS, REPLAY_DECISIONS, TYPES

OUTCOMES = {
    "unchanged_valid": "valid before and after",
    "unchanged_invalid": "invalid before and after",
    "newly_invalid": "newly invalid: the advertiser is credited",
    "reinstated": "valid again: the advertiser is charged",
    "first_decided_valid": "never decided until now, found valid",
    "first_decided_invalid": "never decided until now, found invalid: the advertiser is credited",
    "kept": "left as they are: the upstream filter's, or would be charged again",
}
CREDITS, CHARGES = ("newly_invalid", "first_decided_invalid"), ("reinstated",)
CORRECTED = CREDITS + CHARGES
PUBLISHED = (*CORRECTED, "first_decided_valid")  # what changes current_decisions

# Columns of current_decisions that a replay replaces; the others are the click's own, or the first decision's.
REPLACED = ["slice", "score", "threshold", "is_invalid", "ivt_class", "basis", "reason_class", "reason_1", "reason_2", "reason_3"]
REPLACED += ["model_version", "spec_id", "run_id", "decided_time", "replay_id", "corrected_time"]

_CLICK: tuple[str, ...] = (
    "click_id",
    "click_time",
    "click_date",
    "local_date",
    "session_id",
    "advertiser_id",
    "campaign_id",
    "marketplace",
    "device",
)
_CLICK += ("logged_in", "cost_micros", "currency")
_NEW = ("slice", "report_slice", "score", "threshold", "is_invalid", "ivt_class", "basis")
_OLD = {"old_is_invalid": "boolean", "old_score": "double", "old_model_version": "string"}
_ADDED = {"outcome": "string", "direction": "string", "delta_cost_micros": "bigint"}
_DECLARED = {column.name: column.type for column in DECISIONS.columns}
ROWS: dict[str, str] = {**{name: _DECLARED[name] for name in (*_CLICK, *_NEW)}, **_OLD, **_ADDED}
SCHEMA = T.StructType([T.StructField(name, TYPES[kind]) for name, kind in ROWS.items()])


def planned(scoped: DataFrame, features: DataFrame, bundle: Bundle, *, allow_charges: bool) -> DataFrame:
    """One row per click of `clicks_of`, columns ROWS: the new decision, the published one, the outcome and the change in money.

    A click without features keeps an invalid decision, whatever is allowed: nothing is known that would speak for it.
    """
    scored = scoring.score_clicks(scoped, features, bundle)
    never = F.col("old_is_invalid").isNull()
    upstream = (F.col("basis") == "upstream") | F.coalesce(F.col("old_basis") == "upstream", F.lit(False))
    would_charge = F.coalesce(F.col("old_is_invalid"), F.lit(False)) & ~F.col("is_invalid")
    may_not_charge = (F.col("basis") == "no_features") if allow_charges else F.lit(True)
    outcome = (
        F.when(upstream | (would_charge & may_not_charge), "kept")
        .when(never & F.col("is_invalid"), "first_decided_invalid")
        .when(never, "first_decided_valid")
        .when(would_charge, "reinstated")
        .when(F.col("old_is_invalid"), "unchanged_invalid")
        .when(F.col("is_invalid"), "newly_invalid")
        .otherwise("unchanged_valid")
    )
    direction = F.when(F.col("outcome").isin(*CREDITS), "invalidate").when(F.col("outcome").isin(*CHARGES), "reinstate")
    delta = F.when(F.col("direction") == "invalidate", -F.col("cost_micros")).when(F.col("direction") == "reinstate", F.col("cost_micros"))
    rows = scored.withColumn("outcome", outcome).withColumn("direction", direction).withColumn("delta_cost_micros", delta)
    return rows.select(*ROWS)


def replay_decisions(rows: DataFrame, *, replay_id: str, pins: dict[str, Any]) -> DataFrame:
    """Rows of `replay_decisions`: every planned click."""
    constants = _constants(replay_id, pins)
    return rows.withColumns({**constants, "decided": F.col("outcome") != "kept"}).select(*REPLAY_DECISIONS.names)


def corrections(rows: DataFrame, published: DataFrame, *, replay_id: str, pins: dict[str, Any], now: datetime) -> DataFrame:
    """Rows of `corrections`, numbered after the newest publication in `published`, the table itself.

    The number is found in the plan that appends, so that of two publishers at once one conflicts instead of both taking it.
    """
    # Without a filter on the column Delta may answer the maximum from its log, and then would not see the conflict.
    newest = published.where("publication_no >= 1").agg(F.coalesce(F.max("publication_no"), F.lit(0)).cast("bigint").alias("newest"))
    in_order = Window.orderBy("click_time", "click_id")
    columns = {
        **_constants(replay_id, pins),
        "publication_no": F.col("newest") + 1,
        "ordinal": F.row_number().over(in_order).cast("bigint"),
        "billing_month": F.date_format("local_date", "yyyy-MM"),
        "new_is_invalid": F.col("is_invalid"),
        "new_model_version": F.lit(pins["version"]),
        "new_score": F.col("score"),
        "new_threshold": F.col("threshold"),
        "reason_class": F.lit(None).cast("string"),
        "reverts_replay_id": F.lit(None).cast("string"),
        "published_time": F.lit(now),
        "correction_date": F.to_date(F.lit(now)),
    }
    changed = rows.where(F.col("outcome").isin(*CORRECTED)).crossJoin(F.broadcast(newest))
    return changed.withColumns(columns).select(*CORRECTIONS.names)


def published_state(rows: DataFrame, *, replay_id: str, pins: dict[str, Any], run_id: str, now: datetime) -> DataFrame:
    """Rows of `current_decisions` for the clicks whose published state changes; first_… belong to the first decision."""
    empty = {name: F.lit(None).cast("string") for name in ("reason_class", "reason_1", "reason_2", "reason_3", "first_model_version")}
    columns = {
        **_constants(replay_id, pins),
        **empty,
        "first_is_invalid": F.lit(None).cast("boolean"),
        "run_id": F.lit(run_id),
        "decided_time": F.lit(now),
        "corrected_time": F.lit(now),
    }
    return rows.where(F.col("outcome").isin(*PUBLISHED)).withColumns(columns).select(*CURRENT_DECISIONS.names)


def _constants(replay_id: str, pins: dict[str, Any]) -> dict[str, Any]:
    named = {"replay_id": replay_id, "model_version": pins["version"], "spec_id": pins["spec_id"], "mode": pins["mode"]}
    return {name: F.lit(value) for name, value in named.items()}


def from_micros(micros: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=micros)
