"""How traffic is cut into slices, as data. A SliceSpec travels inside each model version; no Spark is imported here.

The name of a slice is one word per part, coarse to fine, joined by `/`: the parent of `a/b/c` is `a/b`. Words are made so that two
slices never share a name and no word holds a `/`. No parts make one slice, `all`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

from slidr.errors import ConfigError
from slidr.features.spec import FeatureSpec

# What every click has, and what is one of a list: an address or a user is neither.
CLICK_COLUMNS = ("device", "logged_in", "marketplace", "advertiser_id", "campaign_id")
KEYS = ("column", "names", "cuts")
ALL, NONE, SEPARATOR = "all", "(none)", "/"
LARGEST = 1e15  # of a cut: above it names and doubles would lose digits
ESCAPES = (("%", "%25"), (SEPARATOR, "%2F"))  # in this order; besides, a leading `(` is `%28`, so that no value reads as (none) or (all)


@dataclass(frozen=True)
class SlicePart:
    """One column's share in the name: a column of clicks by its values, or a feature by its bands.

    `names` are (value, word) pairs; any other value is its own word, escaped, so a word that is also a value joins the two. `cuts`
    are ascending, and each belongs to the band above it.
    """

    column: str
    names: tuple[tuple[str, str], ...] = ()
    cuts: tuple[float, ...] = ()

    @property
    def bands(self) -> tuple[str, ...]:
        """The words of a feature with cuts, lowest first: `x<1`, `x[1,10)`, `x>=10`; one more than cuts."""
        text = [repr(cut).removesuffix(".0") for cut in self.cuts]
        return (f"{self.column}<{text[0]}", *(f"{self.column}[{low},{high})" for low, high in pairwise(text)), f"{self.column}>={text[-1]}")

    @property
    def unknown(self) -> str:
        """The word of NULL."""
        return f"{self.column}=none" if self.cuts else NONE


@dataclass(frozen=True)
class SliceSpec:
    """The parts of a slice's name, coarse to fine."""

    parts: tuple[SlicePart, ...]

    @classmethod
    def from_list(cls, raw: Sequence[Any], spec: FeatureSpec) -> "SliceSpec":
        """Validated slices from YAML or JSON: mappings of `column` and, where wanted, `names` or `cuts`.

        Raises ConfigError that lists every problem at once, also features that `spec` lacks.
        """
        found = problems(raw, spec)
        if found:
            raise ConfigError("the slices are not valid:\n  " + "\n  ".join(found))
        return cls(tuple(_part(item) for item in raw))

    def to_list(self) -> list[dict[str, Any]]:
        """Plain values: column, names and cuts of each part."""
        return [{"column": part.column, "names": dict(part.names), "cuts": list(part.cuts)} for part in self.parts]

    @property
    def features(self) -> tuple[str, ...]:
        """The features that a name depends on."""
        return tuple(part.column for part in self.parts if part.cuts)

    def is_written_as(self, raw: Sequence[Any]) -> bool:
        """Whether `raw` is what `to_list` gives, to the type of each number."""
        return json.dumps(self.to_list(), sort_keys=True) == json.dumps(raw, sort_keys=True)


def _part(raw: Mapping[str, Any]) -> SlicePart:
    names = tuple(sorted((raw.get("names") or {}).items()))
    return SlicePart(raw["column"], names, tuple(float(cut) + 0.0 for cut in raw.get("cuts") or ()))  # + 0.0: -0.0 is 0.0


LOGIN = (("false", "guest"), ("true", "login"))
REPORT = SliceSpec((SlicePart("device"), SlicePart("logged_in", LOGIN), SlicePart("marketplace")))  # the same for all versions


def problems(raw: Sequence[Any], spec: FeatureSpec) -> list[str]:
    """What is wrong with slices over features of `spec`; empty if nothing is."""
    found = [f"slices[{place}]: {problem}" for place, item in enumerate(raw) for problem in _problems(item, spec)]
    columns = [item["column"] for item in raw if isinstance(item, Mapping) and isinstance(item.get("column"), str)]
    return found + [
        f"expected each column once, found {name!r} {columns.count(name)} times; merge its parts"
        for name in sorted(set(columns))
        if columns.count(name) > 1
    ]


def _problems(item: Any, spec: FeatureSpec) -> list[str]:
    if not isinstance(item, Mapping) or not isinstance(item.get("column"), str):
        return [f"expected a mapping with a column, found {item!r}; write {{column: device}}"]
    unknown = [f"expected only {', '.join(KEYS)}, found {key!r}; remove it" for key in item if key not in KEYS]
    names, cuts = item.get("names") or {}, item.get("cuts") or []
    if names and cuts:
        return [*unknown, f"expected names or cuts of {item['column']}, found both; names are of values, bands have their own"]
    if not isinstance(names, Mapping) or not isinstance(cuts, list):
        return [*unknown, f"expected names as a mapping and cuts as a list, found {names!r} and {cuts!r}; write value: name, or [1, 10]"]
    return unknown + (_cut_problems(item["column"], cuts, spec) if cuts else _value_problems(item["column"], names, spec))


def _cut_problems(column: str, cuts: list[Any], spec: FeatureSpec) -> list[str]:
    known = _features(spec)
    found = []
    if column in CLICK_COLUMNS:
        found.append(f"expected no cuts of {column}, found {cuts}; its values are not numbers: remove them")
    elif column not in known:
        near = ", ".join(get_close_matches(column, known, n=3)) or "none similar"
        found.append(f"expected cuts of a feature of the spec, found {column!r}; nearest: {near}; add the feature, or cut another one")
    numbers = all(isinstance(cut, int | float) and not isinstance(cut, bool) and abs(cut) < LARGEST for cut in cuts)
    if not numbers or any(low >= high for low, high in pairwise(cuts)):
        found.append(f"expected ascending numbers below {LARGEST:g} as cuts of {column}, found {cuts}; sort them, each once")
    return found


def _value_problems(column: str, names: Mapping[Any, Any], spec: FeatureSpec) -> list[str]:
    if column not in CLICK_COLUMNS:
        do = "give it cuts" if column in _features(spec) else "features of the spec take cuts"
        return [f"expected one of {', '.join(CLICK_COLUMNS)} as a column without cuts, found {column!r}; {do}"]
    found = []
    if any(not isinstance(text, str) for pair in names.items() for text in pair):
        found.append(f"expected text as values and names of {column}, found {dict(names)}; put them into quotes")
    elif column == "logged_in" and not set(names) <= {"true", "false"}:
        found.append(f"expected names of the values true and false of logged_in, found {sorted(names)}; use these")
    else:
        odd = [word for word in names.values() if not word or word.startswith("(") or any(sign in word for sign, _ in ESCAPES)]
        found += [f"expected names without / and % that do not start with a bracket, found {odd} for {column}; rename them"] if odd else []
    return found


def _features(spec: FeatureSpec) -> list[str]:
    return [column.name for column in spec.columns if column.name not in CLICK_COLUMNS]
