"""The report of a training: one HTML file that needs nothing beside it, and its tables as JSON. Aggregates only.

It answers one question first: is the new version better? Then why, and then everything that was measured.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from slidr import calibration_plots, pages, training_plots
from slidr.evaluation import FPR_NOTE, Judgement, with_shares
from slidr.intervals import LEVEL

PAGE, DATA = "report.html", "report.json"
TEMPLATE = "templates/training_report.html.j2"
PICTURES = {  # file -> what a reader sees
    "curves.png": "IVR against FPR of the calibration clicks: how the thresholds were chosen",
    "methods.png": "IVR against FPR of the judging clicks, all methods",
    "fairness.png": "Which slices pay for the budget: one threshold for all, and their own",
    "slices.png": "IVR, FPR and robotic coverage by slice, with intervals",
    "hours_of_week.png": "IVR, FPR and robotic coverage by hour of the week, with intervals",
    "histograms.png": "Scores of the judging clicks by slice and weak label",
}
CHAMPION = "champion"


@dataclass(frozen=True)
class Facts:
    """What was trained: all of it plain values, by name. `losses`: method -> weighted cross entropy of each epoch."""

    title: str
    days: Mapping[str, Sequence[str]]  # part -> first and last day
    rows: Mapping[str, int]
    raking: Mapping[str, Any]
    losses: Mapping[str, Sequence[float]] = field(default_factory=dict)
    table_versions: Mapping[str, Any] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """One sentence, whether it is good news (None: neither), and what it rests on."""

    sentence: str
    good: bool | None
    reasons: tuple[str, ...]


def draw(judgement: Judgement, folder: Path) -> None:
    """The pictures of the judgement, into the folder."""
    found = judgement.calibration
    curves = judgement.judged
    calibration_plots.plot_curves(judgement.curves["calibration"][judgement.method], found, folder / "curves.png")
    if judgement.purchasing:
        training_plots.plot_methods(curves, found.fpr_budget, folder / "methods.png")
    training_plots.plot_histograms(curves[judgement.method], found.thresholds, found.default_threshold, folder / "histograms.png")
    if "global" in found.solutions:
        by_method = dict(tuple(judgement.calibrations("judging").groupby("decider")))
        calibration_plots.plot_fairness(by_method["global"], by_method[found.method], found.fpr_budget, folder / "fairness.png")
    training_plots.plot_slices(judgement.decided("slice"), folder / "slices.png")
    training_plots.plot_hours_of_week(judgement.decided("hour_of_week"), folder / "hours_of_week.png")


def write(judgement: Judgement, facts: Facts, folder: Path, guardrails: Sequence[Mapping[str, Any]] = ()) -> Path:
    """Writes page and data into the folder that holds the pictures, and returns the page.

    `guardrails`: one row per check: check, observed, bound, verdict (`passed`, `ok` or what went wrong), query (may be absent).
    """
    content = tables(judgement, facts, guardrails)
    (folder / DATA).write_text(json.dumps(pages.plain(content), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    pictures = {name: (title, pages.picture(folder / name)) for name, title in PICTURES.items() if (folder / name).is_file()}
    shown = {**content, "pictures": pictures, "note": FPR_NOTE, "level": f"{LEVEL:.0%}", "day_names": training_plots.DAYS}
    page = pages.render(TEMPLATE, {"range": pages.span, "number": number, "between": between}, shown)
    (folder / PAGE).write_text(page, encoding="utf-8")
    return folder / PAGE


def tables(judgement: Judgement, facts: Facts, guardrails: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Everything that the page shows, as plain rows."""
    found = judgement.calibration
    decided = judgement.decided()
    return {
        "facts": facts,
        "verdict": verdict(judgement, guardrails),
        "budget": found.fpr_budget,
        "champion": {"version": judgement.champion, "note": judgement.note},
        "compared": [{"who": who(judgement, row["method"]), **row} for row in judgement.compared().to_dict("records")],
        "decided": [{"who": _decider(judgement, row["method"]), **row} for row in _deciders(decided).to_dict("records")],
        "disagreement": disagreement(decided),
        "guardrails": [{"query": "", **row} for row in guardrails],
        "calibration": found,
        "calibrations": calibrations(judgement),
        "thresholds": judgement.thresholds().to_dict("records"),
        "unseen": unseen(judgement),
        "slices": _pairs(judgement.decided("slice"), ["slice"]),
        "hours": _pairs(judgement.decided("hour_of_week"), ["hour_of_week"]),
        "slice_hours": _deciders(judgement.decided("slice", "hour_of_week")).to_dict("records"),
    }


def summary(judgement: Judgement) -> list[dict[str, Any]]:
    """The comparison at the same FPR as plain rows, for programs: method, threshold, counts, shares and their intervals."""
    return [{name: pages.plain(value) for name, value in row.items()} for row in judgement.compared().to_dict("records")]


