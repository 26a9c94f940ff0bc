"""What the tasks of scoring do: read files by their names, bring what belongs together to one place, decide, write. Without Spark.

Rows are large where they are moved: all rows of a file that go to one part, as Arrow's own bytes. A part is a share of one day's clicks,
small enough for the memory of a task and large enough for a file.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pandas.util import hash_array

from slidr import data_files
from slidr.bundle import Bundle, forward
from slidr.data_files import DataFile, Files
from slidr.deciding.verdict import verdicts
from slidr.direct import ARROW
from slidr.new_files import WRITTEN, Target
from slidr.pyworker import give_back
from slidr.scoring import NOTHING, REASONS, USED, nothing, scores_and_reasons, unexplained
from slidr.tables import CLICKS, CURRENT_DECISIONS, DECISIONS, SHADOW_DECISIONS, Table

CLICK, DECIDED, PUBLISHED, SHADOWED = "click", "decided", "published", "shadowed"  # kinds of rows on their way
SCORE, LOGGED = "then", "logged"  # of features and what is found of them, followed by the spec, then by the place of the version
OF_CLICKS = [name for name in [*DECISIONS.names, "upstream_filter"] if name in CLICKS.names]
MOVED = pa.schema([("bucket", pa.int32()), ("kind", pa.string()), ("rows", pa.binary())])
DONE = pa.schema([("table", pa.string()), ("counts", pa.string()), *WRITTEN])
GATHERED = 64 << 20  # bytes of rows of a kind that are cut into parts at a time

Batches = Iterable[pa.RecordBatch]
Moving = tuple[str, pa.RecordBatch]  # kind, rows
Kinds = dict[str, list[pa.Table]]
Window = tuple[datetime, datetime]


@dataclass(frozen=True)
class Part:
    """One share of a day: Spark's number for the task that gets it."""

    day: date
    bucket: int


@dataclass(frozen=True)
class Judge:
    """One version of a run: the first decides, what the others say is kept beside it."""

    number: str
    bundle: Bundle

    @property
    def spec_id(self) -> str:
        return self.bundle.spec.spec_id


@dataclass(frozen=True)
class Read:
    """A file to be read, and what its rows are."""

    kind: str
    file: DataFile


