"""HTML pages of results: everything that goes into one is escaped, and a name that is missing is an error."""

import base64
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

UNKNOWN = "not known"
MICROS = 1_000_000
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would compute; names of advertisers come from outside


def render(template: str, filters: Mapping[str, Callable[..., str]], content: Mapping[str, Any]) -> str:
    """A page of a template that slidr ships (a path below the package), with `percent` and `count` as filters beside `filters`."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": percent, "count": count, **filters}
    text = resources.files("slidr").joinpath(template).read_text(encoding="utf-8")
    return environment.from_string(text).render(**content)


def percent(value: float | None) -> str:
    """A share as text; `not known` where there is nothing to take a share of (None or NaN)."""
    return UNKNOWN if value is None or value != value else f"{value:.2%}"


def count(number: float | None) -> str:
    return UNKNOWN if number is None or number != number else f"{number:,.0f}"


def amount(micros: int) -> str:
    """Micro-units as units with two or, where needed, six decimals; exact."""
    value = Decimal(micros) / MICROS
    return f"{value:,.2f}" if value == round(value, 2) else f"{value:,.6f}"


def cell(value: Any) -> Any:
    """A value for a CSV file that people open: text that a spreadsheet would take for a formula is quoted as it asks for."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def picture(path: Path) -> str:
    """A PNG as text for the page itself, so that one file is the whole report."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def span(row: Mapping[str, Any], name: str) -> str:
    """A share with its interval: `1.20% (0.80–1.70%)`; `not known` where there is nothing to take a share of."""
    if row[name] is None or row[name] != row[name]:
        return UNKNOWN
    return f"{row[name]:.2%} ({row[f'{name}_low'] * 100:.2f}–{row[f'{name}_high'] * 100:.2f}%)"


def plain(value: Any) -> Any:
    """`value` as JSON has it: rows as dictionaries, numpy numbers as Python's, NaN as null."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
