"""A small lake of decisions and corrections, made by hand and without Spark: what the ready queries are asked about.

R1 and R2 replay days through version 2; BACK takes R1 back; OPEN was begun and published nothing. Prices are in micro-units; c04, c12 and
c14 have none.
"""

from datetime import datetime, timedelta
from typing import Any

from slidr import direct
from slidr.direct import Place
from slidr.replay import audit, stack
from slidr.tables import (
    CLICKS,
    CORRECTIONS,
    CURRENT_DECISIONS,
    DECISIONS,
    LABELS,
    REPLAY_DECISIONS,
    REPLAYS,
    SHADOW_DECISIONS,
    SLICE_METRICS,
    Table,
)
from tests.frames import at, click
from tests.oracles_replay import Verdict

TENTH, ELEVENTH, LATE = at("2026-03-10 12:00:00"), at("2026-03-11 12:00:00"), at("2026-03-31 23:30:00")
DECIDED = at("2026-04-02 01:00:00.123456")
R1_TIME, R2_TIME, BACK_TIME = at("2026-04-03"), at("2026-04-04"), at("2026-04-05")
R1, R2, BACK, OPEN = "replay-one", "replay-two", "revert-one", "replay-open"
US = {"advertiser_id": "adv-1"}
DE = {"advertiser_id": "adv-2", "marketplace": "DE", "currency": "EUR", "device": "phone", "ip_key": "2001:db8::/64"}
CLICKED: dict[str, dict[str, Any]] = {
    row["click_id"]: row
    for row in (
        click("c01", TENTH, cost_micros=100, **US),
        click("c02", TENTH + timedelta(minutes=1), cost_micros=200, user_id="u1", **US),
        click("c03", TENTH + timedelta(minutes=2), cost_micros=300, upstream_filter="data centre", **US),
        click("c04", TENTH + timedelta(minutes=3), cost_micros=None, **US),
        click("c05", TENTH + timedelta(minutes=4), cost_micros=500, **US),
        click("c06", ELEVENTH, cost_micros=700, **US),
        click("c07", TENTH + timedelta(minutes=5), cost_micros=1_100, **DE),
        click("c08", TENTH + timedelta(minutes=6), cost_micros=1_300, **DE),
        click("c09", TENTH + timedelta(minutes=7), cost_micros=1_700, **DE),
        click("c10", LATE, cost_micros=1_900, **{**DE, "local_date": at("2026-04-01").date()}),
        click("c11", ELEVENTH + timedelta(minutes=1), cost_micros=2_300, **DE),
        click("c12", ELEVENTH + timedelta(minutes=2), cost_micros=None, **US),
        click("c13", ELEVENTH + timedelta(minutes=3), cost_micros=2_900, **DE),
        click("c14", ELEVENTH + timedelta(minutes=4), cost_micros=None, advertiser_id="adv-3", ip_key=None),
    )
}
INVALID_AT_ONCE = ("c02", "c04", "c06", "c10")
UNDECIDED = ("c08", "c09", "c11")
# publication -> replay, mode, time, what becomes of which click (None: undecided again)
PUBLISHED: dict[int, tuple[str, str, datetime, dict[str, bool | None]]] = {
    1: (R1, "rescore", R1_TIME, {"c05": True, "c07": True, "c09": True}),
    2: (R2, "rescore", R2_TIME, {"c06": False, "c11": True, "c12": True, "c13": True}),
    3: (BACK, "revert", BACK_TIME, {"c05": False, "c07": False, "c09": None}),
}
REPLAYED = {
    R1: {"c02": True, "c05": True, "c07": True, "c09": True},
    R2: {"c06": False, "c11": True, "c12": True, "c13": True},
    OPEN: {"c01": True},
}
# What version 3 would have decided beside version 1.
SHADOWED = {"c01": True, "c02": False, "c05": False}


