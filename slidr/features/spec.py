"""What is counted, as data. A FeatureSpec travels inside each model version; no Spark is imported here.

A counter of a click at time t looks at the half-open window [t - w, t) of earlier clicks of the same key.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, StrictBool, StrictInt, ValidationError

from slidr.errors import ConfigError

# A change of what the same spec computes is a new revision; a spec of another revision is refused, never reinterpreted.
REVISION = 1

SECOND = 1_000_000  # microseconds
UNITS = {"s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND, "d": 86400 * SECOND}
KEY_COLUMNS = ("user_id", "session_id", "ip", "ip_key", "user_agent", "device", "marketplace", "advertiser_id", "campaign_id")
TIME_COLUMNS = ("hour_sin", "hour_cos", "weekday_sin", "weekday_cos")
NAME = re.compile(r"^[a-z][a-z0-9_]*$")


@dataclass(frozen=True)
class FeatureColumn:
    """One stored feature: its name, Spark type (`int` or `double`), whether it can be NULL, and its meaning with unit."""

    name: str
    type: str
    nullable: bool
    comment: str


@dataclass(frozen=True)
class Counter:
    """One measure of one entity over some windows.

    measure `clicks` counts earlier clicks, `since_prev` is the seconds since the latest of them within the (one)
    window, any other measure counts the distinct values of `distinct`.
    """

    entity: str
    measure: str
    windows: tuple[str, ...]
    distinct: str | None = None


class _CounterShape(BaseModel):
    model_config = ConfigDict(extra="forbid")

    entity: str
    measure: str
    windows: tuple[str, ...]
    distinct: str | None = None


class _Shape(BaseModel):
    """A spec as it stands in YAML, where entities are a mapping, or in a bundle's JSON, where they are pairs."""

    model_config = ConfigDict(extra="forbid")

    entities: dict[str, tuple[str, ...]] | tuple[tuple[str, tuple[str, ...]], ...]
    counters: tuple[_CounterShape, ...]
    time_of_click: StrictBool
    logged_in: StrictBool
    revision: StrictInt = REVISION


