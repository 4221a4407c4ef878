"""ImageNet-1k (Russakovsky et al. 2015): 1.28 million training images; 50,000 validation images, the test part."""

from __future__ import annotations

from pathlib import Path

from prunebench.data.dataset import Dataset, Part
from prunebench.data.image_folder import FolderImages, load_image_folder


def load(folder: Path, part: Part, download: bool) -> FolderImages:
    """List one official part; shorter side to 256, central 224 x 224, as torchvision's weights were evaluated."""
    return load_image_folder(DATASET, folder, part, resize=256, crop=224)


DATASET = Dataset(
    name="imagenet",
    input_shape=(3, 224, 224),
    classes=1000,
    # An eighth of the side, as for CIFAR. Training crops are shifts of the central crop, not crops of random scale.
    crop_padding=28,
    flip=True,
    load=load,
    help=(
        "ImageNet cannot be downloaded automatically: register at https://image-net.org, download ILSVRC2012 and put "
        "or link its images into imagenet/train/<wnid>/ and imagenet/val/<wnid>/ of the data root, one folder for each "
        "of the 1,000 classes (val too)."
    ),
    folder="imagenet",
    files={"train": ("train/<wnid>/*.JPEG",), "test": ("val/<wnid>/*.JPEG",)},
    # The convention of the published ImageNet networks, in place of decoding 1.28 million images.
    channel_statistics=((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
)
