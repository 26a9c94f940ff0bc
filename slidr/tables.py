"""Every table of the lake, declared once: columns with type, nullability and meaning, grain, and partition.

Times are UTC timestamps with microseconds, dates are UTC dates, money is integer micro-units plus a currency code.
`lake.py` reads and writes them; nothing else does.
"""

from dataclasses import dataclass

from pyspark.sql import types as T

from slidr.features.spec import FeatureSpec

TYPES: dict[str, T.DataType] = {
    "string": T.StringType(),
    "boolean": T.BooleanType(),
    "int": T.IntegerType(),
    "bigint": T.LongType(),
    "double": T.DoubleType(),
    "date": T.DateType(),
    "timestamp": T.TimestampType(),
}


# Of decisions the ids and times: nobody looks for clicks by a range of the others, and files hold all of their values.
INDEXED_OF_DECISIONS = 4


@dataclass(frozen=True)
class Column:
    """`nullable` says whether NULL has a documented meaning; a NULL elsewhere is refused at writing."""

    name: str
    type: str
    nullable: bool
    comment: str


@dataclass(frozen=True)
class Table:
    """`grain` is the unique key; `partitions` are folders, of which the first is a UTC date; of the first `indexed` columns
    Delta keeps the extremes of each file, which costs as much as writing the column. `personal` columns tell of people: none of their
    values may stand in Delta's log, and an erasure empties them."""

    name: str
    comment: str
    grain: tuple[str, ...]
    partitions: tuple[str, ...]
    columns: tuple[Column, ...]
    indexed: int = 32
    personal: tuple[str, ...] = ()

    @property
    def statistics(self) -> dict[str, str]:
        """The property that says of which columns Delta's log holds extremes."""
        if not self.personal:
            return {"delta.dataSkippingNumIndexedCols": str(self.indexed)}
        return {"delta.dataSkippingStatsColumns": ",".join(self.with_extremes)}

    @property
    def with_extremes(self) -> list[str]:
        """Columns whose extremes of each file stand in Delta's log."""
        kept = [column for column in self.columns if column.name not in self.partitions]
        if not self.personal:
            return [column.name for column in kept[: self.indexed]]
        # Delta refuses booleans where columns are named.
        return [c.name for c in self.columns[: self.indexed] if c in kept and c.name not in self.personal and c.type != "boolean"]

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    @property
    def day(self) -> str:
        """The date column that the table is partitioned by."""
        return self.partitions[0]

    @property
    def schema(self) -> T.StructType:
        return T.StructType([T.StructField(c.name, TYPES[c.type], True, {"comment": c.comment}) for c in self.columns])


def _columns(text: str) -> tuple[Column, ...]:
    """Columns from lines of `name type[?] comment`; `?` allows NULL."""
    columns = []
    for line in text.strip().splitlines():
        name, kind, comment = line.split(maxsplit=2)
        columns.append(Column(name, kind.rstrip("?"), kind.endswith("?"), comment))
    return tuple(columns)


CLICKS = Table(
    "clicks",
    "Ad clicks as they were made, one row per click",
    grain=("click_id",),
    partitions=("click_date",),
    columns=_columns("""
click_id         string     id of the click; made from the row where the source has none
click_time       timestamp  when the click was made, UTC
click_date       date       UTC day of click_time
local_date       date       day of click_time in the marketplace's time zone
user_id          string?    account of the click; NULL for guests
session_id       string     session; made from 30-minute gaps where the source has none
ip               string?    address as delivered
ip_key           string?    what counts as one address: the IPv4 address, or the /64 of an IPv6 address
user_agent       string?    user agent as delivered
device           string     device class, such as desktop, mobile, tablet
marketplace      string     marketplace; configuration gives its time zone
logged_in        boolean    whether the click was made logged in
advertiser_id    string     who pays for the click
campaign_id      string     campaign of the advertiser
cost_micros      bigint?    price of the click in micro-units of currency; NULL where it is not known
currency         string     ISO 4217 code
upstream_filter  string?    rule of the upstream filter that already made the click free; NULL if none did
arrival_time     timestamp  when the click became known, UTC; click_time where the source does not say
"""),
    personal=("user_id", "ip", "ip_key", "user_agent"),
)

