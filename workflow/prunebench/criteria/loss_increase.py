"""Blocks go first without which the loss on the sample rises least: one step of greedy search, by trial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prunebench.criteria import Criterion

if TYPE_CHECKING:
    from prunebench.scoring import Probe


def _score(probe: Probe) -> Sequence[float]:
    """Mean cross-entropy of the sample with a block silenced minus that of the network as it is, in nats; below 0 if it falls."""
    import torch
    from torch.nn import functional

    from prunebench.scoring import evaluating, silenced_features

    network = probe.network
    total = torch.zeros(1 + len(probe.blocks), dtype=torch.float64, device=probe.device)
    with evaluating(network), torch.no_grad():
        for positions in probe.batches():
            features = silenced_features(network, probe.images(positions), probe.blocks)
            logits = network.classify(features.flatten(0, 1)).double()
            labels = probe.labels[positions].to(probe.device).repeat(len(features))
            losses = functional.cross_entropy(logits, labels, reduction="none")
            total += losses.reshape(len(features), -1).sum(1)
    increases = (total[1:] - total[0]) / len(probe.sample)
    return [float(value) for value in increases]


LOSS_INCREASE = Criterion("loss_increase", _score, source="the definition: oracle of one step, as in Molchanov et al. 2017")
