"""The whole story on made traffic: simulate, decide, an incident, roll back, replay. `slidr demo`"""

import shutil
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer
from slidr.jobs import features, ingest, init, labels, models, monitor, replay, score, simulate, train

from slidr import config
from slidr.days import days_between, midnight
from slidr.errors import UsageError
from slidr.folders import private
from slidr.run import Job, Outcome
from slidr.simulator.evaluation import judge, read_truth
from slidr.tables import CURRENT_DECISIONS, SLICE_METRICS
from slidr.threads import together

Folder = Annotated[Path, typer.Option("--folder", help="Folder of its own; an earlier demo there is replaced.")]
Clicks = Annotated[int, typer.Option("--clicks", min=100_000, help="How many clicks of four weeks.")]
MARK = ".slidr-demo"
CREDITS_QUERY = "SELECT currency, direction, SUM(delta_cost_micros) / 1e6 AS amount FROM corrections GROUP BY ALL"
FIRST_DAY = date(2025, 3, 1)
WARM = date(2025, 3, 8)  # from here on the longest window is full
GOOD_MODEL_ON = date(2025, 3, 20)  # version 1 learns from the days that have matured by then, and decides from here on
OUTAGE = "label_outage:2025-03-18T00:00Z/2025-03-26T00:00Z:hours=4-20,late_days=3"
BAD_MODEL_ON = date(2025, 3, 28)  # version 2 learns from days with the outage, and decides this one day
END = date(2025, 3, 29)


def demo(job: Job, folder: Folder = Path("slidr-demo"), clicks: Clicks = 250_000) -> Outcome:
    """Tells the whole story on made traffic in a few minutes: a bad model goes live for a day and its decisions are taken back."""
    fresh(folder)
    story = at_home(job, folder)
    sim = str(folder / "traffic")
    story.say("[bold]1/9 traffic:[/bold] four weeks of clicks, purchases from 90 days before")
    init.init(story)
    simulate.simulate(story, sim, clicks=clicks, start=str(FIRST_DAY), seed=7, incident=[OUTAGE])
    story.say("[bold]2/9 ingest[/bold]")
    together(
        lambda: ingest.ingest(story, "canonical", [f"{sim}/clicks"]),
        lambda: ingest.ingest(replace(story, run_id=f"{story.run_id}-orders"), "canonical_purchases", [f"{sim}/purchases"]),
    )
    story.say("[bold]3/9 features and labels:[/bold] windowed counters of every click, weak labels of matured days")
    together(
        lambda: features.features(story, str(WARM), str(END)),
        lambda: labels.labels(story, str(WARM), str(END), as_of=str(BAD_MODEL_ON)),
    )
    story.say(f"[bold]4/9 version 1:[/bold] train, calibrate, register, promote, mark stable, as of {GOOD_MODEL_ON}")
    good = str(train.train_as_of(story, midnight(GOOD_MODEL_ON)).summary["version"])
    models.promote(story, good, "first model")
    models.mark_stable(story, good, "by hand, for the demo")
    score.score(story, str(GOOD_MODEL_ON), str(BAD_MODEL_ON))
    story.say(
        "[bold]5/9 the incident:[/bold] purchase labels are missing for some hours; guardrails would stop the training, somebody forces it"
    )
    bad = force_bad_model(story)
    score.score(story, str(BAD_MODEL_ON), str(END))
    before = harm(story, sim)
    story.say("[bold]6/9 monitor[/bold]")
    monitor.update(story, days_between(GOOD_MODEL_ON, BAD_MODEL_ON))
    seen = monitor.monitor(story, str(BAD_MODEL_ON), str(END))
    story.say(
        f"{BAD_MODEL_ON}: {seen.summary['verdict']}; IVR {ivr(story, BAD_MODEL_ON)} after {ivr(story, GOOD_MODEL_ON)} on {GOOD_MODEL_ON}"
    )
    story.say("[bold]7/9 roll back[/bold]")
    models.rollback(story, f"version {bad} invalidates people")
    story.say("[bold]8/9 replay:[/bold] plan, then apply")
    planned = replay.plan(
        story, str(BAD_MODEL_ON), str(END), decided_by=bad, model="stable", mode="rescore", allow_charges=True, override="demo: the bad day"
    )
    applied = replay.apply(story, planned.summary["plan_id"], reason=f"version {bad} was trained without purchase labels")
    story.say("[bold]9/9 report[/bold]")
    monitor.update(story, days_between(BAD_MODEL_ON, END))
    return tell(story, folder, before, harm(story, sim), planned, applied, seen)


def fresh(folder: Path) -> None:
    """An empty folder with the demo's mark. Raises UsageError where somebody else's files are in it."""
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).exists():
        raise UsageError(f"expected an empty folder or an earlier demo at {folder}, found other files; choose one with --folder")
    shutil.rmtree(folder, ignore_errors=True)
    private(folder)
    (folder / MARK).touch()


