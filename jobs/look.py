"""Looking things up: queries on the tables, the tables themselves, and what is wrong with this machine."""

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import typer
from slidr.jobs import upkeep

from slidr import answers, diagnosis, dictionary, direct, jars, query, ready
from slidr.errors import InputError, SetupError, UsageError
from slidr.run import Job, Outcome

SHOWN = 100  # rows of an answer on a terminal
LIST, CHECK, UPGRADE, OPTIMIZE = "list", "check", "upgrade", "optimize"
ANEW = (
    "such a table must be written anew: `slidr init` a new lake with this version, and ingest and score into it; or go on with the version "
    "that made it"
)
Query = Annotated[str | None, typer.Argument(metavar="QUERY", help="A SELECT over the tables; $NAME in it is a parameter.")]
ReadyName = Annotated[str | None, typer.Option("--ready", metavar="NAME", help="A query that slidr ships; `list` lists them.")]
Params = Annotated[list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="Value of a parameter; repeatable.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="CSV on stdout.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help=f"Most rows; {SHOWN} on a terminal, all with --csv and --json.")]
TableName = Annotated[str | None, typer.Argument(metavar="NAME", help="A table, to see its columns; or check, upgrade, optimize.")]
AsMarkdown = Annotated[bool, typer.Option("--markdown", help="The data dictionary as a page, docs/tables.md.")]
JarsOnly = Annotated[bool, typer.Option("--jars", help="Prints the Delta jars, comma separated, for spark-submit --jars.")]


def sql(
    job: Job, text: Query = None, named: ReadyName = None, params: Params = None, as_csv: AsCsv = False, limit: Limit = None
) -> Outcome:
    """Answers a query over the lake's tables, without Spark; reads only. --ready NAME is one that slidr ships."""
    if as_csv and job.as_json:
        raise UsageError("expected one of --csv and --json, found both; give one")
    if named == LIST:
        return _listed()
    statement, values = _asked(text, named, _values(params or []))
    most = limit or (None if as_csv or job.as_json else SHOWN)
    found = query.run(job.place, dictionary.named(job.conf.spec), statement, values, rows=None if most is None else most + 1)
    kept = found if most is None else found.slice(0, most)
    if as_csv:
        return Outcome({"count": kept.num_rows}, raw=answers.csv(kept))
    rows = answers.rows(kept)
    note = f"First {most} rows; --limit shows more." if found.num_rows > kept.num_rows else ""
    return Outcome({"count": len(rows)}, {f"{len(rows)} row{'' if len(rows) == 1 else 's'}": rows}, note, answer={"rows": rows})


def _listed() -> Outcome:
    rows = [{"query": one.name, "parameters": " ".join(map(_parameter, one.parameters)), "answers": one.answers} for one in ready.every()]
    return Outcome({"queries": rows}, {"Queries for --ready": rows})


def _parameter(one: ready.Parameter) -> str:
    return one.name if one.default is None else f"{one.name}={one.default}"


def _asked(text: str | None, named: str | None, given: dict[str, str]) -> tuple[str, dict[str, str]]:
    """The query and its parameters' values."""
    if (text is None) == (named is None):
        raise UsageError(
            "expected either a query or --ready NAME, found " + ("both" if text else "neither") + "; `--ready list` lists them"
        )
    if named is None:
        return str(text), given
    asked = ready.load(named)
    return asked.sql, asked.values(given)


