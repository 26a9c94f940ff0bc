"""The source file: how foreign files map to tables. `conf/sources/canonical.yaml` shows each key in use.

A field of a table comes from exactly one of `from`, `constant`, `template`, `hash_of` and `row_id`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal
from zoneinfo import available_timezones

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from slidr.config import read_yaml, shipped
from slidr.errors import ConfigError
from slidr.features.spec import FeatureSpec
from slidr.tables import CLICKS, DECISIONS, PURCHASES, Column, Table, features_table

KINDS = ("from", "constant", "template", "hash_of", "row_id")
PLACEHOLDER = re.compile(r"\{([^{}]+)\}")
UNITS = {"micros": 1, "cents": 10_000, "major": 1_000_000}
EPOCHS = {"epoch_s": 1_000_000, "epoch_ms": 1_000, "epoch_us": 1}


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class FieldMap(Strict):
    """Where one field comes from.

    from: a column of the file. constant: a fixed value. template: text with {column} in it, NULL where one of them is.
    hash_of: sha256 of the listed columns. row_id: an id made of the row as mapped to that table, and of its ordinal
    among equal rows of the file.
    values: value of the file -> value of the table; contains: the same for the first text that the value contains;
    default: for what neither maps, and for NULL. Without `default`, a value that `values` lacks is a reject.
    format: iso, epoch_s, epoch_ms, epoch_us, or a pattern such as dd/MMM/yyyy:HH:mm:ss Z. zone: of times that carry no
    offset; an hour that occurs twice (autumn) means the first, an hour that is skipped (spring) moves on by an hour.
    unit: of money, major (3.86), cents or micros. optional: a file may lack the column; then NULL, or `default`.
    """

    from_: str | None = Field(None, alias="from")
    constant: str | bool | int | float | None = None
    template: str | None = None
    hash_of: tuple[str, ...] | None = None
    row_id: str | None = None
    values: dict[str, str] | None = None
    contains: dict[str, str] | None = None
    default: str | None = None
    format: str = "iso"
    zone: str = "UTC"
    unit: Literal["micros", "cents", "major"] = "micros"
    optional: bool = False

    @model_validator(mode="before")
    @classmethod
    def exactly_one_kind(cls, raw: Any) -> Any:
        given = [kind for kind in KINDS if isinstance(raw, Mapping) and raw.get(kind) is not None]
        if len(given) != 1:
            raise ValueError(f"expected exactly one of {', '.join(KINDS)}, found {given or 'none'}")
        return raw

    @field_validator("zone")
    @classmethod
    def zone_exists(cls, zone: str) -> str:
        if zone not in available_timezones():
            raise ValueError(f"expected an IANA time zone such as America/New_York, found {zone!r}")
        return zone

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the file that the field reads."""
        if self.from_ is not None:
            return (self.from_,)
        return self.hash_of or tuple(PLACEHOLDER.findall(self.template or ""))


class TableMap(Strict):
    """One table. where: only rows that have this column. order_lines: rows of one order_id are lines of one order, whose
    amounts are summed. session_gap: clicks without a session id get one by inactivity. absent: features that the live
    system did not log; they become NULL."""

    where: str | None = None
    order_lines: bool = False
    session_gap: bool = False
    absent: tuple[str, ...] = ()
    columns: dict[str, FieldMap]


class Options(Strict):
    """How CSV is written. columns: names, where there is no header line. multiline: quoted values may hold line ends."""

    header: bool = True
    columns: tuple[str, ...] = ()
    delimiter: str = ","
    quote: str = '"'
    escape: str = '"'
    multiline: bool = False


class Source(Strict):
    """A source file. `format: auto` goes by the ending of each file: .csv, .jsonl, .ndjson, .json, .parquet, also .gz."""

    name: str
    description: str
    format: Literal["auto", "csv", "jsonl", "parquet", "apache_combined"]
    options: Options = Options()
    tables: dict[str, TableMap]


@dataclass(frozen=True)
class Target:
    """What a source may fill of a table: `fields` can be mapped; `defaulted` ones need not be."""

    table: Table
    fields: tuple[Column, ...]
    defaulted: frozenset[str]
    time: str  # the field that dates the row
    day: str  # its UTC date
    key: str

    @property
    def dated(self) -> bool:
        """Whether the row itself says its day; else its click does."""
        return self.table in (CLICKS, PURCHASES)

    def field(self, name: str) -> Column:
        return next(field for field in self.fields if field.name == name)


