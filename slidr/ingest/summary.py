"""What became of every row: rows in = written + already there + merged + rejects, per table and file."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from slidr.errors import SlidrError

NEW, ALREADY, MERGED, REJECT = "written", "already_there", "merged", "reject"


@dataclass(frozen=True)
class FileCounts:
    """One file's rows for one table. `merged` are order lines that went into another line's order."""

    table: str
    source_file: str
    rows_in: int
    written: int = 0
    already_there: int = 0
    merged: int = 0
    rejects: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        accounted = self.written + self.already_there + self.merged + self.rejected
        if accounted != self.rows_in:
            raise SlidrError(
                f"expected to account for {self.rows_in} rows of {self.source_file} for {self.table}, found {accounted}; "
                "nothing was published; this is a defect of slidr, please report it"
            )

    @property
    def rejected(self) -> int:
        return sum(self.rejects.values())


@dataclass(frozen=True)
class IngestSummary:
    """All files of one run."""

    run_id: str
    source: str
    files: tuple[FileCounts, ...]

    @property
    def has_rejects(self) -> bool:
        return any(counts.rejected for counts in self.files)

    @property
    def changed(self) -> bool:
        """Whether any table gained a row."""
        return any(counts.written for counts in self.files)

    def total(self, table: str) -> FileCounts:
        """The sum over the files."""
        mine = [counts for counts in self.files if counts.table == table]
        reasons: Counter[str] = Counter()
        for counts in mine:
            reasons.update(counts.rejects)
        numbers = {name: sum(getattr(c, name) for c in mine) for name in ("rows_in", "written", "already_there", "merged")}
        return FileCounts(table, "all files", **numbers, rejects=dict(sorted(reasons.items())))

    @property
    def totals(self) -> dict[str, FileCounts]:
        return {table: self.total(table) for table in sorted({counts.table for counts in self.files})}

    def to_dict(self) -> dict[str, Any]:
        """For JSON: totals by table, and each file."""
        return {
            "run_id": self.run_id,
            "source": self.source,
            "tables": {table: _plain(counts) for table, counts in self.totals.items()},
            "files": [{"table": c.table, "source_file": c.source_file, **_plain(c)} for c in self.files],
        }


def _plain(counts: FileCounts) -> dict[str, Any]:
    names = ("rows_in", "written", "already_there", "merged", "rejected", "rejects")
    return {name: getattr(counts, name) for name in names}
