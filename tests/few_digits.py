"""A dataset of a user's own, as the tests see it: the first 250 of scikit-learn's digits."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

from prunebench.data import digits
from prunebench.data.dataset import Part, ResidentImages


@cache
def _first(number: int) -> ResidentImages:
    every = digits.DATASET.load(Path(), "all", False)
    return ResidentImages(every.pixels(slice(number)), every.labels[:number])  # type: ignore[arg-type]


def _load(folder: Path, part: Part, download: bool) -> ResidentImages:
    return _first(250)


FEW_DIGITS = replace(digits.DATASET, name="few_digits", load=_load)
