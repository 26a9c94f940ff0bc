"""The newest numbers as a text file for Prometheus (node exporter's textfile collector), and as flat metrics for MLflow."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import pandas as pd

from slidr.monitoring.signals import LABEL_OUTAGE
from slidr.monitoring.windows import WORST_FIRST

UNITS = {"volume": "clicks", LABEL_OUTAGE: "purchases"}  # all others are ratios


def newest(judged: pd.DataFrame) -> pd.DataFrame:
    """The rows of the last hour, by signal and place."""
    return judged[judged["time"] == judged["time"].max()].sort_values(["signal", "place"]).reset_index(drop=True)


def text(rows: pd.DataFrame, *, verdict: str, version: str | None, end: datetime) -> str:
    """Prometheus' text format. rows: `newest`; numbers that are not known are left out."""
    lines = list(_metric("slidr_monitor_end_timestamp_seconds", "End of the hours that were judged.", [({}, end.timestamp())]))
    states = [({"verdict": name, "model_version": version or ""}, float(name == verdict)) for name in WORST_FIRST]
    lines += _metric("slidr_monitor_verdict", "1 for the verdict that holds.", states)
    for unit, part in rows.groupby(rows["signal"].map(UNITS).fillna("ratio")):
        for column, what in (("value", "as found"), ("usual", "as in the same hours of earlier weeks")):
            samples = [(_labels(row), float(getattr(row, column))) for row in part.itertuples()]
            name = f"slidr_monitor_{'usual_' if column == 'usual' else ''}{unit}"
            lines += _metric(name, f"Signals {what}, over the window of hours that the label names.", samples)
    far = [(_labels(row), float(row.sigmas)) for row in rows.itertuples()]
    lines += _metric("slidr_monitor_deviation_sigmas", "How far a signal is from its usual value.", far)
    return "\n".join(lines) + "\n"


def write(content: str, path: Path) -> None:
    """Readers find the old file or the new one, never half."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(content, encoding="utf-8")
    partial.replace(path)


def flat(rows: pd.DataFrame) -> dict[str, float]:
    """`signal/place/value` (usual, sigmas) -> number, for MLflow; the same numbers."""
    names = {
        f"{row.signal}/{row.place}/{column}": float(getattr(row, column))
        for row in rows.itertuples()
        for column in ("value", "usual", "sigmas")
    }
    return {_plain(name): value for name, value in names.items() if pd.notna(value) and abs(value) != float("inf")}


def _plain(name: str) -> str:
    """What MLflow allows in a name; any other letter as its code in hexadecimal between dots, so that no two names become one."""
    return "".join(letter if letter.isalnum() or letter in "_-/ " else f".{ord(letter):x}." for letter in name)


def _labels(row: object) -> dict[str, str]:
    return {"signal": str(row.signal), "place": str(row.place), "window": f"{int(row.hours)}h"}  # type: ignore[attr-defined]


def _metric(name: str, described: str, samples: Sequence[tuple[Mapping[str, str], float]]) -> Iterator[str]:
    yield f"# HELP {name} {described}"
    yield f"# TYPE {name} gauge"
    for labels, value in samples:
        if pd.notna(value):
            said = ",".join(f'{key}="{_escaped(given)}"' for key, given in labels.items())
            yield f"{name}{'{' + said + '}' if said else ''} {_number(value)}"


def _number(value: float) -> str:
    return {float("inf"): "+Inf", float("-inf"): "-Inf"}.get(value, repr(value))


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
