"""Digital: contrast, elastic, pixelate, JPEG and saturate; conventions as in ``noise``."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from PIL import Image

from prunebench.corruptions.blur import smooth
from prunebench.corruptions.draws import Draws

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Indices = NDArray[np.int64]


def contrast(images: Array, draws: Draws, factor: float) -> Array:
    """Move every value towards its channel's mean."""
    means: Array = images.mean(axis=(1, 2), keepdims=True)
    return means + factor * (images - means)


def saturate(images: Array, draws: Draws, constant: tuple[float, float]) -> Array:
    """Multiply the saturation of hue, saturation, value by the first and add the second."""
    colours = rgb_to_hsv(images)
    colours[..., 1] = np.clip(colours[..., 1] * constant[0] + constant[1], 0, 1)
    changed: Array = hsv_to_rgb(colours)
    return changed


def jpeg_compression(images: Array, draws: Draws, quality: int) -> Array:
    """Compress as JPEG with Pillow's other defaults."""

    def compressed(picture: Image.Image) -> Image.Image:
        with BytesIO() as file:
            picture.save(file, "JPEG", quality=quality)
            with Image.open(file) as read:
                return read.convert("RGB")

    return _with_pillow(images, compressed)


def pixelate(images: Array, draws: Draws, factor: float) -> Array:
    """Make the image smaller by ``factor`` and large again, each pixel the mean of those it covers."""
    height, width = images.shape[1:3]
    small = (int(width * factor), int(height * factor))
    box = Image.Resampling.BOX
    return _with_pillow(images, lambda picture: picture.resize(small, box).resize((width, height), box))


def _with_pillow(images: Array, change: Callable[[Image.Image], Image.Image]) -> Array:
    levels = np.rint(images * 255).astype(np.uint8)
    return np.stack([np.asarray(change(Image.fromarray(each))) for each in levels]) / 255


def elastic_transform(images: Array, draws: Draws, constant: tuple[float, float, float]) -> Array:
    """Distort by a random affine map and then by random displacements.

    ``constant``, all in pixels: reach of the displacements, deviation of their blur, reach of the three points that set the affine map.
    """
    reach, blur, points = constant
    number, height, width, _ = images.shape
    centre, arm = height // 2, height // 3
    # Three corners of a square, as (x, y), and where each of them goes.
    corners = np.array([[centre + arm, centre + arm], [centre + arm, centre - arm], [centre - arm, centre - arm]], dtype=float)
    moved = corners + draws.uniform(3, 2, low=-points, high=points)
    back = np.linalg.solve(np.concatenate([moved, np.ones((number, 3, 1))], axis=2), corners)
    columns, rows = np.meshgrid(np.arange(width, dtype=float), np.arange(height, dtype=float))
    grid = np.stack([columns, rows, np.ones_like(columns)], axis=-1)
    source = np.einsum("hwk,nkc->nhwc", grid, back)
    turned = between(images, source[..., 1], source[..., 0], mirrored)

    def displacement() -> Array:
        return smooth(draws.uniform(height, width, low=-1, high=1), blur, mode="reflect", truncate=3) * reach

    across, down = displacement(), displacement()
    return between(turned, rows + down, columns + across, reflected)


def mirrored(index: Indices, length: int) -> Indices:
    """Continue beyond the edge without repeating it: 2 1 | 0 1 2 | 1 0."""
    index = np.mod(index, 2 * length - 2)
    return np.minimum(index, 2 * length - 2 - index)


def reflected(index: Indices, length: int) -> Indices:
    """Continue beyond the edge by repeating it: 1 0 | 0 1 2 | 2 1."""
    index = np.mod(index, 2 * length)
    return np.minimum(index, 2 * length - 1 - index)


def between(images: Array, rows: Array, columns: Array, beyond: Callable[[Indices, int], Indices]) -> Array:
    """Values between pixels, by linear interpolation.

    Args:
        images: Shape (n, height, width, channels).
        rows: Where to look, in pixels, shape (n, height, width).
        columns: Likewise.
        beyond: Where an index beyond the edge looks.
    """
    number, height, width, _ = images.shape
    image = np.arange(number)[:, None, None]
    top, left = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    down: Array = (rows - top)[..., None]
    right: Array = (columns - left)[..., None]

    def at(row: Indices, column: Indices) -> Array:
        found: Array = images[image, beyond(row, height), beyond(column, width)]
        return found

    upper = (1 - right) * at(top, left) + right * at(top, left + 1)
    lower = (1 - right) * at(top + 1, left) + right * at(top + 1, left + 1)
    return (1 - down) * upper + down * lower
