"""The CIFAR ResNets of depth 6n + 2 (He et al. 2016, section 4.2), in the form that the layer-pruning papers use.

Stem 3x3 to 16 channels; three stages of n basic blocks with 16, 32, 64 channels; the first block of stages 2 and 3 has stride 2
and a projection shortcut (1x1 convolution with bias, no batch norm); global average pool; dense layer.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from prunebench.models import Architecture, Block, Model

if TYPE_CHECKING:
    from torch import nn

CHANNELS = (16, 32, 64)


def blocks(depth: int) -> list[Block]:
    """Blocks of the dense network of this depth."""
    return [
        Block(f"stage{stage}.block{position}", stage, position, keeps_shape=stage == 1 or position > 0)
        for stage in (1, 2, 3)
        for position in range((depth - 2) // 6)
    ]


def build(architecture: Architecture) -> nn.Module:
    """The untrained network; its module definitions live apart, since they need torch."""
    from prunebench.models.modules.cifar_resnet import CifarResNet

    return CifarResNet(architecture)


def macs(architecture: Architecture) -> int:
    """Multiply-accumulates of convolutions and the dense layer for one image, by arithmetic."""
    channels, height, width = architecture.input_shape
    total = 9 * channels * CHANNELS[0] * height * width
    hidden_channels = architecture.options.get("hidden_channels", {})
    previous = CHANNELS[0]
    for name in architecture.blocks:
        stage = int(name.removeprefix("stage").split(".")[0])
        current = CHANNELS[stage - 1]
        if current != previous:
            height, width = -(-height // 2), -(-width // 2)
            total += previous * current * height * width
        total += 9 * (previous + current) * hidden_channels.get(name, current) * height * width
        previous = current
    return total + CHANNELS[-1] * architecture.classes


def weights(architecture: Architecture) -> int:
    """Numbers of the state: kernels, biases, and what batch norms and the normalisation hold."""
    channels, classes = architecture.input_shape[0], architecture.classes
    # For an image of one pixel every weight of a kernel multiplies once.
    kernels = macs(replace(architecture, input_shape=(channels, 1, 1)))
    stages = [int(name.removeprefix("stage").split(".")[0]) for name in architecture.blocks]
    hidden: dict[str, int] = architecture.options.get("hidden_channels", {})
    widths = [CHANNELS[stage - 1] for stage in stages]
    normalised = (
        CHANNELS[0] + sum(widths) + sum(hidden.get(name, width) for name, width in zip(architecture.blocks, widths, strict=True))
    )
    biases = normalised if architecture.options.get("keras_compatible") else 0
    projections = sum(CHANNELS[stage - 1] for stage in set(stages) if stage > 1)
    # Weight, bias, mean and variance of each channel; a mean and a deviation of each channel of the images.
    return kernels + 4 * normalised + biases + projections + classes + 2 * channels


MODELS = [
    Model(f"resnet{depth}", partial(blocks, depth), build, macs, "He et al. 2016, section 4.2", narrows=True, weights=weights)
    for depth in (20, 32, 44, 56, 110)
]