PURCHASES = Table(
    "purchases",
    "Orders, one row per order",
    grain=("order_id",),
    partitions=("purchase_date",),
    columns=_columns("""
order_id       string     id of the order
user_id        string?    account of the buyer; NULL for guests
session_id     string?    session of the purchase
purchase_time  timestamp  when the order was placed, UTC
purchase_date  date       UTC day of purchase_time
marketplace    string     marketplace of the order
advertiser_id  string?    advertiser whose product was bought; NULL where it is not known
amount_micros  bigint     value of the order in micro-units of currency
currency       string     ISO 4217 code
cancelled      boolean    whether the order was cancelled; a cancelled order labels nothing
click_id       string?    click that the source itself attributes the order to
arrival_time   timestamp  when the order became known, UTC; purchase_time where the source does not say
"""),
    personal=("user_id",),
)

REJECTS = Table(
    "rejects",
    "Input rows that could not be used, with the reason",
    grain=("run_id", "source_file", "raw"),
    partitions=("reject_date",),
    columns=_columns("""
table_name     string     table that the row was meant for
reason         string     why it was refused
raw            string     the row as delivered, as JSON or text; holds personal data like the input itself
source_file    string     file that held the row
run_id         string     run that refused it
rejected_time  timestamp  when it was refused, UTC
reject_date    date       UTC day of rejected_time
"""),
    personal=("raw",),
)

PSEUDONYM_KEYS = Table(
    "pseudonym_keys",
    "The key that made the pseudonyms of this lake; no row: users and addresses are as delivered",
    grain=("key_id",),
    partitions=("key_date",),
    columns=_columns("""
key_id         string     fingerprint of the key, 12 hex digits; the key itself is nowhere on record
recorded_time  timestamp  when the first rows with its pseudonyms were written, UTC
key_date       date       UTC day of recorded_time
run_id         string     run that wrote them
"""),
)

ERASED = Table(
    "erased",
    "Rows whose user was erased: delivered again, they are already there",
    grain=("table_name", "row_id"),
    partitions=("erased_date",),
    columns=_columns("""
table_name   string     clicks or purchases
row_id       string     click_id or order_id of the row, whose personal columns are NULL since
run_id       string     run that erased them
erased_date  date       UTC day of that run
"""),
)

LABELS = Table(
    "labels",
    "Weak labels of matured clicks; a click that has not matured has no row",
    grain=("click_id",),
    partitions=("click_date",),
    columns=_columns("""
click_id          string     the click
click_date        date       UTC day of the click
is_human          boolean    purchasing click, or click of an account with a high RFM score; false means unknown, not robot
label_reason      string     purchase, rfm or none
is_purchase       boolean    whether an attributed purchase was known at label_time
rfm_score         int?       R + F + M of the account, 3 to 15; NULL without an account or without purchases
in_heavy_session  boolean    whether the session has a click with at least k others in the hour up to it
label_time        timestamp  end of the click's UTC day + label delay
"""),
)

DECISIONS = Table(
    "decisions",
    "First decisions, one row per decided click; insert-only",
    grain=("click_id",),
    partitions=("click_date",),
    columns=_columns("""
click_id       string     the click
click_time     timestamp  when the click was made, UTC
click_date     date       UTC day of the click
local_date     date       day of the click in the marketplace's time zone
session_id     string     session of the click
advertiser_id  string     who pays for the click
campaign_id    string     campaign of the advertiser
marketplace    string     marketplace of the click
device         string     device class
logged_in      boolean    whether the click was made logged in
cost_micros    bigint?    price in micro-units of currency; NULL where it is not known
currency       string     ISO 4217 code
slice          string     slice of the deciding model version; empty where no slice applied
report_slice   string     device/login/marketplace, the same for all versions
score          double?    0 to 1, higher is more robotic, 6 decimals; NULL without features
empty_permille int?       thousandths of the version's features that were NULL or 0; NULL without features, and of a live system
null_permille  int?       thousandths of the version's features that were NULL
threshold      double?    the click is invalid if and only if score > threshold; NULL where no threshold applied
is_invalid     boolean    the advertiser does not pay for the click
ivt_class      string?    givt (upstream filter) or sivt (slidr or a live system); NULL for valid clicks
basis          string     model, no_features, unseen_slice, upstream or external
reason_class   string?    coarse class of the strongest reason; NULL for valid clicks
reason_1       string?    strongest reason, such as ip: 412 clicks in 1 h
reason_2       string?    second reason
reason_3       string?    third reason
model_version  string?    model version that decided; for external decisions the live system's own name
spec_id        string?    feature spec that the version reads
run_id         string     run that wrote the row
decided_time   timestamp  when it was decided, UTC
"""),
    indexed=INDEXED_OF_DECISIONS,
)

