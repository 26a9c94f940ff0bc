"""MODEL VERSION as one immutable artifact, and the forward pass that every score comes from. No pickle, no Spark, no torch.

A bundle folder holds exactly `weights.safetensors`, `bundle.json` (canonical JSON) and `MANIFEST.json` ({file: sha256}).
The hash of the manifest names the version; nothing is parsed before its hash was checked.

Shapes: B clicks, F features, O outputs of a layer. Scores are float64, 0 to 1, 6 decimals, higher = more robotic.
"""

import hashlib
import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as parse_tensors
from safetensors.numpy import save as dump_tensors

from slidr.errors import ConfigError, InputError, ModelRefusedError
from slidr.features.spec import SECOND, TIME_COLUMNS, FeatureSpec

Array = NDArray[np.float64]
Layer = tuple[NDArray[np.float32], NDArray[np.float32]]

WEIGHTS, CONTENT, MANIFEST = "weights.safetensors", "bundle.json", "MANIFEST.json"
MAX_BYTES = {WEIGHTS: 64 << 20, CONTENT: 16 << 20, MANIFEST: 64 << 10}
MAX_HEADER = 1 << 20  # bytes of the safetensors header
FORMAT = 1
SMALLEST_STD = 1e-6
DECIMALS = 6
PARTS = ("weight", "bias")
DICTS = ("thresholds", "labels", "table_versions", "config", "libraries", "metrics")
TYPES: dict[str, type] = {"format": int, "spec": dict, "preparation": dict, "features": list, "slices": list, "default_threshold": float}
PREPARATION_ITEMS: dict[str, type] = {"names": str, "fill": float, "log": bool, "mean": float, "std": float}
PREPARATION_TYPES: dict[str, type] = dict.fromkeys(PREPARATION_ITEMS, list)
BLOCK = 1024  # clicks computed at a time: bounds memory, keeps a layer's values in cache


