"""The eight metrics of the Consensus paper: distance of the penultimate features with a block silenced from the dense ones.

The smaller the distance, the less the block does, so the lowest score goes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from prunebench.criteria import Criterion
from prunebench.metrics import METRICS

if TYPE_CHECKING:
    from prunebench.scoring import Probe


def _score(name: str, probe: Probe) -> Sequence[float]:
    values: list[float] = METRICS[name](probe.statistics).tolist()
    return values


CRITERIA = [Criterion(name, partial(_score, name), (metric.need,), source=metric.source) for name, metric in METRICS.items()]
