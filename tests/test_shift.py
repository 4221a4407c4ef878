"""New test sets of CIFAR-10, and the tables and figures of distribution shift and calibration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from prunebench.data import Dataset, ResidentImages, Split
from prunebench.errors import PrunebenchError
from prunebench.evaluation import Subject, Values
from prunebench.evaluation import natural_shift as evaluation

CIFAR10 = Dataset("cifar10", (3, 32, 32), 10, 4, True, lambda *_: None, "")  # type: ignore[arg-type,return-value]


class Level(nn.Module):
    """The class that the first pixel's red says."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        level = (images[:, 0, 0, 0] * 255).round().long()
        return nn.functional.one_hot(level, 10).float()


def images(levels: list[int]) -> Any:
    return np.broadcast_to(np.array(levels, dtype=np.uint8)[:, None, None, None], (len(levels), 32, 32, 3)).copy()


def measure(root: Path, dataset: Dataset = CIFAR10, **options: Any) -> Values:
    pixels = torch.from_numpy(images([1, 2, 3, 4])).permute(0, 3, 1, 2)
    split = Split(dataset, ResidentImages(pixels, torch.tensor([1, 2, 3, 4])), torch.arange(4))
    return evaluation.measure(
        Subject(Level(), (3, 32, 32), 10, lambda: split, torch.device("cpu"), options=options, data_root=root)
    )


def write_cifar10_1(folder: Path, version: str, levels: list[int], labels: list[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"cifar10.1_{version}_data.npy", images(levels))
    np.save(folder / f"cifar10.1_{version}_labels.npy", np.array(labels, dtype=np.int32))


def test_new_test_sets_are_found_and_compared(tmp_path: Path) -> None:
    write_cifar10_1(tmp_path / "CIFAR-10.1" / "datasets", "v6", [1, 2, 3, 4, 5], [1, 2, 3, 4, 0])
    # As it was published, with other arrays beside, some of them of Python objects.
    np.savez(
        tmp_path / "cifar102_test.npz",
        images=images([7, 8]),
        labels=np.array([7, 0]),
        label_names=np.array(["airplane", None], dtype=object),
    )
    values = measure(tmp_path).values
    assert values["test_accuracy_percent"] == 100
    assert (values["cifar10_1_v6_accuracy_percent"], values["cifar10_1_v6_gap_pp"], values["cifar10_1_v6_images"]) == (80, 20, 5)
    assert (values["cifar10_2_accuracy_percent"], values["cifar10_2_gap_pp"]) == (50, 50)
    assert not any("v4" in name for name in values)
    assert set(measure(tmp_path, sets=["cifar10_2"]).values) == {
        "test_accuracy_percent",
        "cifar10_2_accuracy_percent",
        "cifar10_2_gap_pp",
        "cifar10_2_images",
    }


def test_missing_sets_are_named_with_their_files(tmp_path: Path) -> None:
    with pytest.raises(
        PrunebenchError, match=r"expected any of: .*cifar10\.1_v6_data\.npy and cifar10\.1_v6_labels\.npy in .*cifar102_test"
    ):
        measure(tmp_path)
    write_cifar10_1(tmp_path, "v4", [1], [1])
    with pytest.raises(PrunebenchError, match=r"cifar10_1_v6 is not in the data root: expected cifar10\.1_v6_data"):
        measure(tmp_path, sets=["cifar10_1_v6"])
    assert measure(tmp_path).values["cifar10_1_v4_accuracy_percent"] == 100


@pytest.mark.parametrize("labels", [[1, 10], [1, -1], [1]])
def test_sets_that_are_something_else_are_refused(tmp_path: Path, labels: list[int]) -> None:
    write_cifar10_1(tmp_path, "v6", [1, 2], labels)
    with pytest.raises(PrunebenchError, match=r"cifar10\.1_v6_data\.npy: uint8 images of \(2, 32, 32, 3\)"):
        measure(tmp_path)


def test_a_corrupt_file_is_named_and_nothing_is_unpickled(tmp_path: Path) -> None:
    (tmp_path / "cifar102_test.npz").write_bytes(b"PK\x03\x04 not a whole archive")
    with pytest.raises(PrunebenchError, match="cifar10_2 cannot be read"):
        measure(tmp_path)
    np.savez(tmp_path / "cifar102_test.npz", images=np.array([{}], dtype=object), labels=np.array([0]))
    with pytest.raises(PrunebenchError, match="cifar10_2 cannot be read .*allow_pickle"):
        measure(tmp_path)


def test_other_datasets_are_refused(tmp_path: Path) -> None:
    other = Dataset("cifar100", (3, 32, 32), 100, 4, True, lambda *_: None, "")  # type: ignore[arg-type,return-value]
    assert evaluation.unsuited(CIFAR10) is None and "cifar10" in (evaluation.unsuited(other) or "")
    with pytest.raises(PrunebenchError, match="natural_shift: cifar100"):
        measure(tmp_path, other)
