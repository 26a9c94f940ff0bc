"""The models: what torch trains is what numpy scores."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from slidr import bundle
from slidr.features.spec import FeatureSpec
from slidr.models import velocity
from slidr.models.network import Mlp, export_layers, l2_penalty
from slidr.training.loop import seeded
from tests.test_bundle import FEATURES, INPUTS, SPEC, made_bundle, raw_features

PREPARATION = made_bundle().preparation


@pytest.mark.parametrize("hidden", [(64, 32), ()])
def test_numpy_forward_equals_torch(hidden: tuple[int, ...], tmp_path: Path) -> None:
    seeded(5)
    model = Mlp(PREPARATION, hidden)
    with torch.no_grad():
        model.linear[-1].weight *= 6  # scores as spread as those of a trained model
    x_BF = raw_features(2000)
    exported = replace(made_bundle(), layers=export_layers(model))
    loaded = bundle.load(tmp_path, bundle.save(exported, tmp_path))
    with torch.no_grad():
        expected = torch.sigmoid(model(torch.from_numpy(x_BF.astype(np.float32)))).numpy()
    assert expected.std() > 0.05
    np.testing.assert_allclose(bundle.forward(loaded, x_BF), expected, rtol=0, atol=1e-6)


def test_inputs_equal_the_bundles(tmp_path: Path) -> None:
    x_BF = raw_features(2000)
    inputs = Mlp(PREPARATION, ()).prepare(torch.from_numpy(x_BF.astype(np.float32))).numpy()
    np.testing.assert_allclose(inputs, bundle.prepare(made_bundle(), x_BF), rtol=0, atol=1e-5)


def test_shapes_and_scaling_travel_with_the_model() -> None:
    model = Mlp(bundle.preparation_for(SPEC), (64, 32))
    assert [tuple(layer.weight.shape) for layer in model.linear] == [(64, INPUTS), (32, 64), (1, 32)]
    assert model(torch.zeros(5, len(FEATURES))).shape == (5,)
    assert {"fill_F", "log_F", "mean_F", "std_F", "flagged_M"} <= set(model.state_dict())


def test_l2_covers_the_intermediate_weights_only() -> None:
    model = Mlp(PREPARATION, (4, 3))
    expected = sum(float((layer.weight.detach() ** 2).sum()) for layer in model.linear[:2])
    assert l2_penalty(model).item() == pytest.approx(expected, rel=1e-6)
    l2_penalty(model).backward()
    assert [layer.weight.grad is not None for layer in model.linear] == [True, True, False]
    assert all(layer.bias.grad is None for layer in model.linear)
    assert float(l2_penalty(Mlp(PREPARATION, ()))) == 0.0


@pytest.mark.parametrize("entities", [("user", "session"), ("user",), ("session",), ("ip",)])
def test_velocity_is_the_clicks_of_the_user_else_of_the_session(entities: tuple[str, ...]) -> None:
    keys = {"user": "user_id", "session": "session_id", "ip": "ip_key"}
    counters = [{"entity": entity, "measure": "clicks", "windows": ["10m", "1h"]} for entity in entities]
    raw = {"entities": {entity: [keys[entity]] for entity in entities}, "counters": counters, "time_of_click": False, "logged_in": True}
    spec = FeatureSpec.from_dict(raw)
    preparation = velocity.prepared(bundle.preparation_for(spec))
    made = replace(made_bundle(), spec=spec, features=preparation.names, preparation=preparation, layers=velocity.layers(preparation))
    rng = np.random.default_rng(4)
    x_BF = rng.integers(0, 500, (300, len(preparation.names))).astype(float)
    missing = rng.random(300) < 0.4
    for name in preparation.names:
        if name.startswith("user_"):
            x_BF[missing, preparation.names.index(name)] = np.nan
    column = {name: x_BF[:, number] for number, name in enumerate(preparation.names)}
    nothing = np.full(300, np.nan)
    clicks = column.get("user_clicks_1h", nothing)
    clicks = np.where(np.isnan(clicks), column.get("session_clicks_1h", nothing), clicks)
    clicks = np.nan_to_num(clicks)
    scores = bundle.forward(made, x_BF)
    assert scores.tolist() == np.round((1 + clicks) / (1 + clicks + np.exp(3)), 6).tolist()
