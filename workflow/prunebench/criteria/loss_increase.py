"""Blocks go first without which the loss on the sample rises least: one step of greedy search, by trial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prunebench.criteria import Criterion

if TYPE_CHECKING:
    from prunebench.scoring import Probe


def _score(probe: Probe) -> Sequence[float]:
    """Mean cross-entropy of the sample with a block silenced minus that of the network as it is, in nats; below 0 if it falls."""
    return [float(value) for value in probe.losses[1:] - probe.losses[0]]


LOSS_INCREASE = Criterion(
    "loss_increase", _score, needs=("losses",), source="the definition: oracle of one step, as in Molchanov et al. 2017"
)
