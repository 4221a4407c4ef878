"""Pretrained weights from files of torch and safetensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from helpers import architecture, images, random_network
from prunebench.cli import main
from prunebench.errors import PrunebenchError
from prunebench.models.files import load_architecture, load_network
from prunebench.models.torch_files import import_torch
from prunebench.torchvision_import import import_torchvision

SHAPE = (3, 32, 32)
MEAN, STD = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def original() -> Any:
    import_torchvision()
    from torchvision.models import resnet18

    torch.manual_seed(0)
    return resnet18(num_classes=10).eval()


def imported(path: Path, model: str = "resnet18", classes: int = 10) -> Any:
    return import_torch(path, model, SHAPE, classes, MEAN, STD)[0]


@pytest.mark.parametrize(
    ("file", "wrap"),
    [
        ("weights.pth", dict),
        ("weights.pt", lambda weights: {"model": weights, "epoch": 3}),
        ("checkpoint.tar", lambda weights: {"state_dict": weights}),
        ("weights.pth", lambda weights: {f"module.{name}": tensor for name, tensor in weights.items()}),
        ("weights.pth", lambda weights: {name: value for name, value in weights.items() if "num_batches" not in name}),
        ("weights.safetensors", dict),
    ],
)
def test_an_imported_network_is_the_one_saved(tmp_path: Path, original: Any, file: str, wrap: Callable[[Weights], Any]) -> None:
    content = wrap(original.state_dict())
    if file.endswith(".safetensors"):
        save_file(content, tmp_path / file)
    else:
        torch.save(content, tmp_path / file)
    network = imported(tmp_path / file)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        assert torch.equal(network(images(3, SHAPE)), original((images(3, SHAPE) - mean) / std))


def test_a_model_that_is_not_found_takes_the_names_of_its_own_modules(tmp_path: Path) -> None:
    network = random_network(architecture("resnet20", SHAPE))
    weights = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("normalise.")}
    torch.save(weights, tmp_path / "weights.pth")
    expected = network((images(2, SHAPE) - torch.tensor(MEAN).reshape(3, 1, 1)) / torch.tensor(STD).reshape(3, 1, 1))
    torch.testing.assert_close(imported(tmp_path / "weights.pth", "resnet20")(images(2, SHAPE)), expected)


def test_the_command_writes_a_network(tmp_path: Path, original: Any, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(original.state_dict(), tmp_path / "weights.pth")
    command = ["import-torch", "--weights", str(tmp_path / "weights.pth"), "--model", "resnet18", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        main([*command, "--dataset", "cifar10"])
    assert "--mean and --std" in capsys.readouterr().err
    main([*command, "--dataset", "cifar10", "--mean", *map(str, MEAN), "--std", *map(str, STD)])
    assert "2, 2, 2, 2 blocks" in capsys.readouterr().out
    assert (load_architecture(tmp_path / "out").input_shape, load_architecture(tmp_path / "out").classes) == (SHAPE, 10)
    assert torch.equal(load_network(tmp_path / "out")(images(2, SHAPE)), imported(tmp_path / "weights.pth")(images(2, SHAPE)))
    # ImageNet's statistics are a convention; its size and number of classes are not those of these weights.
    main([*command, "--dataset", "imagenet", "--classes", "10", "--input-shape", "3", "32", "32"])
    assert load_network(tmp_path / "out").state_dict()["normalise.mean"].flatten().tolist() == pytest.approx(
        [0.485, 0.456, 0.406]
    )


def refused(path: Path, *words: str, model: str = "resnet18", classes: int = 10) -> None:
    with pytest.raises(PrunebenchError) as error:
        imported(path, model, classes)
    assert "\n" not in str(error.value)
    for word in (str(path), *words):
        assert word in str(error.value)


@pytest.mark.parametrize("file", ["weights.pth", "weights.safetensors"])
def test_missing_truncated_and_foreign_files_are_refused(tmp_path: Path, original: Any, file: str) -> None:
    path = tmp_path / file
    refused(path, "no such file")
    if file.endswith(".safetensors"):
        save_file(original.state_dict(), path)
    else:
        torch.save(original.state_dict(), path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:100], b"", b"hello"):
        path.write_bytes(content)
        refused(path, "corrupt")


def test_objects_that_run_code_are_refused(tmp_path: Path, original: Any) -> None:
    torch.save(original, tmp_path / "network.pth")
    refused(tmp_path / "network.pth", "save the state dict")


@pytest.mark.parametrize("content", [[1, 2], {}, {"a": 1}, {1: torch.zeros(1)}, torch.zeros(3)])
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "other.pth")
    refused(tmp_path / "other.pth", "state dict")


def test_weights_that_do_not_fit_are_named(tmp_path: Path, original: Any) -> None:
    path = tmp_path / "weights.pth"
    weights = original.state_dict()
    torch.save({name: tensor for name, tensor in weights.items() if name != "layer1.0.conv1.weight"}, path)
    refused(path, "missing: layer1.0.conv1.weight")
    torch.save({**weights, "extra.weight": torch.zeros(1)}, path)
    refused(path, "not of this model: extra.weight")
    torch.save(weights, path)
    refused(path, "resnet34", "missing: layer1.2.conv1.weight, layer1.2.bn1.weight", "more", model="resnet34")
    refused(path, "fc.weight has shape (10, 512)", "--classes", classes=11)
    torch.save({**weights, "fc.bias": torch.full((10,), torch.nan)}, path)
    refused(path, "fc.bias", "not finite")


def test_statistics_that_do_not_fit_are_refused(tmp_path: Path, original: Any) -> None:
    torch.save(original.state_dict(), tmp_path / "weights.pth")
    for mean, std, word in (((0.5,), STD, "--mean"), (MEAN, (1.0,), "--std"), (MEAN, (0.1, 0.0, 0.1), "more than 0")):
        with pytest.raises(PrunebenchError, match=word):
            import_torch(tmp_path / "weights.pth", "resnet18", SHAPE, 10, mean, std)
