"""Distances between a network's features before and after one of its blocks is silenced.

Each metric maps a :class:`~prunebench.metrics.statistics.FeatureStatistics` to one score for each candidate block; the
lowest score marks the block whose removal changes the features least. Importing this package does not import torch.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.errors import PrunebenchError

if TYPE_CHECKING:
    import torch

    from prunebench.metrics.statistics import FeatureStatistics


class MetricError(PrunebenchError):
    """A metric is undefined on these features; the message names the metric and says why."""


@dataclass(frozen=True)
class Metric:
    """One metric: where it is implemented and what it needs accumulated.

    Attributes:
        module: module of this package.
        function: function in it that takes the statistics.
        need: what :class:`FeatureStatistics` has to accumulate: ``features``, ``labels`` or ``values``.
        source: paper and what the variant is.
        a: the metric's parameter, if it has one.
    """

    module: str
    function: str
    need: str
    source: str
    a: float | None = None

    def __call__(self, stats: FeatureStatistics) -> torch.Tensor:
        """Scores of all candidates: (candidates,), float64, on the CPU.

        Raises:
            MetricError: the metric is undefined on these features.
        """
        function = getattr(importlib.import_module(f"{__name__}.{self.module}"), self.function)
        scores: torch.Tensor = function(stats) if self.a is None else function(stats, self.a)
        return scores


METRICS = {
    "cka": Metric("cka", "cka", "features", "Pons et al. 2024, arXiv 2405.17081"),
    "linear_0": Metric("linear", "linear", "features", "Williams et al. 2021, full whitening", 0.0),
    "linear_1": Metric("linear", "linear", "features", "Williams et al. 2021, Procrustes", 1.0),
    "permutation": Metric("permutation", "permutation", "features", "Williams et al. 2021, permutations of units"),
    "gaussian_stochastic_0": Metric("gaussian", "gaussian_stochastic", "labels", "Duong et al. 2023, covariances only", 0.0),
    "gaussian_stochastic_1": Metric(
        "gaussian", "gaussian_stochastic", "labels", "Duong et al. 2023, 2-Wasserstein distance", 1.0
    ),
    "gaussian_stochastic_2": Metric("gaussian", "gaussian_stochastic", "labels", "Duong et al. 2023, means only", 2.0),
    "wasserstein": Metric("wasserstein", "wasserstein", "values", "1-D Wasserstein distance of all feature values"),
}
"""The eight metrics of the Consensus criterion (arXiv 2411.14345)."""
