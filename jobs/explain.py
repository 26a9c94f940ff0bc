"""One click explained: spark-submit jobs/explain.py CLICK_ID --conf FILE. Starts no Spark session unless the lake is in a catalog."""

import sys
from typing import Annotated, Any

import typer

from slidr import explain as explanation
from slidr.explain import Account, Facts
from slidr.options import parse_day
from slidr.run import Job, Outcome, folder

ClickId = Annotated[str, typer.Argument(metavar="CLICK_ID", help="Id of the click, as in the table clicks.")]
Day = Annotated[str | None, typer.Option("--day", help="UTC day of the click; finds it faster in a long history.")]


def explain(job: Job, click_id: ClickId, day: Day = None) -> Outcome:
    """Explains one click: its decisions, what its features added to the score, what was around it, in words and as a picture."""
    found = explanation.facts(job.place, click_id, parse_day(day) if day else None)
    said = explanation.in_words(found)
    history = explanation.history(found)
    shown: dict[str, Any] = {"What was said about it": [_short(row) for row in history]} if history else {}
    summary: dict[str, Any] = {"click_id": click_id, "words": said, "history": history, "around": found.around}
    taken_apart = _account(job, found)
    if taken_apart and found.current:
        path = folder(job, "explain") / f"{job.run_id}.png"
        explanation.waterfall(taken_apart, found.current["threshold"], path)
        rows = [{"what": p.topic, "in words": p.words, "adds to the logit": round(p.contribution, 4)} for p in taken_apart.parts]
        shown |= {"What made the score": rows, "Its features": taken_apart.features}
        sums = f"{taken_apart.base:.4f} (the average human click of the training days) and these contributions make {taken_apart.logit:.4f}"
        said += [f"{sums}, which is the score {taken_apart.score:.6f}.", *_differs(taken_apart, found), f"Picture: {path}"]
        summary |= {"base": taken_apart.base, "logit": taken_apart.logit, "score_of_features": taken_apart.score}
        summary |= {"contributions": rows, "features": taken_apart.features, "picture": str(path)}
    return Outcome(summary, shown, "\n".join(said))


def _short(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the history for a terminal."""
    return {
        "when, UTC": f"{row['when']:%Y-%m-%d %H:%M}",
        **{name: row[name] for name in ("what", "invalid", "score", "threshold", "slice", "version", "reasons")},
    }


def _account(job: Job, found: Facts) -> Account | None:
    """By the version of the published state; None where no version of the registry decided, or the click has no stored features."""
    from slidr.registry import Registry

    if not found.current or found.current["basis"] not in ("model", "unseen_slice"):
        return None
    bundle = Registry(job.conf.registry, job.place).inspect(found.current["model_version"]).bundle
    features = explanation.features_used(job.place, bundle, found.click)
    return None if features is None else explanation.account(bundle, features)


def _differs(taken_apart: Account, found: Facts) -> list[str]:
    stored = found.current["score"] if found.current else None
    if stored == taken_apart.score:
        return []
    return [f"The decision has the score {stored}: it was made on other features than those stored, by a replay that counted anew."]


if __name__ == "__main__":
    from slidr.cli import main

    main(["explain", *sys.argv[1:]])
