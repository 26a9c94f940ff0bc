"""Pseudonyms at ingest: counters stay exact, no raw value is left anywhere in the lake, one key per lake."""

import json
from collections.abc import Iterator
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from slidr import data_files, pseudonyms
from slidr.config import Config
from slidr.errors import ConfigError, InputError
from slidr.features import counters
from slidr.features.spec import FeatureSpec
from slidr.ingest import load_source
from slidr.ingest.hiding import hidden_fields
from slidr.ingest.parse import parse, wanted_columns
from slidr.ingest.read import TEXT, Wanted, _check
from slidr.ingest.sources import FieldMap, target
from slidr.lake import Lake
from slidr.pseudonyms import Key, load_key
from slidr.tables import CLICKS, PSEUDONYM_KEYS, PURCHASES, REJECTS
from tests.foreign import row, run, write_csv

VARIABLE = "SLIDR_TEST_KEY"
KEY, OTHER = "a1" * 32, "b2" * 32
PEOPLE = ("ann-7731", "bob-7732", "198.51.100.77", "198.51.100.78", "2001:db8:77:1::1", "2001:db8:77:1::2", "2001:db8:77:1")
SPEC = FeatureSpec.from_dict(
    {
        "entities": {"user": ["user_id"], "ip": ["ip_key"]},
        "counters": [
            {"entity": "user", "measure": "clicks", "windows": ["1h"]},
            {"entity": "ip", "measure": "clicks", "windows": ["1h"]},
            {"entity": "ip", "measure": "users", "distinct": "user_id", "windows": ["1h"]},
        ],
        "time_of_click": False,
        "logged_in": False,
    }
)


@pytest.fixture(scope="module")
def keyed(conf: Config) -> Iterator[Config]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, KEY)
        yield conf.model_copy(update={"ingest": conf.ingest.model_copy(update={"pseudonym_key_variable": VARIABLE})})


