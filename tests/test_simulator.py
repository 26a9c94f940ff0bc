"""The simulator: its traffic by numbers, its incidents, its evaluation, and that nobody else reads who made the clicks."""

import ipaddress
import re
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import pandas as pd
import pytest
from chispa import assert_df_equality
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from slidr.errors import InputError, UsageError
from slidr.simulator import Attack, Drift, Duplicates, LabelOutage, Late, Sale, Simulation, rows, simulate
from slidr.simulator.evaluation import judge, judge_scores, read_truth
from slidr.simulator.incidents import damage_features
from slidr.simulator.traffic import clicks_frame, make_chunk, orders_frame
from slidr.simulator.world import World
from slidr.tables import CLICKS, PURCHASES

PLAIN = Simulation(seed=3, clicks=20_000)


def day(number: float) -> datetime:
    """A time on a simulated day, 0 is the first."""
    return PLAIN.start_time + timedelta(days=number)


OUTAGE = LabelOutage(day(3), day(6), hours=(10, 16))
TWICE = Duplicates(day(5), day(20), share=0.1, conflict_share=0.2)
LATE = Late(day(8), day(10), share=0.3, hours=(5, 60))
ATTACK = Attack(day(12.5), day(12.75), multiple=6.0, advertiser=5)


def frames(settings: Simulation) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Clicks with who made them, and orders, of a simulation of one chunk."""
    world = World(settings)
    chunk = make_chunk(world, 0)
    clicks = rows.click_rows(world, chunk.clicks).to_pandas()
    return clicks.merge(rows.kind_rows(world, chunk.clicks).to_pandas(), on="click_id"), rows.order_rows(world, chunk.orders).to_pandas()


@pytest.fixture(scope="module")
def traffic() -> tuple[pd.DataFrame, pd.DataFrame]:
    return frames(PLAIN)


@pytest.fixture(scope="module")
def folder(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, int]]:
    """Files of a simulation with all incidents, written after an earlier one."""
    root = str(tmp_path_factory.mktemp("made"))
    settings = Simulation(seed=3, clicks=20_000, incidents=(OUTAGE, TWICE, LATE, ATTACK))
    return root, simulate(spark, root, settings)


def local_hours(clicks: pd.DataFrame) -> pd.Series:
    zones = clicks.marketplace.map(dict(PLAIN.marketplaces))
    return pd.Series([t.tz_convert(zone).hour for t, zone in zip(clicks.click_time, zones, strict=True)], index=clicks.index)


def test_clicks_reach_the_target_with_unique_ids_inside_the_span(traffic):
    clicks, _ = traffic
    assert len(clicks) == pytest.approx(20_000, rel=0.05)
    assert clicks.click_id.is_unique
    assert clicks.click_time.min() >= PLAIN.start_time
    assert clicks.click_time.max() < PLAIN.end_time
    assert (clicks.arrival_time - clicks.click_time).between(timedelta(0), timedelta(minutes=1)).all()
    assert clicks.cost_micros.between(50_000, 2_500_000).all()


def test_robots_of_many_kinds_have_their_share(traffic):
    clicks, _ = traffic
    share = clicks.kind.value_counts(normalize=True)
    assert set(share.index) == {"human", "flood", "botnet", "night_crawler", "slow_account", "mimic", "office_hider", "declared"}
    assert clicks.is_robot.mean() == pytest.approx(0.25, abs=0.02)
    assert 0.003 <= clicks.upstream_filter.notna().mean() <= 0.008
    assert set(clicks.kind[clicks.upstream_filter.notna()]) == {"declared"}


def test_people_buy_after_two_to_five_percent_of_their_clicks(traffic):
    clicks, orders = traffic
    people = clicks[~clicks.is_robot]
    by_session = orders.session_id.isin(people.session_id).sum()
    all_later = (orders.purchase_time >= PLAIN.start_time).sum()
    assert 0.02 <= by_session / len(people) < all_later / len(people) <= 0.05
    robots = clicks[clicks.is_robot]
    assert not orders.session_id.isin(robots.session_id).any()
    assert (orders.purchase_time < PLAIN.start_time).sum() > 100
    assert orders.purchase_time.min() >= day(-90)
    assert orders.cancelled.mean() == pytest.approx(0.03, abs=0.015)


def test_guests_click_and_buy_less(traffic):
    clicks, orders = traffic
    people = clicks[~clicks.is_robot]
    assert people.logged_in.mean() == pytest.approx(0.55, abs=0.08)
    assert (clicks.user_id.isna() == ~clicks.logged_in).all()
    after = orders[orders.session_id.isin(people.session_id)]
    assert 0.05 < after.user_id.isna().mean() < 0.4


def test_an_order_names_an_earlier_click_of_its_own_advertiser(traffic):
    clicks, orders = traffic
    named = orders[orders.click_id.notna()].merge(clicks, on="click_id", how="left", suffixes=("", "_click"))
    assert len(named) > 50
    assert (named.purchase_time > named.click_time).all()
    assert (named.purchase_time - named.click_time <= timedelta(hours=40)).all()
    assert (named.advertiser_id == named.advertiser_id_click).all()
    assert not named.is_robot.any()


def test_night_crawlers_work_at_night_and_slow_accounts_are_logged_in(traffic):
    clicks, _ = traffic
    hours = local_hours(clicks)
    assert ((hours[clicks.kind == "night_crawler"] < 10) | (hours[clicks.kind == "night_crawler"] == 23)).all()
    assert clicks.logged_in[clicks.kind == "slow_account"].all()
    botnet = clicks[clicks.kind == "botnet"]
    assert botnet.groupby(["ip", botnet.click_time.dt.date]).size().quantile(0.9) <= 6
    assert clicks[clicks.kind == "flood"].groupby("ip").size().median() > 50


def test_marketplaces_have_rhythms_of_their_own(traffic):
    clicks, _ = traffic
    people = clicks[~clicks.is_robot]
    peaks = {name: people.click_time.dt.hour[people.marketplace == name].value_counts().idxmax() for name in ("US", "JP")}
    assert peaks["US"] != peaks["JP"]
    evening = local_hours(people).between(17, 22).mean()
    night = local_hours(people).between(1, 6).mean()
    assert evening > 3 * night


def test_addresses_are_shared_and_some_are_ipv6(traffic):
    clicks, _ = traffic
    people = clicks[~clicks.is_robot]
    sixth = people.ip.map(lambda ip: ipaddress.ip_address(ip).version == 6)
    assert 0.05 < sixth.mean() < 0.35
    assert people.groupby("ip").user_id.nunique().max() > 10
    assert people.groupby("session_id").ip.nunique().max() == 1
    homes = people.ip[sixth].map(lambda ip: ipaddress.ip_address(ip).exploded[:19])
    assert homes.nunique() < people.ip[sixth].nunique()


def test_no_single_counter_separates_robots(traffic):
    """The plain velocity rule, at one percent of people's clicks, catches some robots but far from all."""
    clicks, _ = traffic
    key = clicks.user_id.fillna(clicks.session_id)
    order = clicks.assign(key=key).sort_values(["key", "click_time"]).set_index("click_time")
    order["velocity"] = order.groupby("key").cost_micros.rolling("1h", closed="left").count().fillna(0).to_numpy()
    caught = order.velocity > order.velocity[~order.is_robot].quantile(0.99)
    assert 0.02 < caught[order.is_robot].mean() < 0.4


