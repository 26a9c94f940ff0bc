"""Text of the files -> typed rows of each table, each with the first reason why it can't be used, or none.

One pass for all tables of a source; the columns of table T are named `T__field`, and `T__in` says whether the row is one of T's.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from slidr.config import Config
from slidr.errors import ConfigError
from slidr.hashing import row_hash
from slidr.ingest.address import ip_key
from slidr.ingest.hiding import hidden_fields, hide, raw
from slidr.ingest.read import BOOLEAN, EPOCH, NUMBER, TEXT, TIME, Wanted
from slidr.ingest.sessions import PREFIX
from slidr.ingest.sources import EPOCHS, FieldMap, Source, Target, field_maps, target
from slidr.ingest.values import MOST_MICROS, as_text, digest, mapped_text, present, read_as
from slidr.pseudonyms import Key
from slidr.tables import CLICKS
from slidr.zones import local_time

WHAT = {"timestamp": "time", "boolean": "boolean", "double": "number", "int": "number", "bigint": "number"}


def wanted_columns(source: Source, conf: Config) -> list[Wanted]:
    """The columns of the files that the source reads, with the kinds of value each must yield."""
    found: dict[str, tuple[set[str], bool, bool]] = {}
    for name, mapping in source.tables.items():
        goal = target(name, conf.spec)
        for field, field_map in field_maps(name, mapping, goal).items():
            kind = _kind(field_map, goal.field(field).type)
            needed = not goal.field(field).nullable and field_map.default is None
            for column in field_map.columns:
                kinds, optional, required = found.get(column, (set(), True, False))
                found[column] = (kinds | {kind}, optional and field_map.optional, required or needed and not field_map.optional)
        if mapping.where:
            kinds, _, required = found.get(mapping.where, (set(), True, False))
            found[mapping.where] = (kinds, False, required)
    return [Wanted(column, frozenset(kinds), optional, required) for column, (kinds, optional, required) in sorted(found.items())]


def _kind(field: FieldMap, kind: str) -> str:
    if field.from_ is None or kind == "string" or field.values or field.contains:
        return TEXT
    if kind == "timestamp":
        return EPOCH if field.format in EPOCHS else TIME
    return BOOLEAN if kind == "boolean" else NUMBER


def check_source(source: Source, conf: Config) -> None:
    """Raises ConfigError where the source names a marketplace or a feature that the configuration lacks."""
    for name, mapping in source.tables.items():
        place = mapping.columns.get("marketplace")
        if place and place.constant is not None and str(place.constant) not in conf.marketplaces:
            known = ", ".join(sorted(conf.marketplaces))
            raise ConfigError(
                f"the source {source.name} sets the marketplace {place.constant}, expected one of the configuration's: {known}; "
                "add it with its time zone under `marketplaces`, or change the source"
            )
        if name == "features":
            _check_features(source, target(name, conf.spec))


def _check_features(source: Source, goal: Target) -> None:
    mapping = source.tables["features"]
    known = {field.name: field for field in goal.fields}
    unknown = [name for name in (*mapping.columns, *mapping.absent) if name not in known]
    fixed = [name for name in mapping.absent if name in known and not known[name].nullable]
    if unknown or fixed:
        raise ConfigError(
            f"the source {source.name} names features that the feature spec lacks ({', '.join(unknown) or 'none'}) "
            f"or that can't be absent ({', '.join(fixed) or 'none'}); expected some of {', '.join(known)}"
        )


def parse(
    rows: DataFrame, *, source: Source, wanted: Sequence[Wanted], conf: Config, now: datetime, key: Key | None, every_raw: bool = False
) -> DataFrame:
    """Typed rows: `_file`, `_raw`, and for each table its fields, derived columns, `T__in`, `T___reason` and `T___content`.

    `_content` is a hash of what the row says, apart from when it arrived and a session made by a gap: rows of one id
    with one content are duplicates. `_raw` is filled for rows with a reason, the others' would be written for nothing;
    `every_raw` fills it everywhere. With a `key` users and addresses are pseudonyms, in `_raw` too.
    """
    column = {w.name: F.col(f"v{i}") for i, w in enumerate(wanted)}
    goals = {name: target(name, conf.spec) for name in source.tables}
    maps = {name: field_maps(name, source.tables[name], goal) for name, goal in goals.items()}
    texts = {f"{name}__{f}": mapped_text(m, column) for name in goals for f, m in maps[name].items() if m.row_id is None}
    rows = rows.withColumns({f"{key}__text": text for key, text in texts.items()})
    times = {w.name: F.col(f"t{i}") for i, w in enumerate(wanted) if w.timed}
    rows = rows.withColumns(_typed(goals, maps, times))
    rows = rows.withColumn("clicks__ip_key", ip_key(F.col("clicks__ip"))) if "clicks" in goals else rows
    if key:  # before ids are made of the row
        rows = hide(rows, hidden_fields(goals, maps), key)
        rows = rows.withColumn("_raw", raw(wanted, maps, key))
    rows = _with_row_ids(rows, goals, maps)
    for position, (name, goal) in enumerate(goals.items()):
        mapping, malformed = source.tables[name], F.col("_malformed")
        fields = _field_reasons(name, goal, maps[name], column=column, gap=mapping.session_gap)
        # Before the defaults are filled in: a value that can't be read must not pass for one that was not given.
        rows = _derived(rows.withColumn(f"{name}__reason__text", F.coalesce(*fields)), name, goal, conf=conf)
        reasons = [F.col(f"{name}__reason__text"), *(_time_reasons(name, goal, conf=conf, now=now) if goal.time else [])]
        inside = present(column[mapping.where]).isNotNull() if mapping.where else F.lit(True)
        # A malformed row has no columns to say which tables it was for; it is a reject of the source's first table.
        rows = rows.withColumns(
            {
                f"{name}__in": F.when(malformed, F.lit(position == 0)).otherwise(inside),
                f"{name}___reason": F.when(malformed, F.lit("malformed")).otherwise(F.coalesce(*reasons)),
                f"{name}___content": content(goal, prefix=f"{name}__"),
            }
        )
    kept = [c for c in rows.columns if "__" in c and not c.endswith("__text")]
    refused = F.coalesce(*[F.col(f"{name}___reason") for name in goals]).isNotNull()
    return rows.select("_file", F.when(refused | F.lit(every_raw), F.col("_raw")).alias("_raw"), *kept)


def _typed(goals: Mapping[str, Target], maps: Mapping[str, Mapping[str, FieldMap]], times: Mapping[str, Column]) -> dict[str, Column]:
    typed = {}
    for name, goal in goals.items():
        for field in goal.fields:
            field_map = maps[name].get(field.name)
            if field_map is None:
                typed[f"{name}__{field.name}"] = F.lit(None).cast(field.type)
            elif field_map.row_id is None:
                value = read_as(F.col(f"{name}__{field.name}__text"), field.type, field_map, money=field.name.endswith("_micros"))
                has_time = field.type == "timestamp" and field_map.from_ in times
                typed[f"{name}__{field.name}"] = F.coalesce(times[str(field_map.from_)], value) if has_time else value
    return typed


def _with_row_ids(rows: DataFrame, goals: Mapping[str, Target], maps: Mapping[str, Mapping[str, FieldMap]]) -> DataFrame:
    """Ids of rows without one: equal rows of a file are told apart by their ordinal; their order can't matter, being equal."""
    for name in sorted({m.row_id for fields in maps.values() for m in fields.values() if m.row_id}):
        mapped = [f for f in goals[name].fields if f.name in maps[name] and maps[name][f.name].row_id is None]
        same = digest([as_text(F.col(f"{name}__{f.name}"), f.type) for f in mapped])
        rows = rows.withColumn("_same", same)
        ordinal = F.row_number().over(Window.partitionBy("_file", "_same").orderBy("_same"))
        made = digest([F.col("_same"), ordinal.cast("string")])
        ids = {f"{t}__{f}": F.col("_made") for t, fields in maps.items() for f, m in fields.items() if m.row_id == name}
        rows = rows.withColumn("_made", made).withColumns(ids).drop("_same", "_made")
    return rows


