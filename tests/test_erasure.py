"""Erasing a user: no table, no file and no log holds the id, and clicks, decisions and money are as before."""

import json
import re
from datetime import date
from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from slidr import config, direct, erasure, rewriting
from slidr.config import Config
from slidr.direct import Place
from slidr.errors import InputError
from slidr.lake import Lake
from slidr.pseudonyms import Key
from slidr.tables import ALL, CLICKS, ERASED, PURCHASES, REJECTS, features_table
from tests.commands import World
from tests.foreign import row, run, write_csv
from tests.test_privacy import KEY, VARIABLE, texts_in

USER, OTHER = 'eve-"quillon', "eve-quillon2"
TRACES = re.compile(r"quillon(?!2)|198\.51\.100\.3\b|Agent-of-Eve")
DELIVERY = [
    row(click_id="c1", user_id=USER, session_id="visit", ip="198.51.100.3", user_agent="Agent-of-Eve"),
    row(click_id="c2", user_id="", session_id="visit", ip="198.51.100.3", user_agent="Agent-of-Eve"),  # before the log-in
    row(click_id="c3", user_id="", session_id="elsewhere"),
    row(click_id="c4", user_id=OTHER, session_id="other"),
    row(click_id="bad", user_id=USER, ip="198.51.100.3", user_agent="Agent-of-Eve", marketplace="XX"),
    row(click_id="worse", user_id=OTHER, marketplace="XX"),
]
ORDERS = (
    "order_id,user_id,session_id,purchase_time,marketplace,amount_micros,currency\n"
    f'o1,"eve-""quillon",visit,2026-03-01T11:00:00Z,US,5,USD\no2,{OTHER},other,2026-03-01T11:00:00Z,US,7,USD\n'
)


