"""The statement's numbers: the month's lines by campaign and currency, and the corrections by original month and invoice.

Every line holds `clicks`, `no_cost` (those of them whose price is not known) and `micros`, integer micro-units of its currency: 0 where
it has no clicks, None where no click of it has a known price. docs/statements.md says what the lines mean.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from slidr import query
from slidr.config import Config
from slidr.direct import Place
from slidr.errors import ConfigError, ConflictError, NothingToDoError
from slidr.lake import Lake
from slidr.statement.sql import BOOKED, LINES, OPEN, UNTIL
from slidr.tables import CLICKS, CORRECTIONS, CURRENT_DECISIONS, DECISIONS, REPLAYS

TABLES = {table.name: table for table in (CLICKS, CORRECTIONS, CURRENT_DECISIONS, DECISIONS, REPLAYS)}
NAMES = ("gross", "givt", "at_once", "credited", "recharged", "valid", "undecided")
ASTRAY = "astray"
Row = dict[str, Any]


@dataclass(frozen=True)
class Line:
    clicks: int = 0
    no_cost: int = 0
    micros: int | None = 0


@dataclass(frozen=True)
class Campaign:
    """The lines NAMES of one campaign and currency; `credited` is negative or 0, the others are not."""

    campaign_id: str
    currency: str
    lines: Mapping[str, Line]

    @property
    def delayed(self) -> int:
        """Change of the month's charges by all corrections."""
        return _known(self.lines["credited"]) + _known(self.lines["recharged"])

    @property
    def before_corrections(self) -> int:
        return _known(self.lines["gross"]) - _known(self.lines["givt"]) - _known(self.lines["at_once"])

    @property
    def net(self) -> int | None:
        """What remains charged; None where clicks remain and the price of none is known."""
        return None if self.lines["valid"].micros is None else self.before_corrections + self.delayed


@dataclass(frozen=True)
class Correction:
    """The corrections of one campaign and currency for clicks of `original_month` that belong to the invoice of `invoice_month`."""

    campaign_id: str
    currency: str
    original_month: str
    invoice_month: str
    credited: Line
    recharged: Line

    @property
    def delayed(self) -> int:
        return _known(self.credited) + _known(self.recharged)

    @property
    def sum(self) -> int | None:
        """None where the price of no click is known."""
        lines = [line for line in (self.credited, self.recharged) if line.clicks]
        return self.delayed if any(line.micros is not None for line in lines) else None


@dataclass(frozen=True)
class Statement:
    """`publication_no` and `decided_time` say up to where it counts; 0 and None where there is none."""

    advertiser_id: str
    month: str
    campaigns: list[Campaign]
    corrections: list[Correction]
    publication_no: int
    decided_time: datetime | None

    @property
    def undecided(self) -> int:
        """Clicks of the month that no line but their own holds."""
        return sum(row.lines["undecided"].clicks for row in self.campaigns)

    def invoice(self) -> list[Row]:
        """Per currency what the month's invoice holds, in micro-units: its own clicks as known at its close, and corrections of
        earlier months; beside it what later invoices hold for this month."""
        currencies = sorted({row.currency for row in self.campaigns} | {row.currency for row in self.corrections})
        return [self._invoice(currency) for currency in currencies]

    def _invoice(self, currency: str) -> Row:
        moved = [row for row in self.corrections if row.currency == currency]
        own = sum(row.before_corrections for row in self.campaigns if row.currency == currency)
        at_close = own + sum(row.delayed for row in moved if row.original_month == row.invoice_month)
        earlier = sum(row.delayed for row in moved if row.original_month < self.month)
        later = sum(row.delayed for row in moved if row.invoice_month > self.month)
        return {"currency": currency, "own": at_close, "earlier": earlier, "invoice": at_close + earlier, "later": later}


