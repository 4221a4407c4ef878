"""The Consensus criterion: eight similarity metrics rank the blocks, and the ranks are added up (Borda count)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prunebench.criteria import Criterion, find_criterion, ranks
from prunebench.metrics import METRICS

if TYPE_CHECKING:
    from prunebench.scoring import Probe


def _score(probe: Probe) -> Sequence[float]:
    """Sum of the ranks that the metrics give to each block."""
    total = sum(ranks(probe.scores(metric), find_criterion(metric).removes) for metric in METRICS)
    return [float(value) for value in total]  # type: ignore[union-attr]


CONSENSUS = Criterion("consensus", _score, combines=tuple(METRICS), source="Mugnaini et al. 2024, arXiv 2411.14345")
