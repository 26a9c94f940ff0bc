"""One validated settings model. A YAML file is complete: a missing key, an unknown key or a wrong type is an error.

Units stand beside each key in `conf/local.yaml`, which is the reference.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from slidr import package
from slidr.errors import ConfigError
from slidr.features.spec import FeatureSpec, micros
from slidr.slice_spec import SliceSpec

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
NotNegative = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class LakeConf(Section):
    root: str
    catalog: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){0,2}$")] | None
    click_days: Positive

    @field_validator("root")
    @classmethod
    def absolute(cls, root: str) -> str:
        # Spark takes a relative folder for the name of a table.
        return root if "://" in root else str(Path(root).expanduser().absolute())


class WorkConf(Section):
    root: Path

    @field_validator("root")
    @classmethod
    def absolute(cls, root: Path) -> Path:
        return root.expanduser().absolute()


class RegistryConf(Section):
    uri: str
    artifacts: str
    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]

    @field_validator("uri")
    @classmethod
    def no_file_store(cls, uri: str) -> str:
        if not uri.startswith(("sqlite:", "postgresql", "mysql", "http://", "https://", "databricks")):
            raise ValueError("expected a database or http(s) URI, such as sqlite:///registry.db; MLflow refuses file stores")
        return uri


class SparkConf(Section):
    master: str
    driver_memory: str
    shuffle_partitions: Positive
    jars: Path
    settings: dict[str, str]


class IngestConf(Section):
    max_reject_share: Share
    future_tolerance_minutes: Annotated[int, Field(ge=0)]
    earliest: date
    session_gap_minutes: Positive
    pseudonym_key_variable: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] | None


class LabelsConf(Section):
    attribution_days: Positive
    delay_days: Positive
    rfm_days: Positive
    rfm_high: Annotated[int, Field(ge=3, le=15)]
    heavy_others: Positive
    heavy_minutes: Positive

    @model_validator(mode="after")
    def delay_covers_attribution(self) -> "LabelsConf":
        if self.delay_days < self.attribution_days:
            raise ValueError(
                f"expected delay_days >= attribution_days, found {self.delay_days} < {self.attribution_days}: "
                "a click would be labelled while its purchase may still come"
            )
        return self


class WeightsConf(Section):
    dimensions: list[Literal["hour", "weekday", "logged_in", "label"]]
    max_weight: Annotated[float, Field(gt=1)]
    max_sweeps: Positive
    tolerance: Annotated[float, Field(gt=0)]
    min_cell: Annotated[int, Field(ge=0)]
    small_cells: Literal["stop", "pool"]


class TrainingConf(Section):
    train_days: Positive
    calibration_days: Positive
    judging_days: Positive
    user_shares: tuple[Share, Share, Share]
    hidden: tuple[Positive, Positive]
    epochs: Positive
    batch_size: Positive
    learning_rate: Annotated[float, Field(gt=0)]
    l2: Annotated[float, Field(ge=0)]
    row_group_rows: Positive
    seed: Annotated[int, Field(ge=1)]

    @field_validator("user_shares")
    @classmethod
    def shares_are_of_one_whole(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if sum(shares) > 1 + 1e-9 or min(shares) <= 0:
            raise ValueError(f"expected three positive shares that sum to at most 1, found {shares}")
        return shares


class WorkersConf(Section):
    place: Literal["driver", "local", "cluster"]
    count: Positive
    device: Literal["cpu", "gpu"]
    restarts: Annotated[int, Field(ge=0)]
    timeout_minutes: Positive


class CalibrationConf(Section):
    slices: list[Any]
    method: Literal["bounded", "quadratic", "frontier", "global"]
    fpr_budget: Annotated[float, Field(gt=0, lt=1)]
    confidence: Annotated[float, Field(ge=0.5, lt=1)]
    fpr_max: Share
    min_coverage: Share
    fit_fpr: Share
    min_purchases: Positive


class GuardrailsConf(Section):
    min_hour_clicks: Positive
    min_human_density: Share
    min_purchasing: Positive
    min_high_rfm: Count
    max_purchase_outage_hours: Count
    max_single_class_days: Count
    volume_weeks: Positive
    min_volume_ratio: Share
    max_volume_ratio: Annotated[float, Field(gt=1)]
    min_day_volume_ratio: Share
    max_day_volume_ratio: Annotated[float, Field(gt=1)]
    max_missing_users: Share
    max_missing_addresses: Share
    max_drift: NotNegative
    max_day_drift: NotNegative
    max_reject_share: Share
    max_conflict_share: Share
    late_minutes: Positive
    max_late_share: Share
    max_missing_features: Share
    max_missing_days: Count
    min_judging_purchases: Count
    max_judging_fpr: Share
    max_judging_ivr: Share
    min_judging_ivr: Share
    min_slice_purchases: Positive
    max_slice_fpr: Share
    min_slice_clicks: Positive
    min_slice_coverage: Share
    max_global_slices: Share
    max_baseline_lead: Share
    min_compared: Share
    max_ivr_jump: Share
    max_disagreement: Share
    min_advertiser_clicks: Positive
    max_advertiser_disagreement: Share
    max_money_disagreement: Share
    max_advertiser_money_disagreement: Share
    max_disagreement_micros: Positive


class ReplayConf(Section):
    max_changed_share: Share
    max_money_micros: Positive
    max_advertiser_micros: Positive
    max_fpr: Share
    close_day: Annotated[int, Field(ge=1, le=28)]
    max_days_after_close: Count
    approval_above_micros: Count
    lease_minutes: Positive
    chunk_clicks: Positive


class MonitoringConf(Section):
    weeks: Positive
    min_weeks: Positive
    min_sigmas: Annotated[float, Field(gt=0)]
    max_ivr_ratio: Annotated[float, Field(gt=1)]
    min_ivr_difference: Share
    max_score_shift: Share
    max_empty_shift: Share
    max_volume_ratio: Annotated[float, Field(gt=1)]
    min_clicks: Positive
    min_purchases: Positive
    stable_after_hours: Positive


class Config(Section):
    lake: LakeConf
    work: WorkConf
    registry: RegistryConf
    spark: SparkConf
    marketplaces: dict[str, str]
    ingest: IngestConf
    features: dict[str, Any]
    labels: LabelsConf
    weights: WeightsConf
    training: TrainingConf
    workers: WorkersConf
    calibration: CalibrationConf
    guardrails: GuardrailsConf
    replay: ReplayConf
    monitoring: MonitoringConf
    promotion: Literal["auto", "manual"]

    @field_validator("marketplaces")
    @classmethod
    def zones_exist(cls, marketplaces: dict[str, str]) -> dict[str, str]:
        unknown = {m: z for m, z in marketplaces.items() if z not in available_timezones()}
        if unknown or not marketplaces:
            raise ValueError(f"expected IANA time zones for at least one marketplace, found {unknown or 'none'}")
        return marketplaces

    @property
    def spec(self) -> FeatureSpec:
        return FeatureSpec.from_dict(self.features)

    @property
    def slices(self) -> SliceSpec:
        return SliceSpec.from_list(self.calibration.slices, self.spec)

    @property
    def config_hash(self) -> str:
        """First 12 hex digits of the sha256 of the meaning."""
        return hashlib.sha256(json.dumps(self.meaning, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def meaning(self) -> dict[str, Any]:
        """Everything but where things are kept and on what machines they run: what results depend on."""
        return self.model_dump(mode="json", exclude={"lake", "work", "registry", "spark", "workers"})


def shipped(name: str) -> Path:
    """Path of a configuration file that slidr ships, such as `local.yaml` or `sources/canonical.yaml`."""
    return package.folder("slidr.conf") / name


class _OnceLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping: YAML's own loader would drop the first without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"found twice in one mapping: {', '.join(twice)}", node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError where it is missing, not YAML, or not a mapping."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _OnceLoader)  # noqa: S506  # a SafeLoader
    except OSError as error:
        raise ConfigError(f"expected a readable file at {path}: {error.strerror}; check --conf or --source") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"expected a mapping of keys in {path}, found {type(content).__name__}")
    return content


def load(path: Path | None = None, overrides: tuple[str, ...] = ()) -> Config:
    """Settings from a YAML file (default: the shipped `local.yaml`), then `key.sub=value` overrides.

    Raises ConfigError that lists every unknown key (with its nearest match), missing key and wrong value; then of the feature spec,
    then of the slices.
    """
    source = path or default_path()
    return _checked(read_yaml(source), overrides, option="--set", source=str(source))


def changed(conf: Config, overrides: Sequence[str], *, option: str) -> Config:
    """The settings with `key.sub=value` overrides of an option such as --variant, checked like those of a file."""
    return _checked(conf.model_dump(mode="json"), overrides, option=option, source=option)


def _checked(content: dict[str, Any], overrides: Sequence[str], *, option: str, source: str) -> Config:
    for override in overrides:
        _apply(content, override, option)
    try:
        config = Config.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{source} is not a valid configuration:\n{_explain(error, content)}") from error
    _require_look_back(config.spec, config.lake.click_days)
    SliceSpec.from_list(config.calibration.slices, config.spec)
    return config


def _require_look_back(spec: FeatureSpec, days: int) -> None:
    """Raises ConfigError where a window is longer than clicks are kept: its counters would be too low."""
    windows = {window for counter in spec.counters for window in counter.windows if micros(window) > micros(f"{days}d")}
    if windows:
        raise ConfigError(
            f"expected feature windows of at most {days} days, since lake.click_days keeps no more clicks, "
            f"found {', '.join(sorted(windows))}; shorten them or keep more"
        )


def to_yaml(content: dict[str, Any]) -> str:
    """Settings as a configuration file."""
    return yaml.safe_dump(content, sort_keys=False)


def default_path() -> Path:
    local = Path("conf/local.yaml")
    return local if local.is_file() else shipped("local.yaml")


def _apply(content: dict[str, Any], override: str, option: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise ConfigError(f"{option}: expected key=value, found {override!r}")
    *parents, last = _path(key.strip())
    target = content
    for parent in parents:
        target = target.get(parent) if isinstance(target.get(parent), dict) else {}  # type: ignore[assignment]
    if parents == ["spark", "settings"]:
        target[last] = value
        return
    if last not in target:
        known = ", ".join(get_close_matches(key, _dotted(content), n=3, cutoff=0.4)) or "none similar"
        raise ConfigError(f"{option} names an unknown key {key!r}; nearest: {known}")
    try:
        target[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"{option} {key}: expected a value in YAML, found {' '.join(str(error).split())}") from error


def _path(key: str) -> list[str]:
    """Names from the outermost section to the key; names of Spark's settings have dots of their own, and their values are text."""
    prefix = "spark.settings."
    return ["spark", "settings", key.removeprefix(prefix)] if key.startswith(prefix) else key.split(".")


def _dotted(content: dict[str, Any], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key, value in content.items():
        keys.append(prefix + key)
        if isinstance(value, dict):
            keys += _dotted(value, f"{prefix}{key}.")
    return keys


def _explain(error: ValidationError, content: dict[str, Any]) -> str:
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            section = type_at(problem["loc"][:-1])
            near = get_close_matches(str(problem["loc"][-1]), section, n=1)
            lines.append(f"  {where}: unknown key" + (f"; did you mean {near[0]!r}?" if near else ""))
        else:
            lines.append(f"  {where}: {problem['msg']}")
    return "\n".join(lines)


def type_at(location: tuple[int | str, ...]) -> list[str]:
    """Names of the keys that the settings model knows at a location."""
    model: Any = Config
    for part in location:
        field = model.model_fields.get(part) if hasattr(model, "model_fields") else None
        model = field.annotation if field else None
    return list(model.model_fields) if hasattr(model, "model_fields") else []