@dataclass(frozen=True)
class FeatureSpec:
    """Entities (name -> key columns), counters, and two switches. `spec_id` is a hash of the meaning."""

    entities: tuple[tuple[str, tuple[str, ...]], ...]
    counters: tuple[Counter, ...]
    time_of_click: bool
    logged_in: bool
    revision: int = REVISION

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "FeatureSpec":
        """A validated spec from YAML or JSON. Raises ConfigError that lists every problem at once."""
        try:
            shape = _Shape.model_validate(raw)
        except ValidationError as error:
            raise _invalid([f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]) from error
        if shape.revision != REVISION:
            raise _invalid([f"revision {shape.revision} is not this code's {REVISION}: use the slidr release that made it"])
        entities = shape.entities.items() if isinstance(shape.entities, dict) else shape.entities
        spec = cls(
            entities=tuple(entities),
            counters=tuple(Counter(item.entity, item.measure, item.windows, item.distinct) for item in shape.counters),
            time_of_click=shape.time_of_click,
            logged_in=shape.logged_in,
        )
        problems = _problems(spec)
        if problems:
            raise _invalid(problems)
        return spec

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def spec_id(self) -> str:
        """First 12 hex digits of the sha256 of the canonical JSON. The order of counters is part of the meaning, since it is that of the
        columns; that of entities and of their columns is not, nor are entities that nothing counts."""
        counted = {counter.entity for counter in self.counters}
        entities = {name: sorted(columns) for name, columns in self.entities if name in counted}
        return hashlib.sha256(json.dumps({**self.to_dict(), "entities": entities}, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def longest_window(self) -> int:
        """Look-back of the whole spec in microseconds."""
        return max((micros(w) for counter in self.counters for w in counter.windows), default=0)

    def key_columns(self, entity: str) -> tuple[str, ...]:
        return dict(self.entities)[entity]

    @property
    def columns(self) -> tuple[FeatureColumn, ...]:
        """All stored features in order."""
        columns = [column for counter in self.counters for column in _counter_columns(counter)]
        if self.time_of_click:
            columns += [FeatureColumn(name, "double", False, _TIME_COMMENTS[name]) for name in TIME_COLUMNS]
        if self.logged_in:
            columns.append(FeatureColumn("logged_in", "int", False, "1 if the click was made logged in, else 0"))
        return tuple(columns)


_TIME_COMMENTS = {
    "hour_sin": "sine of 2 pi (h + m/60)/24, local time of the marketplace",
    "hour_cos": "cosine of 2 pi (h + m/60)/24, local time of the marketplace",
    "weekday_sin": "sine of 2 pi weekday/7, Monday = 0, local time of the marketplace",
    "weekday_cos": "cosine of 2 pi weekday/7, Monday = 0, local time of the marketplace",
}


def micros(window: str) -> int:
    """Length of a window such as `10m` in microseconds. Raises ConfigError unless it is a positive whole number and a unit."""
    match = re.fullmatch(r"([0-9]+)([smhd])", str(window))
    if not match or int(match[1]) == 0:
        raise ConfigError(f"expected a window such as 1m, 6h or 7d, found {window!r}")
    return int(match[1]) * UNITS[match[2]]


def column_name(entity: str, measure: str, window: str) -> str:
    """The one rule for feature names; `since_prev` has one window and does not name it."""
    return f"{entity}_{measure}" if measure == "since_prev" else f"{entity}_{measure}_{window}"


def _counter_columns(counter: Counter) -> list[FeatureColumn]:
    if counter.measure == "since_prev":
        text = f"seconds since the latest earlier click of the same {counter.entity} within {counter.windows[0]}; NULL if none"
        return [FeatureColumn(column_name(counter.entity, counter.measure, counter.windows[0]), "double", True, text)]
    what = "earlier clicks" if counter.distinct is None else f"distinct {counter.distinct} among the earlier clicks"
    return [
        FeatureColumn(
            column_name(counter.entity, counter.measure, window),
            "int",
            True,
            f"{what} of the same {counter.entity} in [t - {window}, t); NULL if the key is NULL",
        )
        for window in counter.windows
    ]


def _problems(spec: FeatureSpec) -> list[str]:
    names = [name for name, _ in spec.entities]
    problems = [f"entity {name!r} is listed twice" for name in sorted({n for n in names if names.count(n) > 1})]
    for name, columns in spec.entities:
        if len(set(columns)) < len(columns):
            problems.append(f"entity {name!r}: expected each column once, found {', '.join(columns)}")
        if not NAME.match(name):
            problems.append(f"entity {name!r}: expected a lower-case name")
        unknown = [column for column in columns if column not in KEY_COLUMNS]
        if unknown or not columns:
            problems.append(f"entity {name!r}: unknown columns {unknown}; known: {', '.join(KEY_COLUMNS)}")
    for counter in spec.counters:
        problems += _counter_problems(counter, {name for name, _ in spec.entities})
    if not problems:
        names = [column.name for column in spec.columns]
        problems += [f"feature {name!r} is listed twice" for name in sorted({n for n in names if names.count(n) > 1})]
        problems += [] if names else ["the spec lists no feature"]
    return problems


def _counter_problems(counter: Counter, entities: set[str]) -> list[str]:
    where = f"counter {counter.entity}_{counter.measure}"
    problems = []
    if counter.entity not in entities:
        problems.append(f"{where}: unknown entity {counter.entity!r}; known: {', '.join(sorted(entities))}")
    if not NAME.match(counter.measure):
        problems.append(f"{where}: expected a lower-case measure name")
    if counter.measure in ("clicks", "since_prev") and counter.distinct:
        problems.append(f"{where}: {counter.measure} takes no `distinct`")
    if counter.measure not in ("clicks", "since_prev") and counter.distinct not in KEY_COLUMNS:
        problems.append(f"{where}: expected `distinct` to be one of {', '.join(KEY_COLUMNS)}, found {counter.distinct!r}")
    if counter.measure == "since_prev" and len(counter.windows) != 1:
        problems.append(f"{where}: expected one window, found {list(counter.windows)}")
    if not counter.windows:
        problems.append(f"{where}: no windows")
    for window in counter.windows:
        try:
            micros(window)
        except ConfigError as error:
            problems.append(f"{where}: {error}")
    return problems


def _invalid(problems: list[str]) -> ConfigError:
    return ConfigError("the feature spec is not valid:\n  " + "\n  ".join(problems))
