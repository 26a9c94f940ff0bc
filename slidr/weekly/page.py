"""The weekly report as one HTML page that needs nothing beside it, and the same as JSON. Aggregates only."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from slidr import monitoring, pages
from slidr.evaluation import FPR_NOTE
from slidr.intervals import LEVEL
from slidr.weekly import figures, picture
from slidr.weekly.figures import Row, Week

PAGE, DATA, TEMPLATE = "report.html", "report.json", "weekly/report.html.j2"
SHOWN = 20  # signals on the page


@dataclass(frozen=True)
class Facts:
    """`budget` of the FPR by configuration; `now` is when the page was made."""

    budget: float
    now: datetime
    config_hash: str


def write(week: Week, facts: Facts, folder: Path) -> Row:
    """Writes page, data and pictures into the folder, and returns the tables."""
    folder.mkdir(parents=True, exist_ok=True)
    picture.draw(week, facts.budget, folder)
    content = tables(week, facts)
    (folder / DATA).write_text(json.dumps(pages.plain(content), default=str, indent=2) + "\n", encoding="utf-8")
    drawn = {title: pages.picture(folder / name) for name, title in picture.TITLES.items()}
    told = {"note": FPR_NOTE, "level": f"{LEVEL:.0%}", "most": SHOWN, "pictures": drawn, "facts": facts}
    filters: dict[str, Callable[..., str]] = {"range": pages.span, "money": money, "points": points}
    page = pages.render(TEMPLATE, filters, {**content, **told})
    (folder / PAGE).write_text(page, encoding="utf-8")
    return content


def tables(week: Week, facts: Facts) -> Row:
    """All that the page shows, by name."""
    days = figures.by_day(week)
    alarms = figures.alarms(week)
    content = {
        "title": f"Weekly report: {week.days[0]} to {week.days[-1]}",
        "before": f"{week.before[0]} to {week.before[-1]}",
        "totals": figures.totals(week),
        "days": days,
        "slices": figures.by_slice(week),
        "money": figures.by_currency(week),
        "alarms": alarms.to_dict("records"),
        "signals": monitoring.reasons(week.judged).to_dict("records"),
        "judged": int(monitoring.by_hour(week.judged)["verdict"].isin([monitoring.OK, monitoring.WATCH, monitoring.ROLL_BACK]).sum()),
        "corrections": week.corrections,
        "versions": week.versions,
        "promotions": week.promotions,
        "rejects": week.rejects,
        "unmatured": [row["day"] for row in days if row["measured"] and not row["matured"]],
        "unmeasured": [row["day"] for row in days if not row["measured"]],
        "stale": [row["day"] for row in days if row["stale"]],
        "known": sum(row["known"] for row in days),
        "undecided": sum(row["undecided"] for row in days),
    }
    return {**content, "verdict": verdict(content, facts.budget)}


def verdict(content: Mapping[str, Any], budget: float) -> list[str]:
    """What to know first: the budget, the hours that were not ok, the clicks without a decision."""
    published = content["totals"][1]
    fpr = pages.span(published, "fpr")
    if fpr == pages.UNKNOWN:
        first = "The FPR is not known: no day with purchasing clicks has matured."
    else:
        sure = published["fpr_low"] > budget or published["fpr_high"] <= budget
        side = "above" if published["fpr"] > budget else "within"
        first = f"Published FPR {fpr}: {side} the budget of {budget:.2%}, {'beyond chance' if sure else 'though it may be by chance'}."
    worst = [sum(row["verdict"] == name for row in content["alarms"]) for name in (monitoring.ROLL_BACK, monitoring.WATCH)]
    hours = f"Hours to roll back: {worst[0]}, to watch: {worst[1]}, of {content['judged']:,} that could be judged."
    share = pages.percent(1 - content["undecided"] / content["known"] if content["known"] else None)
    return [first, hours, f"Decision rate {share}: {content['undecided']:,} of {content['known']:,} clicks have no decision."]


def shown(content: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """The tables for a terminal, in short."""
    totals: list[Mapping[str, Any]] = [
        {"days": row["days"], "view": row["view"], "clicks": int(row["clicks"]), **_short(row)}
        for row in content["totals"]
        if row["clicks"]
    ]
    days: list[Mapping[str, Any]] = [
        {"day": row["day"], "undecided": row["undecided"], **_short(row["published"]), "matured": "yes" if row["matured"] else "no"}
        for row in content["days"]
    ]
    return {"All slices": totals, "Published, by day": days}


def _short(row: Mapping[str, Any]) -> Row:
    return {"IVR": pages.percent(row["ivr"]), "FPR": pages.span(row, "fpr"), "coverage": pages.percent(row["coverage"])}


def money(micros: int | None) -> str:
    """Units of a currency; `no cost`, never 0, where no price is known."""
    return "no cost" if micros is None else pages.amount(micros)


def points(change: float) -> str:
    """A difference of two shares, in percentage points."""
    return pages.UNKNOWN if change != change else f"{change * 100:+.2f}"
