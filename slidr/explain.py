"""One click explained: what was decided and published when, what its features added to the score, and what was around it. No Spark.

Nothing here names an address or an account: counts of what they made are enough to judge a decision.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from math import isnan
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from slidr import direct, plots, query
from slidr.bundle import Bundle, forward
from slidr.direct import Place
from slidr.errors import NothingToDoError
from slidr.lake import Lake
from slidr.reasons import by_topic, contributions, said, topics
from slidr.tables import CLICKS, CORRECTIONS, CURRENT_DECISIONS, DECISIONS, REPLAY_DECISIONS, Table, features_table

TABLES = {table.name: table for table in (CLICKS, DECISIONS, CURRENT_DECISIONS, CORRECTIONS, REPLAY_DECISIONS)}
CLICK = "SELECT * FROM clicks WHERE click_id = $click_id"
CLICK_OF_DAY = "SELECT * FROM clicks WHERE click_id = $click_id AND click_date = CAST($day AS DATE)"
FIRST = "SELECT * FROM decisions WHERE click_id = $click_id AND click_date = CAST($day AS DATE)"
CURRENT = "SELECT * FROM current_decisions WHERE click_id = $click_id AND click_date = CAST($day AS DATE)"
FEATURES = """
SELECT * FROM features WHERE click_id = $click_id AND click_date = CAST($day AS DATE) AND origin IN ('logged', 'then') ORDER BY origin
"""
PUBLISHED = """
SELECT c.*, coalesce(r.slice, '') AS slice, r.reason_1, r.reason_2, r.reason_3
FROM corrections c
LEFT JOIN replay_decisions r ON r.click_id = c.click_id AND r.click_date = c.click_date AND r.replay_id = c.replay_id
WHERE c.click_id = $click_id ORDER BY publication_no
"""
AROUND = """
WITH near AS (
    SELECT click_id, click_time, session_id, user_id
    FROM clicks
    WHERE click_date BETWEEN CAST($day AS DATE) - 1 AND CAST($day AS DATE)
      AND click_time < CAST($time AS TIMESTAMPTZ) AND click_time >= CAST($time AS TIMESTAMPTZ) - INTERVAL 24 HOUR
      AND CASE $whose WHEN 'session' THEN session_id WHEN 'address' THEN ip_key ELSE user_id END = $key
)
SELECT count(*) AS clicks,
       count(*) FILTER (click_time >= CAST($time AS TIMESTAMPTZ) - INTERVAL 1 HOUR) AS last_hour,
       count(DISTINCT near.session_id) AS sessions,
       count(DISTINCT user_id) AS accounts,
       count(*) FILTER (is_invalid) AS invalid
FROM near LEFT JOIN (SELECT click_id, is_invalid FROM current_decisions
                     WHERE click_date BETWEEN CAST($day AS DATE) - 1 AND CAST($day AS DATE)) AS decided
  ON near.click_id = decided.click_id
