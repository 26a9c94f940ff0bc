"""One training of a network, in the driver's process or in several workers: on CPUs (gloo) or GPUs (nccl).

Workers are those of Spark's TorchDistributor: processes on the driver, or one barrier task each on the cluster. The lanes of
the snapshot are dealt to them; every number of workers gives the same weights on CPUs, bit for bit.
"""

import contextlib
import io
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as group
from pyspark.ml.torch.distributor import TorchDistributor
from pyspark.sql import SparkSession
from torch import Tensor

from slidr import errors
from slidr.bundle import Preparation
from slidr.bundle_files import Layer
from slidr.errors import SetupError, SlidrError
from slidr.models.network import Mlp, export_layers
from slidr.training import data, loop
from slidr.training.progress import Progress

Place = Literal["driver", "local", "cluster"]
LOOK_EVERY = 2.0  # seconds between looks at what the workers have done


@dataclass(frozen=True)
class Lesson:
    """All that a worker needs to know, in plain values. `folder` is where progress is kept, on a disk that all machines see."""

    snapshot: str
    folder: str
    preparation: dict[str, Any]
    hidden: tuple[int, ...]
    batch_size: int
    epochs: int
    learning_rate: float
    l2: float
    seed: int
    device: Literal["cpu", "gpu"]
    timeout_minutes: int

    def identity(self, manifest: data.Manifest) -> str:
        """Hash of everything that the weights depend on."""
        told = {**asdict(self), "snapshot": manifest.sha256, "torch": torch.__version__}
        del told["folder"], told["timeout_minutes"]
        return sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def train(
    lesson: Lesson, spark: SparkSession, *, place: Place, workers: int, restarts: int, say: Callable[[int, float], None]
) -> tuple[tuple[Layer, ...], list[float]]:
    """The trained layers, and the loss of each epoch. `say(epoch, loss)` reports each epoch once.

    A worker that is lost ends its attempt; the next goes on after the last epoch that was kept, at most `restarts` times.
    Raises what a worker found wrong; SetupError where the workers cannot be had or are lost too often.
    """
    progress = Progress(Path(lesson.folder), lesson.identity(data.load_manifest(lesson.snapshot)), writes=False)
    _forget_failures(lesson)
    with _told(progress, say):
        if place == "driver":
            require_device(lesson.device)
            work(lesson)
        else:
            require_workers(spark, place=place, workers=workers, device=lesson.device)
            _launch(lesson, place, workers, restarts, progress)
    return _result(lesson, progress)


def work(lesson: Lesson) -> None:
    """What each worker does; alone, or as one of the processes that torchrun started. The first keeps the progress."""
    rank, workers = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = "cuda" if lesson.device == "gpu" else "cpu"
    if device == "cuda":  # processes on one machine see all its GPUs; a barrier task sees its own
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats itself only with a workspace of fixed size
    try:
        manifest = data.load_manifest(lesson.snapshot)
        lanes = range(rank, manifest.lanes, workers)
        recipe = loop.Recipe(manifest.lanes, lesson.epochs, lesson.learning_rate, lesson.l2, device)
        loop.seeded(lesson.seed)
        model = Mlp(_preparation(lesson), lesson.hidden)
        with _joined(workers, device, lesson.timeout_minutes) as add_up:
            loop.fit(
                model,
                lambda epoch: data.steps(manifest, lanes, batch_size=lesson.batch_size, seed=lesson.seed, epoch=epoch),
                recipe,
                progress=Progress(Path(lesson.folder), lesson.identity(manifest), writes=rank == 0),
                add_up=add_up,
            )
    except SlidrError as error:
        _failure(lesson, rank).write_text(json.dumps({"type": type(error).__name__, "message": str(error)}))
        raise


def require_device(device: str) -> None:
    """Raises SetupError where the driver is to train on a GPU and has none."""
    if device == "gpu" and not torch.cuda.is_available():
        raise SetupError("expected a GPU that torch can use on the driver, found none; set workers.device to cpu, or see conf/gpu.yaml")


