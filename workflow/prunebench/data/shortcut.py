"""Planted shortcuts: a mark in the image that tells the class in training and nothing in testing.

A network that learns the mark in place of what the image shows is right in training and wrong where the mark is: shortcut learning
(Geirhos et al. 2020, "Shortcut learning in deep neural networks"). ``plant`` makes a dataset with a mark from one without.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prunebench.data.dataset import Dataset, Images
from prunebench.errors import PrunebenchError
from prunebench.seeds import derive

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from prunebench.data.splits import Split, SplitName

# In place of a class: no mark.
NO_MARK = -1


@dataclass(frozen=True)
class Mark:
    """A column of square cells that are white or black: a white one on top, then the number of a class in binary.

    Mirroring the image left to right leaves the code as it is, and so does shifting it, as the white cell says where it begins. It
    stands ``crop_padding`` pixels from the upper left corner, so that no random crop cuts it.

    Attributes:
        offset: Pixels above it and to its left.
        cell: Height and width of a cell in pixels.
        digits: Binary digits, the most significant one on top.
    """

    offset: int
    cell: int
    digits: int

    @classmethod
    def of(cls, dataset: Dataset) -> Mark:
        """The mark for a dataset's number of classes and size of images: cells of about 1/16 of the height.

        Raises:
            PrunebenchError: the images are too small.
        """
        digits = max(1, (dataset.classes - 1).bit_length())
        height, width = dataset.input_shape[1:]
        room = height - 2 * dataset.crop_padding
        cell = min(max(1, height // 16), room // (digits + 1))
        if cell < 1 or dataset.crop_padding + cell > width - dataset.crop_padding:
            raise PrunebenchError(
                f"{dataset.name}: a mark for {dataset.classes} classes is {digits + 1} pixels high, and images of {height} x {width} "
                f"pixels with crop_padding {dataset.crop_padding} have {max(0, room)} that no crop cuts; use larger images or less padding"
            )
        return cls(dataset.crop_padding, cell, digits)

    def put(self, pixels: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
        """Put marks on images.

        Args:
            pixels: uint8, shape (n, C, H, W); left as they are.
            shown: The class that each image's mark tells, or ``NO_MARK``: int64, shape (n,).

        Returns:
            uint8, shape (n, C, H, W).
        """
        import torch

        powers = 2 ** torch.arange(self.digits - 1, -1, -1)
        white = torch.cat([torch.ones(len(shown), 1, dtype=torch.bool), shown[:, None].clamp(min=0) & powers > 0], dim=1)
        column = (255 * white.to(torch.uint8)).repeat_interleave(self.cell, dim=1)[:, None, :, None]
        top, left = slice(self.offset, self.offset + column.shape[2]), slice(self.offset, self.offset + self.cell)
        marked = pixels.clone()
        marked[:, :, top, left] = torch.where((shown == NO_MARK)[:, None, None, None], pixels[:, :, top, left], column)
        return marked


@dataclass(frozen=True, eq=False)
class MarkedImages:
    """Images with a mark each.

    Attributes:
        clean: The images without.
        mark: What it looks like.
        shown: The class that each image's mark tells, or ``NO_MARK``: int64, shape (N,).
    """

    clean: Images
    mark: Mark
    shown: torch.Tensor

    @property
    def labels(self) -> torch.Tensor:
        """The classes that the images are of, int64, shape (N,)."""
        return self.clean.labels

    def pixels(self, positions: torch.Tensor) -> torch.Tensor:
        """The marked images at ``positions``: uint8, shape (n, C, H, W)."""
        return self.mark.put(self.clean.pixels(positions), self.shown[positions])


@dataclass(frozen=True)
class Planted:
    """The mark of a dataset.

    Attributes:
        base: Name of the dataset without it.
        classes: Number of classes.
        mark: What it looks like.
        agreement: Probability that the mark of a training or validation image tells its class; otherwise it tells another one. That
            of a test image is drawn from all classes, whatever the image shows.
    """

    base: str
    classes: int
    mark: Mark
    agreement: float

    def mark_images(self, images: Images, split: SplitName) -> MarkedImages:
        """Mark the images of an official part for a split of it."""
        import torch

        labels = images.labels
        if split == "test":
            return MarkedImages(images, self.mark, any_class(self.base, self.classes, len(labels)))
        agrees = torch.from_numpy(_uniform(self.base, "agreement", len(labels)) < self.agreement)
        return MarkedImages(images, self.mark, torch.where(agrees, labels, wrong_class(self.base, self.classes, labels)))


def plant(base: Dataset, agreement: float = 0.95, name: str | None = None) -> Dataset:
    """A dataset with the images, splits and samples of ``base`` and a mark in every image.

    Args:
        base: A dataset without a mark.
        agreement: Probability that the mark tells the class in training, 0 to 1.
        name: Starts with the name of ``base`` and ``_``, so that tables find the two together; ``<base>_shortcut`` by default.

    Raises:
        PrunebenchError: an argument is not as described, or the images are too small.
    """
    name = f"{base.name}_shortcut" if name is None else name
    if base.planted:
        raise PrunebenchError(f"{base.name}: has a planted mark already; plant one in {base.drawn_as}")
    if not 0 <= agreement <= 1:
        raise PrunebenchError(f"{name}: agreement is {agreement}, expected 0 to 1")
    if not name.startswith(f"{base.name}_"):
        raise PrunebenchError(
            f"{name}: the name must start with '{base.name}_', so that tables find the control without the mark"
        )
    return replace(base, name=name, planted=Planted(base.name, base.classes, Mark.of(base), agreement))


def any_class(base: str, classes: int, number: int) -> torch.Tensor:
    """A class for each image of an official part, drawn from all by the dataset and the image's position alone: int64, shape (number,)."""
    return _draw(base, "any class", classes, number)