"""
KEYS = {"session": "session_id", "address": "ip_key", "account": "user_id"}  # what is around a click, and the column that says it
SHOWN = 10  # bars of the picture; the others become one


@dataclass(frozen=True)
class Facts:
    """What the tables say about one click: rows as dictionaries, None where there is none. `around` is one row for each of KEYS that the
    click has: clicks, last_hour, sessions, accounts, invalid of the 24 hours before it, the click itself not counted."""

    click: dict[str, Any]
    first: dict[str, Any] | None
    current: dict[str, Any] | None
    corrections: list[dict[str, Any]]
    around: list[dict[str, Any]]


@dataclass(frozen=True)
class Part:
    """What one topic adds to the logit, and its features in words, the weightiest first."""

    topic: str
    words: str
    contribution: float


@dataclass(frozen=True)
class Account:
    """A score taken apart: `base` + contributions of `parts`, the largest first, = `logit`. `score` is what the stored features give.

    `features` are rows of feature, value (None for NULL) and what it adds to the logit, in the order of the spec.
    """

    parts: list[Part]
    features: list[dict[str, Any]]
    base: float
    logit: float
    score: float


def facts(place: Lake | Place, click_id: str, day: date | None) -> Facts:
    """Everything about the click; `day`, its UTC day, only makes this faster. Raises NothingToDoError where there is no such click."""
    own = {"click_id": click_id}
    click = _one(place, TABLES, CLICK_OF_DAY, {**own, "day": day}) if day else _one(place, TABLES, CLICK, own)
    if click is None:
        found = f"on {day}" if day else "in the lake"
        raise NothingToDoError(f"expected a click with this id, found none {found}; the ids are those of the table clicks")
    at = {**own, "day": click["click_date"]}
    return Facts(
        click=click,
        first=_one(place, TABLES, FIRST, at),
        current=_one(place, TABLES, CURRENT, at),
        corrections=query.run(place, TABLES, PUBLISHED, own).to_pylist(),
        around=[_around(place, click, whose) for whose, column in KEYS.items() if click[column] is not None],
    )


def _one(place: Lake | Place, tables: Mapping[str, Table], text: str, params: Mapping[str, Any]) -> dict[str, Any] | None:
    rows: list[dict[str, Any]] = query.run(place, tables, text, params).to_pylist()
    return rows[0] if rows else None


def _around(place: Lake | Place, click: Mapping[str, Any], whose: str) -> dict[str, Any]:
    params = {"day": click["click_date"], "time": click["click_time"], "whose": whose, "key": click[KEYS[whose]]}
    return {"whose": whose, **(_one(place, TABLES, AROUND, params) or {})}


def features_used(place: Lake | Place, bundle: Bundle, click: Mapping[str, Any]) -> NDArray[Any] | None:
    """The stored features (1, F) of the click: logged by a live system, else as known then; NaN for NULL. None where there are none."""
    table = features_table(bundle.spec)
    if not direct.exists(place, table):
        return None
    row = _one(place, {"features": table}, FEATURES, {"click_id": click["click_id"], "day": click["click_date"]})
    return None if row is None else np.array([[np.nan if row[name] is None else float(row[name]) for name in bundle.features]])


def account(bundle: Bundle, x_1F: NDArray[Any]) -> Account:
    """The score of these features, taken apart by topic."""
    found_BF, base = contributions(bundle, x_1F)
    topic_BT = by_topic(bundle.spec, found_BF)
    parts = [
        Part(topic.name, said(topic, x_1F, found_BF)[0], float(value))
        for topic, value in zip(topics(bundle.spec), topic_BT[0], strict=True)
    ]
    parts.sort(key=lambda part: -abs(part.contribution))
    named = zip(bundle.features, x_1F[0].tolist(), found_BF[0].tolist(), strict=True)
    features = [
        {"feature": name, "value": None if isnan(value) else value, "adds to the logit": round(adds, 4)} for name, value, adds in named
    ]
    return Account(parts, features, base, base + float(found_BF.sum()), float(forward(bundle, x_1F)[0]))


def history(found: Facts) -> list[dict[str, Any]]:
    """What was said about the click, oldest first: when, what, invalid, score, threshold, slice, version, reasons, by which run."""
    rows = []
    if found.first:
        first = found.first
        rows.append({"when": first["decided_time"], "what": "first decision", **_decision(first), "by": f"run {first['run_id']}"})
    for row in found.corrections:
        what = f"{row['direction']}, publication {row['publication_no']}, {row['mode']}"
        named = {"is_invalid": row["new_is_invalid"], "score": row["new_score"], "threshold": row["new_threshold"]}
        decided = {**row, **named, "model_version": row["new_model_version"]}
        rows.append({"when": row["published_time"], "what": what, **_decision(decided), "by": f"replay {row['replay_id']}"})
    return sorted(rows, key=lambda row: row["when"])


def _decision(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "invalid": "yes" if row["is_invalid"] else "no",
        "score": row["score"],
        "threshold": row["threshold"],
        "slice": row["slice"],
        "version": row["model_version"],
        "reasons": "; ".join(row[f"reason_{place}"] for place in (1, 2, 3) if row[f"reason_{place}"]),
    }


def in_words(found: Facts) -> list[str]:
    """The published state and what was around the click, in sentences."""
    return [_state(found), *[_neighbours(row) for row in found.around]]


def _state(found: Facts) -> str:
    now = found.current
    if now is None:
        return "The click has no decision."
    if now["basis"] == "upstream":
        return f"The click is invalid: the upstream filter had made it free ({found.click['upstream_filter']})."
    if now["basis"] == "no_features":
        return "The click is valid: it had no features, and such clicks are never invalidated."
    verdict = "invalid" if now["is_invalid"] else "valid"
    if now["basis"] == "external":
        return f"The click is {verdict}: so decided the live system {now['model_version']}, whose rules are not known here."
    above = "above" if now["score"] > now["threshold"] else "not above"
    whose = f"the threshold {now['threshold']:.6f} of the slice {now['slice']}"
    if now["basis"] == "unseen_slice":
        whose = f"the default threshold {now['threshold']:.6f}: the version does not know the slice {now['slice']}"
    return f"The click is {verdict}: its score {now['score']:.6f} by version {now['model_version']} is {above} {whose}."


def _neighbours(row: Mapping[str, Any]) -> str:
    if not row["clicks"]:
        return f"Its {row['whose']} made no click in the 24 hours before it."
    spread = "" if row["whose"] == "session" else f", in {_many(row['sessions'], 'session')}"
    spread += f" of {_many(row['accounts'], 'account')}" if row["whose"] == "address" else ""
    counted = f"{_many(row['clicks'], 'click')} in the 24 hours before it ({row['last_hour']:,} in the last hour){spread}"
    return f"Its {row['whose']} made {counted}; {row['invalid']:,} of them are invalid now."


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def waterfall(found: Account, threshold: float | None, path: Path) -> None:
    """From the logit of the baseline to that of the click, topic by topic; the line is the threshold's logit."""
    rows = found.parts[:SHOWN]
    rest = sum(part.contribution for part in found.parts[SHOWN:])
    steps = [*[(part.words, part.contribution) for part in rows], *([("all others", rest)] if len(found.parts) > SHOWN else [])]
    names = ["average human click", *[words for words, _ in steps], "this click"]
    starts = found.base + np.concatenate([[0.0], np.cumsum([value for _, value in steps])])
    figure, axis = plt.subplots(figsize=(10, 1.4 + 0.36 * len(names)), layout="constrained")
    for place, ((_, value), start) in enumerate(zip(steps, starts[:-1], strict=True), start=1):
        axis.barh(place, value, left=start, color=plots.CHOSEN if value > 0 else plots.CURVE, height=0.62)
        axis.annotate(f"{value:+.2f}", (max(start, start + value), place), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axis.plot([found.base, found.logit], [0, len(names) - 1], "D", color="black", markersize=5)
    if threshold is not None and 0 < threshold < 1:
        axis.axvline(np.log(threshold / (1 - threshold)), color=plots.KNEE, linestyle="--", label=f"threshold {threshold:.4f}")
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.use_sticky_edges = False  # bars would stick to the edge, and their numbers would leave the panel
    axis.margins(x=0.1)
    axis.set(xlabel="logit of the score: to the right is more robotic", title=f"What made the score {found.score:.6f}")
    plots.tidy(axis)
    plots.legend(figure, [axis])
    plots.save(figure, path)
