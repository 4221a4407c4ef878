"""Datasets, splits, samples and augmentation.

A dataset is one file that defines a ``DATASET``; this folder's files are the built-in ones. They are read when the
workflow is parsed, so neither they nor this module import torch, torchvision or scikit-learn at their top.
"""

from prunebench import plugins
from prunebench.data.dataset import Dataset, Images, Part, ResidentImages
from prunebench.data.splits import Split, SplitName, load_splits, normalisation, sample, some, to_unit

__all__ = [
    "Dataset",
    "Images",
    "Part",
    "ResidentImages",
    "Split",
    "SplitName",
    "find_dataset",
    "load_splits",
    "normalisation",
    "sample",
    "some",
    "to_unit",
]


def find_dataset(reference: str) -> Dataset:
    """The dataset that a name or the path of a Python file stands for."""
    return plugins.find(Dataset, "data", reference)
