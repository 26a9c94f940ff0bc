"""Labels: attribution, RFM and heavy sessions against independent computations, and the two clocks."""

import math
import random
from datetime import date, datetime, timedelta

import pytest
from pyspark.sql import DataFrame, Row, SparkSession

from slidr import labels
from slidr.config import Config
from tests.frames import at, click, clicks, day, purchase, purchases

DAYS = [day("2026-03-01"), day("2026-03-02"), day("2026-03-03")]


def label(made: DataFrame, orders: DataFrame, days: list[date], conf: Config) -> list[Row]:
    attributed = labels.attribute(made, orders, conf=conf.labels)
    return labels.label(made, orders, attributed, days=days, conf=conf.labels).collect()


def naive_attribution(made: list[dict], orders: list[dict], conf) -> set[tuple[str, str]]:  # type: ignore[no-untyped-def]
    window = timedelta(days=conf.attribution_days)

    def latest(order: dict, key: str) -> dict | None:
        found = [
            c
            for c in made
            if order[key] is not None
            and c[key] == order[key]
            and order["advertiser_id"] in (None, c["advertiser_id"])
            and c["click_time"] < order["purchase_time"] <= c["click_time"] + window
        ]
        return max(found, key=lambda c: (c["click_time"], c["click_id"]), default=None)

    marked = set()
    for order in orders:
        if order["cancelled"]:
            continue
        if order["click_id"]:
            chosen = next((c for c in made if c["click_id"] == order["click_id"]), None)
        else:
            chosen = latest(order, "session_id") or latest(order, "user_id")
        if chosen is None or not chosen["click_time"] < order["purchase_time"] <= chosen["click_time"] + window:
            continue
        if order["arrival_time"] <= labels.label_time(chosen["click_time"].date(), conf):
            marked.add((order["order_id"], chosen["click_id"]))
    return marked


def random_world(seed: int) -> tuple[list[dict], list[dict]]:
    rng = random.Random(seed)

    def moment() -> datetime:
        return at("2026-03-01") + timedelta(hours=rng.randrange(0, 72), minutes=rng.choice([0, 0, 30]))

    made = [
        click(
            f"c{n}",
            moment(),
            user_id=rng.choice([None, "u1", "u2", "u3"]),
            session_id=rng.choice(["s1", "s2", "s3", "s4"]),
            advertiser_id=rng.choice(["a1", "a2"]),
        )
        for n in range(60)
    ]
    orders = []
    for n in range(60):
        time = moment() + timedelta(hours=rng.choice([0, 5, 47, 48]))
        orders.append(
            purchase(
                f"o{n}",
                time,
                user_id=rng.choice([None, "u1", "u2"]),
                session_id=rng.choice([None, "s1", "s2"]),
                advertiser_id=rng.choice([None, "a1", "a2"]),
                click_id=rng.choice([None, None, None, f"c{n}", "unknown"]),
                cancelled=rng.random() < 0.1,
                arrival_time=time + timedelta(hours=rng.choice([0, 1, 60, 100])),
            )
        )
    return made, orders


def test_attribution_equals_the_naive_rule(spark: SparkSession, conf: Config) -> None:
    for seed in (1, 2, 3):
        made, orders = random_world(seed)
        attributed = labels.attribute(clicks(spark, *made), purchases(spark, *orders), conf=conf.labels)
        found = attributed.where("known").select("order_id", "click_id").collect()
        assert {tuple(row) for row in found} == naive_attribution(made, orders, conf.labels)
        assert len(found) == len(set(found))


def naive_rfm(orders: list[dict], on: str, conf) -> dict[str, int]:  # type: ignore[no-untyped-def]
    end = at(on) + timedelta(days=1)
    known = [
        o
        for o in orders
        if o["user_id"]
        and not o["cancelled"]
        and end - timedelta(days=conf.rfm_days) <= o["purchase_time"] < end
        and o["arrival_time"] <= end + timedelta(days=conf.delay_days)
    ]
    users = {o["user_id"] for o in known}
    facts = {
        u: (
            max(o["purchase_time"] for o in known if o["user_id"] == u),
            sum(1 for o in known if o["user_id"] == u),
            sum(o["amount_micros"] for o in known if o["user_id"] == u),
        )
        for u in users
    }
    return {
        u: sum(math.ceil(5 * sum(1 for other in users if facts[other][i] <= facts[u][i]) / len(users)) for i in range(3)) for u in users
    }


