"""How often does a budget hold on the population, and what does it cost? Redraws of known populations, all methods on the same clicks.

    python -m tests.bench.calibration --redraws 400 --out study.csv [--population NAME …] [--processes 2]

Beside the four methods of slidr: `split`, a fixed sequence of tests on clicks that learnt nothing (Learn then Test, Angelopoulos et al.
2021), `umbrella`, each slice by itself with the order statistic of Tong, Feng and Li (2018) at confidence 1 - 5 % / slices, and
`alone`, the cross-fitting of `bounded` without borrowing.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from slidr.calibration import SOLVERS, calibrate, crossfit
from slidr.calibration.borrowing import Borrowing, choose, estimate
from slidr.calibration.concave import path
from slidr.calibration.correlation import count_pairs, design_effect
from slidr.calibration.counts import Shares, counts, parents
from slidr.calibration.problem import Problem
from slidr.curves import curves
from slidr.intervals import interval
from tests.populations import FOLDS, Population, Sample, make

BUDGET, CONFIDENCE = 0.01, 0.95
SETTINGS = {
    "method": "bounded",
    "fpr_budget": BUDGET,
    "fpr_max": 0.1,
    "min_coverage": 0.0,
    "fit_fpr": 0.06,
    "min_purchases": 30,
    "confidence": CONFIDENCE,
}
LEARNS = np.arange(FOLDS) < 2  # folds that learn in `split`; the others test
POPULATIONS: dict[str, tuple[Population, dict[str, float]]] = {
    "6 slices": (make(6, 1), {}),
    "6, few purchases": (make(6, 2, clicks=30_000, purchases=600), {}),
    "12 slices": (make(12, 3), {}),
    "12, alike": (make(12, 8, spread=0.1), {}),
    "12, half of them rare": (make(12, 6, rare=True), {}),
    "48 slices": (make(48, 4, parents=4), {}),
    "48, tiny": (make(48, 5, parents=4, clicks=50_000, purchases=1000), {}),
    "6, 40 score levels": (make(6, 7, levels=40), {}),
    "12, coverage 0.3 asked": (make(12, 10), {"min_coverage": 0.3, "fpr_budget": 0.03, "fpr_max": 0.2}),
    "12, users of 3 clicks": (make(12, 9, likeness=0.7, clicks_of_user=3.0), {}),
    "12, budget 3 %": (make(12, 11), {"fpr_budget": 0.03, "fpr_max": 0.2}),
}


def redraws(name: str, number: int) -> pd.DataFrame:
    """One row per redraw and method: population, redraw, method, fpr, ivr, oracle, budget."""
    population, changed = POPULATIONS[name]
    budget = SETTINGS["fpr_budget"] if "fpr_budget" not in changed else changed["fpr_budget"]
    oracle = population.best_ivr(float(budget))
    random = np.random.default_rng(list(name.encode()))
    rows = []
    for redraw in range(number):
        for method, thresholds in answers(population.sample(random), changed):
            chosen = np.array([thresholds.get(of, 1.0) for of in population.names])
            found = {"fpr": population.fpr(chosen), "ivr": population.ivr(chosen)}
            rows.append({"population": name, "redraw": redraw, "method": method, **found, "oracle": oracle, "budget": budget})
    return pd.DataFrame(rows)


def answers(sample: Sample, changed: dict[str, float]) -> Iterator[tuple[str, dict[str, float]]]:
    """(method, thresholds by slice) of all methods that have an answer."""
    settings = {**SETTINGS, **changed}
    effect = design_effect(count_pairs(sample.user, sample.bins), float(settings["fpr_budget"]))
    found = calibrate(sample.histogram, effect=effect, **settings)
    for method, solution in found.solutions.items():
        yield method, solution.thresholds
    wanted = {name: value for name, value in settings.items() if name != "method"}
    problem = Problem(curves(sample.histogram), counts(sample.histogram), effect=effect, **wanted)
    for method, choose_by in OTHERS.items():
        yield method, dict(zip(problem.counts.slices, choose_by(problem), strict=True))


def split(problem: Problem) -> Shares:
    """Thresholds learnt on two fifths of the users and tested on the others, one after the other until the first that fails."""
    learns, tests = (problem.counts.of_folds(chosen) for chosen in (LEARNS, ~LEARNS))
    inner = replace(problem.counts, **{name: getattr(problem.counts, name)[:, LEARNS] for name in vars(problem.counts) if _by_fold(name)})
    cost, _ = estimate(learns, problem.levels, choose(inner, problem.levels, problem.fpr_budget), problem.fpr_budget)
    found = path(cost, learns.clicks / learns.all_clicks.sum(), *problem.allowed(learns, cost))
    positions = found.positions(np.arange(len(found.price)))
    effect = problem.effect
    whole = float(tests.all_purchasing.sum()) / effect
    passed = crossfit.holds(tests.spend(positions) / effect, whole, problem.fpr_budget, problem.confidence)
    return problem.counts.thresholds[positions[:, max(passed - 1, 0)]]


def umbrella(problem: Problem) -> Shares:
    """Each slice by itself within the budget."""
    confidence = 1 - (1 - problem.confidence) / len(problem.counts.slices)
    spent, purchasing = problem.sums.purchasing / problem.effect, problem.sums.all_purchasing / problem.effect
    passed = [crossfit.holds(row, float(of), problem.fpr_budget, confidence) for row, of in zip(spent, purchasing, strict=True)]
    return problem.counts.thresholds[np.maximum(np.array(passed) - 1, 0)]


def alone(problem: Problem) -> Shares:
    """`crossfit.select` where a slice borrows next to nothing."""
    nothing = Borrowing("share", 1e-3)
    found = crossfit.select(
        problem.counts,
        parents(problem.counts.slices),
        problem.allowed,
        nothing,
        budget=problem.fpr_budget,
        confidence=problem.confidence,
        effect=problem.effect,
    )
    return problem.counts.thresholds[found.position] if found.holds else np.ones(len(problem.counts.slices))


OTHERS: dict[str, Callable[[Problem], Shares]] = {"split": split, "umbrella": umbrella, "alone": alone}


def _by_fold(name: str) -> bool:
    return name not in ("slices", "thresholds")


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per population and method: redraws, exceeded (share of redraws over budget) with its 95 % interval, ivr / oracle."""
    over = rows.assign(over=rows["fpr"] > rows["budget"] + 1e-12, of_oracle=rows["ivr"] / rows["oracle"])
    table = over.groupby(["population", "method"], sort=False).agg(
        redraws=("over", "size"), over=("over", "sum"), mean_fpr=("fpr", "mean"), of_oracle=("of_oracle", "mean")
    )
    table["exceeded"] = table["over"] / table["redraws"]
    table["exceeded_low"], table["exceeded_high"] = interval(table["over"], table["redraws"])
    return table.drop(columns="over").reset_index()


