"""What Spark, Delta and the system say of their own mishaps becomes one line; a defect of slidr's stays one."""

import errno
import json
import os
from pathlib import Path

import pytest

from slidr import config, mishaps
from slidr.errors import InputError, SetupError
from slidr.run import Outcome, execute
from tests.faults.shop import one_line
from tests.faults.summary import REFUSED

SAID = {
    "disk": (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), SetupError, "make room"),
    "quota": (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), SetupError, "make room"),
    "memory": (RuntimeError("java.lang.OutOfMemoryError: Java heap space\n\tat x.y(Z.java)"), SetupError, "spark.driver_memory"),
    "java": (RuntimeError("[JAVA_GATEWAY_EXITED] Java gateway process exited"), SetupError, "slidr doctor"),
    "executor": (
        RuntimeError("Job aborted: ExecutorLostFailure (executor 1 exited)\nDriver stacktrace:"),
        SetupError,
        "run the same command",
    ),
    "worker": (RuntimeError("SparkException: Python worker exited unexpectedly (crashed)"), SetupError, "run the same command again"),
    "jvm": (RuntimeError("Py4JNetworkError: Answer from Java side is empty"), SetupError, "run the same command again"),
    "jvm gone": (ConnectionRefusedError(111, "Connection refused"), SetupError, "run the same command again"),
    "gone": (
        RuntimeError("[FAILED_READ_FILE.FILE_NOT_EXIST] while reading file:/a/b%20c.parquet. It"),
        InputError,
        "file:/a/b%20c.parquet",
    ),
    "torn": (
        RuntimeError("[FAILED_READ_FILE.NO_HINT] Encountered error while reading file s3a://x/y.parquet."),
        InputError,
        "s3a://x/y.parquet",
    ),
    "log": (RuntimeError("[DELTA_STATE_RECOVER_ERROR] The metadata could not be recovered"), InputError, "_delta_log"),
    "history": (RuntimeError("[DELTA_VERSION_NOT_FOUND] Cannot time travel Delta table to version 3"), InputError, "plan or train again"),
    "task": (
        RuntimeError('Traceback (most recent call last):\n  File "x.py", line 1\nslidr.errors.InputError: expected a, found b; do c\n'),
        InputError,
        "expected a, found b; do c",
    ),
}


@pytest.mark.fault(
    "disk, memory, Java, executors, files or log fail under a command", "a line of cause and remedy, exit 3 or 75", ends=REFUSED
)
@pytest.mark.parametrize("name", SAID)
def test_a_mishap_is_one_line(name: str) -> None:
    error, kind, word = SAID[name]
    outer = ValueError("in between")
    outer.__cause__ = error
    for said in (error, outer):
        known = mishaps.retold(said)
        assert type(known) is kind
        one_line(str(known), word)


@pytest.mark.fault("an error that nobody foresaw", "exit 1, its last line, and -v for the trace", ends=REFUSED)
def test_what_is_not_known_is_told_in_short_and_stays_a_defect() -> None:
    trace = (
        "An exception was thrown:\nTraceback (most recent call last):\n  File \"x.py\", line 1, in f\nKeyError: 'a'\n\nJVM stacktrace:\n"
    )
    assert mishaps.retold(RuntimeError(trace)) is None
    assert mishaps.in_short(RuntimeError(trace)) == "RuntimeError: KeyError: 'a'"
    assert mishaps.in_short(ValueError("first\nsecond")) == "ValueError: first"


@pytest.mark.fault("a run that can't be put on record", "exit 75 although its work is done; it says so", ends=REFUSED)
def test_a_run_that_cannot_be_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    conf = config.load(config.shipped("local.yaml"), (f"work.root={tmp_path}/file/work", f"lake.root={tmp_path}/lake"))
    code = execute("slidr test", lambda _: Outcome({"rows": 1}), conf=conf, as_json=True, quiet=True, verbose=False)
    told = json.loads(capsys.readouterr().out)
    assert (code, told["exit_code"], told["rows"]) == (75, 75, 1)
    one_line(
        told["message"].replace(str(tmp_path), ""), ("the work is done, but this run could not be put on record", "NotADirectoryError")
    )
