"""Noise: gaussian, shot, impulse and speckle.

Every corruption takes images in [0, 1], float64, shape (n, 32, 32, 3), the images' random numbers and CIFAR-C's constant for the
severity, and returns images of that shape; what is outside [0, 1] is cut off by the caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from prunebench.corruptions.draws import Draws

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


def gaussian_noise(images: Array, draws: Draws, deviation: float) -> Array:
    """Add normal noise."""
    return images + draws.normal(*images.shape[1:], deviation=deviation)


def speckle_noise(images: Array, draws: Draws, deviation: float) -> Array:
    """Add normal noise in proportion to each value."""
    return images * (1 + draws.normal(*images.shape[1:], deviation=deviation))


def shot_noise(images: Array, draws: Draws, photons: float) -> Array:
    """Count photons: Poisson numbers with the mean ``photons`` times each value, divided by ``photons``.

    Found by inverting the distribution function, of which the 256 levels of a byte need no more than 256.
    """
    levels = np.rint(images * 255).astype(np.uint8).ravel()
    uniform = draws.uniform(*images.shape[1:]).ravel()
    # Beyond ten standard deviations above the largest mean no number falls.
    counts = np.arange(int(photons + 10 * np.sqrt(photons) + 10))
    order = np.argsort(levels, kind="stable")
    starts = np.searchsorted(levels[order], np.arange(257))
    counted = np.empty(levels.size)
    for level in range(256):
        members = order[starts[level] : starts[level + 1]]
        distribution = stats.poisson.cdf(counts, photons * level / 255)
        counted[members] = np.searchsorted(distribution, uniform[members])
    return counted.reshape(images.shape) / photons


def impulse_noise(images: Array, draws: Draws, amount: float) -> Array:
    """Salt and pepper: with probability ``amount`` a value becomes 0 or 1, which are equally likely."""
    hit = draws.uniform(*images.shape[1:]) <= amount
    salt = draws.uniform(*images.shape[1:]) <= 0.5
    return np.where(hit, salt.astype(images.dtype), images)
