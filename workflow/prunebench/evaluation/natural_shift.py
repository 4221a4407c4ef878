"""Accuracy on new test sets of CIFAR-10's ten classes: CIFAR-10.1 and CIFAR-10.2, which were collected years later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator

from prunebench.config import Section
from prunebench.errors import PrunebenchError
from prunebench.evaluation import Evaluation, Subject, Values

if TYPE_CHECKING:
    import torch

    from prunebench.data import Dataset, Split

Name = Literal["cifar10_1_v4", "cifar10_1_v6", "cifar10_2"]
# Files of each set, images first, the folders below the data root where they are looked for, and where they are from.
FILES: dict[Name, tuple[str, ...]] = {
    "cifar10_1_v4": ("cifar10.1_v4_data.npy", "cifar10.1_v4_labels.npy"),
    "cifar10_1_v6": ("cifar10.1_v6_data.npy", "cifar10.1_v6_labels.npy"),
    "cifar10_2": ("cifar102_test.npz",),
}
FOLDERS: dict[Name, tuple[str, ...]] = {
    "cifar10_1_v4": ("CIFAR-10.1", "CIFAR-10.1/datasets", "."),
    "cifar10_1_v6": ("CIFAR-10.1", "CIFAR-10.1/datasets", "."),
    "cifar10_2": ("CIFAR-10.2", "cifar-10.2", "."),
}
PAGES: dict[Name, str] = {
    "cifar10_1_v4": "https://github.com/modestyachts/CIFAR-10.1 (datasets)",
    "cifar10_1_v6": "https://github.com/modestyachts/CIFAR-10.1 (datasets)",
    "cifar10_2": "https://github.com/modestyachts/cifar-10.2",
}


class Options(Section):
    """Which test sets."""

    sets: list[Name] | None = None
    """`cifar10_1_v6`, `cifar10_1_v4`, `cifar10_2`; by default those whose files are in the data root, at least one."""

    @field_validator("sets")
    @classmethod
    def _distinct(cls, value: list[Name] | None) -> list[Name] | None:
        if value is not None and (not value or len(set(value)) != len(value)):
            raise ValueError("one or more, each once")
        return value


def unsuited(dataset: Dataset) -> str | None:
    """Why the new test sets do not fit a dataset, or None."""
    return None if dataset.name == "cifar10" else "CIFAR-10.1 and CIFAR-10.2 have the classes and the image size of cifar10"


def inputs(options: Mapping[str, Any], dataset: Dataset, data_root: Path) -> list[Path]:
    """Files of the sets in every folder where they are looked for: by default those that are there are evaluated."""
    names = Options.model_validate(dict(options)).sets or list(FILES)
    return [data_root / folder / file for name in names for folder in FOLDERS[name] for file in FILES[name]]


def find(root: Path, name: Name) -> list[Path] | None:
    """The files of a set, all in one folder, or None."""
    for folder in FOLDERS[name]:
        paths = [root / folder / file for file in FILES[name]]
        if all(path.is_file() for path in paths):
            return paths
    return None


def missing(root: Path, names: Iterable[Name]) -> str:
    """What is expected where, for an error."""
    places = [f"{' and '.join(FILES[name])} in {root / FOLDERS[name][0]}, from {PAGES[name]}" for name in names]
    return "; ".join(places)


def load(root: Path, name: Name) -> tuple[torch.Tensor, torch.Tensor]:
    """Images, uint8 of shape (n, 3, 32, 32), and labels, int64 of shape (n,).

    Nothing is unpickled.

    Raises:
        PrunebenchError: files are missing, corrupt or hold something else.
    """
    import numpy as np
    import torch

    paths = find(root, name)
    if paths is None:
        raise PrunebenchError(f"natural_shift: {name} is not in the data root: expected {missing(root, (name,))}")
    try:
        if len(paths) == 1:
            with np.load(paths[0], allow_pickle=False) as archive:
                images, labels = archive["images"], archive["labels"]
        else:
            images, labels = (np.load(path, allow_pickle=False) for path in paths)
    except Exception as error:  # whatever NumPy and zipfile raise for a file that is cut off or another
        raise PrunebenchError(f"natural_shift: {paths[0].parent}: {name} cannot be read ({error}); get its files again") from None
    right = images.dtype == np.uint8 and images.shape == (len(labels), 32, 32, 3) and labels.ndim == 1 and len(labels) > 0
    if not right or labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() > 9:
        raise PrunebenchError(
            f"natural_shift: {paths[0]}: {images.dtype} images of {images.shape} with {labels.dtype} labels of {labels.shape}, "
            "expected uint8 of (n, 32, 32, 3) with whole numbers 0 to 9; get the files again"
        )
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels.astype(np.int64))


def measure(subject: Subject) -> Values:
    """Classify every image of each set; see ``EVALUATION.quantities``.

    Raises:
        PrunebenchError: the dataset is another than CIFAR-10, or a set's files are missing or corrupt.
    """
    import torch

    from prunebench.data import ResidentImages, Split
    from prunebench.evaluation.accuracy import classify

    options = Options.model_validate(dict(subject.options))
    test = subject.test()
    if reason := unsuited(test.dataset):
        raise PrunebenchError(f"natural_shift: {test.dataset.name}: {reason}")
    names = options.sets or [name for name in FILES if find(subject.data_root, name)]
    if not names:
        raise PrunebenchError(
            f"natural_shift: no new test set is in the data root; expected any of: {missing(subject.data_root, FILES)}"
        )

    def accuracy(split: Split) -> float:
        return 100 * classify(subject.network, split, subject.device, subject.batch_size)[0] / len(split)

    official = accuracy(test)
    values = {"test_accuracy_percent": official}
    for name in names:
        images, labels = load(subject.data_root, name)
        found = accuracy(Split(test.dataset, ResidentImages(images, labels), torch.arange(len(labels))))
        values |= {f"{name}_accuracy_percent": found, f"{name}_gap_pp": official - found, f"{name}_images": len(labels)}
    return Values(values)


EVALUATION = Evaluation(
    "natural_shift",
    measure,
    per="network",
    needs_data=True,
    options=Options,
    unsuited=unsuited,
    inputs=inputs,
    quantities={
        "test_accuracy_percent": "Accuracy on the official test images",
        "<set>_accuracy_percent": "Accuracy on all images of a new test set: cifar10_1_v4, cifar10_1_v6, cifar10_2",
        "<set>_gap_pp": "Accuracy on the official test images less that on the new ones, in percentage points",
        "<set>_images": "Number of new images",
    },
    source="CIFAR-10.1: Recht et al. 2018, arXiv:1806.00451; CIFAR-10.2: Lu et al. 2020",
)
