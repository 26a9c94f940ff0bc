"""Thresholds that a calibration chose, and how: plain values that the registry, reports and guardrails read. No cvxpy."""

from collections.abc import Mapping
from dataclasses import dataclass

NAN = float("nan")
METHODS = ("bounded", "quadratic", "frontier", "global")
FOLDS = 5  # of the users of the calibration clicks; thresholds are judged on the fold that they were not learnt from


@dataclass(frozen=True)
class SliceThreshold:
    """How one slice got its threshold. Shares are in [0, 1]; NaN where a number does not exist.

    `w` is the slice's share of clicks, `p` its share of purchasing clicks; `floor` the FPR at which the minimum coverage is
    reached; `f` the FPR that the method reckons with at `threshold`; `fpr`, `ivr` and `coverage` are those of the calibration
    clicks there. `a`, `b`, `c`: the fit ivr = a f² + b f + c of the method `quadratic`. `own`: how much of `f` is the slice's own
    clicks, the rest is borrowed from its parents (method `bounded`). `outcome` says it in words; `global: why` where the slice
    could not be fitted and takes the global threshold.
    """

    slice: str
    clicks: int
    purchasing: int
    w: float
    p: float
    floor: float
    f: float
    threshold: float
    fpr: float
    ivr: float
    coverage: float
    outcome: str
    a: float = NAN
    b: float = NAN
    c: float = NAN
    own: float = 1.0

    @property
    def fitted(self) -> bool:
        return not self.outcome.startswith("global:")


@dataclass(frozen=True)
class Solution:
    """One method's thresholds. `default_threshold` is for any slice that the calibration clicks do not have.

    `ivr`, `fpr` are those of all calibration clicks at the thresholds. `held_out` is the FPR of clicks that did not choose the
    thresholds that they were judged by (NaN where the method holds none out), `bound` what it is at most, at the confidence of
    the calibration; NaN where nothing bounds it. `price`: IVR gained per unit of budget, lowest and highest where it is not
    unique. `solver`, `status`, `objective`: of the optimisation, the objective in shares of all clicks.
    """

    method: str
    slices: tuple[SliceThreshold, ...]
    default_threshold: float
    ivr: float
    fpr: float
    price: tuple[float, float]
    solver: str
    status: str
    objective: float = NAN
    held_out: float = NAN
    bound: float = NAN
    note: str = ""

    @property
    def thresholds(self) -> dict[str, float]:
        """Slice -> threshold, every slice of the calibration clicks."""
        return {row.slice: row.threshold for row in self.slices}


@dataclass(frozen=True)
class Calibration:
    """The answers of all methods on the same clicks, of which `method` decides; `refused`: method -> why it has none.

    `purchasing` are the purchasing clicks of all slices, `effective` what they are worth as independent ones, since those of one
    user are not. `knee` is (threshold, FPR, IVR) of the knee of the pooled curve, for pictures only. `resolution`: share of the
    clicks in the score bins next to the chosen thresholds; finer bins could not invalidate more than these at the same FPR.
    """

    method: str
    solutions: Mapping[str, Solution]
    refused: Mapping[str, str]
    fpr_budget: float
    fpr_max: float
    min_coverage: float
    fit_fpr: float
    confidence: float
    purchasing: int
    effective: float
    knee: tuple[float, float, float]
    resolution: float

    @property
    def chosen(self) -> Solution:
        return self.solutions[self.method]

    @property
    def thresholds(self) -> dict[str, float]:
        return self.chosen.thresholds

    @property
    def default_threshold(self) -> float:
        return self.chosen.default_threshold

    @property
    def slices(self) -> tuple[SliceThreshold, ...]:
        return self.chosen.slices
