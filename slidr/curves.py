"""Score histograms as curves: what each threshold would invalidate, slice by slice. numpy and pandas only.

Scores have 6 decimals. Score bin k = ceil(score * 10000) holds (k-1)/10000 < score <= k/10000, bin 0 holds score 0, so that
"score > k/10000" is exactly "bin > k": every threshold is some k/10000, and nothing is approximated.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil, sqrt

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from slidr.errors import InputError

BINS = 10_000
BAD_BIN = -1  # scores that are NaN or outside [0, 1]
TOTAL = "(all)"  # the row of all slices together in tables of metrics
COUNTS = ("clicks", "purchasing", "high_rfm", "heavy")
THRESHOLDS: NDArray[np.float64] = np.arange(BINS + 1) / BINS
# A count of purchases is allowed under a share f if it is at most f * purchases; this absorbs the rounding of the product.
COUNT_TOLERANCE = 1e-9

Counts = NDArray[np.int64]
Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """What the thresholds 0/10000 … 10000/10000 invalidate in one slice.

    The arrays have one entry per threshold, ascending, so counts and FPR descend: entry k counts the clicks with
    score > k/10000, entry 10000 is 0. `purchasing_invalid`, `high_rfm_invalid` (high RFM without purchase) and
    `heavy_invalid` (clicks of heavy sessions) are parts of `invalid`; the plain numbers are the slice's totals.
    """

    invalid: Counts = field(repr=False)
    purchasing_invalid: Counts = field(repr=False)
    high_rfm_invalid: Counts = field(repr=False)
    heavy_invalid: Counts = field(repr=False)
    clicks: int
    purchasing: int
    high_rfm: int
    heavy: int

    @property
    def thresholds(self) -> Shares:
        return THRESHOLDS

    @property
    def ivr(self) -> Shares:
        """Invalid share of clicks at each threshold; NaN without clicks."""
        return shares(self.invalid, self.clicks)

    @property
    def fpr(self) -> Shares:
        """Invalid share of purchasing clicks at each threshold; NaN without purchasing clicks."""
        return shares(self.purchasing_invalid, self.purchasing)

    @property
    def coverage(self) -> Shares:
        """Invalid share of clicks of heavy sessions at each threshold; NaN, which is no 0, where there are none."""
        return shares(self.heavy_invalid, self.heavy)

    def at(self, threshold: float) -> dict[str, float]:
        """Counts and shares at one threshold; shares of nothing are NaN."""
        k = index(threshold)
        counts = {
            "clicks": self.clicks,
            "invalid": int(self.invalid[k]),
            "purchasing": self.purchasing,
            "purchasing_invalid": int(self.purchasing_invalid[k]),
            "high_rfm": self.high_rfm,
            "high_rfm_invalid": int(self.high_rfm_invalid[k]),
            "heavy": self.heavy,
            "heavy_invalid": int(self.heavy_invalid[k]),
        }
        return counts | {
            "ivr": share(counts["invalid"], self.clicks),
            "fpr": share(counts["purchasing_invalid"], self.purchasing),
            "high_rfm_fpr": share(counts["high_rfm_invalid"], self.high_rfm),
            "coverage": share(counts["heavy_invalid"], self.heavy),
        }

    def threshold_at_fpr(self, fpr: float) -> float:
        """The threshold that invalidates most clicks with an FPR of at most `fpr`; the highest of those that tie.

        The highest, because they decide these clicks alike and it spares more of the clicks that are not seen yet.
        Raises InputError without purchasing clicks.
        """
        if not self.purchasing:
            raise InputError("expected purchasing clicks to read a threshold at an FPR, found none; use the global threshold")
        allowed = np.flatnonzero(self.purchasing_invalid <= fpr * self.purchasing + COUNT_TOLERANCE)
        if not allowed.size:
            raise InputError(f"expected an FPR of at least 0, found {fpr}")
        return float(THRESHOLDS[self._highest(int(self.invalid[allowed[0]]))])

    def threshold_at_coverage(self, coverage: float) -> float | None:
        """The highest threshold that covers at least this share of clicks of heavy sessions; None where none does."""
        enough = np.flatnonzero(self.heavy_invalid >= coverage * self.heavy - COUNT_TOLERANCE)
        return float(THRESHOLDS[enough[-1]]) if enough.size else None

    def frontier(self) -> tuple[Shares, Shares]:
        """Distinct FPR levels, ascending, and the highest IVR at each: the upper corners of the curve's steps."""
        levels, first = np.unique(self.purchasing_invalid, return_index=True)
        return levels / self.purchasing, self.invalid[first] / self.clicks

    def _highest(self, invalid: int) -> int:
        return int(np.flatnonzero(self.invalid >= invalid)[-1])


def curves(histogram: pd.DataFrame) -> dict[str, Curve]:
    """Curves by slice name, sorted, from rows (slice, bin, clicks, purchasing, high_rfm, heavy), one per slice and bin.

    Raises InputError for scores that are NaN or outside [0, 1], and for counts that cannot be.
    """
    missing = {"slice", "bin", *COUNTS} - set(histogram.columns)
    if missing:
        raise InputError(f"expected a score histogram with slice, bin and counts, found none of {sorted(missing)}")
    _check_bins(histogram)
    return {str(name): _curve(rows) for name, rows in histogram.groupby("slice", sort=True)}


