"""Networks of torchvision with its own weights' names; their blocks are found.

``resnet50`` and the other ResNets with bottlenecks are version 1.5: the stride is in the 3x3 convolution. ``resnet50_v1`` is the
network of the paper and of FLOPs reductions published for ResNet-50: the stride is in the first 1x1 convolution. Both have the
same weights' names and shapes, so a file does not say which it belongs to; torchvision's is for version 1.5.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from prunebench.errors import PrunebenchError
from prunebench.models.found import Shape, found_model

if TYPE_CHECKING:
    from torch import nn

SMALL = (3, 64, 64)
"""Large enough for every stage, so blocks are looked for at this size."""


def convolutional(name: str, input_shape: Shape, classes: int) -> nn.Module:
    """A network for images of any size."""
    return _make(name, input_shape, num_classes=classes)


def resnet_v1(name: str, input_shape: Shape, classes: int) -> nn.Module:
    """A ResNet of bottlenecks with the stride where the paper has it."""
    network = convolutional(name, input_shape, classes)
    for stage in ("layer2", "layer3", "layer4"):
        block: Any = network.get_submodule(f"{stage}.0")
        block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    return network


def transformer(name: str, input_shape: Shape, classes: int) -> nn.Module:
    """A network for square images of one size."""
    if input_shape[1] != input_shape[2]:
        raise PrunebenchError(f"{name} takes square images, not {input_shape[1]} x {input_shape[2]}")
    return _make(name, input_shape, image_size=input_shape[1], num_classes=classes)


def _make(name: str, input_shape: Shape, **options: Any) -> nn.Module:
    from torchvision import models

    if input_shape[0] != 3:
        raise PrunebenchError(f"torchvision's {name} takes images of 3 channels, not {input_shape[0]}")
    network: nn.Module = getattr(models, name)(weights=None, **options)
    return network


RESIDUAL = "He et al. 2016, arXiv 1512.03385"
MODELS = [
    *(found_model(name, partial(convolutional, name), RESIDUAL, input_shape=SMALL) for name in ("resnet18", "resnet34")),
    *(
        found_model(
            name, partial(convolutional, name), f"{RESIDUAL}, with the stride in the 3x3 convolution (v1.5)", input_shape=SMALL
        )
        for name in ("resnet50", "resnet101")
    ),
    found_model("resnet50_v1", partial(resnet_v1, "resnet50"), RESIDUAL, input_shape=SMALL),
    found_model(
        "mobilenet_v2", partial(convolutional, "mobilenet_v2"), "Sandler et al. 2018, arXiv 1801.04381", input_shape=SMALL
    ),
    found_model(
        "efficientnet_b0", partial(convolutional, "efficientnet_b0"), "Tan and Le 2019, arXiv 1905.11946", input_shape=SMALL
    ),
    found_model("convnext_tiny", partial(convolutional, "convnext_tiny"), "Liu et al. 2022, arXiv 2201.03545", input_shape=SMALL),
    *(
        found_model(name, partial(transformer, name), "Dosovitskiy et al. 2021, arXiv 2010.11929", input_shape=SMALL)
        for name in ("vit_b_16", "vit_b_32")
    ),
]
