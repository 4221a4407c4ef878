"""Weather: snow, frost, fog, brightness and spatter; conventions as in ``noise``."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from scipy import ndimage

from prunebench.corruptions.blur import along_line, smooth, zoom_matrix
from prunebench.corruptions.draws import Draws
from prunebench.errors import PrunebenchError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

# The weights of red, green and blue in a grey level (ITU-R BT.601).
_GREY = np.array([0.299, 0.587, 0.114])
_WATER = np.array([175, 238, 238]) / 255
_MUD = np.array([63, 42, 20]) / 255
# make_cifar_c.py draws from the first five of its six pictures.
FROST_PICTURES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
FROST_HELP = (
    'frost needs the pictures of frost that come with the package imagecorruptions: pip install "imagecorruptions>=1.1.2"; or put the '
    "images of CIFAR-10-C in the data root; or leave frost out of the option `corruptions`"
)


def brightness(images: Array, draws: Draws, added: float) -> Array:
    """Add to the value of hue, saturation, value."""
    colours = rgb_to_hsv(images)
    colours[..., 2] = np.clip(colours[..., 2] + added, 0, 1)
    brighter: Array = hsv_to_rgb(colours)
    return brighter


def fog(images: Array, draws: Draws, constant: tuple[float, float]) -> Array:
    """Add a cloud and darken by as much; ``constant``: thickness, and how fast the cloud's detail fades."""
    thickness, decay = constant
    brightest = images.max(axis=(1, 2, 3), keepdims=True)
    clouds = cloud(draws, images.shape[1], decay)[..., None]
    foggy: Array = (images + thickness * clouds) * brightest / (brightest + thickness)
    return foggy


def cloud(draws: Draws, side: int, decay: float) -> Array:
    """A plasma fractal in [0, 1] that repeats itself, by the diamond-square algorithm; shape (n, side, side).

    Args:
        draws: The images' random numbers.
        side: A power of two.
        decay: What the amplitude is divided by from each scale to the next finer one.
    """
    heights = np.zeros((len(draws), side, side))
    amplitude, step = 100.0, side
    while step >= 2:
        half, number = step // 2, side // step

        def noise(amplitude: float = amplitude, number: int = number) -> Array:
            return amplitude * draws.uniform(number, number, low=-amplitude, high=amplitude)

        corners = heights[:, ::step, ::step]
        below, right = np.roll(corners, -1, axis=1), np.roll(corners, -1, axis=2)
        centres = (corners + below + right + np.roll(below, -1, axis=2)) / 4 + noise()
        heights[:, half::step, half::step] = centres
        heights[:, ::step, half::step] = (corners + right + centres + np.roll(centres, 1, axis=1)) / 4 + noise()
        heights[:, half::step, ::step] = (corners + below + centres + np.roll(centres, 1, axis=2)) / 4 + noise()
        step, amplitude = half, amplitude / decay
    heights -= heights.min(axis=(1, 2), keepdims=True)
    heights /= heights.max(axis=(1, 2), keepdims=True)
    return heights


def snow(images: Array, draws: Draws, constant: tuple[float, ...]) -> Array:
    """Whiten, then let flakes fall.

    ``constant``: mean and deviation of the normal numbers that flakes are made from, how much they are magnified, the least that is
    a flake, radius and deviation in pixels of their motion, and the weight of the image as it was.
    """
    mean, deviation, magnified, least, radius, spread, kept = constant
    side = images.shape[1]
    matrix = zoom_matrix(magnified, side)
    flakes = matrix @ draws.normal(side, side, mean=mean, deviation=deviation) @ matrix.T
    flakes = np.floor(np.clip(np.where(flakes < least, 0, flakes), 0, 1) * 255) / 255
    angles = draws.uniform(low=-135, high=-45)
    flakes = np.rint(along_line(flakes[..., None], radius, spread, angles) * 255) / 255
    grey = (images @ _GREY)[..., None]
    whiter = kept * images + (1 - kept) * np.maximum(images, grey * 1.5 + 0.5)
    snowy: Array = whiter + flakes + np.rot90(flakes, 2, axes=(1, 2))
    return snowy


@cache
def frost_pictures() -> tuple[Array, ...]:
    """The pictures of frost at a fifth of their size: bytes, shape (height, width, 3) each.

    Raises:
        PrunebenchError: they are not installed.
    """
    from PIL import Image

    # The package itself is not imported: only its pictures are wanted, not what it needs to run.
    package = find_spec("imagecorruptions")
    folders = [Path(folder) / "frost" for folder in (package.submodule_search_locations or [])] if package else []
    folder = next((folder for folder in folders if all((folder / name).is_file() for name in FROST_PICTURES)), None)
    if folder is None:
        raise PrunebenchError(f"corruptions: {FROST_HELP}")
    pictures = []
    for name in FROST_PICTURES:
        with Image.open(folder / name) as picture:
            # Linear interpolation at exactly a fifth meets the middle one of each five pixels.
            pictures.append(np.array(picture.convert("RGB"))[2::5, 2::5])
    return tuple(pictures)


