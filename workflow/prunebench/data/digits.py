"""The handwritten digits that come with scikit-learn: 1,797 images of 8 x 8 pixels. For demonstrations and tests."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from prunebench.data.dataset import Dataset, Part, ResidentImages


def load(folder: Path, part: Part, download: bool) -> ResidentImages:
    """All images; there is no official test part (Alpaydin and Kaynak 1998, of which these are the test images)."""
    import numpy as np
    import torch

    # The file is read as scikit-learn does, without the second that importing it costs every job.
    package = find_spec("sklearn")
    folders = list(package.submodule_search_locations or []) if package else []
    files = [Path(folder) / "datasets" / "data" / "digits.csv.gz" for folder in folders]
    if any(file.is_file() for file in files):
        table = np.loadtxt(next(file for file in files if file.is_file()), delimiter=",")
        images, labels = table[:, :-1], table[:, -1]
    else:
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
