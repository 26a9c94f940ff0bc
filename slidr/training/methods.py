"""The methods that learn beside each other from one snapshot. Each ends as inputs and layers of a bundle, so that all are scored
by the same forward pass, without torch. A new one is a function here and a line in METHODS.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from pyspark.sql import SparkSession

from slidr.bundle import Preparation
from slidr.bundle_files import Layer
from slidr.config import TrainingConf, WorkersConf
from slidr.models import velocity as rule
from slidr.training import distributed
from slidr.training.snapshot import Manifest


@dataclass(frozen=True)
class School:
    """What a method learns from, and where. `preparation` has the snapshot's means; `say` tells people how far it is."""

    manifest: Manifest
    preparation: Preparation
    training: TrainingConf
    workers: WorkersConf
    spark: SparkSession
    folder: Path
    say: Callable[[str], None]


@dataclass(frozen=True)
class Fitted:
    """What a method learnt: the inputs and layers of a bundle, and the loss of each epoch, if it has any."""

    preparation: Preparation
    layers: tuple[Layer, ...]
    history: list[float]


def mlp(school: School) -> Fitted:
    """Three fully connected layers, ReLU between them, L2 on the intermediate ones."""
    return _network(school, "mlp", school.training.hidden)


def logistic(school: School) -> Fitted:
    """Logistic regression: the network without intermediate layers."""
    return _network(school, "logistic", ())


def velocity(school: School) -> Fitted:
    """Clicks of the last hour; learns nothing."""
    preparation = rule.prepared(school.preparation)
    return Fitted(preparation, rule.layers(preparation), [])


METHODS: dict[str, Callable[[School], Fitted]] = {"mlp": mlp, "logistic": logistic, "velocity": velocity}


def _network(school: School, name: str, hidden: tuple[int, ...]) -> Fitted:
    training, workers = school.training, school.workers
    lesson = distributed.Lesson(
        snapshot=school.manifest.folder,
        folder=str(school.folder / name),
        preparation=asdict(school.preparation),
        hidden=hidden,
        batch_size=training.batch_size,
        epochs=training.epochs,
        learning_rate=training.learning_rate,
        l2=training.l2,
        seed=training.seed,
        device=workers.device,
        timeout_minutes=workers.timeout_minutes,
    )

    every = max(training.epochs // 5, 1)

    def say(epoch: int, loss: float) -> None:
        if (epoch + 1) % every == 0:
            school.say(f"{name}: epoch {epoch + 1} of {training.epochs}, loss {loss:.4f}, {school.manifest.rows:,} clicks")

    layers, history = distributed.train(
        lesson, school.spark, place=workers.place, workers=workers.count, restarts=workers.restarts, say=say
    )
    return Fitted(school.preparation, layers, history)
