"""What broke outside slidr, as Spark, Delta and the system say it, told as one line of cause and remedy."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from slidr import errors
from slidr.errors import InputError, SetupError, SlidrError

DEPTH = 12  # causes that are followed
FILE = re.compile(r"(?:[a-z][a-z0-9]*:)?/[^\s'\"\[\](),]*?(?:\.parquet|\.json|\.crc|_last_checkpoint)")
OF_A_WORKER = re.compile(r"slidr\.errors\.(\w+): (.*)")
LAST_OF_A_TRACE = re.compile(r"^(?:[\w.]+\.)?(\w+(?:Error|Exception)): (.*)$", re.MULTILINE)


class Mishap(NamedTuple):
    """Words of which one stands in what was said; `told` may name the {file}."""

    words: tuple[str, ...]
    error: type[SlidrError]
    told: str


NOTHING = "nothing of this step was published"
KNOWN = (
    Mishap(
        ("No space left on device", "Disk quota exceeded", "File too large", "not enough space on the disk"),
        SetupError,
        f"expected room on the disk for what the run writes, found it full; {NOTHING}; make room, then run the same command again",
    ),
    Mishap(
        ("java.lang.OutOfMemoryError", "Cannot allocate memory"),
        SetupError,
        f"expected enough memory, found it used up; {NOTHING}; raise spark.driver_memory or spark.shuffle_partitions, then run it again",
    ),
    Mishap(
        ("JAVA_GATEWAY_EXITED", "JAVA_HOME is not set"),
        SetupError,
        "expected Java 17 to start, found that it did not; `slidr doctor` says what this machine lacks",
    ),
    Mishap(
        ("Python worker exited unexpectedly", "ExecutorLostFailure"),
        SetupError,
        f"expected the tasks to end, found that a worker was lost, killed or short of memory; {NOTHING}; run the same command again",
    ),
    Mishap(
        (
            "Answer from Java side is empty",
            "Py4JNetworkError",
            "ConnectionRefusedError",
            "SparkContext was shut down",
            "stopped SparkContext",
        ),
        SetupError,
        f"expected Spark to go on, found that its process has ended; {NOTHING}; run the same command again",
    ),
    Mishap(
        ("DELTA_VERSION_NOT_FOUND", "DELTA_NO_RECREATABLE_HISTORY_FOUND", "VersionNotFoundException"),
        InputError,
        "expected the commit of a table that the run is pinned to, found its history removed; plan or train again on the newest commit",
    ),
    Mishap(
        ("FILE_NOT_EXIST", "DELTA_FILE_NOT_FOUND", "java.io.FileNotFoundException"),
        InputError,
        "expected the file {file} of a table, found it gone (vacuumed or deleted); restore it from a copy, or plan or train again on the "
        "newest commit",
    ),
    Mishap(
        (".checkpoint.parquet",),
        InputError,
        "expected a whole checkpoint of the table's log, found {file} damaged; restore it from a copy, or delete it and _last_checkpoint "
        "where the .json files of all commits are still there",
    ),
    Mishap(
        (
            "DELTA_STATE_RECOVER_ERROR",
            "DELTA_VERSIONS_NOT_CONTIGUOUS",
            "DELTA_TRUNCATED_TRANSACTION_LOG",
            "DELTA_LOG_FILE_NOT_FOUND",
            "DELTA_MISSING_PART_FILES",
            "DELTA_TXN_LOG_FAILED_INTEGRITY",
            "JsonParseException",
            "JsonEOFException",
            "MismatchedInputException",
        ),
        InputError,
        "expected a whole log of the table, found {file} broken or missing; restore the folder _delta_log from a copy",
    ),
    Mishap(
        ("FAILED_READ_FILE", "is not a Parquet file", "CANNOT_READ_FILE_FOOTER", "ParquetDecodingException"),
        InputError,
        "expected a whole file {file}, found it cut off or damaged; restore it from a copy; features and labels can be built anew",
    ),
)


def retold(error: Exception) -> SlidrError | None:
    """What a user can act on; None for what is not known here, and so may be a defect of slidr."""
    said = "\n".join(_said(error))
    worker = OF_A_WORKER.search(said)
    if worker and issubclass(getattr(errors, worker[1], Exception), SlidrError):  # raised by slidr in a task
        known: SlidrError = getattr(errors, worker[1])(worker[2])
        return known
    for mishap in KNOWN:
        if any(words in said for words in mishap.words):
            file = FILE.search(said)
            return mishap.error(mishap.told.format(file=file[0] if file else "that it needs"))
    return None


def in_short(error: Exception) -> str:
    """An error of which nothing is known, on one line: of a trace of a task its last line."""
    text = str(error)
    trace = LAST_OF_A_TRACE.findall(text) if "Traceback (most recent call last)" in text else []
    line = ": ".join(trace[-1]) if trace else next((line for line in text.splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line.strip()[:400]}"


def _said(error: BaseException | None) -> Iterator[str]:
    """What the error and its causes say, those of Java too."""
    for _ in range(DEPTH):
        if error is None:
            return
        yield f"{type(error).__name__}: {error}"
        yield from _said_by_java(getattr(error, "java_exception", None) or getattr(error, "_origin", None))
        error = error.__cause__ or error.__context__


def _said_by_java(thrown: Any) -> Iterator[str]:
    try:
        for _ in range(DEPTH):
            if thrown is None:
                return
            yield str(thrown.toString())
            thrown = thrown.getCause()
    except OSError:  # its process has ended, which the error above says
        return
