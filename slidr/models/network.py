"""The network and its one-layer baseline. Higher scores are more robotic.

Raw features go in: filling, log-scaling, standardising and flags of what is missing are buffers of the model, so training and
scoring can't differ.

Shapes: B clicks, F features, I inputs of the first layer (F and the flags), O outputs of a layer.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from slidr.bundle import Preparation
from slidr.bundle_files import Layer


class Mlp(nn.Module):
    """Fully connected layers with ReLU between them; `hidden` has the units of the intermediate layers.

    `(64, 32)` makes three layers, `()` is logistic regression. Raw features (B, F), NaN for NULL, become logits (B,).
    """

    def __init__(self, preparation: Preparation, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.fill_F: Tensor
        self.log_F: Tensor
        self.mean_F: Tensor
        self.std_F: Tensor
        self.flagged_M: Tensor
        self.register_buffer("fill_F", torch.tensor(preparation.fill, dtype=torch.float32))
        self.register_buffer("log_F", torch.tensor(preparation.log, dtype=torch.bool))
        self.register_buffer("mean_F", torch.tensor(preparation.mean, dtype=torch.float32))
        self.register_buffer("std_F", torch.tensor(preparation.std, dtype=torch.float32))
        flagged = [preparation.names.index(name) for name in preparation.flags]
        self.register_buffer("flagged_M", torch.tensor(flagged, dtype=torch.long))
        widths = (preparation.inputs, *hidden, 1)
        self.layers = nn.ModuleList(nn.Linear(into, out) for into, out in zip(widths[:-1], widths[1:], strict=True))

    @property
    def linear(self) -> list[nn.Linear]:
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def prepare(self, x_BF: Tensor) -> Tensor:
        """Model inputs (B, I) of raw features (B, F)."""
        missing_BF = torch.isnan(x_BF)
        x_BF = torch.where(missing_BF, self.fill_F, x_BF)
        x_BF = torch.where(self.log_F, torch.log1p(x_BF), x_BF)
        return torch.cat([(x_BF - self.mean_F) / self.std_F, missing_BF[:, self.flagged_M].to(x_BF.dtype)], dim=1)

    def forward(self, x_BF: Tensor) -> Tensor:
        h_BO = self.prepare(x_BF)
        *intermediate, output = self.linear
        for layer in intermediate:
            h_BO = torch.relu(layer(h_BO))
        found: Tensor = output(h_BO).squeeze(-1)
        return found


def l2_penalty(model: Mlp) -> Tensor:
    """Sum of squares of the intermediate layers' weights: no biases, not the output layer, so 0 for logistic regression."""
    squares = [layer.weight.square().sum() for layer in model.linear[:-1]]
    return torch.stack(squares).sum() if squares else torch.zeros(())


def export_layers(model: Mlp) -> tuple[Layer, ...]:
    """The layers as numpy float32 (weight (O, inputs), bias (O,)), as a bundle holds them."""
    return tuple((_numpy(layer.weight), _numpy(layer.bias)) for layer in model.linear)


def _numpy(parameter: Tensor) -> NDArray[np.float32]:
    return parameter.detach().cpu().numpy().astype(np.float32, copy=True)
