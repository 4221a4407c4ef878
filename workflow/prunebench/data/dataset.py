"""What a dataset is: the description that the workflow reads, and the images that its ``load`` gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from prunebench.errors import PrunebenchError

if TYPE_CHECKING:
    import torch

    from prunebench.data.shortcut import Planted

Part = Literal["train", "test", "all"]


class Images(Protocol):
    """The labelled images of one official part, in their official order."""

    @property
    def labels(self) -> torch.Tensor:
        """Classes 0, 1, ..., int64 on the CPU, shape (N,)."""
        ...

    def pixels(self, positions: torch.Tensor) -> torch.Tensor:
        """The images at ``positions`` (int64 on the CPU, shape (n,)) as uint8, shape (n, C, H, W)."""
        ...


@dataclass(frozen=True, eq=False)
class ResidentImages:
    """Images that are held in memory.

    Attributes:
        tensor: uint8, shape (N, C, H, W).
        labels: int64, shape (N,).
    """

    tensor: torch.Tensor
    labels: torch.Tensor

    def pixels(self, positions: torch.Tensor) -> torch.Tensor:
        """The images at ``positions``: uint8, shape (n, C, H, W)."""
        return self.tensor[positions]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A classification dataset. A file that defines one, called ``DATASET``, is all that it takes to add one.

    Attributes:
        name: How the config and the paths call it: letters, digits, ``_`` and ``-``.
        input_shape: (channels, height, width) of the images that ``load`` gives.
        classes: Number of classes.
        crop_padding: Augmentation: pixels of zeros around the image before a random crop of its size; 0 for no crop.
        flip: Augmentation: whether half of the images are mirrored left to right.
        load: ``load(folder, part, download)`` reads one official part from ``folder``, without opening another part's
            files, and downloads only what is missing and only if ``download`` is true. A ``FileNotFoundError`` that it
            raises becomes an error with ``files`` and ``help``.
        help: How to get the data, the end of every error about it.
        folder: Folder under the data root, empty for the root itself.
        files: What each part needs, relative to ``folder``, as errors name it.
        official_test: Whether there is an official test part. If not, ``load`` is asked for the part ``"all"`` and a
            test split is cut from it.
        channel_statistics: Mean and standard deviation of each channel in [0, 1] where they are a convention;
            otherwise they are measured on the training split.
        planted: The mark that its images carry (``prunebench.data.shortcut.plant``), or None.
    """

    name: str
    input_shape: tuple[int, int, int]
    classes: int
    crop_padding: int
    flip: bool
    load: Callable[[Path, Part, bool], Images]
    help: str
    folder: str = ""
    files: Mapping[Part, tuple[str, ...]] = field(default_factory=dict)
    official_test: bool = True
    channel_statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    planted: Planted | None = None

    @property
    def drawn_as(self) -> str:
        """The name by which splits and samples are drawn: a dataset with a planted mark has those of the one without."""
        return self.planted.base if self.planted else self.name

    def read(self, root: Path, part: Part, download: bool = False) -> Images:
        """Read one official part and check that it is what this description promises.

        Args:
            root: The data root, under which every dataset has its ``folder``.
            part: The official part.
            download: Whether missing files may be downloaded.

        Raises:
            PrunebenchError: files are missing, corrupt or unreadable, or hold other images than described.
        """
        import torch

        folder = root / self.folder
        try:
            images = self.load(folder, part, download)
        except FileNotFoundError as error:
            raise self.unusable(folder, part, missing=[str(error.filename or error)]) from error
        except OSError as error:
            raise PrunebenchError(f"{self.name}: {folder}: cannot be read: {error}. {self.help}") from error
        labels = images.labels
        if labels.dtype != torch.int64 or labels.ndim != 1 or not len(labels):
            raise PrunebenchError(
                f"{self.name}: labels must be int64, one for each image, not {labels.dtype}{list(labels.shape)}"
            )
        if int(labels.min()) < 0 or int(labels.max()) >= self.classes:
            raise PrunebenchError(
                f"{self.name}: {folder}: labels from {int(labels.min())} to {int(labels.max())} in part '{part}', "
                f"expected 0 to {self.classes - 1} ({self.classes} classes)"
            )
        if isinstance(images, ResidentImages) and len(images.tensor) != len(labels):
            raise PrunebenchError(f"{self.name}: {folder}: {len(images.tensor)} images but {len(labels)} labels in part '{part}'")
        first = images.pixels(torch.zeros(1, dtype=torch.int64))
        if first.dtype != torch.uint8 or tuple(first.shape[1:]) != tuple(self.input_shape):
            raise PrunebenchError(
                f"{self.name}: {folder}: images are {first.dtype}{list(first.shape[1:])}, "
                f"expected torch.uint8{list(self.input_shape)}"
            )
        return images

    def unusable(
        self, folder: Path, part: Part, missing: list[str] | None = None, corrupt: list[str] | None = None
    ) -> PrunebenchError:
        """The error that says which files of ``part`` are missing or corrupt, and how to get them."""
        problems = [f"{what} {', '.join(names)}" for what, names in (("missing", missing), ("corrupt", corrupt)) if names]
        expected = ", ".join(self.files.get(part, ()))
        repair = " Delete what is corrupt." if corrupt else ""
        return PrunebenchError(f"{self.name}: {folder}: {'; '.join(problems)}. Expected there: {expected}.{repair} {self.help}")
