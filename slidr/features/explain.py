"""What a FeatureSpec computes and reads, for people. Free of Spark."""

from typing import Any

from slidr.features.counters import families
from slidr.features.spec import SECOND, FeatureSpec

ALWAYS_READ = ("click_id", "click_time", "arrival_time", "marketplace", "logged_in")


def explained(spec: FeatureSpec) -> dict[str, Any]:
    """`spec_id`, `revision`, `look_back` in seconds, `features` (name, type, meaning), `exchanges` (each moves the rows once), `reads`."""
    exchanges = [
        {
            "by": ", ".join(exchange) or "time",
            "entities": ", ".join(dict.fromkeys(c.entity for c in counters)),
            "features": _count(spec, counters),
        }
        for exchange, counters in families(spec)
    ]
    return {
        "spec_id": spec.spec_id,
        "revision": spec.revision,
        "look_back": spec.longest_window // SECOND,
        "features": [{"name": c.name, "type": c.type + ("?" if c.nullable else ""), "meaning": c.comment} for c in spec.columns],
        "exchanges": exchanges,
        "reads": columns_read(spec),
    }


def columns_read(spec: FeatureSpec) -> list[str]:
    """Columns of `clicks` that building the features reads."""
    keys = [column for counter in spec.counters for column in spec.key_columns(counter.entity)]
    values = [counter.distinct for counter in spec.counters if counter.distinct]
    return list(dict.fromkeys([*ALWAYS_READ, *keys, *values]))


def _count(spec: FeatureSpec, counters: tuple[Any, ...]) -> int:
    return len(FeatureSpec(spec.entities, counters, False, False).columns)
