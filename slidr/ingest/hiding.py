"""Which fields of a source tell of people, and their pseudonyms in place of what the files say.

`user_id` and `ip` become keyed hashes, and so does every text that is made of the same columns of the file, or that `hash_of` makes: a
hash without a key can be undone by trying all addresses. Counters group by `ip_key`, which is made of the address first.
"""

from collections.abc import Mapping, Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from slidr.ingest.read import Wanted
from slidr.ingest.sources import FieldMap, Target
from slidr.pseudonyms import Key

PEOPLE = ("user_id", "ip")
KIND = {"ip_key": "ip"}  # an IPv4 address is its own key: one address, one pseudonym
Maps = Mapping[str, Mapping[str, FieldMap]]


def people_columns(maps: Maps) -> set[str]:
    """Columns of the files that a user or an address is made of."""
    return {column for fields in maps.values() for name in PEOPLE if name in fields for column in fields[name].columns}


def hidden_fields(goals: Mapping[str, Target], maps: Maps) -> list[tuple[str, str]]:
    """(table, field) of all that becomes a pseudonym."""
    people = people_columns(maps)
    found = []
    for table, fields in maps.items():
        types = {field.name: field.type for field in goals[table].fields}
        found += [(table, name) for name, field in fields.items() if types[name] == "string" and _tells(name, field, people)]
        found += [(table, "ip_key")] if "ip" in fields else []
    return found


def _tells(name: str, field: FieldMap, people: set[str]) -> bool:
    listed = field.values is not None or field.contains is not None and field.default is not None  # of the source's own words
    return name in PEOPLE or field.hash_of is not None or bool(people & set(field.columns)) and not listed


def hide(rows: DataFrame, fields: Sequence[tuple[str, str]], key: Key) -> DataFrame:
    """The rows with pseudonyms in the columns `T__field`."""
    return rows.withColumns({f"{table}__{name}": key.column(KIND.get(name, name), F.col(f"{table}__{name}")) for table, name in fields})


def raw(wanted: Sequence[Wanted], maps: Maps, key: Key) -> Column:
    """What a reject may keep of its row: the columns that the source names, as JSON, with pseudonyms for people. Of a row that does not
    follow its format nobody knows where the address is: only a keyed hash of it is kept."""
    people = people_columns(maps)
    texts = {
        w.name: F.coalesce(F.col(f"v{i}"), F.col(f"t{i}").cast("string")) if w.timed else F.col(f"v{i}")
        for i, w in enumerate(wanted)
        if w.name not in people
    }
    mine = {f"{table}.{name}": F.col(f"{table}__{name}") for table, fields in maps.items() for name in PEOPLE if name in fields}
    withheld = key.column("raw", F.when(F.col("_malformed"), F.col("_raw")))
    whole = F.to_json(F.struct(*[text.alias(name) for name, text in {**texts, **mine}.items()]))
    return F.when(F.col("_malformed"), F.to_json(F.struct(withheld.alias("withheld")))).otherwise(whole)
