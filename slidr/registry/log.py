"""The table `model_promotions`: every change of a version's state, numbered from 1 without gaps.

A change is decided on the events that were read, and is appended right behind them or not at all: of two changes decided on the same
events one wins.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from slidr import ledger
from slidr.direct import Place
from slidr.lake import Lake
from slidr.ledger import Rows
from slidr.tables import MODEL_PROMOTIONS


@dataclass(frozen=True)
class Log:
    """All events in order; a few per version. `append` adds rows right behind them and says whether it could."""

    events: list[dict[str, Any]]
    append: Callable[[Rows], bool]

    @property
    def last(self) -> int:
        """Number of the newest event; 0 where there is none."""
        return int(self.events[-1]["event_no"]) if self.events else 0


def create(lake: Lake | Place) -> None:
    ledger.create(lake, MODEL_PROMOTIONS)


def read(lake: Lake | Place) -> Log:
    if not ledger.exists(lake, MODEL_PROMOTIONS):
        return Log([], _nowhere)
    found = ledger.read(lake, MODEL_PROMOTIONS)
    return Log(sorted(found.rows, key=lambda event: event["event_no"]), found.append)


def _nowhere(_rows: Rows) -> bool:
    raise AssertionError("a version changes its state only once it is registered, and registering makes the table")
