"""Sample weights by raking: every hour of day, weekday, log-in state and label weighs the same in the loss.

Weights serve the loss only; IVR, FPR, coverage and thresholds are of unweighted clicks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from slidr.errors import GuardrailError, InputError
from slidr.zones import local_time

CELL = ("hour", "weekday", "logged_in", "label")
BLOCKS = (1, 2, 3, 4, 6, 8, 12, 24)  # hours of day that can be weighted as one


@dataclass(frozen=True)
class Raking:
    """`weights` has one row per cell: hour (the first of its block) and weekday (Monday = 0) in local time, logged_in, label,
    clicks, weight.

    `weight` is that of each click of the cell, with mean 1 over clicks. `effective_share` = (sum w)² / (n sum w²) is the
    share of the clicks that an unweighted sample of the same precision would need. `dropped` are the dimensions with one
    observed value, which cannot be balanced. `block` is the number of hours that are weighted as one, `pooled` says what was
    pooled since its cells were too small.
    """

    weights: pd.DataFrame
    effective_share: float
    largest_weight: float
    sweeps: int
    dropped: tuple[str, ...]
    block: int
    pooled: tuple[str, ...]


def cell_columns(labelled: DataFrame, *, zones: Mapping[str, str], block: int = 1) -> DataFrame:
    """`labelled` with one struct column `cell` (hour, weekday, logged_in, label); time is local to the marketplace, hours in
    blocks of `block` hours.

    Needs click_time, marketplace, logged_in, is_human.
    """
    local = local_time(F.col("click_time"), F.col("marketplace"), zones)
    hour = F.hour(local) - F.hour(local) % block
    parts = (hour, F.weekday(local), F.col("logged_in"), F.col("is_human"))
    return labelled.withColumn("cell", F.struct(*[part.alias(name) for part, name in zip(parts, CELL, strict=True)]))


def weight_cells(labelled: DataFrame, *, zones: Mapping[str, str]) -> DataFrame:
    """One row per cell: hour, weekday, logged_in, label, clicks. At most 24 x 7 x 2 x 2 rows."""
    return cell_columns(labelled, zones=zones).groupBy("cell").agg(F.count(F.lit(1)).alias("clicks")).select("cell.*", "clicks")


def rake(
    cells: pd.DataFrame,
    *,
    dimensions: Sequence[str],
    max_weight: float,
    max_sweeps: int,
    tolerance: float,
    min_cell: int,
    small_cells: str,
) -> Raking:
    """Weights whose sums are equal over the observed values of each dimension (iterative proportional fitting).

    `tolerance` is the largest relative distance of a marginal from its target. Where a label x log-in cell has fewer than
    `min_cell` clicks (its few clicks would carry a quarter of the loss), or a weight ends above `max_weight`, `small_cells` =
    `stop` raises GuardrailError with the cell's name; `pool` leaves the log-in out, and weights hours in blocks, of as few
    hours as it takes. Raises GuardrailError too where that does not help, and without convergence.
    """
    cells = _checked(cells)
    pools = small_cells == "pool"
    used = [name for name in dimensions if cells[name].nunique() > 1]
    dropped = tuple(name for name in dimensions if name not in used)
    pooled: list[str] = []
    if pools and "logged_in" in used and _small_cells(cells, used, min_cell):
        used.remove("logged_in")
        pooled.append("logged_in")
    _require_full_cells(cells, used, min_cell)
    blocks = BLOCKS if pools and "hour" in used else (1,)
    for block in blocks:
        try:
            raking = _rake(_in_blocks(cells, block), used, max_sweeps=max_sweeps, tolerance=tolerance)
        except GuardrailError:
            if block == blocks[-1]:
                raise
            continue  # values that never occur together in an hour may do so in a longer block
        if raking.largest_weight <= max_weight:
            pooled += [f"hours in blocks of {block}"] if block > 1 else []
            return replace(raking, dropped=dropped, block=block, pooled=tuple(pooled))
    worst = raking.weights.iloc[int(raking.weights["weight"].argmax())]
    raise GuardrailError(
        f"weights expected at most {max_weight:g} for a click, found {raking.largest_weight:.1f} in the cell {_name(worst, CELL)} "
        f"with {int(worst['clicks'])} clicks; train on more days, shorten weights.dimensions, raise weights.max_weight"
        + ("" if pools else " or set weights.small_cells to pool")
    )


def _rake(cells: pd.DataFrame, used: Sequence[str], *, max_sweeps: int, tolerance: float) -> Raking:
    groups = {name: pd.factorize(cells[name], sort=True)[0] for name in used if cells[name].nunique() > 1}
    clicks = cells["clicks"].to_numpy(dtype=np.float64)
    mass, sweeps = _sweep(clicks, groups, max_sweeps=max_sweeps, tolerance=tolerance)
    weight = mass / clicks
    return Raking(
        weights=cells.assign(weight=weight),
        effective_share=float(mass.sum() ** 2 / (clicks.sum() * (mass * weight).sum())),
        largest_weight=float(weight.max()),
        sweeps=sweeps,
        dropped=(),
        block=1,
        pooled=(),
    )


def _in_blocks(cells: pd.DataFrame, block: int) -> pd.DataFrame:
    """The cells with hours in blocks; a block is named by its first hour."""
    return cells.assign(hour=cells["hour"] // block * block).groupby(list(CELL), as_index=False)["clicks"].sum()


def with_weights(labelled: DataFrame, raking: Raking, *, zones: Mapping[str, str]) -> DataFrame:
    """`labelled` with the column `weight` (double, mean 1). A click whose cell was not raked fails the query."""
    rows = [
        (int(row.hour), int(row.weekday), bool(row.logged_in), bool(row.label), float(row.weight)) for row in raking.weights.itertuples()
    ]
    schema = "cell struct<hour: int, weekday: int, logged_in: boolean, label: boolean>, weight double"
    # A local frame of at most 672 rows; struct equality compares the four parts.
    weights = labelled.sparkSession.createDataFrame([(row[:4], row[4]) for row in rows], schema)
    joined = cell_columns(labelled, zones=zones, block=raking.block).join(F.broadcast(weights), on="cell", how="left").drop("cell")
    absent = F.raise_error(F.lit("a click has no sample weight: weights were made of other clicks; make them again")).cast("double")
    return joined.withColumn("weight", F.coalesce(F.col("weight"), absent))


def _checked(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells that hold clicks, in a fixed order. Raises InputError without any, or where a part of a cell is unknown."""
    cells = cells[cells["clicks"] > 0]
    if not len(cells):
        raise InputError("weights expected labelled clicks, found none; label the training days first")
    unknown = cells[cells[list(CELL)].isna().any(axis=1)]
    if len(unknown):
        raise InputError(
            f"weights expected a marketplace with a time zone, a log-in state and a label on every click, found "
            f"{int(unknown['clicks'].sum())} clicks without; compare `marketplaces` in the configuration with the clicks"
        )
    return cells.sort_values(list(CELL), ignore_index=True)


