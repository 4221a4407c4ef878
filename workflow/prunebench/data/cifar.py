"""Reading CIFAR-10 and CIFAR-100 (Krizhevsky 2009) by way of torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from prunebench.data.dataset import Dataset, Part, ResidentImages
from prunebench.errors import PrunebenchError
from prunebench.torchvision_import import import_torchvision


def load_cifar(
    dataset: Dataset, reader: Literal["CIFAR10", "CIFAR100"], folder: Path, part: Part, download: bool
) -> ResidentImages:
    """Read one official part with torchvision's class ``reader``; every file's MD5 is checked before it is unpickled.

    Raises:
        PrunebenchError: files are missing or corrupt, or the download failed.
    """
    import_torchvision()
    import torch
    import torchvision.datasets
    from torchvision.datasets.utils import check_integrity, download_and_extract_archive

    official = getattr(torchvision.datasets, reader)
    train = part == "train"
    # torchvision checks, and so reads, the files of both parts; the other part's are none of our business.
    one_part: Any = type(reader, (official,), {"test_list" if train else "train_list": []})
    try:
        data = one_part(folder.parent, train=train)
    except RuntimeError:  # missing or corrupt, torchvision does not say which
        if download:
            try:
                download_and_extract_archive(official.url, folder.parent, filename=official.filename, md5=official.tgz_md5)
            except Exception as error:  # whatever the network, the archive or the disk come up with
                raise PrunebenchError(
                    f"{dataset.name}: {folder}: the download from {official.url} failed: {error}. {dataset.help}"
                ) from error
        checksums = [*one_part.train_list, *one_part.test_list, (official.meta["filename"], official.meta["md5"])]
        missing = [name for name, _ in checksums if not (folder / name).is_file()]
        corrupt = [name for name, md5 in checksums if name not in missing and not check_integrity(folder / name, md5)]
        if missing or corrupt:
            raise dataset.unusable(folder, part, missing, [f"{name} (MD5 mismatch)" for name in corrupt]) from None
        data = one_part(folder.parent, train=train)
    return ResidentImages(torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(data.targets))