@dataclass(frozen=True)
class Work:
    """One run's scoring: what is read, by which versions, where it goes. Travels to the tasks once per process."""

    judges: tuple[Judge, ...]
    sources: dict[str, Files]  # by kind
    reads: tuple[Read, ...]
    parts: tuple[Part, ...]
    targets: dict[str, Target]  # by name of the table
    window: Window
    constants: dict[str, Any]  # columns that are the same for all rows

    def read(self, batches: Batches) -> Iterator[pa.RecordBatch]:
        """Rows of the files with these numbers (column `number`), by part: MOVED."""
        give_back()
        for batch in batches:
            for number in batch.column("number").to_pylist():
                read = self.reads[number]
                buckets = [part.bucket for part in self.parts if part.day == read.file.values[0]]
                for kind, rows in _gathered(self._rows(read)) if len(buckets) > 1 else self._rows(read):
                    yield from _by_part(rows, kind, buckets)

    def _rows(self, read: Read) -> Iterator[Moving]:
        """Rows of a file. Features are read once and scored by all versions of their spec."""
        origin, *of_spec = read.kind.split()
        if of_spec:
            mine = [(place, judge) for place, judge in enumerate(self.judges) if judge.spec_id in of_spec]
            columns = list(dict.fromkeys(name for _, judge in mine for name in judge.bundle.features))
            for rows in self.sources[read.kind].batches(read.file, ["click_id", *columns], inside(self.window)):
                yield from ((f"{origin} {place}", scored(rows, judge.bundle, reasons=place == 0)) for place, judge in mine)
        else:
            columns, where = self._wanted(read.kind)
            yield from ((read.kind, rows) for rows in self.sources[read.kind].batches(read.file, columns, where))

    def _wanted(self, kind: str) -> tuple[list[str], ds.Expression]:
        if kind == SHADOWED:  # these rows have no time
            return ["click_id", "model_version"], ds.field("model_version").isin([judge.number for judge in self.judges[1:]])
        return OF_CLICKS if kind == CLICK else ["click_id"], inside(self.window)

    def decide(self, batches: Batches) -> Iterator[pa.RecordBatch]:
        """Decides and writes the parts of this task; one row per file written: DONE."""
        give_back()
        for bucket, kinds in _unpacked(batches).items():
            day = next(part.day for part in self.parts if part.bucket == bucket)
            if kinds[CLICK]:
                undecided = _without(kinds[CLICK], kinds[DECIDED])
                if undecided.num_rows:
                    yield self._written(self._said(undecided, kinds, 0, DECISIONS), kinds[PUBLISHED], day)
                yield from self._shadows(kinds, day)

    def _shadows(self, kinds: Kinds, day: date) -> Iterator[pa.RecordBatch]:
        """What the versions beside the deciding one say of clicks that they have not said it of before."""
        said = []
        for place, judge in enumerate(self.judges[1:], start=1):
            known = [rows.filter(pc.equal(rows["model_version"], judge.number)) for rows in kinds[SHADOWED]]
            said.append(self._said(_without(kinds[CLICK], known), kinds, place, SHADOW_DECISIONS))
        if sum(map(len, said)):
            yield pa.RecordBatch.from_pylist([self._file(SHADOW_DECISIONS, pa.concat_tables(said), day)], schema=DONE)

    def _said(self, clicks: pa.Table, kinds: Kinds, place: int, table: Table) -> pa.Table:
        """Rows of a table of decisions: what the version at this place says of clicks."""
        judge, schema = self.judges[place], data_files.schema(table)
        rows = {name: clicks[name].combine_chunks() for name in clicks.column_names}
        # A click that has both is scored by what the live system logged: it stands first.
        found = [*kinds[f"{LOGGED} {place}"], *kinds[f"{SCORE} {place}"]]
        rows |= _of_same_click(rows["click_id"], found, score_schema(judge.bundle))
        rows |= verdicts(rows, judge.bundle)
        same = {"model_version": judge.number, "spec_id": judge.spec_id, **self.constants}
        rows |= {name: pa.repeat(pa.scalar(value, schema.field(name).type), len(clicks)) for name, value in same.items()}
        return pa.table({name: rows[name] for name in table.names}, schema=schema)

    def _written(self, decided: pa.Table, published: list[pa.Table], day: date) -> pa.RecordBatch:
        counts = decided.group_by(["basis", "is_invalid"]).aggregate([("click_id", "count")]).to_pylist()
        rows = [self._file(DECISIONS, decided, day) | {"counts": json.dumps(counts)}]
        current = _as_published(_without([decided], published))
        if current.num_rows:
            rows.append(self._file(CURRENT_DECISIONS, current, day))
        return pa.RecordBatch.from_pylist(rows, schema=DONE)

    def _file(self, table: Table, rows: pa.Table, day: date) -> dict[str, Any]:
        return {"table": table.name, **asdict(self.targets[table.name].write(rows.drop_columns([table.day]), day))}


def inside(window: Window) -> ds.Expression:
    """Rows whose click was made in [from, to)."""
    first, last = (pa.scalar(end, ARROW["timestamp"]) for end in window)
    return (ds.field("click_time") >= first) & (ds.field("click_time") < last)


def score_schema(bundle: Bundle) -> pa.Schema:
    """Of what is found of each row of features."""
    texts, used = [(name, pa.string()) for name in REASONS], [(USED + name, pa.float64()) for name in bundle.slices.features]
    empty = [(name, pa.int32()) for name in NOTHING]
    return pa.schema([("click_id", pa.string()), ("score", pa.float64()), *empty, *texts, *used])