def _require_full_cells(cells: pd.DataFrame, used: Sequence[str], min_cell: int) -> None:
    small = _small_cells(cells, used, min_cell)
    if small:
        raise GuardrailError(
            f"weights expected at least {min_cell} clicks in every label x logged_in cell, found {'; '.join(small)}; "
            "train on more days, shorten weights.dimensions or lower weights.min_cell"
        )


def _small_cells(cells: pd.DataFrame, used: Sequence[str], min_cell: int) -> list[str]:
    """Label x log-in cells, of the two that are used, with too few clicks."""
    pair = [name for name in ("label", "logged_in") if name in used]
    if not pair:
        return []
    found = cells.groupby(pair)["clicks"].sum()
    combinations = product(*(sorted(cells[name].unique()) for name in pair))
    counts = [(values, int(found.get(values if len(pair) > 1 else values[0], 0))) for values in combinations]
    return [f"{_name(dict(zip(pair, values, strict=True)), pair)}: {clicks} clicks" for values, clicks in counts if clicks < min_cell]


def _sweep(clicks: NDArray[Any], groups: Mapping[str, NDArray[Any]], *, max_sweeps: int, tolerance: float) -> tuple[NDArray[Any], int]:
    """Mass per cell with equal sums over the values of each dimension, and the sweeps it took."""
    mass, distance, worst = clicks.copy(), 0.0, ""
    for sweep in range(max_sweeps + 1):
        distances = {name: _distance(mass, group) for name, group in groups.items()}
        worst, distance = max(distances.items(), key=lambda item: item[1], default=("", 0.0))
        if distance <= tolerance:
            return mass, sweep
        for group in groups.values():
            sums = np.bincount(group, weights=mass)
            mass = mass * (mass.sum() / sums.size / sums)[group]
    raise GuardrailError(
        f"weights expected marginals equal to {tolerance:g} after {max_sweeps} sweeps, found {worst} off by {distance:.3g}; "
        "some values never occur together: train on more days or shorten weights.dimensions"
    )


def _distance(mass: NDArray[Any], group: NDArray[Any]) -> float:
    sums = np.bincount(group, weights=mass)
    return float(np.abs(sums * sums.size / mass.sum() - 1).max())


def _name(cell: Mapping[str, object] | pd.Series, parts: Sequence[str]) -> str:
    return ", ".join(f"{name}={cell[name]}" for name in parts)
