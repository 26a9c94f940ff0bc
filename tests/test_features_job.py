"""`slidr features`: what it would do, blocks that resume, late clicks, and the comparison with what a live system logged."""

from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from slidr.jobs import features as job

from slidr import config, data_files
from slidr.features import builds, counters
from slidr.tables import CLICKS, Table, features_table
from tests.commands import SMALL, World
from tests.frames import at, click, clicks

START = at("2026-03-01")
WINDOW = ("--from", "2026-03-01", "--to", "2026-03-05")
SPEC = config.load(config.shipped("local.yaml")).spec
TABLE: Table = features_table(SPEC)
DAYS, A_DAY = 4, 12


@pytest.fixture
def world(spark: SparkSession, tmp_path: Path) -> World:
    """Four days of twelve clicks, two hours apart, of one address and three users."""
    world = World(tmp_path, spark, SMALL)
    made = [
        click(f"c{n:02d}", START + timedelta(hours=2 * n), user_id=f"u{n % 3}", session_id=f"s{n // 4}", ip_key="192.0.2.1")
        for n in range(DAYS * A_DAY)
    ]
    world.lake.append(clicks(spark, *made), CLICKS)
    return world


def cells(df: DataFrame) -> list[tuple]:
    return sorted(tuple(row) for row in df.drop("origin").collect())


def test_what_a_spec_computes_and_reads(world: World) -> None:
    told = world.ok("features", "--explain-spec")
    assert [feature["name"] for feature in told["features"]] == [column.name for column in SPEC.columns]
    assert (told["spec_id"], told["look_back"]) == (SPEC.spec_id, 7 * 86_400)
    assert {"user_id", "session_id", "ip_key", "user_agent"} < set(told["reads"])
    assert sum(exchange["features"] for exchange in told["exchanges"]) == len(SPEC.columns) - 5  # time of click, logged in
    assert "give --from and --to" in world.ok("features", code=2)["message"]


def test_what_would_be_done_and_what_is_done(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "BLOCK_DAYS", 3)
    before = world.ok("features", *WINDOW, "--explain")
    assert [(block["from"], block["to"], block["reads from"]) for block in before["blocks"]] == [
        ("2026-03-01", "2026-03-04", "2026-02-22"),
        ("2026-03-04", "2026-03-05", "2026-02-25"),
    ]
    files = [path for path in Path(world.root, "lake", "clicks").rglob("*.parquet") if "_delta_log" not in str(path)]
    assert [block["bytes of these files"] for block in before["blocks"]] == [
        sum(f.stat().st_size for f in files if f.parent.name < "click_date=2026-03-04"),
        sum(f.stat().st_size for f in files),
    ]
    assert not world.lake.exists(TABLE)
    assert world.ok("features", *WINDOW)["written"] == DAYS * A_DAY
    after = world.ok("features", *WINDOW, "--explain")
    assert (after["blocks"], after["days_done"]) == ([], DAYS)


def test_a_killed_run_goes_on_where_it_was(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "BLOCK_DAYS", 2)
    write, calls = counters.replace_days, []

    def killed(*given: Any, **named: Any) -> int:
        calls.append(named)
        if len(calls) == 2:
            raise RuntimeError("killed")
        return write(*given, **named)

    monkeypatch.setattr(counters, "replace_days", killed)
    world.ok("features", *WINDOW, code=1)
    first = world.lake.version(TABLE)
    assert world.ok("features", *WINDOW)["written"] == 2 * A_DAY
    assert world.lake.version(TABLE) == first + 1
    zones, clicks_of_all = {"US": "America/New_York"}, data_files.of(world.lake, CLICKS)
    end = at("2026-03-05").date()
    whole = counters.build(world.spark, clicks_of_all, spec=SPEC, start=START.date(), end=end, known="then", zones=zones)
    assert cells(world.lake.read(TABLE)) == cells(whole)
    assert world.ok("features", *WINDOW)["written"] == 0
    assert world.lake.version(TABLE) == first + 1