def pool(curves: Mapping[str, Curve]) -> Curve:
    """All slices as one curve, for the global threshold."""
    parts = list(curves.values())
    if not parts:
        raise InputError("expected at least one slice, found none: there were no scored clicks")
    return Curve(
        *(np.sum([getattr(curve, _invalid(name)) for curve in parts], axis=0) for name in COUNTS),
        **{name: sum(getattr(curve, name) for curve in parts) for name in COUNTS},
    )


def index(threshold: float) -> int:
    """k of the threshold k/10000. Raises InputError for any other number: it would cut through a bin."""
    k = round(threshold * BINS) if np.isfinite(threshold) else -1
    if not 0 <= k <= BINS or k / BINS != threshold:
        raise InputError(f"expected a threshold k/{BINS} with k from 0 to {BINS}, found {threshold}")
    return k


def share(part: float, whole: float) -> float:
    """part / whole; NaN where whole is 0."""
    return part / whole if whole else float("nan")


def shares(part: Counts, whole: int) -> Shares:
    return part / whole if whole else np.full(part.shape, np.nan)


def knee(curve: Curve) -> tuple[float, float, float]:
    """(threshold, FPR, IVR) farthest above the chord of the IVR–FPR curve; NaN without purchasing clicks.

    It knows nothing of the budget: for pictures, never a threshold to use.
    """
    if not curve.purchasing or not curve.clicks:
        return (float("nan"),) * 3
    fpr, ivr = curve.fpr, curve.ivr
    width, height = fpr[0] - fpr[-1], ivr[0] - ivr[-1]
    best = int(np.argmax(ivr * width - fpr * height))
    return float(THRESHOLDS[best]), float(fpr[best]), float(ivr[best])


@dataclass(frozen=True)
class Lead:
    """The best baseline beside the network: IVRs in [0, 1] at one FPR on the same clicks, `allowed` of `purchasing` clicks invalid.

    `beyond_chance`: how far the baseline's IVR is above what the network's would be with good luck.
    """

    baseline: str
    allowed: int
    purchasing: int
    ivr: float
    network_ivr: float
    beyond_chance: float


def lead_of_baselines(network: Curve, baselines: Mapping[str, Curve], budget: float) -> Lead | None:
    """How the best baseline stands beside the network at an FPR budget; None where there is no purchasing click or no baseline.

    The curves are of the same clicks. Of n purchasing clicks k = budget n may be invalid. Which ones are hit is chance: a
    threshold that hits k of them in one sample hits k + 2 sqrt(k + 1) in another now and then. With good luck the network would
    be there; the more clicks, the nearer to k that is.
    """
    if not network.purchasing or not baselines:
        return None
    allowed = int(budget * network.purchasing + COUNT_TOLERANCE)
    ivr = {name: _ivr_at(curve, allowed) for name, curve in baselines.items()}
    best = max(ivr, key=lambda name: ivr[name])
    lucky = _ivr_at(network, allowed + ceil(2 * sqrt(allowed + 1)))
    return Lead(best, allowed, network.purchasing, ivr[best], _ivr_at(network, allowed), ivr[best] - lucky)


def _ivr_at(curve: Curve, allowed: int) -> float:
    """The highest IVR with at most so many purchasing clicks invalid."""
    return float(curve.ivr[curve.purchasing_invalid <= allowed].max())


def _curve(rows: pd.DataFrame) -> Curve:
    bins = rows["bin"].to_numpy(dtype=np.int64)
    in_bin = {name: np.zeros(BINS + 1, dtype=np.int64) for name in COUNTS}
    for name, counts in in_bin.items():
        np.add.at(counts, bins, rows[name].to_numpy(dtype=np.int64))
    above = {name: counts.sum() - np.cumsum(counts) for name, counts in in_bin.items()}
    clicks, purchasing, high_rfm, heavy = (int(counts.sum()) for counts in in_bin.values())
    return Curve(above["clicks"], above["purchasing"], above["high_rfm"], above["heavy"], clicks, purchasing, high_rfm, heavy)


def _invalid(count: str) -> str:
    return "invalid" if count == "clicks" else f"{count}_invalid"


def _check_bins(histogram: pd.DataFrame) -> None:
    bad = histogram[~histogram["bin"].between(0, BINS)]
    if len(bad):
        found = ", ".join(f"{name}: {count}" for name, count in bad.groupby("slice")["clicks"].sum().items())
        raise InputError(f"expected scores in [0, 1], found clicks whose score is NaN or outside ({found}); the model's output is broken")
    parts = histogram[[name for name in COUNTS if name != "clicks"]]
    if (parts.gt(histogram["clicks"], axis=0) | parts.lt(0)).to_numpy().any():
        raise InputError("expected purchasing, high_rfm and heavy counts between 0 and the clicks of their bin, found others")
