"""MODEL VERSION as one immutable artifact, and the forward pass that every score comes from. No pickle, no Spark, no torch.

A bundle folder holds exactly `weights.safetensors`, `bundle.json` (canonical JSON) and `MANIFEST.json` ({file: sha256}).
The hash of the manifest names the version; nothing is parsed before its hash was checked.

Shapes: B clicks, F features, I inputs of the first layer (the features, then flags of missing ones), O outputs of a layer.
Scores are float64, 0 to 1, 6 decimals, higher = more robotic.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slidr.bundle_files import CONTENT, Layer, key_problems, read_files, refuse, write_files
from slidr.errors import ConfigError, InputError
from slidr.features.spec import SECOND, TIME_COLUMNS, FeatureSpec, column_name
from slidr.slice_spec import SliceSpec
from slidr.slice_spec import problems as slice_problems

Array = NDArray[np.float64]

FORMAT = 3
SMALLEST_STD = 1e-6
DECIMALS = 6
BLOCK = 2048  # clicks computed at a time: bounds memory
DICTS = ("thresholds", "labels", "table_versions", "config", "libraries", "metrics")
TYPES: dict[str, type] = {"format": int, "spec": dict, "preparation": dict, "features": list, "slices": list, "default_threshold": float}
PREPARATION_TYPES: dict[str, type] = {"names": str, "fill": float, "log": bool, "mean": float, "std": float, "flags": str, "human": float}


@dataclass(frozen=True)
class Preparation:
    """How raw features become model inputs, feature by feature: fill NULL, log1p where `log`, then (x - mean) / std.

    Further inputs, after those, are 1 where the feature in `flags` is NULL and 0 elsewhere. `human` is the mean over human clicks of the
    filled, log-scaled features and of these further inputs: what a score is explained against.
    """

    names: tuple[str, ...]
    fill: tuple[float, ...]
    log: tuple[bool, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flags: tuple[str, ...]
    human: tuple[float, ...]

    @property
    def inputs(self) -> int:
        """Width of the first layer's input."""
        return len(self.names) + len(self.flags)


@dataclass(frozen=True, eq=False)
class Bundle:
    """One model version. Layers are (weight (O, inputs), bias (O,)), float32; dictionaries hold plain JSON values.

    `thresholds` maps a slice to its threshold: a click is invalid if and only if score > threshold. `sha256` is the hash
    of the saved manifest, '' before saving.
    """

    spec: FeatureSpec
    features: tuple[str, ...]
    preparation: Preparation
    layers: tuple[Layer, ...]
    slices: SliceSpec
    thresholds: dict[str, float]
    default_threshold: float
    labels: dict[str, Any]
    table_versions: dict[str, Any]
    config: dict[str, Any]
    libraries: dict[str, str]
    metrics: dict[str, Any]
    sha256: str = ""


def preparation_for(spec: FeatureSpec) -> Preparation:
    """Fill values and log flags of a spec's features; mean 0 and std 1 until training measures them, and the filled features as `human`.

    A missing count is 0 clicks; a missing `since_prev` is the longest window in seconds, since nothing was seen within it.
    Flags: the first count of each entity, NULL where its key is (its other counts are NULL with it), and each `since_prev`.
    """
    names = tuple(column.name for column in spec.columns)
    counts = {
        counter.entity: column_name(counter.entity, counter.measure, counter.windows[0])
        for counter in reversed(spec.counters)
        if counter.measure != "since_prev"
    }
    flags = {*counts.values(), *(name for name in names if name.endswith("_since_prev"))}
    longest = spec.longest_window / SECOND
    fill = tuple(longest if name.endswith("_since_prev") else 0.0 for name in names)
    log = tuple(name not in (*TIME_COLUMNS, "logged_in") for name in names)
    return Preparation(
        names=names,
        fill=fill,
        log=log,
        mean=(0.0,) * len(names),
        std=(1.0,) * len(names),
        flags=tuple(name for name in names if name in flags),
        human=(*[math.log1p(value) if scaled else value for value, scaled in zip(fill, log, strict=True)], *[0.0 for _ in flags]),
    )


