"""Looking things up: queries on the tables, the list of tables, and what is wrong with this machine."""

import sys
from typing import Annotated

import typer

from slidr import diagnosis, jars, tables
from slidr.errors import UsageError
from slidr.run import Job, Outcome
from slidr.tables import features_table

Query = Annotated[str, typer.Argument(metavar="QUERY", help="A SELECT over the tables, named as in `slidr tables`.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Rows shown.")]
JarsOnly = Annotated[bool, typer.Option("--jars", help="Prints the Delta jars, comma separated, for spark-submit --jars.")]


def sql(job: Job, query: Query, limit: Limit = 100) -> Outcome:
    """Runs a query over the lake's tables; reads only."""
    for table in tables.ALL:
        if job.lake.exists(table):
            job.lake.read(table).createOrReplaceTempView(table.name)
    features = features_table(job.conf.spec)
    if job.lake.exists(features):
        job.lake.read(features).createOrReplaceTempView("features")
    require_query(job, query)
    found = job.spark.sql(query).limit(limit + 1).toPandas()
    rows = found.head(limit).astype(object).where(found.head(limit).notna(), None).to_dict("records")
    note = f"First {limit} rows; --limit shows more." if len(found) > limit else ""
    return Outcome({"rows": rows}, {f"{len(rows)} rows": rows}, note)


def require_query(job: Job, query: str) -> None:
    """Raises UsageError for anything that is not a query: this command must not change a table."""
    starts = query.strip().upper().split(maxsplit=1)[:1]
    plan = job.spark._jsparkSession.sessionState().sqlParser().parsePlan(query).toString()
    if starts not in (["SELECT"], ["WITH"]) or "InsertInto" in plan:
        raise UsageError(
            "expected a query that begins with SELECT or WITH, found another statement; tables change through slidr's commands only"
        )


def list_tables(job: Job) -> Outcome:
    """Lists the tables with their versions, rows and meaning."""
    rows = []
    for table in (*tables.ALL, features_table(job.conf.spec)):
        version = job.lake.version(table)
        count = job.lake.read(table).count() if version >= 0 else None
        rows.append({"table": table.name, "version": version, "rows": count, "grain": " x ".join(table.grain), "holds": table.comment})
    return Outcome({"tables": rows}, {"Tables": rows})


def doctor(job: Job, jars_only: JarsOnly = False) -> Outcome:
    """Says in one line each what is missing on this machine and how to mend it."""
    if jars_only:
        paths = ",".join(str(path) for path in jars.ensure(job.conf.spark.jars))
        return Outcome({"jars": paths}, said=paths)
    findings = diagnosis.examine(job.conf)
    rows = [
        {"what": f.what, "found": f.found, "fine": "yes" if f.fine else "NO", "how to mend it": "" if f.fine else f.remedy}
        for f in findings
    ]
    broken = [f for f in findings if not f.fine]
    return Outcome({"findings": rows}, {"slidr doctor": rows}, f"{len(broken)} to mend." if broken else "All fine.", 75 if broken else 0)


if __name__ == "__main__":
    from slidr.cli import main

    main(sys.argv[1:])
