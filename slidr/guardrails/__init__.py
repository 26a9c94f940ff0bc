"""What may stop a training run, a promotion or a replay: measurements against bounds, all of them listed at once."""

from slidr.guardrails.champion import Alike, check_champion, decided_alike
from slidr.guardrails.checks import FALSE_STOPS, Check, beside, one_line, require, rows
from slidr.guardrails.data import Measured, Others, check_training_data
from slidr.guardrails.drift import REFERENCE, reference_of
from slidr.guardrails.model import check_model
from slidr.guardrails.reads import read_others
from slidr.guardrails.replay import check_replay
from slidr.guardrails.window import clicks_by_hour, measure, orders_by_hour, rejects_by_reason, window_tables

__all__ = [
    "FALSE_STOPS",
    "REFERENCE",
    "Alike",
    "Check",
    "Measured",
    "Others",
    "beside",
    "check_champion",
    "check_model",
    "check_replay",
    "check_training_data",
    "clicks_by_hour",
    "decided_alike",
    "measure",
    "one_line",
    "orders_by_hour",
    "read_others",
    "reference_of",
    "rejects_by_reason",
    "require",
    "rows",
    "window_tables",
]