def test_a_late_click_gets_its_row_and_changes_no_other(world: World, spark: SparkSession) -> None:
    world.ok("features", *WINDOW)
    before = cells(world.lake.read(TABLE))
    late = click("late", START + timedelta(hours=3), arrival_time=START + timedelta(days=3), ip_key="192.0.2.1", user_id="u0")
    world.lake.append(clicks(spark, late), CLICKS)
    assert [block["from"] for block in world.ok("features", *WINDOW, "--explain")["blocks"]] == ["2026-03-01"]
    assert world.ok("features", *WINDOW)["written"] == 1
    assert cells(world.lake.read(TABLE).where("click_id != 'late'")) == before
    assert world.ok("features", *WINDOW, "--known", "now")["written"] == DAYS * A_DAY + 1
    now = world.lake.read(TABLE).where("origin = 'now' and click_id = 'c03'").collect()[0]
    assert (now["ip_clicks_6h"], now["user_clicks_6h"]) == (4, 2)  # the late click is known now


def test_a_late_click_changes_no_logged_row(world: World) -> None:
    world.ok("features", *WINDOW)
    world.lake.append(world.lake.read(TABLE).withColumns({"origin": F.lit("logged"), "ip_clicks_6h": F.lit(77)}), TABLE)
    logged = cells(world.lake.read(TABLE).where("origin = 'logged'"))
    late_click(world, "late", "2026-03-02 04:00:00")
    for words in ((), ("--known", "now"), ("--repair",)):
        world.ok("features", *WINDOW, *words)
    assert cells(world.lake.read(TABLE).where("origin = 'logged'")) == logged


def test_a_counter_is_added_by_an_edit_of_the_settings(world: World) -> None:
    content = yaml.safe_load(config.shipped("local.yaml").read_text())
    content["features"]["entities"]["advertiser_ip"] = ["advertiser_id", "ip_key"]
    content["features"]["counters"].append({"entity": "advertiser_ip", "measure": "agents", "distinct": "user_agent", "windows": ["3h"]})
    path = world.root / "conf.yaml"
    path.write_text(yaml.safe_dump(content))
    spec = config.load(path).spec
    late_click(world, "other", "2026-03-01 05:00:00", advertiser_id="b", user_agent="curl")
    late_click(world, "again", "2026-03-01 06:30:00", advertiser_id="b", user_agent="wget")
    late_click(world, "third", "2026-03-01 07:00:00", advertiser_id="b", user_agent="curl")
    assert world.ok("features", *WINDOW, "--conf", str(path), "--known", "now")["spec_id"] == spec.spec_id != SPEC.spec_id
    rows = world.lake.read(features_table(spec)).select("click_id", "advertiser_ip_agents_3h").collect()
    assert {row[0]: row[1] for row in rows if row[0] in ("other", "again", "third", "c03", "c04")} == {
        "other": 0, "again": 1, "third": 2, "c03": 1, "c04": 1,
    }  # fmt: skip
    comments = {field.name: field.metadata["comment"] for field in world.lake.delta(features_table(spec)).toDF().schema}
    assert comments["advertiser_ip_agents_3h"].startswith("distinct user_agent among the earlier clicks of the same advertiser_ip")