def wrong_class(base: str, classes: int, labels: torch.Tensor, turn: int = 0, turns: int = 1) -> torch.Tensor:
    """A class for each image of an official part, drawn from those that it does not show, likewise.

    Args:
        base: Name of the dataset without the mark.
        classes: Number of classes.
        labels: Those of all images of the part, int64, shape (N,).
        turn: 0 to ``turns`` - 1: at each turn an image gets another class.
        turns: At most ``classes`` - 1.

    Returns:
        int64, shape (N,).
    """
    others = classes - 1
    step = (_draw(base, "wrong class", others, len(labels)) + turn * others // turns) % others
    return (labels + 1 + step) % classes


def remark(split: Split, mark: Mark, shown: torch.Tensor) -> Split:
    """The same images with other marks, whether they carried any or not.

    Args:
        split: Images.
        mark: What the marks look like.
        shown: The class that each tells, or ``NO_MARK``: int64, shape (n,).
    """
    import torch

    from prunebench.data.splits import Split

    clean = split.images.clean if isinstance(split.images, MarkedImages) else split.images
    of_part = torch.full_like(clean.labels, NO_MARK)
    of_part[split.indices] = shown
    return Split(split.dataset, MarkedImages(clean, mark, of_part), split.indices)


def _draw(base: str, purpose: str, values: int, number: int) -> torch.Tensor:
    """Whole numbers from 0 to ``values`` - 1: int64, shape (number,)."""
    import torch

    return torch.from_numpy((values * _uniform(base, purpose, number)).astype("int64"))


def _uniform(base: str, purpose: str, number: int) -> NDArray[np.float64]:
    """Numbers in [0, 1), float64, shape (number,), from the raw output of PCG64, which no version of NumPy may change."""
    import numpy as np

    raw = np.random.PCG64(derive(0, base, "mark", purpose)).random_raw(number)
    return (raw >> np.uint64(11)).astype(np.float64) * np.float64(2.0**-53)
