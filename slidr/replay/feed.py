"""What is read of `corrections` to publish: its newest days alone, however long the feed has grown."""

from datetime import datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from slidr import data_files
from slidr.lake import Lake
from slidr.replay.audit import Log, Plan
from slidr.tables import CORRECTIONS


def newest(lake: Lake) -> DataFrame:
    """The corrections of the newest day and of every day that comes after it: the newest publication is among them.

    Publications are dated in the order of their numbers, so whoever publishes meanwhile adds to these days, and conflicts.
    """
    days = [file.values[0] for file in data_files.of(lake, CORRECTIONS).files]
    table = lake.read(CORRECTIONS)
    return table.where(F.col("correction_date") >= F.lit(max(days))) if days else table


def since(log: Log, plan: Plan) -> datetime | None:
    """No correction of this replay was published before; None where none can be published yet."""
    decided = next((event for event in log.of(plan.plan_id) if event.name == "publish"), None)
    return None if decided is None else datetime.fromisoformat(decided.facts["now"])


def own(lake: Lake, plan: Plan, first: datetime) -> DataFrame:
    """The corrections of this replay, published at `first` or later."""
    days = F.col("correction_date") >= F.to_date(F.lit(first))
    return lake.read(CORRECTIONS).where(days & (F.col("replay_id") == plan.plan_id))
