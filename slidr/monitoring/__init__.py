"""Slice metrics by hour, and how these hours stand beside the same hours of earlier weeks."""

from slidr.monitoring.metrics import KEYS, purchase_feed, slice_metrics, stale, update
from slidr.monitoring.metrics import by_hour as read_hours
from slidr.monitoring.picture import plot
from slidr.monitoring.signals import COLUMNS, judge
from slidr.monitoring.verdicts import between, by_hour, by_version, deciding, naive, reasons, verdict
from slidr.monitoring.windows import NO_HISTORY, OK, ROLL_BACK, TOO_FEW, WATCH

__all__ = [
    "COLUMNS",
    "KEYS",
    "NO_HISTORY",
    "OK",
    "ROLL_BACK",
    "TOO_FEW",
    "WATCH",
    "between",
    "by_hour",
    "by_version",
    "deciding",
    "judge",
    "naive",
    "plot",
    "purchase_feed",
    "read_hours",
    "reasons",
    "slice_metrics",
    "stale",
    "update",
    "verdict",
]
