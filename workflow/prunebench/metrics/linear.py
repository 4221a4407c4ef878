"""Generalized shape metrics with a linear alignment."""

from __future__ import annotations

import torch
from torch import Tensor

from prunebench.metrics import MetricError
from prunebench.metrics.statistics import (
    RANK_TOLERANCE,
    FeatureStatistics,
    angular_distance,
    require_variance,
    total_variance,
)

EIGENVALUE_FLOOR = 1e-7
"""Smallest eigenvalue of X'X that whitening divides by (Williams et al. 2021, published implementation)."""


def linear(stats: FeatureStatistics, a: float) -> Tensor:
    """Angular distance after the best linear alignment, regularised by ``a``.

    Both sets of features are centred and partially whitened by Z = V diag(a + (1 - a) / sqrt(lambda)) V', with
    V diag(lambda) V' = X'X, then rotated onto each other. Since the best rotation comes from the singular value
    decomposition of Zx X'Y Zy, the inner product after it is the sum of the singular values: no feature is touched.
    The published whitening also restores the total variance; that scale cancels in the angle.

    Williams et al. 2021, *Generalized Shape Metrics on Neural Representations*.

    Args:
        stats: statistics with ``features``.
        a: 1 allows for rotations only (Procrustes), 0 for any invertible linear map (canonical correlations).

    Returns:
        Scores in radians, in [0, pi / 2], (C,), float64.

    Raises:
        MetricError: the dense features or a candidate's are constant, or ``a`` is outside [0, 1].
    """
    name = f"linear_{a:g}"
    if not 0 <= a <= 1:
        raise MetricError(f"metric {name}: a has to be from 0 to 1")
    moments = stats.feature_moments(name)
    require_variance(name, total_variance(moments.dense), total_variance(moments.silenced))
    whiten_dense, dense_norm = _whitening(moments.dense, a)
    whiten_silenced, silenced_norms = _whitening(moments.silenced, a)
    inner = torch.linalg.svdvals(whiten_dense @ moments.cross @ whiten_silenced).sum(-1)
    return angular_distance(inner, dense_norm, silenced_norms)


def _whitening(scatter: Tensor, a: float) -> tuple[Tensor, Tensor]:
    """Partial whitening matrices of X'X, (..., d, d), and the squared norms of the features whitened by them, (...)."""
    if a == 1:
        return torch.eye(scatter.shape[-1], dtype=scatter.dtype), total_variance(scatter)
    eigenvalues, vectors = torch.linalg.eigh(scatter)
    weights = a + (1 - a) * eigenvalues.clamp(min=EIGENVALUE_FLOOR).rsqrt()
    # Directions without variance add nothing; whitening would only blow up their rounding errors.
    weights = weights * (eigenvalues > RANK_TOLERANCE * eigenvalues[..., -1:])
    return (vectors * weights.unsqueeze(-2)) @ vectors.mT, (weights**2 * eigenvalues).sum(-1)