def _derived(rows: DataFrame, name: str, goal: Target, *, conf: Config) -> DataFrame:
    def col(field: str) -> Column:
        return F.col(f"{name}__{field}")

    if name == "decisions":
        return rows.withColumns({"decisions__slice": F.coalesce(col("slice"), F.lit("")), "decisions__score": F.round(col("score"), 6)})
    if name == "features":
        return rows
    rows = rows.withColumns(
        {
            f"{name}__{goal.day}": F.to_date(col(goal.time)),
            f"{name}__arrival_time": F.coalesce(col("arrival_time"), col(goal.time)),
        }
    )
    if name == "purchases":
        return rows.withColumn("purchases__cancelled", F.coalesce(col("cancelled"), F.lit(False)))
    return rows.withColumns(
        {
            "clicks__local_date": F.to_date(local_time(col("click_time"), col("marketplace"), conf.marketplaces)),
            "clicks__logged_in": F.coalesce(col("logged_in"), col("user_id").isNotNull()),
        }
    )


def _field_reasons(name: str, goal: Target, maps: Mapping[str, FieldMap], *, column: Mapping[str, Column], gap: bool) -> list[Column]:
    """Why the fields can't be used, in order; the first that is not NULL counts."""
    reasons = [F.lit(None).cast("string")]
    for field in goal.fields:
        value, field_map = F.col(f"{name}__{field.name}"), maps.get(field.name)
        if field_map and field_map.row_id is None:
            text = F.col(f"{name}__{field.name}__text")
            if field_map.values is not None:
                unknown = present(column[str(field_map.from_)]).isNotNull() & text.isNull()
                reasons.append(F.when(unknown, F.lit(f"unknown_value: {field.name}")))
            if field.type in WHAT:
                reasons.append(F.when(text.isNotNull() & value.isNull(), F.lit(f"not_a_{WHAT[field.type]}: {field.name}")))
        if not field.nullable and field.name not in goal.defaulted and not (gap and field.name == "session_id"):
            reasons.append(F.when(value.isNull(), F.lit(f"null: {field.name}")))
        if field.name.endswith("_micros"):
            reasons.append(F.when(value < 0, F.lit(f"negative: {field.name}")))
            reasons.append(F.when(value > MOST_MICROS, F.lit(f"too_large: {field.name}")))
        if field.name in ("score", "threshold"):
            reasons.append(F.when(~value.between(0, 1), F.lit(f"out_of_range: {field.name}")))
    return reasons


