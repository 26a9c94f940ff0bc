"""A statement as one HTML page and two CSV files that may leave the house: counts and money of one advertiser, classes of invalid
traffic, and nothing that tells how they were found."""

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from slidr import pages
from slidr.statement.sums import Campaign, Correction, Line, Row, Statement

PAGE, TABLE, CORRECTIONS_TABLE = "statement.html", "statement.csv", "corrections.csv"
TEMPLATE = "statement/statement.html.j2"


def write(statement: Statement, folder: Path, *, now: datetime) -> Path:
    """Writes page and tables below `folder`/<month>/<advertiser> and returns the page. `now` is when it was made."""
    target = folder / statement.month / safe_name(statement.advertiser_id)
    target.mkdir(parents=True, exist_ok=True)
    _write_csv(target / TABLE, [_campaign_cells(statement, row) for row in statement.campaigns])
    _write_csv(target / CORRECTIONS_TABLE, [_correction_cells(statement, row) for row in statement.corrections])
    content = {"statement": statement, "invoice": statement.invoice(), "now": now}
    filters: dict[str, Callable[..., str]] = {"money": line_text, "amount": amount, "taken": _taken}
    (target / PAGE).write_text(pages.render(TEMPLATE, filters, content), encoding="utf-8")
    return target / PAGE


def safe_name(advertiser_id: str) -> str:
    """A folder's name for any id: what is plain of it, and a hash that keeps two ids apart."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", advertiser_id).strip("-")[:40]
    return f"{plain or 'advertiser'}-{sha256(advertiser_id.encode('utf-8')).hexdigest()[:12]}"


def amount(micros: int | None) -> str:
    """Units of a currency; `no cost`, never 0, where no click of a line has a known price."""
    return "no cost" if micros is None else pages.amount(micros)


def line_text(line: Line) -> str:
    return amount(line.micros)


def _taken(line: Line) -> str:
    """A line that is subtracted."""
    return amount(line.micros and -line.micros)


def shown(statement: Statement) -> dict[str, list[Mapping[str, Any]]]:
    """The tables for a terminal."""
    tables: dict[str, list[Mapping[str, Any]]] = {}
    if statement.campaigns:
        tables[f"{statement.advertiser_id}, clicks of {statement.month}"] = [_short(row) for row in statement.campaigns]
    if statement.corrections:
        tables["Corrections by original month"] = [_short_correction(row) for row in statement.corrections]
    columns = {"own": "own clicks at close", "earlier": "earlier months", "invoice": "invoice", "later": "later invoices"}
    tables[f"Invoice of {statement.month}"] = [
        {"currency": row["currency"], **{text: pages.amount(row[name]) for name, text in columns.items()}} for row in statement.invoice()
    ]
    return tables


def _short(row: Campaign) -> Row:
    given = {name: f"{line_text(row.lines[name])} ({row.lines[name].clicks:,})" for name in ("gross", "givt", "at_once")}
    delayed = {"SIVT delayed": pages.amount(row.delayed), "net": f"{amount(row.net)} ({row.lines['valid'].clicks:,})"}
    classes = {"gross (clicks)": given["gross"], "GIVT": given["givt"], "SIVT at once": given["at_once"], **delayed}
    undecided = f"{line_text(row.lines['undecided'])} ({row.lines['undecided'].clicks:,})"
    return {"campaign": row.campaign_id, "currency": row.currency, **classes, "undecided": undecided}


def _short_correction(row: Correction) -> Row:
    lines = {"credited": row.credited, "charged again": row.recharged}
    texts = {name: f"{line_text(line)} ({line.clicks:,})" for name, line in lines.items()}
    months = {"original month": row.original_month, "on the invoice of": row.invoice_month}
    return {"campaign": row.campaign_id, "currency": row.currency, **months, **texts}


def _campaign_cells(statement: Statement, row: Campaign) -> Row:
    """One row of statement.csv: clicks, clicks without a price, and micro-units of each line."""
    named: Row = {"advertiser_id": statement.advertiser_id, "campaign_id": row.campaign_id}
    named |= {"local_month": statement.month, "currency": row.currency}
    columns = {"valid": "net", "credited": "sivt_delayed_credited", "recharged": "sivt_delayed_recharged", "at_once": "sivt_at_once"}
    for name, line in row.lines.items():
        named |= _line_cells(columns.get(name, name), line)
    return named


def _correction_cells(statement: Statement, row: Correction) -> Row:
    named: Row = {"advertiser_id": statement.advertiser_id, "campaign_id": row.campaign_id, "currency": row.currency}
    named |= {"original_month": row.original_month, "invoice_month": row.invoice_month}
    return named | _line_cells("credited", row.credited) | _line_cells("recharged", row.recharged)


def _line_cells(name: str, line: Line) -> Row:
    return {f"{name}_clicks": line.clicks, f"{name}_no_cost_clicks": line.no_cost, f"{name}_micros": line.micros}


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]) if rows else ["advertiser_id"])
        table.writeheader()
        table.writerows({name: pages.cell(value) for name, value in row.items()} for row in rows)
