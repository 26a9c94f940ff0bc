"""Queries that slidr ships, one `.sql` file each, in SQL that DuckDB and Spark answer alike.

A file begins with comment lines: what the query answers, then a line for each parameter, `-- $name: meaning [default value]`.
For Spark, which writes its parameters `:name`, replace each `$` by `:`; no query has a `$` elsewhere.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources

from slidr.errors import UsageError

NAMES = (
    "statement",
    "why_click",
    "replay_changes",
    "model_against_model",
    "as_known_at",
    "slice_rates",
    "top_addresses",
    "unusual_advertisers",
    "false_positive_suspects",
    "decision_rate",
)
PARAMETER = re.compile(r"\$(?P<name>\w+): (?P<meaning>.+?)(?: \[default (?P<default>.+)\])?$")


@dataclass(frozen=True)
class Parameter:
    """`default` is None where a value must be given."""

    name: str
    meaning: str
    default: str | None


@dataclass(frozen=True)
class Ready:
    name: str
    answers: str
    parameters: tuple[Parameter, ...]
    sql: str

    def values(self, given: Mapping[str, str]) -> dict[str, str]:
        """The given values beside the defaults. Raises UsageError for one that is missing or that the query does not have."""
        defaults = {p.name: p.default for p in self.parameters if p.default is not None}
        values = {**defaults, **given}
        wanted = {p.name for p in self.parameters}
        if set(values) == wanted:
            return values
        missing, unknown = sorted(wanted - set(values)), sorted(set(values) - wanted)
        raise UsageError(
            f"query {self.name}: expected the parameters {', '.join(sorted(wanted))}, found "
            + " and ".join([f"no {name}" for name in missing] + [f"an unknown {name}" for name in unknown])
            + "; give each as --param NAME=VALUE"
        )


def load(name: str) -> Ready:
    """A query by its name. Raises UsageError that lists the known names."""
    if name not in NAMES:
        near = get_close_matches(name, NAMES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"expected one of the queries {', '.join(NAMES)}, found {name!r}{hint}")
    text = resources.files(__name__).joinpath(f"{name}.sql").read_text(encoding="utf-8")
    lines = text.splitlines()
    head = [line.removeprefix("--").strip() for line in lines if line.startswith("--")]
    found = [PARAMETER.match(line) for line in head]
    told = " ".join(line for line, parameter in zip(head, found, strict=True) if parameter is None)
    parameters = tuple(Parameter(p["name"], p["meaning"], p["default"]) for p in found if p)
    return Ready(name, told, parameters, "\n".join(line for line in lines if not line.startswith("--")))


def every() -> list[Ready]:
    return [load(name) for name in NAMES]