@pytest.fixture(scope="module")
def world(spark: SparkSession, conf: Config, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A lake of a small delivery, and the copy of its clicks that a backtest has made."""
    world = World(tmp_path_factory.mktemp("erasure"), spark, {"ingest.max_reject_share": "1.0"})
    (world.root / "orders.csv").write_text(ORDERS)
    (world.root / "users.txt").write_text(f"{USER}\r\n\n")
    deliver(world, conf)
    assert (world.root / "lake").stat().st_mode & 0o777 == 0o700  # where slidr made it: the folder above is pytest's
    copy = Lake(spark, str(world.root / "work" / "backtests" / "variant-1" / "lake"))
    copy.append(world.lake.read(CLICKS), CLICKS)
    return world


def deliver(world: World, conf: Config, run_id: str = "run-1") -> None:
    run(world.lake, "canonical", [write_csv(world.root / "clicks.csv", DELIVERY)], conf, run_id=run_id)
    run(world.lake, "canonical_purchases", [str(world.root / "orders.csv")], conf, run_id=run_id)


def test_nothing_tells_of_the_user_and_every_row_stays(world: World, conf: Config) -> None:
    for folder in ("lake", "work/backtests"):
        found = {trace for _, text in texts_in(world.root / folder) for trace in TRACES.findall(text)}
        assert found == {"quillon", "198.51.100.3", "Agent-of-Eve"}  # the search finds what is there
    words = ("erase", "--users-from", str(world.root / "users.txt"), "--reason", "asked for it")
    first = world.ok(*words, "--purge")
    own, copied = first["lakes"]
    assert (own["clicks"], own["purchases"], own["rejects"]) == (2, 1, 1)
    assert (copied["clicks"], copied["purchases"], copied["rejects"]) == (2, 0, 0)
    assert own["files deleted"] >= 3
    for folder in ("lake", "work"):
        for file, text in texts_in(world.root / folder):
            assert not TRACES.findall(text), file
    clicks = {r["click_id"]: r for r in world.lake.read(CLICKS).collect()}
    assert {name: r["user_id"] for name, r in clicks.items()} == {"c1": None, "c2": None, "c3": None, "c4": OTHER}
    assert (clicks["c1"]["session_id"], clicks["c1"]["cost_micros"], clicks["c1"]["logged_in"]) == ("visit", 250000, True)
    assert (clicks["c3"]["ip"], clicks["c3"]["user_agent"]) == ("192.0.2.7", "Agent, 1")
    assert {r["order_id"]: (r["user_id"], r["amount_micros"]) for r in world.lake.read(PURCHASES).collect()} == {
        "o1": (None, 5),
        "o2": (OTHER, 7),
    }
    kept = [json.loads(r["raw"]) for r in world.lake.read(REJECTS).collect()]
    assert [raw.get("user_id") for raw in sorted(kept, key=len)] == [None, OTHER]
    again = world.ok(*words)["lakes"]
    assert {name: again[0][name] + again[1][name] for name in ("clicks", "purchases", "rejects")} == dict.fromkeys(
        ("clicks", "purchases", "rejects"), 0
    )


def test_a_file_delivered_again_does_not_bring_the_user_back(world: World, conf: Config) -> None:
    rejects = world.lake.read(REJECTS).where("reason = 'conflicting_duplicate'").count()
    deliver(world, conf, run_id="run-2")
    assert sorted((r["table_name"], r["row_id"]) for r in world.lake.read(ERASED).collect()) == [
        ("clicks", "c1"),
        ("clicks", "c2"),
        ("purchases", "o1"),
    ]
    assert world.lake.read(CLICKS).where("user_id is not null").count() == 1
    assert world.lake.read(PURCHASES).where("user_id is not null").count() == 1
    assert world.lake.read(REJECTS).where("reason = 'conflicting_duplicate'").count() == rejects == 0


def killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_user_behind_a_pseudonym_is_found_by_the_key(lake: Lake, conf: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    keyed = config.changed(conf, [f"ingest.pseudonym_key_variable={VARIABLE}"], option="--set")
    run(lake, "canonical", [write_csv(tmp_path / "clicks.csv", DELIVERY)], keyed)
    day = keyed.ingest.earliest
    key = Key(bytes.fromhex(KEY))
    assert erasure.erase(lake, [USER], None, run_id="r", day=day) == {"rejects": 0, "purchases": 0, "clicks": 0}
    with monkeypatch.context() as patch:
        patch.setattr(rewriting, "replace_rows", killed)  # between the tables
        with pytest.raises(KeyboardInterrupt):
            erasure.erase(lake, [USER], key, run_id="r", day=day)
    assert erasure.erase(lake, [USER], key, run_id="r", day=day) == {"rejects": 0, "purchases": 0, "clicks": 2}
    assert lake.read(ERASED).count() == 2
    assert lake.read(REJECTS).where("raw like '%erased%'").count() == 1


def test_every_column_that_tells_of_people_is_emptied(conf: Config) -> None:
    """A table that gains such a column has to be erased, too."""
    telling = {"user_id", "ip", "ip_key", "user_agent", "raw"}
    declared = [*ALL, features_table(conf.spec)]
    assert {table.name: telling & set(table.names) for table in declared if telling & set(table.names)} == {
        table.name: set(table.personal) for table in erasure.ORDER
    }
    for table in erasure.ORDER:
        assert not set(table.personal) & set(table.statistics["delta.dataSkippingStatsColumns"].split(","))


def test_ids_come_from_a_file_and_are_checked(lake: Lake, world: World) -> None:
    with pytest.raises(InputError, match="1 to 1000 user ids"):
        erasure.erase(lake, [], None, run_id="r", day=config.load().ingest.earliest)
    refused = world.ok("erase", "--users-from", "/does/not/exist", "--reason", "asked for it", code=3)
    assert "expected a file of user ids" in refused["message"]
    (world.root / "binary").write_bytes(b"\xff\xfe")
    assert "UTF-8" in world.ok("erase", "--users-from", str(world.root / "binary"), "--reason", "x", code=3)["message"]


def test_a_purge_deletes_what_was_replaced_and_leaves_files_of_writers_at_work(tmp_path: Path) -> None:
    place, day = Place(str(tmp_path)), date(2026, 3, 1)
    direct.add(place, ERASED, [{"table_name": "clicks", "row_id": USER, "run_id": "r", "erased_date": day}])
    DeltaTable(direct.path(place, ERASED)).update(updates={"row_id": "'nobody'"})
    at_work = tmp_path / "erased" / "erased_date=2026-03-01" / "part-of-an-open-commit.parquet"
    at_work.write_bytes(b"not committed yet")
    assert direct.purge(place, ERASED) == 1
    assert len(list(tmp_path.rglob("part-0*.parquet"))) == 1
    assert at_work.exists()
    assert [row["row_id"] for row in direct.read(place, ERASED).rows] == ["nobody"]