def shown(judgement: Judgement) -> dict[str, list[Mapping[str, Any]]]:
    """The same in short, with the slices, for a terminal; the title says what FPR is."""
    columns = ("ivr", "fpr", "high_rfm_fpr", "coverage")
    compared: list[Mapping[str, Any]] = [
        {"method": who(judgement, row["method"]), **_short(row, columns)} for row in judgement.compared().to_dict("records")
    ]
    slices: list[Mapping[str, Any]] = [
        {"slice": row["slice"], "threshold": row["threshold"], **_short(row, columns)} for row in _slice_rows(judgement)
    ]
    methods: list[Mapping[str, Any]] = [
        {"thresholds by": row["method"], **_short(row["judging"], columns)} if not row["refused"] else {"thresholds by": row["method"]}
        for row in calibrations(judgement)
    ]
    at = f"Judging clicks at one global threshold of the same FPR, at most {judgement.calibration.fpr_budget:.2%}"
    note = f"({FPR_NOTE})"
    return {
        f"{at} {note}": compared,
        f"Judging clicks by method of calibration; {judgement.calibration.method} decides": methods,
        "Judging clicks by slice, at the thresholds chosen": slices,
    }


def _slice_rows(judgement: Judgement) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = with_shares(judgement.metrics("judging")).to_dict("records")
    return found


def _short(row: Mapping[str, Any], columns: Sequence[str]) -> dict[str, str]:
    return {name: pages.percent(row[name]) if name == "high_rfm_fpr" else pages.span(row, name) for name in columns}


def verdict(judgement: Judgement, guardrails: Sequence[Mapping[str, Any]] = ()) -> Verdict:
    """Whether the new version is better, at the same FPR on the same clicks.

    First of all whether a baseline is ahead, then failed guardrails, then the champion. Better or worse is said only beyond chance.
    """
    rows = {row["method"]: row for row in judgement.compared().to_dict("records")}
    failed = [str(row["check"]) for row in guardrails if not _passed(row)]
    bad = [f"Not fit to decide: {len(failed)} of {len(guardrails)} guardrails failed: {', '.join(failed)}."] if failed else []
    if not rows:
        return Verdict("It cannot be judged: nobody purchased on the judging days, so FPR is not known.", False, tuple(bad))
    new = rows[judgement.method]
    against, good = _against_champion(judgement, new, rows.get(CHAMPION))
    beaten, beside, loses = _beside_baselines(judgement, new, rows)
    sentences = [*beaten, *bad, against, *beside]
    decided = {row["method"]: row for row in judgement.decided().to_dict("records")}
    sentences += [_as_decided(who, decided[name]) for name, who in (("new", "it"), (CHAMPION, "the champion")) if name in decided]
    if bad or loses:
        good = False
    elif beaten:
        good = None
    return Verdict(sentences[0], good, tuple(sentences[1:]))


def who(judgement: Judgement, method: str) -> str:
    """A method as a reader calls it."""
    if method == judgement.method:
        return f"new version ({method})"
    return f"champion (version {judgement.champion})" if method == CHAMPION else f"baseline {method}"


def disagreement(decided: pd.DataFrame) -> dict[str, float] | None:
    """Judging clicks that only one of the two invalidates, each by its own thresholds; None without a champion."""
    invalid = dict(zip(decided["method"], decided["invalid"], strict=True))
    if "both" not in invalid:
        return None
    clicks = int(decided["clicks"].max())
    only = {name: int(invalid[name] - invalid["both"]) for name in ("new", CHAMPION)}
    return {"clicks": clicks, "only_new": only["new"], "only_champion": only[CHAMPION], "share": sum(only.values()) / clicks}


def calibrations(judgement: Judgement) -> list[dict[str, Any]]:
    """One row per method of calibration, the one that decides first: its solution without the slices, its counts and shares on the
    judging days, `money` (currency -> invalid cost_micros there) and `slices`, the same of each slice; `refused` where it has no answer."""
    found = judgement.calibration
    metrics = judgement.calibrations("judging")
    rows: list[dict[str, Any]] = []
    for name, solution in sorted(found.solutions.items(), key=lambda pair: pair[0] != found.method):
        money = judgement.money[judgement.money["decider"] == name]
        of_method = metrics[metrics["decider"] == name].drop(columns="decider").to_dict("records")
        by_slice = [{**row, "money": _money(money[money["slice"] == row["slice"]])} for row in of_method[:-1]]
        plain = {key: value for key, value in vars(solution).items() if key != "slices"}
        rows.append({**plain, "judging": of_method[-1], "money": _money(money), "slices": by_slice, "refused": ""})
    return rows + [{"method": name, "refused": why} for name, why in found.refused.items()]


