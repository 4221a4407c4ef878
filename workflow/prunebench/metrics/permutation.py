"""Shape metric with an alignment of units one to one."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from prunebench.metrics.statistics import FeatureStatistics, angular_distance, require_variance, total_variance


def permutation(stats: FeatureStatistics) -> Tensor:
    """Angular distance of the centred features after the best permutation of units.

    The permutation maximises the trace of the permuted X'Y (linear sum assignment). Williams et al. 2021,
    *Generalized Shape Metrics on Neural Representations*.

    Args:
        stats: statistics with ``features``.

    Returns:
        Scores in radians, in [0, pi], (C,), float64.

    Raises:
        MetricError: the dense features or a candidate's are constant.
    """
    moments = stats.feature_moments("permutation")
    dense, silenced = total_variance(moments.dense), total_variance(moments.silenced)
    require_variance("permutation", dense, silenced)
    inner = np.array([cross[linear_sum_assignment(cross, maximize=True)].sum() for cross in moments.cross.numpy()])
    return angular_distance(torch.from_numpy(inner), dense, silenced)
