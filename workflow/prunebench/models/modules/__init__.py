"""The torch modules behind the definitions of models."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn


class Normalise(nn.Module):
    """First layer of every network: (image - mean) / std, so that networks take images in [0, 1]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("std", torch.ones(channels, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (n, channels, height, width) in [0, 1] to the same shape."""
        return (images - self.mean) / self.std

    def _load_from_state_dict(self, state_dict: dict[str, torch.Tensor], prefix: str, *rest: object) -> None:
        # Statistics are for each channel (c, 1, 1) or for each pixel (c, h, w): the weights say which.
        for name in ("mean", "std"):
            if f"{prefix}{name}" in state_dict:
                setattr(self, name, torch.empty_like(state_dict[f"{prefix}{name}"], device=getattr(self, name).device))
        super()._load_from_state_dict(state_dict, prefix, *rest)


class Glue(nn.Module):
    """What stands between two blocks and is none: activations go through it, but it is not counted, silenced or removed."""


def matrices(module: nn.Module) -> list[torch.Tensor]:
    """Kernels of convolutions and matrices of dense layers in a module, those of attention too: (outputs, inputs, ...) each."""
    found: list[torch.Tensor] = []
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            found.append(part.weight)
        elif isinstance(part, nn.MultiheadAttention):
            joint = [part.in_proj_weight, part.q_proj_weight, part.k_proj_weight, part.v_proj_weight]
            found += [weight for weight in joint if weight is not None]
    return found


class BlockNetwork(nn.Module, ABC):
    """A network that is a stem, a sequence of blocks, and a head, so that blocks can be silenced and removed."""

    normalise: Normalise

    @abstractmethod
    def stem(self, images: torch.Tensor) -> torch.Tensor:
        """Images (n, c, h, w) in [0, 1] to the input of the first block."""

    @abstractmethod
    def named_blocks(self) -> list[tuple[str, nn.Module]]:
        """The blocks in the order in which they are applied, and any ``Glue`` between them under names of its own."""

    @abstractmethod
    def pool(self, activations: torch.Tensor) -> torch.Tensor:
        """Output of the last block to penultimate features (n, d)."""

    @abstractmethod
    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Penultimate features (n, d) to logits (n, classes)."""

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Images (n, c, h, w) in [0, 1] to penultimate features (n, d)."""
        activations = self.stem(images)
        for _, block in self.named_blocks():
            activations = block(activations)
        return self.pool(activations)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (n, c, h, w) in [0, 1] to logits (n, classes)."""
        return self.classify(self.features(images))
