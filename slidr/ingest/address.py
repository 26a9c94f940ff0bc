"""What counts as one address: an IPv4 address as it is, an IPv6 address as its /64, in Python's spelling of networks."""

from collections.abc import Callable

from pyspark.sql import Column
from pyspark.sql import functions as F

GROUP = "^[0-9a-f]{1,4}$"
STRAY = "(^:[^:])|([^:]:$)|:::"  # a single colon at an end, or three
TAIL = r"^(.*:)(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$"  # ::ffff:192.0.2.1


def ip_key(ip: Column) -> Column:
    """The key of an address. IPv6 that holds an IPv4 address (::ffff:192.0.2.1) is that; what is no address is its own key."""
    text = F.lower(F.regexp_replace(F.trim(ip), r"^\[|\]$|%.*$", ""))
    key = _let(text, lambda t: _let(_without_dots(t), lambda plain: _let(_groups(plain), _key)))
    return F.when(F.contains(ip, F.lit(":")), F.coalesce(key, ip)).otherwise(ip)


def _let(value: Column, body: Callable[[Column], Column]) -> Column:
    # Binds a value: without it each use would repeat the whole expression, and the plan would grow by powers.
    return F.transform(F.array(value), body).getItem(0)


def _without_dots(text: Column) -> Column:
    octets = [F.regexp_extract(text, TAIL, i).try_cast("int") for i in (2, 3, 4, 5)]
    low = [F.lower(F.hex(octets[i] * 256 + octets[i + 1])) for i in (0, 2)]
    valid = text.rlike(TAIL) & (F.greatest(*octets) <= 255)
    return F.when(valid, F.concat(F.regexp_extract(text, TAIL, 1), low[0], F.lit(":"), low[1])).otherwise(text)


def _groups(text: Column) -> Column:
    """The eight groups without leading zeros; NULL unless the text is an IPv6 address."""

    def some(half: Column) -> Column:
        return F.filter(F.split(half, ":"), lambda group: group != "")

    halves = F.split(text, "::")
    left, right = some(halves.getItem(0)), some(F.coalesce(F.get(halves, F.lit(1)), F.lit("")))
    missing = F.lit(8) - F.size(left) - F.size(right)
    shortened = F.when(missing >= 1, F.concat(left, F.array_repeat(F.lit("0"), missing), right))
    filled = F.when(F.size(halves) == 2, shortened).when(F.size(halves) == 1, left)
    return _let(F.when(~text.rlike(STRAY), filled), _checked)


def _checked(groups: Column) -> Column:
    valid = F.forall(groups, lambda group: group.rlike(GROUP)) & (F.size(groups) == 8)
    return F.when(valid, F.transform(groups, lambda group: F.regexp_replace(group, "^0+(?=.)", "")))


def _key(groups: Column) -> Column:
    # The zeros that follow the first four groups are the longest run, so only zeros before them join the `::`.
    network = F.concat(F.regexp_replace(F.array_join(F.slice(groups, 1, 4), ":"), "(^|:)0(:0)*$", ""), F.lit("::/64"))
    numbers = [F.conv(groups.getItem(i), 16, 10).cast("int") for i in (6, 7)]
    octets = [octet.cast("string") for n in numbers for octet in (F.shiftright(n, 8), n.bitwiseAND(255))]
    mapped = F.array_join(F.slice(groups, 1, 6), ":") == "0:0:0:0:0:ffff"
    return F.when(mapped, F.concat_ws(".", *octets)).otherwise(network)