def test_the_seed_alone_decides_whatever_the_tasks(spark):
    settings = Simulation(seed=11, clicks=120_000, days=7)

    def fingerprint(frame: DataFrame) -> tuple:
        return tuple(frame.select(F.count("*"), F.sum(F.xxhash64(*frame.columns).cast("decimal(38,0)"))).first())

    one = fingerprint(clicks_frame(spark, settings, tasks=1))
    assert one == fingerprint(clicks_frame(spark, settings, tasks=3))
    assert one[0] == 120_000
    assert fingerprint(orders_frame(spark, settings, tasks=1)) == fingerprint(orders_frame(spark, settings, tasks=2))
    other = Simulation(seed=12, clicks=120_000, days=7)
    assert one != fingerprint(clicks_frame(spark, other, tasks=3))
    assert clicks_frame(spark, settings).select("click_id").distinct().count() == 120_000


def test_files_have_the_canonical_columns_and_one_folder_a_day(spark, folder):
    root, counts = folder
    clicks, orders = spark.read.parquet(f"{root}/clicks"), spark.read.parquet(f"{root}/purchases")
    assert set(clicks.columns) - {"day"} == set(CLICKS.names) - {"click_date", "local_date", "ip_key"}
    assert set(orders.columns) == set(PURCHASES.names) - {"purchase_date"}
    assert clicks.where(F.to_date("arrival_time") != F.col("day")).count() == 0
    assert Path(root, "clicks", f"day={PLAIN.start}").is_dir()
    assert counts["clicks"] == clicks.count()
    assert counts["truth"] == read_truth(spark, root).count()