SHADOW_DECISIONS = Table(
    "shadow_decisions",
    "What other model versions would have decided: for comparison, never published; insert-only",
    grain=("click_id", "model_version"),
    partitions=("click_date",),
    columns=_columns("""
click_id       string     the click
model_version  string     version that would have decided so
click_date     date       UTC day of the click
slice          string     slice of that version
score          double?    0 to 1, 6 decimals; NULL without features
threshold      double?    threshold of the slice; NULL where no threshold applied
is_invalid     boolean    what the version says
basis          string     model, no_features, unseen_slice or upstream
spec_id        string     feature spec of the version
run_id         string     run that wrote the row
decided_time   timestamp  when it was scored, UTC
"""),
    indexed=INDEXED_OF_DECISIONS,
)

REPLAY_DECISIONS = Table(
    "replay_decisions",
    "What each applied replay decided for every click of its window and filter, unchanged ones too",
    grain=("replay_id", "click_id"),
    partitions=("click_date",),
    columns=_columns("""
replay_id      string     id of the replay, the hash of its plan
click_id       string     the click
click_date     date       UTC day of the click
slice          string     slice of the replaying model version
score          double?    0 to 1, 6 decimals; NULL without features
empty_permille int?       thousandths of the version's features that were NULL or 0; NULL without features, and of a live system
null_permille  int?       thousandths of the version's features that were NULL
threshold      double?    threshold of the slice
is_invalid     boolean    what the replay found
decided        boolean    false where the replay may not change the click
basis          string     model, no_features, unseen_slice or upstream
reason_class   string?    coarse class of the strongest reason; NULL for valid clicks
reason_1       string?    strongest reason
reason_2       string?    second reason
reason_3       string?    third reason
authority      string     full: replaces what was published; credit: does not reinstate; none: the upstream filter's
after_first    boolean    whether the click had a first decision then
model_version  string     model version of the replay
spec_id        string     feature spec of the version
mode           string     rescore, recompute or recompute-now
"""),
    indexed=INDEXED_OF_DECISIONS,
)

CORRECTIONS = Table(
    "corrections",
    "Published changes of the published state; append-only; the feed for billing",
    grain=("click_id", "publication_no"),
    partitions=("correction_date",),
    columns=_columns("""
publication_no     bigint     number of the publication, without gaps, one per apply
ordinal            bigint     position within the publication, from 1
replay_id          string     replay that published it
click_id           string     the click
click_time         timestamp  when the click was made, UTC
click_date         date       UTC day of the click
local_date         date       day of the click in the marketplace's time zone
billing_month      string     month (YYYY-MM) of local_date that the click was charged to
marketplace        string     marketplace of the click
advertiser_id      string     who is credited or charged
campaign_id        string     campaign of the advertiser
direction          string     invalidate (credited) or reinstate (charged again)
cost_micros        bigint?    price of the click in micro-units of currency; NULL where it is not known
delta_cost_micros  bigint?    change of the advertiser's charges: negative is a credit; NULL where the price is not known
currency           string     ISO 4217 code
old_is_invalid     boolean?   published state before; NULL if the click had never been decided
new_is_invalid     boolean    published state after
old_model_version  string?    version of the published state before
new_model_version  string?    version of the published state after; NULL where a revert leaves the click undecided
old_score          double?    score before
new_score          double?    score after
new_threshold      double?    threshold of the slice
reason_class       string?    coarse on purpose: invalid_traffic, restored, or reverted
mode               string     rescore, recompute, recompute-now or revert
reverts_replay_id  string?    replay that this publication takes back
published_time     timestamp  when it was published, UTC
correction_date    date       UTC day of published_time
"""),
)

