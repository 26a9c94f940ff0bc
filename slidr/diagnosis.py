"""What `slidr doctor` looks at: Java, versions, jars, disk, time zone, folders. Starts no session."""

import importlib.metadata as metadata
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from slidr import jars
from slidr.config import Config

FREE_GIB = 5
# distribution -> version prefix that fits the others, and the extra that brings it
FITTING = {
    "pyspark": ("4.0.", "base"),
    "delta-spark": ("4.4.0", "base"),
    "pyarrow": ("14.0.2", "base"),
    "numpy": ("1.", "base"),
    "pandas": ("2.", "base"),
    "petastorm": ("0.13.1", "train"),
    "torch": ("2.", "train"),
    "cvxpy": ("1.", "train"),
}


@dataclass(frozen=True)
class Finding:
    what: str
    found: str
    fine: bool
    remedy: str


def examine(conf: Config) -> list[Finding]:
    """One finding per thing that slidr needs; training libraries count only if one of them is installed."""
    return [_python(), _java(), *_versions(), _jars(conf.spark.jars), _disk(conf.work.root), _zones(conf)]


def _python() -> Finding:
    found = ".".join(str(part) for part in sys.version_info[:3])
    return Finding("Python", found, (3, 10) <= sys.version_info[:2] <= (3, 12), "make the environment with Python 3.10, 3.11 or 3.12")


def _java() -> Finding:
    remedy = "install a Java 17 runtime (Debian: apt-get install openjdk-17-jre-headless) and let JAVA_HOME or PATH name it"
    try:
        said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    except FileNotFoundError:
        return Finding("Java", "none on PATH", False, remedy)
    match = re.search(r'version "(\d+)', said)
    return Finding("Java", match[1] if match else said.strip()[:60], bool(match) and match[1] == "17", remedy)  # type: ignore[index]


def _versions() -> list[Finding]:
    trains = any(_version(name) for name, (_, extra) in FITTING.items() if extra == "train")
    wanted = {name: fit for name, (fit, extra) in FITTING.items() if extra == "base" or trains}
    return [
        Finding(
            name,
            _version(name) or "not installed",
            (_version(name) or "").startswith(fit),
            f"pip install 'slidr[train]' (needs {name} {fit}*)",
        )
        for name, fit in wanted.items()
    ]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _jars(folder: Path) -> Finding:
    lacking = jars.missing(folder)
    remedy = (
        f"any command fetches them once from Maven Central ({jars.PACKAGE}); without a network copy {', '.join(lacking)} "
        f"to {folder.expanduser()}, or set spark.jars to a folder that holds them"
    )
    return Finding("Delta jars", f"{len(jars.SHA256) - len(lacking)} of {len(jars.SHA256)} in {folder}", not lacking, remedy)


def _disk(root: Path) -> Finding:
    existing = next(path for path in (root.absolute(), *root.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free / 2**30
    return Finding(
        "disk", f"{free:.0f} GiB free below {root}", free >= FREE_GIB, f"free {FREE_GIB} GiB, or set work.root and lake.root elsewhere"
    )


def _zones(conf: Config) -> Finding:
    remedy = "install the time zone data: pip install tzdata"
    lacking = [zone for zone in ["UTC", *conf.marketplaces.values()] if not _has_zone(zone)]
    return Finding(
        "time zones", f"{len(conf.marketplaces)} marketplaces, UTC inside" if not lacking else f"no {lacking}", not lacking, remedy
    )


def _has_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except ZoneInfoNotFoundError:
        return False
    return True
