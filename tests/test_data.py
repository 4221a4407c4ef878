"""Datasets, splits, samples and augmentation, on digits and on small fakes of the other formats."""

from __future__ import annotations

import builtins
import gzip
import hashlib
import io
import pickle
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from prunebench.data import (
    Dataset,
    ResidentImages,
    Split,
    cifar10,
    cifar100,
    digits,
    fashion_mnist,
    find_dataset,
    imagenet,
    load_splits,
    normalisation,
    sample,
    to_unit,
)
from prunebench.data.augment import augment
from prunebench.data.image_folder import load_image_folder
from prunebench.errors import PrunebenchError
from prunebench.torchvision_import import import_torchvision

import_torchvision()
import torchvision  # noqa: E402

SPLITS = ("train", "validation", "test")


def fake(labels: list[int], pixels: torch.Tensor | None = None, **changes: object) -> Dataset:
    """A dataset in memory whose two official parts are the same images."""
    if pixels is None:
        pixels = torch.arange(len(labels), dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 3).contiguous()
    images = ResidentImages(pixels, torch.tensor(labels))
    description = Dataset(
        name="fake",
        input_shape=tuple(pixels.shape[1:]),
        classes=max(labels) + 1,
        crop_padding=0,
        flip=False,
        load=lambda folder, part, download: images,
        help="Ask the author.",
    )
    return replace(description, **changes)


def everything(dataset: Dataset, root: Path = Path()) -> Split:
    return load_splits(dataset, root, "train", validation_fraction=0)


# Splits


@pytest.mark.parametrize("seed", [0, 1])
def test_splits_of_digits_are_disjoint_complete_and_stratified(seed: int) -> None:
    splits = {name: load_splits(digits.DATASET, Path(), name, seed=seed) for name in SPLITS}
    assert sorted(torch.cat([split.indices for split in splits.values()]).tolist()) == list(range(1797))
    whole = torch.cat([split.labels for split in splits.values()]).bincount()
    test = splits["test"].labels.bincount()
    assert (test - 0.2 * whole).abs().max() <= 0.5
    assert (splits["validation"].labels.bincount() - 0.1 * (whole - test)).abs().max() <= 0.5


def test_official_test_part_is_untouched_and_training_part_is_divided() -> None:
    dataset = fake([index % 4 for index in range(80)])
    train, validation, test = (load_splits(dataset, Path(), name, validation_fraction=0.25) for name in SPLITS)
    assert test.indices.tolist() == list(range(80))
    assert sorted(train.indices.tolist() + validation.indices.tolist()) == list(range(80))
    assert validation.labels.bincount().tolist() == [5] * 4
    assert train.labels.bincount().tolist() == [15] * 4


def test_split_is_fixed_by_seed_and_pinned() -> None:
    def indices(seed: int) -> list[int]:
        return load_splits(digits.DATASET, Path(), "validation", seed=seed).indices.tolist()

    assert indices(0) == indices(0)
    assert indices(0) != indices(1)
    # Published numbers hang on these: a change of them is a change of every experiment.
    assert indices(0)[:8] == [47, 54, 56, 65, 70, 71, 75, 94]


def test_digits_are_scaled_to_bytes() -> None:
    from sklearn.datasets import load_digits

    split = load_splits(digits.DATASET, Path(), "test")
    original = torch.from_numpy(load_digits().images)[split.indices]
    pixels = split.pixels(torch.arange(len(split)))
    assert pixels.dtype == torch.uint8 and pixels.shape == (len(split), 1, 8, 8)
    assert pixels.min() == 0 and pixels.max() == 255
    assert (pixels[:, 0] / 255 - original / 16).abs().max() <= 0.5 / 255 + 1e-6


