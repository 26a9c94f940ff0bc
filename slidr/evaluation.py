"""How good decisions are: IVR, FPR and robotic coverage with intervals, from small counts by slice, score and hour of week.

All of it is of unweighted clicks. FPR is a lower estimate of the harm to people: purchasing clicks are the most human ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from scipy.special import bdtr  # type: ignore[import-untyped]

from slidr.curves import BAD_BIN, BINS, THRESHOLDS, TOTAL, Curve, Lead, lead_of_baselines, pool, share
from slidr.intervals import LEVEL, interval
from slidr.thresholds import Calibration
from slidr.zones import local_time

FPR_NOTE = (
    "FPR is a lower estimate of the harm to people (about half of it in simulation): purchasing clicks are the most human ones. "
    "The share of high-RFM, non-purchasing clicks invalidated stands beside it."
)
SHARES = {  # share -> its counts
    "ivr": ("invalid", "clicks"),
    "fpr": ("purchasing_invalid", "purchasing"),
    "high_rfm_fpr": ("high_rfm_invalid", "high_rfm"),
    "coverage": ("heavy_invalid", "heavy"),
}

METRIC_COLUMNS = (
    "slice",
    "threshold",
    "clicks",
    "invalid",
    "ivr",
    "purchasing",
    "purchasing_invalid",
    "fpr",
    "high_rfm",
    "high_rfm_invalid",
    "high_rfm_fpr",
    "heavy",
    "heavy_invalid",
    "coverage",
)


def score_bin(score: Column) -> Column:
    """ceil(score * 10000) of a score with 6 decimals, in whole millionths: 0.0007 * 10000 would exceed 7 as a double.

    NULL for NULL; -1 for NaN and scores outside [0, 1].
    """
    millionths = F.round(score * 1_000_000).cast("bigint")
    valid = ~F.isnan(score) & score.between(0.0, 1.0)
    per_bin = 1_000_000 // BINS
    return F.when(valid, F.floor((millionths + F.lit(per_bin - 1)) / F.lit(per_bin)).cast("int")).when(score.isNotNull(), F.lit(BAD_BIN))


def score_histogram(scored: DataFrame, *, by: Sequence[str] = ()) -> DataFrame:
    """One row per slice and occupied score bin: slice, bin, clicks, purchasing, high_rfm, heavy. One aggregation.

    `by` names further columns to count apart, such as the method or the part of the clicks. `scored` has one row per
    labelled click: slice, score, is_purchase, label_reason, in_heavy_session. Clicks without a score are left out. NaN and
    scores outside [0, 1] go to bin -1, which `curves` refuses. At most slices x 10002 rows.
    """
    bins = scored.select(
        *by,
        "slice",
        score_bin(F.col("score")).alias("bin"),
        F.col("is_purchase").alias("purchasing"),
        ((F.col("label_reason") == "rfm") & ~F.col("is_purchase")).alias("high_rfm"),
        F.col("in_heavy_session").alias("heavy"),
    )
    counted = bins.where(F.col("bin").isNotNull()).groupBy(*by, "slice", "bin")
    return counted.agg(
        F.count(F.lit(1)).alias("clicks"),
        F.count_if("purchasing").alias("purchasing"),
        F.count_if("high_rfm").alias("high_rfm"),
        F.count_if("heavy").alias("heavy"),
    )


def with_shares(counts: pd.DataFrame) -> pd.DataFrame:
    """`counts` with the four SHARES and `<share>_low`, `<share>_high`; shares of nothing are NaN."""
    table = counts.copy()
    for name, (part, whole) in SHARES.items():
        k, n = counts[part].to_numpy(dtype=np.float64), counts[whole].to_numpy(dtype=np.float64)
        table[name] = np.divide(k, n, out=np.full(len(k), np.nan), where=n > 0)
        table[f"{name}_low"], table[f"{name}_high"] = interval(k, n)
    return table


def hour_of_week(zones: Mapping[str, str]) -> Column:
    """0 (Monday, 0 h) to 167 in the local time of the marketplace; reads click_time and marketplace."""
    local = local_time(F.col("click_time"), F.col("marketplace"), zones)
    return F.weekday(local) * 24 + F.hour(local)


def decided_counts(decided: DataFrame, *, by: Sequence[str], deciders: Sequence[str]) -> DataFrame:
    """One row per decider and group of `by`: the counts of SHARES. One aggregation.

    `decided` has one row per labelled click: is_purchase, label_reason, in_heavy_session, and a boolean `invalid_<decider>` each.
    """
    signs = {
        "purchasing": F.col("is_purchase"),
        "high_rfm": (F.col("label_reason") == "rfm") & ~F.col("is_purchase"),
        "heavy": F.col("in_heavy_session"),
    }
    each = F.explode(F.array(*[F.struct(F.lit(name).alias("method"), F.col(f"invalid_{name}").alias("is_invalid")) for name in deciders]))
    rows = decided.select(*by, *[sign.alias(name) for name, sign in signs.items()], each.alias("by")).select(*by, *signs, "by.*")
    counts = [F.count(F.lit(1)).alias("clicks"), F.count_if("is_invalid").alias("invalid")]
    for name in signs:
        counts += [F.count_if(name).alias(name), F.count_if(F.col(name) & F.col("is_invalid")).alias(f"{name}_invalid")]
    return rows.groupBy("method", *by).agg(*counts)


def rolled_up(counts: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Counts of SHARES summed over everything but `by`, with shares and intervals; one row per group, in order."""
    names = [name for pair in SHARES.values() for name in pair]
    return with_shares(counts.groupby(list(by), sort=True, as_index=False)[names].sum())


