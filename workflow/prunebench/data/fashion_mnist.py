"""Fashion-MNIST (Xiao et al. 2017): 60,000 training and 10,000 test images of 28 x 28 grey pixels in 10 classes."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from pathlib import Path

from prunebench.data.dataset import Dataset, Part, ResidentImages
from prunebench.errors import PrunebenchError

FILES: dict[Part, tuple[str, str]] = {
    "train": ("raw/train-images-idx3-ubyte.gz", "raw/train-labels-idx1-ubyte.gz"),
    "test": ("raw/t10k-images-idx3-ubyte.gz", "raw/t10k-labels-idx1-ubyte.gz"),
}

# Of the contents: Debian's archives hold the same but are packed anew, so torchvision's checksums do not fit them.
MD5 = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}


def load(folder: Path, part: Part, download: bool) -> ResidentImages:
    """Read one official part from the gzip archives, or from the unpacked files that torchvision leaves beside them."""
    import numpy as np
    import torch

    paths = [folder / name for name in FILES[part]]
    missing = [path for path in paths if not path.exists() and not path.with_suffix("").exists()]
    if missing and download:
        for path in missing:
            _download(path)
    elif missing:
        raise DATASET.unusable(folder, part, missing=[f"raw/{path.name}" for path in missing])
    contents, corrupt = [], []
    for path in paths:
        found = path.with_suffix("") if path.with_suffix("").exists() else path
        try:
            content = gzip.decompress(path.read_bytes()) if found == path else found.read_bytes()
        except (gzip.BadGzipFile, EOFError, zlib.error):
            content = b""
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != MD5[path.stem]:
            corrupt.append(f"raw/{found.name} (MD5 mismatch)")
        contents.append(bytearray(content))
    if corrupt:
        raise DATASET.unusable(folder, part, corrupt=corrupt)
    # The idx format: a header of 16 bytes for images and 8 for labels, then a byte for each value.
    pixels = np.frombuffer(contents[0], np.uint8, offset=16).reshape(-1, 1, 28, 28)
    labels = np.frombuffer(contents[1], np.uint8, offset=8)
    return ResidentImages(torch.from_numpy(pixels), torch.from_numpy(labels).long())


def _download(path: Path) -> None:
    from prunebench.torchvision_import import import_torchvision

    import_torchvision()
    from torchvision.datasets import FashionMNIST
    from torchvision.datasets.utils import download_url

    mirror, temporary = FashionMNIST.mirrors[0], path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        download_url(mirror + path.name, path.parent, temporary.name, dict(FashionMNIST.resources)[path.name])
        os.replace(temporary, path)
    except Exception as error:  # whatever the network or the disk come up with
        raise PrunebenchError(
            f"{DATASET.name}: {path}: the download from {mirror}{path.name} failed: {error}. {DATASET.help}"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


DATASET = Dataset(
    name="fashion_mnist",
    input_shape=(1, 28, 28),
    classes=10,
    crop_padding=2,
    flip=True,
    load=load,
    help=(
        "Set data.download: true, or put the archives (https://github.com/zalandoresearch/fashion-mnist, or "
        "/usr/share/datasets/fashion-mnist of Debian's package dataset-fashion-mnist), copied or linked, into "
        "FashionMNIST/raw of the data root."
    ),
    folder="FashionMNIST",
    files=FILES,
)
