"""The new model against the champion on the same judging rows: IVR by slice, clicks and money decided otherwise."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from slidr.config import GuardrailsConf
from slidr.curves import share
from slidr.guardrails.checks import Check, at_least, at_most, left_out
from slidr.guardrails.queries import ADVERTISERS, SLICES, query

TOP = 50  # advertisers that the driver looks at, by each measure
SETS = (["slice"], ["currency"], ["advertiser_id", "currency"])
COUNTS = ("clicks", "changed", "old_invalid", "new_invalid", "cost_micros", "changed_micros", "credited_micros", "charged_micros")
COMPARED = "judging clicks that the champion decides too"
NAMES = (
    "IVR jump of a slice",
    "clicks decided otherwise than by the champion",
    "one advertiser's clicks decided otherwise",
    "money decided otherwise",
    "one advertiser's money decided otherwise",
)


@dataclass(frozen=True)
class Alike:
    """Counts of judging clicks that both decided: by slice, by currency, and of the advertisers that differ most.

    Columns: slice, or currency, or advertiser_id and currency; then COUNTS. `changed` clicks are decided otherwise;
    `changed_micros` is their price, of which `credited_micros` is invalid by the new model only and `charged_micros` by the
    champion only.
    """

    version: str
    slices: pd.DataFrame
    currencies: pd.DataFrame
    advertisers: pd.DataFrame
    undecided: int


def decided_alike(decided: DataFrame, version: str, *, min_clicks: int) -> Alike:
    """Counts from one row per judging click: slice, advertiser_id, currency, cost_micros?, old_invalid?, new_invalid?.

    NULL where a model had no features to decide by; such clicks are counted in `undecided` only. The scores are computed
    once; the driver gets the slices, the currencies, and at most 2 x TOP advertisers.
    """
    both = F.col("old_invalid").isNotNull() & F.col("new_invalid").isNotNull()
    changed = F.coalesce(F.col("old_invalid") != F.col("new_invalid"), F.lit(False))
    cost = F.when(both, F.coalesce("cost_micros", F.lit(0))).otherwise(0)
    sums = {
        "clicks": F.count_if(both),
        "undecided": F.count_if(~both),
        "changed": F.count_if(changed),
        "old_invalid": F.count_if(both & F.col("old_invalid")),
        "new_invalid": F.count_if(both & F.col("new_invalid")),
        "cost_micros": F.sum(cost),
        "changed_micros": F.sum(F.when(changed, cost).otherwise(0)),
        "credited_micros": F.sum(F.when(changed & F.col("new_invalid"), cost).otherwise(0)),
        "charged_micros": F.sum(F.when(changed & F.col("old_invalid"), cost).otherwise(0)),
    }
    keys = [F.col(name) for name in ("slice", "currency", "advertiser_id")]
    sets = [[F.col(name) for name in names] for names in SETS]
    counted = decided.groupingSets(sets, *keys).agg(F.grouping_id().alias("level"), *[value.alias(name) for name, value in sums.items()])
    cells = counted.persist()
    try:
        slices: pd.DataFrame = cells.where("level = 3").toPandas()
        currencies: pd.DataFrame = cells.where("level = 5").toPandas()
        advertisers = cells.where("level = 4 and clicks > 0")
        by_money = advertisers.orderBy(F.desc("changed_micros"), F.desc("changed"), "advertiser_id").limit(TOP)
        of_size = advertisers.where(F.col("clicks") >= min_clicks)
        by_share = of_size.orderBy(F.desc(F.col("changed") / F.col("clicks")), "advertiser_id").limit(TOP)
        money_share = (
            of_size.where("cost_micros > 0").orderBy(F.desc(F.col("changed_micros") / F.col("cost_micros")), "advertiser_id").limit(TOP)
        )
        top: pd.DataFrame = by_money.unionByName(by_share).unionByName(money_share).distinct().toPandas()
    finally:
        cells.unpersist()
    undecided = int(slices["undecided"].sum())
    slices, currencies = (table[table["clicks"] > 0] for table in (slices, currencies))
    return Alike(
        version,
        slices[["slice", *COUNTS]].sort_values("slice", ignore_index=True),
        currencies[["currency", *COUNTS]].sort_values("currency", ignore_index=True),
        top[["advertiser_id", "currency", *COUNTS]].sort_values(["changed_micros", "advertiser_id"], ascending=False, ignore_index=True),
        undecided,
    )


def check_champion(alike: Alike | None, *, champion: str | None, why: str, bounds: GuardrailsConf, days: Sequence[date]) -> list[Check]:
    """Checks against the champion; what cannot be compared is left out, and `why` says so. `champion` is its number, None without one."""
    limits = (
        bounds.max_ivr_jump,
        bounds.max_disagreement,
        bounds.max_advertiser_disagreement,
        bounds.max_money_disagreement,
        bounds.max_advertiser_money_disagreement,
    )
    if alike is None or alike.slices.empty:
        return [_compared(alike, champion, why, bounds.min_compared), *(left_out(n, b, why) for n, b in zip(NAMES, limits, strict=True))]
    return [
        _compared(alike, champion, why, bounds.min_compared),
        *_ivr_jumps(alike, bounds, query(SLICES, days)),
        _clicks(alike, bounds.max_disagreement, query(SLICES, days)),
        *_advertisers(alike, bounds, query(ADVERTISERS, days)),
        *_money(alike, bounds, query(ADVERTISERS, days)),
    ]


def _compared(alike: Alike | None, champion: str | None, why: str, bound: float) -> Check:
    """Share of the judging clicks that both decide: the other checks say nothing of a champion that decides none of them."""
    if champion is None:
        return left_out(COMPARED, bound, why, minimum=True)
    both = int(alike.slices["clicks"].sum()) if alike else 0
    clicks = both + (alike.undecided if alike else 0)
    few = f"{why}; build features of its spec for these days, or go on with --override" if both < clicks or not alike else ""
    return at_least(COMPARED, share(both, clicks) if clicks else 0.0, bound, f"{both} clicks{'; ' if few else ''}{few}")


def _ivr_jumps(alike: Alike, bounds: GuardrailsConf, behind: str) -> list[Check]:
    """The largest change of a slice's IVR, or one row for each slice above the bound."""
    judged = alike.slices[alike.slices["clicks"] >= bounds.min_slice_clicks]
    if judged.empty:
        return [left_out(NAMES[0], bounds.max_ivr_jump, f"no slice has {bounds.min_slice_clicks} judging clicks")]
    old, new = (judged[name] / judged["clicks"] for name in ("old_invalid", "new_invalid"))
    table = judged.assign(old=old, new=new, jump=(new - old).abs())
    above = table[table["jump"] > bounds.max_ivr_jump]
    return [
        at_most(
            f"IVR jump of {row.slice}",
            row.jump,
            bounds.max_ivr_jump,
            f"champion {alike.version}: {row.old:.4f}, new: {row.new:.4f}, {row.clicks} clicks; {len(judged)} slices judged",
            behind,
        )
        for row in (above if len(above) else table.nlargest(1, "jump")).itertuples()
    ]


