"""What single fields of foreign files become: times, numbers, addresses, sessions; what a wrong source file is told."""

import random
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from slidr.config import Config
from slidr.errors import ConfigError
from slidr.ingest import load_source
from slidr.ingest.address import ip_key
from slidr.ingest.sessions import gap_sessions
from slidr.ingest.sources import FieldMap
from slidr.ingest.values import read_as
from tests import oracles_ingest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("format: csv\ndescription: x\ntables: {clicks: {columns: {click_id: {from: a}}}}", "click_time, session_id, device, marketplace"),
        ("format: csv\ndescription: x\ntables: {clicks: {columns: {clickid: {from: a}}}}", "did you mean 'click_id'"),
        ("format: csv\ndescription: x\ntables: {clicks: {columns: {click_id: {from: a, constant: b}}}}", "exactly one of"),
        ("format: csv\ndescription: x\ntables: {clicks: {columns: {click_time: {from: a, zone: Mars}}}}", "IANA time zone"),
        ("format: xml\ndescription: x\ntables: {}", "'auto', 'csv'"),
        ("format: csv\ndescription: x\ntables: {labels: {columns: {}}}", "expected one of clicks, purchases"),
    ],
)
def test_a_wrong_source_file_is_explained(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "source.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_source(str(path))


def test_unknown_source_lists_the_shipped_ones(conf: Config) -> None:
    with pytest.raises(ConfigError, match="apache_access, canonical, .*talkingdata"):
        load_source("talking_data")


def values(spark: SparkSession, cases: list[tuple[str, object]], kind: str, **field: str) -> list[tuple[str, object, object]]:
    column = read_as(F.col("text"), kind, FieldMap.model_validate({"from": "text", **field}), money="unit" in field)
    column = F.date_format(column, "yyyy-MM-dd HH:mm:ss.SSSSSS") if kind == "timestamp" else column
    rows = spark.createDataFrame([(i, text) for i, (text, _) in enumerate(cases)], "i int, text string").select("i", column.alias("value"))
    found = {r.i: r.value for r in rows.collect()}
    return [(text, expected, found[i]) for i, (text, expected) in enumerate(cases) if found[i] != expected]


def test_times(spark: SparkSession) -> None:
    new_york = [
        ("2026-03-08 01:59:59", "2026-03-08 06:59:59.000000"),
        ("2026-03-08 02:30:00", "2026-03-08 07:30:00.000000"),  # skipped in spring: an hour on
        ("2026-03-08 03:00:00", "2026-03-08 07:00:00.000000"),
        ("2026-11-01 01:30:00", "2026-11-01 05:30:00.000000"),  # twice in autumn: the first
        ("2026-11-01 02:00:00", "2026-11-01 07:00:00.000000"),
        ("2026-11-01 01:30:00-05:00", "2026-11-01 06:30:00.000000"),  # an offset wins
        ("2026-01-01T00:00:00.1234569+0530", "2025-12-31 18:30:00.123456"),
        ("2026-01-01t00:00z", "2026-01-01 00:00:00.000000"),
        ("2026-01-01 00:00:00 +02", "2025-12-31 22:00:00.000000"),
        ("2026-01-01", "2026-01-01 05:00:00.000000"),
        ("2026", None),
        ("10:00", None),
        ("now", None),
        ("2026-02-29 00:00:00", None),
        ("2026-01-01 24:00:00", None),
        ("1767225600", None),
    ]
    assert values(spark, new_york, "timestamp", zone="America/New_York") == []
    apache = [("17/May/2015:10:05:03 +0200", "2015-05-17 08:05:03.000000"), ("17/Mai/2015:10:05:03 +0200", None), ("", None)]
    assert values(spark, apache, "timestamp", format="dd/MMM/yyyy:HH:mm:ss Z") == []
    local = [("17.05.2015 10:05", "2015-05-17 08:05:00.000000")]
    assert values(spark, local, "timestamp", format="dd.MM.yyyy HH:mm", zone="Europe/Berlin") == []
    seconds = [
        ("1485630413.0", "2017-01-28 19:06:53.000000"),
        ("1485630413.0000019", "2017-01-28 19:06:53.000002"),
        ("1e400", None),
        ("NaN", None),
    ]
    seconds += [("1485630413000000", None), ("-1", "1969-12-31 23:59:59.000000")]
    assert values(spark, seconds, "timestamp", format="epoch_s") == []
    assert values(spark, [("1485630413001", "2017-01-28 19:06:53.001000")], "timestamp", format="epoch_ms") == []


def test_numbers_and_booleans(spark: SparkSession) -> None:
    major = [
        ("3.86", 3860000),
        ("0.1", 100000),
        ("3.8600000000000003", 3860000),
        ("1e2", 100000000),
        ("inf", None),
        ("1,5", None),
        ("9e18", None),
    ]
    assert values(spark, major, "bigint", unit="major") == []
    assert values(spark, [("7", 7), ("7.0", 7), ("7.5", None), ("99999999999", None), ("", None)], "int") == []
    assert values(spark, [("0.5", 0.5), ("NaN", None), ("-Infinity", None), ("x", None)], "double") == []
    assert values(spark, [("TRUE", True), ("0", False), ("1.0", True), ("yes", True), ("2", None)], "boolean") == []


def test_ip_key_equals_pythons_networks(spark: SparkSession) -> None:
    chance = random.Random(3)
    cases = [
        "1.2.3.4",
        "87540",
        "::",
        "::1",
        "2001:DB8:0:1::5",
        "fe80::1%eth0",
        "[2001:db8::2]",
        "::ffff:1.2.3.4",
        "::FFFF:c0a8:0101",
        "::ffff:300.1.1.1",
    ]
    cases += [
        "1::2::3",
        ":1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:",
        "1:2:3:4:5:6:7:8",
        "1:2:3:4:5:6:7:8:9",
        "1:2:3:4:5:6:7::",
        "g::1",
        "12345::1",
        "a:0:0:b::",
        ":::",
        ":",
        "10:20",
    ]
    for _ in range(500):
        number = chance.getrandbits(chance.choice([16, 48, 64, 128])) << chance.choice([0, 16, 64, 80])
        parsed = oracles_ingest.ipaddress.IPv6Address(number & (2**128 - 1))
        cases.append(chance.choice([str(parsed), parsed.exploded, str(parsed).upper()]))
    rows = spark.createDataFrame([(case,) for case in cases], "ip string").withColumn("key", ip_key(F.col("ip"))).collect()
    assert [(r.ip, r.key) for r in rows if r.key != oracles_ingest.ip_key(r.ip)] == []


def clicks_frame(spark: SparkSession, rows: list[tuple[object, ...]]) -> DataFrame:
    schema = "click_id string, second long, user_id string, ip_key string, user_agent string, session_id string"
    return spark.createDataFrame(rows, schema).withColumn("click_time", F.timestamp_seconds("second")).drop("second")


def test_gap_sessions_equal_a_naive_rule_and_do_not_depend_on_file_borders(spark: SparkSession) -> None:
    chance = random.Random(5)
    rows = [
        (
            f"c{i:03}",
            chance.randrange(0, 40) * 600,
            chance.choice([None, None, "u"]),
            chance.choice([None, "i", "j"]),
            chance.choice([None, "x"]),
        )
        for i in range(150)
    ]
    expected = oracles_ingest.sessions([(*r,) for r in rows], gap=1800)
    whole = gap_sessions(clicks_frame(spark, [(*r, None) for r in rows]), None, gap_minutes=30)
    session_of = {r.click_id: r.session_id for r in whole.collect()}
    assert {(a, b) for a in session_of for b in session_of if session_of[a] == session_of[b]} == {
        (a, b) for a in expected for b in expected if expected[a] == expected[b]
    }
    border = 20 * 600
    early = gap_sessions(clicks_frame(spark, [(*r, None) for r in rows if r[1] < border]), None, gap_minutes=30)
    known = spark.createDataFrame(early.collect(), early.schema)
    late = gap_sessions(clicks_frame(spark, [(*r, None) for r in rows if r[1] >= border]), known, gap_minutes=30)
    assert {r.click_id: r.session_id for r in [*early.collect(), *late.collect()]} == session_of
