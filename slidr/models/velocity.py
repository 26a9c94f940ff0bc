"""The velocity rule as the layers of a bundle: clicks of the user in the last hour, else of the session. Nothing is learnt.

The score is sigmoid(log(1 + clicks) - 3): it grows with the clicks, and is above 1/2 from 20 clicks on.
"""

from dataclasses import replace

import numpy as np

from slidr.bundle import Preparation
from slidr.bundle_files import Layer

BY = ("user_clicks_1h", "session_clicks_1h")
SHUT = 100.0  # more than log(1 + clicks) ever is
OFFSET = -3.0


def prepared(preparation: Preparation) -> Preparation:
    """The same inputs, not standardised: log(1 + clicks) as it is."""
    return replace(preparation, mean=(0.0,) * len(preparation.mean), std=(1.0,) * len(preparation.std))


def layers(preparation: Preparation) -> tuple[Layer, ...]:
    """One unit for each of the counters that the spec has: log(1 + clicks) where the counter applies, else 0; then their sum.

    The session's counter applies where the user's is missing.
    """
    by = [name for name in BY if name in preparation.names]
    inputs = [*preparation.names, *(f"no {name}" for name in preparation.flags)]
    weight, bias = np.zeros((max(len(by), 1), len(inputs)), dtype=np.float32), np.zeros(max(len(by), 1), dtype=np.float32)
    for unit, name in enumerate(by):
        weight[unit, inputs.index(name)] = 1.0
    if len(by) == len(BY):
        flag = inputs.index(f"no {_flag_of(by[0], preparation)}")
        weight[0, flag] = -SHUT
        weight[1, flag], bias[1] = SHUT, -SHUT
    return (weight, bias), (np.ones((1, len(bias)), dtype=np.float32), np.array([OFFSET], dtype=np.float32))


def _flag_of(counter: str, preparation: Preparation) -> str:
    """The flag that tells that the counter's key is NULL: of the first counter of the same entity."""
    entity = counter.split("_")[0]
    return next(name for name in preparation.flags if name.startswith(f"{entity}_clicks_"))
