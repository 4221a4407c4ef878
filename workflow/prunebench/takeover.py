"""Networks that come from outside: a folder as ``docs/data-contracts.md`` has it, or a pair of Keras files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.errors import PrunebenchError
from prunebench.experiments import KERAS
from prunebench.models import Architecture, find_model
from prunebench.models.files import load_architecture, load_network
from prunebench.models.keras_files import import_keras

if TYPE_CHECKING:  # torch is imported where it is used, since this module only passes networks on
    import torch
    from torch import nn


def read_network(source: Path, model: str | None, mean: Callable[[], torch.Tensor]) -> tuple[nn.Module, Architecture]:
    """A network from a folder, or from Keras weights (.h5) with the architecture beside them (.json).

    Args:
        source: The folder or the weights.
        model: Name of the unpruned network that a Keras network descends from; None if it is unpruned itself.
        mean: Gives the mean training image that a Keras network subtracts, (channels, height, width) in [0, 1].

    Raises:
        PrunebenchError: a file is missing, damaged, or of another kind.
    """
    if source.suffix in KERAS:
        return import_keras(source, source.with_suffix(".json"), mean(), model)
    return load_network(source), load_architecture(source)


def take_over(
    source: Path, dataset: str, dense: Architecture, mean: Callable[[], torch.Tensor]
) -> tuple[nn.Module, Architecture]:
    """``read_network``, held to the experiment that it is for.

    Args:
        source: See ``read_network``.
        dataset: Name of the experiment's dataset, for messages.
        dense: The experiment's dense architecture.
        mean: See ``read_network``.

    Raises:
        PrunebenchError: the network is of another model, or for other images or classes.
    """
    network, found = read_network(source, find_model(dense.model).name, mean)
    if (found.input_shape, found.classes) != (dense.input_shape, dense.classes):
        raise PrunebenchError(
            f"{source}: takes {found.input_shape} images and {found.classes} classes, "
            f"but {dataset} has {dense.input_shape} and {dense.classes}"
        )
    if find_model(found.model).name != find_model(dense.model).name:
        raise PrunebenchError(f"{source}: its model is {found.model}, but the experiment's is {dense.model}")
    return network, found
