"""What a backtest keeps on disk, so that it goes on after a kill: which commits it reads, and the days that are done. No Spark here.

Below `work.root`/backtests: `run-<id>/` for a comparison (run.json, report), and `variant-<id>/` for each set of settings, whatever it is
called (lake, registry, work, progress.json). An id is a hash of everything that the result depends on.
"""

import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slidr.errors import LockedError

RUN, PROGRESS, LOCK = "run.json", "progress.json", "lock"


def digest(content: Mapping[str, Any]) -> str:
    """12 hex digits of the content's sha256."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Run:
    """One comparison: its folder, what was asked for, and the commit of each table that it reads."""

    folder: Path
    asked: Mapping[str, Any]
    pins: Mapping[str, int]

    def write(self, *, finished: bool) -> None:
        write(self.folder / RUN, {"asked": self.asked, "pins": self.pins, "finished": finished})


def begin(root: Path, asked: Mapping[str, Any], newest: Mapping[str, int]) -> Run:
    """The run to go on with: an unfinished one of the same question keeps the commits that it began with; a new one takes the newest.

    A finished one is taken again only where the tables have not changed since: its folder is then the same.
    """
    wanted = json.loads(json.dumps(asked, default=str))
    for path in sorted(root.glob(f"run-*/{RUN}")):
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["asked"] == wanted and not kept["finished"]:
            return Run(path.parent, wanted, kept["pins"])
    run = Run(root / f"run-{digest({'asked': wanted, 'pins': newest})}", wanted, dict(newest))
    run.write(finished=False)
    return run


@dataclass
class Progress:
    """The days of one variant that are done, by day as text; each holds plain values: version, decided, outcome, failed, seconds."""

    folder: Path
    days: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, day: str, record: Mapping[str, Any]) -> None:
        """A day is done once this returns: the file is replaced whole."""
        self.days[day] = dict(record)
        write(self.folder / PROGRESS, self.days)


def progress(root: Path, identity: Mapping[str, Any]) -> Progress:
    """What is done of the variant with this identity; nothing where it is new."""
    folder = root / f"variant-{digest(identity)}"
    path = folder / PROGRESS
    return Progress(folder, json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {})


def write(path: Path, content: Any) -> None:
    """JSON in one step: a reader finds the old or the new file, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
    partial.replace(path)


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Holds the folder's lock while the block runs; it ends with the process, however that ends. Raises LockedError."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockedError(f"expected no other backtest in {root}, found one running; wait for it, or set another work.root") from error
        yield
