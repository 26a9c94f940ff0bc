"""Ingest: every row accounted for, each reason to reject, duplicates, formats, order lines, what a live system did."""

import gzip
import json
import os
import time
from datetime import date
from pathlib import Path

import pytest
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F
from rich.console import Console
from slidr.jobs import ingest as ingest_job

from slidr.config import Config
from slidr.errors import GuardrailError, InputError
from slidr.ingest import load_source
from slidr.lake import Lake
from slidr.run import Job
from slidr.tables import CLICKS, CURRENT_DECISIONS, DECISIONS, PURCHASES, REJECTS, features_table
from tests.foreign import GOOD, NAMES, NOW, row, run, write_csv

BAD = {
    "not_a_time: click_time": {"click_time": "2026-02-30T10:00:00Z"},
    "not_a_number: cost_micros": {"cost_micros": "NaN"},
    "not_a_boolean: logged_in": {"logged_in": "perhaps"},
    "null: device": {"device": "  "},
    "null: click_id": {"click_id": ""},
    "negative: cost_micros": {"cost_micros": "-1"},
    "unknown_marketplace": {"marketplace": "XX"},
    "too_early: click_time": {"click_time": "1999-12-31T23:59:59Z"},
    "future_click": {"arrival_time": "2026-03-01T09:00:00Z"},
    "future_arrival": {"arrival_time": "2099-01-01T00:00:00Z"},
    "not_a_time: arrival_time": {"arrival_time": "soon"},
}


@pytest.fixture
def mixed(tmp_path: Path) -> str:
    """Good rows, each kind of bad row, duplicates, a conflict and a line with too few values."""
    rows = [row(), row(click_id="b", user_id="", session_id="", logged_in="", cost_micros="12.0")]
    rows += [row(click_id=f"bad{i}", **changes) if "click_id" not in changes else row(**changes) for i, changes in enumerate(BAD.values())]
    rows += [row(arrival_time="2026-03-01T11:00:00Z"), row(cost_micros="99", arrival_time="2026-03-01T12:00:00Z")]
    path = write_csv(tmp_path / "mixed rows [1].csv", rows)
    with open(path, "a", encoding="utf-8") as file:
        file.write("too,few\n\n")
    return path


def test_every_row_is_accounted_for_and_a_second_run_adds_nothing(lake: Lake, conf: Config, mixed: str) -> None:
    first = run(lake, "canonical", [mixed], conf)
    total = first.total("clicks")
    expected = {**dict.fromkeys(BAD, 1), "malformed": 1, "conflicting_duplicate": 1}
    assert total.rejects == dict(sorted(expected.items()))
    assert (total.rows_in, total.written, total.already_there, total.merged) == (len(BAD) + 5, 2, 1, 0)
    assert first.files[0].source_file == mixed
    assert first.has_rejects

    a = lake.read(CLICKS).where("click_id = 'a'").collect()[0]
    assert (a.cost_micros, a.arrival_time, a.local_date) == (250000, a.click_time, date(2026, 3, 1))  # the earliest arrival stays
    b = lake.read(CLICKS).where("click_id = 'b'").collect()[0]
    assert (b.logged_in, b.user_id, b.cost_micros, b.session_id[:4], b.upstream_filter) == (False, None, 12, "gap-", None)

    recorded = {r.reason: r for r in lake.read(REJECTS).collect()}
    assert set(recorded) == set(expected)
    assert json.loads(recorded["unknown_marketplace"].raw)["marketplace"] == "XX"
    assert recorded["malformed"].raw == "too,few"
    assert recorded["malformed"].source_file == mixed

    versions = [lake.version(table) for table in (CLICKS, REJECTS)]
    second = run(lake, "canonical", [mixed], conf, run_id="run-2").total("clicks")
    assert second.rejects == total.rejects
    assert (second.written, second.already_there) == (0, 3)
    assert [lake.version(table) for table in (CLICKS, REJECTS)] == versions
    assert not list(Path(lake.root, "_staging").iterdir())


