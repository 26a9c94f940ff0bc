"""docs/faults.md names every fault test, and every test that it names exists."""

import ast
from pathlib import Path

import pytest

from tests.faults import summary, table


def test_the_page_is_what_the_tests_say() -> None:
    assert table.PAGE.read_text(encoding="utf-8") == table.rendered(), "run `python -m tests.faults.table`"


def test_every_test_of_this_folder_stands_in_the_table() -> None:
    files = [path for path in Path(__file__).parent.glob("test_*.py") if path.name != Path(__file__).name]
    names = {
        f"tests/faults/{path.name}::{node.name}"
        for path in files
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    assert {line.test for line in table.own()} == names
    assert {line.ends for line in (*table.own(), *table.elsewhere())} <= {summary.SURVIVED, summary.REFUSED}


def report(outcome: str, when: str, ends: str | None) -> pytest.TestReport:
    properties = [(summary.PROPERTY, ends)] if ends else []
    return pytest.TestReport("x", ("x", 1, "x"), {}, outcome, None, when, user_properties=properties)  # type: ignore[arg-type]


def test_the_line_counts_each_fault_once() -> None:
    stats = {
        "": [report("passed", "setup", summary.SURVIVED)],
        "passed": [report("passed", "call", ends) for ends in (summary.SURVIVED, summary.SURVIVED, summary.REFUSED, None)],
        "failed": [report("failed", "call", summary.REFUSED)],
        "error": [report("failed", "setup", summary.SURVIVED), report("failed", "setup", None)],
    }
    assert summary.counted(stats) == "faults: 5 tried, 2 survived, 1 refused cleanly, 2 neither"
    assert summary.counted({"passed": [report("passed", "call", None)]}) is None
