"""How each fault of the suite ended, as one line under the results: tried, survived, refused cleanly.

A test says it by `@pytest.mark.fault(FAULT, HOLDS, ends=SURVIVED or REFUSED)`; tests of other files stand in `elsewhere.py`.
"""

from collections import Counter

import pytest

from tests.faults.elsewhere import ELSEWHERE

SURVIVED, REFUSED = "survived", "refused"
PROPERTY = "fault"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The end of each fault goes with its report, also from the processes of pytest-xdist."""
    for item in items:
        ends = ending(item)
        if ends:
            item.user_properties.append((PROPERTY, ends))


def ending(item: pytest.Item) -> str | None:
    """SURVIVED or REFUSED; None where the test is none of a fault."""
    marker = item.get_closest_marker("fault")
    if marker:
        return str(marker.kwargs["ends"])
    row = ELSEWHERE.get(item.nodeid.partition("[")[0])
    return row.ends if row else None


def counted(stats: dict[str, list[pytest.TestReport]]) -> str | None:
    """The line; None where no fault was tried."""
    ended = Counter(end for report in stats.get("passed", []) if report.when == "call" for end in ends_of(report))
    failed = sum(len(ends_of(report)) for name in ("failed", "error") for report in stats.get(name, []))
    tried = ended.total() + failed
    if not tried:
        return None
    return f"faults: {tried} tried, {ended[SURVIVED]} survived, {ended[REFUSED]} refused cleanly, {failed} neither"


def ends_of(report: pytest.TestReport) -> list[str]:
    return [str(value) for name, value in report.user_properties if name == PROPERTY]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    line = counted(terminalreporter.stats)
    if line:
        terminalreporter.write_line(line)