def test_too_many_rejects_publish_nothing(lake: Lake, conf: Config, mixed: str) -> None:
    with pytest.raises(GuardrailError, match=r"at most 50.00% rejects for clicks, found 81.25% \(13 of 16 rows.*unknown_marketplace: 1"):
        run(lake, "canonical", [mixed], conf, share=0.5)
    assert not lake.exists(CLICKS)
    assert not lake.exists(REJECTS)
    assert not list(Path(lake.root, "_staging").iterdir())


def test_what_the_lake_has_stays(lake: Lake, conf: Config, tmp_path: Path) -> None:
    run(lake, "canonical", [write_csv(tmp_path / "one.csv", [row(), row(click_id="b")])], conf)
    again = [row(), row(click_id="b", device="desktop"), row(click_id="a", click_time="2026-03-05T10:00:00Z"), row(click_id="c")]
    total = run(lake, "canonical", [write_csv(tmp_path / "two.csv", again)], conf, run_id="run-2").total("clicks")
    # One id under two days in one batch: the earlier arrival is the lake's, the other conflicts.
    assert (total.written, total.already_there, total.rejects) == (1, 1, {"conflicting_duplicate": 2})
    assert {r.click_id: r.device for r in lake.read(CLICKS).collect()} == {"a": "mobile", "b": "mobile", "c": "mobile"}
    moved = write_csv(tmp_path / "three.csv", [row(click_time="2026-03-09T10:00:00Z")])
    assert run(lake, "canonical", [moved], conf, run_id="run-3").total("clicks").rejects == {"conflicting_duplicate": 1}


