"""The report of a training: its verdict first, everything embedded, everything escaped, and its numbers those of the clicks."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from slidr import training_report
from slidr.evaluation import FPR_NOTE, Judgement
from tests.judged import judgement

FACTS = training_report.Facts(
    title="Model trained on 2026-03-01 to 2026-03-05",
    days={"training": ["2026-03-01", "2026-03-02", "2026-03-05"], "judging": ["2026-03-09"]},
    rows={"training": 12_345, "judging": 20_000},
    raking={"effective share of the clicks": 0.37, "dimensions left out": "none"},
    losses={"mlp": [0.51, 0.4321]},
    table_versions={"clicks": 3},
    libraries={"numpy": "1.26.4"},
    settings={"seed": 7},
)


def row(check: str, verdict: str, **given: Any) -> dict[str, Any]:
    return {"check": check, "observed": 0.5, "bound": 1.0, "verdict": verdict, **given}


@pytest.fixture(scope="module")
def judged() -> Judgement:
    return judgement()


class Page(HTMLParser):
    """What a browser would fetch or run, and the text in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action", "poster")]

    def handle_data(self, data: str) -> None:
        self.text.append(data.strip())


@pytest.fixture(scope="module")
def written(judged: Judgement, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    training_report.draw(judged, folder)
    checks = [row("judging FPR", "passed", query="SELECT 1"), row("<script>alert(1)</script>", "failed")]
    return training_report.write(judged, FACTS, folder, checks)


def test_the_page_is_one_file_and_its_pictures_are_in_it(written: Path) -> None:
    page = Page(written.read_text(encoding="utf-8"))
    assert len(page.fetched) == len(training_report.PICTURES) == 6
    assert all(source.startswith("data:image/png;base64,") for source in page.fetched)
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    assert "url(" not in written.read_text(encoding="utf-8")


def test_the_verdict_comes_first_then_the_comparison_then_the_guardrails(written: Path) -> None:
    text = " ".join(Page(written.read_text(encoding="utf-8")).text)
    order = ["2 guardrails failed", "at the same FPR", "each by its own thresholds", "Guardrails", "how it was chosen", "12,345", "0.4321"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert "<script>alert(1)</script>" in text  # as text: the parser found no such tag
    assert text.count(FPR_NOTE) == 6


def test_every_fpr_has_the_share_of_high_rfm_clicks_beside_it(written: Path) -> None:
    html = written.read_text(encoding="utf-8")
    for table in re.findall(r"<table>.*?</table>", html, re.DOTALL):
        if ">FPR</th>" in table:
            assert "high-RFM" in table


def test_the_numbers_of_the_page_are_those_of_the_clicks(judged: Judgement, written: Path) -> None:
    data = json.loads((written.parent / training_report.DATA).read_text(encoding="utf-8"))
    metrics = judged.metrics("judging").set_index("slice")
    total = next(row for row in data["decided"] if row["method"] == "new")
    assert (total["clicks"], total["invalid"], total["purchasing_invalid"]) == tuple(
        metrics.loc["(all)", ["clicks", "invalid", "purchasing_invalid"]]
    )
    by_slice = {row["slice"]: row["new"]["heavy_invalid"] for row in data["slices"]}
    assert by_slice == {name: count for name, count in metrics["heavy_invalid"].items() if name != "(all)"}
    assert sum(row["new"]["clicks"] for row in data["hours"]) == 20_000
    assert len(data["slice_hours"]) == 2 * 3 * 48
    shown = f"{total['fpr']:.2%} ({total['fpr_low'] * 100:.2f}–{total['fpr_high'] * 100:.2f}%)"
    assert shown in written.read_text(encoding="utf-8")


def test_slices_that_calibration_did_not_see_are_said(judged: Judgement, tmp_path: Path) -> None:
    chosen = judged.calibration.chosen
    known = replace(chosen, slices=tuple(row for row in chosen.slices if row.slice == "desktop/guest"), default_threshold=0.75)
    new = replace(judged, calibration=replace(judged.calibration, solutions={"bounded": known}))
    clicks = judged.metrics("judging").set_index("slice")["clicks"]
    found = training_report.unseen(new)
    assert found is not None
    assert {row["slice"]: row["clicks"] for row in found["slices"]} == {name: clicks[name] for name in ("desktop/login", "mobile/guest")}
    assert found["clicks"] == sum(row["clicks"] for row in found["slices"])
    assert found["share"] == found["clicks"] / 20_000
    text = training_report.write(new, FACTS, tmp_path).read_text(encoding="utf-8")
    assert f"New slices: {found['clicks']:,} judging clicks ({found['share']:.2%}) are of 2 that calibration did not see" in text
    assert f"the global threshold 0.7500:\n{found['slices'][0]['slice']} ({found['slices'][0]['clicks']:,})" in text
    assert training_report.unseen(judged) is None
    assert "New slices" not in training_report.write(judged, FACTS, tmp_path).read_text(encoding="utf-8")


def test_a_clearly_better_and_a_clearly_worse_version_are_called_so() -> None:
    better = training_report.verdict(judgement(champion_apart=1.5))
    assert better.good is True
    assert better.sentence.startswith("Better than the champion (version 3): at the same FPR of 1.00% it invalidates")
    worse = training_report.verdict(judgement(mlp=2.0, logistic=1.5, champion_apart=6.0))
    assert worse.good is False
    assert worse.sentence.startswith("Worse than the champion (version 3)")


def test_a_small_difference_is_no_clear_one(judged: Judgement) -> None:
    verdict = training_report.verdict(judged)
    assert verdict.good is None
    assert verdict.sentence.startswith("No clear difference from the champion (version 3)")
    assert any("best baseline, logistic" in reason for reason in verdict.reasons)


def test_a_baseline_that_wins_is_said_before_anything_else() -> None:
    verdict = training_report.verdict(judgement(mlp=1.0, logistic=6.0), [row("coverage", "failed")])
    assert verdict.good is False
    assert verdict.sentence.startswith("Not better than a simple rule: at the same FPR of 1.00% the baseline logistic invalidates")
    assert verdict.reasons[0] == "Not fit to decide: 1 of 1 guardrails failed: coverage."


def test_a_baseline_that_may_be_ahead_by_chance_is_said_first_but_condemns_nothing() -> None:
    found = judgement(logistic=4.6)
    lead = found.lead()
    assert lead is not None
    assert lead.baseline == "logistic"
    assert lead.ivr > lead.network_ivr
    assert lead.beyond_chance <= 0
    verdict = training_report.verdict(found)
    assert verdict.good is None
    assert verdict.sentence.startswith("No clear difference from a simple rule: at the same FPR of 1.00% the baseline logistic")
    assert verdict.sentence.endswith(f"with {lead.allowed} of {lead.purchasing} purchasing clicks invalid that may be chance.")
    assert verdict.reasons[0].startswith("No clear difference from the champion (version 3)")
    assert training_report.verdict(found, [row("coverage", "failed")]).good is False


def test_failed_guardrails_come_before_the_champion(judged: Judgement) -> None:
    verdict = training_report.verdict(judged, [row("a", "passed"), row("b", "failed")])
    assert (verdict.sentence, verdict.good) == ("Not fit to decide: 1 of 2 guardrails failed: b.", False)


def test_without_a_champion_or_with_one_that_cannot_be_scored_the_report_says_so(tmp_path: Path) -> None:
    first = judgement(champion=None)
    assert training_report.verdict(first).sentence.startswith("A first version: there is no champion")
    assert "There is no champion to compare with." in training_report.write(first, FACTS, tmp_path).read_text(encoding="utf-8")
    why = "it reads features of spec abc, and the lake has no table of them"
    foreign = judgement(note=why)
    assert training_report.verdict(foreign).sentence.startswith(f"It cannot be compared with the champion (version 3): {why}")
    page = training_report.write(foreign, FACTS, tmp_path).read_text(encoding="utf-8")
    assert f"The champion (version 3) is not compared: {why}." in page


def test_without_purchases_nothing_is_compared_and_the_page_says_why(judged: Judgement, tmp_path: Path) -> None:
    judging = {
        method: {name: replace(curve, purchasing=0, purchasing_invalid=0 * curve.purchasing_invalid) for name, curve in curves.items()}
        for method, curves in judged.curves["judging"].items()
    }
    hours = judged.hours.assign(purchasing=0, purchasing_invalid=0)
    silent = replace(judged, curves={**judged.curves, "judging": judging}, hours=hours)
    assert training_report.verdict(silent).sentence.startswith("It cannot be judged: nobody purchased")
    training_report.draw(silent, tmp_path)
    page = training_report.write(silent, FACTS, tmp_path).read_text(encoding="utf-8")
    assert "FPR is not known, and methods cannot be compared" in page
    assert "not known" in page
    assert training_report.summary(silent) == []
    json.loads((tmp_path / training_report.DATA).read_text(encoding="utf-8"), parse_constant=pytest.fail)


def test_what_the_command_shows_names_each_method_and_says_what_fpr_is(judged: Judgement) -> None:
    shown = training_report.shown(judged)
    title, rows = next(iter(shown.items()))
    assert "lower estimate of the harm" in title
    assert [row["method"] for row in rows] == ["new version (mlp)", "champion (version 3)", "baseline logistic", "baseline velocity"]
    summary = training_report.summary(judged)
    assert json.loads(json.dumps(summary, allow_nan=False))[0]["method"] == "mlp"
