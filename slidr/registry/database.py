"""MLflow's sqlite database, made once and whole."""

import fcntl
from collections.abc import Callable
from pathlib import Path

from slidr.folders import private

SQLITE = "sqlite:///"


def ensure(uri: str, make: Callable[[str], object]) -> None:
    """Makes a sqlite database that is missing, by `make(uri)`; other databases are their servers' business.

    MLflow makes its tables by some fifty migrations that nothing holds together: two processes that begin at once spoil it for both,
    and one that is killed leaves what no later one can use. So one process at a time makes it, under another name until it is done.
    """
    if not uri.startswith(SQLITE):
        return
    place = Path(uri.removeprefix(SQLITE))
    private(place.parent)
    if place.exists():
        return
    with place.with_name(f"{place.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if place.exists():
            return
        partial = place.with_name(f"{place.name}.partial")
        partial.unlink(missing_ok=True)
        make(f"{SQLITE}{partial}")
        partial.replace(place)
