"""Small models made by hand."""

import numpy as np

from slidr.bundle import Bundle, preparation_for
from slidr.config import Config
from slidr.slice_spec import LOGIN, SlicePart, SliceSpec

DEVICES = SliceSpec((SlicePart("device"),))
LOGIN_SLICES = SliceSpec((SlicePart("device"), SlicePart("logged_in", LOGIN)))


def made_by_hand(conf: Config, weights: dict[str, float], bias: float, thresholds: dict[str, float], **given: object) -> Bundle:
    """score = sigmoid(weights of the prepared features + bias), by the configuration's spec."""
    names = tuple(c.name for c in conf.spec.columns)
    preparation = preparation_for(conf.spec)
    row = np.array([[weights.get(name, 0.0) for name in names] + [0.0] * len(preparation.flags)], dtype=np.float32)
    parts = {name: {} for name in ("labels", "table_versions", "config", "libraries", "metrics")}
    return Bundle(
        spec=conf.spec,
        features=names,
        preparation=preparation,
        layers=((row, np.array([bias], dtype=np.float32)),),
        thresholds=thresholds,
        **{"slices": LOGIN_SLICES, "default_threshold": 0.6, **parts, **given},
    )


def constant(conf: Config, bias: float) -> Bundle:
    """Every click gets the same score."""
    return made_by_hand(conf, {}, bias, {"desktop": 0.5}, slices=DEVICES, metrics={"judging_ivr": 0.1})


def crowd(conf: Config) -> Bundle:
    """Calls clicks robotic by how many the address made in a day."""
    return made_by_hand(conf, {"ip_clicks_24h": 1.0}, -2.0, {"desktop/guest": 0.5})