def seconds(slices: int, repeats: int) -> dict[str, float]:
    """Median CPU seconds on a sample with so many slices of 300 purchasing clicks each: reading the histogram, and each method."""
    sample = make(slices, 1, parents=max(slices // 10, 1), clicks=3000 * slices, purchases=300 * slices).sample(np.random.default_rng(1))
    wanted = {name: value for name, value in SETTINGS.items() if name != "method"}
    taken: dict[str, list[float]] = {}

    def timed(name: str, step: Callable[[], object]) -> object:
        began = time.process_time()
        made = step()
        taken.setdefault(name, []).append(time.process_time() - began)
        return made

    for _ in range(repeats):
        problem = timed("histogram", lambda: Problem(curves(sample.histogram), counts(sample.histogram), effect=1.0, **wanted))
        for name, solve in SOLVERS.items():
            timed(name, partial(solve, problem))
    return {name: float(np.median(of)) for name, of in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--redraws", type=int, default=400)
    parser.add_argument("--population", nargs="*", default=list(POPULATIONS))
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seconds", type=int, nargs="*", default=[], help="numbers of slices to time instead")
    wanted = parser.parse_args()
    if wanted.seconds:
        for slices in wanted.seconds:
            found = seconds(slices, 3)
            print(f"{slices:>6} slices, CPU s: " + ", ".join(f"{name} {of:.3f}" for name, of in found.items()), flush=True)
        return
    with ProcessPoolExecutor(wanted.processes) as pool:
        found = []
        for rows in pool.map(redraws, wanted.population, [wanted.redraws] * len(wanted.population)):
            found.append(rows)
            print(summary(rows).to_string(index=False, float_format="{:.4f}".format), flush=True)
            if wanted.out:
                pd.concat(found).to_csv(wanted.out, index=False)


if __name__ == "__main__":
    main()