def test_subset_and_pixels_count_from_the_split() -> None:
    split = everything(fake([0, 1, 0, 1, 0])).subset(torch.tensor([4, 1, 3]))
    assert split.labels.tolist() == [0, 1, 1]
    assert split.pixels(torch.tensor([2, 0]))[:, 0, 0, 0].tolist() == [3, 4]
    assert split.subset(torch.tensor([1])).indices.tolist() == [1]
    assert len(split) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation_fraction": 1.0}, "data.validation_fraction is 1.0"),
        ({"test_fraction": -0.1}, "data.test_fraction is -0.1"),
        ({"split": "val"}, "'val' is not a split; accepted: train, validation, test"),
        ({"split": "validation", "validation_fraction": 0.0}, "no image is left for the validation split"),
    ],
)
def test_mistakes_in_a_split_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(PrunebenchError, match=message):
        load_splits(digits.DATASET, Path(), **{"split": "train", **changes})


# Samples


def test_sample_is_balanced_ordered_by_class_and_nested() -> None:
    split = load_splits(digits.DATASET, Path(), "train")
    small, large = sample(split, 3, seed=5), sample(split, 20, seed=5)
    assert small.labels.tolist() == [label for label in range(10) for _ in range(3)]
    assert small.indices.reshape(10, 3).equal(large.indices.reshape(10, 20)[:, :3])
    assert set(large.indices.tolist()) <= set(split.indices.tolist())
    assert len(set(large.indices.tolist())) == 200
    assert not sample(split, 3, seed=6).indices.equal(small.indices)


def test_sample_names_the_class_that_is_too_small() -> None:
    split = everything(fake([0, 0, 0, 1, 1, 2, 2, 2]))
    with pytest.raises(PrunebenchError, match=r"class 1 has 2 images.*3 are asked.*images_per_class to at most 2"):
        sample(split, 3, seed=0)
    with pytest.raises(PrunebenchError, match=r"sample\.images_per_class is 0"):
        sample(split, 0, seed=0)


# Normalisation


def test_normalisation_agrees_with_numpy() -> None:
    split = everything(fake([0, 1] * 20, torch.randint(256, (40, 3, 5, 4), dtype=torch.uint8)))
    pixels = split.pixels(torch.arange(40)).numpy() / 255
    mean, std = normalisation(split, "per-channel")
    assert mean.shape == std.shape == (3, 1, 1) and mean.dtype == std.dtype == torch.float32
    np.testing.assert_allclose(mean.flatten(), pixels.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std.flatten(), pixels.std((0, 2, 3)), rtol=1e-6)
    mean, std = normalisation(split, "per-pixel")
    np.testing.assert_allclose(mean, pixels.mean(0), rtol=1e-6)
    assert std.equal(torch.ones(3, 5, 4))


def test_normalisation_of_a_channel_without_contrast_is_finite() -> None:
    mean, std = normalisation(everything(fake([0, 1], torch.full((2, 1, 2, 2), 51, dtype=torch.uint8))), "per-channel")
    assert mean.item() == pytest.approx(0.2) and std.item() == 1


def test_normalisation_takes_the_datasets_convention_and_refuses_unknown_modes() -> None:
    split = everything(fake([0, 1], channel_statistics=((0.5,), (0.25,))))
    assert [value.item() for value in normalisation(split, "per-channel")] == [0.5, 0.25]
    with pytest.raises(PrunebenchError, match="'none' is unknown; accepted: per-channel, per-pixel"):
        normalisation(split, "none")  # type: ignore[arg-type]


def test_to_unit() -> None:
    unit = to_unit(torch.tensor([0, 51, 255], dtype=torch.uint8))
    assert unit.dtype == torch.float32 and unit.tolist() == pytest.approx([0, 0.2, 1])


