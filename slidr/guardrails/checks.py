"""One measurement against its bound, as a row of a table; what stops a run, and what is said then."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from slidr.errors import GuardrailError

# Chance that all hours (or slices) of a check together stop a run although each of them is as it should be.
FALSE_STOPS = 0.01
PASSED, FAILED, LEFT_OUT = "passed", "failed", "not judged"


@dataclass(frozen=True)
class Check:
    """One measurement against its bound; `advice` says where it failed and what to do, or why there was nothing to measure.

    `observed` is NaN where there was nothing to measure. `at_least` says on which side of the bound the observed value must
    be. `query` is a text for `slidr sql` that shows the rows behind it; empty where no table holds them.
    """

    name: str
    observed: float
    bound: float
    passed: bool
    advice: str
    at_least: bool = False
    query: str = ""

    @property
    def verdict(self) -> str:
        if not self.passed:
            return FAILED
        return LEFT_OUT if math.isnan(self.observed) else PASSED


def at_most(name: str, observed: float, bound: float, advice: str, query: str = "") -> Check:
    """Passes if observed <= bound; NaN does not pass."""
    return Check(name, float(observed), float(bound), bool(observed <= bound), advice, query=query)


def at_least(name: str, observed: float, bound: float, advice: str, query: str = "") -> Check:
    """Passes if observed >= bound; NaN does not pass."""
    return Check(name, float(observed), float(bound), bool(observed >= bound), advice, at_least=True, query=query)


def left_out(name: str, bound: float, why: str, *, minimum: bool = False) -> Check:
    """There was nothing to measure: the check passes and says why."""
    return Check(name, math.nan, float(bound), True, why, at_least=minimum)


def rows(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """The table: one plain dictionary per check, failed ones first; None where nothing was measured (JSON has no NaN)."""
    order = {FAILED: 0, PASSED: 1, LEFT_OUT: 2}
    return [
        {
            "check": check.name,
            "observed": float(check.observed) if math.isfinite(check.observed) else None,
            "must be": "at least" if check.at_least else "at most",
            "bound": float(check.bound) if math.isfinite(check.bound) else None,
            "verdict": check.verdict,
            "why": check.advice,
            "query": check.query,
        }
        for check in sorted(checks, key=lambda check: order[check.verdict])
    ]


def one_line(failed: Sequence[Check]) -> str:
    """The failed checks with their values and bounds on one line."""
    parts = [f"{c.name} is {c.observed:.6g}, must be at {'least' if c.at_least else 'most'} {c.bound:.6g}" for c in failed]
    return "; ".join(parts)


def require(checks: Sequence[Check], override: str | None) -> list[Check]:
    """The failed checks. Raises GuardrailError with the table, unless a reason to override is given (the caller records it).

    The first line of the message is the whole reason; the lines after it say where each check failed and what to do.
    """
    failed = [check for check in checks if not check.passed]
    if not failed or (override and override.strip()):
        return failed
    lines = [f"  {check.name}: observed {check.observed:.6g}, bound {check.bound:.6g}; {check.advice}" for check in failed]
    lines += [f"    look at it: slidr sql {_quoted(check.query)}" for check in failed[:1] if check.query]
    raise GuardrailError(
        f"stopped by {len(failed)} of {len(checks)} guardrails, nothing was published: {one_line(failed)}\n"
        + "\n".join(lines)
        + '\nmend the cause, or run again with --override "reason", which is put on record',
        rows(checks),
    )


@contextmanager
def beside(checks: Sequence[Check], name: str) -> Iterator[None]:
    """A guardrail inside the block that knows nothing of the table (weights, loss, thresholds) stops the run with the table
    and a row of its own, `name`."""
    try:
        yield
    except GuardrailError as error:
        row: Mapping[str, Any] = rows([Check(name, math.nan, math.nan, False, str(error))])[0]
        raise GuardrailError(str(error), [row, *rows(checks)]) from error


def poisson_at_most(found: int, expected: float) -> float:
    """P(X <= found) for X Poisson with mean `expected`, summed from its logarithms."""
    if expected <= 0:
        return 1.0
    k = np.arange(found + 1)
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, found + 1)))])
    return min(1.0, float(np.exp(k * np.log(expected) - expected - log_factorials).sum()))


def poisson_at_least(found: int, expected: float) -> float:
    """P(X >= found) for X Poisson with mean `expected`."""
    return 1.0 - poisson_at_most(found - 1, expected) if found > 0 else 1.0


def _quoted(query: str) -> str:
    return f'"{query}"'
