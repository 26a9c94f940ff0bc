"""Foreign files: small ones of clicks, with ingest on them, and where the real ones are."""

import os
from datetime import datetime, timezone
from pathlib import Path

import pytest

from slidr.config import Config
from slidr.ingest import IngestSummary, Source, ingest, load_source
from slidr.lake import Lake

REAL = Path(os.environ.get("SLIDR_DATA", Path(__file__).parents[2] / "shared" / "data"))
NOW = datetime(2026, 5, 1, tzinfo=timezone.utc)
NAMES = [
    "click_id",
    "click_time",
    "user_id",
    "session_id",
    "ip",
    "user_agent",
    "device",
    "marketplace",
    "logged_in",
    "advertiser_id",
    "campaign_id",
    "cost_micros",
    "currency",
    "upstream_filter",
    "arrival_time",
]
GOOD = dict(
    zip(
        NAMES,
        (
            "a",
            "2026-03-01T10:00:00.123456Z",
            "u1",
            "s1",
            "192.0.2.7",
            "Agent, 1",
            "mobile",
            "US",
            "true",
            "adv",
            "camp",
            "250000",
            "USD",
            "",
            "",
        ),
        strict=True,
    )
)


def row(**changes: str) -> dict[str, str]:
    return {**GOOD, **changes}


def write_csv(path: Path, rows: list[dict[str, str]], names: list[str] = NAMES) -> str:
    quoted = [",".join('"' + r.get(n, "").replace('"', '""') + '"' for n in names) for r in rows]
    path.write_text("\n".join([",".join(names), *quoted]) + "\n", encoding="utf-8")
    return str(path)


def lenient(conf: Config, share: float = 1.0) -> Config:
    return conf.model_copy(update={"ingest": conf.ingest.model_copy(update={"max_reject_share": share})})


def run(lake: Lake, source: str | Source, paths: list[str], conf: Config, run_id: str = "run-1", share: float = 1.0) -> IngestSummary:
    loaded = load_source(source) if isinstance(source, str) else source
    return ingest(lake, source=loaded, paths=paths, conf=lenient(conf, share), run_id=run_id, now=NOW)


def real(name: str) -> str:
    """Path of a real file; skips the test where it is absent."""
    path = REAL / name
    if not path.is_file():
        pytest.skip(f"{name} is absent; SLIDR_DATA names the folder of the real files")
    return str(path)