def test_duplicates_are_second_copies_in_other_files(spark, folder):
    root, _ = folder
    clicks = spark.read.parquet(f"{root}/clicks").withColumn("file", F.input_file_name()).toPandas()
    twice = clicks[clicks.duplicated("click_id", keep=False)]
    first = clicks.drop_duplicates("click_id")
    in_range = first.click_time.between(TWICE.start.replace(tzinfo=None), TWICE.end.replace(tzinfo=None))
    assert len(twice) // 2 == pytest.approx(0.1 * in_range.sum(), rel=0.2)
    pairs = twice.groupby("click_id")
    assert (pairs.file.nunique() == 2).all()
    conflicts = pairs.cost_micros.nunique() > 1
    assert conflicts.mean() == pytest.approx(0.2, abs=0.08)
    same = [name for name in clicks.columns if name not in ("file", "cost_micros", "click_id")]
    assert (pairs[same].nunique(dropna=False) == 1).all(axis=None)


def test_late_clicks_lie_in_the_folder_of_their_arrival(spark, folder):
    root, _ = folder
    clicks = spark.read.parquet(f"{root}/clicks").dropDuplicates(["click_id"]).toPandas()
    delay = clicks.arrival_time - clicks.click_time
    inside = clicks.click_time.between(LATE.start.replace(tzinfo=None), LATE.end.replace(tzinfo=None), inclusive="left")
    late = delay > timedelta(minutes=1)
    assert late[inside].mean() == pytest.approx(0.3, abs=0.05)
    assert not late[~inside].any()
    assert delay[late].between(timedelta(hours=5), timedelta(hours=60)).all()


def test_a_sale_draws_people_to_one_advertiser_while_it_lasts(traffic):
    sale = Sale(day(10), day(12), multiple=20.0, advertiser=7)
    with_sale, without = frames(Simulation(seed=3, clicks=20_000, incidents=(sale,)))[0], traffic[0]
    assert len(with_sale) == len(without)

    def share(clicks: pd.DataFrame, during: bool) -> float:
        people = clicks[~clicks.is_robot & (clicks.click_time.between(sale.start, sale.end) == during)]
        return (people.advertiser_id == "adv-07").mean()

    assert share(with_sale, True) > 6 * share(without, True)
    assert share(with_sale, False) == pytest.approx(share(without, False), abs=0.02)
    assert not with_sale.is_robot.sum() - without.is_robot.sum()


def test_robots_drift_from_start_to_end_and_stay_slow(traffic):
    drift = Drift(day(7), day(21), slower=10.0)
    drifted, plain = frames(Simulation(seed=3, clicks=20_000, incidents=(drift,)))[0], traffic[0]

    def gap(clicks: pd.DataFrame, start: float, end: float) -> float:
        robots = clicks[clicks.is_robot & clicks.click_time.between(day(start), day(end))].sort_values("click_time")
        return robots.groupby("session_id").click_time.diff().median().total_seconds()

    assert gap(drifted, 0, 7) == pytest.approx(gap(plain, 0, 7), rel=0.1)
    before, midway, after = (gap(drifted, start, start + 4) / gap(plain, start, start + 4) for start in (0, 12, 22))
    assert before < 1.2 < midway < after
    assert after > 3
    people = [clicks[~clicks.is_robot].reset_index(drop=True) for clicks in (drifted, plain)]
    pd.testing.assert_frame_equal(*people)


