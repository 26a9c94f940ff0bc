"""The naive truth: short, slow, obviously right. Used by tests only."""

from collections.abc import Sequence
from typing import Any

from slidr.features.spec import SECOND, FeatureSpec, column_name, micros


def naive_features(clicks: Sequence[dict[str, Any]], spec: FeatureSpec, known: str) -> dict[str, dict[str, float | None]]:
    """Counters of every click by looking at every pair of clicks. Times are integer microseconds."""
    return {click["click_id"]: _naive_row(click, clicks, spec, known) for click in clicks}


def _naive_row(click: dict[str, Any], clicks: Sequence[dict[str, Any]], spec: FeatureSpec, known: str) -> dict[str, float | None]:
    row: dict[str, float | None] = {}
    for counter in spec.counters:
        columns = spec.key_columns(counter.entity)
        for window in counter.windows:
            name = column_name(counter.entity, counter.measure, window)
            if any(click[c] is None for c in columns):
                row[name] = None
                continue
            seen = [
                other
                for other in clicks
                if all(other[c] == click[c] for c in columns)
                and click["time"] - micros(window) <= other["time"] < click["time"]
                and (known == "now" or other["arrival"] <= click["arrival"])
            ]
            if counter.measure == "clicks":
                row[name] = len(seen)
            elif counter.measure == "since_prev":
                row[name] = (click["time"] - max(o["time"] for o in seen)) / SECOND if seen else None
            else:
                row[name] = len({o[counter.distinct] for o in seen if o[counter.distinct] is not None})
    return row
