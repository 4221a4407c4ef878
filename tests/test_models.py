"""The CIFAR ResNets, and networks on disk."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from helpers import architecture, images, random_network
from prunebench.artifacts import sha256_of
from prunebench.errors import PrunebenchError
from prunebench.evaluation.complexity import count_macs, count_parameters
from prunebench.models import Architecture, find_model
from prunebench.models.files import build, load_architecture, load_network, load_weights, save_network
from prunebench.models.modules.cifar_resnet import SameConv
from prunebench.surgery import Constraints, allowed, flops_reduction

CIFAR = (3, 32, 32)
# Parameters with shortcuts without weights: He et al. 2016, table 6, in full digits as widely implemented.
# The projections of stages 2 and 3, with biases, come on top: 16 * 32 + 32 + 32 * 64 + 64.
PARAMETERS = {"resnet20": 269_722, "resnet32": 464_154, "resnet44": 658_586, "resnet56": 853_018, "resnet110": 1_727_962}
PROJECTION_PARAMETERS = 2_656
# Multiply-accumulates in millions with shortcuts without weights, as pruning papers give them (such as HRank, arXiv 2002.10179).
MACS = {"resnet20": 40.55, "resnet56": 125.49, "resnet110": 252.89}
PROJECTION_MACS = 16 * 32 * 16 * 16 + 32 * 64 * 8 * 8


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_the_published_ones(name: str) -> None:
    assert count_parameters(build(architecture(name, CIFAR))) == PARAMETERS[name] + PROJECTION_PARAMETERS


@pytest.mark.parametrize("name", MACS)
def test_macs_are_the_published_ones(name: str) -> None:
    macs = find_model(name).macs(architecture(name, CIFAR))
    assert round((macs - PROJECTION_MACS) / 1e6, 2) == MACS[name]


@pytest.mark.parametrize(
    ("name", "removed", "published"),
    [
        ("resnet56", 10, 37.52),
        ("resnet56", 15, 56.29),
        ("resnet56", 16, 60.04),
        ("resnet56", 20, 75.05),
        ("resnet56", 21, 78.80),
        ("resnet110", 27, 50.33),
        ("resnet110", 41, 76.42),
        ("resnet44", 11, 53.27),
        ("resnet32", 8, 54.61),
    ],
)
def test_flops_reductions_are_the_published_ones(name: str, removed: int, published: float) -> None:
    dense = architecture(name, CIFAR)
    for order in (dense.blocks, dense.blocks[::-1]):
        gone = allowed(order, dense, Constraints())[:removed]
        assert len(gone) == removed
        assert flops_reduction(dense.without(gone), dense) == pytest.approx(published, abs=0.01)


@pytest.mark.parametrize("input_shape", [(3, 32, 32), (1, 8, 8), (3, 29, 31), (1, 7, 13), (2, 1, 1)])
@pytest.mark.parametrize("keras_compatible", [False, True])
def test_macs_by_arithmetic_are_those_counted(input_shape: tuple[int, int, int], keras_compatible: bool) -> None:
    dense = architecture("resnet20", input_shape, keras_compatible=keras_compatible)
    pruned = dense.without(["stage1.block0", "stage2.block2", "stage3.block1"])
    hidden = {"stage1.block1": 5, "stage2.block0": 9, "stage3.block2": 100}
    narrow = Architecture("resnet20", input_shape, 10, pruned.blocks, {**dense.options, "hidden_channels": hidden})
    for one in (dense, pruned, narrow):
        assert find_model("resnet20").macs(one) == count_macs(build(one), input_shape)


def test_hidden_channels_are_those_between_the_convolutions() -> None:
    narrow = architecture(hidden_channels={"stage2.block0": 3})
    block = build(narrow).get_submodule("stage2.block0")
    assert block.conv1.weight.shape == (3, 16, 3, 3)  # type: ignore[union-attr]
    assert block.conv2.weight.shape == (32, 3, 3, 3)  # type: ignore[union-attr]
    assert random_network(narrow)(images(2)).shape == (2, 10)


def test_keras_compatible_adds_biases_and_epsilon() -> None:
    plain, keras = (build(architecture("resnet20", CIFAR, keras_compatible=value)) for value in (False, True))
    biases = 16 + 6 * (16 + 32 + 64)
    assert count_parameters(keras) == count_parameters(plain) + biases
    assert {module.eps for module in keras.modules() if isinstance(module, nn.BatchNorm2d)} == {1e-3}
    assert {module.eps for module in plain.modules() if isinstance(module, nn.BatchNorm2d)} == {1e-5}


def keras_same(inputs: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """Keras' definition, summed by hand: the window of output i begins at i * stride - pad // 2; outside of the image is 0."""
    size, side = inputs.shape[-2:], kernel.shape[-1]
    outputs = [math.ceil(length / stride) for length in size]
    before = [max((out - 1) * stride + side - length, 0) // 2 for out, length in zip(outputs, size, strict=True)]
    result = np.zeros((inputs.shape[0], kernel.shape[0], *outputs))
    for row in range(outputs[0]):
        for column in range(outputs[1]):
            for i in range(side):
                for j in range(side):
                    y, x = row * stride - before[0] + i, column * stride - before[1] + j
                    if 0 <= y < size[0] and 0 <= x < size[1]:
                        result[:, :, row, column] += inputs[:, :, y, x] @ kernel[:, :, i, j].T
    return result


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (8, 5), (5, 8), (2, 3), (1, 1)])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (1, 2), (5, 2), (2, 1), (3, 3)])
def test_same_convolution_is_that_of_keras(size: tuple[int, int], kernel: int, stride: int) -> None:
    layer = SameConv(2, 3, kernel, stride, bias=False).double()
    inputs = images(2, (2, *size)).double()
    expected = keras_same(inputs.numpy(), layer.weight.detach().numpy(), stride)
    np.testing.assert_allclose(layer(inputs).detach().numpy(), expected, atol=1e-12)


