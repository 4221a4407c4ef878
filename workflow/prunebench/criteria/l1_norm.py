"""Blocks whose kernels are small go first: what can be said without an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prunebench.criteria import Criterion
from prunebench.errors import PrunebenchError

if TYPE_CHECKING:
    from prunebench.scoring import Probe


def _score(probe: Probe) -> Sequence[float]:
    """Mean absolute weight times the square root of the fan-in, averaged over a block's convolutions and dense layers.

    The l1 norm of a kernel grows with its number of weights, and its mean absolute weight falls with their fan-in (He
    initialisation: standard deviation sqrt(2 / fan-in)). Both are divided out, so that blocks of equal shape and of another stage
    start at the same score: sqrt(2) * sqrt(2 / pi) = 1.13 for He initialisation.
    """
    from prunebench.models.modules import matrices

    blocks = dict(probe.network.named_blocks())
    scores = []
    for name in probe.blocks:
        kernels = [kernel.detach().double() for kernel in matrices(blocks[name])]
        if not kernels:
            raise PrunebenchError(
                f"criterion l1_norm: block {name} has no Conv2d or Linear; leave the criterion out for this model"
            )
        scores.append(sum(kernel.abs().mean().item() * math.sqrt(kernel[0].numel()) for kernel in kernels) / len(kernels))
    return scores


L1_NORM = Criterion("l1_norm", _score, source="Li et al. 2017, arXiv 1608.08710, averaged over a block, relative to the fan-in")