CURRENT_DECISIONS = Table(
    "current_decisions",
    "The published state: first decisions overlaid by replays, one row per decided click",
    grain=("click_id",),
    partitions=("click_date",),
    columns=DECISIONS.columns
    + _columns("""
first_is_invalid     boolean?    what the first decision said; NULL if a replay was first to decide
first_model_version  string?     version of the first decision; NULL if a replay was first to decide
replay_id            string?     newest replay that changed the row; NULL if none did
corrected_time       timestamp?  when that was published, UTC
"""),
    indexed=INDEXED_OF_DECISIONS,
)

REPLAYS = Table(
    "replays",
    "Audit log of replays: every plan, approval, start, resumption, failure and end",
    grain=("replay_id", "event", "event_time"),
    partitions=("event_date",),
    columns=_columns("""
replay_id       string     hash over everything that the plan pins
event           string     plan, approve, apply (begun), resume, renew, publish (no way back), interrupt, fail (given up), applied
event_time      timestamp  when, UTC
event_date      date       UTC day of event_time
actor           string     who, as claimed by the environment
reason          string?    why, as given
ticket          string?    ticket, as given
window_from     timestamp  start of the window of click time, included
window_to       timestamp  end of the window, excluded
filter          string     advertisers, slices, marketplaces, decided-by, as JSON
mode            string     rescore, recompute, recompute-now or revert
model_version   string     version that decides; of a revert, the one of the replay that it takes back
plan            string     everything that the plan pins, as canonical JSON
counts          string     clicks by outcome, as JSON
money           string     micro-units by direction and currency, as JSON
run_id          string     run that wrote the event
details         string?    of a plan: hash of its rows, guardrail checks, override, hours, features; of others: lease, order; JSON
"""),
)

MODEL_PROMOTIONS = Table(
    "model_promotions",
    "Every change of a model version's state; the registry's memory",
    grain=("event_id",),
    partitions=("event_date",),
    columns=_columns("""
event_id       string     unique id of the event
event_no       bigint     order of the events, from 1
event_time     timestamp  when, UTC
event_date     date       UTC day of event_time
model_version  string     version whose state changed
from_state     string?    candidate, champion, stable, suspect or revoked; NULL for a new version
to_state       string     candidate, champion, stable, suspect or revoked
actor          string     who, as claimed by the environment
reason         string     why
bundle_sha256  string     hash of the bundle
metrics        string     metrics of the version, as JSON
"""),
)