def at_home(job: Job, folder: Path) -> Job:
    """The job with everything, its own record too, kept in the demo's folder; the configuration is written there for the
    commands that come after."""
    content = job.conf.model_dump(mode="json")
    content["lake"] |= {"root": str(folder / "lake"), "catalog": None}
    content["work"] = {"root": str(folder / "work")}
    content["registry"] = {"uri": f"sqlite:///{folder / 'registry.db'}", "artifacts": str(folder / "artifacts"), "name": "slidr"}
    content["spark"]["shuffle_partitions"] = 4
    # Each query runs a few times only: compiling it costs more than it gains.
    content["spark"]["settings"] = {
        "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -Duser.timezone=UTC",
        "spark.sql.codegen.wholeStage": "false",
    }
    # A quarter of a million clicks hold too few purchases to show that a smaller budget holds.
    content["calibration"]["fpr_budget"] = 0.05
    content["training"]["user_shares"] = [0.4, 0.4, 0.2]
    content["weights"]["min_cell"] = 20  # the demo's bad days hold few people that are known to be people
    (folder / "demo.yaml").write_text(config.to_yaml(content), encoding="utf-8")
    job.conf = config.load(folder / "demo.yaml")
    return job


def force_bad_model(story: Job) -> str:
    """Guardrails fail; an override makes a bad version all the same, which is promoted by force. With the purchases that are left no
    bound can hold, so somebody takes a method without one."""
    calibration = story.conf.calibration.model_copy(update={"method": "quadratic"})
    hurried = replace(story, conf=story.conf.model_copy(update={"calibration": calibration}))
    trained = train.train_as_of(hurried, midnight(BAD_MODEL_ON), override="demo: somebody is in a hurry").summary
    for failed in trained["overridden"]:
        story.say(f"[yellow]guardrail failed, overridden:[/yellow] {failed[:150]} …")
    bad = str(trained["version"])
    models.promote(story, bad, "demo: forced")
    return bad


def harm(story: Job, sim: str) -> dict[str, Any]:
    """The incident day against who really clicked, by the simulator's own evaluation."""
    day = story.lake.read(CURRENT_DECISIONS, [BAD_MODEL_ON])
    return judge(day, read_truth(story.spark, sim))


def ivr(story: Job, day: date) -> str:
    """Share of invalid clicks of a day. Verdicts need three weeks of decisions, which the demo has not."""
    metrics = story.lake.read(SLICE_METRICS, [day]).where("view = 'first'")
    clicks, invalid = metrics.agg({"clicks": "sum", "invalid": "sum"}).select("sum(clicks)", "sum(invalid)").collect()[0]
    return f"{invalid / clicks:.1%}"


def tell(
    story: Job, folder: Path, before: dict[str, Any], after: dict[str, Any], planned: Outcome, applied: Outcome, seen: Outcome
) -> Outcome:
    """The short table in plain words, the pictures, and what to try next."""
    whole = judge(story.lake.read(CURRENT_DECISIONS), read_truth(story.spark, str(folder / "traffic")))
    rows = [
        words("all live days, after the replay", whole),
        words(f"{BAD_MODEL_ON} as the bad version decided it", before),
        words(f"{BAD_MODEL_ON} after the replay", after),
    ]
    report = planned.summary["report"]
    conf = f"--conf {folder / 'demo.yaml'}"
    said = "\n".join(
        [
            f"Published by the replay: {applied.summary['corrections']:,} corrections, {money(applied.summary['money'])}.",
            f"Report of the replay: {report}",
            f"Pictures: {seen.summary['picture']}, {folder / 'work' / 'models'}/*/curves.png",
            "Try next:",
            f"  slidr models list {conf}",
            f"  slidr replay show {planned.summary['plan_id']} {conf}",
            f'  slidr sql {conf} "{CREDITS_QUERY}"',
        ]
    )
    return Outcome(
        {"before": before, "after": after, "whole": whole, "replay": applied.summary, "report": report}, {"What happened": rows}, said
    )


def words(title: str, judged: dict[str, Any]) -> dict[str, Any]:
    def share(part: int, of: int) -> str:
        return f"{part:,} of {of:,} ({part / max(of, 1):.1%})"

    return {
        "": title,
        "clicks": judged["clicks"],
        "robots caught": share(judged["robots_caught"], judged["robots"]),
        "people's clicks harmed": share(judged["people_harmed"], judged["people"]),
        "not charged": money(judged["credited_micros"]),
    }


def money(micros: dict[str, int]) -> str:
    return ", ".join(f"{amount / 1e6:,.0f} {currency}" for currency, amount in sorted(micros.items())) or "nothing"


if __name__ == "__main__":
    from slidr.cli import main

    main(["demo", *sys.argv[1:]])
