"""Rows that hold what no row should: each is a reject with its reason or a click like any other, and no job behind stumbles."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from slidr.config import Config
from slidr.ingest import load_source
from slidr.lake import Lake
from slidr.tables import CLICKS, CURRENT_DECISIONS, DECISIONS
from tests.commands import World
from tests.faults.summary import SURVIVED
from tests.foreign import row, run, write_csv

LONG, LESS = 1 << 20, 1 << 12  # characters
REFUSED_ROWS: dict[str, list[dict[str, str]]] = {
    "not_a_number: cost_micros": [
        {"cost_micros": text} for text in ("NaN", "-inf", "1e400", "9" * LONG, "1e999999999", "9223372036854775808", "0x10")
    ],
    "too_large: cost_micros": [{"cost_micros": "9223372036854775807"}, {"cost_micros": str(10**15 + 1)}],
    "negative: cost_micros": [{"cost_micros": "-1"}, {"cost_micros": "-9223372036854775808"}],
    "not_a_boolean: logged_in": [{"logged_in": "x" * LESS}, {"logged_in": "2"}],
    "not_a_time: click_time": [{"click_time": text} for text in ("1772359200", "1772359200000000", "2" * LESS, "2026-13-01T00:00:00Z")],
    "too_early: click_time": [{"click_time": "0001-01-01T00:00:00Z"}, {"click_time": "0000-01-01T00:00:00Z"}],
    "future_click": [{"click_time": "9999-12-31T23:59:59.999999Z"}, {"click_time": "9999-12-31T23:59:59-14:00"}],
    "future_arrival": [{"arrival_time": "9999-12-31T23:59:59-14:00"}],
    "unknown_marketplace": [{"marketplace": "x" * LESS}],
    "null: click_id": [{"click_id": " "}, dict.fromkeys(row(), "")],
}
ODD_CLICKS: list[dict[str, str]] = [
    {"user_agent": "x" * LONG},
    {"user_id": "a\x00b", "click_id": "\x00"},
    {"user_agent": "<script>alert(1)</script>\x1b[31m", "advertiser_id": "'; DROP TABLE clicks; --"},
    {"click_id": "\U0001f916/../%2e%2e", "campaign_id": "\u202e\ufeff"},
    {"ip": ":" * LESS, "user_id": "u" * LESS},
    {"ip": "999.999.999.999"},
    {"cost_micros": str(10**15)},
    {"cost_micros": "1e-999999999"},  # nothing, to nine decimals
]
INVALID = b'"utf","2026-03-01T10:00:00Z","\xff\xfe","s\xc3","\x80","\xf0\x28","mobile","US","true","adv","camp","1","USD","",""\n'


def poisoned(path: Path) -> tuple[str, dict[str, int]]:
    """The file, and how many rejects of which reason it must give."""
    rows = [{**row(click_id=f"p{n}"), **changes} for n, changes in enumerate(c for some in REFUSED_ROWS.values() for c in some)]
    odd = [{**row(click_id=f"o{n}"), **changes} for n, changes in enumerate(ODD_CLICKS)]
    file = write_csv(path, [*rows, *odd])
    with path.open("ab") as more:
        more.write(INVALID)
    return file, {reason: len(some) for reason, some in REFUSED_ROWS.items()}


@pytest.mark.fault(
    "NaN, infinite, empty, negative and huge numbers, exponents and 1 MB texts in their place, years 0000, 0001, 9999 and beyond, "
    "epochs for times, NULL ids; NUL, control characters and invalid UTF-8 in texts",
    "each row is a reject with its reason, or a click; every row is accounted for",
    ends=SURVIVED,
)
def test_poison_rows(lake: Lake, conf: Config, tmp_path: Path) -> None:
    file, expected = poisoned(tmp_path / "poison.csv")
    total = run(lake, "canonical", [file], conf).total("clicks")
    assert total.rejects == dict(sorted(expected.items()))
    assert total.written == len(ODD_CLICKS) + 1
    assert lake.read(CLICKS).where("click_id = 'utf'").collect()[0].user_id == "\ufffd\ufffd"


@pytest.mark.fault(
    "the same clicks under the jobs behind", "features, labels, decisions, metrics, report and replay of them", ends=SURVIVED
)
@pytest.mark.slow
def test_jobs_behind_poison(shop: World, tmp_path: Path) -> None:
    file, _ = poisoned(tmp_path / "poison.csv")
    shop.ok("ingest", "--source", "canonical", file, code=10)
    window = ("--from", "2026-03-01", "--to", "2026-03-03")
    for command in ("features", "labels", "score", "monitor", "report"):
        shop.ok(command, *window)
    clicks = shop.rows(CLICKS)
    assert shop.rows(DECISIONS) == shop.rows(CURRENT_DECISIONS) == clicks
    plan = shop.ok(
        "replay", "plan", *window, "--allow-charges", "--model", "1", "--override", "test", "--set", "replay.approval_above_micros=0"
    )
    assert plan["counts"]["clicks"] == clicks
    shop.ok("replay", "apply", plan["plan_id"], "--override", "test")
    shop.ok("report", *window)
    odd = shop.ok("sql", "SELECT count(*) AS n FROM clicks WHERE user_agent LIKE '<script>%' OR click_id = chr(0)")
    assert odd["rows"] == [{"n": 2}]


SOURCE = """
description: times as numbers
format: auto
tables:
  clicks:
    session_gap: true
    columns:
      click_id: {from: id}
      click_time: {from: at, format: epoch_us}
      device: {constant: d}
      marketplace: {constant: US}
      advertiser_id: {constant: a}
      campaign_id: {constant: c}
      currency: {constant: USD}
"""
MICROS = 1_772_359_200_000_000
EPOCHS = {
    "right": (str(MICROS), None),
    "seconds": (str(MICROS // 10**6), "too_early: click_time"),
    "milliseconds": (str(MICROS // 10**3), "too_early: click_time"),
    "nanoseconds": (str(MICROS * 10**3), "not_a_time: click_time"),
    "beyond a bigint": ("9" * 30, "not_a_time: click_time"),
    "negative": ("-1", "too_early: click_time"),
    "not a number": ("NaN", "not_a_time: click_time"),
}


@pytest.mark.fault("seconds, milliseconds or nanoseconds for microseconds", "rejects, never another time", ends=SURVIVED)
@pytest.mark.slow
@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_epochs_in_another_unit(lake: Lake, conf: Config, tmp_path: Path, format: str) -> None:
    (tmp_path / "source.yaml").write_text(SOURCE)
    path = tmp_path / f"clicks.{format}"
    cases = {name: case for name, case in EPOCHS.items() if format != "parquet" or case[0].lstrip("-").isdigit() and len(case[0]) < 20}
    rows = [{"id": name, "at": text} for name, (text, _) in cases.items()]
    if format == "csv":
        write_csv(path, rows, ["id", "at"])
    elif format == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.table({"id": list(cases), "at": [int(row["at"]) for row in rows]}), path)
    total = run(lake, load_source(str(tmp_path / "source.yaml")), [str(path)], conf).total("clicks")
    reasons = [reason for _, reason in cases.values() if reason]
    assert total.rejects == {reason: reasons.count(reason) for reason in sorted(set(reasons))}
    assert [r.click_id for r in lake.read(CLICKS).collect()] == ["right"]
