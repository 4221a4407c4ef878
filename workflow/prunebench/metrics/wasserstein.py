"""One-dimensional optimal transport between all values of the features."""

from __future__ import annotations

import torch
from torch import Tensor

from prunebench.metrics.statistics import FeatureStatistics


def wasserstein(stats: FeatureStatistics) -> Tensor:
    """1-Wasserstein distance between all values of the dense features and all values of a candidate's.

    It knows neither which unit nor which sample a value belongs to. Both sets have the same number of values, so the
    optimal plan pairs them in sorted order.

    Args:
        stats: statistics with ``values``.

    Returns:
        Scores in the unit of the features, (C,), float64.

    Raises:
        MetricError: the features hold NaN or infinite values.
    """
    networks = stats.all_values("wasserstein")
    ordered = next(networks).sort().values.double()
    return torch.stack([(values.sort().values.double() - ordered).abs().mean() for values in networks]).cpu()
