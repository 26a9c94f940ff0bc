"""The files that slidr is made of: in a folder, or in the archive that spark-submit has shipped, from which Python imports too."""

import tempfile
from collections.abc import Iterator
from functools import cache
from importlib import resources
from importlib.abc import Traversable
from pathlib import Path

PACKAGES = ("conf", "jobs")  # in the sources beside the package, in a wheel inside of it


def sources() -> list[tuple[str, bytes]]:
    """Name and content of every module, sorted, the same for a folder and an archive of it."""
    own = [(name, file) for name, file in _files(resources.files("slidr")) if name.split("/")[0] not in PACKAGES]
    beside = [(f"{part}/{name}", file) for part in PACKAGES for name, file in _files(resources.files(f"slidr.{part}"))]
    return sorted((name, file.read_bytes()) for name, file in [*own, *beside] if name.endswith(".py"))


def folder(package: str) -> Path:
    """Where the files of a package lie on the disk; those of an archive are unpacked for as long as this process lives."""
    found = resources.files(package)
    return found if isinstance(found, Path) else Path(_unpacked(package).name)


@cache
def _unpacked(package: str) -> tempfile.TemporaryDirectory[str]:
    place = tempfile.TemporaryDirectory(prefix=f"{package}-")
    for name, file in _files(resources.files(package)):
        path = Path(place.name, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.read_bytes())
    return place


def _files(found: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    for file in found.iterdir():
        if file.is_dir():
            yield from _files(file, f"{prefix}{file.name}/")
        else:
            yield f"{prefix}{file.name}", file
