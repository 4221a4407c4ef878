"""Random numbers of each image's own, the same on every machine and however many images are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from prunebench.seeds import derive

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Draws:
    """A stream of random numbers for each of n images.

    Made from the raw output of PCG64, which no version of NumPy may change, as it may the methods of its Generator.
    """

    def __init__(self, corruption: str, severity: int, images: Sequence[int]) -> None:
        """Start the streams that a corruption, a severity and the images' positions in the official test part stand for."""
        self._streams = [np.random.PCG64(derive(0, "corruption", corruption, severity, int(image))) for image in images]

    def __len__(self) -> int:
        return len(self._streams)

    def _raw(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Whole numbers 0 <= x < 2^53, shape (n, *shape)."""
        number = int(np.prod(shape, dtype=np.int64))
        drawn = [stream.random_raw(number) for stream in self._streams]
        return (np.array(drawn, dtype=np.uint64) >> np.uint64(11)).astype(np.float64).reshape(len(self), *shape)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> NDArray[np.float64]:
        """low <= x < high, shape (n, *shape)."""
        return low + (high - low) * (self._raw(shape) * 2.0**-53)

    def normal(self, *shape: int, mean: float = 0.0, deviation: float = 1.0) -> NDArray[np.float64]:
        """Normal numbers, shape (n, *shape)."""
        standard: NDArray[np.float64] = ndtri((self._raw(shape) + 0.5) * 2.0**-53)
        return mean + deviation * standard

    def integers(self, *shape: int, low: int, high: int) -> NDArray[np.int64]:
        """Whole numbers low <= x < high, shape (n, *shape)."""
        return np.floor(self.uniform(*shape, low=low, high=high)).astype(np.int64)
