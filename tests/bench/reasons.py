"""Reasons beside exact Shapley values, and what they cost: python -m tests.bench.reasons --conf FILE [--clicks 200]

Reads a version of the registry and the stored features of clicks that it called invalid. A topic is in a coalition with the click's
values of all its features, else with the baseline's; its Shapley value is the mean over all coalitions of the others, 2^topics of them.
"""

import argparse
import time
from itertools import combinations
from math import factorial
from pathlib import Path

import numpy as np

from slidr import config, query
from slidr.bundle import Bundle, forward, layer_sums, prepare
from slidr.direct import Place
from slidr.reasons import STRONGEST, baseline, by_topic, contributions, strongest, topics
from slidr.registry import Registry
from slidr.tables import DECISIONS, features_table

INVALID = """
SELECT features.* FROM features JOIN decisions ON features.click_id = decisions.click_id
WHERE decisions.is_invalid AND decisions.basis = 'model' AND decisions.model_version = $version AND features.origin = 'then'
ORDER BY hash(features.click_id) LIMIT CAST($clicks AS BIGINT)
"""
ROUNDS = 7
INVALID_SHARE = 0.1  # of clicks whose reasons are asked for


def shapley(bundle: Bundle, x_F: np.ndarray) -> np.ndarray:
    """Exact Shapley values (T,) of the topics for one click's logit."""
    found = topics(bundle.spec)
    base_I, own_I = baseline(bundle)[0], prepare(bundle, x_F[None, :])[0]
    flags = [bundle.features.index(name) for name in bundle.preparation.flags]
    of_input = np.array(
        [next(t for t, topic in enumerate(found) if place in topic.columns) for place in [*range(len(bundle.features)), *flags]]
    )
    masks = (np.arange(2 ** len(found))[:, None] >> np.arange(len(found))) & 1
    inputs = np.where(masks[:, of_input].astype(bool), own_I, base_I)
    logits = np.concatenate([layer_sums(bundle, block)[-1][0] for block in np.array_split(inputs, 8)])
    size = masks.sum(axis=1)
    weight = np.array([factorial(k) * factorial(len(found) - k - 1) / factorial(len(found)) if k < len(found) else 0.0 for k in size])
    values = []
    for topic in range(len(found)):
        without = np.flatnonzero(masks[:, topic] == 0)
        values.append(float((weight[without] * (logits[without + 2**topic] - logits[without])).sum()))
    return np.array(values)


def agreement(bundle: Bundle, x_BF: np.ndarray) -> dict[str, float]:
    """How far the contributions of topics are from exact Shapley values."""
    own_BT = by_topic(bundle.spec, contributions(bundle, x_BF)[0])
    exact_BT = np.stack([shapley(bundle, x_F) for x_F in x_BF])
    np.testing.assert_allclose(own_BT.sum(axis=1), exact_BT.sum(axis=1), atol=1e-6)
    order, exact = np.argsort(-own_BT, axis=1), np.argsort(-exact_BT, axis=1)
    pairs = [(a, b) for a, b in combinations(range(own_BT.shape[1]), 2)]
    same = [np.sign(own_BT[:, a] - own_BT[:, b]) == np.sign(exact_BT[:, a] - exact_BT[:, b]) for a, b in pairs]
    return {
        "correlation of the values": float(np.corrcoef(own_BT.ravel(), exact_BT.ravel())[0, 1]),
        "mean distance / mean size": float(np.abs(own_BT - exact_BT).mean() / np.abs(exact_BT).mean()),
        "same strongest reason": float((order[:, 0] == exact[:, 0]).mean()),
        f"overlap of the {STRONGEST} strongest": float(
            np.mean([len(set(a[:STRONGEST]) & set(b[:STRONGEST])) / STRONGEST for a, b in zip(order, exact, strict=True)])
        ),
        "pairs of topics in the same order": float(np.mean(same)),
    }


def cost(bundle: Bundle, x_BF: np.ndarray) -> float:
    """CPU of scores with reasons of a tenth of the clicks, over CPU of scores alone; median of rounds in turns."""
    x_BF = np.resize(x_BF, (50_000, x_BF.shape[1]))
    few = x_BF[: int(len(x_BF) * INVALID_SHARE)]
    ratios = []
    for _ in range(ROUNDS):
        start = time.process_time()
        forward(bundle, x_BF)
        alone = time.process_time() - start
        forward(bundle, x_BF)
        strongest(bundle, few)
        ratios.append((time.process_time() - start - alone) / alone)
    return float(np.median(ratios))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--conf", type=Path, required=True)
    parser.add_argument("--model", default="champion")
    parser.add_argument("--clicks", type=int, default=200)
    given = parser.parse_args()
    conf = config.load(given.conf)
    place = Place(conf.lake.root)
    version = Registry(conf.registry, place).load(given.model)
    bundle = version.bundle
    tables = {"features": features_table(bundle.spec), "decisions": DECISIONS}
    rows = query.run(place, tables, INVALID, {"version": version.number, "clicks": given.clicks}).to_pylist()
    x_BF = np.array([[np.nan if row[name] is None else float(row[name]) for name in bundle.features] for row in rows])
    found = len(topics(bundle.spec))
    print(f"version {version.number}, {len(x_BF)} invalid clicks, {found} topics, {2**found:,} coalitions each")
    for name, value in agreement(bundle, x_BF).items():
        print(f"{name:<36} {value:.3f}")
    print(f"{'scoring with reasons / without':<36} {cost(bundle, x_BF):.2f}")


if __name__ == "__main__":
    main()
