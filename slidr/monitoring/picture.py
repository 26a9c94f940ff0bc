"""IVR, volume and purchases by hour beside the same hours of earlier weeks."""

from pathlib import Path

import pandas as pd

from slidr import plots
from slidr.curves import TOTAL
from slidr.monitoring.signals import LABEL_OUTAGE
from slidr.monitoring.windows import ROLL_BACK, WATCH

PANELS = {
    "ivr": "IVR: invalid / all clicks",
    "score_shift": "scores elsewhere than usual, share of the median slice",
    "empty_features": "features that are NULL or 0",
    "fpr_24h": "FPR of purchases known a day after the click",
}
VIEWS = {"usual": ("earlier weeks", plots.CURVE, "-"), "value": ("these hours", plots.CHOSEN, "-")}


def plot(judged: pd.DataFrame, path: Path) -> None:
    """One panel for each share, one below the other; hours whose verdict is watch or roll back are shaded. All slices together."""
    rows = judged[judged["place"] == TOTAL]
    panels = {title: _lines(rows[rows["signal"] == signal]) for signal, title in PANELS.items()}
    counts = {
        f"{title} / usual": _beside(rows[rows["signal"] == signal])
        for signal, title in {"volume": "clicks", LABEL_OUTAGE: "purchases that came in"}.items()
    }
    bad = sorted(set(judged.loc[judged["verdict"].isin([ROLL_BACK, WATCH]), "time"]))
    shaded = [(hour, hour + pd.Timedelta(hours=1)) for hour in bad]
    plots.plot_shares(panels | counts, path, shaded=shaded, shade="watch or roll back", views=VIEWS)


def _lines(rows: pd.DataFrame) -> pd.DataFrame:
    parts = [rows.assign(hour=rows["time"], view=view, share=rows[view])[["hour", "view", "share"]] for view in VIEWS]
    return pd.concat(parts, ignore_index=True)


def _beside(rows: pd.DataFrame) -> pd.DataFrame:
    """Counts as multiples of what is usual, which is 100%."""
    usual = rows["usual"].where(rows["usual"] > 0)
    return _lines(rows.assign(value=rows["value"] / usual, usual=usual / usual))