NONSENSE = [Sale(day(1), day(2), multiple=1.0), Sale(day(1), day(2), advertiser=40), Drift(day(1), day(2), slower=0.5)]


@pytest.mark.parametrize("wrong", NONSENSE)
def test_a_sale_or_drift_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(UsageError, match=f"{type(wrong).__name__}: expected"):
        Simulation(incidents=(wrong,))


def test_an_attack_comes_on_top_and_changes_nothing_else(spark, folder, traffic):
    root, _ = folder
    plain, _ = traffic
    clicks = spark.read.parquet(f"{root}/clicks").dropDuplicates(["click_id"])
    attack = clicks.join(read_truth(spark, root), "click_id", how="inner").where("kind = 'attack'").toPandas()
    assert len(attack) == pytest.approx(20_000 / 28 / 24 * 6 * 6, rel=0.01)
    assert set(attack.advertiser_id) == {"adv-05"}
    assert attack.click_time.between(ATTACK.start.replace(tzinfo=None), ATTACK.end.replace(tzinfo=None)).all()
    others = {row.click_id for row in clicks.select("click_id").collect()} - set(attack.click_id)
    assert others == set(plain.click_id)


def test_orders_of_a_label_outage_come_days_later(spark, folder, traffic):
    root, counts = folder
    _, plain = traffic
    late = spark.read.parquet(f"{root}/purchases_late").toPandas()
    hours = plain.purchase_time.dt.hour
    expected = plain[(plain.purchase_time >= OUTAGE.start) & (plain.purchase_time < OUTAGE.end) & (hours >= 10) & (hours < 16)]
    assert set(late.order_id) == set(expected.order_id)
    assert len(late) > 5
    assert late.arrival_time.min() >= (OUTAGE.end + timedelta(days=4)).replace(tzinfo=None)
    assert counts["purchases"] + counts["purchases_late"] == len(plain)


def test_an_earlier_simulation_is_replaced_and_foreign_data_is_not(spark, tmp_path):
    (tmp_path / "clicks").mkdir()
    with pytest.raises(UsageError, match="another folder"):
        simulate(spark, str(tmp_path), PLAIN)
    (tmp_path / "truth").mkdir()
    small = Simulation(clicks=1_000, days=2, seed=2)
    assert simulate(spark, str(tmp_path), small) == simulate(spark, str(tmp_path), small)


def test_settings_that_make_no_sense_are_refused_all_at_once():
    with pytest.raises(UsageError, match=r"(?s)seed >= 1, found 0.*hardness.*found 2"):
        Simulation(seed=0, hardness=2)
    with pytest.raises(UsageError, match="start before end"):
        Simulation(incidents=(Attack(day(2), day(1)),))
    with pytest.raises(UsageError, match="expected incidents from"):
        Simulation(start=date(2026, 5, 1), incidents=(ATTACK,))


def test_damaged_features_are_wrong_for_the_hours_of_the_outage_only(spark):
    schema = "click_id string, click_time timestamp, origin string, user_clicks_1h int, ip_clicks_1h int, session_clicks_1h int"
    columns = ["user_clicks_1h", "ip_clicks_1h", "session_clicks_1h"]
    times = [datetime(2026, 3, 1, hour, tzinfo=timezone.utc) for hour in (9, 10, 12)]
    right = spark.createDataFrame(
        [("a", times[0], "then", 5, 7, 3), ("b", times[1], "then", None, 7, 3), ("c", times[2], "then", 5, 7, 3)], schema
    )
    logged = {"start": times[1], "end": times[2], "spec_columns": columns}
    zeros = [("a", times[0], "logged", 5, 7, 3), ("b", times[1], "logged", None, 0, 3), ("c", times[2], "logged", 5, 7, 3)]
    halved = [zeros[0], ("b", times[1], "logged", None, 3, 3), zeros[2]]
    assert_df_equality(damage_features(right, **logged), spark.createDataFrame(zeros, schema), ignore_nullable=True)
    assert_df_equality(damage_features(right, **logged, damage="halved"), spark.createDataFrame(halved, schema), ignore_nullable=True)
    with pytest.raises(InputError, match="user_ or ip_ counters"):
        damage_features(right, start=times[1], end=times[2], spec_columns=["session_clicks_1h"])


