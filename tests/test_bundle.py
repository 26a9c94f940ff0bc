"""The bundle: what goes in comes out, nothing else gets in, and a score never depends on its batch."""

import json
import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save as dump_tensors

from slidr import bundle
from slidr.bundle import Bundle
from slidr.errors import InputError, ModelRefusedError
from slidr.features.spec import FeatureSpec
from slidr.slice_spec import LOGIN, SlicePart, SliceSpec

SPEC = FeatureSpec.from_dict(
    {
        "entities": {"user": ["user_id"], "ip": ["ip_key"]},
        "counters": [
            {"entity": "user", "measure": "clicks", "windows": ["1h", "7d"]},
            {"entity": "ip", "measure": "since_prev", "windows": ["7d"]},
        ],
        "time_of_click": True,
        "logged_in": True,
    }
)
FEATURES = tuple(column.name for column in SPEC.columns)
INPUTS = len(FEATURES) + 2  # flags: user_clicks_1h, ip_since_prev


def layers(*widths: int, seed: int = 3) -> tuple[bundle.Layer, ...]:
    rng = np.random.default_rng(seed)
    return tuple(
        (rng.normal(scale=0.3, size=(out, into)).astype(np.float32), rng.normal(size=out).astype(np.float32))
        for into, out in zip(widths[:-1], widths[1:], strict=True)
    )


def made_bundle() -> Bundle:
    prep = bundle.preparation_for(SPEC)
    measured = replace(prep, mean=tuple(0.1 * i for i in range(len(FEATURES))), std=tuple(1.0 + i / 3 for i in range(len(FEATURES))))
    return Bundle(
        spec=SPEC,
        features=FEATURES,
        preparation=measured,
        layers=layers(INPUTS, 64, 32, 1),
        slices=SliceSpec((SlicePart("device"), SlicePart("logged_in", LOGIN), SlicePart("user_clicks_1h", cuts=(1.0, 2.5)))),
        thresholds={"desktop/guest": 0.75, "phone/guest": 1},
        default_threshold=0.9123,
        labels={"delay_days": 2},
        table_versions={"clicks": 4, "days": ["2026-01-01"]},
        config={"training": {"seed": 7}},
        libraries={"torch": "2.12.1"},
        metrics={"fpr": 0.1 + 0.2, "nothing": None},
    )


def raw_features(clicks: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x_BF = np.column_stack([rng.geometric(0.05, clicks), rng.geometric(0.01, clicks), rng.exponential(5000, clicks)]).astype(float)
    x_BF = np.column_stack([x_BF, rng.uniform(-1, 1, (clicks, 4)), rng.integers(0, 2, clicks)])
    x_BF[rng.random(x_BF.shape) < 0.1] = np.nan
    return x_BF


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, str]:
    return tmp_path / "version", bundle.save(made_bundle(), tmp_path / "version")


def reseal(folder: Path) -> str:
    """A manifest that fits whatever the folder holds now: what an attacker with write access would do."""
    sums = {name: sha256((folder / name).read_bytes()).hexdigest() for name in ("bundle.json", "weights.safetensors")}
    (folder / "MANIFEST.json").write_text(json.dumps(sums))
    return sha256((folder / "MANIFEST.json").read_bytes()).hexdigest()


def edit_content(folder: Path, change: Callable[[dict], object]) -> str:
    content = json.loads((folder / "bundle.json").read_text())
    change(content)
    (folder / "bundle.json").write_text(json.dumps(content))
    return reseal(folder)