def _clicks(alike: Alike, bound: float, behind: str) -> Check:
    changed, clicks = int(alike.slices["changed"].sum()), int(alike.slices["clicks"].sum())
    lacking = f"; {alike.undecided} more lack features of one of the two" if alike.undecided else ""
    return at_most(
        NAMES[1], share(changed, clicks), bound, f"{changed} of {clicks} judging clicks, champion {alike.version}{lacking}", behind
    )


def _advertisers(alike: Alike, bounds: GuardrailsConf, behind: str) -> list[Check]:
    bound = bounds.max_advertiser_disagreement
    table = alike.advertisers[alike.advertisers["clicks"] >= bounds.min_advertiser_clicks]
    if table.empty:
        return [left_out(NAMES[2], bound, f"no advertiser has {bounds.min_advertiser_clicks} judging clicks")]
    table = table.assign(part=table["changed"] / table["clicks"]).sort_values("part", ascending=False)
    above = table[table["part"] > bound]
    named = (above if len(above) else table).head(3)
    found = "; ".join(f"{row.advertiser_id} ({row.currency}): {row.changed} of {row.clicks} clicks" for row in named.itertuples())
    return [at_most(NAMES[2], table["part"].iloc[0], bound, _first(found, len(above)), behind)]


def _money(alike: Alike, bounds: GuardrailsConf, behind: str) -> list[Check]:
    """By currency: share of the judged money that is decided otherwise, the same in micro-units, and of one advertiser."""
    priced = alike.currencies[alike.currencies["cost_micros"] > 0]
    if priced.empty:
        return [left_out(NAMES[3], bounds.max_money_disagreement, "no judging click has a known cost")]
    checks = []
    for row in priced.itertuples():
        moved = f"{row.credited_micros} credited, {row.charged_micros} charged, of {row.cost_micros} micro-units"
        part = share(row.changed_micros, row.cost_micros)
        micros, most = f"{NAMES[3]} in {row.currency}, micro-units", bounds.max_disagreement_micros
        checks.append(at_most(f"{NAMES[3]} in {row.currency}, share", part, bounds.max_money_disagreement, moved, behind))
        checks.append(at_most(micros, row.changed_micros, most, moved, behind))
        checks.append(_advertiser_money(alike, str(row.currency), bounds, behind))
    return checks


def _advertiser_money(alike: Alike, currency: str, bounds: GuardrailsConf, behind: str) -> Check:
    name, bound = f"{NAMES[4]} in {currency}, share", bounds.max_advertiser_money_disagreement
    table = alike.advertisers[(alike.advertisers["currency"] == currency) & (alike.advertisers["cost_micros"] > 0)]
    table = table[table["clicks"] >= bounds.min_advertiser_clicks]
    if table.empty:
        return left_out(name, bound, f"no advertiser has {bounds.min_advertiser_clicks} judging clicks with a cost")
    table = table.assign(part=table["changed_micros"] / table["cost_micros"]).sort_values("part", ascending=False)
    above = table[table["part"] > bound]
    named = (above if len(above) else table).head(3)
    found = "; ".join(f"{row.advertiser_id}: {row.changed_micros} of {row.cost_micros} micro-units" for row in named.itertuples())
    return at_most(name, table["part"].iloc[0], bound, _first(found, len(above)), behind)


def _first(found: str, above: int) -> str:
    return f"{above} above the bound, first {found}" if above else f"most: {found}"