def test_stride_2_pads_right_and_bottom_on_even_sizes_and_evenly_on_odd_ones() -> None:
    layer = SameConv(1, 1, 3, 2, bias=False)
    even, odd = images(1, (1, 8, 8)), images(1, (1, 7, 7))
    torch.testing.assert_close(layer(even), functional.conv2d(functional.pad(even, [0, 1, 0, 1]), layer.weight, stride=2))
    torch.testing.assert_close(layer(odd), functional.conv2d(odd, layer.weight, stride=2, padding=1))


def test_blocks_that_keep_the_shape_are_all_but_two() -> None:
    blocks = find_model("resnet56").blocks()
    assert len(blocks) == 27
    assert [block.name for block in blocks if not block.keeps_shape] == ["stage2.block0", "stage3.block0"]


def test_normalisation_is_inside_and_its_shape_comes_with_the_weights(tmp_path: Path) -> None:
    network = random_network(architecture())
    raw = network(images(4))
    mean = images(1, seed=9)[0]
    network.load_state_dict({**network.state_dict(), "normalise.mean": mean, "normalise.std": torch.full((1, 1, 1), 0.5)})
    torch.testing.assert_close(network(images(4) * 0.5 + mean), raw)
    save_network(tmp_path, network, architecture())
    torch.testing.assert_close(load_network(tmp_path)(images(4) * 0.5 + mean), raw)


@pytest.mark.parametrize("options", [{}, {"keras_compatible": True}, {"hidden_channels": {"stage1.block1": 7}}])
def test_save_and_load_give_the_same_network(tmp_path: Path, options: dict[str, Any]) -> None:
    pruned = architecture(**options).without(["stage1.block2", "stage3.block1"])
    network = random_network(pruned).to(memory_format=torch.channels_last)
    save_network(tmp_path, network, pruned)
    loaded = load_network(tmp_path)
    assert load_architecture(tmp_path) == pruned
    assert not loaded.training
    assert torch.equal(loaded(images(5)), random_network(pruned)(images(5)))
    before = (tmp_path / "weights.safetensors").read_bytes()
    save_network(tmp_path, loaded, pruned)
    assert (tmp_path / "weights.safetensors").read_bytes() == before


