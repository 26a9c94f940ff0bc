"""The training loop: weighted cross entropy, L2 on the intermediate layers, Adam. Torch only.

Gradients are summed lane by lane of the snapshot, then over lanes in their order: the same digits, whoever computed which
lane, in one process or in several.

Shapes: B clicks, F features, L lanes, P parameters.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from slidr.errors import ConfigError, GuardrailError, InputError
from slidr.models.network import Mlp, l2_penalty
from slidr.training.progress import Progress

Batch = tuple[Tensor, Tensor, Tensor]  # x_BF raw features, y_B 1 = non-human, w_B weight; float32
Step = Mapping[int, Batch]  # by lane


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. `lanes` is the snapshot's; `device` is a torch device, `cpu` or `cuda`."""

    lanes: int
    epochs: int
    learning_rate: float
    l2: float
    device: str = "cpu"


def seeded(seed: int) -> None:
    """Makes what torch draws from here on repeatable, and operations without a repeatable result an error.

    One thread: sums are split by threads. Call it before the model is made. Equal weights, bit for bit, also need the
    same torch build.
    """
    if seed < 1:
        raise ConfigError(f"expected a seed of at least 1, found {seed}: petastorm and numpy take 0 for no seed; set training.seed")
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)


def fit(
    model: Mlp,
    steps_of_epoch: Callable[[int], Iterator[Step]],
    recipe: Recipe,
    *,
    progress: Progress | None = None,
    add_up: Callable[[Tensor], Tensor] = lambda sums_LP: sums_LP,
) -> list[float]:
    """Trains the model in place and returns the weighted mean cross entropy of each epoch.

    `steps_of_epoch(epoch)` gives the steps of an epoch, counted from 0, with the batches of this process's lanes. `add_up`
    adds sums_LP over all processes; each fills the rows of its own lanes. With `progress` the training goes on after the
    last epoch that it knows, and every epoch is kept there. Raises GuardrailError where the loss is not finite, InputError
    where an epoch has no click.
    """
    model.to(recipe.device).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
    history = progress.restore(model, optimiser) if progress else []
    for epoch in range(len(history), recipe.epochs):
        loss_sum = weight_sum = 0.0
        for step in steps_of_epoch(epoch):
            loss, weight = _learn(model, optimiser, add_up(_sums(model, step, recipe)), recipe.l2, epoch)
            loss_sum, weight_sum = loss_sum + loss, weight_sum + weight
        if weight_sum <= 0:
            raise InputError(f"expected clicks in epoch {epoch}, found none; check the training snapshot")
        history.append(loss_sum / weight_sum)
        _require_finite_weights(model)
        if progress:
            progress.keep(model, optimiser, history)
    model.eval()
    return history


def _sums(model: Mlp, step: Step, recipe: Recipe) -> Tensor:
    """sums_LP of the lanes in `step`, 0 elsewhere: gradient of the weighted loss, then the loss and the weight themselves."""
    parameters = list(model.parameters())
    sums_LP = torch.zeros(recipe.lanes, sum(parameter.numel() for parameter in parameters) + 2, device=recipe.device)
    for lane, batch in step.items():
        x_BF, y_B, w_B = (tensor.to(recipe.device) for tensor in batch)
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=recipe.device.startswith("cuda")):
            logits_B = model(x_BF)
        loss = (w_B * binary_cross_entropy_with_logits(logits_B.float(), y_B, reduction="none")).sum()
        gradient = torch.autograd.grad(loss, parameters)
        torch.cat([*(part.flatten() for part in gradient), loss.detach()[None], w_B.sum()[None]], out=sums_LP[lane])
    return sums_LP


def _learn(model: Mlp, optimiser: torch.optim.Optimizer, sums_LP: Tensor, l2: float, epoch: int) -> tuple[float, float]:
    """One step by the weighted mean over all lanes; returns the sums of loss and weight."""
    sum_P = sums_LP[0]
    for lane_P in sums_LP[1:]:
        sum_P = sum_P + lane_P
    loss, weight = (float(value) for value in sum_P[-2:])
    _require_finite(loss, epoch)
    optimiser.zero_grad(set_to_none=True)
    penalty = l2 * l2_penalty(model)
    if penalty.requires_grad:
        penalty.backward()
    parameters = list(model.parameters())
    for parameter, part in zip(parameters, torch.split(sum_P[:-2] / weight, [p.numel() for p in parameters]), strict=True):
        part = part.view_as(parameter)
        parameter.grad = part.clone() if parameter.grad is None else parameter.grad + part
    optimiser.step()
    return loss, weight


def _require_finite(loss: float, epoch: int) -> None:
    if not math.isfinite(loss):
        raise GuardrailError(
            f"expected a finite training loss, found {loss} in epoch {epoch}; no model was made; "
            "lower training.learning_rate, or look for features and weights out of range"
        )


def _require_finite_weights(model: Mlp) -> None:
    broken = [name for name, parameter in model.named_parameters() if not torch.isfinite(parameter).all()]
    if broken:
        raise GuardrailError(f"expected finite weights after training, found others in {', '.join(broken)}; lower training.learning_rate")
