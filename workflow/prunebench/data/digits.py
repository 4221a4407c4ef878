"""The handwritten digits that come with scikit-learn: 1,797 images of 8 x 8 pixels. For demonstrations and tests."""

from __future__ import annotations

from pathlib import Path

from prunebench.data.dataset import Dataset, Part, ResidentImages


def load(folder: Path, part: Part, download: bool) -> ResidentImages:
    """All images; there is no official test part (Alpaydin and Kaynak 1998, of which these are the test images)."""
    import torch
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    levels = torch.from_numpy(images).long()
    # Grey levels 0..16 to bytes, rounded half up.
    tensor = ((levels * 255 + 8) // 16).to(torch.uint8).reshape(-1, 1, 8, 8)
    return ResidentImages(tensor, torch.from_numpy(labels).long())


DATASET = Dataset(
    name="digits",
    input_shape=(1, 8, 8),
    classes=10,
    crop_padding=1,
    flip=False,
    load=load,
    help="The images come with scikit-learn; reinstall it.",
    official_test=False,
)
