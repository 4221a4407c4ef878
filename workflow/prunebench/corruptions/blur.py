"""Blur: defocus, glass, motion, zoom and gaussian; conventions as in ``noise``."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from prunebench.corruptions.draws import Draws

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


def smooth(images: Array, deviation: float, mode: str = "nearest", truncate: float = 4.0) -> Array:
    """Gaussian blur of each image and channel; shape (n, height, width, ...)."""
    sigma = (0.0, deviation, deviation, *(0.0 for _ in images.shape[3:]))
    blurred: Array = ndimage.gaussian_filter(images, sigma, mode=mode, truncate=truncate)
    return blurred


def gaussian_blur(images: Array, draws: Draws, deviation: float) -> Array:
    """Gaussian blur with a standard deviation in pixels."""
    return smooth(images, deviation)


def defocus_blur(images: Array, draws: Draws, constant: tuple[float, float]) -> Array:
    """Blur with a disk; ``constant``: its radius in pixels and the standard deviation of the 3 x 3 blur of its edge."""
    radius, edge = constant
    axis = np.arange(-3, 4)
    disk = (axis[:, None] ** 2 + axis[None, :] ** 2 <= radius**2).astype(float)
    profile = np.exp(-(np.arange(-1, 2) ** 2) / (2 * edge**2))
    profile /= profile.sum()
    kernel = ndimage.convolve(disk / disk.sum(), np.outer(profile, profile), mode="constant")
    blurred: Array = ndimage.correlate(images, kernel[None, :, :, None], mode="mirror")
    return blurred


def glass_blur(images: Array, draws: Draws, constant: tuple[float, int, int]) -> Array:
    """Blur, let pixels take the value of a neighbour, blur; ``constant``: deviation in pixels, reach in pixels, repetitions.

    The neighbour is up to ``reach`` above and left, drawn for each pixel. The paper speaks of swapping two pixels; the assignment in
    make_cifar_c.py copies one over the other (it swaps views of an array), so that is what the published images hold.
    """
    deviation, reach, repetitions = constant
    number, height, width, _ = images.shape
    levels = np.floor(smooth(images, deviation) * 255 + 1e-6)
    rows = np.arange(height - reach, reach, -1)
    columns = np.arange(width - reach, reach, -1)
    image = np.arange(number)[:, None, None]
    for _ in range(repetitions):
        steps = draws.integers(rows.size, columns.size, 2, low=-reach, high=reach)
        # From the last pixel to the first, so that a neighbour above or left still has its own value.
        source = levels.copy()
        at_row = np.minimum(rows, height - 1)[:, None]
        at_column = np.minimum(columns, width - 1)[None, :]
        levels[:, at_row, at_column] = source[image, rows[:, None] + steps[..., 1], columns[None, :] + steps[..., 0]]
    return smooth(levels / 255, deviation)


def motion_blur(images: Array, draws: Draws, constant: tuple[float, float]) -> Array:
    """Blur along a line at an angle between -45 and 45 degrees; ``constant``: radius and deviation in pixels."""
    angles = draws.uniform(low=-45, high=45)
    return np.rint(along_line(images, *constant, angles) * 255) / 255


def along_line(images: Array, radius: float, deviation: float, angles: Array) -> Array:
    """ImageMagick's motion blur: a one-sided Gaussian along a line of nearest pixels; beyond its edge an image is continued.

    Args:
        images: Shape (n, height, width, channels).
        radius: Half the length of the line in pixels.
        deviation: Standard deviation in pixels.
        angles: In degrees, clockwise from the right, shape (n,).
    """
    number, height, width, _ = images.shape
    length = 2 * math.ceil(radius) + 1
    weights = np.exp(-(np.arange(length) ** 2) / (2 * deviation**2))
    weights /= weights.sum()
    across, down = np.cos(np.deg2rad(angles)), np.sin(np.deg2rad(angles))
    image = np.arange(number)[:, None, None]
    blurred = np.zeros_like(images)
    for step, weight in enumerate(weights):
        columns = np.arange(width) + np.ceil(step * across - 0.5).astype(np.int64)[:, None]
        rows = np.arange(height) + np.ceil(step * down - 0.5).astype(np.int64)[:, None]
        blurred += weight * images[image, rows.clip(0, height - 1)[:, :, None], columns.clip(0, width - 1)[:, None, :]]
    return blurred


@cache
def zoom_matrix(factor: float, side: int) -> Array:
    """What magnifies the middle of an image by ``factor``, by linear interpolation: ``m @ image @ m.T``; shape (side, side)."""
    kept = math.ceil(side / factor)
    top = (side - kept) // 2
    rows: Array = ndimage.zoom(np.eye(side)[top : top + kept], (factor, 1), order=1)
    spare = (len(rows) - side) // 2
    return rows[spare : spare + side]


def zoom_blur(images: Array, draws: Draws, factors: Array) -> Array:
    """Mean of the image and its magnifications by ``factors``."""
    total = images.copy()
    # Channels first, for products of matrices.
    planes = images.transpose(0, 3, 1, 2)
    for factor in factors:
        matrix = zoom_matrix(float(factor), images.shape[1])
        total += (matrix @ planes @ matrix.T).transpose(0, 2, 3, 1)
    return total / (len(factors) + 1)
