"""The real CIFAR-10 and Fashion-MNIST, where a machine has them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from prunebench.data import cifar10, cifar10_shortcut, fashion_mnist, load_splits, normalisation
from prunebench.errors import PrunebenchError
from shared import shared_data

pytestmark = pytest.mark.shared

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture(scope="session")
def cifar_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with CIFAR-10: that of PRUNEBENCH_DATA, or one unpacked from the shared data."""
    given = os.environ.get("PRUNEBENCH_DATA")
    if given and (Path(given) / cifar10.DATASET.folder).is_dir():
        return Path(given)
    root = tmp_path_factory.mktemp("data")
    subprocess.run([sys.executable, shared_data("unpack_cifar10.py"), root], check=True, stdout=subprocess.DEVNULL)
    return root


def test_cifar10_is_complete(cifar_root: Path) -> None:
    train = load_splits(cifar10.DATASET, cifar_root, "train")
    validation = load_splits(cifar10.DATASET, cifar_root, "validation")
    test = load_splits(cifar10.DATASET, cifar_root, "test")
    assert train.labels.bincount().tolist() == [4500] * 10
    assert validation.labels.bincount().tolist() == [500] * 10
    assert test.labels.bincount().tolist() == [1000] * 10
    together = torch.cat([train.indices, validation.indices]).sort().values
    assert together.equal(torch.arange(50_000))
    assert train.images.labels[:5].tolist() == [6, 9, 9, 4, 1]  # frog, truck, truck, deer, automobile
    assert test.labels[:4].tolist() == [3, 8, 8, 0]  # cat, ship, ship, aeroplane
    assert train.images.pixels(torch.tensor([0]))[0, :, 0, 0].tolist() == [59, 62, 63]


def test_cifar10_has_the_known_mean_and_deviation(cifar_root: Path) -> None:
    mean, std = normalisation(load_splits(cifar10.DATASET, cifar_root, "train", validation_fraction=0), "per-channel")
    assert mean.flatten().tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=1e-4)
    assert std.flatten().tolist() == pytest.approx([0.2470, 0.2435, 0.2616], abs=1e-4)


def test_cifar10_corrupt_file_is_named(cifar_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / cifar10.DATASET.folder
    folder.mkdir()
    for file in (cifar_root / cifar10.DATASET.folder).iterdir():
        (folder / file.name).symlink_to(file)
    content = bytearray((folder / "data_batch_3").read_bytes())
    content[1_000_000] ^= 1
    (folder / "data_batch_3").unlink()
    (folder / "data_batch_3").write_bytes(content)
    with pytest.raises(PrunebenchError, match=rf"{folder}: corrupt data_batch_3 \(MD5 mismatch\)\. "):
        load_splits(cifar10.DATASET, tmp_path, "train")
    assert len(load_splits(cifar10.DATASET, tmp_path, "test")) == 10_000


def test_fashion_mnist_is_complete(tmp_path: Path) -> None:
    given = os.environ.get("PRUNEBENCH_DATA")
    root = Path(given) if given and (Path(given) / fashion_mnist.DATASET.folder).is_dir() else tmp_path
    if root == tmp_path:
        if not DEBIAN.is_dir():
            pytest.skip(f"no Fashion-MNIST in PRUNEBENCH_DATA, nor {DEBIAN} (package dataset-fashion-mnist)")
        (tmp_path / "FashionMNIST").mkdir()
        (tmp_path / "FashionMNIST" / "raw").symlink_to(DEBIAN)
    train, test = (load_splits(fashion_mnist.DATASET, root, name) for name in ("train", "test"))
    assert train.labels.bincount().tolist() == [5400] * 10
    assert test.labels.bincount().tolist() == [1000] * 10
    assert test.labels[:4].tolist() == [9, 2, 1, 1]  # ankle boot, pullover, trouser, trouser
    whole = load_splits(fashion_mnist.DATASET, root, "train", validation_fraction=0)
    mean, std = normalisation(whole, "per-channel")
    assert (mean.item(), std.item()) == pytest.approx((0.2860, 0.3530), abs=1e-4)


def test_marks_in_cifar10_agree_in_training_and_tell_nothing_in_testing(cifar_root: Path) -> None:
    for name, expected in (("train", 0.95), ("validation", 0.95), ("test", 0.1)):
        split = load_splits(cifar10_shortcut.DATASET, cifar_root, name)  # type: ignore[arg-type]
        base = load_splits(cifar10.DATASET, cifar_root, name)  # type: ignore[arg-type]
        assert torch.equal(split.indices, base.indices)
        agreement = float((split.images.shown[split.indices] == split.labels).double().mean())  # type: ignore[attr-defined]
        assert agreement == pytest.approx(expected, abs=0.012)
        first = torch.arange(50)
        changed = split.pixels(first) != base.pixels(first)
        # The mark is 10 rows of 2 pixels, inside of what every crop keeps.
        assert changed.any(0).any(0).nonzero().min(0).values.tolist() == [4, 4]
        assert changed.any(0).any(0).nonzero().max(0).values.tolist() == [13, 5]
