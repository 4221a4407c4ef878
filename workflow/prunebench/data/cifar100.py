"""CIFAR-100 (Krizhevsky 2009): 50,000 training and 10,000 test images of 32 x 32 pixels in 100 classes."""

from __future__ import annotations

from pathlib import Path

from prunebench.data.cifar import load_cifar
from prunebench.data.dataset import Dataset, Part, ResidentImages


def load(folder: Path, part: Part, download: bool) -> ResidentImages:
    """Read one official part, with the 100 fine labels."""
    return load_cifar(DATASET, "CIFAR100", folder, part, download)


DATASET = Dataset(
    name="cifar100",
    input_shape=(3, 32, 32),
    classes=100,
    crop_padding=4,
    flip=True,
    load=load,
    help=(
        "Set data.download: true, or unpack cifar-100-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html "
        "in the data root."
    ),
    folder="cifar-100-python",
    files={"train": ("train", "meta"), "test": ("test", "meta")},
)
