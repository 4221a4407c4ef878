"""The Consensus criterion: eight similarity metrics rank the blocks, and the ranks are added up (Borda count)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prunebench.criteria import Criterion, find_criterion, ranks

if TYPE_CHECKING:
    from prunebench.scoring import Probe


# The paper's eight, named: another metric in the package must not change what the consensus is.
METRICS = (
    "cka",
    "linear_0",
    "linear_1",
    "permutation",
    "gaussian_stochastic_0",
    "gaussian_stochastic_1",
    "gaussian_stochastic_2",
    "wasserstein",
)


def _score(probe: Probe) -> Sequence[float]:
    """Sum of the ranks that the metrics give to each block."""
    total = sum(ranks(probe.scores(metric), find_criterion(metric).removes) for metric in METRICS)
    return [float(value) for value in total]  # type: ignore[union-attr]


CONSENSUS = Criterion("consensus", _score, combines=METRICS, source="Mugnaini et al. 2024, arXiv 2411.14345")
