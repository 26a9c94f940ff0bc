"""Five made weeks of slice metrics and what happened in them, without Spark: an incident hour, corrections, promotions, rejects."""

import random
from collections import Counter
from datetime import date, datetime, timedelta
from typing import Any

from slidr import direct
from slidr.direct import Place
from slidr.tables import CLICKS, CORRECTIONS, CURRENT_DECISIONS, MODEL_PROMOTIONS, PURCHASES, REJECTS, SLICE_METRICS
from tests.frames import at, click
from tests.histories import add, correction, decision

DAYS = [date(2026, 3, 9) + timedelta(days=number) for number in range(7)]
LATEST, UNMEASURED = DAYS[5], DAYS[6]  # the former has not matured
INCIDENT = (DAYS[2], 14)
SLICES = ("desktop/guest/US", "desktop/login/US", "mobile/guest/DE", "<b>odd</b> & a name that is very long for a slice of any report/XX")
NOON = {day: at(f"{day} 12:00:00") for day in DAYS}
EVIL = "<script>alert(1)</script>"


def fill(place: Place) -> list[dict[str, Any]]:
    """Fills the lake, and returns the rows of slice_metrics."""
    rng = random.Random(4)
    days = [day - timedelta(weeks=ago) for ago in range(4, 0, -1) for day in DAYS] + DAYS[:6]
    rows = [row for day in days for hour in range(24) for name in SLICES for row in measured(day, hour, name, rng)]
    add(place, SLICE_METRICS, rows)
    published: Counter[tuple[date, str]] = Counter()
    for row in rows:
        if row["view"] == "published":
            published.update({(row["click_date"], name): row[name] for name in ("clicks", "invalid")})
    fill_clicks(place, published)
    direct.create(place, PURCHASES)
    add(place, CORRECTIONS, corrected())
    add(place, MODEL_PROMOTIONS, [promotion(1, DAYS[0], "candidate", None), promotion(2, DAYS[1], "champion", "candidate")])
    add(place, REJECTS, [rejected(number) for number in range(5)])
    return rows


def measured(day: date, hour: int, name: str, rng: random.Random) -> list[dict[str, Any]]:
    """Both views of an hour, one currency a marketplace; the published one takes half of the incident back."""
    clicks = rng.randrange(20, 40) if day < DAYS[0] else rng.randrange(15, 35)
    first = clicks if (day, hour) == INCIDENT else clicks // 3
    matured = None if day >= LATEST else clicks // 2
    rows = []
    for view, invalid in (("first", first), ("published", first - (first // 2 if (day, hour) == INCIDENT else 0))):
        named = {"click_date": day, "hour": hour, "report_slice": name, "view": view, "model_version": "1" if day < DAYS[2] else "2"}
        counts: dict[str, Any] = {"clicks": clicks, "invalid": invalid}
        for sign in ("purchasing", "high_rfm", "heavy"):
            counts |= {sign: matured, f"{sign}_invalid": None if matured is None else min(matured, invalid) * (rng.random() < 0.2)}
        price = None if "odd" in name else 1_000_003
        money = {"cost_micros": price and clicks * price, "invalid_cost_micros": price and invalid * price}
        rows.append({**named, **counts, **money, "currency": "EUR" if "DE" in name else "USD"})
    return rows


def fill_clicks(place: Place, published: Counter[tuple[date, str]]) -> None:
    """As many decisions as were measured, three clicks a day without one; since it was measured, a decision came on the second day, and
    one was changed on the third."""
    known, decided = [], []
    for day in DAYS:
        made = [click(f"{day}-{number}", NOON[day]) for number in range(published[day, "clicks"] + (day == DAYS[1]) + 3)]
        invalid = published[day, "invalid"] - (day == DAYS[2])
        known += made
        decided += [decision(row, number < invalid, "sivt", NOON[day]) for number, row in enumerate(made[:-3])]
    add(place, CLICKS, known)
    add(place, CURRENT_DECISIONS, decided)


def corrected() -> list[dict[str, Any]]:
    """Publication 1 before the week, 2 in it, with a click without a price, 3 a revert of it."""
    rows = []
    for number, day in ((1, DAYS[0] - timedelta(days=1)), (2, DAYS[3]), (3, DAYS[4])):
        for ordinal in range(1, 4):
            own = click(f"c{ordinal}", NOON[DAYS[1]], cost_micros=None if ordinal == 3 else 500_000)
            row = correction(own, number != 3, number == 3, at(f"{day} 09:00:00"))
            reverts = {"mode": "revert", "reverts_replay_id": "replay-2"} if number == 3 else {}
            rows.append(row | {"publication_no": number, "ordinal": ordinal, "replay_id": f"replay-{number}"} | reverts)
    return rows


def promotion(number: int, day: date, to: str, from_state: str | None) -> dict[str, Any]:
    text = dict.fromkeys(MODEL_PROMOTIONS.names, "text") | {"event_id": str(number), "reason": EVIL, "model_version": "2"}
    time: datetime = NOON[day]
    return {
        **text,
        "event_no": number,
        "event_time": time,
        "event_date": day,
        "model_version": "2",
        "from_state": from_state,
        "to_state": to,
    }


def rejected(number: int) -> dict[str, Any]:
    text = {"table_name": "clicks", "reason": "no click_time" if number else "unknown marketplace", "raw": f"raw-{number}"}
    return {**text, "source_file": "f", "run_id": "r", "rejected_time": NOON[DAYS[1]], "reject_date": DAYS[1]}
