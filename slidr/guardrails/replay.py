"""Checks on a planned replay."""

from collections.abc import Mapping

import pandas as pd

from slidr.config import ReplayConf
from slidr.curves import share
from slidr.guardrails.checks import Check


def check_replay(
    *,
    clicks: int,
    changed: int,
    money: Mapping[str, int],
    advertisers: pd.DataFrame,
    purchasing: int,
    purchasing_invalid: int,
    since_close: float,
    bounds: ReplayConf,
) -> list[Check]:
    """Share of clicks changed, money per currency in total and by advertiser, FPR of the new decisions, age against the billing.

    `since_close` is the days since the oldest corrected month was billed; NaN where nothing is corrected.
    `money` is currency -> sum of |delta| in micro-units; `advertisers` has advertiser_id, currency, money_micros (the same
    by advertiser; the largest of each currency are enough). A window without labelled purchasing clicks has no FPR: it
    passes, and the check's `observed` is NaN.
    """
    fpr = share(purchasing_invalid, purchasing)
    narrower = "narrow the window or the filter"
    checks = [
        Check("changed share", share(changed, clicks), bounds.max_changed_share, changed <= bounds.max_changed_share * clicks, narrower),
        Check(
            "FPR of the new decisions",
            fpr,
            bounds.max_fpr,
            not fpr > bounds.max_fpr,
            f"{purchasing_invalid} of {purchasing} purchasing clicks of the window would be invalid; choose another version"
            if purchasing
            else "no purchasing clicks are labelled in the window, so FPR is not known",
        ),
    ]
    most = float(bounds.max_days_after_close)
    old = f"the oldest month closed on day {bounds.close_day} of the next; make sure that billing still credits it"
    checks.append(Check("days since the billing of the oldest month", since_close, most, not since_close > most, old))
    checks += [
        Check(f"money in {currency}, micro-units", total, bounds.max_money_micros, total <= bounds.max_money_micros, narrower)
        for currency, total in sorted(money.items())
    ]
    for currency, rows in advertisers.groupby("currency"):
        top = rows.loc[rows["money_micros"].idxmax()]
        over = rows[rows["money_micros"] > bounds.max_advertiser_micros].sort_values("money_micros", ascending=False)
        named = ", ".join(str(name) for name in over["advertiser_id"].head(5))
        observed = int(top["money_micros"])
        advice = f"{len(over)} above the bound, first {named}; leave them out or look at them apart" if named else narrower
        checks.append(
            Check(f"money of one advertiser in {currency}, micro-units", observed, bounds.max_advertiser_micros, over.empty, advice)
        )
    return checks