SLICE_METRICS = Table(
    "slice_metrics",
    "Decisions by hour and report slice; written by monitoring alone",
    grain=("click_date", "hour", "report_slice", "model_version", "currency", "view"),
    partitions=("click_date",),
    columns=_columns("""
click_date            date     UTC day of the clicks
hour                  int      UTC hour of click_time, 0 to 23
report_slice          string   device/login/marketplace
model_version         string   deciding version; empty where none decided
currency              string   ISO 4217 code
view                  string   first (first decisions) or published (after corrections)
clicks                bigint   decided clicks
invalid               bigint   invalid clicks
purchasing            bigint?  purchasing clicks; NULL while the day has not matured
purchasing_invalid    bigint?  invalid purchasing clicks; NULL while the day has not matured
high_rfm              bigint?  clicks of high-RFM accounts without purchase; NULL while the day has not matured
high_rfm_invalid      bigint?  invalid ones of these
heavy                 bigint?  clicks of heavy sessions; NULL while the day has not matured
heavy_invalid         bigint?  invalid ones of these
cost_micros           bigint?  price of the clicks in micro-units; NULL where none is known
invalid_cost_micros   bigint?  price of the invalid clicks
scored                bigint?  clicks with a score
scored_invalid        bigint?  invalid ones of these, but for what the upstream filter made free
score_to_20           bigint?  of those with a score, clicks with one of at most 0.20
score_to_20_invalid   bigint?  invalid ones of these, but for what the upstream filter made free
score_to_40           bigint?  of those with a score, clicks with one of at most 0.40
score_to_40_invalid   bigint?  invalid ones of these, but for what the upstream filter made free
score_to_50           bigint?  of those with a score, clicks with one of at most 0.50
score_to_50_invalid   bigint?  invalid ones of these, but for what the upstream filter made free
score_to_60           bigint?  of those with a score, clicks with one of at most 0.60
score_to_60_invalid   bigint?  invalid ones of these, but for what the upstream filter made free
score_to_80           bigint?  of those with a score, clicks with one of at most 0.80
score_to_80_invalid   bigint?  invalid ones of these, but for what the upstream filter made free
score_to_95           bigint?  of those with a score, clicks with one of at most 0.95
score_to_95_invalid   bigint?  invalid ones of these, but for what the upstream filter made free
featured              bigint?  of those with a score, clicks whose features are known to be empty or not
empty_permille        bigint?  sum of the empty_permille of these
null_permille         bigint?  sum of the null_permille of these
featured_to_50        bigint?  of these, clicks with a score of at most 0.50
empty_permille_to_50  bigint?  sum of the empty_permille of these
heavy_now             bigint?  clicks with at least k others of their session in the hour up to them: known with the click
heavy_now_invalid     bigint?  invalid ones of these
bought_1h             bigint?  purchasing clicks whose purchase was known 1 h after the click; NULL before the hour is that old
bought_1h_invalid     bigint?  invalid ones of these
bought_6h             bigint?  the same, 6 h after the click
bought_6h_invalid     bigint?  invalid ones of these
bought_24h            bigint?  the same, 24 h after the click
bought_24h_invalid    bigint?  invalid ones of these
"""),
)

RUNS = Table(
    "runs",
    "Every run of a command",
    grain=("run_id",),
    partitions=("run_date",),
    columns=_columns("""
run_id        string     id of the run
run_date      date       UTC day of started_time
command       string     command and its arguments; no secrets
config_hash   string     hash of the settings that carry meaning
code_version  string     version of slidr
started_time  timestamp  when it began, UTC
ended_time    timestamp  when it ended, UTC
outcome       string     done, already done, rejected, refused, failed or interrupted
exit_code     int        exit code, see docs/exit-codes.md
counts        string     rows in and out, as JSON
message       string?    error in one paragraph; NULL if none
"""),
)

FEATURE_BUILDS = Table(
    "feature_builds",
    "Builds of features of origin now: what each day was counted from, so that days which late clicks change are found",
    grain=("spec_id", "click_date", "run_id"),
    partitions=("built_date",),
    columns=_columns("""
spec_id         string     feature spec
click_date      date       UTC day whose features were built
clicks_version  bigint     commit of the table clicks that they were counted from
run_id          string     run that built them
built_time      timestamp  when, UTC
built_date      date       UTC day of built_time
"""),
)

ALL = (
    CLICKS,
    PURCHASES,
    REJECTS,
    PSEUDONYM_KEYS,
    ERASED,
    FEATURE_BUILDS,
    LABELS,
    DECISIONS,
    SHADOW_DECISIONS,
    REPLAY_DECISIONS,
    CORRECTIONS,
    CURRENT_DECISIONS,
    REPLAYS,
    MODEL_PROMOTIONS,
    SLICE_METRICS,
    RUNS,
)


def features_table(spec: FeatureSpec) -> Table:
    """The table of one feature spec; `spec_id` is a hash, so the name can't leave the lake."""
    keys = _columns("""
click_id    string     the click
click_time  timestamp  when the click was made, UTC
click_date  date       UTC day of the click
origin      string     logged (what a live system used), then (clicks as known at arrival) or now (all known clicks)
""")
    columns = tuple(Column(c.name, c.type, c.nullable or c.type != "int", c.comment) for c in spec.columns)
    return Table(
        f"features/{spec.spec_id}",
        f"Features of clicks by spec {spec.spec_id}",
        grain=("click_id", "origin"),
        partitions=("click_date", "origin"),
        columns=keys + columns,
        indexed=2,  # nobody looks for clicks by their counters
    )