def frost(images: Array, draws: Draws, constant: tuple[float, float]) -> Array:
    """Lay a piece of one of five pictures of frost over the image; ``constant``: weights of image and frost."""
    pictures = frost_pictures()
    side = images.shape[1]
    which, place = draws.integers(low=0, high=len(pictures)), draws.uniform(2)
    pieces = np.empty_like(images)
    for number, (picture, (down, across)) in enumerate(zip(which, place, strict=True)):
        height, width, _ = pictures[picture].shape
        top, left = int(down * (height - side)), int(across * (width - side))
        pieces[number] = pictures[picture][top : top + side, left : left + side] / 255
    return constant[0] * images + constant[1] * pieces


def spatter(images: Array, draws: Draws, constant: tuple[float, ...]) -> Array:
    """Drops of water, or splashes of mud.

    ``constant``: mean and deviation of the normal numbers that drops are made from, the deviation in pixels of their blur, the least
    that is a drop, for water its opacity and for mud the deviation in pixels of its edge's blur, and 0 for water, 1 for mud.
    """
    mean, deviation, blur, least, strength, mud = constant
    liquid = smooth(draws.normal(*images.shape[1:3], mean=mean, deviation=deviation), blur)
    if mud:
        cover = smooth((liquid > least).astype(float), strength)
        cover = np.where(cover < 0.8, 0, cover)[..., None]
        return images * (1 - cover) + _MUD * cover
    levels = np.floor(np.where(liquid < least, 0, liquid) * 255).clip(0, 255)
    sheen = levels * np.stack([_relief(each) for each in levels])
    strongest = sheen.max(axis=(1, 2), keepdims=True)
    # An image that no drop fell on stays as it is.
    wet: Array = images + strength * (sheen / np.where(strongest > 0, strongest, 1))[..., None] * _WATER
    return wet


def _relief(drops: Array) -> Array:
    """Light and shade of drops: the distance from their edges, equalised and embossed; levels 0 to 255, shape (height, width)."""
    edges = outlines(drops, 50, 150)
    distance = np.minimum(ndimage.distance_transform_edt(~edges), 20) if edges.any() else np.full(drops.shape, 20.0)
    distance = np.floor(ndimage.uniform_filter(distance, 3, mode="mirror") + 1e-6).astype(np.int64)
    counts = np.bincount(distance.ravel(), minlength=256)
    lowest = distance.min()
    above = max(int(counts.sum() - counts[lowest]), 1)
    equalised = np.rint((np.cumsum(counts) - counts[lowest]) * 255 / above)[distance]
    emboss = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    embossed = np.clip(ndimage.correlate(equalised, emboss, mode="mirror"), 0, 255)
    blurred: Array = np.rint(ndimage.uniform_filter(embossed, 3, mode="mirror"))
    return blurred


def outlines(image: Array, low: float, high: float) -> NDArray[np.bool_]:
    """Canny's edges (1986) as OpenCV finds them: 3 x 3 Sobel, sum of absolute derivatives, two thresholds.

    Args:
        image: Levels 0 to 255, shape (height, width).
        low: Edges that touch a strong one go on down to this.
        high: Edges above it are strong.

    Returns:
        bool, shape (height, width).
    """
    across = ndimage.sobel(image, axis=1, mode="nearest")
    down = ndimage.sobel(image, axis=0, mode="nearest")
    strength = np.abs(across) + np.abs(down)
    padded = np.pad(strength, 1)
    height, width = image.shape

    def beside(rows: int, columns: int) -> Array:
        return padded[1 + rows : 1 + rows + height, 1 + columns : 1 + columns + width]

    # An edge is where the strength is highest along the gradient: across, down, or on one of the diagonals.
    slope = np.tan(np.pi / 8)
    flat = np.abs(down) < slope * np.abs(across)
    steep = np.abs(down) > (slope + 2) * np.abs(across)
    rising = across * down < 0
    highest = np.where(
        flat,
        (strength > beside(0, -1)) & (strength >= beside(0, 1)),
        np.where(
            steep,
            (strength > beside(-1, 0)) & (strength >= beside(1, 0)),
            np.where(
                rising,
                (strength > beside(-1, 1)) & (strength > beside(1, -1)),
                (strength > beside(-1, -1)) & (strength > beside(1, 1)),
            ),
        ),
    )
    candidates = highest & (strength > low)
    strong = candidates & (strength > high)
    # Edges go on to any of the eight neighbours.
    found: NDArray[np.bool_] = ndimage.binary_propagation(strong, structure=np.ones((3, 3)), mask=candidates)
    return found