def prepare(bundle: Bundle, x_BF: Array) -> Array:
    """Model inputs (B, I) of raw features (B, F), NaN for NULL. Raises InputError where a feature is infinite or below -1."""
    prep = bundle.preparation
    x_BF = np.ascontiguousarray(x_BF, dtype=np.float64)
    if x_BF.ndim != 2 or x_BF.shape[1] != len(prep.names):
        raise InputError(
            f"expected features of shape (clicks, {len(prep.names)}), found {x_BF.shape}; read the columns of the bundle's spec"
        )
    log_F, missing_BF = np.array(prep.log), np.isnan(x_BF)
    x_BF = np.where(missing_BF, np.array(prep.fill), x_BF)
    with np.errstate(all="ignore"):  # what is not finite is reported below
        x_BF = np.where(log_F, np.log1p(np.where(log_F, x_BF, 0.0)), x_BF)
        x_BF = (x_BF - np.array(prep.mean)) / np.array(prep.std)
    broken = [name for name, fine in zip(prep.names, np.isfinite(x_BF).all(axis=0), strict=True) if not fine]
    if broken:
        raise InputError(f"expected finite features, found infinite or negative values in {', '.join(broken)}; build the features again")
    flagged = [prep.names.index(name) for name in prep.flags]
    return np.concatenate([x_BF, missing_BF[:, flagged]], axis=1)


def forward(bundle: Bundle, x_BF: Array) -> Array:
    """Scores (B,) of raw features (B, F), NaN for NULL. A click's score does not depend on the clicks beside it."""
    x_BF = np.asarray(x_BF, dtype=np.float64)
    blocks = [layer_sums(bundle, prepare(bundle, x_BF[start : start + BLOCK]))[-1][0] for start in range(0, len(x_BF), BLOCK)]
    return np.round(sigmoid(np.concatenate(blocks)), DECIMALS) if blocks else np.empty(0)


def layer_sums(bundle: Bundle, x_BI: Array) -> list[Array]:
    """Of each layer the sums (O, B) before its ReLU, for model inputs (B, I); the last one, (1, B), is the logit."""
    h_FB, sums = np.ascontiguousarray(x_BI.T), []
    for number, (weight, bias) in enumerate(bundle.layers, start=1):
        with np.errstate(all="ignore"):
            z_OB = linear(weight.astype(np.float64), bias.astype(np.float64), h_FB)
        if not np.isfinite(z_OB).all():
            raise InputError(f"expected finite values after layer {number}, found infinite ones: features or weights are far out of range")
        sums.append(z_OB)
        h_FB = np.maximum(z_OB, 0.0)
    return sums


def linear(weight_OF: Array, bias_O: Array, h_FB: Array) -> Array:
    """weight @ h + bias, (O, B), the same to the last digit on every machine and in any batch."""
    # Products are added one input at a time: BLAS orders its sums by shape and machine, and that would show in the last digits.
    out_OB = np.repeat(bias_O[:, None], h_FB.shape[1], axis=1)
    product_OB = np.empty_like(out_OB)
    for weight_O, h_B in zip(weight_OF.T, h_FB, strict=True):
        np.multiply(weight_O[:, None], h_B, out=product_OB)
        out_OB += product_OB
    return out_OB


