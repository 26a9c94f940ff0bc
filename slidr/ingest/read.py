"""Raw files -> one frame of text: `_file`, `_raw`, `_malformed`, and one column `v<i>` for each column that the source names.

Nothing is interpreted here; a row that does not follow its format has `_malformed` and no values. Blank lines are no rows.
A time that a Parquet file has as a timestamp goes on as one, in `t<i>`: a text would be made of it only to be read again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from slidr.errors import InputError
from slidr.ingest.files import InputFile, first_line, header
from slidr.ingest.sources import Source

TIME, EPOCH, NUMBER, BOOLEAN, TEXT = "time", "epoch", "number", "boolean", "text"
NUMBERS = (T.ByteType, T.ShortType, T.IntegerType, T.LongType, T.FloatType, T.DoubleType, T.DecimalType)
# Possessive quantifiers: Java's engine recurses on alternatives and would run out of stack on a very long line.
QUOTED = r'"([^"\\]*+(?:\\.[^"\\]*+)*+)"'
COMBINED = rf"^(\S++) (\S++) (.*?) \[([^\]]*+)\] {QUOTED} (\d{{3}}) (\d++|-) {QUOTED} {QUOTED}\s*$"
COMBINED_COLUMNS = ("host", "ident", "user", "time", "request", "status", "bytes", "referer", "user_agent")
REQUEST_COLUMNS = ("method", "path", "path_1")  # path_1 is the first segment of the path
SEPARATOR = "\u0001"
SAMPLE_LINES = 1000


@dataclass(frozen=True)
class Wanted:
    """A column of the file: the kinds of value it must yield, whether a file may lack it, and whether rows must have it."""

    name: str
    kinds: frozenset[str]
    optional: bool
    required: bool

    @property
    def timed(self) -> bool:
        return bool(self.kinds & {TIME, EPOCH})


def read_files(spark: SparkSession, files: Sequence[InputFile], source: Source, wanted: Sequence[Wanted]) -> DataFrame:
    """All rows of the files. Raises InputError where a file lacks a named column or has it in a type that can't fit."""
    readers = {"csv": _read_csv, "jsonl": _read_jsonl, "parquet": _read_parquet, "apache_combined": _read_apache}
    frames = []
    for format, reader in readers.items():
        mine = [file for file in files if file.format == format]
        if mine:
            frames += reader(spark, mine, source, wanted)
    if not frames:
        raise InputError(f"expected rows in {', '.join(f.name for f in files[:5])}, found only empty files; check the delivery")
    rows = reduce(DataFrame.unionByName, frames)
    names = spark.createDataFrame([(file.uri, file.name) for file in files], "_uri string, _file string")
    rows = rows.join(F.broadcast(names), on="_uri", how="left")
    return rows.withColumn("_file", F.coalesce("_file", "_uri")).drop("_uri")


def _frame(
    rows: DataFrame,
    raw: Column,
    malformed: Column,
    values: Mapping[str, Column],
    wanted: Sequence[Wanted],
    times: Mapping[str, Column] | None = None,
) -> DataFrame:
    absent, no_time = F.lit(None).cast("string"), F.lit(None).cast("timestamp")
    columns = [F.make_valid_utf8(F.when(~malformed, values.get(w.name, absent))).alias(f"v{i}") for i, w in enumerate(wanted)]
    columns += [(times or {}).get(w.name, no_time).alias(f"t{i}") for i, w in enumerate(wanted) if w.timed]
    uri = F.regexp_replace("_metadata.file_path", "^file:/+", "file:/").alias("_uri")
    return rows.select(uri, F.make_valid_utf8(raw).alias("_raw"), malformed.alias("_malformed"), *columns)


def _check(where: str, found: Sequence[str], wanted: Sequence[Wanted], *, only_required: bool = False) -> None:
    lines = []
    for column in wanted:
        if column.name in found or column.optional or (only_required and not column.required):
            continue
        same = [name for name in found if name.lower() == column.name.lower()]
        near = same or get_close_matches(column.name, found, n=1)
        lines.append(f"{column.name!r}" + (f" (did the file mean {near[0]!r}?)" if near else ""))
    if lines:
        # A first line without any name that was looked for is hardly a header: it may be a row, with an address and a user.
        header = set(found) & {column.name for column in wanted} or any("(" in line for line in lines)
        told = ", ".join(found) or "none" if header else f"{len(found)} others; does the file begin with a header?"
        raise InputError(
            f"expected the columns {', '.join(lines)} in {where}, found {told}; "
            "correct the file, or name its columns in a source of your own"
        )


def _read_csv(spark: SparkSession, files: Sequence[InputFile], source: Source, wanted: Sequence[Wanted]) -> list[DataFrame]:
    # One reader per distinct header: columns are read by position, and another file may have them in another order.
    options = source.options
    groups: dict[tuple[str, ...], list[InputFile]] = {}
    for file in files:
        delimiter = "\t" if file.name.lower().removesuffix(".gz").endswith(".tsv") else options.delimiter
        line = first_line(spark, file)
        if line is None:
            continue
        names = tuple(header(line, delimiter=delimiter, quote=options.quote)) if options.header else options.columns
        groups.setdefault((delimiter, *names), []).append(file)
    return [_csv_group(spark, group, source, wanted, names=key[1:], delimiter=key[0]) for key, group in groups.items()]


