"""Imports point one way, heavy libraries have one home, and what runs on the base install does not need the training extra."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
STAGES = {"ingest", "labels", "weights", "models", "training", "calibration", "evaluation", "guardrails"}
VALUES = {
    "days",
    "direct",
    "data_files",
    "new_files",
    "writers",
    "rewriting",
    "process",
    "package",
    "errors",
    "ledger",
    "mishaps",
    "progress",
    "features",
    "tables",
    "lake",
    "config",
    "session",
    "pyworker",
    "buckets",
    "tally",
    "intervals",
    "curves",
    "thresholds",
    "hashing",
    "bundle",
    "bundle_files",
    "version",
    "zones",
    "jars",
    "slices",
    "slice_spec",
    "pages",
    "query",
    "reasons",
    "ready",
    "answers",
    "dictionary",
    "history",
    "pseudonyms",
    "redaction",
    "folders",
    "contract",
    "threads",
}
HOMES = {
    "mlflow": {"slidr/registry/store.py"},
    "deltalake": {"slidr/direct.py", "slidr/data_files.py", "slidr/new_files.py", "slidr/writers.py"},
    "duckdb": {"slidr/query.py", "slidr/features/reading.py"},
    "cvxpy": {"slidr/calibration/quadratic.py"},
    "petastorm": {"slidr/training/data.py"},
    "torch": {"slidr/models/network.py", *(f"slidr/training/{name}.py" for name in ("data", "distributed", "loop", "progress"))},
    "delta": {"slidr/lake.py"},
}
JOBS = [f"slidr.jobs.{path.stem}" for path in (ROOT / "jobs").glob("[a-z]*.py")]
BASE = [*JOBS, "slidr.cli", "slidr.features.counters", "slidr.scoring", "slidr.replay.plan", "slidr.replay.apply", "slidr.monitoring"]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def modules() -> dict[str, set[str]]:
    return {str(p.relative_to(ROOT)): imports(p) for folder in ("slidr", "jobs") for p in (ROOT / folder).rglob("*.py")}


def part(path: str) -> str:
    return Path(path).parts[1].removesuffix(".py")


def uses(found: set[str]) -> set[str]:
    return {name.split(".")[1] for name in found if name.startswith("slidr.")}


def test_imports_point_one_way() -> None:
    allowed = {stage: VALUES | {stage} for stage in STAGES}
    allowed["training"] |= {"models"}  # the loop trains the network that models defines; both are torch
    allowed |= {"plots": VALUES | {"plots"}, "features": VALUES, "registry": VALUES | {"registry"}, "scoring": VALUES | {"scoring"}}
    allowed |= {"deciding": VALUES | {"deciding", "scoring"}}
    allowed |= {"shadow": VALUES | {"shadow", "scoring"}, "explain": VALUES | {"explain", "plots"}}
    allowed |= {"judging": VALUES | {"judging", "evaluation", "scoring"}}
    allowed |= {"training_plots": VALUES | {"training_plots", "plots", "evaluation"}}
    allowed |= {"calibration_plots": VALUES | {"calibration_plots", "plots"}}
    allowed |= {"training_report": VALUES | {"training_report", "training_plots", "calibration_plots", "plots", "evaluation"}}
    allowed |= {"backtest": VALUES | {"backtest", "plots", "evaluation"}}
    allowed |= {"statement": VALUES | {"statement"}, "upkeep": VALUES | {"upkeep"}}
    allowed |= {"monitoring": VALUES | {"monitoring", "scoring", "plots", "guardrails"}}
    allowed |= {"weekly": VALUES | {"weekly", "plots", "evaluation", "monitoring"}}
    allowed |= {"replay": VALUES | {"replay", "deciding", "scoring", "plots", "guardrails", "monitoring"}}
    for path, found in modules().items():
        if path.startswith("slidr/") and part(path) in allowed:
            assert uses(found) <= allowed[part(path)] | {"errors"}, f"{path} imports {uses(found) - allowed[part(path)]}"


def test_heavy_libraries_have_one_home() -> None:
    for library, homes in HOMES.items():
        users = {path for path, found in modules().items() if any(name.split(".")[0] == library for name in found)}
        assert users == homes, f"{library} is imported by {users}"


def test_spec_kernel_and_forward_pass_are_free_of_spark() -> None:
    for path in (
        "slidr/features/spec.py",
        "slidr/features/kernel.py",
        "slidr/slice_spec.py",
        "slidr/bundle.py",
        "slidr/bundle_files.py",
        "slidr/reasons.py",
    ):
        assert not any(name.startswith("pyspark") for name in modules()[path])


def test_the_base_install_does_not_need_the_training_extra() -> None:
    block = "import sys\nfor name in ('torch', 'petastorm', 'cvxpy'): sys.modules[name] = None\n"
    script = block + "".join(f"import {name}\n" for name in BASE)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_a_query_waits_for_no_library_that_it_does_not_use() -> None:
    script = (
        "import sys\nfrom typer.testing import CliRunner\nfrom slidr.cli import app\n"
        "shown = CliRunner().invoke(app, ['sql', '--help'])\nassert '--ready' in shown.stdout\n"
        "assert not {'matplotlib', 'scipy', 'mlflow', 'torch'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_no_plan_depends_on_chance_or_on_built_sql() -> None:
    banned = ("monotonically_increasing_id", "F.rand(", "F.uuid(", "pickle.load", "torch.load", "shell=True")
    for path in modules():
        text = (ROOT / path).read_text(encoding="utf-8")
        assert not [word for word in banned if word in text], path
