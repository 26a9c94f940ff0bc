"""The numbers of a plan, all aggregates: clicks by outcome, money, largest advertisers, hours before and after."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pandas as pd
from pyspark.sql import Column, DataFrame, Row, Window
from pyspark.sql import functions as F

from slidr.days import days_between
from slidr.hashing import row_hash
from slidr.lake import Lake
from slidr.replay.audit import Plan
from slidr.replay.outcomes import OUTCOMES, ROWS, changing, corrected
from slidr.replay.pins import hex_of
from slidr.replay.request import Request, in_window, narrowed
from slidr.tables import CURRENT_DECISIONS, LABELS

LARGEST = 20  # advertisers listed per currency
AROUND = timedelta(days=1)  # shown before and after the window
TALLY = ("clicks", "no_cost", "micros")


def cells(rows: DataFrame) -> list[Row]:
    """Sums of the planned rows over everything small: one row per outcome, basis, currency, day, billing month and report slice."""
    no_cost = F.col("direction").isNotNull() & F.col("cost_micros").isNull()
    month = F.date_format("local_date", "yyyy-MM")
    return (
        rows.groupBy("outcome", "basis", "direction", "currency", "click_date", "report_slice", month.alias("month"))
        .agg(
            F.count(F.lit(1)).alias("clicks"),
            F.count_if(no_cost).alias("no_cost"),
            F.count_if("late").alias("late"),
            F.coalesce(F.sum("delta_cost_micros"), F.lit(0)).alias("micros"),
            F.bit_xor(row_hash(*map(F.col, ROWS))).alias("hash"),
        )
        .collect()
    )


def identity(cells: Iterable[Row]) -> dict[str, Any]:
    """Count and hash of the planned rows, whatever their order."""
    total, number = 0, 0
    for cell in cells:
        total += cell["clicks"]
        number ^= cell["hash"]
    return {"count": total, "hash": hex_of(number)}


def counts(cells: list[Row]) -> dict[str, int]:
    """Clicks by outcome; those that came late; those that no model decided (`upstream`, `no_features`) or only by default
    (`unseen_slice`)."""
    by_outcome: Counter[str] = Counter()
    by_basis: Counter[str] = Counter()
    for cell in cells:
        by_outcome[cell["outcome"]] += cell["clicks"]
        by_basis[cell["basis"]] += cell["clicks"]
    named = {name: by_outcome[name] for name in OUTCOMES}
    late = sum(cell["late"] for cell in cells)
    return {
        "clicks": sum(named.values()),
        **named,
        "late": late,
        **{name: by_basis[name] for name in ("upstream", "no_features", "unseen_slice")},
    }


def money(cells: list[Row], advertisers: list[dict[str, Any]]) -> dict[str, Any]:
    """Corrected clicks, those of them without a cost, and micro-units by direction and currency; also by day and by slice."""
    moving = [cell for cell in cells if cell["direction"]]
    return {
        "directions": directions(cells),
        "days": _tally(moving, ("click_date",)),
        "slices": _tally(moving, ("report_slice",)),
        "advertisers": advertisers,
    }


def directions(cells: list[Row]) -> list[dict[str, Any]]:
    """Corrected clicks and micro-units by direction and currency."""
    return _tally([cell for cell in cells if cell["direction"]], ())


def moved(money: dict[str, Any]) -> dict[str, int]:
    """Micro-units that move, whichever way, by currency."""
    sums: Counter[str] = Counter()
    for entry in money["directions"]:
        sums[entry["currency"]] += abs(entry["micros"])
    return dict(sums)


def needs_approval(plan: Plan) -> bool:
    """Whether more money of a currency moves than anybody may publish alone; the limit is pinned, the money belongs to the rows."""
    return max(moved(plan.money).values(), default=0) > int(plan.pins["approval_above_micros"])


def _tally(cells: list[Row], extra: tuple[str, ...]) -> list[dict[str, Any]]:
    keys = (*extra, "direction", "currency")
    sums: dict[tuple[str, ...], dict[str, int]] = defaultdict(lambda: dict.fromkeys(TALLY, 0))
    for cell in cells:
        group = sums[tuple(str(cell[key]) for key in keys)]
        for name in TALLY:
            group[name] += int(cell[name])
    return [{**dict(zip(keys, key, strict=True)), **values} for key, values in sorted(sums.items())]


def changes(rows: DataFrame) -> DataFrame:
    """advertiser_id, currency, direction, click_date, report_slice, clicks, no_cost, micros of all corrected clicks, in order."""
    keys = ["advertiser_id", "currency", "direction", "click_date", "report_slice"]
    sums = [
        F.count(F.lit(1)).alias("clicks"),
        F.count_if(F.col("cost_micros").isNull()).alias("no_cost"),
        F.coalesce(F.sum("delta_cost_micros"), F.lit(0)).alias("micros"),
    ]
    return corrected(rows).groupBy(*keys).agg(*sums).orderBy(*keys)


def largest_advertisers(rows: DataFrame) -> list[dict[str, Any]]:
    """The LARGEST advertisers of each currency by money moved, credits and charges apart."""
    sums = (
        corrected(rows)
        .groupBy("currency", "advertiser_id")
        .agg(
            F.count(F.lit(1)).alias("clicks"),
            F.count_if(F.col("cost_micros").isNull()).alias("no_cost"),
            *[
                F.coalesce(F.sum(F.when(F.col("direction") == direction, F.col("delta_cost_micros"))), F.lit(0)).alias(name)
                for direction, name in (("invalidate", "credit_micros"), ("reinstate", "charge_micros"))
            ],
        )
        .withColumn("money_micros", F.col("charge_micros") - F.col("credit_micros"))
    )
    by_money = Window.partitionBy("currency").orderBy(F.desc("money_micros"), "advertiser_id")
    top = sums.withColumn("rank", F.row_number().over(by_money)).where(F.col("rank") <= LARGEST).orderBy("currency", "rank")
    return [row.asDict() for row in top.drop("rank").collect()]


def window_hours(rows: DataFrame, labels: DataFrame) -> list[dict[str, Any]]:
    """Clicks of the plan by hour before and after it: decided, invalid, and of the labelled ones purchasing and heavy.

    A day without labels has no purchasing or heavy clicks here: its FPR and coverage are not known.
    """
    after = F.when(F.col("outcome") == "kept", F.col("old_is_invalid")).otherwise(F.col("is_invalid"))
    telling = labels.where("is_purchase or in_heavy_session").select("click_id", "is_purchase", "in_heavy_session")  # few of them
    judged = rows.withColumn("after", after).join(telling, on="click_id", how="left")
    states = {"before": F.col("old_is_invalid"), "after": F.col("after")}
    sums: list[Column] = [F.count(F.lit(1)).alias("clicks")]
    sums += [F.count_if("is_purchase").alias("purchasing"), F.count_if("in_heavy_session").alias("heavy")]
    for name, invalid in states.items():
        sums += [F.count(invalid).alias(f"decided_{name}"), F.count_if(invalid).alias(f"invalid_{name}")]
        sums += [F.count_if(invalid & F.col("is_purchase")).alias(f"purchasing_invalid_{name}")]
        sums += [F.count_if(invalid & F.col("in_heavy_session")).alias(f"heavy_invalid_{name}")]
    hours = judged.groupBy(_hour().alias("hour")).agg(*sums).orderBy("hour")
    return [row.asDict() for row in hours.collect()]


def hours_around(lake: Lake, request: Request, rows: DataFrame, versions: dict[str, int]) -> list[dict[str, Any]]:
    """Decided and invalid clicks by hour, a day before to a day after the window, before and after the plan.

    All published decisions of the request's advertisers, slices and marketplaces, whichever version decided them.
    """
    first, last = request.days[0] - AROUND, request.days[-1] + AROUND
    there = lake.read_at(CURRENT_DECISIONS, days_between(first, last + timedelta(days=1)), versions)
    current = narrowed(there, request, published_slice="slice")
    shown = Request(request.start - AROUND, request.end + AROUND)
    before = current.where(in_window(F.col("click_time"), shown)).groupBy(_hour().alias("hour"))
    counted = before.agg(F.count(F.lit(1)).alias("decided"), F.count_if("is_invalid").alias("invalid"))
    fresh = F.col("is_invalid").isNotNull().cast("bigint") - F.col("old_is_invalid").isNotNull().cast("bigint")
    now, old = (F.coalesce(F.col(name).cast("bigint"), F.lit(0)) for name in ("is_invalid", "old_is_invalid"))
    changed = now - old
    deltas = changing(rows).groupBy(_hour().alias("hour"))
    moved = deltas.agg(F.sum(fresh).alias("more_decided"), F.sum(changed).alias("more_invalid"))
    both = counted.join(moved, on="hour", how="full").fillna(0).orderBy("hour").collect()
    return [
        {
            "hour": row["hour"],
            "decided_before": row["decided"],
            "invalid_before": row["invalid"],
            "decided_after": row["decided"] + row["more_decided"],
            "invalid_after": row["invalid"] + row["more_invalid"],
        }
        for row in both
    ]


def _hour() -> Column:
    """UTC hour of the click, as text that sorts by time."""
    return F.date_format(F.date_trunc("hour", "click_time"), "yyyy-MM-dd HH:mm")


def for_guardrails(counts: dict[str, int], money: dict[str, Any], hours: list[dict[str, Any]], changed: Iterable[str]) -> dict[str, Any]:
    """What `guardrails.check_replay` measures."""
    return {
        "clicks": counts["clicks"],
        "changed": sum(counts[name] for name in changed),
        "money": moved(money),
        "advertisers": pd.DataFrame(money["advertisers"], columns=["advertiser_id", "currency", "money_micros"]),
        "purchasing": sum(hour["purchasing"] for hour in hours),
        "purchasing_invalid": sum(hour["purchasing_invalid_after"] for hour in hours),
    }


def labels_of(lake: Lake, request: Request, versions: dict[str, int]) -> DataFrame:
    """The labels of the request's days at their commit in `versions`: the guardrail on FPR rests on them."""
    return lake.read_at(LABELS, request.days, versions)
