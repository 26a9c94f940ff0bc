"""Contributions add up to the logit, and reasons say the strongest of them in words."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from slidr import bundle as bundles
from slidr.bundle import Bundle, prepare
from slidr.config import Config
from slidr.features.spec import FeatureSpec
from slidr.reasons import CLASSES, STRONGEST, baseline, by_topic, contributions, strongest, topics
from tests.bundles import made_by_hand
from tests.test_bundle import layers, made_bundle, raw_features

CLICKS = 300


@pytest.fixture(scope="module")
def network() -> Bundle:
    return made_bundle()


def deep(bundle: Bundle, *widths: int, seed: int) -> Bundle:
    return replace(bundle, layers=layers(bundle.preparation.inputs, *widths, 1, seed=seed))


def logits(bundle: Bundle, h_BI: np.ndarray) -> np.ndarray:
    """The forward pass in plain numpy, of model inputs."""
    for number, (weight, bias) in enumerate(bundle.layers, start=1):
        h_BI = h_BI @ weight.astype(float).T + bias.astype(float)
        h_BI = h_BI if number == len(bundle.layers) else np.maximum(h_BI, 0)
    return h_BI[:, 0]


@pytest.mark.parametrize("widths", [(), (5,), (16, 8), (64, 32, 8)])
def test_contributions_add_up_to_the_logit(network: Bundle, widths: tuple[int, ...]) -> None:
    for seed in range(3):
        model = deep(network, *widths, seed=seed)
        x_BF = raw_features(CLICKS, seed)
        found_BF, base = contributions(model, x_BF)
        assert np.isnan(x_BF).any()
        np.testing.assert_allclose(base + found_BF.sum(axis=1), logits(model, prepare(model, x_BF)), atol=1e-9)
        np.testing.assert_allclose(base, logits(model, baseline(model)), atol=1e-12)


def test_a_feature_that_equals_the_baseline_adds_nothing(network: Bundle) -> None:
    model = deep(network, 16, 8, seed=1)
    x_BF = raw_features(CLICKS)
    same = np.array([name == "user_clicks_7d" for name in model.features])
    assert same.any()
    x_BF[:, same] = np.expm1(model.preparation.human[int(np.flatnonzero(same)[0])])
    found_BF, _ = contributions(model, x_BF)
    np.testing.assert_allclose(found_BF[:, same], 0.0, atol=1e-12)
    assert found_BF[:, ~same].any(axis=0).all()


def test_it_is_the_rescale_rule_unit_by_unit(network: Bundle) -> None:
    """Against a walk over every path from input to output of a small network: the product of weights and slopes."""
    model = deep(network, 4, 3, seed=5)
    x_BF = raw_features(40, 2)
    x_BI, base_I = prepare(model, x_BF), baseline(model)[0]
    weights = [(weight.astype(float), bias.astype(float)) for weight, bias in model.layers]
    for x_I, row in zip(x_BI, contributions(model, x_BF)[0], strict=True):
        slopes = []
        h, h0 = x_I, base_I
        for weight, bias in weights[:-1]:
            z, z0 = weight @ h + bias, weight @ h0 + bias
            h, h0 = np.maximum(z, 0), np.maximum(z0, 0)
            slopes.append([(b - b0) / (a - a0) if a != a0 else float(a > 0) for a, a0, b, b0 in zip(z, z0, h, h0, strict=True)])
        (first, _), (second, _), (last, _) = weights
        expected = [
            sum(
                first[i, place] * slopes[0][i] * second[j, i] * slopes[1][j] * last[0, j]
                for i in range(first.shape[0])
                for j in range(second.shape[0])
            )
            * (x_I[place] - base_I[place])
            for place in range(len(x_I))
        ]
        folded = np.array(expected[: len(row)])
        for place, name in enumerate(model.preparation.flags):
            folded[model.features.index(name)] += expected[len(row) + place]
        np.testing.assert_allclose(row, folded, atol=1e-9)


def test_where_no_unit_bends_they_are_the_finite_differences(network: Bundle) -> None:
    model = deep(network, 16, 8, seed=2)
    start = raw_features(1, 7)
    start[np.isnan(start)] = 1.0
    inputs = prepare(model, start)[0]
    prep = model.preparation
    human = inputs[: len(prep.names)] * np.array(prep.std) + np.array(prep.mean)
    model = replace(model, preparation=replace(prep, human=(*human, *inputs[len(prep.names) :])))
    np.testing.assert_allclose(baseline(model)[0], inputs, atol=1e-12)
    step = 1e-6
    for place in range(len(model.features)):
        near = start.copy()
        near[0, place] += step
        rise = (logits(model, prepare(model, near)) - logits(model, prepare(model, start)))[0]
        assert contributions(model, near)[0][0, place] / step == pytest.approx(rise / step, rel=1e-3, abs=1e-5)


def test_contributions_do_not_depend_on_the_batch(network: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    model = deep(network, 16, 8, seed=1)
    x_BF = raw_features(CLICKS)
    whole, _ = contributions(model, x_BF)
    monkeypatch.setattr("slidr.reasons.BLOCK", 7)
    assert np.array_equal(contributions(model, x_BF)[0], whole)
    assert np.array_equal(contributions(model, x_BF[5:6])[0], whole[5:6])
    assert contributions(model, x_BF[:0])[0].shape == (0, len(model.features))


def test_every_feature_belongs_to_one_topic(conf: Config) -> None:
    found = topics(conf.spec)
    assert sorted(place for topic in found for place in topic.columns) == list(range(len(conf.spec.columns)))
    assert {topic.reason_class for topic in found} <= set(CLASSES)
    assert {topic.name: topic.reason_class for topic in found} == {
        "user: clicks": "rate",
        "session: clicks": "rate",
        "ip: clicks": "rate",
        "ip + user agent: clicks": "rate",
        "user: time since the click before": "time pattern",
        "session: time since the click before": "time pattern",
        "ip: time since the click before": "time pattern",
        "ip + user agent: time since the click before": "time pattern",
        "ip: sessions": "shared address",
        "ip: users": "shared address",
        "hour of day": "time pattern",
        "day of week": "time pattern",
        "login": "account",
    }


def click(conf: Config, **values: float) -> np.ndarray:
    names = [column.name for column in conf.spec.columns]
    row = {name: np.nan if name.endswith("_since_prev") else 0.0 for name in names}
    return np.array([list({**row, **values}.values())])


def said(conf: Config, weights: dict[str, float], **values: float) -> tuple[str | None, list[str | None]]:
    classes, texts = strongest(made_by_hand(conf, weights, 0.0, {}), click(conf, **values))
    return classes[0], list(texts[0])


def test_reasons_are_the_strongest_topics_in_words(conf: Config) -> None:
    weights = {"ip_clicks_1h": 1.0, "ip_clicks_24h": 0.1, "ip_sessions_24h": 0.8, "session_since_prev": -0.1, "user_clicks_1m": 0.01}
    values = {"ip_clicks_1h": 412.0, "ip_clicks_24h": 1412.0, "ip_sessions_24h": 57.0, "session_since_prev": 0.4, "user_clicks_1m": 1.0}
    assert said(conf, weights, **values) == (
        "rate",
        ["ip: 412 clicks in 1 h", "ip: 57 sessions in 24 h", "session: 0.40 s after the click before"],
    )


def test_what_lowers_the_score_is_no_reason(conf: Config) -> None:
    weights = {"ip_clicks_1h": -1.0, "logged_in": 1.0, "user_clicks_1m": 1.0}
    assert said(conf, weights, ip_clicks_1h=500.0, logged_in=1.0) == ("account", ["logged in", None, None])
    assert said(conf, {}, ip_clicks_1h=500.0) == (None, [None] * STRONGEST)


@pytest.mark.parametrize(
    ("name", "value", "weight", "words"),
    [
        ("user_clicks_1m", 1.0, 1.0, "user: 1 click in 1 min"),
        ("ip_users_7d", 12_345.0, 1.0, "ip: 12,345 users in 7 d"),
        ("ip_ua_since_prev", 95.0, -1.0, "ip + user agent: 1.6 min after the click before"),
        ("ip_since_prev", 7_200.0, -1.0, "ip: 2.0 h after the click before"),
        ("ip_since_prev", 100_000.0, -1.0, "ip: 1.2 d after the click before"),
        ("hour_cos", 1.0, 1.0, "hour of day: 00:00"),
        ("hour_sin", 1.0, 1.0, "hour of day: 06:00"),
        ("hour_sin", -1.0, -1.0, "hour of day: 18:00"),
        ("weekday_cos", 1.0, 1.0, "day of week: Monday"),
        ("weekday_sin", -1.0, -1.0, "day of week: Saturday"),
        ("logged_in", 1.0, 1.0, "logged in"),
    ],
)
def test_words(conf: Config, name: str, value: float, weight: float, words: str) -> None:
    assert said(conf, {name: weight}, **{name: value})[1][0] == words


def test_what_is_missing_counts_for_its_feature(conf: Config) -> None:
    model = made_by_hand(conf, {}, 0.0, {})
    (weight, bias) = model.layers[0]
    flags = {name: len(model.features) + place for place, name in enumerate(model.preparation.flags)}
    weight = weight.copy()
    weight[0, flags["user_clicks_1m"]] = 2.0
    model = replace(model, layers=((weight, bias),))
    row = click(conf, user_clicks_1m=np.nan)
    found, _ = contributions(model, row)
    assert found[0, model.features.index("user_clicks_1m")] == 2.0
    assert strongest(model, row)[1][0, 0] == "user: not known"


def test_equal_topics_keep_the_order_of_the_spec(conf: Config) -> None:
    weights = {"ip_clicks_1m": 1.0, "session_clicks_1m": 1.0, "user_clicks_1m": 1.0}
    texts = said(conf, weights, **dict.fromkeys(weights, 5.0))[1]
    assert texts == ["user: 5 clicks in 1 min", "session: 5 clicks in 1 min", "ip: 5 clicks in 1 min"]


def test_topics_add_up_like_their_features(network: Bundle) -> None:
    found, _ = contributions(network, raw_features(20))
    np.testing.assert_allclose(by_topic(network.spec, found).sum(axis=1), found.sum(axis=1))


def test_a_spec_of_ones_own_has_words(conf: Config) -> None:
    spec = FeatureSpec.from_dict(
        {
            "entities": {"adv_ip": ["advertiser_id", "ip_key"], "phone": ["device"]},
            "counters": [
                {"entity": "adv_ip", "measure": "clicks", "windows": ["90s"]},
                {"entity": "phone", "measure": "campaigns", "distinct": "campaign_id", "windows": ["1h"]},
            ],
            "time_of_click": False,
            "logged_in": False,
        }
    )
    names = [topic.name for topic in topics(spec)]
    assert names == ["advertiser + ip: clicks", "device: campaigns"]
    assert [topic.words[0](3.0) for topic in topics(spec)] == ["advertiser + ip: 3 clicks in 90 s", "device: 3 campaigns in 1 h"]
    assert [topic.reason_class for topic in topics(spec)] == ["rate", "variety"]


def test_more_clicks_of_an_address_never_make_its_reason_weaker(conf: Config) -> None:
    """Of a network that rises with the count."""
    model = made_by_hand(conf, {"ip_clicks_1h": 1.0}, 0.0, {})
    place = model.features.index("ip_clicks_1h")
    found = [contributions(model, click(conf, ip_clicks_1h=float(count)))[0][0, place] for count in (0, 1, 10, 100, 1000)]
    assert all(low < high for low, high in pairwise(found))
    assert found[0] == 0.0
    assert bundles.forward(model, click(conf, ip_clicks_1h=1000.0))[0] > 0.9
