"""Every documented exit code: what it comes from, how a command ends with it, and the test that brings it about for real. No Spark."""

import ast
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from slidr import config, errors, run
from slidr.errors import SlidrError
from slidr.run import Job, Outcome

ROOT = Path(__file__).parent.parent
# Code -> a test that reaches it the way a user does, and names it.
REACHED = {
    0: "test_look.py::test_tables_are_listed_from_the_log",
    1: "test_features_job.py::test_a_killed_run_goes_on_where_it_was",
    2: "test_look.py::test_what_cannot_be_asked_is_one_short_message",
    3: "test_look.py::test_a_lake_is_compared_with_the_declarations",
    4: "test_jobs.py::test_daily_is_idempotent_by_date_and_a_guardrail_leaves_the_champion",
    5: "test_replay.py::test_stale_plans_are_refused_and_other_days_do_not_matter",
    6: "test_lease.py::test_a_lease_keeps_others_from_overlapping_windows_only",
    7: "test_jobs.py::never_decided_replay",
    8: "test_jobs.py::test_the_chain_from_training_to_a_published_replay",
    9: "test_jobs.py::test_every_run_leaves_its_record",
    10: "test_real_chains.py::test_an_access_log_has_no_purchases_and_trains_nothing",
    75: "test_horizon.py::test_doctor_tells_it",
    130: "test_exit_codes.py::test_a_signal_ends_a_command_as_interrupted",
    143: "test_exit_codes.py::test_a_signal_ends_a_command_as_interrupted",
}
RAISED = {error: error.exit_code for error in vars(errors).values() if isinstance(error, type) and issubclass(error, SlidrError)}
WAITING = """
import sys, time
from pathlib import Path
from slidr import config, run
conf = config.load(config.shipped("local.yaml"), (f"work.root={sys.argv[1]}",))
def wait(job):
    Path(sys.argv[1], "waits").touch()
    time.sleep(120)
sys.exit(run.execute("slidr wait", wait, conf=conf, as_json=True, quiet=True, verbose=False))
"""


def documented() -> set[int]:
    page = (ROOT / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\d, ]+) \|", page, re.MULTILINE)
    return {int(code) for row in rows for code in row.split(",")}


def test_the_page_lists_the_codes_that_commands_end_with() -> None:
    beside = {errors.DONE, errors.DONE_WITH_REJECTS, run.INTERRUPTED, run.TERMINATED, run.BROKEN}
    assert documented() == set(RAISED.values()) | beside == set(REACHED)


@pytest.mark.parametrize("code", REACHED)
def test_each_code_is_reached_by_a_test_that_names_it(code: int) -> None:
    file, name = REACHED[code].split("::")
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    assert found, f"no {name} in {file}"
    named = {node.value for part in (found[0], *found[0].decorator_list) for node in ast.walk(part) if isinstance(node, ast.Constant)}
    assert code in named or code == 0, f"{name} in {file} does not name {code}"


def ended(tmp_path: Path, action: Callable[[Job], Outcome]) -> tuple[int, dict]:
    """The code of a command that does this, and what it left for schedulers."""
    conf = config.load(config.shipped("local.yaml"), (f"work.root={tmp_path}",))
    code = run.execute("slidr test", action, conf=conf, as_json=False, quiet=True, verbose=False)
    [kept] = (tmp_path / "runs").glob("*/run_result.json")
    return code, json.loads(kept.read_text())


@pytest.mark.parametrize("error", RAISED, ids=lambda error: error.__name__)
def test_an_error_ends_its_command_with_its_code_in_one_line(
    error: type[SlidrError], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def refused(_: Job) -> NoReturn:
        raise error("expected a, found b; do c")

    code, kept = ended(tmp_path, refused)
    assert (code, kept["exit_code"], kept["outcome"]) == (error.exit_code, error.exit_code, "refused")
    assert kept["message"] == "expected a, found b; do c"
    assert capsys.readouterr().err.strip() == "slidr: expected a, found b; do c"


@pytest.mark.parametrize("code", [errors.DONE, errors.DONE_WITH_REJECTS])
def test_what_is_done_says_so(code: int, tmp_path: Path) -> None:
    found, kept = ended(tmp_path, lambda _: Outcome({"rows": 3}, exit_code=code))
    assert (found, kept["exit_code"], kept["outcome"], kept["counts"], kept["message"]) == (code, code, "done", {"rows": 3}, None)


def test_a_defect_is_one_and_says_how_to_see_more(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    code, kept = ended(tmp_path, lambda _: Outcome({"rows": 1 // 0}))
    assert (code, kept["exit_code"]) == (run.BROKEN, run.BROKEN) == (1, 1)
    said = capsys.readouterr().err
    assert "ZeroDivisionError" in said
    assert "Run it with -v" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_command_as_interrupted(sent: signal.Signals, code: int, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WAITING, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            while not (tmp_path / "waits").exists():
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.1)
            process.send_signal(sent)
            said, told = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == code
    [kept] = (tmp_path / "runs").glob("*/run_result.json")
    result = json.loads(kept.read_text())
    assert (result["exit_code"], result["outcome"]) == (code, "interrupted")
    assert json.loads(said)["exit_code"] == code
    assert b"run the same command again" in told
    assert b"Traceback" not in told
