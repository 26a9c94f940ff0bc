"""Slice metrics by hour, and how these hours stand beside the same hours of earlier weeks."""

from slidr.monitoring.metrics import by_hour, purchase_feed, slice_metrics, update
from slidr.monitoring.signals import COLUMNS, NO_HISTORY, OK, ROLL_BACK, TOO_FEW, WATCH, judge

__all__ = ["COLUMNS", "NO_HISTORY", "OK", "ROLL_BACK", "TOO_FEW", "WATCH", "by_hour", "judge", "purchase_feed", "slice_metrics", "update"]