# Augmentation


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_augmented_image_is_a_shifted_or_mirrored_original() -> None:
    padding, n = 2, 300
    pixels = torch.randint(1, 256, (n, 3, 6, 5), dtype=torch.uint8)
    padded = torch.nn.functional.pad(pixels, [padding] * 4)
    result = augment(pixels, crop_padding=padding, flip=True, generator=seeded(0))
    seen = set()
    for index in range(n):
        matches = [
            (top, left, mirrored)
            for top in range(2 * padding + 1)
            for left in range(2 * padding + 1)
            for mirrored in (False, True)
            if result[index].equal(padded[index, :, top : top + 6, left : left + 5].flip([2] if mirrored else []))
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    # All 50 are equally likely; of 300 draws less than one in 50 * 0.98^300 = 0.1 is expected to be absent.
    assert len(seen) >= 48


def test_augmentation_with_a_known_answer() -> None:
    pixels = torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8).expand(64, 1, 2, 2)
    mirrored = augment(pixels, crop_padding=0, flip=True, generator=seeded(1))
    assert {tuple(image.flatten().tolist()) for image in mirrored} == {(1, 2, 3, 4), (2, 1, 4, 3)}
    shifted = augment(pixels, crop_padding=1, flip=False, generator=seeded(1))
    assert {tuple(image.flatten().tolist()) for image in shifted} == {
        (0, 0, 0, 1), (0, 0, 1, 2), (0, 0, 2, 0),
        (0, 1, 0, 3), (1, 2, 3, 4), (2, 0, 4, 0),
        (0, 3, 0, 0), (3, 4, 0, 0), (4, 0, 0, 0),
    }  # fmt: skip


def test_augmentation_is_fixed_by_its_generator() -> None:
    pixels = torch.randint(256, (50, 1, 8, 8), dtype=torch.uint8)
    first, again, other = (augment(pixels, crop_padding=1, flip=True, generator=seeded(s)) for s in (3, 3, 4))
    assert first.dtype == torch.uint8 and first.equal(again) and not first.equal(other)


def test_no_augmentation_is_the_input() -> None:
    pixels = torch.randint(256, (5, 1, 8, 8), dtype=torch.uint8)
    assert augment(pixels, crop_padding=0, flip=False, generator=seeded(0)) is pixels


# CIFAR


def make_cifar(root: Path, monkeypatch: pytest.MonkeyPatch, dataset: Dataset) -> np.ndarray:
    """A small CIFAR-10 or -100 with the right checksums; returns all pixels of its training part."""
    ten = dataset is cifar10.DATASET
    folder = root / dataset.folder
    folder.mkdir(parents=True)
    official = torchvision.datasets.CIFAR10 if ten else torchvision.datasets.CIFAR100
    random = np.random.default_rng(0)
    checksums, pixels = {}, {}
    for name, _ in official.train_list + official.test_list:
        pixels[name] = random.integers(256, size=(200, 3072), dtype=np.uint8)
        labels = [index % dataset.classes for index in range(200)]
        batch = {"data": pixels[name], "labels": labels} if ten else {
            "data": pixels[name], "fine_labels": labels, "coarse_labels": [0] * 200
        }  # fmt: skip
        content = pickle.dumps(batch)
        (folder / name).write_bytes(content)
        checksums[name] = hashlib.md5(content).hexdigest()
    content = pickle.dumps({official.meta["key"]: [str(label) for label in range(dataset.classes)]})
    (folder / official.meta["filename"]).write_bytes(content)
    monkeypatch.setattr(official, "meta", {**official.meta, "md5": hashlib.md5(content).hexdigest()})
    for part in ("train_list", "test_list"):
        monkeypatch.setattr(official, part, [[name, checksums[name]] for name, _ in getattr(official, part)])
    return np.concatenate([pixels[name] for name, _ in official.train_list]).reshape(-1, 3, 32, 32)


