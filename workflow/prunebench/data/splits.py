"""Training, validation and test splits, and the sample that blocks are scored on: fixed by a seed, on every machine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from prunebench.data.dataset import Dataset, Images
from prunebench.errors import PrunebenchError
from prunebench.seeds import derive

if TYPE_CHECKING:
    import torch

SplitName = Literal["train", "validation", "test"]

# Pixels that are summed at a time, a bound on the memory of the sums (8 bytes each).
_CHUNK = 2**20


@dataclass(frozen=True, eq=False)
class Split:
    """Some of the images of an official part.

    Attributes:
        dataset: Where they are from.
        images: The whole official part.
        indices: Their positions in it, int64 on the CPU, shape (n,).
    """

    dataset: Dataset
    images: Images
    indices: torch.Tensor

    def __len__(self) -> int:
        return len(self.indices)

    @cached_property
    def labels(self) -> torch.Tensor:
        """Their classes, int64 on the CPU, shape (n,)."""
        return self.images.labels[self.indices]

    def pixels(self, positions: torch.Tensor) -> torch.Tensor:
        """The images at ``positions`` of this split (int64, shape (m,)): uint8 on the CPU, shape (m, C, H, W)."""
        return self.images.pixels(self.indices[positions.cpu()])

    def subset(self, positions: torch.Tensor) -> Split:
        """The split made of the images at ``positions`` (int64), in that order."""
        return Split(self.dataset, self.images, self.indices[positions.cpu()])


def load_splits(
    dataset: Dataset,
    root: Path,
    split: SplitName,
    *,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 0,
    download: bool = False,
) -> Split:
    """Read one split.

    The validation split is cut from the official training part; the test split is the official test part as it is, or,
    where there is none, cut from all images before the validation split is. Cuts are stratified: of each class the
    fraction, rounded half up, is drawn. The three are disjoint and together hold every image once; each keeps the
    official order. Where there is an official test part, only ``"test"`` opens its files.

    Args:
        dataset: The dataset.
        root: The data root.
        split: Which split.
        validation_fraction: Part of the training images, 0 <= f < 1.
        test_fraction: Part of all images, 0 <= f < 1, used only where there is no official test part.
        seed: What the cuts are drawn by.
        download: Whether missing files may be downloaded.

    Raises:
        PrunebenchError: the data is missing or corrupt, a fraction is out of range, or the split would be empty.
    """
    import torch

    if split not in get_args(SplitName):
        raise PrunebenchError(f"'{split}' is not a split; accepted: {', '.join(get_args(SplitName))}")
    for key, fraction in (("validation_fraction", validation_fraction), ("test_fraction", test_fraction)):
        if not 0 <= fraction < 1:
            raise PrunebenchError(f"data.{key} is {fraction}, expected at least 0 and less than 1")
    if dataset.official_test:
        images = dataset.read(root, "test" if split == "test" else "train", download)
        rest, test = torch.arange(len(images.labels)), torch.arange(len(images.labels))
    else:
        images = dataset.read(root, "all", download)
        rest, test = _cut(dataset, images.labels, torch.arange(len(images.labels)), test_fraction, "test", seed)
    if dataset.planted:  # only now is it known which images are for testing
        images = dataset.planted.mark_images(images, split)
    if split == "test":
        return _not_empty(Split(dataset, images, test), split, "data.test_fraction")
    train, validation = _cut(dataset, images.labels, rest, validation_fraction, "validation", seed)
    chosen = train if split == "train" else validation
    return _not_empty(Split(dataset, images, chosen), split, "data.validation_fraction")


def sample(split: Split, per_class: int, seed: int) -> Split:
    """Draw the same number of images of each class: class by class, in the order of the draw.

    For the same seed a smaller sample is the beginning of a larger one, within each class.

    Raises:
        PrunebenchError: ``per_class`` is not positive or a class has fewer images.
    """
    import torch

    if per_class < 1:
        raise PrunebenchError(f"sample.images_per_class is {per_class}, expected at least 1")
    drawn = []
    for label in range(split.dataset.classes):
        members = torch.nonzero(split.labels == label).flatten()
        if len(members) < per_class:
            raise PrunebenchError(
                f"{split.dataset.name}: class {label} has {len(members)} images, {per_class} are asked for; "
                f"set sample.images_per_class to at most {int(_counts(split).min())}"
            )
        drawn.append(members[_permutation(len(members), split.dataset, "sample", label, seed)[:per_class]])
    return split.subset(torch.cat(drawn))


def some(split: Split, number: int) -> Split:
    """The first ``number`` images of an order that is fixed by the dataset alone; all of them if there are fewer.

    A smaller part is the beginning of a larger one. The classes are as frequent as chance has it.

    Raises:
        PrunebenchError: ``number`` is not positive.
    """
    if number < 1:
        raise PrunebenchError(f"{split.dataset.name}: {number} images are asked for, expected at least 1")
    return split.subset(_permutation(len(split), split.dataset, "some", 0, 0)[:number])


def to_unit(pixels: torch.Tensor) -> torch.Tensor:
    """Bytes to float32 in [0, 1], the input of every network; same shape, same device."""
    return pixels.float() / 255


def normalisation(split: Split, mode: Literal["per-channel", "per-pixel"]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation to normalise images in [0, 1] by, measured on ``split``, the training split.

    The sums are of integers, hence exact: the result depends on neither the machine nor the order of the images.

    Args:
        split: The training split.
        mode: ``per-channel``: mean and (population) standard deviation of each channel, shape (C, 1, 1), or the
            dataset's convention if it has one. ``per-pixel``: the mean image and a standard deviation of 1, shape
            (C, H, W), as in the layer-pruning papers.

    Returns:
        float32 mean and standard deviation.

    Raises:
        PrunebenchError: ``mode`` is unknown.
    """
    import torch

    if mode not in ("per-channel", "per-pixel"):
        raise PrunebenchError(f"normalisation '{mode}' is unknown; accepted: per-channel, per-pixel")
    if mode == "per-channel" and split.dataset.channel_statistics is not None:
        mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in split.dataset.channel_statistics)
        return mean, std
    shape = split.dataset.input_shape
    total = torch.zeros(shape, dtype=torch.int64)
    squares = torch.zeros(shape[0], dtype=torch.int64)
    step = max(1, _CHUNK // math.prod(shape))
    for start in range(0, len(split), step):
        pixels = split.pixels(torch.arange(start, min(start + step, len(split)))).long()
        total += pixels.sum(0)
        if mode == "per-channel":
            squares += pixels.square().sum((0, 2, 3))
    if mode == "per-pixel":
        return (total.double() / (255 * len(split))).float(), torch.ones(shape)
    count = len(split) * shape[1] * shape[2]
    means, stds = [], []
    # In Python's whole numbers, as n * sum(x^2) - sum(x)^2 is beyond 64 bits for large data.
    for first, second in zip(total.sum((1, 2)).tolist(), squares.tolist(), strict=True):
        means.append(first / (255 * count))
        # A channel without any contrast is left as it is.
        stds.append(math.sqrt(count * second - first * first) / (255 * count) or 1.0)
    return torch.tensor(means).reshape(-1, 1, 1), torch.tensor(stds).reshape(-1, 1, 1)


def _counts(split: Split) -> torch.Tensor:
    return split.labels.bincount(minlength=split.dataset.classes)


def _not_empty(split: Split, name: str, key: str) -> Split:
    if not len(split):
        raise PrunebenchError(f"{split.dataset.name}: no image is left for the {name} split; change {key}")
    return split


def _cut(
    dataset: Dataset, labels: torch.Tensor, positions: torch.Tensor, fraction: float, purpose: str, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Divide ``positions`` into the rest and the ``fraction`` of each class that is drawn, both in ascending order."""
    import torch

    drawn = torch.zeros(len(positions), dtype=torch.bool)
    for label in range(dataset.classes):
        members = torch.nonzero(labels[positions] == label).flatten()
        count = math.floor(fraction * len(members) + 0.5)
        drawn[members[_permutation(len(members), dataset, purpose, label, seed)[:count]]] = True
    return positions[~drawn], positions[drawn]


def _permutation(length: int, dataset: Dataset, purpose: str, label: int, seed: int) -> torch.Tensor:
    """A random order of 0 .. length - 1.

    Made from the raw output of PCG64, which no version of NumPy may change, as it may the methods of its Generator
    and as PyTorch may its own.
    """
    import numpy as np
    import torch

    keys = np.random.PCG64(derive(seed, dataset.drawn_as, purpose, label)).random_raw(length)
    return torch.from_numpy(np.argsort(keys, kind="stable").astype(np.int64))
