"""Accuracy on the test split, after and before fine-tuning."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from prunebench.evaluation import Evaluation, Subject, Values, logits_of

if TYPE_CHECKING:
    import torch
    from torch import nn

    from prunebench.data import Split


def classify(network: nn.Module, split: Split, device: torch.device, batch_size: int) -> tuple[int, float]:
    """Number of images classified correctly and mean cross-entropy in nats.

    The class is that of the largest logit. An image with a logit that is not finite counts as wrong, so that a network that diverged
    is not credited with class 0.

    Raises:
        PrunebenchError: the split is empty.
    """
    from torch.nn import functional

    correct, loss = 0, 0.0
    for logits, labels in logits_of(network, split, device, batch_size):
        right = (logits.argmax(dim=1) == labels) & logits.isfinite().all(dim=1)
        correct += int(right.sum())
        loss += float(functional.cross_entropy(logits.double(), labels, reduction="sum"))
    return correct, loss / len(split)


def measure(subject: Subject) -> Values:
    """Count on all test images; see ``EVALUATION.quantities``."""
    split = subject.test()
    correct, cross_entropy = classify(subject.network, split, subject.device, subject.batch_size)
    values = {"accuracy_percent": 100 * correct / len(split)}
    labels = {}
    if math.isfinite(cross_entropy):
        values["cross_entropy_nats"] = cross_entropy
    else:
        labels["cross_entropy"] = "not finite: the network has diverged"
    if subject.unfinetuned is not None:
        before, _ = classify(subject.unfinetuned, split, subject.device, subject.batch_size)
        values["accuracy_before_fine_tuning_percent"] = 100 * before / len(split)
    values["test_images"] = len(split)
    return Values(values, labels)


EVALUATION = Evaluation(
    "accuracy",
    measure,
    per="network",
    needs_data=True,
    quantities={
        "accuracy_percent": "Test images whose largest logit is that of their class",
        "cross_entropy_nats": "Mean cross-entropy on the test split; left out if the network has diverged",
        "accuracy_before_fine_tuning_percent": "The same accuracy with the dense network's weights, before any fine-tuning",
        "test_images": "Number of test images",
    },
    source="Top-1 accuracy",
)