def read(place: Lake | Place, *, advertiser: str, month: date, conf: Config) -> Statement:
    """The statement of an advertiser; `month` is its first day.

    Raises NothingToDoError where there is nothing to state, ConflictError while what it reads is being published or does not agree.
    """
    first, following = month, date(month.year + month.month // 12, month.month % 12 + 1, 1)
    window = {"first": first, "following": following}
    whose = {"advertiser": advertiser, "month": f"{month:%Y-%m}"}
    _refuse_open(place, window)
    campaigns = _campaigns(query.run(place, TABLES, LINES, {**whose, **window}).to_pylist())
    corrections = _corrections(place, whose, conf)
    until = query.run(place, TABLES, UNTIL, {"advertiser": advertiser, **window}).to_pylist()[0]
    if not campaigns and not corrections:
        raise NothingToDoError(
            f"expected clicks or corrections of advertiser {advertiser!r} in {whose['month']}, found none; "
            "check both, and that the month's clicks were ingested and decided"
        )
    found = Statement(advertiser, whose["month"], campaigns, corrections, until["publication_no"], until["decided_time"])
    _refuse_disagreement(found)
    return found


def _refuse_open(place: Lake | Place, window: Mapping[str, date]) -> None:
    """A replay publishes its corrections first and the published state then; in between the two do not agree."""
    found = [row["replay_id"] for row in query.run(place, TABLES, OPEN, window).to_pylist()]
    if found:
        raise ConflictError(
            f"expected no replay of this month to be half published, found {', '.join(found)}; complete it with "
            f"`slidr replay resume {found[0]}`, then state again"
        )


def _campaigns(rows: list[Row]) -> list[Campaign]:
    lines: dict[tuple[str, str], dict[str, Line]] = {}
    for row in rows:
        lines.setdefault((row["campaign_id"], row["currency"]), {})[row["line"]] = Line(row["clicks"], row["no_cost"], row["micros"])
    astray = sum(found[ASTRAY].clicks for found in lines.values() if ASTRAY in found)
    if astray:
        raise ConflictError(
            f"expected decisions, corrections and published state to agree, found {astray} clicks where they do not; if a command is "
            "publishing now, wait for it; else run `slidr score` of their days again, and do not send statements while this is said"
        )
    return [Campaign(*key, {name: found.get(name, Line()) for name in NAMES}) for key, found in sorted(lines.items())]


def _corrections(place: Lake | Place, whose: Mapping[str, str], conf: Config) -> list[Correction]:
    markets = sorted(conf.marketplaces)
    zones = {"markets": markets, "zones": [conf.marketplaces[name] for name in markets], "close_day": conf.replay.close_day}
    lines: dict[tuple[str, str, str, str], dict[str, Line]] = {}
    for row in query.run(place, TABLES, BOOKED, {**whose, **zones}).to_pylist():
        if row["invoice_month"] is None:
            raise ConfigError(f"expected a time zone for the marketplace of every correction, found zones for {', '.join(markets)} only")
        key = (row["campaign_id"], row["currency"], row["original_month"], row["invoice_month"])
        lines.setdefault(key, {})[row["line"]] = Line(row["clicks"], row["no_cost"], row["micros"])
    empty = Line()
    return [Correction(*key, found.get("credited", empty), found.get("recharged", empty)) for key, found in sorted(lines.items())]


def _refuse_disagreement(found: Statement) -> None:
    """The net of each campaign is the price of its valid clicks, and both views hold the same corrections, to the micro-unit."""
    wrong = [row for row in found.campaigns if row.before_corrections + row.delayed != _known(row.lines["valid"])]
    own = sum(row.delayed for row in found.corrections if row.original_month == found.month)
    if wrong or own != sum(row.delayed for row in found.campaigns):
        raise ConflictError(
            f"expected the statement of {found.month} to equal the published state, found a difference in {len(wrong) or 'no'} campaigns; "
            "something was published meanwhile: state again, and do not send this while it is said twice"
        )


def _known(line: Line) -> int:
    return line.micros or 0
