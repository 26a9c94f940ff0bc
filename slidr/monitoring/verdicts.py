"""One verdict of many signals, by hour, window and version, and what it stands on. Pandas only."""

from datetime import datetime

import pandas as pd

from slidr.config import MonitoringConf
from slidr.monitoring.windows import NO_HISTORY, OK, ROLL_BACK, TOO_FEW, WATCH, WORST_FIRST

IVR = "ivr"


def verdict(judged: pd.DataFrame) -> str:
    """The worst verdict of these signals; ok if one at least could be judged."""
    found = set(judged["verdict"])
    return next((name for name in WORST_FIRST if name in found), TOO_FEW)


def by_hour(judged: pd.DataFrame) -> pd.DataFrame:
    """time, verdict: the worst of each hour's signals; an hour is judged only where its IVR is."""
    rank = {name: place for place, name in enumerate(WORST_FIRST)}
    worst = judged.assign(rank=judged["verdict"].map(rank)).groupby("time")["rank"].min()
    ivr = judged[judged["signal"] == IVR].assign(rank=lambda rows: rows["verdict"].map(rank)).groupby("time")["rank"].min()
    known = worst.where((worst <= rank[WATCH]) | (ivr <= rank[OK]), ivr)
    return pd.DataFrame({"time": known.index, "verdict": [WORST_FIRST[int(place)] for place in known]})


def between(judged: pd.DataFrame, start: datetime, end: datetime) -> pd.DataFrame:
    """Rows of the hours that lie in [start, end)."""
    return judged[(judged["time"] >= naive(start)) & (judged["time"] + pd.Timedelta(hours=1) <= naive(end))]


def reasons(judged: pd.DataFrame) -> pd.DataFrame:
    """What is not ok: for each signal and place its worst row, the farthest from usual, the worst verdict first."""
    rows = judged[judged["verdict"].isin([ROLL_BACK, WATCH])]
    rows = rows.assign(rank=rows["verdict"].map({ROLL_BACK: 0, WATCH: 1}), far=rows["sigmas"].abs())
    rows = rows.sort_values(["rank", "far"], ascending=[True, False], kind="stable").drop_duplicates(["signal", "place"])
    return rows[judged.columns].reset_index(drop=True)


def deciding(hours: pd.DataFrame, time: pd.Timestamp) -> str | None:
    """The version with most first decisions of the newest decided hour up to `time`; None without any."""
    rows = hours[(hours["view"] == "first") & (hours["time"] <= time)]
    counts = rows[rows["time"] == rows["time"].max()].groupby("model_version")["clicks"].sum()
    return None if counts.empty else str(counts.idxmax())


def by_version(judged: pd.DataFrame, hours: pd.DataFrame, *, conf: MonitoringConf, now: datetime) -> dict[str, str]:
    """Model version -> one verdict over the hours in which it made first decisions in the `stable_after_hours` up to `now`.

    A version that decided nothing since then is not in the result. It takes half of its hours to be `ok`, and none to be worse;
    without history it is not ok.
    """
    lately = between(judged, now - pd.Timedelta(hours=conf.stable_after_hours), now)
    decided = hours.loc[hours["view"] == "first", ["model_version", "time"]].drop_duplicates()
    rows = decided.merge(by_hour(lately), on="time")
    return {str(version): _of_version(found) for version, found in rows.groupby("model_version")}


def _of_version(rows: pd.DataFrame) -> str:
    found = verdict(rows)
    if found != OK or (rows["verdict"] == OK).mean() >= 0.5:
        return found
    return NO_HISTORY if (rows["verdict"] == NO_HISTORY).any() else TOO_FEW


def naive(time: datetime) -> pd.Timestamp:
    """The UTC wall time of `time`, as hours have it."""
    stamp = pd.Timestamp(time)
    return stamp.tz_convert("UTC").tz_localize(None) if stamp.tzinfo else stamp
