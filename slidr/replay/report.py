"""The report of a plan: HTML for people and tickets, JSON for programs, and a picture. Aggregates only: no address, account or session."""

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
from pyspark.sql import DataFrame

from slidr import pages, plots
from slidr.curves import share
from slidr.features import compare
from slidr.replay import numbers
from slidr.replay.audit import Plan
from slidr.replay.outcomes import OUTCOMES
from slidr.replay.request import REVERT, command_of

PICTURE, PAGE, DATA, TABLE = "shares_by_hour.png", "report.html", "report.json", "changes.csv"
MODES = {
    "rescore": "the features that the decisions used, another model version",
    "recompute": "counters computed anew from the clicks as they were known then",
    "recompute-now": "counters computed anew from all clicks known now",
    REVERT: "nothing is decided anew: the clicks fall back to what the other replays and their first decisions say",
}
LATE = "among all of them: known only long after they were made"
SHARES = {
    "IVR: invalid / decided clicks": ("invalid_{}", "decided_{}"),
    "FPR: invalid / purchasing clicks": ("purchasing_invalid_{}", "purchasing"),
    "robotic coverage: invalid / clicks of heavy sessions": ("heavy_invalid_{}", "heavy"),
}
VIEWS = {"before": ("published now", plots.CURVE, "-"), "after": ("after this replay", plots.FIT, "--")}


def write(plan: Plan, changes: DataFrame, *, folder: Path, zones: Mapping[str, str]) -> Path:
    """Writes page, data, picture and the whole table `changes` into `folder`/<plan_id> and returns the page.

    `changes` is the result of `numbers.changes`; `zones` maps marketplace to IANA zone.
    """
    target = folder / plan.plan_id
    target.mkdir(parents=True, exist_ok=True)
    plots.plot_shares(_panels(plan), target / PICTURE, shaded=[_naive(plan)], views=VIEWS)
    content = summary(plan, zones=zones)
    (target / DATA).write_text(json.dumps({**content, "plan": asdict(plan)}, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    with (target / TABLE).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(changes.columns)
        table.writerows([pages.cell(value) for value in row] for row in changes.toLocalIterator())
    shown = {"plan": plan, "picture": pages.picture(target / PICTURE), "enough": compare.ENOUGH, **content}
    shown |= {"needs_approval": numbers.needs_approval(plan)}
    page = pages.render("replay/report.html.j2", {"money": money}, shown)
    (target / PAGE).write_text(page, encoding="utf-8")
    return target / PAGE


def summary(plan: Plan, *, zones: Mapping[str, str]) -> dict[str, Any]:
    """What page and terminal show: window, outcomes in plain words, shares before and after, commands."""
    return {
        "window": {"UTC": _clock(plan, "UTC"), **{f"{name} ({zone})": _clock(plan, zone) for name, zone in sorted(zones.items())}},
        "mode": MODES[plan.pins["mode"]],
        "decides": _decides(plan),
        "outcomes": [(text, plan.counts[name]) for name, text in {**OUTCOMES, "late": LATE}.items()],
        "shares": _shares(plan.details["window_hours"]),
        "features": _by_difference(plan.details["features"]),
        "commands": _commands(plan),
    }


def money(micros: int, row: Mapping[str, Any]) -> str:
    """The amount of some corrections; `no cost`, never 0, where no click of them has a known cost."""
    return "no cost" if row["clicks"] and row["no_cost"] == row["clicks"] else pages.amount(micros)


def _clock(plan: Plan, zone: str) -> str:
    start, end = (edge.astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M:%S") for edge in plan.window)
    return f"{start} to {end}"


def _decides(plan: Plan) -> dict[str, str]:
    """What the plan pins, in words: version, hash, thresholds, spec, mode, table commits."""
    pins = plan.pins
    thresholds = [f"{name} {value}" for name, value in pins["thresholds"].items()]
    who = {"takes back": plan.reverts, "in effect then": ", ".join(pins["in_effect"]) or "first decisions alone"} if plan.reverts else {}
    model = (
        {}
        if plan.reverts
        else {
            "model version": pins["version"],
            "bundle": pins["bundle_sha256"],
            "thresholds": ", ".join([*thresholds, f"any other slice {pins['default_threshold']}"]),
            "feature spec": pins["spec_id"],
        }
    )
    charges = "may charge again" if pins["allow_charges"] else "credits only"
    tables = ", ".join(f"{name} {number}" for name, number in pins["tables"].items())
    return {**who, **model, "mode": f"{pins['mode']}, {charges}", "tables at commits": tables}


def _commands(plan: Plan) -> dict[str, str]:
    needed = {"approve it, by somebody else": f"slidr replay approve {plan.plan_id}"} if numbers.needs_approval(plan) else {}
    return {**needed, "publish it": f"slidr replay apply {plan.plan_id}", "plan it again": command_of(plan)}


def _shares(hours: list[dict[str, Any]]) -> list[tuple[str, float | None, float | None]]:
    """IVR, FPR and robotic coverage of the plan's clicks, before and after."""
    total = {name: sum(hour[name] for hour in hours) for name in (hours[0] if hours else {}) if name != "hour"}
    shares = {text: [_share(total, part.format(state), whole.format(state)) for state in VIEWS] for text, (part, whole) in SHARES.items()}
    return [(text, before, after) for text, (before, after) in shares.items()]


def _share(counts: Mapping[str, int], part: str, whole: str) -> float | None:
    return share(counts[part], counts[whole]) if counts.get(whole) else None


def _by_difference(features: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Feature differences with the share of equal clicks, the most different first."""
    rows = [{**row, "share": _share(row, "equal", "compared")} for row in features or []]
    return sorted(rows, key=lambda row: (row["share"] if row["share"] is not None else 1.0, row["feature"]))


def _panels(plan: Plan) -> dict[str, pd.DataFrame]:
    """By share: IVR of all decided clicks, a day around the window; FPR and coverage of the plan's own clicks."""
    around, own = plan.details["hours"], plan.details["window_hours"]
    titles = list(SHARES)
    return {
        titles[0]: _by_hour(around, *SHARES[titles[0]]),
        **{f"{title}, of the plan's clicks": _by_hour(own, *SHARES[title]) for title in titles[1:]},
    }


def _by_hour(hours: list[dict[str, Any]], part: str, whole: str) -> pd.DataFrame:
    rows = [(pd.Timestamp(hour["hour"]), view, _share(hour, part.format(view), whole.format(view))) for hour in hours for view in VIEWS]
    return pd.DataFrame(rows, columns=["hour", "view", "share"]).astype({"share": "float64"})


def _naive(plan: Plan) -> tuple[datetime, datetime]:
    start, end = (edge.astimezone(ZoneInfo("UTC")).replace(tzinfo=None) for edge in plan.window)
    return start, end
