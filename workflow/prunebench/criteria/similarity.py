"""The eight metrics of the Consensus paper: distance of the penultimate features with a block silenced from the dense ones.

The smaller the distance, the less the block does, so the lowest score goes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prunebench.criteria import Criterion

if TYPE_CHECKING:
    from prunebench.scoring import Probe


def _cka(probe: Probe) -> Sequence[float]:
    from prunebench.metrics.cka import cka

    return cka(probe.statistics).tolist()


def _linear(probe: Probe, a: float) -> Sequence[float]:
    from prunebench.metrics.linear import linear

    return linear(probe.statistics, a).tolist()


def _permutation(probe: Probe) -> Sequence[float]:
    from prunebench.metrics.permutation import permutation

    return permutation(probe.statistics).tolist()


def _gaussian(probe: Probe, a: float) -> Sequence[float]:
    from prunebench.metrics.gaussian import gaussian_stochastic

    return gaussian_stochastic(probe.statistics, a).tolist()


def _wasserstein(probe: Probe) -> Sequence[float]:
    from prunebench.metrics.wasserstein import wasserstein

    return wasserstein(probe.statistics).tolist()


CKA = Criterion("cka", _cka, ("features",), source="Pons et al. 2024, arXiv 2405.17081")
LINEAR_0 = Criterion(
    "linear_0", lambda probe: _linear(probe, 0.0), ("features",), source="Williams et al. 2021, full whitening"
)
LINEAR_1 = Criterion("linear_1", lambda probe: _linear(probe, 1.0), ("features",), source="Williams et al. 2021, Procrustes")
PERMUTATION = Criterion("permutation", _permutation, ("features",), source="Williams et al. 2021, permutation alignment")
GAUSSIAN_0 = Criterion(
    "gaussian_stochastic_0",
    lambda probe: _gaussian(probe, 0.0),
    ("features", "labels"),
    source="Duong et al. 2023, covariances only",
)
GAUSSIAN_1 = Criterion(
    "gaussian_stochastic_1",
    lambda probe: _gaussian(probe, 1.0),
    ("features", "labels"),
    source="Duong et al. 2023, 2-Wasserstein distance",
)
GAUSSIAN_2 = Criterion(
    "gaussian_stochastic_2", lambda probe: _gaussian(probe, 2.0), ("features", "labels"), source="Duong et al. 2023, means only"
)
WASSERSTEIN = Criterion(
    "wasserstein", _wasserstein, ("features", "values"), source="1-D Wasserstein distance of all feature values"
)
