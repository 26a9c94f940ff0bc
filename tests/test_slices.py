"""Slices as data: names by hand, cuts at their edges, names that never clash, and what is refused."""

import math
from typing import Any

import numpy as np
import pytest
from chispa import assert_df_equality
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from slidr.config import Config
from slidr.errors import ConfigError
from slidr.features.spec import FeatureSpec
from slidr.slice_spec import LOGIN, REPORT, SlicePart, SliceSpec
from slidr.slices import report_slice, slice_name

SPEC = FeatureSpec.from_dict(
    {
        "entities": {"user": ["user_id"]},
        "counters": [
            {"entity": "user", "measure": "clicks", "windows": ["1h", "24h"]},
            {"entity": "user", "measure": "since_prev", "windows": ["7d"]},
        ],
        "time_of_click": True,
        "logged_in": True,
    }
)
DEVICE = {"column": "device"}
BANDS = {"column": "user_clicks_24h", "cuts": [1, 10, 2.5e2]}


def spec_of(*parts: dict[str, Any]) -> SliceSpec:
    return SliceSpec.from_list(list(parts), SPEC)


def test_the_default_names_are_device_and_login(spark: SparkSession, conf: Config) -> None:
    rows = [("desktop", False, "desktop/guest"), ("desktop", True, "desktop/login"), ("TV (old)", True, "TV (old)/login")]
    df = spark.createDataFrame(rows, "device string, logged_in boolean, expected string")
    assert_df_equality(df.select(slice_name(conf.slices).alias("slice")), df.selectExpr("expected AS slice"), ignore_nullable=True)
    assert [part.column for part in conf.slices.parts] == ["device", "logged_in"]


def test_names_by_hand(spark: SparkSession) -> None:
    slices = spec_of(
        {**DEVICE, "names": {"phone": "handheld", "tablet": "handheld"}}, {"column": "logged_in"}, BANDS, {"column": "campaign_id"}
    )
    rows = [
        ("phone", True, 0, "c1", "handheld/true/user_clicks_24h<1/c1"),
        ("tablet", False, 1, "c1", "handheld/false/user_clicks_24h[1,10)/c1"),
        ("desktop", False, 9, "a/b", "desktop/false/user_clicks_24h[1,10)/a%2Fb"),
        ("desktop", False, 10, "a%2Fb", "desktop/false/user_clicks_24h[10,250)/a%252Fb"),
        ("desktop", False, 250, "(none)", "desktop/false/user_clicks_24h>=250/%28none)"),
        ("", None, None, None, "(none)/(none)/user_clicks_24h=none/(none)"),
    ]
    df = spark.createDataFrame(rows, "device string, logged_in boolean, user_clicks_24h int, campaign_id string, expected string")
    assert_df_equality(df.select(slice_name(slices).alias("slice")), df.selectExpr("expected AS slice"), ignore_nullable=True)


def test_the_report_slice_is_the_same_for_all_versions(spark: SparkSession) -> None:
    df = spark.createDataFrame(
        [("desktop", False, "US", "desktop/guest/US")], "device string, logged_in boolean, marketplace string, e string"
    )
    assert_df_equality(df.select(report_slice().alias("slice")), df.selectExpr("e AS slice"), ignore_nullable=True)
    assert SliceSpec.from_list(REPORT.to_list(), SPEC) == REPORT
    assert spec_of(DEVICE, {"column": "logged_in", "names": {"true": "login", "false": "guest"}}).parts[1].names == LOGIN


def test_no_parts_make_one_slice(spark: SparkSession) -> None:
    assert spark.range(1).select(slice_name(spec_of())).collect()[0][0] == "all"


def test_a_cut_belongs_to_the_band_above_it(spark: SparkSession) -> None:
    """Lower ends are closed, upper ends open; NaN is NULL, as in the forward pass."""
    cuts = [0, 0.1, 1, 3600, 1_234_567]
    edges = [value for cut in cuts for value in (float(np.nextafter(cut, -math.inf)), float(cut), float(np.nextafter(cut, math.inf)))]
    rows = [(value, sum(cut <= value for cut in cuts)) for value in edges]
    part = spec_of({"column": "user_since_prev", "cuts": cuts}).parts[0]
    assert part.bands == tuple(f"user_since_prev{band}" for band in ("<0", "[0,0.1)", "[0.1,1)", "[1,3600)", "[3600,1234567)", ">=1234567"))
    expected = [(value, part.bands[band]) for value, band in rows] + [(None, "user_since_prev=none"), (math.nan, "user_since_prev=none")]
    df = spark.createDataFrame(expected, "user_since_prev double, expected string")
    found = df.select(slice_name(SliceSpec((part,))).alias("slice"))
    assert_df_equality(found, df.selectExpr("expected AS slice"), ignore_nullable=True)


