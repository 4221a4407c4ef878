"""Centred kernel alignment."""

from __future__ import annotations

from torch import Tensor

from prunebench.metrics.statistics import FeatureStatistics, require_variance, total_variance


def cka(stats: FeatureStatistics) -> Tensor:
    """One minus linear CKA: 1 - ||X'Y||^2 / (||X'X|| ||Y'Y||), Frobenius norms, columns centred.

    Kornblith et al. 2019, *Similarity of Neural Network Representations Revisited*; as a criterion for layers: arXiv
    2405.17081. Invariant to rotation, isotropic scaling and translation of either set of features.

    Args:
        stats: statistics with ``features``.

    Returns:
        Scores in [0, 1], (C,), float64.

    Raises:
        MetricError: the dense features or a candidate's are constant.
    """
    moments = stats.feature_moments("cka")
    require_variance("cka", total_variance(moments.dense), total_variance(moments.silenced))
    # Norms first, then the square of the quotient: the product of four scatter matrices could overflow.
    norms = moments.dense.norm().sqrt() * moments.silenced.norm(dim=(-2, -1)).sqrt()
    similarity: Tensor = (moments.cross.norm(dim=(-2, -1)) / norms) ** 2
    return (1.0 - similarity).clamp(min=0.0)