def _values(params: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE` by name; all values are text, which the query compares or casts."""
    broken = [param for param in params if not param.partition("=")[0].isidentifier() or "=" not in param]
    if broken:
        raise UsageError(f"--param: expected NAME=VALUE, found {', '.join(broken)}")
    pairs = [param.partition("=")[::2] for param in params]
    if len(dict(pairs)) < len(pairs):
        raise UsageError(f"--param: expected each name once, found {', '.join(params)}")
    return dict(pairs)


def show_tables(job: Job, name: TableName = None, as_markdown: AsMarkdown = False) -> Outcome:
    """Lists the tables with their versions, rows and meaning; NAME shows a table's columns.

    `check` compares the lake with them; `upgrade` adds columns that an older version did not know; `optimize` brings small files
    together and removes what nobody can ask for any more.
    """
    tables = dictionary.named(job.conf.spec)
    if as_markdown:
        return Outcome({}, raw=dictionary.markdown(list(tables.values())))
    if name is None:
        rows = dictionary.listed(job.place, tables)
        return Outcome({"tables": rows}, {"Tables": rows})
    if name == CHECK:
        return _checked(job, tables)
    if name == UPGRADE:
        return _upgraded(job, tables)
    if name == OPTIMIZE:
        done: Outcome = upkeep.optimize(job)
        return done
    if name not in tables:
        raise UsageError(f"expected one of the tables {', '.join(tables)}, or {CHECK}, {UPGRADE}, {OPTIMIZE}, found {name!r}")
    table, columns = tables[name], dictionary.columns(tables[name])
    facts = {"table": table.name, "grain": list(table.grain), "partitions": list(table.partitions), "holds": table.comment}
    said = f"{table.comment}.\nOne row per {' x '.join(table.grain)}; partitioned by {', '.join(table.partitions)}."
    return Outcome({**facts, "columns": columns}, {table.name: columns}, said)


def _checked(job: Job, tables: dict[str, Any]) -> Outcome:
    found = dictionary.checked(job.place, tables)
    if not found:
        raise InputError(f"expected tables in {job.conf.lake.root}, found none; run `slidr init`")
    wrong = [f"{name}: {text}" for name, differences in found.items() for text in differences]
    if wrong:
        remedy = (
            f"`slidr tables upgrade` adds what may be NULL to {', '.join(there)}"
            if (there := dictionary.upgradable(job.place, tables))
            else ANEW
        )
        raise InputError("tables differ from their declaration:\n" + "\n".join(wrong) + f"\n{remedy}")
    return Outcome({"tables": len(found), "missing": sorted(set(tables) - set(found))}, said=f"{len(found)} tables are as declared.")


def _upgraded(job: Job, tables: dict[str, Any]) -> Outcome:
    """Only columns that may be NULL, and only where all tables are as declared then: everything else needs rows written anew."""
    added = dictionary.upgradable(job.place, tables)
    found = {name: differences for name, differences in dictionary.checked(job.place, tables).items() if name not in added}
    wrong = [f"{name}: {text}" for name, differences in found.items() for text in differences]
    if wrong:
        raise InputError("expected missing columns that may be NULL and no other difference, found:\n" + "\n".join(wrong) + f"\n{ANEW}")
    for name, columns in added.items():
        direct.add_columns(job.place, tables[name], columns)
    said = "\n".join(f"{name}: added {', '.join(columns)}; older rows hold NULL there: not recorded." for name, columns in added.items())
    return Outcome({"added": added}, said=said or "Nothing to add.")


def doctor(job: Job, jars_only: JarsOnly = False) -> Outcome:
    """Says in one line each what is missing on this machine and how to mend it."""
    if jars_only:
        paths = ",".join(str(path) for path in jars.ensure(job.conf.spark.jars))
        return Outcome({"jars": paths}, said=paths)
    findings = [*diagnosis.examine(job.conf), *reach(job)]
    rows = [
        {"what": f.what, "found": f.found, "fine": "yes" if f.fine else "NO", "how to mend it": "" if f.fine else f.remedy}
        for f in findings
    ]
    broken = [f for f in findings if not f.fine]
    return Outcome({"findings": rows}, {"slidr doctor": rows}, f"{len(broken)} to mend." if broken else "All fine.", 75 if broken else 0)


def reach(job: Job) -> list[diagnosis.Finding]:
    """How far back a replay can go, where the lake can be reached without Spark: this command says what is wrong with Java, too."""
    from slidr.replay import horizon

    what, remedy = "oldest replayable hour", "bring the files back from a copy of the lake, or ingest and score these days again"
    root = job.conf.lake.root
    if not direct.reaches(root, job.conf.lake.catalog):
        return [diagnosis.Finding(what, "not looked at: the tables are in a catalog or a store that only Spark reaches", True, "")]
    try:
        found = horizon.look(direct.Place(root), job.conf, job.now)  # not the job's own: this command leaves no row in `runs`
    except (InputError, SetupError) as error:
        return [diagnosis.Finding(what, str(error), False, "mend what the line says")]
    if not found.modes:
        return [diagnosis.Finding(what, "no clicks in the lake yet", True, "")]
    rows = [diagnosis.Finding(f"{what}, {one.mode}", f"{_since(one.since)}: {one.why}", not one.lost, remedy) for one in found.modes]
    commits = ", ".join(f"{name} {number} of {time:%Y-%m-%d %H:%M} UTC" for name, (number, time) in found.commits.items())
    return [*rows, diagnosis.Finding("oldest readable commit", commits, True, "")]


def _since(time: datetime | None) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC" if time else "none"


if __name__ == "__main__":
    from slidr.cli import main

    main(sys.argv[1:])
