"""The table of faults, docs/faults.md, from what the tests say of themselves: python -m tests.faults.table"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.faults.elsewhere import ELSEWHERE

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "faults.md"
HEAD = """# Faults

What was broken on purpose, what must hold then, and the test that breaks it. *survived*: the result is as if nothing had happened, at
the latest after the same command was run again. *refused*: nothing was published, and the command ended with its exit code and one line
of cause and remedy. Tests marked *slow* run with `pytest -m slow`. Each test run counts the faults tried, survived and refused.

| fault | what must hold | ends | test |
| --- | --- | --- | --- |
"""


@dataclass(frozen=True)
class Line:
    """One row of the table; `test` is a node id without parameters."""

    fault: str
    holds: str
    ends: str
    test: str
    slow: bool


def own() -> list[Line]:
    """The tests of this folder, by file and place."""
    return [line for path in sorted(Path(__file__).parent.glob("test_*.py")) for line in _of_file(path)]


def _of_file(path: Path) -> Iterator[Line]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
            continue
        for mark in node.decorator_list:
            if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fault":
                fault, holds = (str(ast.literal_eval(word)) for word in mark.args)
                ends = ast.unparse(mark.keywords[0].value).lower()
                yield Line(fault, holds, ends, f"tests/faults/{path.name}::{node.name}", _is_slow(node))


def _is_slow(node: ast.FunctionDef) -> bool:
    return any(ast.unparse(mark) == "pytest.mark.slow" for mark in node.decorator_list)


def elsewhere() -> list[Line]:
    """The tests of other files."""
    return [Line(row.fault, row.holds, row.ends, test, _is_slow(_found(test))) for test, row in ELSEWHERE.items()]


def _found(test: str) -> ast.FunctionDef:
    path, _, name = test.partition("::")
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
    raise LookupError(f"expected the test {test}, found none; mend tests/faults/elsewhere.py")


def rendered() -> str:
    """The page."""
    return HEAD + "".join(_row(line) for line in (*own(), *elsewhere()))


def _row(line: Line) -> str:
    ends = f"{line.ends}, slow" if line.slow else line.ends
    return f"| {line.fault} | {line.holds} | {ends} | `{line.test.removeprefix('tests/')}` |\n"


if __name__ == "__main__":
    PAGE.write_text(rendered(), encoding="utf-8")