@pytest.fixture(scope="module")
def visits(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Clicks of two users and of guests at two IPv4 addresses and one IPv6 network, and rows that are rejects."""
    who = [("ann-7731", 0), ("ann-7731", 2), ("bob-7732", 2), ("", 4), ("", 5), ("bob-7732", 5), ("", 2), ("ann-7731", 3)]
    rows = [
        row(click_id=f"c{number}", click_time=f"2026-03-01T10:{number:02d}:00Z", user_id=user, ip=PEOPLE[place], session_id="")
        for number, (user, place) in enumerate(who)
    ]
    rows.append(row(click_id="c0", click_time="2026-03-01T10:00:00Z", user_id="ann-7731", ip=PEOPLE[3], session_id="", cost_micros="1"))
    rows.append(row(click_id="late", marketplace="XX", user_id="ann-7731", ip="198.51.100.77"))
    path = write_csv(tmp_path_factory.mktemp("visits") / "visits.csv", rows)
    with open(path, "a", encoding="utf-8") as file:
        file.write("ann-7731,198.51.100.77\n")
    return path


@pytest.fixture(scope="module")
def plain(spark: SparkSession, conf: Config, visits: str, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake with users and addresses as delivered."""
    lake = Lake(spark, str(tmp_path_factory.mktemp("plain")))
    run(lake, "canonical", [visits], conf)
    return lake


@pytest.fixture(scope="module")
def hidden(spark: SparkSession, keyed: Config, visits: str, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """The same with pseudonyms."""
    lake = Lake(spark, str(tmp_path_factory.mktemp("hidden")))
    run(lake, "canonical", [visits], keyed)
    return lake


def texts_in(folder: str | Path) -> Iterator[tuple[Path, str]]:
    """Everything that the files hold: rows and footers of Parquet, the rest as it is."""
    for path in sorted(p for p in Path(folder).rglob("*") if p.is_file()):
        yield path, path.read_bytes().decode("latin-1")
        if path.suffix == ".parquet" and not path.name.startswith("."):
            table = pq.ParquetFile(path)
            yield path, str(table.read().to_pylist()) + str(table.metadata.to_dict())


def built(lake: Lake, conf: Config) -> list[Any]:
    day, clicks = date(2026, 3, 1), data_files.of(lake, CLICKS)
    found = counters.build(lake.spark, clicks, spec=SPEC, start=day, end=date(2026, 3, 2), known="then", zones=conf.marketplaces)
    return sorted(map(tuple, found.collect()))


def sessions(lake: Lake) -> set[frozenset[str]]:
    """Clicks by session, whatever it is called."""
    groups = lake.read(CLICKS).groupBy("session_id").agg(F.collect_set("click_id").alias("clicks")).collect()
    return {frozenset(group["clicks"]) for group in groups}


def test_counters_and_sessions_are_the_same(plain: Lake, hidden: Lake, conf: Config) -> None:
    assert built(hidden, conf) == built(plain, conf)
    assert sessions(hidden) == sessions(plain)


def test_no_raw_value_is_left_in_the_lake(plain: Lake, hidden: Lake) -> None:
    assert all(any(person in text for _, text in texts_in(plain.root)) for person in PEOPLE)  # the search finds what is there
    for file, text in texts_in(hidden.root):
        assert not [person for person in (*PEOPLE, KEY) if person in text], file


def test_no_value_of_a_person_is_in_the_log_of_any_lake(plain: Lake) -> None:
    """What is in the log outlives a vacuum: Delta keeps extremes of columns there."""
    logs = [text for file, text in texts_in(plain.root) if "_delta_log" in file.parts]
    assert any('\\"minValues\\":{\\"click_id\\"' in text for text in logs)
    assert not [person for person in PEOPLE if any(person in text for text in logs)]


def test_rejects_keep_what_tells_of_nobody(hidden: Lake) -> None:
    kept = {r["reason"]: json.loads(r["raw"]) for r in hidden.read(REJECTS).collect()}
    assert set(kept) == {"conflicting_duplicate", "malformed", "unknown_marketplace"}
    assert kept["unknown_marketplace"]["marketplace"] == "XX"
    assert kept["unknown_marketplace"]["clicks.user_id"] == Key(bytes.fromhex(KEY)).of("user_id", "ann-7731")
    assert set(kept["malformed"]) == {"withheld"}


def test_ingesting_again_adds_nothing_and_purchases_meet_clicks(hidden: Lake, keyed: Config, visits: str, tmp_path: Path) -> None:
    again = run(hidden, "canonical", [visits], keyed, run_id="run-2").total("clicks")
    assert (again.written, again.already_there, hidden.read(REJECTS).count()) == (0, 8, 3)
    order = "order_id,user_id,purchase_time,marketplace,amount_micros,currency\no1,ann-7731,2026-03-01T11:00:00Z,US,1,USD\n"
    (tmp_path / "orders.csv").write_text(order)
    run(hidden, "canonical_purchases", [str(tmp_path / "orders.csv")], keyed)
    assert hidden.read(PURCHASES).join(hidden.read(CLICKS), on="user_id", how="inner").count() == 3


def test_one_lake_has_one_key(hidden: Lake, plain: Lake, conf: Config, keyed: Config, visits: str) -> None:
    fingerprint = Key(bytes.fromhex(KEY)).key_id
    assert [r["key_id"] for r in hidden.read(PSEUDONYM_KEYS).collect()] == [fingerprint]
    with pytest.raises(ConfigError, match=f"expected the key {fingerprint}.*found no key"):
        run(hidden, "canonical", [visits], conf)
    with pytest.raises(ConfigError, match="as delivered"):
        run(plain, "canonical", [visits], keyed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, OTHER)
        with pytest.raises(ConfigError, match=f"expected the key {fingerprint}.*found the key"):
            run(hidden, "canonical", [visits], keyed)


def test_of_two_first_keys_one_wins(lake: Lake) -> None:
    now = datetime(2026, 3, 1, tzinfo=timezone.utc)
    pseudonyms.record(lake, Key(b"a"), run_id="r1", now=now)
    with pytest.raises(ConfigError, match="expected the key"):
        pseudonyms.record(lake, Key(b"b"), run_id="r2", now=now)
    assert pseudonyms.recorded(lake) == Key(b"a").key_id


def maps(**columns: dict[str, Any]) -> dict[str, dict[str, FieldMap]]:
    return {"clicks": {name: FieldMap.model_validate(given) for name, given in columns.items()}}


def test_all_that_a_source_makes_of_people_is_hidden(conf: Config) -> None:
    """A hash without a key of an address can be undone by trying all addresses: ids and sessions made of one must need the key."""
    source = maps(
        user_id={"from": "login"},
        ip={"from": "host"},
        session_id={"hash_of": ["cookie"]},
        campaign_id={"template": "{page} by {login}"},
        advertiser_id={"from": "page"},
        device={"from": "host", "contains": {"10.": "office"}, "default": "desktop"},
        user_agent={"from": "agent"},
        click_id={"row_id": "clicks"},
    )
    found = hidden_fields({"clicks": target("clicks", conf.spec)}, source)
    assert sorted(name for _, name in found) == ["campaign_id", "ip", "ip_key", "session_id", "user_id"]


def test_ids_made_of_the_row_need_the_key(spark: SparkSession, conf: Config) -> None:
    source = load_source("apache_access")
    wanted = wanted_columns(source, conf)
    values = {"host": "198.51.100.77", "time": "01/Mar/2026:10:00:00 +0000", "user_agent": "Agent", "path_1": "shop"}
    names = [f"v{i} string" for i in range(len(wanted))] + [f"t{i} timestamp" for i, w in enumerate(wanted) if w.timed]
    row_ = ["f", "raw", False, *[values[w.name] for w in wanted], *[None for w in wanted if w.timed]]
    rows = spark.createDataFrame([tuple(row_)], ", ".join(["_file string, _raw string, _malformed boolean", *names]))
    now = datetime(2026, 5, 1, tzinfo=timezone.utc)
    first, second = (
        parse(rows, source=source, wanted=wanted, conf=conf, now=now, key=Key(secret)).first().asDict() for secret in (b"a", b"b")
    )
    differing = {name for name in first if first[name] != second[name]}
    assert differing == {"clicks__click_id", "clicks__ip", "clicks__ip_key", "clicks___content"}
    assert first["clicks__ip"] == first["clicks__ip_key"]


def test_a_file_without_a_header_is_refused_without_telling_its_first_row() -> None:
    wanted = [Wanted(name, frozenset({TEXT}), False, True) for name in ("user_id", "ip")]
    with pytest.raises(InputError, match="found 2 others; does the file begin with a header"):
        _check("clicks.csv", ["ann-7731", "198.51.100.77"], wanted)
    with pytest.raises(InputError, match="found user_id, address"):
        _check("clicks.csv", ["user_id", "address"], wanted)


@pytest.mark.parametrize("given", ["", "secret", "a1" * 31, "a1" * 32 + "f", "zz" * 32])
def test_a_bad_key_is_refused_and_not_told(keyed: Config, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv(VARIABLE, given)
    with pytest.raises(ConfigError, match=f"hexadecimal digits in the environment variable {VARIABLE}") as refused:
        load_key(keyed.ingest)
    assert not given or given not in str(refused.value)


def test_the_key_shows_in_no_text(keyed: Config, lake: Lake) -> None:
    key = load_key(keyed.ingest)
    assert key is not None
    assert KEY not in repr(key)
    frame = lake.spark.createDataFrame([("a",)], "v string").select(key.column("user_id", F.col("v")).alias("v"))
    plan = frame._jdf.queryExecution().toString()
    assert not [form for form in (KEY, repr(bytes.fromhex(KEY)), str(bytes.fromhex(KEY))) if form in plan]
    assert frame.collect()[0][0] == key.of("user_id", "a") != key.of("ip", "a")
