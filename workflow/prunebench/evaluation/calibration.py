"""Calibration: does a network that is 80 % sure have it right 80 % of the time?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pydantic import Field

from prunebench.config import Section
from prunebench.evaluation import Evaluation, Subject, Values, logits_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from prunebench.data import Split

    Floats = NDArray[np.float64]


class Options(Section):
    """How calibration is measured."""

    bins: int = Field(15, ge=1)
    """Bins of confidence of the expected calibration error."""


def probabilities(network: nn.Module, split: Split, device: Any, batch_size: int) -> Floats:
    """Softmax of the logits in double precision, shape (n, classes)."""
    import torch

    batches = [logits.double().softmax(dim=1).cpu() for logits, _ in logits_of(network, split, device, batch_size)]
    found: Floats = torch.cat(batches).numpy()
    return found


def calibration_error(confidence: Floats, right: Floats, bin_of: NDArray[np.int64]) -> tuple[float, float]:
    """Mean distance of confidence and accuracy over bins, weighted by their images (Naeini et al. 2015; Guo et al. 2017).

    Args:
        confidence: Probability of the predicted class, shape (n,).
        right: 1 where the prediction is right, else 0, shape (n,).
        bin_of: Number of each image's bin, shape (n,).

    Returns:
        The error, and what chance alone is expected to give a perfectly calibrated network with these confidences: the labels of a
        bin are then Bernoulli draws, and the mean absolute value of their sum's error is taken from the normal distribution.
    """
    import numpy as np

    gaps = np.bincount(bin_of, confidence - right)
    variances = np.bincount(bin_of, confidence * (1 - confidence))
    chance = math.sqrt(2 / math.pi) * np.sqrt(np.maximum(variances, 0)).sum()
    return float(np.abs(gaps).sum() / len(confidence)), float(chance / len(confidence))


def equal_width(confidence: Floats, bins: int) -> NDArray[np.int64]:
    """Bins (0, 1/b], (1/b, 2/b], ..., as in Guo et al. 2017."""
    import numpy as np

    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)


def equal_count(confidence: Floats, bins: int) -> NDArray[np.int64]:
    """Bins that hold as many images each, give or take one; equal confidences in the order of the images."""
    import numpy as np

    rank = np.empty(len(confidence), dtype=np.int64)
    rank[np.argsort(confidence, kind="stable")] = np.arange(len(confidence))
    return rank * bins // len(confidence)


def measure(subject: Subject) -> Values:
    """Classify all test images; see ``EVALUATION.quantities``."""
    import numpy as np

    options = Options.model_validate(dict(subject.options))
    split = subject.test()
    found = probabilities(subject.network, split, subject.device, subject.batch_size)
    values: dict[str, float] = {"calibration_images": len(split), "calibration_bins": options.bins}
    if not np.isfinite(found).all():
        return Values(values, {"calibration": "not finite: the network has diverged"})
    labels = split.labels.numpy()
    confidence = found.max(axis=1)
    right = (found.argmax(axis=1) == labels).astype(np.float64)
    error, chance = calibration_error(confidence, right, equal_width(confidence, options.bins))
    adaptive, _ = calibration_error(confidence, right, equal_count(confidence, options.bins))
    truth = np.eye(found.shape[1])[labels]
    values |= {
        "expected_calibration_error_percent": 100 * error,
        "expected_calibration_error_by_chance_percent": 100 * chance,
        "adaptive_calibration_error_percent": 100 * adaptive,
        "brier_score": float(((found - truth) ** 2).sum(axis=1).mean()),
        "mean_confidence_percent": 100 * float(confidence.mean()),
        "overconfidence_pp": 100 * float(confidence.mean() - right.mean()),
    }
    return Values(values)


EVALUATION = Evaluation(
    "calibration",
    measure,
    per="network",
    needs_data=True,
    options=Options,
    quantities={
        "expected_calibration_error_percent": (
            "Mean distance of confidence (probability of the predicted class) and accuracy over bins of equal width, weighted by images"
        ),
        "expected_calibration_error_by_chance_percent": (
            "What a perfectly calibrated network with the same confidences is expected to have on so few images, by the normal distribution"
        ),
        "adaptive_calibration_error_percent": "The same error over bins that hold equally many images",
        "brier_score": "Mean over images of the squared distance of the probabilities to the truth, 0 to 2",
        "mean_confidence_percent": "Mean probability of the predicted class",
        "overconfidence_pp": "Mean confidence less accuracy, in percentage points",
        "calibration_bins": "Number of bins",
        "calibration_images": "Number of test images",
    },
    source="Guo et al. 2017, arXiv:1706.04599; Brier 1950",
)
