"""The training loop: weighted cross entropy, L2 on the intermediate layers, Adam. Torch only.

Shapes: B clicks, F features.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from slidr.errors import ConfigError, GuardrailError, InputError
from slidr.models import Mlp, l2_penalty

Batch = tuple[Tensor, Tensor, Tensor]  # x_BF raw features, y_B 1 = non-human, w_B weight; float32


def seeded(seed: int) -> None:
    """Makes what torch draws from here on repeatable, and operations without a repeatable result an error.

    Call it before the model is made. Bit-equal weights also need the same torch build and number of threads.
    """
    if seed < 1:
        raise ConfigError(f"expected a seed of at least 1, found {seed}: petastorm and numpy take 0 for no seed; set training.seed")
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)


def fit(
    model: Mlp,
    epochs_of_batches: Callable[[int], Iterator[Batch]],
    *,
    epochs: int,
    learning_rate: float,
    l2: float,
    on_epoch: Callable[[int, float], None],
) -> list[float]:
    """Trains the model in place and returns the weighted mean cross entropy of each epoch.

    `epochs_of_batches(epoch)` gives the batches of an epoch, counted from 0; `on_epoch(epoch, loss)` reports progress.
    Raises GuardrailError where the loss is not finite, InputError where an epoch has no batch.
    """
    optimiser = torch.optim.Adam(model.parameters(), lr=learning_rate)
    model.train()
    history = []
    for epoch in range(epochs):
        loss_sum = weight_sum = 0.0
        for x_BF, y_B, w_B in epochs_of_batches(epoch):
            losses_B = binary_cross_entropy_with_logits(model(x_BF), y_B, reduction="none")
            loss = (w_B * losses_B).sum() / w_B.sum()
            loss_sum += _finite(loss.item(), epoch) * w_B.sum().item()
            weight_sum += w_B.sum().item()
            optimiser.zero_grad(set_to_none=True)
            (loss + l2 * l2_penalty(model)).backward()
            optimiser.step()
        if weight_sum <= 0:
            raise InputError(f"expected batches in epoch {epoch}, found none; check the training snapshot")
        history.append(loss_sum / weight_sum)
        on_epoch(epoch, history[-1])
    model.eval()
    _finite_weights(model)
    return history


def _finite(loss: float, epoch: int) -> float:
    if not math.isfinite(loss):
        raise GuardrailError(
            f"expected a finite training loss, found {loss} in epoch {epoch}; no model was made; "
            "lower training.learning_rate, or look for features and weights out of range"
        )
    return loss


def _finite_weights(model: Mlp) -> None:
    broken = [name for name, parameter in model.named_parameters() if not torch.isfinite(parameter).all()]
    if broken:
        raise GuardrailError(f"expected finite weights after training, found others in {', '.join(broken)}; lower training.learning_rate")
