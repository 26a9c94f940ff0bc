"""Seconds of `slidr sql` on a million decisions, start of the process included, beside DuckDB's own read of the same files.

python -m tests.bench.query [--decisions 1000000] [--days 28] [--times 5]

Every query runs in processes of its own, in turns; printed are the median and the range. The files are in the page cache.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from slidr import direct, ready
from slidr.direct import ARROW, Place
from slidr.tables import CLICKS, CORRECTIONS, CURRENT_DECISIONS, DECISIONS, Table

FIRST = date(2026, 3, 1)
SLICES = ["desktop/guest/US", "desktop/login/US", "phone/guest/DE", "phone/login/DE"]
BY_SLICE = "SELECT report_slice, count(*) AS clicks, count_if(is_invalid) AS invalid FROM current_decisions GROUP BY 1 ORDER BY 1"
BY_ID = "SELECT * FROM current_decisions WHERE click_id = 'c000000777'"
DUCKDB = """
import duckdb, sys
root, query = sys.argv[1:]
for name in ("clicks", "decisions", "current_decisions", "corrections"):
    duckdb.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{root}/{name}/*=*/*.parquet', hive_partitioning = true)")
duckdb.execute(query, {"month": "2026-03", "advertiser": "%"} if "$" in query else {}).fetchall()
"""


def column(kind: str, name: str, numbers: np.ndarray) -> pa.Array:
    """Values that look like the column's: ids are distinct, other text has few values."""
    if name == "click_id":
        return pa.array([f"c{number:09d}" for number in numbers])
    if name == "session_id":
        return pa.array([f"s{number // 3:09d}" for number in numbers])
    if kind == "string":
        few = SLICES if name in ("slice", "report_slice") else [f"{name}-{number}" for number in range(20)]
        return pa.array(few).take(pa.array(numbers % len(few)))
    if kind == "timestamp":
        return pa.array(numbers.astype("int64") * 86_000 + 1_772_323_200_000_000, ARROW[kind])
    if kind == "boolean":
        return pa.array(numbers % 7 == 0)
    if kind == "double":
        return pa.array(np.round((numbers * 2_654_435_761 % 2**32) / 2**32, 6))
    return pa.array(numbers % 100_000, ARROW[kind])


def day_of(table: Table, numbers: np.ndarray, day: date) -> pa.Table:
    given = {name: pa.array([day] * len(numbers), pa.date32()) for name in ("click_date", "local_date", "correction_date")}
    texts = {"ivt_class": np.where(numbers % 7 == 0, "sivt", None), "billing_month": np.full(len(numbers), "2026-03")}
    given |= {name: pa.array(values.tolist(), pa.string()) for name, values in texts.items()}
    given |= {"upstream_filter": pa.nulls(len(numbers), pa.string())}
    columns = {c.name: given.get(c.name, column(c.type, c.name, numbers) if c.type != "date" else None) for c in table.columns}
    return pa.table(columns)


def made(root: str, decisions: int, days: int) -> None:
    """A file a day of each table; a hundredth of the clicks has a correction."""
    place = Place(root)
    for table, every in ((CLICKS, 1), (DECISIONS, 1), (CURRENT_DECISIONS, 1), (CORRECTIONS, 100)):
        direct.create(place, table)
        for number, numbers in enumerate(np.array_split(np.arange(decisions), days)):
            rows = day_of(table, numbers[numbers % every == 0], FIRST + timedelta(days=number))
            write_deltalake(direct.path(place, table), rows, mode="append")


def seconds(words: list[str]) -> float:
    began = time.monotonic()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--decisions", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=28)
    parser.add_argument("--times", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = f"{folder}/lake"
        made(root, given.decisions, given.days)
        places = ["--set", f"lake.root={root}", "--set", f"work.root={folder}/work", "--csv"]
        slidr = [str(Path(sys.executable).with_name("slidr")), "sql"]
        statement = ["--ready", "statement", "--param", "month=2026-03"]
        asked = {"clicks by slice": [BY_SLICE], "one click by id": [BY_ID], "the statements of a month": statement}
        for name, words in asked.items():
            text = words[0] if len(words) == 1 else ready.load("statement").sql
            ways = {"slidr sql": [*slidr, *words, *places], "DuckDB": [sys.executable, "-c", DUCKDB, root, text]}
            found = {way: [] for way in ways}
            for _ in range(given.times):
                for way, command in ways.items():
                    found[way].append(seconds(command))
            said = [f"{way} {statistics.median(all_):.1f} s ({min(all_):.1f} to {max(all_):.1f})" for way, all_ in found.items()]
            print(f"{name}: {', '.join(said)}", flush=True)


if __name__ == "__main__":
    main()
