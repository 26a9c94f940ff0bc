"""The pictures (PNG) of the weekly report: IVR by hour, FPR by day beside its budget, money by day."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, PercentFormatter

from slidr import pages, plots
from slidr.weekly import figures
from slidr.weekly.figures import Week

HOURS, FPR, MONEY = "ivr_by_hour.png", "fpr_by_day.png", "money_by_day.png"
TITLES = {
    HOURS: "Invalidation rate by hour; hours to watch or to roll back are shaded",
    FPR: "FPR by day, with its interval and the budget",
    MONEY: "Price of the invalid clicks by day",
}


def draw(week: Week, budget: float, folder: Path) -> None:
    """Writes the pictures TITLES into the folder."""
    _draw_hours(week, folder / HOURS)
    _draw_fpr(week, budget, folder / FPR)
    _draw_money(week, folder / MONEY)


def _draw_hours(week: Week, path: Path) -> None:
    table = figures.shares(week, week.days, ["click_date", "hour"])
    hours = pd.to_datetime(table["click_date"]) + pd.to_timedelta(table["hour"], unit="h")
    shaded = [(hour, hour + pd.Timedelta(hours=1)) for hour in figures.alarms(week)["time"]]
    plots.plot_hours(table.assign(hour=hours)[["hour", "view", "ivr"]], path, shaded=shaded, shade="to watch or to roll back")


def _draw_fpr(week: Week, budget: float, path: Path) -> None:
    """Views stand side by side and differ by marker too. Long ends of intervals are cut off: a few purchases must not flatten the rest."""
    table = figures.shares(week, week.days, ["click_date"])
    figure, axis = plt.subplots(figsize=(10, 3.8), layout="constrained")
    for (view, (label, colour, _)), shift, marker in zip(plots.VIEWS.items(), (-0.12, 0.12), "os", strict=True):
        rows = table[table["view"] == view].set_index("click_date").reindex(list(week.days))
        at = np.arange(len(rows)) + shift
        axis.vlines(at, rows["fpr_low"], rows["fpr_high"], color=colour, alpha=0.6)
        axis.plot(at, rows["fpr"], marker, color=colour, label=label)
    axis.axhline(budget, color=plots.CHOSEN, linestyle="--", linewidth=1.3, label=f"budget {budget:.2%}")
    highest = table["fpr"].max()
    axis.set_ylim(0, 1.25 * max(3 * budget, 0 if pd.isna(highest) else highest))
    axis.set(title="FPR by day: invalid / purchasing clicks; a lower estimate of the harm to people", ylabel="FPR")
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    if table["fpr"].isna().all():
        axis.text(0.5, 0.5, "not known: no day has matured", ha="center", transform=axis.transAxes)
    _name_days(axis, week)
    axis.legend(loc="best", frameon=False)
    plots.save(figure, path)


def _draw_money(week: Week, path: Path) -> None:
    """One panel per currency: amounts of different currencies have no common axis."""
    names = figures.currencies(week)
    figure, axes = plt.subplots(len(names), 1, figsize=(10, 2.4 * len(names) + 0.8), sharex=True, squeeze=False, layout="constrained")
    for axis, currency in zip(axes.flat, names, strict=True):
        for (view, (label, colour, _)), shift, hatch in zip(plots.VIEWS.items(), (-0.2, 0.2), ("", "//"), strict=True):
            micros = [figures.price(week, "invalid_cost_micros", days=[day], view=view, currency=currency) for day in week.days]
            heights = [np.nan if amount is None else amount / pages.MICROS for amount in micros]
            axis.bar(np.arange(len(heights)) + shift, heights, 0.38, color=colour, hatch=hatch, edgecolor="white", label=label)
        axis.set_title(currency, loc="left", fontsize=10)
        axis.yaxis.set_major_formatter(FuncFormatter(lambda amount, _: f"{amount:,g}"))
        _name_days(axis, week)
    plots.legend(figure, list(axes.flat))
    plots.save(figure, path)


def _name_days(axis: Axes, week: Week) -> None:
    step = max(1, len(week.days) // 14)
    axis.set_xticks(range(0, len(week.days), step), [f"{day:%a %d %b}" for day in week.days[::step]], rotation=30, ha="right")
    axis.set_xlim(-0.6, len(week.days) - 0.4)
    plots.tidy(axis)
