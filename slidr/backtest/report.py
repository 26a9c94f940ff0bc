"""The report of a backtest: one HTML page that needs nothing beside it, its tables as CSV and JSON. Aggregates only.

First which variant kept its budget and what that cost, then day by day, then slice by slice.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from slidr import pages
from slidr.backtest import figures, kept, picture
from slidr.backtest.figures import Counted
from slidr.backtest.variants import Variant
from slidr.evaluation import FPR_NOTE, SHARES
from slidr.intervals import LEVEL

PAGE, DATA, DAYS_PICTURE, SLICES_PICTURE = "report.html", "report.json", "days.png", "slices.png"
TEMPLATE = "backtest/report.html.j2"
MICROS = 1_000_000
HOLDS, OVER, OPEN = "kept", "exceeded", "not clear"
Row = dict[str, Any]


@dataclass(frozen=True)
class Walked:
    """One variant to its end: what happened on each day of the window, and how its judged days turned out."""

    variant: Variant
    days: Mapping[str, Mapping[str, Any]]  # day as text -> record of `kept.Progress`
    counted: Counted


@dataclass(frozen=True)
class Facts:
    """What was run; all of it plain values, by name."""

    title: str
    judged: Sequence[date]
    waiting: Sequence[date]  # days of the window whose labels have not matured by the end of the data
    facts: Mapping[str, Any]


def write(walked: Sequence[Walked], facts: Facts, folder: Path) -> Row:
    """Writes page, pictures and tables into the folder, and returns the tables: summary, days, slices, methods."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = {"summary": summary(walked), "days": days(walked, facts.judged), "slices": slices(walked), "methods": methods(walked)}
    for name, rows in tables.items():
        _write_csv(folder / f"{name}.csv", rows)
    _draw(walked, facts.judged, folder)
    content = {"title": facts.title, "verdict": verdict(tables["summary"]), "facts": dict(facts.facts), **tables}
    kept.write(folder / DATA, pages.plain(content))
    pictures = {name: pages.picture(folder / name) for name in (DAYS_PICTURE, SLICES_PICTURE)}
    shown = {**content, **_told(facts), "pictures": pictures, "by_day": _by_day(tables["days"])}
    page = pages.render(TEMPLATE, {"range": pages.span, "money": money_text}, shown)
    (folder / PAGE).write_text(page, encoding="utf-8")
    return content


def summary(walked: Sequence[Walked]) -> list[Row]:
    """One row per variant: the days over budget, all days pooled, money, and what stopped its trainings."""
    rows = []
    for one in walked:
        whole = figures.total(one.counted, budget=one.variant.budget)
        outcomes = [record["outcome"] for record in one.days.values()]
        versions = {record["version"] for record in one.days.values() if record["version"]}
        named = {"variant": one.variant.name, "changes": " ".join(one.variant.overrides) or "nothing", "budget": one.variant.budget}
        counts = {
            "versions": len(versions),
            "stopped_days": outcomes.count("stopped"),
            "waiting_days": outcomes.count("waits"),
            "days_without_version": sum(not record["version"] for record in one.days.values()),
            "undecided": sum(one.counted.labelled.values()) - int(whole["clicks"]),
        }
        rows.append({**named, "budget_was": _kept(whole, one.variant.budget), **whole, **counts, "money": figures.money(one.counted)})
    return rows


def _kept(row: Mapping[str, Any], budget: float) -> str:
    """What the pooled FPR says beyond chance."""
    if row["fpr_low"] > budget:
        return OVER
    return HOLDS if row["fpr_high"] <= budget else OPEN


def days(walked: Sequence[Walked], judged: Sequence[date]) -> list[Row]:
    """One row per variant and day of the window; the figures are NaN on days that are not judged or had no version."""
    rows = []
    for one in walked:
        found = {str(row["click_date"]): row for row in _days_of(one).to_dict("records")}
        labelled = {str(day): clicks for day, clicks in one.counted.labelled.items()}
        for day, record in one.days.items():
            figure = found.get(day, dict.fromkeys([*figures.COUNTS], 0) | dict.fromkeys(_shares(), math.nan))
            undecided = labelled[day] - int(figure["clicks"]) if day in labelled else None
            row = {"variant": one.variant.name, "day": day, "version": record["version"], "judged": day in map(str, judged)}
            row |= {name: value for name, value in figure.items() if name != "click_date"}
            row |= {"budget": one.variant.budget, "over": bool(figure["fpr"] > one.variant.budget)}
            row |= {"surely_over": bool(figure["fpr_low"] > one.variant.budget), "undecided": undecided}
            row |= {"money": figures.money(one.counted, date.fromisoformat(day)), "training": record["training"]}
            rows.append({**row, "outcome": record["outcome"], "failed": "; ".join(record["failed"])})
    return rows


def _shares() -> list[str]:
    return [f"{name}{end}" for name in SHARES for end in ("", "_low", "_high")]


def _days_of(one: Walked) -> pd.DataFrame:
    return figures.shares(one.counted, "click_date", budget=one.variant.budget)


def slices(walked: Sequence[Walked]) -> list[Row]:
    """One row per variant and slice of its versions, over all judged days."""
    return [
        {"variant": one.variant.name, "budget": one.variant.budget, **row}
        for one in walked
        for row in figures.by_slice(one.counted, budget=one.variant.budget)
    ]


