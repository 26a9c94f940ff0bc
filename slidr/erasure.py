"""Erasing people from a lake: what names them is emptied where it stands, the rows stay.

Rows stay because clicks are money: decisions, statements and corrections must go on adding up, and a row whose id is gone would come
back with the next delivery of its file. What is emptied is said once, as `personal` in `tables`.
"""

import json
import re
from collections.abc import Callable, Sequence
from datetime import date
from typing import cast

import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from slidr import direct, rewriting
from slidr.errors import InputError
from slidr.lake import Lake
from slidr.pseudonyms import Key
from slidr.tables import CLICKS, ERASED, PURCHASES, REJECTS, Table

EMPTY = '{"erased": true}'  # in place of what a reject said
MOST = 1000  # users of one run
ORDER = (REJECTS, PURCHASES, CLICKS)


def erase(lake: Lake, users: Sequence[str], key: Key | None, *, run_id: str, day: date) -> dict[str, int]:
    """Empties the users' personal columns and returns the rows by table; 0 everywhere where nothing is left to erase.

    A user's rows are those with the id, and those without any id in a session that has the id: the same visit before the log-in.
    `key` is that of a lake with pseudonyms. Ids of the rows are put on record in `erased`, under `day`. Raises InputError for no user or
    too many, ConflictError beside another writer.
    """
    if not users or len(users) > MOST or not all(users):
        raise InputError(f"expected 1 to {MOST} user ids, one a line, found {len(users)}; give more in several runs")
    names = [*users, *[key.of("user_id", user) for user in users if key]]
    found = {REJECTS.name: _erase_rejects(lake, names)}
    for table in (PURCHASES, CLICKS):
        mine = _rows_of(lake, table, names)
        found[table.name] = 0 if mine is None else _empty(lake, table, mine, run_id=run_id, day=day)
    return found


def purge(lake: Lake) -> int:
    """Removes the files that erasures and other commits have replaced, with all older states of these tables; returns their number."""
    require_purgeable(lake)
    return sum(direct.purge(lake, table) for table in ORDER if lake.exists(table))


def require_purgeable(lake: Lake) -> None:
    """Raises InputError where the files can't be reached without Spark."""
    if not direct.reaches(lake.root, lake.catalog):
        raise InputError(
            f"expected a lake whose files can be reached without Spark, found {lake.catalog or lake.root}; leave out --purge, and "
            f"run VACUUM on {', '.join(table.name for table in ORDER)} with the catalog's own means"
        )


def _erase_rejects(lake: Lake, names: Sequence[str]) -> int:
    if not lake.exists(REJECTS):
        return 0
    named = lake.read(REJECTS).where(_mention(names)(F.col("raw")))
    days = sorted(row[0] for row in named.select(REJECTS.day).distinct().collect())
    if not days:
        return 0
    count = named.count()
    rows = lake.read(REJECTS, days)
    lake.replace_days(rows.withColumn("raw", F.when(_mention(names)(F.col("raw")), F.lit(EMPTY)).otherwise(F.col("raw"))), REJECTS, days)
    return count


def _mention(names: Sequence[str]) -> Callable[[Column], Column]:
    """Whether a text has one of the names as a word of its own, as it is or as JSON or CSV spells it.

    A function of Python, and users as rows below: a condition with their ids in it would stand in Delta's log and in Spark's.
    """
    forms = [(name, json.dumps(name)[1:-1], json.dumps(name, ensure_ascii=False)[1:-1], name.replace('"', '""')) for name in names]
    spelled = {form for each in forms for form in each}
    word = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, sorted(spelled)))})(?![\w-])")

    @F.pandas_udf("boolean")  # type: ignore[call-overload, untyped-decorator] # its types lack the default kind of function
    def mentions(texts: pd.Series) -> pd.Series:
        return texts.map(lambda text: word.search(text) is not None).astype(bool)

    return cast("Callable[[Column], Column]", mentions)


def _rows_of(lake: Lake, table: Table, names: Sequence[str]) -> DataFrame | None:
    """The rows of a table that still tell of these users; None where there is no table."""
    if not lake.exists(table):
        return None
    rows, users = lake.read(table), F.broadcast(lake.spark.createDataFrame([(name,) for name in names], "user_id string"))
    mine = rows.join(users, on="user_id", how="left_semi").select(table.names)
    if table is not CLICKS:
        return mine
    visits = mine.select("session_id").distinct()
    telling = F.col("user_id").isNull() & F.coalesce(*[F.col(name) for name in table.personal]).isNotNull()
    return mine.unionByName(rows.where(telling).join(F.broadcast(visits), on="session_id", how="left_semi").select(table.names))


def _empty(lake: Lake, table: Table, mine: DataFrame, *, run_id: str, day: date) -> int:
    days = sorted(row[0] for row in mine.select(table.day).distinct().collect())
    if not days:
        return 0
    ids = mine.select(F.lit(table.name).alias("table_name"), F.col(table.grain[0]).alias("row_id"), F.lit(run_id).alias("run_id"))
    lake.create(ERASED)
    lake.insert_new(ids.withColumn("erased_date", F.lit(day)), ERASED, [day])
    count = mine.count()
    emptied = mine.withColumns({name: F.lit(None).cast("string") for name in table.personal}).select(table.names)
    rewriting.replace_rows(lake, emptied, table, days, table.personal, rows=count)
    return count
