"""Why a score is high: what each feature adds to the logit, and the strongest of it in words. No Spark.

Contributions follow DeepLIFT's rescale rule (Shrikumar, Greenside, Kundaje, "Learning Important Features Through Propagating Activation
Differences", ICML 2017): each ReLU passes on the difference from the baseline in proportion, so that over all features they add up to the
logit's difference in one pass. What the flag of a missing feature adds counts for the feature.

Shapes as in `bundle`: B clicks, F features, I model inputs, O outputs of a layer; T topics.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slidr.bundle import BLOCK, Array, Bundle, layer_sums, linear, prepare
from slidr.features.spec import Counter, FeatureSpec, column_name

STRONGEST = 3
DECIMALS = 6  # of a topic's contribution, before topics are ranked: what is equal in them keeps the spec's order
EQUAL = 1e-9  # sums of a unit that are no farther apart: its slope is the gradient there
CLASSES = ("rate", "shared address", "variety", "time pattern", "account")  # coarse on purpose: they leave the house
KEYS = {"user_id": "user", "session_id": "session", "ip_key": "ip", "user_agent": "user agent", "advertiser_id": "advertiser"}
UNITS = {"s": "s", "m": "min", "h": "h", "d": "d"}
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
DAY_MINUTES = 24 * 60

Words = Callable[[float], str]  # of a raw feature, NaN for NULL
Texts = NDArray[np.object_]


@dataclass(frozen=True)
class Topic:
    """Features that say one thing, such as the clicks of an address over all windows: `columns` are their places among the features.

    `words` says the value of each. Time of day and of week are two columns each, which mean nothing alone: `angle` says both.
    """

    name: str
    reason_class: str
    columns: tuple[int, ...]
    words: tuple[Words, ...] = ()
    angle: Callable[[float, float], str] | None = None


def baseline(bundle: Bundle) -> Array:
    """The model inputs (1, I) that contributions are taken against: the average human click of the training days (by their labels)."""
    prep = bundle.preparation
    human_I = np.array(prep.human)
    features = len(prep.names)
    found: Array = np.concatenate([(human_I[:features] - np.array(prep.mean)) / np.array(prep.std), human_I[features:]])[None, :]
    return found


def contributions(bundle: Bundle, x_BF: Array) -> tuple[Array, float]:
    """What each feature adds to the logit (B, F), and the logit of the baseline: together they are the click's logit to 1e-6.

    Raw features, NaN for NULL. Raises InputError as `bundle.prepare`.
    """
    x_BF = np.asarray(x_BF, dtype=np.float64)
    base_1I = baseline(bundle)
    base = layer_sums(bundle, base_1I)
    blocks = [_block(bundle, prepare(bundle, x_BF[start : start + BLOCK]), base_1I, base) for start in range(0, len(x_BF), BLOCK)]
    by_input = np.concatenate(blocks) if blocks else np.empty((0, bundle.preparation.inputs))
    return _with_flags(bundle, by_input), float(base[-1][0, 0])


def _block(bundle: Bundle, x_BI: Array, base_1I: Array, base: list[Array]) -> Array:
    sums = layer_sums(bundle, x_BI)
    slope_OB = np.ones_like(sums[-1])
    for number in range(len(bundle.layers) - 1, -1, -1):
        weight = bundle.layers[number][0].astype(np.float64)
        slope_OB = linear(np.ascontiguousarray(weight.T), np.zeros(weight.shape[1]), slope_OB)
        if number > 0:
            slope_OB = slope_OB * _relu_slope(sums[number - 1], base[number - 1])
    return (x_BI - base_1I) * slope_OB.T


def _relu_slope(z_OB: Array, base_O1: Array) -> Array:
    apart = z_OB - base_O1
    near = np.abs(apart) < EQUAL
    rise = np.maximum(z_OB, 0.0) - np.maximum(base_O1, 0.0)
    return np.where(near, z_OB > 0, rise / np.where(near, 1.0, apart))


def _with_flags(bundle: Bundle, by_input: Array) -> Array:
    features = len(bundle.features)
    found = by_input[:, :features].copy()
    for place, name in enumerate(bundle.preparation.flags):
        found[:, bundle.features.index(name)] += by_input[:, features + place]
    return found


def by_topic(spec: FeatureSpec, contributions_BF: Array) -> Array:
    """Contributions (B, T) of the topics of a spec."""
    return np.stack([contributions_BF[:, topic.columns].sum(axis=1) for topic in topics(spec)], axis=1)


def strongest(bundle: Bundle, x_BF: Array) -> tuple[Texts, Texts]:
    """Class of the strongest reason (B,), and the strongest reasons in words (B, STRONGEST), such as `ip: 412 clicks in 1 h`.

    A reason is a topic that raises the score, in the words of its feature that raises it most; None where fewer topics do.
    """
    found = topics(bundle.spec)
    contributions_BF, _ = contributions(bundle, x_BF)
    rounded_BT = np.round(by_topic(bundle.spec, contributions_BF), DECIMALS)
    ranked = np.argsort(-rounded_BT, axis=1, kind="stable")[:, :STRONGEST]
    classes = np.full(len(x_BF), None, dtype=object)
    texts = np.full((len(x_BF), STRONGEST), None, dtype=object)
    for rank in range(ranked.shape[1]):
        for place, topic in enumerate(found):
            rows = np.flatnonzero((ranked[:, rank] == place) & (rounded_BT[:, place] > 0))
            texts[rows, rank] = said(topic, x_BF[rows], contributions_BF[rows])
            if rank == 0:
                classes[rows] = topic.reason_class
    return classes, texts


def said(topic: Topic, x_BF: Array, contributions_BF: Array) -> list[str]:
    """Of each click the topic in the words of its feature that moves the score most to where the topic moves it."""
    if topic.angle:
        sines, cosines = (x_BF[:, column] for column in topic.columns)
        return [topic.angle(sine, cosine) for sine, cosine in zip(sines, cosines, strict=True)]
    own_BF = np.round(contributions_BF[:, topic.columns], DECIMALS)
    first = (own_BF * np.where(own_BF.sum(axis=1, keepdims=True) < 0, -1, 1)).argmax(axis=1)
    return [topic.words[place](row[topic.columns[place]]) for place, row in zip(first, x_BF, strict=True)]


def topics(spec: FeatureSpec) -> list[Topic]:
    """The topics of a spec in its order; each feature belongs to one."""
    places = {column.name: place for place, column in enumerate(spec.columns)}
    found = [_counted(spec, counter, places) for counter in spec.counters]
    if spec.time_of_click:
        found.append(Topic("hour of day", "time pattern", (places["hour_sin"], places["hour_cos"]), angle=_hour))
        found.append(Topic("day of week", "time pattern", (places["weekday_sin"], places["weekday_cos"]), angle=_weekday))
    if spec.logged_in:
        found.append(Topic("login", "account", (places["logged_in"],), (lambda value: "logged in" if value else "not logged in",)))
    return found


def _counted(spec: FeatureSpec, counter: Counter, places: dict[str, int]) -> Topic:
    keys = spec.key_columns(counter.entity)
    whose = " + ".join(KEYS.get(key, key) for key in keys)
    columns = tuple(places[column_name(counter.entity, counter.measure, window)] for window in counter.windows)
    if counter.measure == "since_prev":
        return Topic(f"{whose}: time since the click before", "time pattern", columns, (_since(whose, counter.windows[0]),))
    what = counter.measure.replace("_", " ")
    shared = "shared address" if {"ip", "ip_key"} & set(keys) else "variety"
    words = tuple(_count(whose, what, window) for window in counter.windows)
    return Topic(f"{whose}: {what}", shared if counter.distinct else "rate", columns, words)


def _count(whose: str, what: str, window: str) -> Words:
    def said(value: float) -> str:
        if np.isnan(value):
            return f"{whose}: not known"
        unit = what.removesuffix("s") if value == 1 else what
        return f"{whose}: {value:,.0f} {unit} in {_span(window)}"

    return said


def _since(whose: str, window: str) -> Words:
    def said(value: float) -> str:
        found = f"no click in the {_span(window)} before" if np.isnan(value) else f"{_seconds(value)} after the click before"
        return f"{whose}: {found}"

    return said


def _span(window: str) -> str:
    return f"{window[:-1]} {UNITS[window[-1]]}"


def _seconds(value: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.2f} s"


def _hour(sine: float, cosine: float) -> str:
    minute = round(np.arctan2(sine, cosine) / (2 * np.pi) * DAY_MINUTES) % DAY_MINUTES
    return f"hour of day: {minute // 60:02d}:{minute % 60:02d}"


def _weekday(sine: float, cosine: float) -> str:
    return f"day of week: {DAYS[round(np.arctan2(sine, cosine) / (2 * np.pi) * len(DAYS)) % len(DAYS)]}"
