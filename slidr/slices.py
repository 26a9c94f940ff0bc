"""Names of slices, as Spark columns: device/login/marketplace, in this order, or some of them."""

from collections.abc import Sequence

from pyspark.sql import Column
from pyspark.sql import functions as F

PARTS = ("device", "login", "marketplace")
LOGGED_IN, GUEST = "login", "guest"


def slice_name(parts: Sequence[str] = PARTS) -> Column:
    """For instance desktop/guest/US; reads the columns device, logged_in and marketplace. No parts make one slice, `all`."""
    login = F.when(F.col("logged_in"), LOGGED_IN).otherwise(GUEST)
    return F.concat_ws("/", *[login if part == "login" else F.col(part) for part in parts]) if parts else F.lit("all")
