"""The contract of the correction feed: a consumer that follows docs/billing.md books everything once, whatever kills it."""

import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from slidr import direct
from slidr.direct import Place
from slidr.tables import CORRECTIONS
from tests import billing
from tests.frames import at

START = at("2026-02-26 10:00:00")
OPEN = "2026-03"


def publication(number: int, rng: random.Random) -> list[dict[str, Any]]:
    """A random publication: clicks of closed and open months, two currencies, some without a price, credits and charges."""
    rows = []
    for ordinal in range(1, rng.randrange(2, 400)):
        time_ = START + timedelta(hours=rng.randrange(200))
        direction = rng.choice(["invalidate", "reinstate"])
        cost = rng.choice([None, 100_000 + ordinal, 1])
        row = {
            **dict.fromkeys(CORRECTIONS.names),
            "publication_no": number,
            "ordinal": ordinal,
            "replay_id": f"replay-{number}",
            "click_id": f"{number}-{ordinal}",
            "click_time": time_,
            "click_date": time_.date(),
            "local_date": time_.date(),
            "billing_month": f"{time_:%Y-%m}",
            "marketplace": "US",
            "advertiser_id": f"adv-{rng.randrange(4)}",
            "campaign_id": "c",
            "direction": direction,
            "cost_micros": cost,
            "delta_cost_micros": None if cost is None else -cost if direction == "invalidate" else cost,
            "currency": rng.choice(["USD", "EUR"]),
            "new_is_invalid": direction == "invalidate",
            "mode": "rescore",
            "published_time": time_,
            "correction_date": time_.date(),
        }
        rows.append(row)
    return rows


def test_a_consumer_that_is_killed_at_random_ends_with_the_right_ledger(tmp_path: Path) -> None:
    rng = random.Random(11)
    place, ledger = Place(str(tmp_path / "lake")), str(tmp_path / "ledger.sqlite")
    command = [sys.executable, "-m", "tests.billing", place.root, ledger, OPEN]
    direct.create(place, CORRECTIONS)
    everything: list[dict[str, Any]] = []
    for number in range(1, 11):
        rows = publication(number, rng)
        rng.shuffle(rows)  # the table keeps no order
        direct.add(place, CORRECTIONS, rows)
        everything += rows
        with subprocess.Popen(command) as process:
            time.sleep(rng.uniform(0.2, 1.2))
            process.kill()
    subprocess.run(command, check=True)
    subprocess.run(command, check=True)  # nothing new
    books = sqlite3.connect(ledger)
    wanted: Counter[tuple[Any, ...]] = Counter()
    for row in everything:
        if row["delta_cost_micros"] is not None:
            wanted[row["advertiser_id"], row["currency"], row["billing_month"]] += row["delta_cost_micros"]
    found = books.execute("SELECT advertiser_id, currency, original_month, sum(micros) FROM booked GROUP BY 1, 2, 3").fetchall()
    assert {tuple(row[:3]): row[3] for row in found} == dict(wanted)
    assert books.execute("SELECT DISTINCT month FROM booked WHERE original_month < ?", (OPEN,)).fetchall() == [(OPEN,)]
    assert books.execute("SELECT count(*) FROM unpriced").fetchone()[0] == sum(row["delta_cost_micros"] is None for row in everything)


def test_a_missing_publication_is_not_skipped(tmp_path: Path) -> None:
    place = Place(str(tmp_path / "lake"))
    for number in (1, 3):
        direct.add(place, CORRECTIONS, publication(number, random.Random(number)))
    with pytest.raises(ValueError, match=r"found \[0, 1, 3\]"):
        billing.feed(place.root, (0, 0))