def test_a_pruned_network_loads_by_itself(tmp_path: Path) -> None:
    pruned = architecture().without(["stage2.block1"])
    network = random_network(pruned)
    save_network(tmp_path, network, pruned)
    code = (
        "import sys, torch; from pathlib import Path; from prunebench.models.files import load_network;"
        "print(load_network(Path(sys.argv[1]))(torch.full((1, 1, 8, 8), 0.5)).double().sum().item())"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert float(run.stdout) == pytest.approx(network(torch.full((1, 1, 8, 8), 0.5)).double().sum().item(), abs=1e-5)


def test_identity_is_that_of_the_architecture_without_the_weights() -> None:
    assert architecture().identity == architecture().identity
    distinct = [
        architecture(),
        architecture().without(["stage1.block1"]),
        architecture(keras_compatible=True),
        architecture("resnet20", (3, 8, 8)),
    ]
    assert len({one.identity for one in distinct}) == len(distinct)


# Mistakes in the files: each is refused, and the message names the file.


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_network(tmp_path, random_network(architecture()), architecture())
    return tmp_path


def refused(folder: Path, file: str, *words: str) -> None:
    with pytest.raises(PrunebenchError) as error:
        load_network(folder)
    for word in (str(folder / file), *words):
        assert word in str(error.value)


def test_truncated_weights(saved: Path) -> None:
    path = saved / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    refused(saved, "weights.safetensors", "corrupt")


@pytest.mark.parametrize("position", [0, 100, -1])
def test_flipped_bit(saved: Path, position: int) -> None:
    path = saved / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    refused(saved, "weights.safetensors", "corrupt")


@pytest.mark.parametrize("file", ["weights.safetensors", "architecture.json"])
def test_missing_file(saved: Path, file: str) -> None:
    (saved / file).unlink()
    refused(saved, file, "no such file")


def change(folder: Path, **changes: Any) -> None:
    path = folder / "architecture.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_weights_that_are_no_safetensors(saved: Path) -> None:
    (saved / "weights.safetensors").write_text("hello")
    change(saved, sha256=sha256_of(saved / "weights.safetensors"))
    refused(saved, "weights.safetensors", "not a safetensors file")


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", '{"schema": 1, "model": "resnet20"}', '{"name": "foreign"}'])
def test_foreign_or_broken_description(saved: Path, text: str) -> None:
    (saved / "architecture.json").write_text(text)
    refused(saved, "architecture.json")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"model": "resnet57"}, "resnet57"),
        ({"model": "missing.py"}, "missing.py"),
        ({"model": 20}, "model"),
        ({"input_shape": [8, 8]}, ""),
        ({"input_shape": 8}, ""),
        ({"input_shape": ["1", "8", "8"]}, ""),
        ({"classes": "ten"}, ""),
        ({"classes": -1}, ""),
        ({"blocks": "stage1.block0"}, ""),
        ({"blocks": 9}, ""),
        ({"blocks": [1, 2]}, ""),
        ({"blocks": ["stage1.block0", "stage1.block9"]}, "stage1.block9"),
        ({"blocks": ["stage2.block0", "stage1.block0"]}, "order"),
        ({"blocks": ["stage1.block0", "stage1.block0"]}, "once"),
        ({"options": []}, ""),
        ({"options": {"hidden_channels": [1]}}, ""),
    ],
)
def test_wrong_description(saved: Path, changes: dict[str, Any], word: str) -> None:
    change(saved, **changes)
    refused(saved, "architecture.json", word)


@pytest.mark.parametrize(
    "changes",
    [
        {"blocks": ["stage1.block0", "stage2.block0", "stage3.block0"]},
        {"classes": 11},
        {"options": {"keras_compatible": True}},
        {"input_shape": [3, 8, 8]},
        {"model": "resnet32", "blocks": list(architecture("resnet32").blocks)},
    ],
)
def test_weights_of_another_architecture(saved: Path, changes: dict[str, Any]) -> None:
    change(saved, **changes)
    refused(saved, "weights.safetensors", "do not fit the architecture")


def test_weights_that_fit_but_are_not_those_described(saved: Path) -> None:
    weights = load_weights(saved)
    save_file({name: values + 1 for name, values in weights.items()}, saved / "weights.safetensors")
    refused(saved, "weights.safetensors", "SHA-256")