def test_repair_rewrites_the_days_that_late_clicks_change(world: World, spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    times = (at("2026-03-10 04:00:00"), at("2026-03-11 00:00:00"))  # the first just a window after the late click: it counts it
    far = [click(f"far{n}", time, user_id="u0", ip_key="198.51.100.7") for n, time in enumerate(times)]
    world.lake.append(clicks(spark, *far), CLICKS)
    window = ("--from", "2026-03-01", "--to", "2026-03-13")
    world.ok("features", *window, "--known", "now", "--allow-gaps")
    before = world.lake.version(TABLE)
    assert world.ok("features", *window, "--repair")["days"] == []
    assert world.lake.version(TABLE) == before
    # Its address clicks until 4 March, its user later too.
    late = click("late", at("2026-03-03 04:00:00"), arrival_time=at("2026-03-12"), user_id="u0", session_id="late", ip_key="192.0.2.1")
    world.lake.append(clicks(spark, late), CLICKS)
    told = world.ok("features", "--from", "2026-03-03", "--to", "2026-03-04", "--repair")
    assert (told["late_clicks"], told["days"]) == (1, ["2026-03-03", "2026-03-04", "2026-03-10"])
    assert told["keys"] == [
        {"day": "2026-03-03", "entity": "user", "keys": 1, "clicks": 3},
        {"day": "2026-03-04", "entity": "user", "keys": 1, "clicks": 4},
        {"day": "2026-03-10", "entity": "user", "keys": 1, "clicks": 1},
        {"day": "2026-03-03", "entity": "ip", "keys": 1, "clicks": 9},
        {"day": "2026-03-04", "entity": "ip", "keys": 1, "clicks": 12},
        {"day": "2026-03-03", "entity": "ip_ua", "keys": 1, "clicks": 9},
        {"day": "2026-03-04", "entity": "ip_ua", "keys": 1, "clicks": 12},
    ]
    assert cells(world.lake.read(TABLE)) == as_now(world, window)


def as_now(world: World, window: tuple[str, ...]) -> list[tuple]:
    """All features of origin now, counted anew from all clicks."""
    start, end = (at(text).date() for text in window[1::2])
    zones, files = {"US": "America/New_York"}, data_files.of(world.lake, CLICKS)
    return cells(counters.build(world.spark, files, spec=SPEC, start=start, end=end, known="now", zones=zones))


def late_click(world: World, name: str, time: str, **given: Any) -> None:
    made = click(name, at(time), arrival_time=at("2026-03-12"), **{"user_id": "u0", "session_id": "late", "ip_key": "192.0.2.1", **given})
    world.lake.append(clicks(world.spark, made), CLICKS)


def test_repair_finds_what_later_days_lack_though_the_late_clicks_day_was_built_again(world: World) -> None:
    world.ok("features", *WINDOW, "--known", "now")
    late_click(world, "late", "2026-03-02 04:00:00")
    assert world.ok("features", "--from", "2026-03-02", "--to", "2026-03-03", "--known", "now")["written"] == A_DAY + 1
    assert world.ok("features", *WINDOW, "--repair")["days"] == ["2026-03-03", "2026-03-04"]
    assert cells(world.lake.read(TABLE)) == as_now(world, WINDOW)
    assert world.ok("features", *WINDOW, "--repair")["late_clicks"] == 0


def test_repair_finds_what_later_days_lack_though_the_late_clicks_day_was_never_built(world: World) -> None:
    later = ("--from", "2026-03-03", "--to", "2026-03-05")
    world.ok("features", *later, "--known", "now")
    late_click(world, "late", "2026-03-02 04:00:00")
    told = world.ok("features", *WINDOW, "--repair")
    assert (told["late_clicks"], told["days"]) == (1, ["2026-03-03", "2026-03-04"])
    assert cells(world.lake.read(TABLE)) == as_now(world, later)


def test_files_brought_together_are_not_late_clicks(world: World) -> None:
    late_click(world, "second file", "2026-03-02 03:00:00", user_id="u9")
    world.ok("features", *WINDOW, "--known", "now")
    world.lake.delta(CLICKS).optimize().executeCompaction()
    before = world.lake.version(TABLE)
    told = world.ok("features", *WINDOW, "--repair")
    assert (told["late_clicks"], told["days"], told["keys"]) == (0, [], [])
    assert world.lake.version(TABLE) == before
    late_click(world, "late", "2026-03-03 04:00:00")
    assert world.ok("features", *WINDOW, "--repair")["days"] == ["2026-03-03", "2026-03-04"]
    assert cells(world.lake.read(TABLE)) == as_now(world, WINDOW)


def test_days_of_which_nobody_noted_what_they_were_counted_from_are_counted_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(builds, "note", killed)
        world.ok("features", *WINDOW, "--known", "now", code=1)
    assert len(cells(world.lake.read(TABLE))) == DAYS * A_DAY
    late_click(world, "late", "2026-03-03 04:00:00")
    assert world.ok("features", "--from", "2026-03-03", "--to", "2026-03-04", "--repair")["days"] == ["2026-03-03", "2026-03-04"]
    assert cells(world.lake.read(TABLE)) == as_now(world, WINDOW)


def killed(*given: Any, **named: Any) -> None:
    raise RuntimeError("killed")


def test_now_is_counted_again_only_where_clicks_came(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "BLOCK_DAYS", 2)
    write, calls = counters.replace_days, []

    def second_fails(*given: Any, **named: Any) -> int:
        calls.append(given)
        return killed() if len(calls) == 2 else write(*given, **named)

    monkeypatch.setattr(counters, "replace_days", second_fails)
    world.ok("features", *WINDOW, "--known", "now", code=1)
    assert world.ok("features", *WINDOW, "--known", "now")["written"] == 2 * A_DAY
    done = world.lake.version(TABLE)
    assert world.ok("features", *WINDOW, "--known", "now")["written"] == 0
    assert world.lake.version(TABLE) == done
    late_click(world, "late", "2026-03-03 04:00:00")
    plan = world.ok("features", *WINDOW, "--known", "now", "--explain")
    assert [(block["from"], block["to"]) for block in plan["blocks"]] == [("2026-03-03", "2026-03-05")]
    assert world.ok("features", *WINDOW, "--known", "now")["written"] == 2 * A_DAY + 1
    assert cells(world.lake.read(TABLE)) == as_now(world, WINDOW)


def test_repair_after_builds_and_late_clicks_in_any_order(world: World) -> None:
    random = Random(4)
    days = [START + timedelta(days=n) for n in range(10)]
    for turn in range(3):
        first, more = random.randrange(9), random.randrange(1, 3)
        window = ("--from", f"{days[first]:%F}", "--to", f"{days[first] + timedelta(days=more):%F}")
        for n in range(random.randrange(1, 4)):
            time = START + timedelta(hours=random.randrange(9 * 24))
            name, user, address = f"late {turn} {n}", f"u{random.randrange(4)}", f"192.0.2.{random.randrange(3)}"
            late_click(world, name, f"{time:%F %T}", user_id=user, ip_key=address, session_id=f"s{random.randrange(12)}")
        world.ok("features", *window, "--known", "now", "--allow-gaps", code=0 if _has_clicks(world, window) else 9)
    built = {row[0] for row in world.lake.read(TABLE).select("click_date").distinct().collect()}
    world.ok("features", "--from", "2026-03-01", "--to", "2026-03-11", "--repair")
    whole = [row for row in as_now(world, ("--from", "2026-03-01", "--to", "2026-03-11")) if row[2] in built]
    assert cells(world.lake.read(TABLE)) == whole


def _has_clicks(world: World, window: tuple[str, ...]) -> bool:
    start, end = (at(text).date() for text in window[1::2])
    return not world.lake.read(CLICKS).where(F.col("click_date").between(start, end - timedelta(days=1))).isEmpty()


def test_a_repair_that_was_cut_off_between_days_goes_on(world: World, spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    world.lake.append(clicks(spark, click("far", START + timedelta(days=10), user_id="u0", ip_key="198.51.100.7")), CLICKS)
    window = ("--from", "2026-03-01", "--to", "2026-03-13")
    world.ok("features", *window, "--known", "now", "--allow-gaps")
    late = click("late", at("2026-03-04 04:00:00"), arrival_time=at("2026-03-12"), user_id="u0", session_id="late", ip_key="192.0.2.1")
    world.lake.append(clicks(spark, late), CLICKS)
    build, done = job.build_block, []

    def cut_off(running: Any, spec: Any, days: Any, known: str) -> Any:
        if done:
            raise KeyboardInterrupt
        done.append(list(days))
        return build(running, spec, days, known)

    with monkeypatch.context() as patched:
        patched.setattr(job, "build_block", cut_off)
        world.ok("features", *window, "--repair", code=130)
    assert len(done) == 1
    assert world.ok("features", *window, "--repair")["late_clicks"] == 1
    assert cells(world.lake.read(TABLE)) == as_now(world, window)


def test_logged_features_beside_those_computed(world: World) -> None:
    world.ok("features", *WINDOW, "--compare", code=9)
    world.ok("features", *WINDOW)
    wrong = F.hour("click_time") == 6
    damaged = world.lake.read(TABLE).withColumns(
        {"origin": F.lit("logged"), "ip_clicks_24h": F.when(wrong, F.col("ip_clicks_24h") + 5).otherwise(F.col("ip_clicks_24h"))}
    )
    world.lake.append(damaged, TABLE)
    told = world.ok("features", *WINDOW, "--compare")
    by_name = {row["feature"]: row for row in told["features"]}
    assert (told["clicks"], told["differing"]) == (DAYS * A_DAY, DAYS)
    assert (by_name["ip_clicks_24h"]["share_equal"], by_name["ip_clicks_24h"]["max"]) == (pytest.approx(11 / 12), 5)
    assert {row["share_equal"] for name, row in by_name.items() if name != "ip_clicks_24h"} == {1.0}
    assert {hour["hour"][11:13] for hour in told["hours"] if hour["differing"]} == {"06"}
    assert told["keys"] == [{"entity": "ip", "differing": DAYS, "one of its clicks": "c03"}]
    assert "192.0.2.1" not in str(told)
    assert Path(told["picture"]).stat().st_size > 10_000
