"""Filter pruning by l1 norm: what the CKA paper does to a network after it has removed layers.

Pons et al. 2024 (arXiv 2405.17081); the norm is that of Li et al. 2017 (arXiv 1608.08710), which in residual networks takes the filters
of a block's first convolution, since those of the last are bound to the shortcut. torch-pruning does the surgery.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from prunebench.errors import PrunebenchError
from prunebench.models import Architecture, find_model
from prunebench.surgery import flops_reduction

if TYPE_CHECKING:
    from torch import nn

STEPS = 64
"""Shares of filters are tried in such steps: the widest layer of the CIFAR ResNets loses one filter at each."""


def narrow(network: nn.Module, architecture: Architecture, reduction: float) -> tuple[nn.Module, Architecture]:
    """A network whose blocks have lost the same share of the filters of their first convolution, those of least l1 norm.

    The share is the smallest, in steps of 1/64, that takes ``reduction`` percent of the multiply-accumulates, less 0.01 points. One
    filter stays in any case.

    Args:
        network: Made of blocks with a ``conv1``, on the CPU; left as it is.
        architecture: Its architecture.
        reduction: In percent of the network's multiply-accumulates.

    Returns:
        The narrower network in evaluation mode, and its architecture.

    Raises:
        PrunebenchError: the model's blocks cannot be made narrower, or the reduction is out of reach.
    """
    if not find_model(architecture.model).narrows:
        raise PrunebenchError(f"{architecture.model}: its blocks cannot be made narrower, so no filters are pruned")
    widths = {name: block.conv1.out_channels for name, block in network.named_blocks()}  # type: ignore[operator]
    for lost in range(STEPS + 1):
        kept = {name: max(1, width - int(width * lost / STEPS)) for name, width in widths.items()}
        narrower = with_widths(architecture, kept)
        reached = flops_reduction(narrower, architecture)
        if reached >= reduction - 0.01:
            return prune_filters(network, kept, architecture.input_shape), narrower
    raise PrunebenchError(
        f"{architecture.model}: filters can take at most {reached:.2f} % of what is left of it, {reduction:g} % are asked for; "
        "lower schedules.one-shot-filters.flops_reduction"
    )


def with_widths(architecture: Architecture, widths: dict[str, int]) -> Architecture:
    """The architecture with so many filters in the first convolution of its blocks."""
    options = {**architecture.options, "hidden_channels": widths}
    return Architecture(architecture.model, architecture.input_shape, architecture.classes, architecture.blocks, options)


def prune_filters(network: nn.Module, widths: dict[str, int], input_shape: tuple[int, int, int]) -> nn.Module:
    """A copy of a network in which each block's ``conv1`` keeps so many filters, those of largest l1 norm, in their order."""
    import torch
    import torch_pruning

    smaller = copy.deepcopy(network).eval()
    roots = {name: block.conv1 for name, block in smaller.named_blocks()}  # type: ignore[operator]
    graph = torch_pruning.DependencyGraph().build_dependency(smaller, torch.zeros(1, *input_shape))
    importance = torch_pruning.importance.MagnitudeImportance(p=1, group_reduction="first", normalizer=None)
    for name, root in roots.items():
        whole = graph.get_pruning_group(root, torch_pruning.prune_conv_out_channels, list(range(root.out_channels)))
        order = torch.argsort(importance(whole), stable=True)
        gone = sorted(order[: root.out_channels - widths[name]].tolist())
        if gone:
            graph.get_pruning_group(root, torch_pruning.prune_conv_out_channels, gone).prune()
    return smaller