def test_judge_counts_robots_people_and_money(spark):
    truth = spark.createDataFrame(
        [("a", True, "flood"), ("b", True, "declared"), ("c", False, "human"), ("d", False, "human")],
        "click_id string, is_robot boolean, kind string",
    )
    schema = "click_id string, is_invalid boolean, ivt_class string, cost_micros bigint, currency string"
    decided = [("a", True, "sivt", 10, "USD"), ("b", True, "givt", 20, "USD"), ("c", True, "sivt", 5, "EUR"), ("d", False, None, 7, "EUR")]
    assert judge(spark.createDataFrame(decided, schema), truth) == {
        "clicks": 4,
        "robots": 2,
        "robots_caught": 2,
        "people": 2,
        "people_harmed": 1,
        "credited_micros": {"EUR": 5, "USD": 10},
        "by_kind": {
            "declared": {"clicks": 1, "invalid": 1},
            "flood": {"clicks": 1, "invalid": 1},
            "human": {"clicks": 2, "invalid": 1},
        },
    }
    with pytest.raises(InputError, match="found 1 others"):
        judge(spark.createDataFrame([("x", True, None, 1, "USD")], schema), truth)


def test_scores_are_judged_at_one_fpr_by_who_made_the_clicks(spark):
    """20 purchases allow one invalid at 5 %: the good score then finds all robots, the poor one harms people instead."""
    people = [(f"p{number:02d}", number < 20, number / 100) for number in range(60)]
    robots = [(f"r{number:02d}", False, 0.9) for number in range(10)]
    schema = "click_id string, method string, score double, is_purchase boolean, label_reason string, in_heavy_session boolean"
    good = [(click, "good", score, bought, "none", False) for click, bought, score in people + robots]
    poor = [(click, "poor", round(1 - score, 6), bought, "none", False) for click, bought, score in people + robots]
    truth = spark.createDataFrame(
        [(click, click[0] == "r", "flood") for click, _, _ in people + robots], "click_id string, is_robot boolean, kind string"
    )
    rows = judge_scores(spark.createDataFrame(good + poor, schema), truth, fpr=0.05)
    assert [row["method"] for row in rows] == ["good", "poor"]
    assert (rows[0]["fpr"], rows[0]["threshold"], rows[0]["robots"], rows[0]["people"]) == (
        0.05,
        0.1899,
        10,
        60,
    )  # the highest of those that decide alike
    assert (rows[0]["recall"], rows[0]["harm"], rows[0]["ivr"]) == (1.0, 41 / 60, 51 / 70)
    assert (rows[1]["recall"], rows[1]["harm"], rows[1]["fpr"]) == (0.0, 1 / 60, 0.05)
    with pytest.raises(InputError, match="found 2 others"):
        judge_scores(spark.createDataFrame(good + poor, schema), truth.where("click_id != 'p59'"), fpr=0.05)


def test_only_the_simulators_own_evaluation_reads_who_made_the_clicks():
    root = Path(__file__).parents[1]
    allowed = {"jobs/simulate.py", "jobs/demo.py", "slidr/demo.py"}
    sources = [path.relative_to(root).as_posix() for part in ("slidr", "jobs", "notebooks") for path in (root / part).rglob("*.py")]
    others = [path for path in sources if path not in allowed and not path.startswith("slidr/simulator/")]
    assert len(others) > 5
    assert [path for path in others if re.search("truth", (root / path).read_text(encoding="utf-8"), re.IGNORECASE)] == []
