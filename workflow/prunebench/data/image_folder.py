"""Images in one folder a class, decoded when they are asked for: ImageNet, and anything laid out like it."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.data.dataset import Dataset, Part
from prunebench.errors import PrunebenchError
from prunebench.torchvision_import import import_torchvision

if TYPE_CHECKING:
    import torch

FOLDERS: dict[Part, str] = {"train": "train", "test": "val"}


@dataclass(frozen=True, eq=False)
class FolderImages:
    """Image files, decoded by a pool of threads at each access.

    Attributes:
        paths: The files.
        labels: int64, shape (N,).
        resize: What the shorter side is scaled to (bilinear, antialiased) before the central square is cut out.
        crop: Side of that square.
    """

    paths: tuple[str, ...]
    labels: torch.Tensor
    resize: int
    crop: int

    def pixels(self, positions: torch.Tensor) -> torch.Tensor:
        """The images at ``positions``: uint8, shape (n, 3, crop, crop).

        Raises:
            PrunebenchError: a file is gone or is not an image.
        """
        import torch

        if not len(positions):
            return torch.empty((0, 3, self.crop, self.crop), dtype=torch.uint8)
        # Pillow decodes and scales without holding Python's lock.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        with ThreadPoolExecutor(cores) as pool:
            return torch.stack(list(pool.map(self._decode, positions.tolist())))

    def _decode(self, position: int) -> torch.Tensor:
        from PIL import Image
        from torchvision.transforms import functional

        path = self.paths[position]
        try:
            with Image.open(path) as file:
                image = functional.center_crop(functional.resize(file.convert("RGB"), self.resize), self.crop)
        except (
            OSError,
            SyntaxError,
            ValueError,
            Image.DecompressionBombError,
        ) as error:  # as Pillow's plugins raise them
            raise PrunebenchError(f"{path}: not a readable image ({error}); put it there again") from error
        pixels: torch.Tensor = functional.pil_to_tensor(image)
        return pixels


def load_image_folder(dataset: Dataset, folder: Path, part: Part, *, resize: int, crop: int) -> FolderImages:
    """List the images of ``<folder>/train`` or ``<folder>/val`` (the test part), which have one folder for each class.

    Classes are numbered in the alphabetical order of their folders; no image is opened.

    Raises:
        PrunebenchError: a folder is missing or empty, or there are not as many classes as ``dataset`` has.
    """
    import_torchvision()
    import torch
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

    place = folder / FOLDERS[part]
    if not place.is_dir():
        raise dataset.unusable(folder, part, missing=[FOLDERS[part]])
    classes = _classes(place)
    if len(classes) != dataset.classes:
        raise PrunebenchError(
            f"{dataset.name}: {place}: {len(classes)} class folders, expected {dataset.classes}. {dataset.help}"
        )
    other = folder / FOLDERS["train"]
    if part == "test" and other.is_dir() and (differing := sorted(set(classes) ^ set(_classes(other)))):
        raise PrunebenchError(
            f"{dataset.name}: {place} and {other} have different class folders (among them {differing[0]}), "
            f"so their classes would be numbered differently. {dataset.help}"
        )
    try:
        found = make_dataset(str(place), {name: label for label, name in enumerate(classes)}, IMG_EXTENSIONS)
    except FileNotFoundError as error:  # names the classes without an image
        raise PrunebenchError(f"{dataset.name}: {place}: {error}. {dataset.help}") from error
    paths, labels = zip(*found, strict=True)
    return FolderImages(paths, torch.tensor(labels), resize, crop)


def _classes(place: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(place) if entry.is_dir() and not entry.name.startswith("."))
