from datetime import datetime
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from slidr import calibration_plots, plots, training_plots
from slidr.calibration import calibrate
from slidr.curves import curves
from tests.judged import judgement
from tests.test_calibration import SETTINGS, made, made_slice, three


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures as they were saved, before they are closed."""
    figures: list[Figure] = []
    save = plots.save
    for module in (plots, calibration_plots):
        monkeypatch.setattr(module, "save", lambda figure, path: (save(figure, path), figures.append(figure)))
    return figures


def texts(figure: Figure) -> str:
    legends = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return "\n".join([*legends, *(axis.get_title() for axis in figure.axes), *(t.get_text() for a in figure.axes for t in a.texts)])


def test_curves_show_every_slice_the_chosen_points_and_the_unused_knee(drawn: list[Figure], tmp_path: Path) -> None:
    quiet = made(quiet=made_slice(robots=0.5, sharpness=3, size=500, purchases=0))
    slices = pd.concat([three(), quiet])
    result = calibrate(slices, **SETTINGS)
    calibration_plots.plot_curves(curves(slices), result, tmp_path / "new" / "curves.png")
    assert (tmp_path / "new" / "curves.png").read_bytes().startswith(b"\x89PNG")
    shown = texts(drawn[0])
    for part in (
        "knee (not used)",
        "quadratic (decides)",
        "bounded",
        "frontier",
        "global",
        "desktop\n30,000 clicks",
        "nobody purchased",
    ):
        assert part in shown
    assert all(f"{result.thresholds[name]:.4f}" in shown for name in ("desktop", "mobile", "tablet"))
    assert plt.get_fignums() == []


def test_many_slices_are_cut_and_said_so(drawn: list[Figure], tmp_path: Path) -> None:
    slices = made(**{f"s{i:02d}": made_slice(robots=0.3, sharpness=4, size=1000 + i, purchases=60) for i in range(14)})
    calibration_plots.plot_curves(curves(slices), calibrate(slices, **SETTINGS), tmp_path / "curves.png")
    assert len(drawn[0].axes) == calibration_plots.MOST_PANELS + 1
    assert drawn[0].get_suptitle().endswith("3 smaller slices not drawn")


def test_slices_that_pay_for_the_budget_stand_apart(drawn: list[Figure], tmp_path: Path) -> None:
    judged = judgement(4_000)
    by_method = dict(tuple(judged.calibrations("judging").groupby("decider")))
    calibration_plots.plot_fairness(by_method["global"], by_method["bounded"], 0.01, tmp_path / "fairness.png")
    shown = texts(drawn[0])
    over = by_method["global"].set_index("slice")["fpr"].drop("(all)") > 0.01
    assert ("above the budget under one threshold: over-calibrated" in shown) == over.any()
    assert ("within the budget under one threshold" in shown) == (~over).any()
    assert len(drawn[0].axes[0].get_yticklabels()) == 3
    filled = [line.get_xdata()[0] for line in drawn[0].axes[0].lines if line.get_marker() == "o" and line.get_markerfacecolor() != "white"]
    assert sorted(filled) == sorted(by_method["bounded"].set_index("slice")["fpr"].drop("(all)"))


def test_hours_show_both_views_and_the_incident(drawn: list[Figure], tmp_path: Path) -> None:
    hours = pd.date_range("2026-01-05", periods=24, freq="h", tz="UTC")
    table = pd.concat([pd.DataFrame({"hour": hours, "view": view, "ivr": np.full(24, 0.1)}) for view in ("first", "published")])
    plots.plot_hours(table, tmp_path / "hours.png", shaded=[(datetime(2026, 1, 5, 6), datetime(2026, 1, 5, 12))])
    labels = [text.get_text() for text in drawn[0].axes[0].get_legend().get_texts()]
    assert labels == ["incident window", "first decisions", "published, after corrections"]


def test_methods_are_drawn_together_and_slice_by_slice(drawn: list[Figure], tmp_path: Path) -> None:
    judged = judgement(4_000)
    training_plots.plot_methods(judged.curves["judging"], 0.01, tmp_path / "methods.png")
    assert [axis.get_title().split("\n")[0] for axis in drawn[0].axes][0] == "all slices"
    assert len(drawn[0].axes) >= 4
    assert all(name in texts(drawn[0]) for name in ("mlp", "logistic", "velocity", "champion", "FPR budget", "desktop/guest"))
    assert "lower estimate of the harm" in drawn[0].get_suptitle()
    right = drawn[0].axes[0].get_xlim()[1]
    assert right == pytest.approx(0.05)


def test_histograms_have_a_line_at_the_threshold_of_each_slice(drawn: list[Figure], tmp_path: Path) -> None:
    judged = judgement(4_000)
    judging, chosen = judged.curves["judging"]["mlp"], judged.calibration
    training_plots.plot_histograms(judging, chosen.thresholds, chosen.default_threshold, tmp_path / "histograms.png")
    lines = {axis.get_title().split("\n")[0]: axis.lines[0].get_xdata()[0] for axis in drawn[0].axes if axis.lines}
    assert lines == chosen.thresholds
    assert all(label in texts(drawn[0]) for label in ("purchasing", "high RFM, no purchase", "neither sign"))


def test_slices_and_hours_show_both_versions_and_leave_out_what_is_not_known(drawn: list[Figure], tmp_path: Path) -> None:
    judged = judgement(4_000)
    training_plots.plot_slices(judged.decided("slice"), tmp_path / "slices.png")
    assert [tick.get_text() for tick in drawn[0].axes[0].get_yticklabels()] == ["mobile/guest", "desktop/login", "desktop/guest"]
    assert all(label in texts(drawn[0]) for label in ("champion", "new version"))
    hours = judged.decided("hour_of_week")
    training_plots.plot_hours_of_week(hours, tmp_path / "hours.png")
    names = [tick.get_text() for tick in drawn[1].axes[-1].get_xticklabels()]
    assert names == ["Wed 0 h", "6", "12", "18", "Thu 0 h", "6", "12", "18"]
    fpr = next(patch for patch in drawn[1].axes[1].patches if not patch.get_fill())
    expected = hours[hours["method"] == "champion"].sort_values("hour_of_week")["fpr"].to_numpy()
    assert np.array_equal(fpr.get_data().values, expected, equal_nan=True)