def _given(table: Table, *sources: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A row of the table from what the sources name; NULL for the rest."""
    known = {name: value for source in (*sources, more) for name, value in source.items()}
    return {name: known.get(name) for name in table.names}


def first(click_id: str) -> dict[str, Any]:
    row = CLICKED[click_id]
    upstream, invalid = row["upstream_filter"] is not None, click_id in INVALID_AT_ONCE
    said: dict[str, Any] = {"score": None if upstream else 0.9 if invalid else 0.125, "threshold": None if upstream else 0.5}
    said |= {"is_invalid": upstream or invalid, "ivt_class": "givt" if upstream else "sivt" if invalid else None}
    said |= {"basis": "upstream" if upstream else "model", "reason_1": "address" if invalid else None}
    slices = {"slice": f"{row['device']}/guest", "report_slice": f"{row['device']}/guest/{row['marketplace']}"}
    return _given(DECISIONS, row, said, slices, model_version="1", spec_id="spec", run_id="run", decided_time=DECIDED)


def published() -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Corrections, and the published state after all of them."""
    firsts = {name: first(name) for name in CLICKED if name not in UNDECIDED}
    state = {
        name: {**row, "first_is_invalid": row["is_invalid"], "first_model_version": "1", "replay_id": None, "corrected_time": None}
        for name, row in firsts.items()
    }
    rows = []
    for number, (replay, mode, time, changes) in PUBLISHED.items():
        for ordinal, (name, invalid) in enumerate(changes.items(), 1):
            old = state.pop(name, None)
            rows.append(_correction(number, ordinal, replay, mode, time, CLICKED[name], old, invalid))
            if invalid is not None:
                state[name] = _state(firsts.get(name), name, invalid, replay, mode, time)
    return rows, state


def _state(told: dict[str, Any] | None, name: str, invalid: bool, replay: str, mode: str, time: datetime) -> dict[str, Any]:
    back = mode == "revert"  # to the first decision
    version = {"model_version": "1" if back else "2", "replay_id": None if back else replay, "corrected_time": None if back else time}
    firsts = {"first_is_invalid": told["is_invalid"] if told else None, "first_model_version": "1" if told else None}
    said = {"is_invalid": invalid, "ivt_class": "sivt" if invalid else None}
    return {**first(name), **version, **firsts, **said}


def _correction(
    number: int, ordinal: int, replay: str, mode: str, time: datetime, row: dict[str, Any], old: dict[str, Any] | None, invalid: bool | None
) -> dict[str, Any]:
    sign = -1 if invalid else 1
    return _given(
        CORRECTIONS,
        row,
        publication_no=number,
        ordinal=ordinal,
        replay_id=replay,
        billing_month=row["local_date"].isoformat()[:7],
        direction="invalidate" if invalid else "reinstate",
        delta_cost_micros=None if row["cost_micros"] is None else sign * row["cost_micros"],
        old_is_invalid=old["is_invalid"] if old else None,
        new_is_invalid=bool(invalid),
        new_model_version=None if invalid is None else "1" if mode == "revert" else "2",
        new_score=None if invalid is None else 0.75 if invalid else 0.125,
        new_threshold=None if invalid is None else 0.5,
        reason_class="reverted" if mode == "revert" else "invalid_traffic" if invalid else "restored",
        mode=mode,
        reverts_replay_id=R1 if mode == "revert" else None,
        published_time=time,
        correction_date=time.date(),
    )


def _replayed(replay: str, name: str, invalid: bool) -> dict[str, Any]:
    reasons = {"reason_class": "rate", "reason_1": "ip: 412 clicks in 1 h"} if invalid else {}
    return replayed(replay, CLICKED[name], Verdict(invalid, stack.FULL, name not in UNDECIDED)) | reasons


def replayed(replay: str, clicked: dict[str, Any], verdict: Verdict) -> dict[str, Any]:
    score = 0.75 if verdict.invalid else 0.125
    said = {"slice": "s", "score": score, "threshold": 0.5, "is_invalid": verdict.invalid, "decided": True, "basis": "model"}
    ways = {"authority": verdict.authority, "after_first": verdict.after_first, "model_version": "2", "spec_id": "spec", "mode": "rescore"}
    return _given(REPLAY_DECISIONS, clicked, said, ways, replay_id=replay)


def _event(replay: str, event: str, time: datetime) -> dict[str, Any]:
    text = dict.fromkeys(REPLAYS.names, "-")
    window = {"window_from": TENTH, "window_to": at("2026-03-12"), "event_time": time, "event_date": time.date()}
    return {**text, **window, "replay_id": replay, "event": event}


def applied(replay: str, time: datetime, before: list[stack.Applied], reverts: str | None = None) -> dict[str, Any]:
    """The event of a replay or revert that was published after those `before`."""
    done = [*before, stack.Applied(replay, reverts)]
    taken = {"clicks_of": stack.root(replay, done), "in_effect": stack.in_effect(done)} if reverts else {}
    said = {"mode": "revert" if reverts else "rescore", "plan": audit.canonical(taken)}
    return _event(replay, "applied", time) | said | {"details": audit.canonical({"order": len(done), "reverts": reverts})}


def _label(name: str, bought: bool) -> dict[str, Any]:
    said = {"is_human": bought, "is_purchase": bought, "label_reason": "purchase" if bought else "none", "in_heavy_session": False}
    return _given(LABELS, CLICKED[name], said, label_time=at("2026-03-13"))


def metrics() -> list[dict[str, Any]]:
    """Two versions and two currencies in one slice and hour, matured; another hour that has not matured."""
    key = {"click_date": TENTH.date(), "hour": 12, "report_slice": "desktop/guest/US", "view": "published"}
    counts = {"purchasing": 4, "purchasing_invalid": 1, "high_rfm": 2, "high_rfm_invalid": 1, "heavy": 0, "heavy_invalid": 0}
    known = {**key, **counts, "cost_micros": 1_000, "invalid_cost_micros": 100}
    return [
        _given(SLICE_METRICS, known, model_version="1", currency="USD", clicks=10, invalid=2),
        _given(SLICE_METRICS, known, model_version="2", currency="EUR", clicks=20, invalid=7),
        _given(SLICE_METRICS, known, model_version="1", currency="USD", clicks=30, invalid=3, view="first"),
        _given(SLICE_METRICS, key, hour=13, model_version="1", currency="USD", clicks=5, invalid=0, cost_micros=1, invalid_cost_micros=0),
    ]


def _shadowed(click_id: str, invalid: bool) -> dict[str, Any]:
    said = {"model_version": "3", "slice": "s", "score": 0.75 if invalid else 0.125, "threshold": 0.5, "is_invalid": invalid}
    return _given(SHADOW_DECISIONS, CLICKED[click_id], said, basis="model", spec_id="spec", run_id="run", decided_time=R1_TIME)


def fill(place: Place) -> None:
    corrections, state = published()
    events = [_event(OPEN, "apply", R2_TIME)]
    events += [_event(name, "plan", time) for name, time in ((R1, R1_TIME), (R2, R2_TIME))]
    done = [stack.Applied(R1), stack.Applied(R2)]
    events += [applied(R1, R1_TIME, []), applied(R2, R2_TIME, done[:1]), applied(BACK, BACK_TIME, done, R1)]
    direct.add(place, CLICKS, list(CLICKED.values()))
    direct.add(place, DECISIONS, [first(name) for name in CLICKED if name not in UNDECIDED])
    direct.add(place, CURRENT_DECISIONS, list(state.values()))
    direct.add(place, CORRECTIONS, corrections)
    direct.add(place, REPLAY_DECISIONS, [_replayed(replay, *said) for replay, all_ in REPLAYED.items() for said in all_.items()])
    direct.add(place, SHADOW_DECISIONS, [_shadowed(*said) for said in SHADOWED.items()])
    direct.add(place, REPLAYS, events)
    direct.add(place, LABELS, [_label(name, name in ("c02", "c08")) for name in ("c01", "c02", "c05", "c07", "c08")])
    direct.add(place, SLICE_METRICS, metrics())
