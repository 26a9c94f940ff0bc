"""The numbers of a plan, and the guardrails that look at them."""

import math
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from pyspark.sql import DataFrame

from slidr import guardrails
from slidr.config import Config, ReplayConf
from slidr.errors import GuardrailError
from slidr.lake import Lake
from slidr.replay import numbers, outcomes
from slidr.replay.audit import Plan, canonical, id_of
from slidr.replay.horizon import closing
from slidr.replay.request import Request
from slidr.threads import together


class Stopped(GuardrailError):
    """Guardrails stopped a plan: it is not on record, and nobody can apply it. `plan` says what it would have done."""

    def __init__(self, error: GuardrailError, plan: Plan) -> None:
        super().__init__(str(error), error.rows)
        self.plan = plan


def require(plan: Plan, checks: list[guardrails.Check], override: str | None) -> None:
    """Raises Stopped where a check failed, unless a reason to override is given."""
    try:
        guardrails.require(checks, override)
    except GuardrailError as error:
        raise Stopped(error, plan) from error


def measured(
    lake: Lake,
    pinned: dict[str, Any],
    planned: DataFrame,
    *,
    request: Request,
    conf: Config,
    now: datetime,
    override: str | None,
    extra: dict[str, Any],
) -> tuple[Plan, list[guardrails.Check]]:
    """The plan with its numbers, from its rows, and the checks, which stop nothing yet; `extra` are more details."""
    cells, advertisers, hours, around = together(
        lambda: numbers.cells(planned),
        lambda: numbers.largest_advertisers(planned),
        lambda: numbers.window_hours(planned, numbers.labels_of(lake, request, pinned["tables"])),
        lambda: numbers.hours_around(lake, request, planned, pinned["tables"]),
    )
    counts, money = numbers.counts(cells), numbers.money(cells, advertisers)
    found = numbers.for_guardrails(counts, money, hours, outcomes.CORRECTED)
    checks = guardrails.check_replay(**found, since_close=_days_since_close(cells, now, conf.replay), bounds=conf.replay)
    details = {
        "rows": numbers.identity(cells),
        "checks": [_plain(check) for check in checks],
        "override": override,
        "window_hours": hours,
        "hours": around,
        "features": None,
        **extra,
    }
    return Plan(id_of(canonical(pinned)), pinned, counts, money, details, already=False), checks


def _days_since_close(cells: list[Any], now: datetime, conf: ReplayConf) -> float:
    """Days since the oldest month of the corrected clicks was billed; negative while it is open, NaN where nothing is corrected."""
    months = [cell["month"] for cell in cells if cell["direction"]]
    if not months:
        return math.nan
    year, month = map(int, min(months).split("-"))
    return (now - closing(year, month, conf, timezone.utc)).total_seconds() / 86_400


def _plain(check: guardrails.Check) -> dict[str, Any]:
    """A check as JSON; a share of nothing is null."""
    found = asdict(check)
    observed = float(found["observed"])
    return {**found, "observed": None if math.isnan(observed) else observed, "passed": bool(found["passed"])}
