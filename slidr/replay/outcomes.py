"""What a replay or a revert does to each click: the planned rows, and the tables' rows that they become."""

from datetime import datetime
from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T

from slidr import scoring
from slidr.replay import stack
from slidr.replay.audit import Plan
from slidr.tables import CORRECTIONS, CURRENT_DECISIONS, DECISIONS, REPLAY_DECISIONS, TYPES
from slidr.version import Version

OUTCOMES = {
    "unchanged_valid": "valid before and after",
    "unchanged_invalid": "invalid before and after",
    "newly_invalid": "newly invalid: the advertiser is credited",
    "reinstated": "valid again: the advertiser is charged",
    "first_decided_valid": "never decided until now, found valid",
    "first_decided_invalid": "never decided until now, found invalid: the advertiser is credited",
    "kept": "left as they are: the upstream filter's, or would be charged again",
    "restated": "decided the same by what remains; only the version on record changes",
    "undecided_valid": "undecided again, as nothing else decided them; they were valid",
    "undecided_invalid": "undecided again, as nothing else decided them: the advertiser is charged",
}
CREDITS, CHARGES = ("newly_invalid", "first_decided_invalid"), ("reinstated", "undecided_invalid")
CORRECTED = CREDITS + CHARGES
FIRST_DECIDED = ("first_decided_valid", "first_decided_invalid")
PUBLISHED = (*CORRECTED, "first_decided_valid", "restated", "undecided_valid")  # what changes current_decisions
UNDECIDED = "undecided"  # basis of a row of current_decisions that a revert deletes

# Columns of current_decisions that a replay replaces; the others are the click's own, or the first decision's.
REPLACED = ["slice", "score", *scoring.NOTHING, "threshold", "is_invalid", "ivt_class", "basis", *scoring.REASONS]
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
_NEW = ("slice", "report_slice", "score", *scoring.NOTHING, "threshold", "is_invalid", "ivt_class", "basis", *scoring.REASONS)
_NEW += ("model_version", "spec_id")
# replay_id: the replay that decides the click from now on, NULL for its first decision.
_OLD = {"replay_id": "string", "old_is_invalid": "boolean", "old_score": "double", "old_model_version": "string"}
_ADDED = {"outcome": "string", "direction": "string", "delta_cost_micros": "bigint", "authority": "string", "after_first": "boolean"}
CHANGES = "changes"  # whether the published state of the click changes
_DECLARED = {column.name: column.type for column in DECISIONS.columns}
ROWS: dict[str, str] = {**{name: _DECLARED[name] for name in (*_CLICK, *_NEW)}, **_OLD, **_ADDED, CHANGES: "boolean", "late": "boolean"}
# Only a change needs these; of the other clicks, nearly all as a rule, they are NULL: rows are written, hashed and read again.
_OF_CHANGES = (*[name for name in _CLICK if name not in ("click_id", "click_time", "click_date")], "report_slice", "ivt_class")
_OF_CHANGES += ("old_score", "old_model_version")
SCHEMA = T.StructType([T.StructField(name, TYPES[kind]) for name, kind in ROWS.items()])


