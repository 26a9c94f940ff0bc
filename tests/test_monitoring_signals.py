"""What made hours say: faults of a model, of the purchase feed and of the traffic are told apart; nothing later is looked at."""

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from slidr import monitoring
from slidr.config import Config, MonitoringConf
from slidr.monitoring import grid, prometheus
from slidr.monitoring.metrics import SCORES
from slidr.monitoring.signals import LABEL_OUTAGE

START = pd.Timestamp("2026-03-02")
WEEKS, BAD = 5, 2  # all weeks, and the last hours, in which something is wrong
SLICES = ("desktop/guest/US", "desktop/login/US", "mobile/guest/DE", "mobile/login/DE")
MATURED_AFTER = 72
Change = Callable[[pd.DataFrame], pd.DataFrame]


def made(weeks: int = WEEKS) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Hours (view first) and purchase feed: about 600 clicks an hour and slice by day, half of it by night, one in ten invalid."""
    rng = np.random.default_rng(5)
    times = pd.date_range(START, periods=168 * weeks, freq="h")
    table = pd.MultiIndex.from_product([times, SLICES], names=["time", "report_slice"]).to_frame(index=False)
    usual = np.where(table["time"].dt.hour < 8, 300, 600)
    table["clicks"] = rng.poisson(usual)
    table["invalid"] = rng.binomial(table["clicks"], 0.1)
    table["scored"] = table["featured"] = table["clicks"]
    table["scored_invalid"] = table["invalid"]
    for edge, share in ((20, 0.5), (40, 0.65), (50, 0.7), (60, 0.75), (80, 0.8), (95, 0.9)):
        table[f"score_to_{edge}"] = np.round(table["clicks"] * share)
        table[f"score_to_{edge}_invalid"] = np.round(table["invalid"] * {95: 0.3}.get(edge, 0.0))
    table["featured_to_50"] = table["score_to_50"]
    table["empty_permille_to_50"] = np.round(table["featured_to_50"] * rng.normal(350, 10, len(table)))
    above = (table["clicks"] - table["featured_to_50"]) * rng.normal(180, 10, len(table))
    table["empty_permille"] = table["empty_permille_to_50"] + np.round(above)
    table["null_permille"] = np.round(table["clicks"] * rng.normal(100, 5, len(table)))
    table["heavy_now"] = np.round(table["clicks"] * 0.2)
    table["heavy_now_invalid"] = rng.binomial(table["heavy_now"].astype(int), 0.5)
    for name in ("bought_1h", "bought_6h", "bought_24h", "purchasing"):
        table[name] = rng.binomial(table["clicks"], 0.03)
        table[f"{name}_invalid"] = rng.binomial(table[name], 0.02)
    feed = pd.DataFrame({"time": times, "marketplace": "US", "purchases": rng.poisson(np.where(times.hour < 8, 30, 60))})
    return table.assign(model_version="1"), feed


def judge(
    first: pd.DataFrame, feed: pd.DataFrame, conf: MonitoringConf, published: pd.DataFrame | None = None, silent: int = 0
) -> pd.DataFrame:
    """`silent` hours without a decision follow."""
    later = first if published is None else published
    views = pd.concat([first.assign(view="first"), later.assign(view="published")], ignore_index=True)
    until = first["time"].max() + pd.Timedelta(hours=silent)
    return monitoring.judge(views, feed, conf=conf, matured_after=MATURED_AFTER, until=until)


def changed(hours: pd.DataFrame, change: Change) -> pd.DataFrame:
    """The hours with the last BAD ones changed, counts rounded."""
    last = hours["time"] > hours["time"].max() - pd.Timedelta(hours=BAD)
    return pd.concat([hours[~last], change(hours[last].copy())], ignore_index=True).round()


def last(judged: pd.DataFrame) -> pd.DataFrame:
    return prometheus.newest(judged)


def not_ok(judged: pd.DataFrame) -> dict[str, str]:
    rows = last(judged)
    return {f"{row.signal} {row.place}": row.verdict for row in rows.itertuples() if row.verdict in ("watch", "roll back")}


def thresholds_too_low(hours: pd.DataFrame) -> pd.DataFrame:
    return hours.assign(invalid=hours["clicks"] * 0.4)


def nothing_caught(hours: pd.DataFrame) -> pd.DataFrame:
    return hours.assign(invalid=0)


def scores_collapse(hours: pd.DataFrame) -> pd.DataFrame:
    return hours.assign(**{f"score_to_{edge}": hours["scored"] for edge in SCORES})


def scores_move_around_a_half(hours: pd.DataFrame) -> pd.DataFrame:
    """As many lie below 0.5 as ever, but nearer to it, and those above are too."""
    return hours.assign(score_to_40=hours["clicks"] * 0.5, score_to_60=hours["clicks"] * 0.79)


def session_counters_null(hours: pd.DataFrame) -> pd.DataFrame:
    """A sixth of the features, which were 0 for most clicks before, in a network that makes little of them."""
    return hours.assign(null_permille=hours["null_permille"] + 160 * hours["featured"])


def session_counters_zero(hours: pd.DataFrame) -> pd.DataFrame:
    return hours.assign(empty_permille=hours["empty_permille"] + 150 * hours["featured"])


def features_never_empty(hours: pd.DataFrame) -> pd.DataFrame:
    return hours.assign(empty_permille=0)


def robots_on_new_addresses(hours: pd.DataFrame) -> pd.DataFrame:
    """As many clicks again, nothing known of any of them: the share of empty features doubles, and no counter failed."""
    more = {name: hours[name] * 2 for name in ("clicks", "scored", "featured")}
    return hours.assign(empty_permille=hours["empty_permille"] + 900 * hours["clicks"], **more)


def thresholds_lower(hours: pd.DataFrame) -> pd.DataFrame:
    """All clicks above 0.8 are invalid, with the scores that they have ever had: a few more than robots can make it."""
    by_score = {"invalid": 0.2, "scored_invalid": 0.2, "score_to_95_invalid": 0.1}
    return hours.assign(**{name: hours["clicks"] * share for name, share in by_score.items()})


def more_high_scores(hours: pd.DataFrame) -> pd.DataFrame:
    """Twice as many clicks above 0.95, where as large a share is invalid as ever."""
    more = {f"score_to_{edge}": hours[f"score_to_{edge}"] * 8 / 9 for edge in SCORES}
    less = {f"score_to_{edge}_invalid": hours[f"score_to_{edge}_invalid"] * 8 / 9 for edge in SCORES}
    invalid = hours["invalid"] * (0.3 * 8 / 9 + 0.7 * 2)
    return hours.assign(**more, **less, invalid=invalid, scored_invalid=invalid)


def scores_of_another_scale(hours: pd.DataFrame) -> pd.DataFrame:
    """Twenty more of a hundred clicks above 0.95, where the thresholds have gone, too: as many are invalid as ever."""
    return hours.assign(score_to_80=hours["clicks"] * 0.7, score_to_95=hours["clicks"] * 0.7, score_to_95_invalid=0)


def robots_high_in_their_parts(hours: pd.DataFrame) -> pd.DataFrame:
    """Twice the clicks, in all parts of [0, 1]; in each of these more are invalid than usual, but not twice as many."""
    more = {name: hours[name] * 2 for name in hours.columns if name.startswith(("clicks", "score", "featured", "empty", "null"))}
    invalid = {name: hours[name] * 3.4 for name in hours.columns if name.startswith("score") and name.endswith("invalid")}
    return hours.assign(**{**more, **invalid}, invalid=hours["invalid"] * 3.4)


def scores_of_other_clicks(hours: pd.DataFrame) -> pd.DataFrame:
    """As many of each score as ever, and of each feature; they no longer go together."""
    mean = hours["empty_permille"] / hours["featured"]
    return hours.assign(empty_permille_to_50=hours["featured_to_50"] * mean)


def heavy_sessions(hours: pd.DataFrame) -> pd.DataFrame:
    """A third more of the clicks are in heavy sessions, and have low scores."""
    low = {f"score_to_{edge}": hours[f"score_to_{edge}"] + hours["clicks"] * 0.2 for edge in (20, 40, 50, 60, 80)}
    return hours.assign(**low, score_to_95=hours["clicks"], heavy_now=hours["heavy_now"] + hours["clicks"] * 0.3)


def one_slice_gone(hours: pd.DataFrame) -> pd.DataFrame:
    return hours.assign(invalid=hours["invalid"].where(hours["report_slice"] != SLICES[0], hours["clicks"] * 0.95))


def people_harmed(hours: pd.DataFrame) -> pd.DataFrame:
    return hours.assign(bought_6h_invalid=hours["bought_6h"] * 0.3)


def attack(hours: pd.DataFrame) -> pd.DataFrame:
    """As many robots as there are clicks otherwise, most of them caught."""
    return hours.assign(invalid=hours["invalid"] + hours["clicks"] * 0.8, clicks=hours["clicks"] * 2)


def robot_in_one_slice(hours: pd.DataFrame) -> pd.DataFrame:
    here = hours["report_slice"] == SLICES[0]
    return hours.assign(invalid=hours["invalid"] + 700 * here, clicks=hours["clicks"] + 700 * here)


def sale(hours: pd.DataFrame) -> pd.DataFrame:
    return hours.assign(clicks=hours["clicks"] * 8)


def fewer_robots(hours: pd.DataFrame) -> pd.DataFrame:
    return hours.assign(clicks=hours["clicks"] - 0.9 * hours["invalid"], invalid=hours["invalid"] * 0.1)


def test_quiet_traffic_is_ok(conf: Config) -> None:
    judged = judge(*made(), conf.monitoring)
    assert set(last(judged)["verdict"]) == {"ok"} | ({"too few clicks"} if (last(judged)["place"] == "DE").any() else set())
    rows = judged[judged["time"] >= START + pd.Timedelta(weeks=4)]
    assert not rows["verdict"].isin(["watch", "roll back"]).any()
    assert np.isfinite(rows.loc[rows["verdict"] == "ok", ["value", "usual", "sigmas"]].to_numpy(dtype=float)).all()


@pytest.mark.parametrize(
    ("change", "verdict", "by"),
    [
        (thresholds_too_low, "roll back", "ivr_of_median_slice (all)"),
        (nothing_caught, "roll back", "ivr (all)"),
        (scores_collapse, "roll back", "score_shift (all)"),
        (scores_move_around_a_half, "roll back", "score_shift (all)"),
        (thresholds_lower, "roll back", "ivr_given_scores (all)"),
        (scores_of_other_clicks, "roll back", "empty_given_scores (all)"),
        (session_counters_null, "watch", "null_features (all)"),
        (session_counters_zero, "watch", "empty_features (all)"),
        (features_never_empty, "watch", "empty_features (all)"),
        (one_slice_gone, "roll back", f"ivr {SLICES[0]}"),
        (attack, "watch", "ivr_of_median_slice (all)"),
        (robot_in_one_slice, "watch", "ivr (all)"),
        (sale, "watch", "volume (all)"),
        (fewer_robots, "watch", "ivr (all)"),
    ],
)
def test_the_model_is_blamed_for_what_traffic_cannot_explain(change: Change, verdict: str, by: str, conf: Config) -> None:
    hours, feed = made()
    judged = judge(changed(hours, change), feed, conf.monitoring)
    assert monitoring.verdict(last(judged)) == verdict
    assert not_ok(judged)[by] == verdict


def test_what_the_scores_explain_is_not_the_thresholds(conf: Config) -> None:
    hours, feed = made()
    changes = {
        more_high_scores: ("ok", 0.19, 0.17),
        scores_of_another_scale: ("ok", 0.11, 0.21),
        robots_high_in_their_parts: ("watch", 0.19, 0.1),
        thresholds_lower: ("roll back", 0.2, 0.1),
    }
    for change, (verdict, value, usual) in changes.items():
        judged = last(judge(changed(hours, change), feed, conf.monitoring)).set_index("signal").loc["ivr_given_scores"]
        assert judged["verdict"] == verdict, change
        assert (judged["value"], judged["usual"]) == (pytest.approx(value, abs=0.02), pytest.approx(usual, abs=0.02))


def test_heavy_sessions_explain_scores(conf: Config) -> None:
    hours, feed = made()
    heavy = changed(hours, heavy_sessions)
    for rows, expected in ((heavy, None), (heavy.assign(heavy_now=np.round(heavy["clicks"] * 0.2)), "roll back")):
        assert not_ok(judge(rows, feed, conf.monitoring)).get("score_shift (all)") == expected


def test_clicks_that_are_too_many_explain_empty_features(conf: Config) -> None:
    hours, feed = made()
    judged = last(judge(changed(hours, robots_on_new_addresses), feed, conf.monitoring))
    row = judged[judged["signal"] == "empty_features"].iloc[0]
    assert row["value"] - row["usual"] > 0.25
    assert row["verdict"] == "ok"


def test_robots_that_go_from_one_slice_to_others_are_no_fault(conf: Config) -> None:
    """The median slice, which had no invalid click, has some: of all clicks as many are invalid as ever."""
    hours, feed = made()
    alone = hours.assign(invalid=hours["clicks"] * 0.4 * (hours["report_slice"] == SLICES[0]))
    assert not_ok(judge(changed(alone, lambda rows: rows.assign(invalid=rows["clicks"] * 0.1)), feed, conf.monitoring)) == {}


def test_harm_is_judged_at_the_age_of_the_click(conf: Config) -> None:
    """What purchases known after six hours say of two bad hours is known six hours later, not when the clicks are five hours old."""
    hours, feed = made()
    bad = changed(hours, people_harmed)
    for after, expected in ((4, None), (6, "roll back")):
        until = START + pd.Timedelta(hours=168 * WEEKS + after)
        more, _ = made(WEEKS + 1)
        tail = more[(more["time"] >= START + pd.Timedelta(weeks=WEEKS)) & (more["time"] < until)]
        assert not_ok(judge(pd.concat([bad, tail]), feed, conf.monitoring)).get("fpr_6h (all)") == expected


def test_missing_purchases_are_a_label_outage_and_more_clicks_are_none(conf: Config) -> None:
    hours, feed = made()
    cut = feed["time"] > feed["time"].max() - pd.Timedelta(hours=BAD)
    judged = judge(hours, feed[~cut], conf.monitoring)
    assert not_ok(judged) == {f"{LABEL_OUTAGE} (all)": "watch", f"{LABEL_OUTAGE} US": "watch"}
    assert not any(LABEL_OUTAGE in name for name in not_ok(judge(changed(hours, attack), feed, conf.monitoring)))


def test_hours_without_decisions_are_noticed(conf: Config) -> None:
    hours, feed = made()
    judged = judge(hours[hours["time"] < hours["time"].max() - pd.Timedelta(hours=3)], feed, conf.monitoring, silent=4)
    assert last(judged)["time"].max() == hours["time"].max()
    assert not_ok(judged)["volume (all)"] == "watch"


def test_under_three_weeks_there_is_not_enough_history(conf: Config) -> None:
    for weeks, expected in ((3, "not enough history"), (4, "roll back")):
        hours, feed = made(weeks)
        judged = judge(changed(hours, thresholds_too_low), feed, conf.monitoring)
        assert monitoring.verdict(last(judged)) == expected
        assert last(judged).loc[lambda rows: rows["signal"] == "ivr", "value"].notna().any()  # the numbers are there all the same


def test_nothing_that_came_later_is_looked_at(conf: Config) -> None:
    """Rows of an hour are the same whether judged at its end or with all later hours there."""
    hours, feed = made()
    end = START + pd.Timedelta(weeks=4, days=2, hours=7)
    then = judge(hours[hours["time"] <= end], feed[feed["time"] <= end], conf.monitoring)
    later = judge(changed(hours, attack), feed, conf.monitoring)
    keys = ["time", "signal", "place"]
    both = [judged[judged["time"] <= end].sort_values(keys, ignore_index=True) for judged in (then, later)]
    pd.testing.assert_frame_equal(*both)


def test_what_was_corrected_does_not_count_as_usual(conf: Config) -> None:
    """Three of four earlier weeks were wrong at this hour; published is what they should have been."""
    hours, feed = made()
    end = hours["time"].max()
    wrong = hours["time"].isin([end - pd.Timedelta(weeks=week, hours=hour) for week in (1, 2, 3) for hour in (0, 1)])
    first = hours.assign(invalid=hours["invalid"].where(~wrong, hours["clicks"] * 0.4))
    bad = changed(first, thresholds_too_low)
    assert not_ok(judge(bad, feed, conf.monitoring)) == {}
    assert not_ok(judge(bad, feed, conf.monitoring, published=hours))["ivr_of_median_slice (all)"] == "roll back"


def test_usual_is_the_median_of_the_same_hours_by_a_plain_loop(conf: Config) -> None:
    hours, feed = made()
    row = last(judge(hours, feed, conf.monitoring)).set_index(["signal", "place"]).loc[("ivr", "(all)")]
    shares = []
    for week in range(5):
        end = hours["time"].max() - pd.Timedelta(weeks=week)
        part = hours[hours["time"].isin([end, end - pd.Timedelta(hours=1)])]
        shares.append(part["invalid"].sum() / part["clicks"].sum())
    assert (row["value"], row["usual"], row["weeks"], row["hours"]) == (shares[0], pytest.approx(np.median(shares[1:])), 4, 2)


def test_a_spread_of_few_weeks_is_not_believed() -> None:
    """Equal earlier weeks have a MAD of 0; chance has not."""
    flat = np.full(168 * 5, 0.1)
    found = grid.usual(flat, lambda middle: np.full_like(middle, 0.01), weeks=6)
    assert found.sigma[-1] == pytest.approx(0.01 * np.sqrt(1 + grid.MEDIAN_LOSS / 4))
    assert found.weeks[-1] == 4


def at(hour: int) -> pd.Timestamp:
    return START + pd.Timedelta(hours=hour)


def rows_of(verdicts: list[str], signal: str = "ivr") -> pd.DataFrame:
    base = {"signal": signal, "place": "(all)", "hours": 2, "count": 1, "value": 0.1, "usual": 0.1, "sigmas": 0.0, "weeks": 4}
    return pd.DataFrame([{**base, "time": at(hour), "verdict": verdict} for hour, verdict in enumerate(verdicts)])


@pytest.mark.parametrize(
    ("ivr", "other", "expected"),
    [
        (["ok"] * 4, ["ok"] * 4, "ok"),
        (["ok"] * 4, ["ok", "watch", "ok", "ok"], "watch"),
        (["ok", "roll back", "ok", "ok"], ["watch"] * 4, "roll back"),
        (["not enough history"] * 4, ["ok"] * 4, "not enough history"),
        (["ok", "ok", "too few clicks", "too few clicks"], ["too few clicks"] * 4, "ok"),
        (["ok", *["not enough history"] * 3], ["ok"] * 4, "not enough history"),
        (["ok", *["too few clicks"] * 3], ["ok"] * 4, "too few clicks"),
    ],
)
def test_a_version_is_ok_only_by_hours_that_are(ivr: list[str], other: list[str], expected: str, conf: Config) -> None:
    judged = pd.concat([rows_of(ivr), rows_of(other, "volume")])
    hours = pd.DataFrame({"time": [at(hour) for hour in range(4)], "model_version": "7", "view": "first", "clicks": 1})
    hours = pd.concat([hours, hours.assign(view="published", model_version="8")])
    now = at(4).to_pydatetime().replace(tzinfo=timezone.utc)
    assert monitoring.by_version(judged, hours, conf=conf.monitoring, now=now) == {"7": expected}


def test_the_text_file_holds_the_numbers_of_the_last_hour(tmp_path: Path) -> None:
    rows = pd.concat([rows_of(["ok", "watch"]), rows_of(["ok", "ok"], "volume").assign(value=1200.0, usual=np.nan, sigmas=np.inf)])
    end = datetime(2026, 3, 2, 2, tzinfo=timezone.utc)
    said = prometheus.text(prometheus.newest(rows), verdict="watch", version='1"', end=end)
    prometheus.write(said, tmp_path / "slidr.prom")
    lines = (tmp_path / "slidr.prom").read_text(encoding="utf-8").splitlines()
    assert 'slidr_monitor_ratio{signal="ivr",place="(all)",window="2h"} 0.1' in lines
    assert 'slidr_monitor_clicks{signal="volume",place="(all)",window="2h"} 1200.0' in lines
    assert 'slidr_monitor_deviation_sigmas{signal="volume",place="(all)",window="2h"} +Inf' in lines
    assert 'slidr_monitor_verdict{verdict="watch",model_version="1\\""} 1.0' in lines
    assert f"slidr_monitor_end_timestamp_seconds {end.timestamp()}" in lines
    assert not any("usual_clicks{" in line for line in lines)  # NaN: not known
    assert [path.name for path in tmp_path.iterdir()] == ["slidr.prom"]
    assert prometheus.flat(prometheus.newest(rows))["volume/.28.all.29./value"] == 1200.0


def test_a_picture_of_good_and_bad_hours(conf: Config, tmp_path: Path) -> None:
    hours, feed = made()
    judged = judge(changed(hours, thresholds_too_low), feed, conf.monitoring)
    monitoring.plot(judged[judged["time"] > judged["time"].max() - pd.Timedelta(days=3)], tmp_path / "hours.png")
    assert (tmp_path / "hours.png").stat().st_size > 20_000