def methods(walked: Sequence[Walked]) -> list[Row]:
    """One row per variant and method of calibration whose thresholds its versions hold: the same scores, decided by them."""
    rows = []
    for one in walked:
        names = sorted(set(one.counted.counts["method"]) - {figures.DECIDED})
        for method in [figures.DECIDED, *names] if names else []:
            whole = figures.total(one.counted, budget=one.variant.budget, method=method)
            rows.append({"variant": one.variant.name, "method": method, "budget": one.variant.budget, **whole})
    return rows


def verdict(rows: Sequence[Row]) -> list[str]:
    """One sentence per variant, and first which one to look at, where there are several."""
    sentences = [_sentence(row) for row in rows]
    if len(rows) < 2:
        return sentences
    fit = [row for row in rows if row["fpr"] <= row["budget"]]
    if not fit:
        return ["The FPR of no variant over all days is within its budget.", *sentences]
    best = max(fit, key=lambda row: row["ivr"])
    return [f"Of the variants whose FPR over all days is within their budget, {best['variant']} invalidates most.", *sentences]


def _sentence(row: Row) -> str:
    if not row["days"]:
        return f"{row['variant']}: no judged day on which somebody purchased was decided, so it can't be told whether the budget holds."
    said = {HOLDS: "kept beyond chance", OVER: "exceeded beyond chance", OPEN: "neither kept nor exceeded beyond chance"}
    return (
        f"{row['variant']}: the budget of {row['budget']:.2%} was {said[row['budget_was']]} over all days (FPR {pages.span(row, 'fpr')}); "
        f"{row['days_over']} of {row['days']} days are over it, {row['days_surely_over']} surely. IVR {pages.percent(row['ivr'])}, robotic "
        f"coverage {pages.percent(row['coverage'])}; trainings stopped by a guardrail: {row['stopped_days']}."
    )


def shown(content: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """The tables for a terminal, in short."""
    several = len(content["summary"]) > 1
    tables: dict[str, list[Mapping[str, Any]]] = {
        "All judged days": [{"variant": row["variant"], **_short_total(row)} for row in content["summary"]],
    }
    for name, rows in _by_day(content["days"]).items():
        tables[f"Day by day{f', {name}' if several else ''} (* over, ** surely over the budget)"] = [_short_day(row) for row in rows]
    tables["By slice, all judged days"] = [
        {"variant": row["variant"], "slice": row["slice"], "clicks": int(row["clicks"]), **_short_total(row)} for row in content["slices"]
    ]
    if content["methods"]:
        key = "The same scores by the thresholds of other methods"
        tables[key] = [{"variant": row["variant"], "method": row["method"], **_short_total(row)} for row in content["methods"]]
    return tables


def _short_total(row: Mapping[str, Any]) -> Row:
    over = f"{row['days_over']} ({row['days_surely_over']} surely) of {row['days']}"
    named = {"days over": over, "FPR": pages.span(row, "fpr"), "budget": pages.percent(row["budget"]), "IVR": pages.percent(row["ivr"])}
    named |= {"coverage": pages.percent(row["coverage"])}
    return named | ({"stops": row["stopped_days"], "not charged": money_text(row["money"])} if "money" in row else {})


def _short_day(row: Mapping[str, Any]) -> Row:
    mark = " **" if row["surely_over"] else " *" if row["over"] else ""
    figures_ = {"FPR": pages.span(row, "fpr") + mark, "IVR": pages.percent(row["ivr"]), "coverage": pages.percent(row["coverage"])}
    end = {"not charged": money_text(row["money"]), "training": row["failed"] or row["training"]}
    return {"day": row["day"], "version": row["version"], "purchasing": int(row["purchasing"]), **figures_, **end}


def money_text(micros: Mapping[str, int]) -> str:
    """Amounts in whole units, by currency."""
    return ", ".join(f"{amount / MICROS:,.0f} {currency}" for currency, amount in sorted(micros.items())) or "nothing"


def _by_day(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Variant -> its days."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["variant"], []).append(row)
    return found


def _told(facts: Facts) -> Row:
    return {"judged": len(facts.judged), "waiting": [str(day) for day in facts.waiting], "note": FPR_NOTE, "level": f"{LEVEL:.0%}"}


def _draw(walked: Sequence[Walked], judged: Sequence[date], folder: Path) -> None:
    budgets = {one.variant.name: one.variant.budget for one in walked}
    table = {one.variant.name: _days_of(one).set_index("click_date").reindex(list(judged)).reset_index() for one in walked}
    for rows in table.values():
        rows["surely_over"] = rows["surely_over"].eq(True)
    stopped = {
        one.variant.name: [date.fromisoformat(day) for day, record in one.days.items() if record["outcome"] == "stopped"] for one in walked
    }
    picture.plot_days(table, budgets, stopped, folder / DAYS_PICTURE)
    by_slice = {one.variant.name: figures.by_slice(one.counted, budget=one.variant.budget) for one in walked}
    picture.plot_slices(by_slice, budgets, folder / SLICES_PICTURE)


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    """One line per row; money of each currency in a column of its own, in micro-units."""
    currencies = sorted({currency for row in rows for currency in row.get("money", {})})
    flat = [
        {name: value for name, value in row.items() if name != "money"}
        | {f"money_micros_{currency}": row["money"].get(currency) for currency in currencies if "money" in row}
        for row in rows
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(flat[0]) if flat else ["variant"])
        table.writeheader()
        table.writerows(pages.plain(flat))
