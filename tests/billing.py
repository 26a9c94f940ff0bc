"""A small consumer of the correction feed, as docs/billing.md describes it: python -m tests.billing LAKE LEDGER OPEN_MONTH

Books every correction once into an SQLite ledger, whatever happens to it in between; needs no Spark. It takes a few corrections at a
time, and where it stands is written together with what it books.
"""

import sqlite3
import sys
from typing import Any

from slidr import direct
from slidr.direct import Place
from slidr.tables import CORRECTIONS

AT_ONCE = 25
SCHEMA = """
CREATE TABLE IF NOT EXISTS booked (publication_no INTEGER, ordinal INTEGER, advertiser_id TEXT, campaign_id TEXT, currency TEXT,
    micros INTEGER NOT NULL, month TEXT, original_month TEXT, PRIMARY KEY (publication_no, ordinal));
CREATE TABLE IF NOT EXISTS unpriced (publication_no INTEGER, ordinal INTEGER, click_id TEXT, PRIMARY KEY (publication_no, ordinal));
CREATE TABLE IF NOT EXISTS position (publication_no INTEGER, ordinal INTEGER);
"""


def feed(root: str, after: tuple[int, int]) -> list[dict[str, Any]]:
    """Corrections behind a position, in order. Raises ValueError where a publication is missing."""
    rows = [row for row in direct.read(Place(root), CORRECTIONS).rows if (row["publication_no"], row["ordinal"]) > after]
    rows.sort(key=lambda row: (row["publication_no"], row["ordinal"]))
    numbers = sorted({row["publication_no"] for row in rows} | {after[0]})
    if numbers != list(range(after[0], after[0] + len(numbers))):
        raise ValueError(f"expected publications without a gap after {after[0]}, found {numbers}")
    return rows


def consume(root: str, ledger: str, open_month: str) -> None:
    books = sqlite3.connect(ledger, isolation_level=None)
    books.executescript(SCHEMA)
    while True:
        after = books.execute("SELECT publication_no, ordinal FROM position").fetchone() or (0, 0)
        rows = feed(root, after)[:AT_ONCE]
        if not rows:
            return
        books.execute("BEGIN IMMEDIATE")
        for row in rows:
            book(books, row, open_month)
        books.execute("DELETE FROM position")
        books.execute("INSERT INTO position VALUES (?, ?)", (rows[-1]["publication_no"], rows[-1]["ordinal"]))
        books.execute("COMMIT")


def book(books: sqlite3.Connection, row: dict[str, Any], open_month: str) -> None:
    """A month that is closed is not opened again: the amount goes to the open one and names the month that it is for."""
    key = (row["publication_no"], row["ordinal"])
    if row["delta_cost_micros"] is None:
        books.execute("INSERT OR IGNORE INTO unpriced VALUES (?, ?, ?)", (*key, row["click_id"]))
        return
    whom = (row["advertiser_id"], row["campaign_id"], row["currency"], row["delta_cost_micros"])
    month = max(row["billing_month"], open_month)
    books.execute("INSERT OR IGNORE INTO booked VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*key, *whom, month, row["billing_month"]))


if __name__ == "__main__":
    consume(*sys.argv[1:])
