"""Blocks whose last batch norm has small factors go first: what leaves the branch is scaled by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prunebench.criteria import Criterion
from prunebench.errors import PrunebenchError

if TYPE_CHECKING:
    from prunebench.scoring import Probe


def _score(probe: Probe) -> Sequence[float]:
    """Mean absolute factor (gamma) of the last batch norm in each block, last in the order in which the block defines its layers."""
    from torch import nn

    blocks = dict(probe.network.named_blocks())
    scores = []
    for name in probe.blocks:
        norms = [module for module in blocks[name].modules() if isinstance(module, nn.BatchNorm2d) and module.affine]
        if not norms:
            raise PrunebenchError(
                f"criterion bn_scale: block {name} has no BatchNorm2d with factors; leave the criterion out for this model"
            )
        scores.append(norms[-1].weight.detach().double().abs().mean().item())
    return scores


BN_SCALE = Criterion("bn_scale", _score, source="Liu et al. 2017, arXiv 1708.06519, averaged over a block's last batch norm")
