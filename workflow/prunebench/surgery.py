"""Removing blocks: the identity takes their place."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.errors import PrunebenchError
from prunebench.models import Architecture, Block, find_model

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Constraints:
    """What pruning must leave.

    Attributes:
        keep_first_block: The first block of every stage stays, also where it keeps the shape (stage 1).
        minimum_blocks: A stage never has fewer blocks.
    """

    keep_first_block: bool = True
    minimum_blocks: int = 2


def candidates(architecture: Architecture, constraints: Constraints) -> list[str]:
    """Blocks that may be scored and removed, in the order of the network: those of stages that can still shrink."""
    left = [block for block in dense_blocks(architecture) if block.name in architecture.blocks]
    sizes = stage_sizes(architecture)
    return [
        block.name
        for block in left
        if block.keeps_shape
        and not (constraints.keep_first_block and block.position == 0)
        and sizes[block.stage] > constraints.minimum_blocks
    ]


def dense_blocks(architecture: Architecture) -> Sequence[Block]:
    """The blocks of the dense network that an architecture was made from."""
    return find_model(architecture.model).blocks()


def can_be_silenced(architecture: Architecture, blocks: Collection[str]) -> bool:
    """Whether the identity can take the place of all these blocks."""
    return all(block.keeps_shape for block in dense_blocks(architecture) if block.name in blocks)


def stage_sizes(architecture: Architecture) -> dict[int, int]:
    """Number of blocks left in each stage."""
    sizes: dict[int, int] = {}
    for block in dense_blocks(architecture):
        sizes[block.stage] = sizes.get(block.stage, 0) + (block.name in architecture.blocks)
    return sizes


def allowed(order: Sequence[str], architecture: Architecture, constraints: Constraints) -> list[str]:
    """The blocks of an order of removal that the constraints let go one after the other."""
    gone: list[str] = []
    for name in order:
        if name in candidates(architecture.without(gone), constraints):
            gone.append(name)
    return gone


def flops_reduction(architecture: Architecture, dense: Architecture) -> float:
    """Reduction of multiply-accumulates in percent, as the layer-pruning papers count them."""
    macs = find_model(architecture.model).macs
    return 100.0 * (1.0 - macs(architecture) / macs(dense))


def remove(
    weights: Mapping[str, torch.Tensor], architecture: Architecture, removed: Collection[str]
) -> tuple[nn.Module, Architecture]:
    """A network without the ``removed`` blocks, with copies of the remaining weights, in evaluation mode.

    The names of weights begin with the names of their blocks, so the remaining state is a selection, not a translation.

    Raises:
        PrunebenchError: a block is not there, or changes the shape, so that the identity cannot take its place.
    """
    from prunebench.models.files import build  # here, so that planning a suite needs no torch

    wrong = [name for name in removed if name not in architecture.blocks or not can_be_silenced(architecture, [name])]
    if wrong:
        raise PrunebenchError(f"{', '.join(wrong)} cannot be removed from {architecture.model}: not there, or changes the shape")
    smaller = architecture.without(list(removed))
    network = build(smaller)
    network.load_state_dict({name: weights[name] for name in network.state_dict()}, strict=True)
    return network.eval(), smaller
