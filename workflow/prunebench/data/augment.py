"""Random crops and flips, on whole batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def augment(pixels: torch.Tensor, *, crop_padding: int, flip: bool, generator: torch.Generator) -> torch.Tensor:
    """Pad each image with zeros and crop it at random to its size, then mirror it left to right with probability 1/2.

    The augmentation of He et al. 2016, "Deep Residual Learning", section 4.2, with 4 pixels for CIFAR.

    Args:
        pixels: uint8, shape (n, C, H, W), on any device.
        crop_padding: Pixels of padding on each side, hence how far an image moves at most; 0 for no crop.
        flip: Whether to mirror.
        generator: What the crops and flips are drawn by, on any device. One on the CPU gives the same draws everywhere.

    Returns:
        uint8, shape (n, C, H, W), on the device of ``pixels``; ``pixels`` itself if there is nothing to do.
    """
    import torch

    n, _, height, width = pixels.shape
    if crop_padding:
        corner = torch.randint(2 * crop_padding + 1, (2, n), generator=generator, device=generator.device).to(pixels.device)
        padded = torch.nn.functional.pad(pixels, [crop_padding] * 4)
        # Every possible crop, as a view: (n, C, top, left, H, W).
        crops = padded.unfold(2, height, 1).unfold(3, width, 1)
        pixels = crops[torch.arange(n, device=pixels.device), :, corner[0], corner[1]]
    if flip:
        mirrored = torch.randint(2, (n, 1, 1, 1), generator=generator, device=generator.device).to(pixels.device, torch.bool)
        pixels = torch.where(mirrored, pixels.flip(3), pixels)
    return pixels