def planned(scoped: DataFrame, scores: DataFrame, version: Version, *, replay_id: str, allow_charges: bool, late_minutes: int) -> DataFrame:
    """One row per click of `clicks_of`, columns ROWS: the new decision, the published one, the outcome and the change in money.

    `late` clicks became known more than `late_minutes` after they were made. A click without features keeps an invalid decision,
    whatever is allowed: nothing is known that would speak for it.
    """
    scored = scoring.decided(scoped, scores, version.bundle)
    upstream = (F.col("basis") == "upstream") | F.coalesce(F.col("old_basis") == "upstream", F.lit(False))
    full = (F.col("basis") != "no_features") & F.lit(allow_charges)
    columns = {
        "authority": F.when(upstream, stack.NONE).when(full, stack.FULL).otherwise(stack.CREDIT),
        "after_first": F.col("old_first_is_invalid").isNotNull(),
        "model_version": F.lit(version.number),
        "spec_id": F.lit(version.bundle.spec.spec_id),
        "replay_id": F.lit(replay_id),
    }
    would_charge = F.coalesce(F.col("old_is_invalid"), F.lit(False)) & ~F.col("is_invalid")
    kept = (F.col("authority") == stack.NONE) | (would_charge & (F.col("authority") == stack.CREDIT))
    never = F.col("old_is_invalid").isNull()
    outcome = (
        F.when(kept, "kept")
        .when(never & F.col("is_invalid"), "first_decided_invalid")
        .when(never, "first_decided_valid")
        .when(would_charge, "reinstated")
        .when(F.col("old_is_invalid"), "unchanged_invalid")
        .when(F.col("is_invalid"), "newly_invalid")
        .otherwise("unchanged_valid")
    )
    return _priced(scored.withColumns(columns), outcome, late_minutes)


def reverted(scoped: DataFrame, settled: DataFrame, *, late_minutes: int) -> DataFrame:
    """One row per click of `decided_by_replay`, columns ROWS: it becomes what `stack.settled` says."""
    both = scoped.join(settled, on="click_id", how="left")
    new, old = F.col("is_invalid"), F.col("old_is_invalid")
    same_decision = F.col("replay_id").eqNullSafe(F.col("old_replay_id")) & F.col("model_version").eqNullSafe(F.col("old_model_version"))
    outcome = (
        F.when(new.isNull() & old.isNull(), "kept")
        .when(new.isNull(), F.when(old, "undecided_invalid").otherwise("undecided_valid"))
        .when(old.isNull(), F.when(new, "first_decided_invalid").otherwise("first_decided_valid"))
        .when((new == old) & ~same_decision, "restated")
        .when(new == old, F.when(new, "unchanged_invalid").otherwise("unchanged_valid"))
        .otherwise(F.when(new, "newly_invalid").otherwise("reinstated"))
    )
    # A revert decides nothing itself, so it has no place in the stack.
    nothing = {"authority": F.lit(stack.NONE), "after_first": F.lit(None).cast("boolean")}
    return _priced(both.withColumns(nothing), outcome, late_minutes)


def _priced(rows: DataFrame, outcome: Column, late_minutes: int) -> DataFrame:
    """Rows with outcome, direction, the change in money, whether anything changes, and whether the click came late."""
    direction = F.when(F.col("outcome").isin(*CREDITS), "invalidate").when(F.col("outcome").isin(*CHARGES), "reinstate")
    delta = F.when(F.col("direction") == "invalidate", -F.col("cost_micros")).when(F.col("direction") == "reinstate", F.col("cost_micros"))
    priced = rows.withColumn("outcome", outcome).withColumn("direction", direction).withColumn("delta_cost_micros", delta)
    late = F.unix_seconds("arrival_time") - F.unix_seconds("click_time") > late_minutes * 60
    known = priced.withColumns({CHANGES: F.col("outcome").isin(*PUBLISHED), "late": late})
    return known.withColumns({name: F.when(F.col(CHANGES), F.col(name)) for name in _OF_CHANGES}).select(*ROWS)


def changing(rows: DataFrame) -> DataFrame:
    """The planned rows whose published state changes."""
    return rows.where(F.col(CHANGES))


def corrected(rows: DataFrame) -> DataFrame:
    """The planned rows that become corrections."""
    return changing(rows).where(F.col("outcome").isin(*CORRECTED))


def replay_decisions(rows: DataFrame, pins: dict[str, Any]) -> DataFrame:
    """Rows of `replay_decisions`: every planned click."""
    columns = {"mode": F.lit(pins["mode"]), "decided": F.col("outcome") != "kept"}
    return rows.withColumns(columns).select(*REPLAY_DECISIONS.names)


