"""What the metrics need to know of the features, accumulated batch by batch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prunebench.errors import PrunebenchError
from prunebench.metrics import MetricError

NEEDS = ("features", "labels", "values")
MEMORY_LIMIT = 8 * 2**30
"""Bytes that the accumulators of one need may take."""

RANK_TOLERANCE = 1e-12
"""Eigenvalues of a covariance below this share of the largest are rounding errors of a singular matrix."""

COSINE_ROUNDING = 1e-13
"""A cosine this close to one is one; angles below 4.5e-7 radians are therefore zero."""


@dataclass(frozen=True)
class FeatureMoments:
    """Second moments of all samples, float64, on the CPU.

    Attributes:
        count: number of samples n.
        dense_mean: (d,).
        silenced_means: (C, d).
        dense: X'X of the centred dense features, not divided by n, (d, d).
        silenced: Y'Y of each candidate's centred features, (C, d, d).
        cross: X'Y, (C, d, d): dense units in rows, silenced units in columns.
    """

    count: int
    dense_mean: Tensor
    silenced_means: Tensor
    dense: Tensor
    silenced: Tensor
    cross: Tensor


@dataclass(frozen=True)
class ClassMoments:
    """Moments within each of the K' classes that have samples, float64, on the CPU.

    Attributes:
        counts: samples of each class, (K',).
        dense_means: (K', d).
        silenced_means: (C, K', d).
        dense_covariances: unbiased, zero for a class of one sample, (K', d, d).
        silenced_covariances: the same, (C, K', d, d).
    """

    counts: Tensor
    dense_means: Tensor
    silenced_means: Tensor
    dense_covariances: Tensor
    silenced_covariances: Tensor


class FeatureStatistics:
    """Statistics of a network's features, dense and with each candidate block silenced, accumulated batch by batch.

    Sums are kept in float64 and of differences to one sample (the first of all, and the first of its class), so that
    they lose no digits to cancellation and units that never change have a variance of exactly zero. The results do
    not depend on how the samples are cut into batches, up to rounding. Memory does not grow with the number of
    samples, except for ``values``.

    Args:
        candidates: number of candidate blocks C.
        dimension: number of features d.
        classes: number of classes K.
        needs: what to accumulate: ``features`` (means, covariances, cross-covariances of all samples), ``labels``
            (means and covariances within each class) and ``values`` (every value of every feature).
        device: where to accumulate; it must know float64.

    Raises:
        PrunebenchError: a need is unknown or its accumulators would take more than 8 GiB.
    """

    def __init__(
        self,
        candidates: int,
        dimension: int,
        classes: int,
        needs: Collection[str],
        device: torch.device | str = "cpu",
    ) -> None:
        unknown = sorted(set(needs) - set(NEEDS))
        if unknown:
            raise PrunebenchError(f"unknown need {', '.join(unknown)}; a metric needs one of {', '.join(NEEDS)}")
        self.candidates, self.dimension, self.classes = candidates, dimension, classes
        self.needs = frozenset(needs)
        self.device = torch.device(device)
        self.count = 0
        self._values: list[Tensor] = []
        # Index 0 of the first dimension is the dense network, the candidates follow.
        networks, matrix = candidates + 1, dimension * dimension
        if "features" in self.needs:
            self._check_memory("features", (networks + candidates) * matrix, f"{candidates} candidates")
            self._shift = self._zeros(networks, 1, dimension)
            self._sum = self._zeros(networks, dimension)
            self._outer = self._zeros(networks, dimension, dimension)
            self._cross = self._zeros(candidates, dimension, dimension)
        if "labels" in self.needs:
            sizes = f"{candidates} candidates x {classes} classes"
            self._check_memory("labels", networks * classes * matrix, sizes)
            self._class_count = [0] * classes
            self._class_shift = self._zeros(networks, classes, dimension)
            self._class_sum = self._zeros(networks, classes, dimension)
            self._class_outer = self._zeros(networks, classes, dimension, dimension)

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64, device=self.device)

    def _check_memory(self, need: str, numbers: int, sizes: str) -> None:
        if numbers * 8 > MEMORY_LIMIT:
            raise PrunebenchError(
                f"the statistics {need!r} would take {numbers * 8 / 2**30:.0f} GiB ({sizes} x {self.dimension}^2 "
                f"covariances), more than {MEMORY_LIMIT / 2**30:.0f} GiB; leave out the metrics that need {need!r}"
            )

    @torch.no_grad()
    def update(self, dense: Tensor, silenced: Tensor, labels: Tensor) -> None:
        """Add a batch of n samples.

        Args:
            dense: features of the dense network, (n, d).
            silenced: features with each candidate silenced, (C, n, d).
            labels: class of each sample, whole numbers, (n,).

        Raises:
            PrunebenchError: a label is outside 0 to K - 1.
            ValueError: the shapes do not fit together.
        """
        n = len(labels)
        if dense.shape != (n, self.dimension) or silenced.shape != (self.candidates, n, self.dimension):
            raise ValueError(
                f"features of shapes {tuple(dense.shape)} and {tuple(silenced.shape)} for {n} labels, "
                f"{self.candidates} candidates and {self.dimension} features"
            )
        if n == 0:
            return
        if "features" in self.needs or "labels" in self.needs:
            features = torch.cat([dense[None], silenced]).to(self.device, torch.float64)
            if "features" in self.needs:
                self._update_features(features)
            if "labels" in self.needs:
                self._update_labels(features, labels.to(self.device))
        if "values" in self.needs:
            self._values.append(torch.cat([dense[None], silenced]).flatten(1))
        self.count += n

    def _update_features(self, features: Tensor) -> None:
        if self.count == 0:
            self._shift = features[:, :1].clone()
        shifted = features - self._shift
        self._sum += shifted.sum(1)
        self._outer += shifted.mT @ shifted
        self._cross += shifted[0].mT @ shifted[1:]

    def _update_labels(self, features: Tensor, labels: Tensor) -> None:
        present = torch.unique(labels).tolist()
        if present[0] < 0 or present[-1] >= self.classes:
            wrong = present[0] if present[0] < 0 else present[-1]
            raise PrunebenchError(f"a sample has the label {wrong}, but the dataset declares {self.classes} classes")
        for label in present:
            members = features[:, labels == label]
            if self._class_count[label] == 0:
                self._class_shift[:, label] = members[:, 0]
            shifted = members - self._class_shift[:, label, None]
            self._class_sum[:, label] += shifted.sum(1)
            self._class_outer[:, label] += shifted.mT @ shifted
            self._class_count[label] += members.shape[1]

    def state(self) -> dict[str, Tensor]:
        """All that was accumulated but the values of single features, on the CPU, for ``restore``."""
        kept = {name: getattr(self, f"_{name}").cpu().contiguous() for name in self._accumulators}
        counts = self._class_count if "labels" in self.needs else []
        return {**kept, "counts": torch.tensor([self.count, self.dimension, *counts])}

    def values_from(self, piece: int) -> Tensor | None:
        """Values of single features that came after so many pieces, as one: from then on they are one piece; None without any."""
        if len(self._values) <= piece:
            return None
        self._values[piece:] = [torch.cat(self._values[piece:], dim=1)]
        return self._values[piece]

    def restore(self, state: Mapping[str, Tensor], values: Sequence[Tensor]) -> None:
        """Go on from a ``state`` with the same candidates, dimension, classes and needs, and from pieces of values."""
        for name in self._accumulators:
            setattr(self, f"_{name}", state[name].to(self.device))
        self.count, _, *counts = state["counts"].tolist()
        if "labels" in self.needs:
            self._class_count = counts
        self._values = [piece.to(self.device) for piece in values]

    @property
    def _accumulators(self) -> list[str]:
        names = {"features": ["shift", "sum", "outer", "cross"], "labels": ["class_shift", "class_sum", "class_outer"]}
        return [name for need in sorted(self.needs & set(names)) for name in names[need]]

    def _require(self, need: str, metric: str) -> None:
        if need not in self.needs:
            raise MetricError(f"metric {metric}: needs the statistics {need!r}, accumulated are {sorted(self.needs)}")
        if self.count == 0:
            raise MetricError(f"metric {metric}: no samples; raise the number of images to score with")

    @staticmethod
    def _require_finite(metric: str, *tensors: Tensor) -> None:
        if not all(bool(tensor.isfinite().all()) for tensor in tensors):
            raise MetricError(f"metric {metric}: features hold NaN or infinite values; the network has diverged")

    def feature_moments(self, metric: str) -> FeatureMoments:
        """Moments of all samples, for a metric whose name goes into errors.

        Raises:
            MetricError: ``features`` was not accumulated, there are no samples or the features are not finite.
        """
        self._require("features", metric)
        total = self._sum.cpu()
        mean = total / self.count
        outer = self._outer.cpu() - total[:, :, None] * mean[:, None, :]
        cross = self._cross.cpu() - total[0, :, None] * mean[1:, None, :]
        self._require_finite(metric, outer, cross)
        mean = mean + self._shift[:, 0].cpu()
        return FeatureMoments(self.count, mean[0], mean[1:], outer[0], outer[1:], cross)

    def class_moments(self, metric: str) -> ClassMoments:
        """Moments within each class that has samples, for a metric whose name goes into errors.

        Raises:
            MetricError: ``labels`` was not accumulated, there are no samples or the features are not finite.
        """
        self._require("labels", metric)
        present = [label for label, count in enumerate(self._class_count) if count]
        counts = torch.tensor([self._class_count[label] for label in present], dtype=torch.float64)
        total = self._class_sum[:, present].cpu()
        means = total / counts[:, None]
        outer = self._class_outer[:, present].cpu() - total[..., :, None] * means[..., None, :]
        covariances = outer / (counts - 1).clamp(min=1)[:, None, None]
        means = means + self._class_shift[:, present].cpu()
        self._require_finite(metric, means, covariances)
        return ClassMoments(counts, means[0], means[1:], covariances[0], covariances[1:])

    def all_values(self, metric: str) -> Iterator[Tensor]:
        """All n d values of the dense features, then of each candidate's, (n d,) each, in no defined order.

        One network at a time, since the values of all of them a second time would be the largest thing in memory.

        Raises:
            MetricError: ``values`` was not accumulated, there are no samples or the features are not finite.
        """
        self._require("values", metric)
        for network in range(self.candidates + 1):
            values = torch.cat([part[network] for part in self._values])
            self._require_finite(metric, values)
            yield values


def require_variance(metric: str, dense: Tensor, silenced: Tensor) -> None:
    """Check that features vary, for metrics that divide by their variance.

    Args:
        metric: its name, for the error.
        dense: total variance of the dense features, a scalar.
        silenced: total variance of each candidate's, (C,).

    Raises:
        MetricError: no unit of the dense features, or of a candidate's, varies between samples.
    """
    if not dense > 0:
        raise MetricError(f"metric {metric}: undefined, every unit of the dense features is constant over the samples")
    dead = (~(silenced > 0)).nonzero().flatten().tolist()
    if dead:
        raise MetricError(
            f"metric {metric}: undefined for candidate {', '.join(map(str, dead))} (counted from 0): "
            "with this block silenced every unit of the features is constant over the samples"
        )


def total_variance(scatter: Tensor) -> Tensor:
    """Trace of the last two dimensions."""
    return scatter.diagonal(dim1=-2, dim2=-1).sum(-1)


def angular_distance(inner: Tensor, dense: Tensor, silenced: Tensor) -> Tensor:
    """Angle between two matrices of features, in radians, from their inner product and squared Frobenius norms."""
    cosine = (inner / (dense * silenced).sqrt()).clamp(-1.0, 1.0)
    # Features that can be aligned perfectly are to tie at zero, not to be ranked by rounding errors.
    return torch.where(1 - cosine < COSINE_ROUNDING, 0.0, torch.acos(cosine))
