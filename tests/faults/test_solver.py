"""The solver fails: in each way in which it can, the method that needs it is refused, and no other."""

from collections.abc import Callable

import numpy as np
import pytest

from slidr.calibration import calibrate, quadratic
from slidr.errors import GuardrailError
from tests.faults.summary import REFUSED, SURVIVED
from tests.test_calibration import SETTINGS, three


def raises(error: Exception) -> Callable[[pytest.MonkeyPatch], None]:
    def broken(*_: object, **__: object) -> None:
        raise error

    return lambda patch: patch.setattr(quadratic.cp.Problem, "solve", broken)


def ends_as(status: str | None) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(quadratic.cp.Problem, "status", status)


def answers(value: float | None) -> Callable[[pytest.MonkeyPatch], None]:
    real = quadratic.cp.Problem.solve

    def solve(problem: quadratic.cp.Problem, **given: object) -> None:
        real(problem, **given)
        (variable,) = problem.variables()
        variable.save_value(None if value is None else np.full(variable.shape, value))

    return lambda patch: patch.setattr(quadratic.cp.Problem, "solve", solve)


BROKEN = {
    "raises": raises(quadratic.cp.error.SolverError("Solver 'CLARABEL' failed. Try another solver")),
    "divides by zero": raises(ZeroDivisionError("division by zero")),
    "refuses its data": raises(ValueError("Problem has NaN data")),
    "infeasible": ends_as("infeasible"),
    "unbounded": ends_as("unbounded"),
    "inaccurate": ends_as("optimal_inaccurate"),
    "time limit": ends_as("user_limit"),
    "no status": ends_as(None),
    "no answer": answers(None),
    "NaN": answers(float("nan")),
    "infinite": answers(float("inf")),
}


@pytest.mark.fault("the solver raises, ends otherwise than optimal, or answers NaN", "calibration by it ends with exit 4", ends=REFUSED)
@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_solver_decides_nothing(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BROKEN[how](monkeypatch)
    with pytest.raises(GuardrailError, match="expected the solver CLARABEL to end as optimal") as caught:
        calibrate(three(), **SETTINGS)
    assert "\n" not in str(caught.value)


@pytest.mark.fault(
    "the solver fails, and another method decides", "its thresholds are chosen, the failure is kept beside them", ends=SURVIVED
)
def test_a_broken_solver_stops_no_other_method(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = calibrate(three(), **SETTINGS | {"method": "bounded"})
    BROKEN["raises"](monkeypatch)
    found = calibrate(three(), **SETTINGS | {"method": "bounded"})
    assert found.thresholds == whole.thresholds
    assert "it failed" in found.refused["quadratic"]