def _money(rows: pd.DataFrame) -> dict[str, int]:
    """Currency -> invalidated micro-units."""
    return {str(name): int(total) for name, total in rows.groupby("currency")["invalid_cost_micros"].sum().items()}


def unseen(judgement: Judgement) -> dict[str, Any] | None:
    """Judging clicks of slices that calibration did not see, the largest slice first; None where there are none."""
    curves = judgement.judged[judgement.method]
    clicks = {name: curve.clicks for name, curve in curves.items() if name not in judgement.calibration.thresholds}
    if not clicks:
        return None
    slices = [{"slice": name, "clicks": clicks[name]} for name in sorted(clicks, key=lambda name: (-clicks[name], name))]
    count = sum(clicks.values())
    threshold = judgement.calibration.default_threshold
    return {"clicks": count, "share": count / sum(curve.clicks for curve in curves.values()), "threshold": threshold, "slices": slices}


def number(value: Any) -> str:
    """A threshold, bound or setting, short."""
    if isinstance(value, float):
        return pages.UNKNOWN if pd.isna(value) else f"{value:.6g}"
    return pages.UNKNOWN if value is None else f"{value:,}" if type(value) is int else str(value)


def between(days: Sequence[str]) -> str:
    """First and last day as text."""
    return " to ".join(dict.fromkeys((days[0], days[-1])))


def _passed(row: Mapping[str, Any]) -> bool:
    return row["verdict"] in ("passed", "not judged")


def _ivr(row: Mapping[str, Any]) -> str:
    return f"{row['ivr']:.1%} ({row['ivr_low'] * 100:.1f}–{row['ivr_high'] * 100:.1f}%)"


def _beside_baselines(
    judgement: Judgement, new: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]
) -> tuple[list[str], list[str], bool]:
    """(what is said first: that a baseline is ahead; what is said last; whether the network loses beyond chance)."""
    lead = judgement.lead()
    if lead is None:
        return [], [], False
    best = _ivr(rows[lead.baseline])
    if lead.ivr <= lead.network_ivr:
        return [], [f"The best baseline, {lead.baseline}, invalidates {best} at that FPR."], False
    chance = lead.beyond_chance <= 0
    words = "No clear difference from a simple rule" if chance else "Not better than a simple rule"
    few = f"; with {lead.allowed} of {lead.purchasing} purchasing clicks invalid that may be chance" if chance else ""
    at = f"at the same FPR of {judgement.calibration.fpr_budget:.2%}"
    beside = f"of the judging clicks, the network {judgement.method} {_ivr(new)}"
    return [f"{words}: {at} the baseline {lead.baseline} invalidates {best} {beside}{few}."], [], not chance


def _against_champion(judgement: Judgement, new: Mapping[str, Any], champion: Mapping[str, Any] | None) -> tuple[str, bool | None]:
    """The sentence, and whether it is good news; None where it cannot be told."""
    at = f"at the same FPR of {judgement.calibration.fpr_budget:.2%} it invalidates {_ivr(new)} of the judging clicks"
    if judgement.champion is None:
        return f"A first version: there is no champion to compare it with; {at}.", None
    name = f"the champion (version {judgement.champion})"
    if champion is None:
        return f"It cannot be compared with {name}: {judgement.note}; {at}.", None
    apart = new["ivr_low"] > champion["ivr_high"] or champion["ivr_low"] > new["ivr_high"]
    good = new["ivr"] > champion["ivr"] if apart else None
    word = {True: "Better than", False: "Worse than", None: "No clear difference from"}[good]
    return f"{word} {name}: {at}, the champion {_ivr(champion)}.", good


def _as_decided(name: str, row: Mapping[str, Any]) -> str:
    return (
        f"By its own thresholds {name} invalidates {row['ivr']:.1%} of all clicks, {pages.span(row, 'fpr')} of the purchasing clicks, "
        f"{pages.percent(row['high_rfm_fpr'])} of the high-RFM, non-purchasing ones."
    )


def _decider(judgement: Judgement, name: str) -> str:
    return who(judgement, CHAMPION if name == CHAMPION else judgement.method)


def _deciders(table: pd.DataFrame) -> pd.DataFrame:
    """New version first, then the champion; without what both invalidate."""
    return table[table["method"] != "both"].sort_values("method", ascending=False, kind="stable")


def _pairs(table: pd.DataFrame, by: list[str]) -> list[dict[str, Any]]:
    """One row per group with what each decider does there: {by…, new: row, champion: row or None}."""
    groups = []
    for key, rows in _deciders(table).groupby(by, sort=True):
        found = {row["method"]: row for row in rows.to_dict("records")}
        groups.append({**dict(zip(by, key, strict=True)), "new": found["new"], CHAMPION: found.get(CHAMPION)})
    return groups
