"""Stochastic shape metric between class-conditional Gaussians."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from prunebench.metrics import MetricError
from prunebench.metrics.statistics import RANK_TOLERANCE, FeatureStatistics

MAXIMUM_ROUNDS = 1000
RELATIVE_IMPROVEMENT = 1e-7
"""Alignment ends when a round lowers the squared loss by less than this share; the score then is good to about 1e-7."""

ROUNDING = 1e-14
"""Share of the features' own size below which a change of the squared loss is rounding."""

MOMENTUM = 0.5
"""How far beyond the newest rotation, in units of the last step, the next round looks."""

PROXIMITY = 1e-8
"""Weight of the previous polar factor, as a share of a matrix's norm: above rounding, below what moves a score."""

TINY = 1e-30

SMALL_DIMENSION = 256
"""Up to this many features a second thread gains little, and on busy cores waiting for it costs a multiple."""
CHUNK_BYTES = 64 * 2**20
"""Candidates are aligned in groups whose stacked covariances stay below this size."""


def gaussian_stochastic(stats: FeatureStatistics, a: float) -> Tensor:
    """Distance between class-conditional Gaussians after the best common rotation.

    With means mu_k, nu_k and covariances S_k, T_k of class k in the dense and the silenced network, over orthogonal Q::

        sqrt(mean_k [a ||mu_k - nu_k Q||^2 + (2 - a) Bures^2(S_k, Q' T_k Q)])

    so that a = 0 compares covariances, a = 2 means, and a = 1 is the 2-Wasserstein distance. Q minimises the
    Frobenius distance of the stacked blocks [a mu_k; (2 - a) S_k^(1/2)] by alternation: given Q, the best rotation of
    each class's block is a polar factor; given those, Q is one. It starts at Q = I, since dense and silenced features
    share their coordinates, and ends in a local optimum. For a = 2 the first step is already the solution.

    Duong et al. 2023, *Representational dissimilarity metric spaces for stochastic neural networks*.

    Args:
        stats: statistics with ``labels``. Classes without samples are left out of the mean; a class of one sample has
            covariance zero.
        a: from 0 to 2.

    Returns:
        Scores in the unit of the features, (C,), float64.

    Raises:
        MetricError: the features hold NaN or infinite values, or ``a`` is outside [0, 2].

    Warns:
        RuntimeWarning: the alignment of a candidate did not converge within 1000 rounds.
    """
    if not 0 <= a <= 2:
        raise MetricError(f"metric gaussian_stochastic_{a:g}: a has to be from 0 to 2")
    with _threads(1 if stats.dimension <= SMALL_DIMENSION else torch.get_num_threads()):
        return _scores(stats, a)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Let torch use so many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _scores(stats: FeatureStatistics, a: float) -> Tensor:
    name = f"gaussian_stochastic_{a:g}"
    moments = stats.class_moments(name)
    classes, dimension = moments.dense_means.shape
    if a == 2:
        rotations = _polar(moments.silenced_means.mT @ moments.dense_means)
        return (2 * _mean_distances(moments.dense_means, moments.silenced_means, rotations)).sqrt()
    dense_roots = _square_roots(moments.dense_covariances)
    chunk = max(1, CHUNK_BYTES // (classes * dimension**2 * 8))
    scores, unfinished = [], 0
    for start in range(0, stats.candidates, chunk):
        means = moments.silenced_means[start : start + chunk]
        roots = _square_roots(moments.silenced_covariances[start : start + chunk])
        rotations, active = _align(moments.dense_means, dense_roots, means, roots, a)
        unfinished += active
        turned = roots @ rotations[:, None]
        # The residual after the best rotation is the Bures distance, without the cancellation of its usual formula.
        residuals = dense_roots - _polar(turned @ dense_roots).mT @ turned
        bures = residuals.square().sum((-2, -1)).mean(-1)
        scores.append((a * _mean_distances(moments.dense_means, means, rotations) + (2 - a) * bures).sqrt())
    if unfinished:
        warnings.warn(
            f"metric {name}: {unfinished} of {stats.candidates} alignments did not converge in {MAXIMUM_ROUNDS} rounds",
            RuntimeWarning,
            stacklevel=3,
        )
    return torch.cat(scores)


def _mean_distances(dense: Tensor, silenced: Tensor, rotations: Tensor) -> Tensor:
    """Mean over classes of ||mu_k - nu_k Q||^2, (C,)."""
    distances: Tensor = (dense - silenced @ rotations).square().sum(-1).mean(-1)
    return distances


def _square_roots(covariances: Tensor) -> Tensor:
    """Symmetric square roots of positive semi-definite matrices, whose rounding errors are taken for zero."""
    eigenvalues, vectors = torch.linalg.eigh(covariances)
    kept = eigenvalues.clamp(min=0) * (eigenvalues > RANK_TOLERANCE * eigenvalues[..., -1:])
    roots: Tensor = (vectors * kept.sqrt().unsqueeze(-2)) @ vectors.mT
    return roots


def _polar(matrices: Tensor) -> Tensor:
    """Orthogonal polar factors."""
    left, _, right = torch.linalg.svd(matrices)
    factors: Tensor = left @ right
    return factors


def _polar_near(matrices: Tensor, previous: Tensor) -> Tensor:
    """Orthogonal polar factors, unique and continuous for singular matrices too.

    A singular matrix (dead units, fewer samples than units) leaves its polar factor free in the null space, where a
    decomposition returns rounding noise. A little of the previous factor settles it: no needless rotation.
    """
    norms = torch.linalg.matrix_norm(matrices, keepdim=True).clamp(min=TINY)
    return _polar(matrices + PROXIMITY * norms * previous)


def _align(dense_means: Tensor, dense_roots: Tensor, means: Tensor, roots: Tensor, a: float) -> tuple[Tensor, int]:
    """Rotations Q of all candidates and how many of them did not converge.

    The alternation maximises sum_k <P_k, T_k^(1/2) Q S_k^(1/2)> and the like of the means over orthogonal P_k and Q.
    Maximised over the P_k it is a convex function of Q over all matrices, of which any point gives a lower bound; so
    the P_k may be taken at a point extrapolated beyond Q, which halves the number of rounds. A step that does not pay
    is taken back and repeated without the extrapolation, so that the loss never rises.
    """
    candidates, dimension = means.shape[0], means.shape[-1]
    weight_means, weight_roots = a**2, (2 - a) ** 2
    size = weight_means * (dense_means.square().sum() + means.square().sum((-2, -1)))
    size = size + weight_roots * (dense_roots.square().sum() + roots.square().sum((-3, -2, -1)))
    pull = weight_means * means.mT @ dense_means
    best = torch.eye(dimension, dtype=means.dtype).repeat(candidates, 1, 1)
    result, loss = best.clone(), torch.full_like(size, torch.inf)
    active = torch.arange(candidates)
    point, inner = best.clone(), torch.eye(dimension, dtype=means.dtype).expand_as(roots)
    plain = torch.ones(candidates, dtype=torch.bool)
    for _ in range(MAXIMUM_ROUNDS):
        inner = _polar_near(roots @ point[:, None] @ dense_roots, inner)
        gradient = pull + weight_roots * (roots @ inner @ dense_roots).sum(1)
        rotation = _polar_near(gradient, best)
        new_loss = size - 2 * (gradient * rotation).sum((-2, -1))
        gain = loss - new_loss
        rejected = (gain < 0) & ~plain
        finished = (gain <= torch.maximum(RELATIVE_IMPROVEMENT * new_loss, ROUNDING * size)) & ~rejected
        keep = rejected[:, None, None]
        point = torch.where(keep, best, rotation + MOMENTUM * (rotation - best))
        best = torch.where(keep, best, rotation)
        loss, plain = torch.where(rejected, loss, new_loss), rejected
        result[active] = best
        on = ~finished
        active, best, point, inner, loss, plain = (x[on] for x in (active, best, point, inner, loss, plain))
        size, pull, roots = size[on], pull[on], roots[on]
        if len(active) == 0:
            break
    return result, len(active)