def slice_metrics(curves: Mapping[str, Curve], thresholds: Mapping[str, float], default: float) -> pd.DataFrame:
    """One row per slice, then one of all slices (slice `(all)`, no threshold): counts and shares at the thresholds.

    Columns METRIC_COLUMNS; a slice without a threshold of its own gets `default`; shares of nothing are NaN.
    """
    rows = []
    for name, curve in curves.items():
        threshold = thresholds.get(name, default)
        rows.append({"slice": name, "threshold": threshold} | curve.at(threshold))
    table = pd.DataFrame(rows, columns=list(METRIC_COLUMNS))
    return pd.concat([table, pd.DataFrame([_total(table)])], ignore_index=True)


def _total(table: pd.DataFrame) -> dict[str, object]:
    counts = ("clicks", "invalid", "purchasing", "purchasing_invalid", "high_rfm", "high_rfm_invalid", "heavy", "heavy_invalid")
    total: dict[str, object] = {"slice": TOTAL, "threshold": float("nan")}
    sums = {name: int(table[name].sum()) for name in counts}
    total |= sums
    total["ivr"] = share(sums["invalid"], sums["clicks"])
    total["fpr"] = share(sums["purchasing_invalid"], sums["purchasing"])
    total["high_rfm_fpr"] = share(sums["high_rfm_invalid"], sums["high_rfm"])
    total["coverage"] = share(sums["heavy_invalid"], sums["heavy"])
    return {name: total[name] for name in METRIC_COLUMNS}


def compare_at_budget(curves_by_method: Mapping[str, Mapping[str, Curve]], budget: float) -> pd.DataFrame:
    """One row per method (`mlp`, `logistic`, `velocity` …) at one global threshold of the same FPR budget.

    Columns: method, those of METRIC_COLUMNS but `slice`, then `<share>_low` and `<share>_high`. The interval of the IVR is that
    of `ivr_interval`, which knows that the threshold was chosen on these clicks. The curves must be of the same clicks.
    Raises InputError without purchasing clicks.
    """
    rows = []
    for method, curves in curves_by_method.items():
        curve = pool(curves)
        threshold = curve.threshold_at_fpr(budget)
        rows.append({"method": method, "threshold": threshold} | curve.at(threshold))
    table = with_shares(pd.DataFrame(rows, columns=["method", *METRIC_COLUMNS[1:]]))
    bounds = [ivr_interval(pool(curves), budget) for curves in curves_by_method.values()]
    table["ivr_low"], table["ivr_high"] = ([bound[side] for bound in bounds] for side in (0, 1))
    return table


