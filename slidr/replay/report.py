"""The report of a plan: HTML for people and tickets, JSON for programs, and a picture. Aggregates only: no address, account or session."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd

from slidr import pages, plots
from slidr.curves import share
from slidr.replay.audit import Plan
from slidr.replay.outcomes import OUTCOMES
from slidr.replay.plan import request_of

PICTURE, PAGE, DATA = "ivr_by_hour.png", "report.html", "report.json"
MICROS = 1_000_000
MODES = {
    "rescore": "the features that the decisions used, another model version",
    "recompute": "counters computed anew from the clicks as they were known then",
    "recompute-now": "counters computed anew from all clicks known now",
}
VIEWS = {"before": ("published now", plots.CURVE, "-"), "after": ("after this replay", plots.FIT, "--")}


def write(plan: Plan, *, folder: Path, zones: Mapping[str, str]) -> Path:
    """Writes page, data and picture into `folder`/<plan_id> and returns the page. `zones` maps marketplace to IANA zone."""
    target = folder / plan.plan_id
    target.mkdir(parents=True, exist_ok=True)
    plots.plot_hours(_ivr(plan), target / PICTURE, shaded=[_naive(plan)], views=VIEWS)
    content = summary(plan, zones=zones)
    (target / DATA).write_text(json.dumps({**content, "plan": asdict(plan)}, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    page = pages.render("replay/report.html.j2", {"money": money}, {"plan": plan, "picture": PICTURE, **content})
    (target / PAGE).write_text(page, encoding="utf-8")
    return target / PAGE


def summary(plan: Plan, *, zones: Mapping[str, str]) -> dict[str, Any]:
    """What page and terminal show: window, outcomes in plain words, shares before and after, commands."""
    plan_command = request_of(plan).command(version=plan.pins["version"])
    return {
        "window": {"UTC": _clock(plan, "UTC"), **{f"{name} ({zone})": _clock(plan, zone) for name, zone in sorted(zones.items())}},
        "mode": MODES[plan.pins["mode"]],
        "outcomes": [(text, plan.counts[name]) for name, text in OUTCOMES.items()],
        "shares": _shares(plan.details["window_hours"]),
        "features": _by_difference(plan.details["features"]),
        "commands": {"publish": f"slidr replay apply {plan.plan_id}", "plan it again": plan_command},
    }


def amount(micros: int) -> str:
    """Micro-units as units with two or, where needed, six decimals; exact."""
    value = Decimal(micros) / MICROS
    return f"{value:,.2f}" if value == round(value, 2) else f"{value:,.6f}"


def money(micros: int, row: Mapping[str, Any]) -> str:
    """The amount of some corrections; `no cost`, never 0, where no click of them has a known cost."""
    return "no cost" if row["clicks"] and row["no_cost"] == row["clicks"] else amount(micros)


def _clock(plan: Plan, zone: str) -> str:
    start, end = (edge.astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M:%S") for edge in plan.window)
    return f"{start} to {end}"


def _shares(hours: list[dict[str, Any]]) -> list[tuple[str, float | None, float | None]]:
    """IVR, FPR and robotic coverage of the plan's clicks, before and after."""
    total = {name: sum(hour[name] for hour in hours) for name in (hours[0] if hours else {}) if name != "hour"}
    parts = {
        "IVR: invalid / decided clicks": ("invalid_{}", "decided_{}"),
        "FPR: invalid / purchasing clicks": ("purchasing_invalid_{}", "purchasing"),
        "robotic coverage: invalid / clicks of heavy sessions": ("heavy_invalid_{}", "heavy"),
    }
    states = ("before", "after")
    shares = {text: [_share(total, part.format(state), whole.format(state)) for state in states] for text, (part, whole) in parts.items()}
    return [(text, before, after) for text, (before, after) in shares.items()]


def _share(counts: Mapping[str, int], part: str, whole: str) -> float | None:
    return share(counts[part], counts[whole]) if counts.get(whole) else None


def _by_difference(features: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Feature differences with the share of equal clicks, the most different first."""
    rows = [{**row, "share": _share(row, "equal", "compared")} for row in features or []]
    return sorted(rows, key=lambda row: (row["share"] if row["share"] is not None else 1.0, row["feature"]))


def _ivr(plan: Plan) -> pd.DataFrame:
    rows = [
        (pd.Timestamp(hour["hour"]), view, share(hour[f"invalid_{view}"], hour[f"decided_{view}"]))
        for hour in plan.details["hours"]
        for view in VIEWS
    ]
    return pd.DataFrame(rows, columns=["hour", "view", "ivr"])


def _naive(plan: Plan) -> tuple[datetime, datetime]:
    start, end = (edge.astimezone(ZoneInfo("UTC")).replace(tzinfo=None) for edge in plan.window)
    return start, end
