"""The files of a bundle as bytes and plain values: bounded, without links, never parsed before they are hashed.

Everything found wrong here is a ModelRefusedError; what the values mean is `slidr.bundle`'s.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as parse_safetensors
from safetensors.numpy import save as dump_safetensors

from slidr.errors import InputError, ModelRefusedError

Layer = tuple[NDArray[np.float32], NDArray[np.float32]]

WEIGHTS, CONTENT, MANIFEST = "weights.safetensors", "bundle.json", "MANIFEST.json"
MAX_BYTES = {WEIGHTS: 64 << 20, CONTENT: 16 << 20, MANIFEST: 64 << 10}
MAX_HEADER = 1 << 20  # bytes of the safetensors header
PARTS = ("weight", "bias")


def write_files(folder: Path, layers: Iterable[Layer], content: Mapping[str, Any]) -> str:
    """Writes the three files into an empty or new folder, the manifest last; returns the manifest's sha256."""
    tensors = {f"{n}.{part}": np.ascontiguousarray(a) for n, layer in enumerate(layers) for part, a in zip(PARTS, layer, strict=True)}
    files = {WEIGHTS: dump_safetensors(tensors), CONTENT: _canonical(content)}
    files[MANIFEST] = _canonical({name: hashlib.sha256(data).hexdigest() for name, data in files.items()})
    _write_all(folder, files)
    return hashlib.sha256(files[MANIFEST]).hexdigest()


def copy_files(source: Path, target: Path, expected_sha256: str) -> None:
    """Writes the very bytes that were checked into an empty or new folder, the manifest last."""
    _, files = _read_checked(source, expected_sha256)
    _write_all(target, files)


def read_files(folder: Path, expected_sha256: str | None) -> tuple[str, dict[str, Any], tuple[Layer, ...]]:
    """The manifest's sha256, the content of `bundle.json` and the layers, once every hash is right."""
    found, files = _read_checked(folder, expected_sha256)
    return found, _parse_json(files[CONTENT], folder, CONTENT), _parse_layers(files[WEIGHTS], folder)


def require_files(sizes: Mapping[str, int], where: str | Path) -> None:
    """Raises ModelRefusedError unless these are a bundle's three files, none above its bound: looked at before any is fetched."""
    if sorted(sizes) != sorted(MAX_BYTES):
        found = ", ".join(map(repr, sorted(sizes)[:10])) or "none"
        refuse(where, f"expected exactly the files {', '.join(sorted(MAX_BYTES))}, found {found}")
    for name, size in sizes.items():
        if size > MAX_BYTES[name]:
            refuse(where, f"expected a plain file {name} of at most {MAX_BYTES[name]} bytes, found {size}")


def refuse(folder: str | Path, why: str) -> NoReturn:
    raise ModelRefusedError(f"the bundle in {folder} is refused: {why}; fetch the version from the registry again, or use another one")


def _write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"expected an empty folder for the bundle, found files in {folder}; bundles are never overwritten")
    folder.mkdir(parents=True, exist_ok=True)
    for name in (WEIGHTS, CONTENT, MANIFEST):
        (folder / name).write_bytes(files[name])


def _read_checked(folder: Path, expected_sha256: str | None) -> tuple[str, dict[str, bytes]]:
    """The manifest's sha256 and the bytes of the three files, once every hash is right; only the manifest was parsed."""
    files = _read_all(folder)
    found = hashlib.sha256(files[MANIFEST]).hexdigest()
    if expected_sha256 is not None and found != expected_sha256:
        refuse(folder, f"expected a manifest with sha256 {expected_sha256}, found {found}")
    sums = _parse_json(files[MANIFEST], folder, MANIFEST)
    actual = {name: hashlib.sha256(files[name]).hexdigest() for name in (WEIGHTS, CONTENT)}
    if sums != actual:
        wrong = sorted(name for name in {*sums, *actual} if sums.get(name) != actual.get(name))
        refuse(folder, f"expected the bytes that the manifest names, found others: {', '.join(map(repr, wrong[:10]))}")
    return found, files


def _read_all(folder: Path) -> dict[str, bytes]:
    names = [entry.name for entry in os.scandir(folder)] if folder.is_dir() else []
    require_files(dict.fromkeys(names, 0), folder)  # sizes are looked at when they are opened
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
            refuse(folder, f"expected a plain file {name} of at most {MAX_BYTES[name]} bytes, found {status.st_size}")
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
        refuse(folder, f"{name} is not JSON: {error}")
    if not isinstance(content, dict):
        refuse(folder, f"expected an object in {name}, found {type(content).__name__}")
    return content


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


def _parse_layers(data: bytes, folder: str | Path) -> tuple[Layer, ...]:
    header = int.from_bytes(data[:8], "little")
    if len(data) < 8 or header > min(MAX_HEADER, len(data) - 8):
        refuse(folder, f"expected a safetensors header of at most {MAX_HEADER} bytes in {WEIGHTS}, found {header}")
    try:
        tensors = parse_safetensors(data)
    except (SafetensorError, ValueError, KeyError) as error:
        refuse(folder, f"{WEIGHTS} is not a safetensors file: {error}")
    names = {f"{number}.{part}" for number in range(len(tensors) // 2) for part in PARTS}
    if set(tensors) != names:
        refuse(folder, f"expected the tensors {sorted(names)} in {WEIGHTS}, found {sorted(tensors)[:20]}")
    return tuple((tensors[f"{number}.weight"], tensors[f"{number}.bias"]) for number in range(len(tensors) // 2))


def key_problems(found: Mapping[str, Any], types: Mapping[str, type], where: str) -> list[str]:
    problems = [f"{where}: missing key {key!r}" for key in sorted(set(types) - set(found))]
    problems += [f"{where}: unknown key {key!r}" for key in sorted(set(found) - set(types))]
    wrong = [key for key in types if key in found and type(found[key]) is not types[key]]
    return problems + [f"{where}: expected {key} to be {types[key].__name__}, found {type(found[key]).__name__}" for key in wrong]