def _csv_group(
    spark: SparkSession, files: Sequence[InputFile], source: Source, wanted: Sequence[Wanted], *, names: tuple[str, ...], delimiter: str
) -> DataFrame:
    _check(files[0].name, names, wanted)
    double = sorted({name for name in names if names.count(name) > 1} & {w.name for w in wanted})
    if double:
        raise InputError(f"expected each column once in {files[0].name}, found {', '.join(double)} more than once; rename one of them")
    options = source.options
    schema = T.StructType([T.StructField(f"c{i}", T.StringType()) for i in range(len(names))] + [T.StructField("_bad", T.StringType())])
    reader = spark.read.schema(schema).options(
        header=options.header, sep=delimiter, quote=options.quote, escape=options.escape, multiLine=options.multiline
    )
    reader = reader.options(mode="PERMISSIVE", columnNameOfCorruptRecord="_bad", enforceSchema=True, encoding="UTF-8")
    rows = reader.csv([file.glob for file in files])
    whole = F.to_json(F.struct(*[F.col(f"c{i}").alias(name or f"column {i + 1}") for i, name in enumerate(names)]))
    values = {name: F.col(f"c{i}") for i, name in enumerate(names)}
    return _frame(rows, F.coalesce("_bad", whole), F.col("_bad").isNotNull(), values, wanted)


def _read_jsonl(spark: SparkSession, files: Sequence[InputFile], source: Source, wanted: Sequence[Wanted]) -> list[DataFrame]:
    lines = _lines(spark, files)
    # Writers leave NULL keys out, so only a required column can be missed, and a sample of lines is enough for a clear message.
    keys = lines.limit(SAMPLE_LINES).select(F.explode(F.json_object_keys("value")).alias("key")).distinct().collect()
    found = sorted(row.key for row in keys)
    if found:
        _check(files[0].name, found, wanted, only_required=True)
    names = sorted({w.name for w in wanted})
    fields = [T.StructField(name, T.StringType()) for name in names] + [T.StructField("_bad", T.StringType())]
    parsed = F.from_json("value", T.StructType(fields), {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": "_bad"})
    rows = lines.withColumn("_parsed", parsed)
    malformed = ~F.ltrim("value").startswith("{") | F.col("_parsed").isNull() | F.col("_parsed").getField("_bad").isNotNull()
    values = {name: F.col("_parsed").getField(name) for name in names}
    return [_frame(rows, F.col("value"), malformed, values, wanted)]


def _read_apache(spark: SparkSession, files: Sequence[InputFile], source: Source, wanted: Sequence[Wanted]) -> list[DataFrame]:
    _check("an Apache combined log", COMBINED_COLUMNS + REQUEST_COLUMNS, wanted)
    matched = F.col("value").rlike(COMBINED) & ~F.col("value").contains(SEPARATOR)
    groups = SEPARATOR.join(f"${i + 1}" for i in range(len(COMBINED_COLUMNS)))
    parts = F.split(F.regexp_replace("value", COMBINED, groups), SEPARATOR)
    rows = _lines(spark, files).withColumn("_parts", F.when(matched, parts))
    values = {name: F.nullif(F.col("_parts").getItem(i), F.lit("-")) for i, name in enumerate(COMBINED_COLUMNS)}
    path = F.regexp_extract(values["request"], r"^\S+ (\S+)", 1)
    values |= {"method": F.regexp_extract(values["request"], r"^(\S+)", 1), "path": path}
    values |= {"path_1": F.regexp_extract(path, r"^(?:https?://[^/]+)?/+([^/?#]+)", 1)}
    return [_frame(rows, F.col("value"), F.col("_parts").isNull(), values, wanted)]


def _lines(spark: SparkSession, files: Sequence[InputFile]) -> DataFrame:
    rows = spark.read.text([file.glob for file in files]).select(F.make_valid_utf8("value").alias("value"), "_metadata")
    return rows.where(F.trim("value") != "")


def _read_parquet(spark: SparkSession, files: Sequence[InputFile], source: Source, wanted: Sequence[Wanted]) -> list[DataFrame]:
    try:
        rows = spark.read.option("mergeSchema", True).parquet(*[file.glob for file in files])
    except Exception as error:
        hint = "write its times with microseconds" if "NANOS" in str(error) else "check that each is a whole Parquet file of one schema"
        raise InputError(f"could not read {files[0].name} as Parquet: {str(error).splitlines()[0][:300]}; {hint}") from error
    _check(files[0].name, rows.columns, wanted)
    types = {field.name: field.dataType for field in rows.schema.fields}
    wrong = [problem for w in wanted if w.name in types for problem in _misfits(w, types[w.name])]
    if wrong:
        raise InputError(f"{files[0].name} has columns of the wrong type: {'; '.join(wrong)}; write them in another type")
    whole = F.to_json(F.struct(*[F.col(f"`{name}`") for name in rows.columns]))
    found = {w.name: F.col(f"`{w.name}`") for w in wanted if w.name in types}
    times = {name: column for name, column in found.items() if isinstance(types[name], T.TimestampType)}
    values = {name: column.cast("string") for name, column in found.items() if name not in times}
    return [_frame(rows, whole, F.lit(False), values, wanted, times)]


def _misfits(column: Wanted, kind: T.DataType) -> list[str]:
    """Why a Parquet type can't be read as what the source makes of it."""
    fits: dict[str, tuple[type[T.DataType], ...]] = {
        TIME: (T.TimestampType, T.TimestampNTZType, T.DateType),
        EPOCH: (*NUMBERS, T.TimestampType),
        NUMBER: NUMBERS,
        BOOLEAN: (T.BooleanType, *NUMBERS),
        TEXT: (*NUMBERS, T.BooleanType),
    }
    if isinstance(kind, T.NullType | T.StringType) or all(isinstance(kind, fits[k]) for k in column.kinds):
        return []
    return [f"{column.name}: expected a {' and '.join(sorted(column.kinds))} or text, found {kind.simpleString()}"]
