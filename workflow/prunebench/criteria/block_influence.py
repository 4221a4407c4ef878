"""Blocks go first whose output points where their input does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prunebench.criteria import Criterion

if TYPE_CHECKING:
    from prunebench.scoring import Probe


def _score(probe: Probe) -> Sequence[float]:
    """One minus the cosine between a block's input and its output, all activations of an image as one vector, mean over images.

    A vector of zeros counts as parallel to another one and as orthogonal to all else.
    """
    import torch

    from prunebench.scoring import evaluating

    network = probe.network
    total = torch.zeros(len(probe.blocks), dtype=torch.float64, device=probe.device)
    with evaluating(network), torch.no_grad():
        for positions in probe.batches():
            activations = network.stem(probe.images(positions))
            number = 0
            for name, block in network.named_blocks():
                # Taken before the block runs, which may work in place.
                before = activations.flatten(1).double() if name in probe.blocks else None
                activations = block(activations)
                if before is not None:
                    after = activations.flatten(1).double()
                    norms = before.norm(dim=1) * after.norm(dim=1)
                    cosine = torch.where(norms == 0, 0.0, (before * after).sum(1) / norms)
                    total[number] += torch.where((before == after).all(1), 0.0, 1.0 - cosine).sum()
                    number += 1
    return [float(value) for value in total / len(probe.sample)]


BLOCK_INFLUENCE = Criterion("block_influence", _score, source="Men et al. 2024 (ShortGPT), arXiv 2403.03853, of whole images")