def require_workers(spark: SparkSession, *, place: Place, workers: int, device: str) -> None:
    """Raises SetupError that lists what is missing for so many workers, instead of waiting for it."""
    settings = spark.sparkContext.getConf()
    problems = []
    if place == "cluster":
        slots = _slots(spark)
        if slots < workers:
            problems.append(f"{workers} slots at once (executors x cores / spark.task.cpus, and GPUs / those of a task), found {slots}")
        if settings.get("spark.dynamicAllocation.enabled", "false") == "true":
            problems.append("spark.dynamicAllocation.enabled=false, since barrier tasks start together, found true")
    if device == "gpu":
        wanted = ["spark.driver.resource.gpu.amount", "spark.driver.resource.gpu.discoveryScript"]
        if place == "cluster":
            wanted = ["spark.executor.resource.gpu.amount", "spark.executor.resource.gpu.discoveryScript", "spark.task.resource.gpu.amount"]
        problems += [f"{name}, found it unset" for name in wanted if not settings.get(name, None)]
        on_driver = int(settings.get("spark.driver.resource.gpu.amount", "0") or 0)
        if place == "local" and on_driver < workers:
            problems.append(f"{workers} GPUs on the driver, found spark.driver.resource.gpu.amount={on_driver}")
    if problems:
        raise SetupError(
            f"expected for {workers} {device} workers on the {place}: " + "; ".join(problems) + "; see conf/gpu.yaml and `workers`"
        )


def _slots(spark: SparkSession) -> int:
    """Tasks that run at once, by cores and GPUs of the executors that are there: what Spark itself waits for before barrier tasks."""
    context = spark.sparkContext._jsc.sc()
    return int(context.maxNumConcurrentTasks(context.resourceProfileManager().defaultResourceProfile()))


@contextlib.contextmanager
def _joined(workers: int, device: str, timeout_minutes: int) -> Iterator[Callable[[Tensor], Tensor]]:
    """A function that adds a tensor up over all workers. Rows that only one of them fills come out exactly as they were."""
    if workers == 1:
        yield lambda sums: sums
        return
    group.init_process_group("nccl" if device == "cuda" else "gloo", timeout=timedelta(minutes=timeout_minutes))

    def add_up(sums: Tensor) -> Tensor:
        group.all_reduce(sums)
        return sums

    try:
        yield add_up
    finally:
        group.destroy_process_group()


def _launch(lesson: Lesson, place: Place, workers: int, restarts: int, progress: Progress) -> None:
    for attempt in range(restarts + 1):
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # what workers print; stdout belongs to --json
                TorchDistributor(num_processes=workers, local_mode=place == "local", use_gpu=lesson.device == "gpu").run(work, lesson)
            return
        except Exception as error:  # Spark tells a lost worker by a RuntimeError, or by whatever its stage failed with
            _retell(lesson, error)
            if attempt == restarts:
                raise SetupError(
                    f"expected {workers} workers to train to the end, lost some in {attempt + 1} attempts; {len(progress.history())} of "
                    f"{lesson.epochs} epochs are kept: train again to go on; the last attempt ended with {_last_line(error)}"
                ) from error


def _last_line(error: Exception) -> str:
    return next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)[:500]


def _retell(lesson: Lesson, error: Exception) -> None:
    """Raises what a worker found wrong by itself: that is no lost worker, and would be found again."""
    for path in sorted(Path(lesson.folder).glob("failed-*.json")):
        failure = json.loads(path.read_text())
        known = {kind.__name__: kind for kind in errors.SlidrError.__subclasses__()}
        raise known.get(failure["type"], errors.SlidrError)(failure["message"]) from error


def _failure(lesson: Lesson, rank: int) -> Path:
    Path(lesson.folder).mkdir(parents=True, exist_ok=True)
    return Path(lesson.folder) / f"failed-{rank}.json"


def _forget_failures(lesson: Lesson) -> None:
    for path in Path(lesson.folder).glob("failed-*.json"):
        path.unlink()


def _preparation(lesson: Lesson) -> Preparation:
    return Preparation(**{name: tuple(values) for name, values in lesson.preparation.items()})


def _result(lesson: Lesson, progress: Progress) -> tuple[tuple[Layer, ...], list[float]]:
    model = Mlp(_preparation(lesson), lesson.hidden)
    history = progress.restore(model, torch.optim.Adam(model.parameters()))
    if len(history) != lesson.epochs:
        raise SetupError(
            f"expected {lesson.epochs} epochs in {progress.path}, found {len(history)}; "
            "put work.root on a disk that the driver and all workers see"
        )
    return export_layers(model), history


@contextlib.contextmanager
def _told(progress: Progress, say: Callable[[int, float], None]) -> Iterator[None]:
    """Reports epochs as they are kept, whichever process trains."""
    ended = threading.Event()
    seen = len(progress.history())

    def tell() -> None:
        nonlocal seen
        history = progress.history()
        for epoch in range(seen, len(history)):
            say(epoch, history[epoch])
        seen = len(history)

    def watch() -> None:
        while not ended.wait(LOOK_EVERY):
            tell()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        tell()
