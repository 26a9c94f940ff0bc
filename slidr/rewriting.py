"""Rows of a table replaced by their key: tasks read and write the files that hold one of them, and no other file.

Delta's own MERGE sends all columns of all rows of these files through a join; here only the rows that change are moved.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import cached_property
from math import ceil

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from slidr import data_files
from slidr.data_files import DataFile, Files
from slidr.lake import BROADCAST_KEYS, Lake, conform, in_days
from slidr.new_files import WRITTEN, Target, Writer, Written
from slidr.pyworker import give_back
from slidr.tables import Table

INTO, GONE = "into", "gone"  # columns beside those of the table: the file that holds the row, or a new one; whether it is deleted
ROWS_OF_A_FILE = 500_000
REWRITTEN = pa.schema([("replaced", pa.string()), *WRITTEN])


def replace_rows(
    lake: Lake, df: DataFrame, table: Table, days: Sequence[date], update: Sequence[str], *, rows: int, delete: Column | None = None
) -> None:
    """Replaces the columns `update` of rows whose key is there, inserts the other rows, and deletes those whose new row fulfils `delete`,
    in one commit.

    `df` must hold each key once, only keys of `days`, be cheap to read twice, and have about `rows` rows. Raises ConflictError where
    another writer changed these days meanwhile, InputError for a NULL where none is allowed; nothing is committed then.
    """
    before = data_files.of(lake, table, days)
    gone = F.lit(False) if delete is None else delete
    placed = _placed(lake, conform(df, table).withColumn(GONE, gone), table, days, rows)
    rewriting = _Rewriting(before, Target(before.uri, table), tuple(update))
    # Spark counts the parameters of what it is given, and takes a method for a function of key and rows.
    made = placed.groupBy(INTO).applyInArrow(lambda rows: rewriting.run(rows), from_arrow_schema(REWRITTEN)).collect()
    replaced = [rewriting.by_name[row["replaced"]] for row in made if row["replaced"]]
    written = [Written(*[row[name] for name in WRITTEN.names]) for row in made if row["path"]]
    data_files.rewrite(lake, rewriting.target, before, days, replaced, written)


def _placed(lake: Lake, df: DataFrame, table: Table, days: Sequence[date], rows: int) -> DataFrame:
    """The rows with the name of the file that holds their key; new keys with one that no file has."""
    key = table.grain[0]
    file = F.element_at(F.split("_metadata.file_path", "/"), -1)
    there = lake.delta(table).toDF().where(in_days(F.col(table.day), days)).select(key, file.alias(INTO))
    keys, few = df.select(key), rows <= BROADCAST_KEYS
    found = there.join(F.broadcast(keys) if few else keys, on=key, how="inner")
    share = F.pmod(F.xxhash64(key), F.lit(ceil(rows / ROWS_OF_A_FILE) or 1))
    new = F.concat_ws("/", F.col(table.day).cast("string"), share.cast("string"))
    return df.join(F.broadcast(found) if few else found, on=key, how="left").withColumn(INTO, F.coalesce(INTO, new))


@dataclass(frozen=True)
class _Rewriting:
    """What each task knows."""

    before: Files
    target: Target
    update: tuple[str, ...]

    @cached_property
    def by_name(self) -> dict[str, DataFile]:
        return {file.path.rsplit("/", 1)[-1]: file for file in self.before.files}

    def run(self, rows: pa.Table) -> pa.Table:
        """Writes one file anew with its new rows, or a new file with rows of one day; REWRITTEN."""
        give_back()
        table, name = self.target.table, rows[INTO][0].as_py()
        kept = [column.name for column in table.columns if column.name != table.day]
        gone, day = rows[GONE].combine_chunks(), rows[table.day][0].as_py()
        new = rows.select(kept).cast(pa.schema([data_files.schema(table).field(column) for column in kept])).combine_chunks()
        file = self.by_name.get(name)
        with Writer(self.target) as writer:
            if file:
                for batch in self.before.batches(file, kept):
                    writer.add(self._updated(pa.Table.from_batches([batch]), new, gone), day)
            elif "/" in name:  # else a file that came after `before`: then the commit is refused
                writer.add(new.filter(pc.invert(gone)), day)
            written = [asdict(made) for made in writer.finish()]
        return pa.Table.from_pylist([row | {"replaced": name if file else None} for row in _or_none(written)], schema=REWRITTEN)

    def _updated(self, old: pa.Table, new: pa.Table, gone: pa.Array) -> pa.Table:
        key = self.target.table.grain[0]
        places = pc.index_in(old[key].combine_chunks(), new[key].combine_chunks())
        is_new = pc.is_valid(places)
        for name in self.update:
            column = pc.if_else(is_new, new[name].combine_chunks().take(places), old[name].combine_chunks())
            old = old.set_column(old.schema.get_field_index(name), name, column)
        return old.filter(pc.invert(pc.fill_null(gone.take(places), False)))


def _or_none(written: list[dict[str, object]]) -> Iterator[dict[str, object]]:
    """The files, or one row of NULLs where a file has no row left."""
    yield from written or [dict.fromkeys(WRITTEN.names)]
