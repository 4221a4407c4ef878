"""Shortcut learning: accuracy on the same test images with a mark that is absent, random, right or misleading."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from prunebench.config import Section
from prunebench.data.dataset import Dataset
from prunebench.data.shortcut import NO_MARK, Mark, Planted, remark, wrong_class
from prunebench.errors import PrunebenchError
from prunebench.evaluation import Evaluation, Subject, Values, logits_of

if TYPE_CHECKING:
    import torch
    from torch import nn

    from prunebench.data import Split


class Options(Section):
    """How many images are looked at, and how often."""

    images: int | None = Field(None, ge=1)
    """Test images, in an order that is the same for all networks; by default all."""
    wrong_marks: int = Field(9, ge=1)
    """Wrong marks that each image is shown with, one after the other; all wrong ones if there are no more."""


def predict(network: nn.Module, split: Split, device: torch.device, batch_size: int) -> torch.Tensor:
    """The class of the largest logit, int64 on the CPU, shape (n,); -1 where a logit is not finite."""
    import torch

    found = [
        logits.argmax(dim=1).where(logits.isfinite().all(dim=1), -1).cpu()
        for logits, _ in logits_of(network, split, device, batch_size)
    ]
    return torch.cat(found)


def reliance(subject: Subject, network: nn.Module, split: Split, planted: Planted, wrong_marks: int) -> dict[str, float]:
    """The quantities of one network, without its number of images."""
    import torch

    def equal(answers: torch.Tensor, expected: torch.Tensor) -> int:
        return int((answers == expected).sum())

    def answers(shown: torch.Tensor) -> torch.Tensor:
        return predict(network, remark(split, planted.mark, shown), subject.device, subject.batch_size)

    absent = 100 * equal(answers(torch.full_like(split.labels, NO_MARK)), split.labels) / len(split)
    agrees = 100 * equal(answers(split.labels), split.labels) / len(split)
    turns = min(wrong_marks, planted.classes - 1)
    right = following = 0
    for turn in range(turns):
        shown = wrong_class(planted.base, planted.classes, split.images.labels, turn, turns)[split.indices]
        answered = answers(shown)
        right += equal(answered, split.labels)
        following += equal(answered, shown)
    misleads = 100 * right / (turns * len(split))
    # Against a mark that is drawn from all classes, as expected of many draws: one draw would add its own noise.
    gap = (agrees - misleads) * (planted.classes - 1) / planted.classes
    return {
        "accuracy_mark_absent_percent": absent,
        "accuracy_mark_random_percent": agrees - gap,
        "accuracy_mark_agrees_percent": agrees,
        "accuracy_mark_misleads_percent": misleads,
        "shortcut_gap_pp": gap,
        "following_misleading_mark_percent": 100 * following / (turns * len(split)),
    }


def measure(subject: Subject) -> Values:
    """Look at the same images with one mark after the other; see ``EVALUATION.quantities``."""
    from prunebench.data import some

    options = Options.model_validate(dict(subject.options))
    split = subject.test()
    if options.images is not None:
        split = some(split, options.images)
    dataset = split.dataset
    planted = dataset.planted or Planted(dataset.name, dataset.classes, Mark.of(dataset), 0.0)
    values = reliance(subject, subject.network, split, planted, options.wrong_marks)
    if subject.unfinetuned is not None:
        for quantity, value in reliance(subject, subject.unfinetuned, split, planted, options.wrong_marks).items():
            stem, _, unit = quantity.rpartition("_")
            values[f"{stem}_before_fine_tuning_{unit}"] = value
    if dataset.planted:
        values["training_mark_agreement_percent"] = 100 * dataset.planted.agreement
    values["test_images"] = len(split)
    return Values(values)


def unsuited(dataset: Dataset) -> str | None:
    """Images that are too small for the mark."""
    try:
        Mark.of(dataset)
    except PrunebenchError as error:
        return str(error)
    return None


_QUANTITIES = {
    "accuracy_mark_absent_percent": "Test accuracy without a mark",
    "accuracy_mark_agrees_percent": "Test accuracy where the mark tells the class of the image",
    "accuracy_mark_misleads_percent": "Test accuracy where the mark tells another class, mean over `wrong_marks` of them",
    "accuracy_mark_random_percent": "What a mark drawn from all classes is expected to give: the two, weighted 1 to classes - 1",
    "shortcut_gap_pp": "`accuracy_mark_agrees_percent` - `accuracy_mark_random_percent`: what the mark alone gains",
    "following_misleading_mark_percent": "Images with a misleading mark that are put into the class that it tells",
}

EVALUATION = Evaluation(
    "shortcut",
    measure,
    per="network",
    needs_data=True,
    options=Options,
    unsuited=unsuited,
    quantities={
        **_QUANTITIES,
        **{
            f"{name.rpartition('_')[0]}_before_fine_tuning_{name.rpartition('_')[2]}": f"The same before any fine-tuning: {text}"
            for name, text in _QUANTITIES.items()
        },
        "training_mark_agreement_percent": "How often the mark tells the class in training; left out for a control, trained without it",
        "test_images": "Number of test images",
    },
    source="Geirhos et al. 2020, Shortcut learning in deep neural networks; the mark is this project's own",
)