def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)) without overflow."""
    small = np.exp(-np.abs(z))
    found: Array = np.where(z >= 0, 1.0, small) / (1.0 + small)
    return found


def save(bundle: Bundle, folder: str | Path) -> str:
    """Writes the bundle into an empty or new folder, the manifest last, and returns the manifest's sha256.

    Raises InputError where the folder is not empty or the bundle's parts do not fit together.
    """
    problems = _problems(bundle)
    if problems:
        raise InputError("the bundle is not consistent: " + "; ".join(problems))
    return write_files(Path(folder), bundle.layers, _to_json(bundle))


def load(folder: str | Path, expected_sha256: str | None) -> Bundle:
    """The bundle in a folder, after its bytes proved to be those that `expected_sha256` (hash of the manifest) names.

    None accepts any manifest, for a folder that the caller trusts otherwise. Raises ModelRefusedError for anything
    else than the three expected regular files, wrong hashes, oversized files or headers, and content that does not fit.
    """
    found, content, layers = read_files(Path(folder), expected_sha256)
    bundle = _from_json(content, layers, folder)
    problems = _problems(bundle)
    if problems:
        refuse(folder, "; ".join(problems))
    return replace(bundle, sha256=found)


def _to_json(bundle: Bundle) -> dict[str, Any]:
    plain = {name: getattr(bundle, name) for name in (*DICTS, "features")}
    plain["slices"] = bundle.slices.to_list()
    plain["thresholds"] = {name: float(threshold) for name, threshold in bundle.thresholds.items()}
    plain["default_threshold"] = float(bundle.default_threshold)
    return {"format": FORMAT, "spec": bundle.spec.to_dict(), "preparation": asdict(bundle.preparation), **plain}


def _from_json(content: Mapping[str, Any], layers: tuple[Layer, ...], folder: str | Path) -> Bundle:
    problems = key_problems(content, {**TYPES, **dict.fromkeys(DICTS, dict)}, CONTENT)
    if not problems and content["format"] != FORMAT:
        refuse(folder, f"expected bundle format {FORMAT}, found {content['format']}")
    problems = problems or key_problems(content["preparation"], dict.fromkeys(PREPARATION_TYPES, list), f"preparation in {CONTENT}")
    problems = problems or _item_problems(content)
    if problems:
        refuse(folder, "; ".join(problems))
    try:
        spec = FeatureSpec.from_dict(content["spec"])
        slices = SliceSpec.from_list(content["slices"], spec)
    except (ConfigError, TypeError, ValueError, KeyError, AttributeError) as error:
        refuse(folder, str(error))
    if not slices.is_written_as(content["slices"]):
        refuse(folder, f"expected slices as {slices.to_list()}, found {content['slices']}")
    return Bundle(
        spec=spec,
        features=tuple(content["features"]),
        preparation=Preparation(**{name: tuple(values) for name, values in content["preparation"].items()}),
        layers=layers,
        slices=slices,
        default_threshold=content["default_threshold"],
        **{name: content[name] for name in DICTS},
    )


def _problems(bundle: Bundle) -> list[str]:
    """What does not fit together in a bundle, all at once."""
    prep, names = bundle.preparation, tuple(column.name for column in bundle.spec.columns)
    problems = [] if bundle.features == names == prep.names else ["features, preparation and spec name different columns"]
    if {len(values) for name, values in asdict(prep).items() if name not in ("flags", "human")} != {len(names)}:
        problems.append(f"expected {len(names)} values in each part of the preparation")
    if not set(prep.flags) <= set(names) or len(set(prep.flags)) < len(prep.flags):
        problems.append(f"expected flags of features of the spec, each once, found {list(prep.flags)}")
    if len(prep.human) != prep.inputs:
        problems.append(f"expected {prep.inputs} values in human, found {len(prep.human)}")
    if not all(math.isfinite(v) for v in (*prep.fill, *prep.mean, *prep.std, *prep.human)) or min(prep.std, default=1.0) < SMALLEST_STD:
        problems.append(f"expected finite fill, mean, std and human, and std >= {SMALLEST_STD}")
    outside = {name: t for name, t in {**bundle.thresholds, "(default)": bundle.default_threshold}.items() if not 0 <= t <= 1}
    if outside:
        problems.append(f"expected thresholds from 0 to 1, found {outside}")
    return problems + slice_problems(bundle.slices.to_list(), bundle.spec) + _layer_problems(bundle.layers, prep.inputs)


def _layer_problems(layers: tuple[Layer, ...], inputs: int) -> list[str]:
    problems = [] if layers and layers[-1][0].shape[:1] == (1,) else ["expected a last layer with one output"]
    for number, (weight, bias) in enumerate(layers, start=1):
        if weight.dtype != np.float32 or bias.dtype != np.float32:
            problems.append(f"layer {number}: expected float32, found {weight.dtype} and {bias.dtype}")
        if weight.ndim != 2 or weight.shape[1:] != (inputs,) or bias.shape != weight.shape[:1]:
            problems.append(f"layer {number}: expected weight (O, {inputs}) and bias (O,), found {weight.shape} and {bias.shape}")
        elif not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            problems.append(f"layer {number}: expected finite weights")
        inputs = len(bias) if bias.ndim == 1 else -1
    return problems


def _item_problems(content: Mapping[str, Any]) -> list[str]:
    items: list[tuple[str, list[Any], type]] = [(name, content["preparation"][name], kind) for name, kind in PREPARATION_TYPES.items()]
    items += [("features", content["features"], str), ("slices", content["slices"], dict)]
    items += [("thresholds", list(content["thresholds"].values()), float), ("libraries", list(content["libraries"].values()), str)]
    return [
        f"{CONTENT}: expected only {kind.__name__} in {name}" for name, values, kind in items if any(type(v) is not kind for v in values)
    ]