def scored(batch: pa.RecordBatch, bundle: Bundle, *, reasons: bool = True) -> pa.RecordBatch:
    """click_id, score, NOTHING, REASONS (of scores that could be invalid in some slice, and only if asked for), and features for slices,
    with the prefix USED."""
    x_BF = np.empty((batch.num_rows, len(bundle.features)))
    for place, name in enumerate(bundle.features):
        x_BF[:, place] = batch.column(name).to_numpy(zero_copy_only=False)  # NaN for NULL
    scores, texts = scores_and_reasons(bundle, x_BF) if reasons else (forward(bundle, x_BF), unexplained(len(x_BF)))
    arrays = [batch.column("click_id"), pa.array(scores), *map(pa.array, nothing(x_BF).values())]
    arrays += [pa.array(column, pa.string()) for column in texts.T]
    arrays += [pc.cast(batch.column(name), pa.float64()) for name in bundle.slices.features]
    return pa.RecordBatch.from_arrays(arrays, schema=score_schema(bundle))


def _of_same_click(ids: pa.Array, tables: list[pa.Table], schema: pa.Schema) -> dict[str, pa.Array]:
    """The other columns of the first row with each id; NULL where there is none."""
    found = pa.concat_tables([schema.empty_table(), *tables]).combine_chunks()
    places = pc.index_in(ids, found["click_id"].combine_chunks())
    return {name: found[name].combine_chunks().take(places) for name in schema.names if name != "click_id"}


def _without(rows: list[pa.Table], known: list[pa.Table]) -> pa.Table:
    """Rows whose click is not among the known ones."""
    together = pa.concat_tables(rows)
    if not known:
        return together
    ids = pa.concat_tables(known)["click_id"].combine_chunks()
    return together.filter(pc.invert(pc.is_in(together["click_id"], ids)))


def _as_published(decided: pa.Table) -> pa.Table:
    """Rows of `current_decisions` for first decisions that no replay has changed: `scoring.as_published`."""
    rows = {name: decided[name] for name in decided.column_names}
    rows |= {"first_is_invalid": rows["is_invalid"], "first_model_version": rows["model_version"]}
    schema = data_files.schema(CURRENT_DECISIONS)
    return pa.table({f.name: rows[f.name] if f.name in rows else pa.nulls(len(decided), f.type) for f in schema}, schema=schema)


def _gathered(batches: Iterator[Moving]) -> Iterator[Moving]:
    """The same rows, many of a kind at a time: a day of a billion clicks has thousands of parts, and what is sent to each costs some
    hundred bytes beside its rows."""
    waiting: dict[str, list[pa.RecordBatch]] = defaultdict(list)
    for kind, batch in batches:
        waiting[kind].append(batch)
        if sum(other.nbytes for other in waiting[kind]) > GATHERED:
            yield kind, _one(waiting.pop(kind))
    for kind, left in waiting.items():
        yield kind, _one(left)


def _one(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0]


def _by_part(rows: pa.RecordBatch, kind: str, buckets: list[int]) -> Iterator[pa.RecordBatch]:
    shares = [(buckets[0], rows)] if len(buckets) == 1 else _shares(rows, buckets)
    packed = [_packed(part) for _, part in shares]
    yield pa.RecordBatch.from_pydict({"bucket": [b for b, _ in shares], "kind": [kind] * len(shares), "rows": packed}, schema=MOVED)


def _shares(rows: pa.RecordBatch, buckets: list[int]) -> list[tuple[int, pa.RecordBatch]]:
    """Rows of the same click go to the same part, whichever file they are from."""
    share = (hash_array(rows.column("click_id").to_numpy(zero_copy_only=False), categorize=False) % len(buckets)).astype(np.uint16)
    rows = rows.take(pa.array(np.argsort(share, kind="stable")))  # numpy sorts small numbers by counting
    ends = np.cumsum(np.bincount(share, minlength=len(buckets)))
    return [(b, rows.slice(start, end - start)) for b, start, end in zip(buckets, [0, *ends[:-1]], ends, strict=True) if end > start]


def _packed(rows: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_batch(rows)
    return bytes(sink.getvalue())


def _unpacked(batches: Batches) -> dict[int, Kinds]:
    """Bucket -> kind -> rows."""
    found: dict[int, Kinds] = defaultdict(lambda: defaultdict(list))
    for batch in batches:
        for bucket, kind, rows in zip(*(batch.column(name) for name in MOVED.names), strict=True):
            found[bucket.as_py()][kind.as_py()].append(pa.ipc.open_stream(rows.as_buffer()).read_all())
    return found