TARGETS = ("clicks", "purchases", "decisions", "features")
DERIVED = {"click_date", "local_date", "ip_key", "purchase_date"}
SCORED = {"click_id", "is_invalid", "score", "threshold", "slice", "model_version", "spec_id", "decided_time"}
DECIDED = SCORED | {"reason_class", "reason_1", "reason_2", "reason_3"}


def target(name: str, spec: FeatureSpec) -> Target:
    """The table behind a name in `tables:` and its fields."""
    if name == "clicks":
        return Target(CLICKS, _without(CLICKS, DERIVED), frozenset({"logged_in", "arrival_time"}), "click_time", "click_date", "click_id")
    if name == "purchases":
        defaulted = frozenset({"cancelled", "arrival_time"})
        return Target(PURCHASES, _without(PURCHASES, DERIVED), defaulted, "purchase_time", "purchase_date", "order_id")
    if name == "decisions":
        fields = tuple(c if c.name != "model_version" else Column(c.name, c.type, False, c.comment) for c in DECISIONS.columns)
        decided = tuple(c for c in fields if c.name in DECIDED)
        return Target(DECISIONS, decided, frozenset({"slice"}), "decided_time", "click_date", "click_id")
    table = features_table(spec)
    return Target(table, _without(table, {"click_time", "click_date", "origin"}), frozenset(), "", "click_date", "click_id")


def _without(table: Table, names: set[str]) -> tuple[Column, ...]:
    return tuple(column for column in table.columns if column.name not in names)


def field_maps(name: str, mapping: TableMap, goal: Target) -> dict[str, FieldMap]:
    """Every field that is mapped; a feature that the source does not mention is the column of its own name."""
    if name != "features":
        return dict(mapping.columns)
    own = {field.name: FieldMap.model_validate({"from": field.name}) for field in goal.fields if field.name not in mapping.absent}
    return {**own, **mapping.columns}


def load_source(name_or_path: str) -> Source:
    """A shipped source by name, else a YAML file. Raises ConfigError that lists every problem, or the shipped names."""
    path = Path(name_or_path)
    if re.fullmatch(r"[A-Za-z0-9_-]+", name_or_path):
        path = shipped(f"sources/{name_or_path}.yaml")
        if not path.is_file():
            names = sorted(file.stem for file in shipped("sources").glob("*.yaml"))
            raise ConfigError(f"expected --source to be a YAML file or one of {', '.join(names)}, found {name_or_path!r}")
    content = read_yaml(path)
    try:
        source = Source.model_validate({**content, "name": path.stem})
    except ValidationError as error:
        lines = [f"  {'.'.join(str(part) for part in p['loc'])}: {p['msg']}" for p in error.errors()]
        raise ConfigError(f"{path} is not a valid source:\n" + "\n".join(lines)) from error
    problems = [problem for name in source.tables for problem in _problems(source, name)]
    if problems:
        raise ConfigError(f"{path} is not a valid source:\n  " + "\n  ".join(problems))
    return source


def _problems(source: Source, name: str) -> list[str]:
    mapping = source.tables[name]
    if name not in TARGETS:
        return [f"tables.{name}: expected one of {', '.join(TARGETS)}"]
    if name == "features":  # which fields it has is known only with the configuration's feature spec
        return [] if "click_id" in mapping.columns else ["tables.features: expected the field click_id"]
    goal = target(name, FeatureSpec((), (), False, False))
    known = [field.name for field in goal.fields]
    problems = []
    for field, field_map in mapping.columns.items():
        near = get_close_matches(field, known, n=1)
        if field not in known:
            problems.append(f"tables.{name}: unknown field {field!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        if field_map.row_id and field_map.row_id not in source.tables:
            problems.append(f"tables.{name}.{field}: row_id names {field_map.row_id!r}, which this source does not fill")
    made = goal.defaulted | ({"session_id"} if mapping.session_gap else set())
    lacking = [f.name for f in goal.fields if not f.nullable and f.name not in made and f.name not in mapping.columns]
    if lacking:
        problems.append(f"tables.{name}: the fields {', '.join(lacking)} are required")
    if mapping.order_lines and name != "purchases" or mapping.session_gap and name != "clicks":
        problems.append(f"tables.{name}: order_lines belongs to purchases, session_gap to clicks")
    return problems