def ivr_interval(curve: Curve, fpr: float) -> tuple[float, float]:
    """Interval at LEVEL of the IVR at the threshold whose FPR in the population is `fpr`.

    Of P purchasing clicks Binomial(P, fpr) lie above that threshold (order statistics: no assumption about the scores), which
    bounds the threshold, and so the IVR. With few purchasing clicks nothing bounds it from above: the lower end is then 0.
    """
    k = np.arange(curve.purchasing + 1, dtype=np.float64)
    at_most = bdtr(k, curve.purchasing, fpr)
    few, many = (int(np.argmax(at_most >= level)) for level in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    enough = np.flatnonzero(curve.purchasing_invalid >= few) if few else np.array([BINS])
    within = np.flatnonzero(curve.purchasing_invalid <= many)
    return tuple(share(int(curve.invalid[position]), curve.clicks) for position in (enough[-1], within[0]))  # type: ignore[return-value]


def threshold_table(
    curves_by_part: Mapping[str, Mapping[str, Curve]], thresholds: Mapping[str, float], default: float, chosen: Mapping[str, str]
) -> pd.DataFrame:
    """One row per slice and one of all: slice, threshold, chosen (how), then for each part its metrics as `<part>_<metric>`.

    Metrics: clicks, purchasing, ivr, fpr with interval, high_rfm_fpr, coverage. A slice that a part lacks has NaN there.
    """
    table: pd.DataFrame | None = None
    for part, curves in curves_by_part.items():
        metrics = with_shares(slice_metrics(curves, thresholds, default)).set_index("slice")
        wanted = metrics[["clicks", "purchasing", "ivr", "fpr", "fpr_low", "fpr_high", "high_rfm_fpr", "coverage"]].add_prefix(f"{part}_")
        table = wanted if table is None else table.join(wanted, how="outer")
    assert table is not None, "at least one part"
    table.insert(0, "threshold", [thresholds.get(name, float("nan") if name == TOTAL else default) for name in table.index])
    table.insert(1, "chosen", [chosen.get(name, "" if name == TOTAL else "default: not seen in calibration") for name in table.index])
    ordered = sorted(table.index, key=lambda name: (name == TOTAL, name))
    return table.loc[ordered].rename_axis("slice").reset_index()


def label_histogram(curve: Curve, width: int = 200) -> pd.DataFrame:
    """Clicks by score, `width` bins of the curve in one row: score (lower edge), purchasing, high_rfm, other, heavy."""
    edges = np.arange(0, BINS + 1, width)
    above = {
        "clicks": curve.invalid,
        "purchasing": curve.purchasing_invalid,
        "high_rfm": curve.high_rfm_invalid,
        "heavy": curve.heavy_invalid,
    }
    counts = {}
    for name, invalid in above.items():
        # Scores of exactly 0 lie above no threshold: they belong to the first row.
        left = np.concatenate([[getattr(curve, name)], invalid[edges[1:]]])
        counts[name] = left[:-1] - left[1:]
    table = pd.DataFrame({"score": THRESHOLDS[edges[:-1]], **counts})
    table["other"] = table["clicks"] - table["purchasing"] - table["high_rfm"]
    return table[["score", "purchasing", "high_rfm", "other", "heavy"]]


@dataclass(frozen=True)
class Judgement:
    """What is known of a new version before it decides anything; aggregates only.

    `curves`: part (`calibration`, `judging`) -> method -> slice -> curve, all methods on the same clicks of a part; the method
    `champion` is in `judging` alone, where it could be compared. `hours`: counts of `decided_counts` by method (`new`, `champion`
    and `both`), slice and hour_of_week on the judging days, each deciding by its own thresholds. `champion` is the number of
    the version that decides now; `note` says why it is not compared, '' where it is. `money`: what each method of calibration
    invalidates on the judging days, by decider (the method), slice and currency: cost_micros, invalid_cost_micros.
    """

    method: str  # the one that becomes the version; the others but `champion` are baselines
    calibration: Calibration
    curves: Mapping[str, Mapping[str, Mapping[str, Curve]]]
    hours: pd.DataFrame
    money: pd.DataFrame
    champion: str | None
    note: str

    @property
    def judged(self) -> dict[str, Mapping[str, Curve]]:
        """Method -> slice -> curve of the judging days: the new version first, then the champion, then the baselines."""
        found = self.curves["judging"]
        return {name: found[name] for name in sorted(found, key=lambda name: (name != self.method, name != "champion", name))}

    @property
    def purchasing(self) -> int:
        """Purchasing clicks of the judging days."""
        return sum(curve.purchasing for curve in self.judged[self.method].values())

    def compared(self) -> pd.DataFrame:
        """All methods at one global threshold of the same FPR on the judging days; no rows where nobody purchased."""
        return compare_at_budget(self.judged if self.purchasing else {}, self.calibration.fpr_budget)

    def lead(self) -> Lead | None:
        """The best baseline beside the new version on the judging days; None where they cannot be compared."""
        pooled = {name: pool(curves) for name, curves in self.judged.items()}
        baselines = {name: curve for name, curve in pooled.items() if name not in (self.method, "champion")}
        return lead_of_baselines(pooled[self.method], baselines, self.calibration.fpr_budget)

    def metrics(self, part: str) -> pd.DataFrame:
        """`slice_metrics` of the new version on a part."""
        return slice_metrics(self.curves[part][self.method], self.calibration.thresholds, self.calibration.default_threshold)

    def thresholds(self) -> pd.DataFrame:
        """`threshold_table` of the new version, both parts side by side."""
        found = self.calibration
        by_part = {part: methods[self.method] for part, methods in self.curves.items()}
        return threshold_table(by_part, found.thresholds, found.default_threshold, {row.slice: row.outcome for row in found.slices})

    def calibrations(self, part: str) -> pd.DataFrame:
        """`slice_metrics` with intervals on a part by each method of calibration that has an answer: column `decider`, then theirs."""
        of_part = self.curves[part][self.method]
        tables = [
            slice_metrics(of_part, solution.thresholds, solution.default_threshold).assign(decider=name)
            for name, solution in self.calibration.solutions.items()
        ]
        return with_shares(pd.concat(tables, ignore_index=True))

    def decided(self, *by: str) -> pd.DataFrame:
        """What new version and champion decide by their own thresholds, by method and `by`: slice, hour_of_week, both or none."""
        return rolled_up(self.hours, ("method", *by))