@settings(max_examples=200)
@given(st.lists(st.floats(-1e15, 1e15, exclude_min=True, exclude_max=True), min_size=1, max_size=6, unique=True))
def test_bands_of_any_cuts_have_names_of_their_own(cuts: list[float]) -> None:
    cuts = sorted(set(cuts))
    bands = spec_of({"column": "user_clicks_1h", "cuts": cuts}).parts[0].bands
    assert len(set(bands)) == len(cuts) + 1
    assert not any("/" in band for band in bands)
    assert [float(band.split("[")[1].split(",")[0]) for band in bands[1:-1]] == cuts[:-1]


def test_different_values_never_share_a_name_and_the_parent_is_the_name_without_its_last_part(spark: SparkSession) -> None:
    signs, random = list("/%(2F)n") + ["", "(none)", "%2F"], np.random.default_rng(4)
    texts = ["".join(random.choice(signs, random.integers(0, 4))) for _ in range(600)]
    pairs = {(a or None, b or None) for a, b in zip(texts[::2], texts[1::2], strict=True)}
    df = spark.createDataFrame(sorted(pairs, key=str), "device string, campaign_id string")
    names = [slice_name(spec_of(*parts)) for parts in ([DEVICE], [DEVICE, {"column": "campaign_id"}])]
    found = [(row[0], row[1]) for row in df.select(*names).collect()]
    assert len({child for _, child in found}) == len(pairs) > 150
    assert all(child.rpartition("/")[0] == parent for parent, child in found)


WRONG = {
    "found 'device'; write {column: device}": ["device"],
    "slices[1]: expected a mapping with a column": [DEVICE, {"cuts": [1]}],
    "found 'cut'; remove it": [{"column": "user_clicks_1h", "cut": [1], "cuts": [1]}],
    "expected one of device, logged_in, marketplace, advertiser_id, campaign_id": [{"column": "user_agent"}],
    "found 'user_clicks_24h'; give it cuts": [{"column": "user_clicks_24h"}],
    "found 'user_clicks_6h'; nearest: user_clicks_": [{"column": "user_clicks_6h", "cuts": [1]}],
    "expected no cuts of logged_in": [{"column": "logged_in", "cuts": [1]}],
    "found both": [{"column": "device", "names": {"phone": "p"}, "cuts": [1]}],
    "found [10, 1]; sort them": [{"column": "user_clicks_1h", "cuts": [10, 1]}],
    "found [1, 1]; sort them": [{"column": "user_clicks_1h", "cuts": [1, 1]}],
    "found ['1']; sort them": [{"column": "user_clicks_1h", "cuts": ["1"]}],
    "found [True]; sort them": [{"column": "user_clicks_1h", "cuts": [True]}],
    "found [nan]; sort them": [{"column": "user_clicks_1h", "cuts": [math.nan]}],
    "below 1e+15 as cuts of user_clicks_1h": [{"column": "user_clicks_1h", "cuts": [10**400]}],
    "cuts as a list, found {} and 1": [{"column": "user_clicks_1h", "cuts": 1}],
    "found 'device' 2 times": [DEVICE, DEVICE],
    "found {True: 'login'}; put them into quotes": [{"column": "logged_in", "names": {True: "login"}}],
    "found ['yes']; use these": [{"column": "logged_in", "names": {"yes": "login"}}],
    "found ['a/b', '(none)', ''] for device; rename them": [{**DEVICE, "names": {"a": "a/b", "b": "(none)", "c": ""}}],
}


@pytest.mark.parametrize("message", WRONG)
def test_what_makes_no_sense_is_refused(message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        spec_of(*WRONG[message])
    assert message in str(caught.value)


def test_all_mistakes_are_listed_at_once_and_plain_values_come_back() -> None:
    with pytest.raises(ConfigError) as caught:
        spec_of({"column": "colour"}, {"column": "user_clicks_1h", "cuts": [2, 1]})
    assert "slices[0]" in str(caught.value)
    assert "slices[1]" in str(caught.value)
    slices = spec_of(DEVICE, {"column": "user_clicks_1h", "cuts": [-0.0, 1]})
    assert slices == SliceSpec((SlicePart("device"), SlicePart("user_clicks_1h", cuts=(0.0, 1.0))))
    assert slices.to_list()[1] == {"column": "user_clicks_1h", "names": {}, "cuts": [0.0, 1.0]}
    assert slices.is_written_as(slices.to_list())
    assert not slices.is_written_as([DEVICE, {"column": "user_clicks_1h", "cuts": [0, 1]}])
