"""What a version says of scored clicks, on arrays: slices, thresholds, validity. Without Spark.

It says the same of each click as `scoring.decided`, which replays use: `tests/test_deciding.py` holds one against the other.
"""

from collections.abc import Mapping, Sequence
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from slidr.bundle import Array, Bundle
from slidr.scoring import REASONS, UPSTREAM, USED
from slidr.slice_spec import ALL, ESCAPES, REPORT, SEPARATOR, SlicePart, SliceSpec

Columns = Mapping[str, pa.Array]


def verdicts(rows: Columns, bundle: Bundle) -> dict[str, pa.Array]:
    """Of each click slice, report_slice, threshold, basis, is_invalid, ivt_class and REASONS; `rows` has the columns of clicks, `score`
    (NULL without features), REASONS of every score that could be invalid, and the features that slices need with the prefix USED."""
    named, score = slice_names(bundle.slices, rows), rows["score"]
    own = _own_thresholds(named, bundle)
    upstream, none, unseen = pc.is_valid(rows["upstream_filter"]), pc.is_null(score), pc.is_null(own)
    basis = _first_that_holds([(upstream, "upstream"), (none, "no_features"), (unseen, "unseen_slice")], "model")
    applies = pc.invert(pc.or_(upstream, none))
    threshold = pc.if_else(applies, pc.fill_null(own, bundle.default_threshold), pa.scalar(None, pa.float64()))
    by_score = pc.fill_null(pc.greater(score, threshold), False)
    return {
        "slice": named,
        "report_slice": slice_names(REPORT, rows),
        "threshold": threshold,
        "basis": basis,
        "is_invalid": pc.or_(by_score, upstream),
        "ivt_class": _first_that_holds([(upstream, "givt"), (by_score, "sivt")], None),
        **_reasons(rows, upstream, by_score),
    }


def slice_names(slices: SliceSpec, rows: Columns) -> pa.Array:
    """For instance desktop/guest; never NULL."""
    if not slices.parts:
        return pa.repeat(ALL, len(rows["click_id"]))
    words = [_bands(part, rows[USED + part.column]) if part.cuts else _words(part, rows[part.column]) for part in slices.parts]
    return pc.binary_join_element_wise(*words, SEPARATOR)


def _words(part: SlicePart, column: pa.Array) -> pa.Array:
    coded = pc.cast(column, pa.string()).dictionary_encode(null_encoding="encode")
    return pa.array([_word(part, value) for value in coded.dictionary.to_pylist()], pa.string()).take(coded.indices)


def _word(part: SlicePart, value: str | None) -> str:
    if not value:
        return part.unknown
    named = dict(part.names).get(value)
    if named is not None:
        return named
    escaped = reduce(lambda text, pair: text.replace(*pair), ESCAPES, value)
    return "%28" + escaped[1:] if escaped.startswith("(") else escaped


def _bands(part: SlicePart, column: pa.Array) -> pa.Array:
    values = _numbers(column)
    places = np.where(np.isnan(values), len(part.bands), np.searchsorted(part.cuts, values, side="right"))
    return pa.array([*part.bands, part.unknown], pa.string()).take(pa.array(places))


def _numbers(column: pa.Array) -> Array:
    """NaN for NULL."""
    values: Array = pc.fill_null(pc.cast(column, pa.float64()), float("nan")).to_numpy(zero_copy_only=False)
    return values


def _own_thresholds(named: pa.Array, bundle: Bundle) -> pa.Array:
    """NULL where the version does not know the slice."""
    coded = named.dictionary_encode()
    return pa.array([bundle.thresholds.get(name) for name in coded.dictionary.to_pylist()], pa.float64()).take(coded.indices)


def _first_that_holds(cases: Sequence[tuple[pa.Array, str]], otherwise: str | None) -> pa.Array:
    conditions = pa.StructArray.from_arrays([condition for condition, _ in cases], names=[name for _, name in cases])
    return pc.case_when(conditions, *[pa.scalar(name, pa.string()) for _, name in cases], pa.scalar(otherwise, pa.string()))


def _reasons(rows: Columns, upstream: pa.Array, by_score: pa.Array) -> dict[str, pa.Array]:
    """Of invalid clicks alone."""
    said = pc.binary_join_element_wise(UPSTREAM, rows["upstream_filter"], ": ")
    none = pa.scalar(None, pa.string())
    of_upstream = {"reason_class": pa.scalar(UPSTREAM), "reason_1": said}
    own = {name: pc.if_else(by_score, rows[name], none) for name in REASONS}
    return {name: pc.if_else(upstream, of_upstream.get(name, none), own[name]) for name in REASONS}