def test_rfm_equals_the_naive_score_with_both_clocks(spark: SparkSession, conf: Config) -> None:
    rng = random.Random(9)
    orders = []
    for n in range(120):
        time = at("2025-12-01") + timedelta(hours=rng.randrange(0, 24 * 95))
        late = timedelta(days=rng.choice([0, 0, 0, 3, 10]))
        amount = rng.choice([5, 10, 10, 200]) * 1_000_000
        orders.append(purchase(f"o{n}", time, user_id=f"u{rng.randrange(12)}", amount_micros=amount, arrival_time=time + late))
    found = labels.rfm(purchases(spark, *orders), days=DAYS, conf=conf.labels).collect()
    for on in DAYS:
        scores = {row["user_id"]: row["rfm_score"] for row in found if row["click_date"] == on}
        assert scores == naive_rfm(orders, on.isoformat(), conf.labels)


def test_heavy_needs_k_others_within_the_hour_and_marks_the_whole_session(spark: SparkSession, conf: Config) -> None:
    eleven = [click(f"h{n}", at("2026-03-01 23:30") + timedelta(minutes=6 * n), session_id="heavy") for n in range(11)]
    ten = [click(f"t{n}", at("2026-03-01 12:00") + timedelta(minutes=n), session_id="ten") for n in range(10)]
    slow = [click(f"s{n}", at("2026-03-01 12:00") + timedelta(minutes=7 * n), session_id="slow") for n in range(11)]
    same_instant = [click(f"i{n}", at("2026-03-02 08:00"), session_id="instant") for n in range(11)]
    df = clicks(spark, *eleven, *ten, *slow, *same_instant)
    rows = label(df, purchases(spark), DAYS, conf)
    assert {row["click_id"] for row in rows if row["in_heavy_session"]} == {c["click_id"] for c in eleven + same_instant}


def test_one_row_per_click_with_its_reason(spark: SparkSession, conf: Config) -> None:
    made = [click("bought", at("2026-03-02 10:00"), session_id="s1"), click("other", at("2026-03-02 11:00"), user_id="u9")]
    made += [click("outside", at("2026-03-04 11:00"))]
    orders = [purchase("o1", at("2026-03-02 10:05"), session_id="s1"), purchase("o2", at("2026-03-02 10:06"), session_id="s1")]
    orders += [purchase(f"r{n}", at("2026-02-20 10:00"), user_id="u9") for n in range(2)]
    rows = {r["click_id"]: r for r in label(clicks(spark, *made), purchases(spark, *orders), DAYS, conf)}
    assert {k: (r["label_reason"], r["is_human"], r["rfm_score"]) for k, r in rows.items()} == {
        "bought": ("purchase", True, None),
        "other": ("rfm", True, 15),
    }
    assert rows["other"]["label_time"] == datetime(2026, 3, 5)


def test_a_day_alone_gets_the_labels_of_the_range(spark: SparkSession, conf: Config) -> None:
    made, orders = random_world(6)
    made_df, orders_df = clicks(spark, *made).cache(), purchases(spark, *orders).cache()
    together = label(made_df, orders_df, DAYS, conf)
    for on in DAYS:
        read = made_df.where(made_df.click_date.isin(labels.days_of_clicks([on], conf.labels)))
        alone = label(read, orders_df, [on], conf)
        assert sorted(alone) == sorted(row for row in together if row["click_date"] == on)


@pytest.mark.parametrize("parts", [1, 7])
def test_labels_do_not_depend_on_partitions_or_order(spark: SparkSession, conf: Config, parts: int) -> None:
    made, orders = random_world(3)
    shuffled = [random.Random(parts).sample(rows, len(rows)) for rows in (made, orders)]
    frames = (clicks(spark, *shuffled[0]).repartition(parts), purchases(spark, *shuffled[1]).repartition(parts))
    expected = label(clicks(spark, *made), purchases(spark, *orders), DAYS, conf)
    assert sorted(label(*frames, DAYS, conf)) == sorted(expected)


def test_a_purchase_that_arrives_after_label_time_is_counted_as_late(spark: SparkSession, conf: Config) -> None:
    made = clicks(spark, click("c", at("2026-03-01 10:00"), session_id="s1"))
    late = purchases(spark, purchase("o", at("2026-03-01 11:00"), session_id="s1", arrival_time=at("2026-03-04 00:00:00.000001")))
    attributed = labels.attribute(made, late, conf=conf.labels)
    assert labels.purchases_in_time(attributed, days=DAYS, now=at("2026-03-05")) == (0, 1)
    assert labels.purchases_in_time(attributed, days=DAYS, now=at("2026-03-03")) == (0, 0)


def test_a_day_matures_at_its_label_time(conf: Config) -> None:
    assert labels.matured(DAYS, now=at("2026-03-05 00:00"), conf=conf.labels) == DAYS[:2]
    assert labels.matured(DAYS, now=at("2026-03-04 23:59:59"), conf=conf.labels) == DAYS[:1]
