"""CIFAR-10 (Krizhevsky 2009): 50,000 training and 10,000 test images of 32 x 32 pixels in 10 classes."""

from __future__ import annotations

from pathlib import Path

from prunebench.data.cifar import load_cifar
from prunebench.data.dataset import Dataset, Part, ResidentImages


def load(folder: Path, part: Part, download: bool) -> ResidentImages:
    """Read one official part."""
    return load_cifar(DATASET, "CIFAR10", folder, part, download)


DATASET = Dataset(
    name="cifar10",
    input_shape=(3, 32, 32),
    classes=10,
    crop_padding=4,
    flip=True,
    load=load,
    help=(
        "Set data.download: true, or unpack cifar-10-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html "
        "in the data root."
    ),
    folder="cifar-10-batches-py",
    files={
        "train": ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "batches.meta"),
        "test": ("test_batch", "batches.meta"),
    },
)