@pytest.mark.parametrize("dataset", [cifar10.DATASET, cifar100.DATASET], ids=lambda dataset: dataset.name)
def test_cifar_is_read_in_order(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = make_cifar(tmp_path, monkeypatch, dataset)
    train = everything(dataset, tmp_path)
    assert train.pixels(torch.arange(len(train))).numpy().tolist() == pixels.tolist()
    assert train.labels.tolist() == [index % dataset.classes for index in range(200)] * (len(pixels) // 200)
    assert len(load_splits(dataset, tmp_path, "test")) == 200


def test_cifar_training_files_are_read_without_opening_the_test_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_cifar(tmp_path, monkeypatch, cifar10.DATASET)
    opened = record_opened(monkeypatch)
    load_splits(cifar10.DATASET, tmp_path, "train")
    load_splits(cifar10.DATASET, tmp_path, "validation")
    assert {"data_batch_1", "data_batch_5"} <= opened
    assert "test_batch" not in opened
    for batch in (tmp_path / "cifar-10-batches-py").glob("data_batch_*"):
        batch.unlink()
    load_splits(cifar10.DATASET, tmp_path, "test")
    assert "test_batch" in opened


def record_opened(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of the files that Python opens from now on."""
    opened: set[str] = set()
    original = builtins.open

    def recording(file, *args, **kwargs):  # type: ignore[no-untyped-def]
        opened.add(Path(str(file)).name)
        return original(file, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", recording)
    monkeypatch.setattr(io, "open", recording)
    return opened


def test_cifar_missing_and_corrupt_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_cifar(tmp_path, monkeypatch, cifar10.DATASET)
    folder = tmp_path / "cifar-10-batches-py"
    (folder / "data_batch_2").unlink()
    (folder / "data_batch_4").write_bytes(b"not a pickle")
    with pytest.raises(PrunebenchError) as caught:
        load_splits(cifar10.DATASET, tmp_path, "train")
    message = str(caught.value)
    assert f"cifar10: {folder}: missing data_batch_2; corrupt data_batch_4 (MD5 mismatch). Expected there:" in message
    assert "data.download: true" in message and "cifar-10-python.tar.gz" in message
    assert len(load_splits(cifar10.DATASET, tmp_path, "test")) == 200


def test_nothing_is_downloaded_unless_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def no_network(url, *args, **kwargs):  # type: ignore[no-untyped-def]
        asked.append(url)
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.utils.download_and_extract_archive", no_network)
    monkeypatch.setattr("torchvision.datasets.utils.download_url", no_network)
    for dataset in (cifar10.DATASET, cifar100.DATASET, fashion_mnist.DATASET, imagenet.DATASET):
        folder = tmp_path / dataset.folder
        with pytest.raises(PrunebenchError, match=f"{dataset.name}: {folder}: missing .* Expected there"):
            load_splits(dataset, tmp_path, "train")
    assert not asked and not list(tmp_path.iterdir())
    for dataset in (cifar10.DATASET, cifar100.DATASET, fashion_mnist.DATASET):
        with pytest.raises(PrunebenchError, match=f"{dataset.name}: .*the download from http.* failed: no route to host"):
            load_splits(dataset, tmp_path, "train", download=True)
    assert len(asked) == 3


def test_cifar_is_downloaded_when_allowed_and_only_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_cifar(tmp_path / "mirror", monkeypatch, cifar10.DATASET)
    asked: list[str] = []

    def download(url, root, filename, md5):  # type: ignore[no-untyped-def]
        asked.append(url)
        (tmp_path / "mirror" / "cifar-10-batches-py").rename(Path(root) / "cifar-10-batches-py")

    monkeypatch.setattr("torchvision.datasets.utils.download_and_extract_archive", download)
    for _ in range(2):
        assert len(load_splits(cifar10.DATASET, tmp_path, "test", download=True)) == 200
    assert asked == [torchvision.datasets.CIFAR10.url]


# Fashion-MNIST


def make_fashion(root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray]:
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(256, size=(40, 28, 28), dtype=np.uint8)
    labels = np.arange(40, dtype=np.uint8) % 10
    checksums = {}
    for prefix in ("train", "t10k"):
        for name, content in (
            (f"{prefix}-images-idx3-ubyte", struct.pack(">4i", 2051, 40, 28, 28) + pixels.tobytes()),
            (f"{prefix}-labels-idx1-ubyte", struct.pack(">2i", 2049, 40) + labels.tobytes()),
        ):
            (raw / f"{name}.gz").write_bytes(gzip.compress(content))
            checksums[name] = hashlib.md5(content).hexdigest()
    monkeypatch.setattr(fashion_mnist, "MD5", checksums)
    return pixels, labels


def test_fashion_mnist_is_read_from_archives_and_from_unpacked_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, labels = make_fashion(tmp_path, monkeypatch)
    raw = tmp_path / "FashionMNIST" / "raw"
    opened = record_opened(monkeypatch)
    packed = everything(fashion_mnist.DATASET, tmp_path)
    assert "train-images-idx3-ubyte.gz" in opened and not any(name.startswith("t10k") for name in opened)
    for archive in raw.glob("*.gz"):
        archive.with_suffix("").write_bytes(gzip.decompress(archive.read_bytes()))
        archive.unlink()
    for split in (packed, everything(fashion_mnist.DATASET, tmp_path)):
        assert split.pixels(torch.arange(40)).numpy().tolist() == pixels[:, None].tolist()
        assert split.labels.tolist() == labels.tolist()


@pytest.mark.parametrize("content", [b"", b"no archive", gzip.compress(b"other data"), gzip.compress(b"x" * 99)[:-9]])
def test_fashion_mnist_corrupt_archive_is_named(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_fashion(tmp_path, monkeypatch)
    (tmp_path / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte.gz").write_bytes(content)
    with pytest.raises(PrunebenchError, match=r"corrupt raw/t10k-labels-idx1-ubyte\.gz \(MD5.*dataset-fashion-mnist"):
        load_splits(fashion_mnist.DATASET, tmp_path, "test")
    assert len(everything(fashion_mnist.DATASET, tmp_path)) == 40


# Image folders


def folder_dataset() -> Dataset:
    dataset = fake(
        [0, 1, 2],
        input_shape=(3, 16, 16),
        folder="imagenet",
        load=lambda folder, part, download: load_image_folder(dataset, folder, part, resize=20, crop=16),
    )
    return dataset


def make_folder(root: Path) -> None:
    """Two images a class and part, of one colour each: red says the class, green the number. One more is grey."""
    from PIL import Image

    for part in ("train", "val"):
        for label, wnid in enumerate(("n01", "n02", "n03")):
            folder = root / "imagenet" / part / wnid
            folder.mkdir(parents=True)
            for number in range(2):
                size = (40, 25) if number else (25, 40)
                Image.new("RGB", size, (100 * label, 50 * number, 7)).save(folder / f"{number}.png")
    Image.new("L", (30, 30), 99).save(root / "imagenet" / "val" / "n03" / "2.png")


def test_image_folder_is_decoded_on_demand(tmp_path: Path) -> None:
    make_folder(tmp_path)
    dataset = folder_dataset()
    train = everything(dataset, tmp_path)
    assert train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    pixels = train.pixels(torch.tensor([5, 2]))
    assert pixels.dtype == torch.uint8 and pixels.shape == (2, 3, 16, 16)
    assert pixels.amin((2, 3)).tolist() == pixels.amax((2, 3)).tolist() == [[200, 50, 7], [100, 0, 7]]
    test = load_splits(dataset, tmp_path, "test")
    assert test.pixels(torch.tensor([6])).unique().tolist() == [99]
    assert test.pixels(torch.empty(0, dtype=torch.int64)).shape == (0, 3, 16, 16)
    (tmp_path / "imagenet" / "train" / "n03" / "1.png").write_bytes(b"no image")
    with pytest.raises(PrunebenchError, match=r"train/n03/1\.png: not a readable image"):
        train.pixels(torch.tensor([5]))


def test_image_folder_crops_the_centre_of_the_scaled_image(tmp_path: Path) -> None:
    from PIL import Image

    make_folder(tmp_path)
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, 40:] = 200
    Image.fromarray(pixels).save(tmp_path / "imagenet" / "val" / "n01" / "0.png")
    image = load_splits(folder_dataset(), tmp_path, "test").pixels(torch.tensor([0]))[0]
    # 40 x 80 becomes 20 x 40; of that columns 12 to 27 are left, with the edge in their middle.
    assert (image[:, :, :7] == 0).all() and (image[:, :, 9:] == 200).all()


def test_image_folder_mistakes_are_named(tmp_path: Path) -> None:
    make_folder(tmp_path)
    dataset, folder = folder_dataset(), tmp_path / "imagenet"
    (folder / "val" / "n03").rename(folder / "val" / "n04")
    with pytest.raises(PrunebenchError, match=r"different class folders \(among them n03"):
        load_splits(dataset, tmp_path, "test")
    assert len(everything(dataset, tmp_path)) == 6
    for image in (folder / "train" / "n02").iterdir():
        image.unlink()
    with pytest.raises(PrunebenchError, match="n02"):
        load_splits(dataset, tmp_path, "train")
    (folder / "train" / "n02").rmdir()
    with pytest.raises(PrunebenchError, match=r"train: 2 class folders, expected 3\. Ask the author"):
        load_splits(dataset, tmp_path, "train")


# A dataset of the user's own


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": 2}, r"labels from 0 to 2 in part 'train', expected 0 to 1"),
        ({"input_shape": (3, 2, 3)}, r"images are torch.uint8\[1, 2, 3\], expected torch.uint8\[3, 2, 3\]"),
        (
            {"load": lambda folder, *_: (folder / "gone").read_bytes()},
            r"missing .*gone. Expected there: .*Ask the author",
        ),
        (
            {"load": lambda *_: ResidentImages(torch.zeros(4, 1, 2, 3, dtype=torch.uint8), torch.zeros(3).long())},
            "4 images but 3 labels",
        ),
        (
            {"load": lambda *_: ResidentImages(torch.zeros(3, 1, 2, 3), torch.zeros(3).long())},
            "images are torch.float32",
        ),
    ],
)
def test_a_dataset_that_breaks_its_description_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(PrunebenchError, match=message):
        load_splits(fake([0, 1, 2], **changes), Path("root"), "train")


def test_a_file_of_the_users_own_is_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "squares.py").write_text(
        "from prunebench.data import Dataset, ResidentImages\n"
        "def load(folder, part, download):\n"
        "    import torch\n"
        "    return ResidentImages(torch.zeros(20, 1, 4, 4, dtype=torch.uint8), torch.arange(20) % 2)\n"
        "DATASET = Dataset('squares', (1, 4, 4), 2, crop_padding=0, flip=True, load=load, help='')\n"
    )
    dataset = find_dataset(str(tmp_path / "squares.py"))
    assert load_splits(dataset, tmp_path, "validation").labels.sort().values.tolist() == [0, 1]
    assert find_dataset("digits") is digits.DATASET
    with pytest.raises(PrunebenchError, match="did you mean 'cifar10'"):
        find_dataset("cifar-10")


# Imports


def run_python(code: str, *path: Path) -> str:
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {list(map(str, path))}\n{code}"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip


def test_reading_the_datasets_imports_nothing_slow() -> None:
    loaded = run_python(
        "import importlib, pkgutil, prunebench.data\n"
        "for module in pkgutil.iter_modules(prunebench.data.__path__):\n"
        "    importlib.import_module('prunebench.data.' + module.name)\n"
        "print(*sys.modules)"
    ).split()
    assert "prunebench.data.imagenet" in loaded
    assert not {"torch", "torchvision", "sklearn", "pandas", "PIL"} & set(loaded)


def test_torchvision_works_after_the_import() -> None:
    with torch.no_grad():
        assert torchvision.models.resnet18(num_classes=7).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    assert import_torchvision() is torchvision is sys.modules["torchvision"]


def test_torchvision_that_imports_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text("count = globals().get('count', 0) + 1\n")
    output = run_python(
        "from prunebench.torchvision_import import import_torchvision\nprint(import_torchvision().count, 'torch' in sys.modules)",
        tmp_path,
    )
    assert output.split() == ["1", "False"]


def test_torchvision_that_fails_otherwise_still_fails(tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('another reason')\n")
    output = run_python(
        "from prunebench.torchvision_import import import_torchvision\n"
        "try:\n    import_torchvision()\nexcept RuntimeError as error:\n    print(error)",
        tmp_path,
    )
    assert output.strip() == "another reason"


def test_built_in_descriptions_are_consistent() -> None:
    for dataset in (cifar10.DATASET, cifar100.DATASET, fashion_mnist.DATASET, imagenet.DATASET, digits.DATASET):
        assert dataset.crop_padding < min(dataset.input_shape[1:])
        assert dataset.help
        assert dataset.official_test == ("test" in dataset.files)


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = digits.DATASET.load(Path("unused"), "all", False)
    assert images.labels.tolist() == labels.tolist()
    shown = images.pixels(torch.arange(len(labels))).reshape(len(labels), -1).double() * 16 / 255
    assert torch.equal(shown.round(), torch.from_numpy(pixels))