def corrections(rows: DataFrame, published: DataFrame, *, plan: Plan, now: datetime) -> DataFrame:
    """Rows of `corrections`, numbered and dated after the newest publication in `published`, which is `feed.newest`.

    The number is found in the plan that appends, so that of two publishers at once one conflicts instead of both taking it.
    """
    # Without a filter on the column Delta may answer the maximum from its log, and then would not see the conflict.
    last = [F.coalesce(F.max("publication_no"), F.lit(0)).cast("bigint").alias("newest"), F.max("published_time").alias("newest_time")]
    newest = published.where("publication_no >= 1").agg(*last)
    time = F.greatest(F.lit(now), F.col("newest_time"))  # clocks of machines differ; greatest passes over NULL
    in_order = Window.orderBy("click_time", "click_id")
    columns = {
        "replay_id": F.lit(plan.plan_id),
        "publication_no": F.col("newest") + 1,
        "ordinal": F.row_number().over(in_order).cast("bigint"),
        "billing_month": F.date_format("local_date", "yyyy-MM"),
        "new_is_invalid": F.coalesce("is_invalid", F.lit(False)),
        "new_model_version": F.col("model_version"),
        "new_score": F.col("score"),
        "new_threshold": F.col("threshold"),
        "reason_class": F.lit("reverted")
        if plan.reverts
        else F.when(F.col("direction") == "invalidate", "invalid_traffic").otherwise("restored"),
        "mode": F.lit(plan.pins["mode"]),
        "reverts_replay_id": F.lit(plan.reverts).cast("string"),
        "published_time": time,
        "correction_date": F.to_date(time),
    }
    changed = corrected(rows).crossJoin(F.broadcast(newest))
    return changed.withColumns(columns).select(*CORRECTIONS.names)


def published_state(changed: DataFrame, firsts: DataFrame | None, *, run_id: str, now: datetime) -> DataFrame:
    """Rows of `current_decisions` for the rows `changing`; first_… belong to the first decision.

    Of a revert `firsts` are the rows of `decisions`: where the first decision holds again, it comes back as it was. A click that
    nothing decides any more is marked for `is_gone`.
    """
    columns = {
        "first_model_version": F.lit(None).cast("string"),
        "is_invalid": F.coalesce("is_invalid", F.lit(False)),
        "slice": F.coalesce("slice", F.lit(UNDECIDED)),
        "basis": F.when(F.col("is_invalid").isNull(), UNDECIDED).otherwise(F.col("basis")),
        "first_is_invalid": F.lit(None).cast("boolean"),
        "run_id": F.lit(run_id),
        "decided_time": F.lit(now),
        "corrected_time": F.lit(now),
    }
    if firsts is None:
        return changed.withColumns(columns).select(*CURRENT_DECISIONS.names)
    to_first = F.col("replay_id").isNull() & F.col("is_invalid").isNotNull()
    by_replay = changed.where(~to_first).withColumns(columns).select(*CURRENT_DECISIONS.names)
    back = firsts.join(changed.where(to_first).select("click_id"), on="click_id", how="left_semi")
    return by_replay.unionByName(scoring.as_published(back))


def is_gone() -> Column:
    """Whether a row of `published_state` says that nothing decides the click any more."""
    return F.col("basis") == UNDECIDED


def differing(changed: DataFrame, current: DataFrame) -> DataFrame:
    """Planned rows whose click is not published as they say."""
    there = current.select("click_id", *[F.col(name).alias(f"there_{name}") for name in ("is_invalid", "model_version", "replay_id")])
    both = changed.join(there, on="click_id", how="left")
    same = [F.col(name).eqNullSafe(F.col(f"there_{name}")) for name in ("is_invalid", "model_version", "replay_id")]
    gone = F.col("is_invalid").isNull() & F.col("there_is_invalid").isNull()
    return both.where(~(gone | (same[0] & same[1] & same[2])))