def test_preparation_fills_counts_with_zero_and_gaps_with_the_longest_window() -> None:
    prep = bundle.preparation_for(SPEC)
    assert prep.names == FEATURES
    assert prep.fill == (0.0, 0.0, 604800.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    assert prep.log == (True, True, True, False, False, False, False, False)
    assert prep.flags == ("user_clicks_1h", "ip_since_prev")


def test_prepare_by_hand() -> None:
    made = made_bundle()
    row = np.array([[3.0, np.nan, np.nan, 0.5, -0.5, 0.0, 1.0, 1.0]])
    raw = [np.log(4), 0, np.log(604801), 0.5, -0.5, 0, 1, 1]
    expected = [(value - 0.1 * i) / (1 + i / 3) for i, value in enumerate(raw)]
    np.testing.assert_allclose(bundle.prepare(made, row), [[*expected, 0, 1]], rtol=1e-12, atol=1e-15)
    row[0, 0], row[0, 2] = np.nan, 5.0
    assert bundle.prepare(made, row)[0, -2:].tolist() == [1, 0]


def test_forward_by_hand() -> None:
    one = np.ones((1, 1), np.float32)
    spec = FeatureSpec.from_dict({"entities": {}, "counters": [], "time_of_click": False, "logged_in": True})
    made = replace(
        made_bundle(),
        spec=spec,
        features=("logged_in",),
        preparation=bundle.preparation_for(spec),
        layers=((-2 * one, one[0]), (3 * one, -one[0])),
    )
    expected = [1 / (1 + np.exp(-2.0)), 1 / (1 + np.exp(1.0))]  # logged out: relu(1) * 3 - 1; logged in: relu(-1) * 3 - 1
    assert bundle.forward(made, np.array([[0.0], [1.0]])).tolist() == [round(value, 6) for value in expected]


def test_scores_do_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    made, x_BF = made_bundle(), raw_features(4096)
    monkeypatch.setattr(bundle, "DECIMALS", 17)  # even the digits that are never stored
    whole = bundle.forward(made, x_BF)
    for size in (1, 7):
        parts = [bundle.forward(made, x_BF[start : start + size]) for start in range(0, 4096, size)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()
    assert bundle.forward(made, np.asfortranarray(x_BF)).tobytes() == whole.tobytes()
    assert bundle.forward(made, x_BF[:0]).shape == (0,)


def test_scores_are_rounded_and_spread() -> None:
    scores = bundle.forward(made_bundle(), raw_features(500))
    assert (scores == np.round(scores, 6)).all()
    assert scores.min() >= 0
    assert scores.max() <= 1
    assert len(set(scores)) > 100


def test_sigmoid_does_not_overflow() -> None:
    with np.errstate(over="raise", invalid="raise"):
        assert bundle.sigmoid(np.array([-700.0, 0.0, 800.0])).tolist() == [np.exp(-700.0), 0.5, 1.0]


@pytest.mark.parametrize("value", [np.inf, -np.inf, -1.0, -5.0])
def test_features_that_no_counter_makes_are_an_error_with_their_name(value: float) -> None:
    x_BF = raw_features(5)
    x_BF[3, 1] = value
    with pytest.raises(InputError, match="user_clicks_7d"):
        bundle.forward(made_bundle(), x_BF)


def test_wrong_number_of_features_is_an_error() -> None:
    with pytest.raises(InputError, match=r"\(clicks, 8\)"):
        bundle.forward(made_bundle(), np.zeros((2, 3)))


def test_overflowing_weights_are_an_error() -> None:
    huge = [(np.full_like(weight, 3e38), np.full_like(bias, 3e38)) for weight, bias in layers(INPUTS, *[8] * 9, 1)]
    with pytest.raises(InputError, match="after layer"):
        bundle.forward(replace(made_bundle(), layers=tuple(huge)), np.ones((1, len(FEATURES))))


def test_round_trip(saved: tuple[Path, str], tmp_path: Path) -> None:
    made, loaded = made_bundle(), bundle.load(*saved)
    assert loaded.sha256 == saved[1]
    for name in set(vars(made)) - {"layers", "sha256"}:
        assert getattr(loaded, name) == getattr(made, name), name
    for (weight, bias), (other_weight, other_bias) in zip(loaded.layers, made.layers, strict=True):
        np.testing.assert_array_equal(weight, other_weight)
        np.testing.assert_array_equal(bias, other_bias)
    x_BF = raw_features(100)
    assert bundle.forward(loaded, x_BF).tobytes() == bundle.forward(made, x_BF).tobytes()
    assert bundle.save(loaded, tmp_path / "again") == saved[1]
    assert sorted(os.listdir(saved[0])) == ["MANIFEST.json", "bundle.json", "weights.safetensors"]


def test_a_bundle_is_never_overwritten(saved: tuple[Path, str]) -> None:
    with pytest.raises(InputError, match="empty folder"):
        bundle.save(made_bundle(), saved[0])


@pytest.mark.parametrize("name", ["bundle.json", "weights.safetensors", "MANIFEST.json"])
def test_every_flipped_byte_is_refused(saved: tuple[Path, str], name: str) -> None:
    folder, expected = saved
    data = bytearray((folder / name).read_bytes())
    for position in range(0, len(data), max(1, len(data) // 25)):
        data[position] ^= 1
        (folder / name).write_bytes(data)
        with pytest.raises(ModelRefusedError) as caught:
            bundle.load(folder, expected)
        assert caught.value.exit_code == 8
        data[position] ^= 1
    (folder / name).write_bytes(data)
    bundle.load(folder, expected)


@pytest.mark.parametrize("name", ["bundle.json", "weights.safetensors"])
def test_flipped_byte_is_refused_without_an_expected_hash(saved: tuple[Path, str], name: str) -> None:
    data = bytearray((saved[0] / name).read_bytes())
    data[len(data) // 2] ^= 1
    (saved[0] / name).write_bytes(data)
    with pytest.raises(ModelRefusedError, match=name):
        bundle.load(saved[0], None)


def test_extra_missing_and_linked_files_are_refused(saved: tuple[Path, str], tmp_path: Path) -> None:
    folder, expected = saved
    (folder / "more.py").write_text("")
    with pytest.raises(ModelRefusedError, match=r"more\.py"):
        bundle.load(folder, expected)
    (folder / "more.py").unlink()
    (folder / "bundle.json").rename(tmp_path / "outside.json")
    with pytest.raises(ModelRefusedError, match="exactly the files"):
        bundle.load(folder, expected)
    (folder / "bundle.json").symlink_to(tmp_path / "outside.json")
    with pytest.raises(ModelRefusedError, match=r"plain file bundle\.json"):
        bundle.load(folder, expected)
    (folder / "bundle.json").unlink()
    os.mkfifo(folder / "bundle.json")
    with pytest.raises(ModelRefusedError, match=r"plain file bundle\.json"):
        bundle.load(folder, expected)
    with pytest.raises(ModelRefusedError, match="found none"):
        bundle.load(tmp_path / "nowhere", expected)


def test_names_that_leave_the_folder_are_refused(saved: tuple[Path, str]) -> None:
    manifest = saved[0] / "MANIFEST.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "../outside.json": "0" * 64}))
    with pytest.raises(ModelRefusedError, match="outside"):
        bundle.load(saved[0], None)


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("name", ["bundle.json", "weights.safetensors"])
def test_no_pickle_is_ever_run(saved: tuple[Path, str], tmp_path: Path, name: str) -> None:
    (saved[0] / name).write_bytes(pickle.dumps(Payload(tmp_path / "marker")))
    with pytest.raises(ModelRefusedError):
        bundle.load(saved[0], reseal(saved[0]))
    assert not (tmp_path / "marker").exists()


def test_oversized_header_and_file_are_refused(saved: tuple[Path, str]) -> None:
    weights = saved[0] / "weights.safetensors"
    good = weights.read_bytes()
    header = b" " * (1 << 20) + b'{"a":1}'
    for data in (len(header).to_bytes(8, "little") + header, (1 << 62).to_bytes(8, "little") + good[8:], b"123"):
        weights.write_bytes(data)
        with pytest.raises(ModelRefusedError, match="header of at most"):
            bundle.load(saved[0], reseal(saved[0]))
    with weights.open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(ModelRefusedError, match="at most"):
        bundle.load(saved[0], None)


CODE = ("exec", "compile", "import", "pickle.find_class", "marshal.loads", "os.system", "subprocess.Popen", "ctypes.dlopen", "os.mkdir")
watched: list[str] | None = None


def _audit(event: str, _: tuple[object, ...]) -> None:
    if watched is not None and event in CODE:
        watched.append(event)


sys.addaudithook(_audit)


def flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def plant(folder: Path, name: str, marker: Path) -> None:
    """A pickle that makes the marker when it is loaded, as a file of its own."""
    (folder / name).write_bytes(pickle.dumps(Payload(marker)))


def header_of(folder: Path, tensors: object) -> None:
    header = (tensors if isinstance(tensors, str) else json.dumps(tensors)).encode()
    (folder / "weights.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 64)


def linked(folder: Path, marker: Path) -> None:
    plant(folder.parent, "outside", marker)
    (folder / "weights.safetensors").unlink()
    (folder / "weights.safetensors").symlink_to(folder.parent / "outside")


def tensor(dtype: str, shape: list[int], end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}


TAMPERED: dict[str, Callable[[Path, Path], object]] = {
    "tampered byte": lambda f, _: flip(f / "weights.safetensors"),
    "pickle beside": lambda f, m: plant(f, "model.pkl", m),
    "code beside": lambda f, m: (f / "__init__.py").write_text(f"import os; os.mkdir({str(m)!r})"),
    "hidden file beside": lambda f, m: plant(f, ".weights", m),
    "folder beside": lambda f, _: (f / "code").mkdir(),
    "pickle as weights": lambda f, m: plant(f, "weights.safetensors", m),
    "pickle as content": lambda f, m: plant(f, "bundle.json", m),
    "pickle as manifest": lambda f, m: plant(f, "MANIFEST.json", m),
    "link": linked,
    "dots in a tensor's name": lambda f, _: header_of(f, {"../0.weight": tensor("F32", [1, 8], 32), "0.bias": tensor("F32", [1], 4)}),
    "oversized header": lambda f, _: header_of(f, " " * (1 << 20) + "{}"),
    "nested header": lambda f, _: header_of(f, "[" * 1000),
    "shape that overflows": lambda f, _: header_of(f, {"0.weight": tensor("F32", [1 << 62, 8], 32)}),
    "offsets outside": lambda f, _: header_of(f, {"0.weight": tensor("F32", [1, 8], 1 << 40)}),
    "no offsets": lambda f, _: header_of(f, {"0.weight": {"dtype": "F32", "shape": [1]}}),
    "numbers of another kind": lambda f, _: header_of(f, {"0.weight": tensor("BF16", [4, 8], 64)}),
    "numbers of no kind": lambda f, _: header_of(f, {"0.weight": tensor("object", [1, 8], 64)}),
}


@pytest.mark.parametrize("how", TAMPERED)
@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "unsealed"])
def test_no_code_runs_whatever_lies_in_the_folder(saved: tuple[Path, str], tmp_path: Path, how: str, sealed: bool) -> None:
    """Tampered with by somebody who makes a new manifest (`sealed`) or not; nobody else's hash is known to the loader."""
    global watched
    folder, marker = saved[0], tmp_path / "marker"
    bundle.load(folder, None)  # what is imported or compiled once is not what this is about
    TAMPERED[how](folder, marker)
    if sealed and how not in ("tampered byte", "pickle as manifest"):
        reseal(folder)
    watched = []
    try:
        with pytest.raises(ModelRefusedError):
            bundle.load(folder, None)
    finally:
        ran, watched = watched, None
    assert ran == []
    assert not marker.exists()


def test_the_watch_sees_code(tmp_path: Path) -> None:
    global watched
    plant(tmp_path, "x", tmp_path / "marker")
    watched = []
    try:
        pickle.loads((tmp_path / "x").read_bytes())  # noqa: S301
    finally:
        ran, watched = watched, None
    assert "pickle.find_class" in ran
    assert (tmp_path / "marker").exists()


BAD_CONTENT = {
    "unknown key 'extra'": lambda c: c.update(extra=1),
    "missing key 'metrics'": lambda c: c.pop("metrics"),
    "expected thresholds to be dict": lambda c: c.update(thresholds=[]),
    "expected only float in thresholds": lambda c: c["thresholds"].update(a="0.5"),
    "thresholds from 0 to 1": lambda c: c["thresholds"].update(a=1.5),
    "bundle format 3": lambda c: c.update(format=1, slices=["device", "login"]),
    "expected only dict in slices": lambda c: c.update(slices=["device", "login"]),
    r"slices\[0\]: expected one of device": lambda c: c["slices"][0].update(column="colour"),
    "cuts of a feature of the spec, found 'user_clicks_2h'": lambda c: c["slices"][2].update(column="user_clicks_2h"),
    "expected slices as": lambda c: c["slices"][2].update(cuts=[1, 2.5]),
    "expected slices as .*'names': {}": lambda c: c["slices"][0].pop("names"),
    "revision 99": lambda c: c["spec"].update(revision=99),
    "unknown columns": lambda c: c["spec"].update(entities=[["user", ["password"]], ["ip", ["ip_key"]]]),
    "name different columns": lambda c: c["features"].reverse(),
    "in std": lambda c: c["preparation"]["std"].__setitem__(0, 0),
    "std >= 1e-06": lambda c: c["preparation"]["std"].__setitem__(0, 0.0),
    "8 values": lambda c: c["preparation"]["mean"].pop(),
    "flags of features of the spec, each once": lambda c: c["preparation"]["flags"].append("user_clicks_1h"),
    "missing key 'fill'": lambda c: c["preparation"].pop("fill"),
    "NaN is not a number": lambda c: c["metrics"].update(a=float("nan")),
}


@pytest.mark.parametrize("message", BAD_CONTENT)
def test_content_that_breaks_the_schema_is_refused(saved: tuple[Path, str], message: str) -> None:
    with pytest.raises(ModelRefusedError, match=message):
        bundle.load(saved[0], edit_content(saved[0], BAD_CONTENT[message]))


def test_deeply_nested_json_is_refused(saved: tuple[Path, str]) -> None:
    (saved[0] / "bundle.json").write_text("[" * 200_000)
    with pytest.raises(ModelRefusedError, match="not JSON"):
        bundle.load(saved[0], reseal(saved[0]))


def test_layers_that_do_not_fit_are_refused(saved: tuple[Path, str]) -> None:
    good = {f"{n}.{part}": a for n, pair in enumerate(made_bundle().layers) for part, a in zip(("weight", "bias"), pair, strict=True)}
    for change, message in (
        ({"1.weight": np.zeros((32, 63), np.float32)}, "layer 2"),
        ({"2.bias": np.zeros(2, np.float32)}, "layer 3"),
        ({"0.bias": np.zeros(64, np.float64)}, "float32"),
        ({"0.bias": np.full(64, np.nan, np.float32)}, "finite weights"),
        ({"3.weight": np.zeros((1, 1), np.float32)}, "tensors"),
    ):
        (saved[0] / "weights.safetensors").write_bytes(dump_tensors({**good, **change}))
        with pytest.raises(ModelRefusedError, match=message):
            bundle.load(saved[0], reseal(saved[0]))


def test_an_inconsistent_bundle_is_not_saved(tmp_path: Path) -> None:
    for broken in (
        replace(made_bundle(), layers=layers(INPUTS, 4, 2)),
        replace(made_bundle(), layers=()),
        replace(made_bundle(), default_threshold=float("nan")),
        replace(made_bundle(), slices=SliceSpec((SlicePart("user_clicks_2h", cuts=(1.0,)),))),
        replace(made_bundle(), slices=SliceSpec((SlicePart("user_clicks_1h", cuts=(2.0, 1.0)),))),
        replace(made_bundle(), metrics={"fpr": float("nan")}),
        replace(made_bundle(), metrics={"fpr": object()}),
        replace(made_bundle(), preparation=replace(made_bundle().preparation, human=(0.0,) * (INPUTS - 1))),
        replace(made_bundle(), preparation=replace(made_bundle().preparation, human=(float("inf"),) * INPUTS)),
    ):
        with pytest.raises(InputError):
            bundle.save(broken, tmp_path / "broken")
    assert set(asdict(bundle.preparation_for(SPEC))) == {"names", "fill", "log", "mean", "std", "flags", "human"}
