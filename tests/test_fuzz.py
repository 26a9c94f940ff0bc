"""Parsers under fire: whatever a file says, it is read or refused with one of the house's own errors, never with another.

200 cases each by default, 20,000 each with `-m slow`; of configurations, which take longest, a quarter.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slidr import bundle as bundles
from slidr import config
from slidr.bundle_files import CONTENT, MANIFEST, WEIGHTS
from slidr.config import Config
from slidr.errors import ConfigError, InputError, ModelRefusedError, UsageError
from slidr.ingest import load_source
from slidr.ingest.parse import check_source, wanted_columns
from slidr.lake import Lake
from slidr.replay import audit
from slidr.replay.audit import canonical, id_of
from slidr.replay.request import command_of, request_of
from slidr.tables import CLICKS
from tests.bundles import crowd
from tests.foreign import run
from tests.frames import at

FEW, MANY = 200, 20_000
SPOKEN = [
    "from",
    "constant",
    "template",
    "hash_of",
    "row_id",
    "values",
    "{",
    "{}",
    "{ip}",
    "click_id",
    "..",
    "iso",
    "\0",
    "\ud800",
    "1e999",
]
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from(SPOKEN)
KEYS = st.text(max_size=4) | st.sampled_from(SPOKEN)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=5)
every = pytest.mark.parametrize("cases", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])


def fuzzed(cases: int, strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    limits = settings(max_examples=cases, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    seen = []
    limits(given(strategy)(lambda drawn: (seen.append(1), check(drawn))[1]))()
    assert len(seen) >= cases


@st.composite
def changed(draw: st.DrawFn, trees: list[Any]) -> Any:
    """One of the trees with one to three places taken out, replaced or filled."""
    tree = json.loads(json.dumps(draw(st.sampled_from(trees)), default=str))
    for _ in range(draw(st.integers(1, 3))):
        place = tree
        while isinstance(place, dict | list) and place:
            key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            inner = place[key]
            if not isinstance(inner, dict | list) or not inner or draw(st.integers(0, 3)) == 0:
                break
            place = inner
        else:
            continue
        how = draw(st.sampled_from(["out", "replaced", "filled"]))
        if how == "out":
            del place[key]
        elif how == "replaced" or isinstance(place, list):
            place[key] = draw(VALUES)
        else:
            place[draw(KEYS)] = draw(VALUES)
    return tree


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes with a few of them overwritten, taken out or doubled."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, max(len(data) - 1, 0)) | st.integers(0, 64))
        length = draw(st.integers(0, 8) | st.integers(0, len(data)))
        data = data[:start] + draw(st.binary(max_size=12) | st.just(data[start : start + length] * 2)) + data[start + length :]
    return data


@every
def test_sources(cases: int, conf: Config, tmp_path: Path) -> None:
    shipped = [path.read_bytes() for path in sorted(config.shipped("sources").glob("*.yaml"))]
    path = tmp_path / "source.yaml"

    def check(content: bytes) -> None:
        path.write_bytes(content)
        try:
            source = load_source(str(path))
            check_source(source, conf)
            wanted_columns(source, conf)
        except ConfigError:
            return

    trees = changed([yaml.safe_load(text) for text in shipped]).map(lambda tree: yaml.safe_dump(tree).encode("utf-8", "surrogatepass"))
    bytes_of_one = st.sampled_from(shipped).flatmap(damaged)
    fuzzed(cases, trees | bytes_of_one | st.binary(max_size=60) | st.text(max_size=60).map(str.encode), check)


@every
def test_configurations(cases: int, tmp_path: Path) -> None:
    shipped = config.shipped("local.yaml")
    path = tmp_path / "conf.yaml"

    def check(content: bytes) -> None:
        path.write_bytes(content)
        try:
            assert config.load(path).config_hash
        except ConfigError:
            return

    tree = changed([yaml.safe_load(shipped.read_text())]).map(
        lambda tree: yaml.dump(tree, Dumper=yaml.SafeDumper).encode("utf-8", "surrogatepass")
    )
    fuzzed(cases // 4, tree | damaged(shipped.read_bytes()), check)


@every
def test_bundles(cases: int, conf: Config, tmp_path: Path) -> None:
    """With a manifest that names the damaged bytes, so that all of the parsing is reached."""
    folder = tmp_path / "bundle"
    bundles.save(crowd(conf), folder)
    whole = {name: (folder / name).read_bytes() for name in (WEIGHTS, CONTENT)}
    content = json.loads(whole[CONTENT])

    def check(drawn: tuple[str, bytes]) -> None:
        files = {**whole, drawn[0]: drawn[1]}
        files.setdefault(MANIFEST, canonical({name: hashlib.sha256(files[name]).hexdigest() for name in whole}).encode())
        for name, data in files.items():
            (folder / name).write_bytes(data)
        try:
            loaded = bundles.load(folder, None)
            bundles.forward(loaded, np.zeros((1, len(loaded.features))))
        except (ModelRefusedError, InputError):
            return

    header = st.tuples(
        st.integers(0, 2**64 - 1), st.binary(max_size=80) | changed([{"0.bias": {"dtype": "F32", "shape": [1]}}]).map(spelled)
    )
    weights = damaged(whole[WEIGHTS]) | header.map(lambda parts: parts[0].to_bytes(8, "little") + parts[1])
    honest = st.binary(max_size=80).map(lambda text: len(text).to_bytes(8, "little") + text)
    trees = changed([content]).map(spelled)
    drawn = st.one_of(
        st.tuples(st.just(WEIGHTS), weights | honest),
        st.tuples(st.just(CONTENT), trees | damaged(whole[CONTENT])),
        st.tuples(st.just(MANIFEST), st.binary(max_size=80) | st.text(max_size=80).map(str.encode)),
    )
    fuzzed(cases, drawn, check)


def spelled(tree: Any) -> bytes:
    return json.dumps(tree).encode()


@every
def test_plans(cases: int) -> None:
    """A row of the audit log that something else than slidr has written, with the right hash and without."""
    filters = {"decided_by": None, "advertisers": ["a"], "slices": [], "marketplaces": []}
    window = [at("2026-03-01").isoformat(), at("2026-03-02").isoformat()]
    pins = {"window": window, "filters": filters, "mode": "rescore", "allow_charges": False, "version": "2"}
    pins |= {"approval_above_micros": 5}
    details = {
        **dict.fromkeys(audit.DETAILS),
        "chunks": [{"start": window[0], "end": window[1], "clicks": 3}],
    }
    whole = {"plan": pins, "counts": {"clicks": 3}, "money": {"directions": [{"currency": "USD", "micros": -5}]}, "details": details}
    base = {
        "event": "plan",
        "event_time": at("2026-03-03"),
        "actor": "ann",
        "reason": None,
        "ticket": None,
        "run_id": "r",
        "mode": "rescore",
    }
    base |= {"window_from": at("2026-03-01"), "window_to": at("2026-03-02"), "model_version": "2"}
    plan_id = id_of(canonical(pins))
    texts = {name: canonical(value) for name, value in whole.items()}

    def check(drawn: tuple[str, str, str]) -> None:
        row = {**base, **texts, "replay_id": plan_id, drawn[0]: drawn[1], "event": drawn[2]}
        try:
            log = audit._log([row], plan_id)
            if log.plan:
                assert log.plan.pins == pins
                command_of(log.plan)
                request_of(log.plan)
                assert isinstance(log.plan.money["directions"], list)
        except (InputError, UsageError):
            return

    names = st.sampled_from(sorted(whole))
    text = (
        st.text(max_size=40)
        | VALUES.map(lambda value: json.dumps(value))
        | names.flatmap(lambda name: changed([whole[name]]).map(json.dumps))
    )
    fuzzed(cases, st.tuples(names, text, st.sampled_from(["plan", "plan", "applied"])), check)


HOSTS = st.from_regex(r"[0-9a-z.:]{1,20}", fullmatch=True)
AGENTS = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FFF, exclude_categories=["Zl", "Zp", "Zs", "Cs", "Cc"], exclude_characters='"\\'),
    min_size=2,
    max_size=30,
)
PATHS = st.from_regex(r"/[a-z/%.?&=+-]{0,30}", fullmatch=True)
NOISE = st.binary(max_size=60).map(lambda data: data.replace(b"\n", b"").replace(b"\r", b""))
HOSTILE = [
    b'"' * 100_000,
    b"\\" * 100_000,
    b'a b c [x] "' + b'\\"' * 50_000,
    b"a b c [" + b"x" * 100_000,
    b"\0" * 1000,
    b'- - - [] "" 200 - "" ""',
]


def line_of(host: str, agent: str, path: str, minute: int) -> bytes:
    return f'{host} - - [01/Mar/2026:10:{minute:02d}:00 +0000] "GET {path} HTTP/1.1" 200 12 "-" "{agent}"'.encode()


@every
def test_access_logs(cases: int, lake: Lake, conf: Config, tmp_path: Path) -> None:
    """All lines in one file: each is a click or a reject, and what a whole line says is what its click says."""
    lines, whole = list(HOSTILE), []

    def collect(drawn: tuple[str, str, str, int, bytes | None]) -> None:
        line = line_of(*drawn[:4])
        if drawn[4] is None:
            whole.append((drawn[0], drawn[1]))
        else:
            cut = drawn[3] * len(line) // 60
            line = line[:cut] + drawn[4] + line[cut + len(drawn[4]) // 2 :]
        lines.append(line)

    fuzzed(cases, st.tuples(HOSTS, AGENTS, PATHS, st.integers(0, 59), st.none() | NOISE), collect)
    path = tmp_path / "access.log"
    path.write_bytes(b"\n".join(lines) + b"\n")
    total = run(lake, "apache_access", [str(path)], conf).total("clicks")
    assert total.rows_in == sum(1 for line in lines if line.strip(b" "))
    found = [(row["ip"], row["user_agent"]) for row in lake.read(CLICKS).select("ip", "user_agent").collect()]
    assert total.written == len(found)
    assert not Counter(whole) - Counter(found)
