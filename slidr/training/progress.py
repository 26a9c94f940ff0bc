"""Where a training stands, on disk: weights, the optimiser's moments, and the losses of the epochs that are done.

One safetensors file, replaced whole after each epoch by the first worker; the file of the last epoch is the result. It
belongs to one training: another identity starts anew.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

FILE = "progress.safetensors"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of torch's Adam


@dataclass(frozen=True)
class Progress:
    """`writes` is true in the one process that keeps the file."""

    folder: Path
    identity: str
    writes: bool = True

    @property
    def path(self) -> Path:
        return self.folder / FILE

    def history(self) -> list[float]:
        """Losses of the epochs that are done."""
        try:
            with safe_open(self.path, framework="pt") as file:
                about = file.metadata() or {}
        except (OSError, SafetensorError):
            return []  # no file: nothing is done; files are replaced whole, so there is no half one
        return list(json.loads(about["history"])) if about.get("identity") == self.identity else []

    def restore(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> list[float]:
        """Brings model and optimiser to the end of the last epoch that is done, and returns the losses so far."""
        history = self.history()
        if not history:
            return []
        with safe_open(self.path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
        with torch.no_grad():
            for number, parameter in enumerate(model.parameters()):
                parameter.copy_(tensors[f"{number}.parameter"])
                optimiser.state[parameter] = {
                    name: tensors[f"{number}.{name}"].to(parameter.device if name != "step" else "cpu") for name in MOMENTS
                }
        return history

    def keep(self, model: nn.Module, optimiser: torch.optim.Optimizer, history: list[float]) -> None:
        """Replaces the file in one move, so that a kill leaves the epoch before or this one."""
        if not self.writes:
            return
        tensors = {}
        for number, parameter in enumerate(model.parameters()):
            tensors[f"{number}.parameter"] = parameter.detach().cpu().contiguous()
            for name in MOMENTS:
                tensors[f"{number}.{name}"] = optimiser.state[parameter][name].detach().cpu().contiguous()
        about = {"identity": self.identity, "history": json.dumps(history)}
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(".new")
        with open(fresh, "wb") as file:
            file.write(save(tensors, metadata=about))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)
