"""The 19 corruptions of CIFAR-10-C at five severities (Hendrycks and Dietterich 2019, arXiv:1903.12261).

The constants are those of the authors' make_cifar_c.py, which are milder than ImageNet-C's; packages of corruptions carry the latter.
The code is ours: for whole batches, with random numbers of each image's own, so that every network sees the same images. The random
numbers are not the authors', so the images are others of the same distribution, unless the published files are used (``store``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from prunebench.corruptions import blur, digital, noise, weather
from prunebench.corruptions.draws import Draws

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEVERITIES = (1, 2, 3, 4, 5)
SIDE = 32
Group = Literal["noise", "blur", "weather", "digital", "extra"]
GROUPS: tuple[Group, ...] = ("noise", "blur", "weather", "digital")


class Corruption(NamedTuple):
    """A corruption.

    Attributes:
        group: Its group among the 15 that the mean corruption error is of; ``extra`` for the four that are apart from it.
        apply: Takes images in [0, 1], shape (n, 32, 32, 3), random numbers and a constant.
        constants: Of the five severities.
    """

    group: Group
    apply: Callable[[Any, Draws, Any], Any]
    constants: tuple[Any, Any, Any, Any, Any]


# Factors of magnification: from 1 in steps of 0.01, as NumPy counts them.
_ZOOMS = tuple(np.arange(1, end, 0.01) for end in (1.06, 1.11, 1.16, 1.21, 1.26))

CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": Corruption("noise", noise.gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": Corruption("noise", noise.shot_noise, (500, 250, 100, 75, 50)),
    "impulse_noise": Corruption("noise", noise.impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "defocus_blur": Corruption("blur", blur.defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))),
    "glass_blur": Corruption("blur", blur.glass_blur, ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))),
    "motion_blur": Corruption("blur", blur.motion_blur, ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))),
    "zoom_blur": Corruption("blur", blur.zoom_blur, _ZOOMS),  # type: ignore[arg-type]
    "snow": Corruption(
        "weather",
        weather.snow,
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
    ),
    "frost": Corruption("weather", weather.frost, ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))),
    "fog": Corruption("weather", weather.fog, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
    "brightness": Corruption("weather", weather.brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": Corruption("digital", digital.contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "elastic_transform": Corruption(
        "digital",
        digital.elastic_transform,
        (
            (0, 0, SIDE * 0.08),
            (SIDE * 0.05, SIDE * 0.2, SIDE * 0.07),
            (SIDE * 0.08, SIDE * 0.06, SIDE * 0.06),
            (SIDE * 0.1, SIDE * 0.04, SIDE * 0.05),
            (SIDE * 0.1, SIDE * 0.03, SIDE * 0.03),
        ),
    ),
    "pixelate": Corruption("digital", digital.pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg_compression": Corruption("digital", digital.jpeg_compression, (80, 65, 58, 50, 40)),
    "speckle_noise": Corruption("extra", noise.speckle_noise, (0.06, 0.1, 0.12, 0.16, 0.2)),
    "gaussian_blur": Corruption("extra", blur.gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1)),
    "spatter": Corruption(
        "extra",
        weather.spatter,
        (
            (0.62, 0.1, 0.7, 0.7, 0.5, 0),
            (0.65, 0.1, 0.8, 0.7, 0.5, 0),
            (0.65, 0.3, 1, 0.69, 0.5, 0),
            (0.65, 0.1, 0.7, 0.69, 0.6, 1),
            (0.65, 0.1, 0.5, 0.68, 0.6, 1),
        ),
    ),
    "saturate": Corruption("extra", digital.saturate, ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))),
}


def corrupt(images: NDArray[np.uint8], name: str, severity: int, positions: Sequence[int]) -> NDArray[np.uint8]:
    """Corrupt images of 32 x 32 pixels.

    Args:
        images: Shape (n, 32, 32, 3), red, green, blue.
        name: One of ``CORRUPTIONS``.
        severity: 1 to 5.
        positions: Of the images in the official test part, shape (n,): what the random numbers are drawn by.

    Returns:
        Bytes of the same shape. As in CIFAR-10-C, fractions of a level are cut off, not rounded.

    Raises:
        ValueError: there is no such corruption or severity, or the images have another shape.
    """
    if name not in CORRUPTIONS or severity not in SEVERITIES:
        raise ValueError(f"there is no corruption {name!r} of severity {severity}")
    if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE, 3) or len(images) != len(positions):
        raise ValueError(f"bytes of shape ({len(positions)}, {SIDE}, {SIDE}, 3) expected, not {images.dtype} of {images.shape}")
    _, apply, constants = CORRUPTIONS[name]
    changed = apply(images / 255, Draws(name, severity, positions), constants[severity - 1])
    # What was exact stays so: sums and products of fractions of 255 end a little beside whole levels.
    levels: NDArray[np.uint8] = np.floor(np.clip(changed, 0, 1) * 255 + 1e-6).astype(np.uint8)
    return levels