def _time_reasons(name: str, goal: Target, *, conf: Config, now: datetime) -> list[Column]:
    """Marketplaces that are not configured, and times that can't be."""
    time, tolerance = F.unix_micros(f"{name}__{goal.time}"), conf.ingest.future_tolerance_minutes * 60_000_000
    earliest = F.unix_micros(F.lit(conf.ingest.earliest.isoformat()).cast("timestamp"))
    reasons = [F.when(time < earliest, F.lit(f"too_early: {goal.time}"))]
    noun = goal.time.removesuffix("_time").replace("decided", "decision")
    latest = F.lit(int(now.timestamp()) * 1_000_000 + tolerance)
    reasons.append(F.when(time > latest, F.lit(f"future_{noun}")))
    if name in ("clicks", "purchases"):
        arrival = F.unix_micros(f"{name}__arrival_time")
        reasons.append(F.when(time > arrival + tolerance, F.lit(f"future_{noun}")))
        reasons.append(F.when(arrival > latest, F.lit("future_arrival")))
        known = F.col(f"{name}__marketplace").isin(sorted(conf.marketplaces))
        reasons.append(F.when(~known, F.lit("unknown_marketplace")))
    return reasons


def content(goal: Target, *, prefix: str = "") -> Column:
    """Hash of what a row says, apart from its arrival, and from its session where slidr made it."""
    values = {f.name: F.col(prefix + f.name) for f in goal.fields if f.name != "arrival_time"}
    if goal.table is CLICKS:
        session = values["session_id"]
        values["session_id"] = F.when(~session.startswith(PREFIX), session)
    return row_hash(*values.values())
