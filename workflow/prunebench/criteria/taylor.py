"""Blocks go first of which the gradient says that the loss hardly changes without them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prunebench.criteria import Criterion

if TYPE_CHECKING:
    from prunebench.scoring import Probe


def _score(probe: Probe) -> Sequence[float]:
    """First-order estimate of how far the cross-entropy of an image moves when a block is silenced, mean over images, in nats.

    With block input x, output y and loss L of one image, silencing takes y to x, so L moves by about -<dL/dy, y - x>. The
    magnitude is taken for each image, so that gains and losses of different images do not cancel.
    """
    import torch
    from torch.nn import functional

    from prunebench.scoring import evaluating

    network = probe.network
    total = torch.zeros(len(probe.blocks), dtype=torch.float64, device=probe.device)
    with evaluating(network), torch.enable_grad():
        for positions in probe.batches():
            # A gradient needs somewhere to begin also where all weights are frozen.
            activations = network.stem(probe.images(positions)).detach().requires_grad_()
            outputs, branches = [], []
            for name, block in network.named_blocks():
                after = block(activations)
                if name in probe.blocks:
                    outputs.append(after)
                    branches.append(after.detach() - activations.detach())
                activations = after
            logits = network.classify(network.pool(activations))
            # Summed, not averaged: each image's gradient is then its own, whatever the batch.
            loss = functional.cross_entropy(logits, probe.labels[positions].to(probe.device), reduction="sum")
            # Unlike backward(), grad() adds nothing to the gradients of the weights.
            gradients = torch.autograd.grad(loss, outputs)
            for number, (gradient, branch) in enumerate(zip(gradients, branches, strict=True)):
                change = (gradient.double() * branch.double()).flatten(1).sum(1)
                total[number] += change.abs().sum()
    return [float(value) for value in total / len(probe.sample)]


TAYLOR = Criterion("taylor", _score, needs=("gradients",), source="Molchanov et al. 2017, arXiv 1611.06440, of a block's branch")