def test_formats_mean_the_same(lake: Lake, spark: SparkSession, conf: Config, tmp_path: Path) -> None:
    folder = tmp_path / "all formats 100%"
    folder.mkdir()
    write_csv(folder / "a.csv", [row(click_id="same"), row(click_id="csv")])
    write_csv(folder / "reversed.csv", [row(click_id="same"), row(click_id="csv2")], NAMES[::-1])
    with gzip.open(folder / "b.csv.gz", "wb") as file:
        file.write(Path(folder / "a.csv").read_bytes().replace(b'"csv"', b'"gz"'))
    whole = {**row(click_id="same"), "logged_in": True, "cost_micros": 250000}
    lines = [
        json.dumps(whole).encode(),
        json.dumps({**whole, "click_id": "json"}).encode(),
        b"[1]",
        b'{"click_id": "\xff\xfe"',
        b'{"a": 1}x',
    ]
    (folder / "c.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    typed = spark.createDataFrame([Row(**whole), Row(**{**whole, "click_id": "parquet"})])
    typed = typed.withColumn("click_time", F.col("click_time").cast("timestamp"))
    typed.coalesce(1).write.parquet(str(folder / "d.parquet"))
    (folder / "_SUCCESS").touch()

    summary = run(lake, "canonical", [str(folder)], conf)
    total = summary.total("clicks")
    assert len(summary.files) == 5
    assert (total.rows_in, total.written, total.already_there) == (13, 6, 4)
    assert total.rejected == 3
    found = lake.read(CLICKS).drop("click_id").distinct().collect()
    assert len(found) == 1
    assert found[0].click_time == lake.spark.sql("SELECT TIMESTAMP'2026-03-01 10:00:00.123456'").collect()[0][0]


def test_live_decisions_and_features_take_the_rest_from_the_click(lake: Lake, conf: Config, tmp_path: Path) -> None:
    run(lake, "canonical", [write_csv(tmp_path / "c.csv", [row(), row(click_id="b", upstream_filter="robots"), row(click_id="c")])], conf)
    names = ["click_id", "is_invalid", "score", "threshold", "model_version", "decided_time"]
    decided = dict(zip(names, ("a", "1", "0.91234567", "0.5", "live-7", "2026-03-01T10:00:01Z"), strict=True))
    rows = [decided, {**decided, "click_id": "b"}, {**decided, "click_id": "x"}, {**decided, "click_id": "c", "score": "inf"}]
    path = write_csv(tmp_path / "d.csv", rows, names)
    total = run(lake, "canonical_decisions", [path], conf, run_id="run-2").total("decisions")
    assert (total.written, total.rejects) == (2, {"not_a_number: score": 1, "unknown_click": 1})
    a, b = lake.read(DECISIONS).orderBy("click_id").collect()
    assert (a.basis, a.ivt_class, a.report_slice, a.score, a.slice, a.cost_micros) == (
        "external",
        "sivt",
        "mobile/login/US",
        0.912346,
        "",
        250000,
    )
    assert (b.ivt_class, b.basis, b.threshold, b.model_version, b.run_id) == ("givt", "upstream", None, "live-7", "run-2")
    assert run(lake, "canonical_decisions", [path], conf, run_id="run-3").total("decisions").already_there == 2

    table = features_table(conf.spec)
    features = [c.name for c in conf.spec.columns]
    logged = {"click_id": "a", **dict.fromkeys(features, "1")}
    short = write_csv(tmp_path / "f.csv", [logged, {**logged, "click_id": "c", features[0]: "1.5"}], ["click_id", *features[:-1]])
    with pytest.raises(InputError, match="logged_in"):
        run(lake, "canonical_features", [short], conf)
    full = write_csv(tmp_path / "f.csv", [logged, {**logged, "click_id": "c", features[0]: "1.5"}], ["click_id", *features])
    total = run(lake, "canonical_features", [full], conf, run_id="run-4").total("features")
    assert (total.written, total.rejects) == (1, {f"not_a_number: {features[0]}": 1})
    assert lake.read(table).select("click_id", "origin", "click_date").collect()[0] == ("a", "logged", date(2026, 3, 1))


def test_what_the_upstream_filter_made_free_stays_free_whatever_a_live_system_says(lake: Lake, conf: Config, tmp_path: Path) -> None:
    made = [row(), row(click_id="free", upstream_filter="robots"), row(click_id="bot", upstream_filter="robots")]
    run(lake, "canonical", [write_csv(tmp_path / "c.csv", made)], conf)
    names = ["click_id", "is_invalid", "score", "threshold", "model_version", "decided_time"]
    said = dict(zip(names, ("a", "0", "0.1", "0.5", "live-7", "2026-03-01T10:00:01Z"), strict=True))
    path = write_csv(tmp_path / "d.csv", [said, {**said, "click_id": "free"}, {**said, "click_id": "bot", "is_invalid": "1"}], names)
    lake.create(CURRENT_DECISIONS)
    job = Job(conf, "run-2", NOW, Console(quiet=True), actor="test")
    job.__dict__.update(lake=lake, spark=lake.spark)  # the session of the tests, as if it had started already
    assert ingest_job.ingest(job, "canonical_decisions", [path]).exit_code == 0
    published = {(r.click_id, r.is_invalid, r.ivt_class, r.basis, r.score) for r in lake.read(CURRENT_DECISIONS).collect()}
    free = {(name, True, "givt", "upstream", 0.1) for name in ("free", "bot")}
    assert published == free | {("a", False, None, "external", 0.1)}
    again = run(lake, "canonical_decisions", [path], conf, run_id="run-3").total("decisions")
    assert (again.already_there, again.rejected) == (3, 0)


def test_errors_name_what_is_wrong(lake: Lake, spark: SparkSession, conf: Config, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found none; check the path"):
        run(lake, "canonical", [str(tmp_path / "nothing.csv")], conf)
    (tmp_path / "empty.csv").touch()
    with pytest.raises(InputError, match="only empty files"):
        run(lake, "canonical", [str(tmp_path / "empty.csv")], conf)
    renamed = write_csv(tmp_path / "renamed.csv", [row()], ["clickid", *NAMES[1:]])
    with pytest.raises(InputError, match=r"'click_id' \(did the file mean 'clickid'\?\).*found clickid, click_time"):
        run(lake, "canonical", [renamed], conf)
    (tmp_path / "x.jsonl").write_text('{"clickid": "a"}\n')
    with pytest.raises(InputError, match="did the file mean 'clickid'"):
        run(lake, "canonical", [str(tmp_path / "x.jsonl")], conf)
    wrong = spark.createDataFrame([Row(**{**GOOD, "click_time": True, "cost_micros": [1]})])
    wrong.write.parquet(str(tmp_path / "wrong.parquet"))
    with pytest.raises(InputError, match=r"click_time: expected a time or text, found boolean; cost_micros: expected a number"):
        run(lake, "canonical", [str(tmp_path / "wrong.parquet")], conf)
    (tmp_path / "no.parquet").write_text("not parquet")
    with pytest.raises(InputError, match="no.parquet as Parquet"):
        run(lake, "canonical", [str(tmp_path / "no.parquet")], conf)
    (tmp_path / "broken.csv.gz").write_bytes(gzip.compress(b"a,b\n" * 1000)[:-30])
    with pytest.raises(InputError):
        run(lake, "canonical", [str(tmp_path / "broken.csv.gz")], conf)


def test_the_hosts_zone_does_not_show(lake: Lake, conf: Config, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "clicks.csv", [row(click_time="2026-03-01 23:30:00"), row(click_id="b", click_time="2026-03-02T02:00:00Z")])
    before = os.environ.get("TZ", "UTC")
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()
    try:
        run(lake, "canonical", [path], conf)
        rows = lake.read(CLICKS).select("click_id", F.unix_micros("click_time"), F.col("click_date").cast("string"), "local_date")
        found = rows.orderBy("click_id").collect()
    finally:
        os.environ["TZ"] = before
        time.tzset()
    assert found == [("a", 1772407800000000, "2026-03-01", date(2026, 3, 1)), ("b", 1772416800000000, "2026-03-02", date(2026, 3, 1))]


ORDERS = """
description: order lines
format: csv
tables:
  purchases:
    order_lines: true
    columns:
      order_id: {from: id}
      user_id: {from: user}
      purchase_time: {from: at}
      marketplace: {from: country, values: {usa: US, ger: DE}}
      amount_micros: {from: amount, unit: major}
      currency: {constant: USD}
"""


def test_order_lines_become_one_order(lake: Lake, conf: Config, tmp_path: Path) -> None:
    (tmp_path / "orders.yaml").write_text(ORDERS)
    names = ["id", "user", "at", "country", "amount"]
    line = dict(zip(names, ("1", "u", "2026-03-01 10:00:00", "usa", "0.1"), strict=True))
    later = {**line, "at": "2026-03-01 10:00:05", "amount": "0.2"}
    rows = [line, later, {**line, "user": "v", "at": "2026-03-01 11:00:00"}, {**line, "id": "2"}, {**line, "id": "3", "country": "fra"}]
    source = load_source(str(tmp_path / "orders.yaml"))
    total = run(lake, source, [write_csv(tmp_path / "o.csv", rows, names)], conf).total("purchases")
    assert (total.written, total.merged, total.rejects) == (2, 1, {"conflicting_duplicate": 1, "unknown_value: marketplace": 1})
    first = lake.read(PURCHASES).where("order_id = '1'").collect()[0]
    assert (first.amount_micros, first.user_id, first.purchase_time.second, first.cancelled) == (300000, "u", 0, False)
    more = [line, later, {**line, "amount": "5"}]  # another amount than the lake has: none of its lines is used
    total = run(lake, source, [write_csv(tmp_path / "p.csv", more, names)], conf, run_id="run-2").total("purchases")
    assert (total.written, total.merged, total.rejects) == (0, 0, {"conflicting_duplicate": 3})