@dataclass(frozen=True)
class Preparation:
    """How raw features become model inputs, feature by feature: fill NULL, log1p where `log`, then (x - mean) / std."""

    names: tuple[str, ...]
    fill: tuple[float, ...]
    log: tuple[bool, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


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
    slices: tuple[str, ...]
    thresholds: dict[str, float]
    default_threshold: float
    labels: dict[str, Any]
    table_versions: dict[str, Any]
    config: dict[str, Any]
    libraries: dict[str, str]
    metrics: dict[str, Any]
    sha256: str = ""


def preparation_for(spec: FeatureSpec) -> Preparation:
    """Fill values and log flags of a spec's features; mean 0 and std 1 until training measures them.

    A missing count is 0 clicks; a missing `since_prev` is the longest window in seconds, since nothing was seen within it.
    """
    names = tuple(column.name for column in spec.columns)
    longest = spec.longest_window / SECOND
    return Preparation(
        names=names,
        fill=tuple(longest if name.endswith("_since_prev") else 0.0 for name in names),
        log=tuple(name not in (*TIME_COLUMNS, "logged_in") for name in names),
        mean=(0.0,) * len(names),
        std=(1.0,) * len(names),
    )


def prepare(bundle: Bundle, x_BF: Array) -> Array:
    """Model inputs (B, F) of raw features (B, F), NaN for NULL. Raises InputError where a feature is infinite or below -1."""
    prep = bundle.preparation
    x_BF = np.ascontiguousarray(x_BF, dtype=np.float64)
    if x_BF.ndim != 2 or x_BF.shape[1] != len(prep.names):
        raise InputError(
            f"expected features of shape (clicks, {len(prep.names)}), found {x_BF.shape}; read the columns of the bundle's spec"
        )
    log_F = np.array(prep.log)
    x_BF = np.where(np.isnan(x_BF), np.array(prep.fill), x_BF)
    with np.errstate(all="ignore"):  # what is not finite is reported below
        x_BF = np.where(log_F, np.log1p(np.where(log_F, x_BF, 0.0)), x_BF)
        x_BF = (x_BF - np.array(prep.mean)) / np.array(prep.std)
    broken = [name for name, fine in zip(prep.names, np.isfinite(x_BF).all(axis=0), strict=True) if not fine]
    if broken:
        raise InputError(f"expected finite features, found infinite or negative values in {', '.join(broken)}; build the features again")
    return x_BF


def forward(bundle: Bundle, x_BF: Array) -> Array:
    """Scores (B,) of raw features (B, F), NaN for NULL. A click's score does not depend on the clicks beside it."""
    x_BF = np.asarray(x_BF, dtype=np.float64)
    blocks = [_block(bundle, prepare(bundle, x_BF[start : start + BLOCK])) for start in range(0, len(x_BF), BLOCK)]
    return np.concatenate(blocks) if blocks else np.empty(0)


def _block(bundle: Bundle, x_BF: Array) -> Array:
    h_FB = np.ascontiguousarray(x_BF.T)
    for number, (weight, bias) in enumerate(bundle.layers, start=1):
        with np.errstate(all="ignore"):
            h_FB = _linear(weight.astype(np.float64), bias.astype(np.float64), h_FB)
        if not np.isfinite(h_FB).all():
            raise InputError(f"expected finite values after layer {number}, found infinite ones: features or weights are far out of range")
        if number < len(bundle.layers):
            h_FB = np.maximum(h_FB, 0.0)
    return np.round(sigmoid(h_FB[0]), DECIMALS)


def _linear(weight_OF: Array, bias_O: Array, h_FB: Array) -> Array:
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
    return np.where(z >= 0, 1.0, small) / (1.0 + small)


def save(bundle: Bundle, folder: str | Path) -> str:
    """Writes the bundle into an empty or new folder, the manifest last, and returns the manifest's sha256.

    Raises InputError where the folder is not empty or the bundle's parts do not fit together.
    """
    problems = _problems(bundle)
    if problems:
        raise InputError("the bundle is not consistent: " + "; ".join(problems))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise InputError(f"expected an empty folder for the bundle, found files in {folder}; bundles are never overwritten")
    tensors = {
        f"{n}.{part}": np.ascontiguousarray(a) for n, layer in enumerate(bundle.layers) for part, a in zip(PARTS, layer, strict=True)
    }
    files = {WEIGHTS: dump_tensors(tensors), CONTENT: _canonical(_to_json(bundle))}
    files[MANIFEST] = _canonical({name: hashlib.sha256(data).hexdigest() for name, data in files.items()})
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return hashlib.sha256(files[MANIFEST]).hexdigest()


def load(folder: str | Path, expected_sha256: str | None) -> Bundle:
    """The bundle in a folder, after its bytes proved to be those that `expected_sha256` (hash of the manifest) names.

    None accepts any manifest, for a folder that the caller trusts otherwise. Raises ModelRefusedError for anything
    else than the three expected regular files, wrong hashes, oversized files or headers, and content that does not fit.
    """
    files = _read_files(Path(folder))
    found = hashlib.sha256(files[MANIFEST]).hexdigest()
    if expected_sha256 is not None and found != expected_sha256:
        _refuse(folder, f"expected a manifest with sha256 {expected_sha256}, found {found}")
    sums = _parse_json(files[MANIFEST], folder, MANIFEST)
    actual = {name: hashlib.sha256(files[name]).hexdigest() for name in (WEIGHTS, CONTENT)}
    if sums != actual:
        wrong = sorted(name for name in {*sums, *actual} if sums.get(name) != actual.get(name))
        _refuse(folder, f"expected the sha256 of the manifest, found other bytes or names: {', '.join(map(repr, wrong))}")
    bundle = _from_json(_parse_json(files[CONTENT], folder, CONTENT), _parse_layers(files[WEIGHTS], folder), folder)
    problems = _problems(bundle)
    if problems:
        _refuse(folder, "; ".join(problems))
    return replace(bundle, sha256=found)


def _refuse(folder: str | Path, why: str) -> NoReturn:
    raise ModelRefusedError(f"the bundle in {folder} is refused: {why}; fetch the version from the registry again, or use another one")


def _read_files(folder: Path) -> dict[str, bytes]:
    names = sorted(entry.name for entry in os.scandir(folder)) if folder.is_dir() else []
    if names != sorted(MAX_BYTES):
        _refuse(folder, f"expected exactly the files {', '.join(sorted(MAX_BYTES))}, found {', '.join(map(repr, names[:10])) or 'none'}")
    return {name: _read_file(folder, name) for name in names}


def _read_file(folder: Path, name: str) -> bytes:
    # Read once, then hash and parse these bytes: the file can't change in between. O_NONBLOCK: a pipe must not hang the open.
    try:
        handle = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ModelRefusedError(f"the bundle in {folder} is refused: expected a readable plain file {name}: {error.strerror}") from error
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES[name]:
            _refuse(folder, f"expected a plain file {name} of at most {MAX_BYTES[name]} bytes, found {status.st_size}")
        return file.read(MAX_BYTES[name])


def _canonical(content: Any) -> bytes:
    try:
        return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise InputError(f"expected plain JSON values without NaN in the bundle: {error}") from error


def _parse_json(data: bytes, folder: str | Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        _refuse(folder, f"{name} is not JSON: {error}")
    if not isinstance(content, dict):
        _refuse(folder, f"expected an object in {name}, found {type(content).__name__}")
    return content


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


def _parse_layers(data: bytes, folder: str | Path) -> tuple[Layer, ...]:
    header = int.from_bytes(data[:8], "little")
    if len(data) < 8 or header > min(MAX_HEADER, len(data) - 8):
        _refuse(folder, f"expected a safetensors header of at most {MAX_HEADER} bytes in {WEIGHTS}, found {header}")
    try:
        tensors = parse_tensors(data)
    except (SafetensorError, ValueError, KeyError) as error:
        _refuse(folder, f"{WEIGHTS} is not a safetensors file: {error}")
    names = {f"{number}.{part}" for number in range(len(tensors) // 2) for part in PARTS}
    if set(tensors) != names:
        _refuse(folder, f"expected the tensors {sorted(names)} in {WEIGHTS}, found {sorted(tensors)[:20]}")
    return tuple((tensors[f"{number}.weight"], tensors[f"{number}.bias"]) for number in range(len(tensors) // 2))


def _to_json(bundle: Bundle) -> dict[str, Any]:
    plain = {name: getattr(bundle, name) for name in (*DICTS, "default_threshold", "features", "slices")}
    return {"format": FORMAT, "spec": bundle.spec.to_dict(), "preparation": asdict(bundle.preparation), **plain}


def _from_json(content: Mapping[str, Any], layers: tuple[Layer, ...], folder: str | Path) -> Bundle:
    problems = _key_problems(content, {**TYPES, **dict.fromkeys(DICTS, dict)}, CONTENT)
    problems = problems or _key_problems(content["preparation"], PREPARATION_TYPES, f"preparation in {CONTENT}")
    problems = problems or _item_problems(content)
    if problems:
        _refuse(folder, "; ".join(problems))
    if content["format"] != FORMAT:
        _refuse(folder, f"expected bundle format {FORMAT}, found {content['format']}")
    try:
        spec = FeatureSpec.from_dict(content["spec"])
    except (ConfigError, TypeError, ValueError, KeyError, AttributeError) as error:
        _refuse(folder, str(error))
    return Bundle(
        spec=spec,
        features=tuple(content["features"]),
        preparation=Preparation(**{name: tuple(values) for name, values in content["preparation"].items()}),
        layers=layers,
        slices=tuple(content["slices"]),
        default_threshold=content["default_threshold"],
        **{name: content[name] for name in DICTS},
    )


def _key_problems(found: Mapping[str, Any], types: Mapping[str, type], where: str) -> list[str]:
    problems = [f"{where}: missing key {key!r}" for key in sorted(set(types) - set(found))]
    problems += [f"{where}: unknown key {key!r}" for key in sorted(set(found) - set(types))]
    wrong = [key for key in types if key in found and type(found[key]) is not types[key]]
    return problems + [f"{where}: expected {key} to be {types[key].__name__}, found {type(found[key]).__name__}" for key in wrong]


def _item_problems(content: Mapping[str, Any]) -> list[str]:
    lists = {"features": (content["features"], str), "slices": (content["slices"], str)}
    lists |= {name: (content["preparation"][name], kind) for name, kind in PREPARATION_ITEMS.items()}
    lists |= {"thresholds": (list(content["thresholds"].values()), float), "libraries": (list(content["libraries"].values()), str)}
    return [
        f"{CONTENT}: expected only {kind.__name__} in {name}"
        for name, (items, kind) in lists.items()
        if any(type(i) is not kind for i in items)
    ]


def _problems(bundle: Bundle) -> list[str]:
    """What does not fit together in a bundle, all at once."""
    prep, names = bundle.preparation, tuple(column.name for column in bundle.spec.columns)
    problems = [] if bundle.features == names == prep.names else ["features, preparation and spec name different columns"]
    if {len(values) for values in asdict(prep).values()} != {len(names)}:
        problems.append(f"expected {len(names)} values in each part of the preparation")
    if not all(math.isfinite(v) for v in (*prep.fill, *prep.mean, *prep.std)) or min(prep.std, default=1.0) < SMALLEST_STD:
        problems.append(f"expected finite fill, mean and std, and std >= {SMALLEST_STD}")
    outside = {name: t for name, t in {**bundle.thresholds, "(default)": bundle.default_threshold}.items() if not 0 <= t <= 1}
    if outside:
        problems.append(f"expected thresholds from 0 to 1, found {outside}")
    return problems + _layer_problems(bundle.layers, len(names))


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
