"""Torch modules of the CIFAR ResNets."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from prunebench.models import Architecture
from prunebench.models.cifar_resnet import CHANNELS
from prunebench.models.modules import BlockNetwork, Normalise


class SameConv(nn.Conv2d):
    """A convolution with Keras' padding "same": where the padding is odd, the extra row and column go right and bottom."""

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w) to (n, c', ceil(h / stride), ceil(w / stride))."""
        pads: list[int] = []
        for size, kernel, stride in zip(activations.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(functional.pad(activations, pads) if any(pads) else activations)


def convolution(inputs: int, outputs: int, kernel: int, stride: int, keras: bool) -> nn.Conv2d:
    """A convolution without bias and padded evenly, or as Keras makes it."""
    if keras:
        return SameConv(inputs, outputs, kernel, stride, bias=True)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def batch_norm(channels: int, keras: bool) -> nn.BatchNorm2d:
    """A batch norm with torch's epsilon, or Keras'."""
    return nn.BatchNorm2d(channels, eps=1e-3 if keras else 1e-5)


class BasicBlock(nn.Module):
    """conv3x3, BN, ReLU, conv3x3, BN, add, ReLU."""

    def __init__(self, inputs: int, hidden: int, outputs: int, stride: int, keras: bool) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, hidden, 3, stride, keras)
        self.bn1 = batch_norm(hidden, keras)
        self.conv2 = convolution(hidden, outputs, 3, 1, keras)
        self.bn2 = batch_norm(outputs, keras)
        self.shortcut: nn.Module = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """(n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        branch = functional.relu(self.bn1(self.conv1(activations)))
        return functional.relu(self.shortcut(activations) + self.bn2(self.conv2(branch)))


class CifarResNet(BlockNetwork):
    """A CIFAR ResNet with the blocks that its architecture names."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        keras = bool(architecture.options.get("keras_compatible", False))
        hidden = architecture.options.get("hidden_channels", {})
        channels = architecture.input_shape[0]
        self.normalise = Normalise(channels)
        self.conv = convolution(channels, CHANNELS[0], 3, 1, keras)
        self.bn = batch_norm(CHANNELS[0], keras)
        previous = CHANNELS[0]
        for name in architecture.blocks:
            stage, block = name.split(".")
            outputs = CHANNELS[int(stage.removeprefix("stage")) - 1]
            if not hasattr(self, stage):
                self.add_module(stage, nn.ModuleDict())
            stride = 1 if outputs == previous else 2
            self.get_submodule(stage)[block] = BasicBlock(previous, hidden.get(name, outputs), outputs, stride, keras)  # type: ignore[operator]
            previous = outputs
        self.classifier = nn.Linear(previous, architecture.classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def stem(self, images: torch.Tensor) -> torch.Tensor:
        """Images (n, c, h, w) to (n, 16, h, w)."""
        return functional.relu(self.bn(self.conv(self.normalise(images))))

    def named_blocks(self) -> list[tuple[str, nn.Module]]:
        """Blocks stage by stage."""
        return [
            (f"{stage}.{name}", block)
            for stage, blocks in self.named_children()
            if isinstance(blocks, nn.ModuleDict)
            for name, block in blocks.items()
        ]

    def pool(self, activations: torch.Tensor) -> torch.Tensor:
        """Global average: (n, 64, h, w) to (n, 64)."""
        return activations.mean(dim=(2, 3))

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """(n, 64) to (n, classes)."""
        logits: torch.Tensor = self.classifier(features)
        return logits
