"""The papers' Keras files: small ones that are made here, and the released networks against golden values."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from helpers import architecture, images, random_network
from prunebench.cli import main
from prunebench.criteria import find_criterion
from prunebench.data import cifar10, load_splits, to_unit
from prunebench.errors import PrunebenchError
from prunebench.evaluation.accuracy import classify
from prunebench.metrics import METRICS
from prunebench.models import Architecture, find_model
from prunebench.models.files import load_architecture, load_network
from prunebench.models.keras_files import import_keras, mean_from, read_weights, training_mean
from prunebench.scoring import Probe, needs_of, silenced_features
from prunebench.surgery import flops_reduction, stage_sizes
from shared import shared_data

SHAPE = (3, 8, 8)
MEAN = torch.linspace(0.2, 0.7, 192).reshape(SHAPE)

# --- Writing Keras files -------------------------------------------------------------------------------------------------------


class Writer:
    """A CIFAR ResNet of ours as Keras writes it: layers in JSON, weights by layer."""

    def __init__(self, network: torch.nn.Module, described: Architecture) -> None:
        self.layers: list[dict[str, Any]] = []
        self.weights: dict[str, dict[str, np.ndarray[Any, Any]]] = {}
        self.state = {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}
        channels, height, width = described.input_shape
        self.add("InputLayer", "input", [], batch_input_shape=[None, height, width, channels], dtype="float32")
        last = self.activation(self.batch_norm("bn", self.convolution("conv", "input", 1)))
        stage = "stage1"
        for block in described.blocks:
            projects, stage = not block.startswith(stage), block.split(".")[0]
            inner = self.convolution(f"{block}.conv1", last, 2 if projects else 1)
            inner = self.activation(self.batch_norm(f"{block}.bn1", inner))
            inner = self.batch_norm(f"{block}.bn2", self.convolution(f"{block}.conv2", inner, 1))
            shortcut = self.convolution(f"{block}.shortcut", last, 2) if projects else last
            last = self.activation(self.add("Add", f"{block}.add", [shortcut, inner]))
        size = [height // 4, width // 4]
        images = {"data_format": "channels_last"}
        pooled = self.add("AveragePooling2D", "pool", [last], pool_size=size, strides=size, padding="valid", **images)
        flat = self.add("Flatten", "flatten", [pooled])
        self.add("Dense", "classifier", [flat], units=described.classes, activation="softmax", use_bias=True)
        self.weights["classifier"] = {"kernel": self.state["classifier.weight"].T, "bias": self.state["classifier.bias"]}

    def add(self, kind: str, name: str, inputs: Iterable[str], **config: Any) -> str:
        nodes = [[[before, 0, 0, {}] for before in inputs]] if inputs else []
        self.layers.append({"class_name": kind, "name": name, "config": {"name": name, **config}, "inbound_nodes": nodes})
        return name

    def convolution(self, name: str, before: str, stride: int) -> str:
        kernel = self.state[f"{name}.weight"].transpose(2, 3, 1, 0)
        self.weights[name] = {"kernel": kernel, "bias": self.state[f"{name}.bias"]}
        shape = {"filters": kernel.shape[3], "kernel_size": list(kernel.shape[:2]), "strides": [stride, stride]}
        rest = {"padding": "same", "data_format": "channels_last", "dilation_rate": [1, 1]}
        return self.add("Conv2D", name, [before], **shape, **rest, activation="linear", use_bias=True)

    def batch_norm(self, name: str, before: str) -> str:
        keras = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
        self.weights[name] = {key: self.state[f"{name}.{ours}"] for key, ours in keras.items()}
        return self.add("BatchNormalization", name, [before], axis=[3], epsilon=0.001, momentum=0.99, center=True, scale=True)

    def activation(self, before: str) -> str:
        return self.add("Activation", f"relu_{len(self.layers)}", [before], activation="relu")

    def layer(self, name: str) -> dict[str, Any]:
        [found] = [layer for layer in self.layers if layer["name"] == name]
        return found

    def write(self, folder: Path, prefix: str = "") -> tuple[Path, Path]:
        """Weights and architecture; ``prefix`` is the group that holds the weights."""
        folder.mkdir(parents=True, exist_ok=True)
        ends = {"input_layers": [["input", 0, 0]], "output_layers": [["classifier", 0, 0]]}
        content = {"class_name": "Functional", "config": {"name": "model", "layers": self.layers, **ends}}
        (folder / "net.json").write_text(json.dumps(content), encoding="utf-8")
        with h5py.File(folder / "net.h5", "w") as file:
            root = file.create_group(prefix) if prefix else file
            names = dict.fromkeys(layer["name"] for layer in self.layers)
            root.attrs["layer_names"] = [name.encode() for name in names]
            for name in names:
                weights = self.weights.get(name, {})
                group = root.create_group(name)
                group.attrs["weight_names"] = [f"{name}/{weight}:0".encode() for weight in weights]
                for weight, array in weights.items():
                    group[f"{name}/{weight}:0"] = array
        return folder / "net.h5", folder / "net.json"


def keras_network(*removed: str, model: str = "resnet20", **options: Any) -> tuple[Any, Architecture]:
    """A random network; its blocks have the names that an import gives them."""
    wanted = architecture(model, SHAPE, keras_compatible=True, **options).without(removed)
    network = random_network(wanted)
    network.normalise.mean, network.normalise.std = MEAN, torch.ones(SHAPE)
    return network, wanted


def writer(*removed: str, **options: Any) -> Writer:
    return Writer(*keras_network(*removed, **options))


def keras_forward(written: Writer, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What Keras documents, in NumPy on the Keras arrays: (n, height, width, channels) to class probabilities."""
    values: dict[str, np.ndarray[Any, Any]] = {}
    for layer in written.layers:
        name, config, own = layer["name"], layer["config"], written.weights.get(layer["name"], {})
        given = [values[inbound[0]] for node in layer["inbound_nodes"] for inbound in node]
        match layer["class_name"]:
            case "InputLayer":
                values[name] = inputs
            case "Conv2D":
                values[name] = same_convolution(given[0], own["kernel"], config["strides"][0]) + own["bias"]
            case "BatchNormalization":
                scale = own["gamma"] / np.sqrt(own["moving_variance"] + config["epsilon"])
                values[name] = (given[0] - own["moving_mean"]) * scale + own["beta"]
            case "Activation":
                values[name] = np.maximum(given[0], 0)
            case "Add":
                values[name] = given[0] + given[1]
            case "AveragePooling2D":
                values[name] = given[0].mean((1, 2), keepdims=True)
            case "Flatten":
                values[name] = given[0].reshape(len(given[0]), -1)
            case "Dense":
                exponents = np.exp(given[0] @ own["kernel"] + own["bias"])
                values[name] = exponents / exponents.sum(1, keepdims=True)
    return values["classifier"]


def same_convolution(inputs: np.ndarray[Any, Any], kernel: np.ndarray[Any, Any], stride: int) -> np.ndarray[Any, Any]:
    """Padding "same" as TensorFlow defines it: the smaller half goes top and left."""
    size, window = inputs.shape[1], kernel.shape[0]
    out = -(-size // stride)
    pad = max((out - 1) * stride + window - size, 0)
    padded = np.pad(inputs, ((0, 0), *[(pad // 2, pad - pad // 2)] * 2, (0, 0)))
    total = np.zeros((len(inputs), out, out, kernel.shape[3]))
    for row in range(window):
        for column in range(window):
            part = padded[:, row : row + (out - 1) * stride + 1 : stride, column : column + (out - 1) * stride + 1 : stride]
            total += part @ kernel[row, column]
    return total


# --- Small networks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "model_weights"])
def test_round_trip(tmp_path: Path, prefix: str) -> None:
    network, wanted = keras_network()
    imported, found = import_keras(*Writer(network, wanted).write(tmp_path, prefix), MEAN)
    assert found == wanted
    assert not imported.training
    expected = network.state_dict()
    assert set(imported.state_dict()) == set(expected)
    for name, tensor in imported.state_dict().items():
        assert tensor.equal(expected[name]), name


def test_outputs_are_those_of_the_keras_layers(tmp_path: Path) -> None:
    """Against a forward pass that shares no code with the package: orders of axes, paddings, epsilon, mean, shortcuts."""
    written = writer("stage1.block2", "stage2.block2", "stage3.block2")
    imported, _ = import_keras(*written.write(tmp_path), MEAN, "resnet20")
    inputs = images(5, SHAPE)
    expected = keras_forward(written, (inputs - MEAN).permute(0, 2, 3, 1).double().numpy())
    with torch.inference_mode():
        probabilities = imported(inputs).softmax(1)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert probabilities.std(0).max() > 0.01, "the images are told apart"


def test_blocks_that_are_left_are_numbered_in_their_order(tmp_path: Path) -> None:
    written = writer("stage1.block0", "stage2.block1", "stage3.block1", "stage3.block2")
    imported, found = import_keras(*written.write(tmp_path), MEAN, "resnet20")
    assert found.blocks == ("stage1.block0", "stage1.block1", "stage2.block0", "stage2.block1", "stage3.block0")
    assert found.model == "resnet20"
    state = imported.state_dict()
    assert np.array_equal(state["stage1.block0.bn1.weight"], written.state["stage1.block1.bn1.weight"])
    assert np.array_equal(state["stage2.block1.conv2.bias"], written.state["stage2.block2.conv2.bias"])


def test_fewer_filters_inside_a_block(tmp_path: Path) -> None:
    written = writer(hidden_channels={"stage2.block1": 5})
    _, found = import_keras(*written.write(tmp_path), MEAN)
    assert found.options == {"keras_compatible": True, "hidden_channels": {"stage2.block1": 5}}


def test_pruned_network_needs_the_name_of_the_unpruned_one(tmp_path: Path) -> None:
    files = writer("stage2.block1").write(tmp_path)
    with pytest.raises(PrunebenchError, match=r"net\.json: 3, 2, 3 blocks in the stages: a pruned network; .* --model "):
        import_keras(*files, MEAN)
    assert import_keras(*files, MEAN, "resnet56")[1].model == "resnet56"
    with pytest.raises(PrunebenchError, match=r"net\.json: --model resnet21: accepted: resnet20, "):
        import_keras(*files, MEAN, "resnet21")
    with pytest.raises(PrunebenchError, match=r"net\.json: 5, 5, 5 blocks in the stages: more than resnet20 has, 3"):
        import_keras(*writer(model="resnet32").write(tmp_path), MEAN, "resnet20")


def config(name: str, **changes: Any) -> Callable[[Writer], None]:
    return lambda written: written.layer(name)["config"].update(changes)


def inputs(name: str, *nodes: list[list[Any]]) -> Callable[[Writer], None]:
    return lambda written: written.layer(name).update(inbound_nodes=list(nodes))


def drop(name: str) -> Callable[[Writer], None]:
    return lambda written: written.layers.remove(written.layer(name))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (config("bn", epsilon=1e-5), "layer bn has epsilon 1e-05, expected 0.001"),
        (config("stage2.block1.bn2", axis=1), "layer stage2.block1.bn2 has axis 1, expected the channels, 3"),
        (config("bn", scale=False), "layer bn has scale False, expected True"),
        (config("conv", padding="valid"), "layer conv has padding valid, expected same"),
        (config("stage1.block0.conv1", use_bias=False), "layer stage1.block0.conv1 has use_bias False, expected True"),
        (config("stage1.block0.conv1", dtype="float16"), "layer stage1.block0.conv1 has dtype float16, expected float32"),
        (config("conv", data_format="channels_first"), "layer conv has data_format channels_first, expected channels_last"),
        (config("conv", filters=24), "layer conv has 24 filters, expected 16"),
        (config("stage3.block1.conv2", filters=48), "layer stage3.block1.conv2 has 48 filters, expected one of 16, 32, 64"),
        (config("stage2.block0.shortcut", filters=16), "layer stage2.block0.shortcut has 16 filters, but "),
        (config("stage2.block0.conv1", strides=[1, 1]), "layer stage2.block0.conv1 has strides [1, 1], expected [2, 2]"),
        (config("relu_3", activation="elu"), "layer relu_3 has activation elu, expected relu"),
        (config("classifier", activation="linear"), "layer classifier has activation linear, expected softmax"),
        (config("pool", pool_size=[1, 1], strides=[1, 1]), "the average is over [1, 1] in steps of [1, 1], expected [2, 2]"),
        (config("input", batch_input_shape=[None, None, None, 3]), "not a network as Keras 2 writes it"),
        (lambda written: written.layer("bn")["config"].pop("epsilon"), "layer bn has epsilon None, expected 0.001"),
        (lambda written: written.layer("pool").update(class_name="MaxPooling2D"), "layer pool is MaxPooling2D, where a CIFAR"),
        (lambda written: written.layers.append(written.layers[3]), "two layers have the same name"),
        (lambda written: written.add("Dropout", "drop", ["pool"], rate=0.5), "layers drop have no place in a CIFAR ResNet"),
        (drop("stage1.block1.bn1"), "layer stage1.block1.bn1 is not there"),
        (inputs("stage1.block1.add", [["input", 0, 0, {}], ["stage1.block1.bn2", 0, 0, {}]]), "adds what comes from input and "),
        (inputs("stage1.block1.add", [["stage1.block1.bn2", 0, 0, {}]]), "layer stage1.block1.add adds stage1.block1.bn2, "),
        (inputs("bn", [["conv", 0, 0, {}]], [["conv", 0, 0, {}]]), "layer bn is applied 2 times"),
        (inputs("bn", [["conv", 1, 0, {}]]), "layer bn takes [['conv', 1, 0, {}]], expected the one output of a layer"),
        (inputs("conv", [["relu_3", 0, 0, {}]]), "layer conv does not follow the input layer"),
        (inputs("bn", []), "not a network as Keras 2 writes it"),
        (inputs("bn", {"args": [], "kwargs": {}}), "layer bn takes ['args', 'kwargs']"),  # type: ignore[arg-type]
    ],
)
def test_other_networks_are_refused(change: Callable[[Writer], object], reason: str, tmp_path: Path) -> None:
    written = writer()
    change(written)
    assert reason in refusal(*written.write(tmp_path), tmp_path / "net.json")


def refusal(weights: Path, description: Path, at_fault: Path) -> str:
    """The one line that begins with the file at fault."""
    with pytest.raises(PrunebenchError) as caught:
        import_keras(weights, description, MEAN)
    message = str(caught.value)
    assert message.startswith(f"{at_fault}: ")
    assert "\n" not in message
    return message


def test_a_stage_without_blocks(tmp_path: Path) -> None:
    files = writer("stage1.block0", "stage1.block1", "stage1.block2").write(tmp_path)
    assert "0, 3, 3 blocks in the stages: a stage is empty" in refusal(*files, files[1])


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[]", b'"text"', b"null", b'{"config": {}}', b'{"config": []}'])
def test_json_of_something_else(content: bytes, tmp_path: Path) -> None:
    weights, description = writer().write(tmp_path)
    description.write_bytes(content)
    refusal(weights, description, description)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.9999])
def test_truncated_files(share: float, tmp_path: Path) -> None:
    for place in (0, 1):
        files = writer().write(tmp_path)
        content = files[place].read_bytes()
        files[place].write_bytes(content[: int(share * len(content))])
        assert ("not JSON" if place else "not an HDF5 file, or a damaged one") in refusal(*files, files[place])


@pytest.mark.parametrize("content", [h5py.Empty("f"), np.float32(1.0)])
def test_weights_that_are_no_arrays(content: Any, tmp_path: Path) -> None:
    weights, description = writer().write(tmp_path)
    with h5py.File(weights, "r+") as file:
        layer = file.get("model_weights", file)["bn"]
        [name] = [name for name in map(str, layer.attrs["weight_names"].astype(str)) if "gamma" in name]
        del layer[name]
        layer[name] = content
    assert "bn/" in refusal(weights, description, weights)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    weights, description = writer().write(tmp_path)
    assert refusal(tmp_path / "no.h5", description, tmp_path / "no.h5").endswith("no such file")
    assert refusal(weights, tmp_path / "no.json", tmp_path / "no.json").endswith("no such file")


def test_the_two_files_exchanged(tmp_path: Path) -> None:
    weights, description = writer().write(tmp_path)
    assert "not JSON" in refusal(description, weights, weights)


def attribute(file: h5py.File) -> None:
    del file.attrs["layer_names"]


def scalar_attribute(file: h5py.File) -> None:
    file.attrs["layer_names"] = 3


def lost_array(file: h5py.File) -> None:
    del file["bn/bn/gamma:0"]


def lost_weight(file: h5py.File) -> None:
    file["bn"].attrs["weight_names"] = [b"bn/gamma:0", b"bn/beta:0"]


def group_for_array(file: h5py.File) -> None:
    del file["bn/bn/gamma:0"]
    file.create_group("bn/bn/gamma:0")


def rounded(file: h5py.File) -> None:
    array = file["conv/conv/bias:0"][()]
    del file["conv/conv/bias:0"]
    file["conv/conv/bias:0"] = array.astype(np.float16)


def not_finite(file: h5py.File) -> None:
    file["stage1.block0.conv2/stage1.block0.conv2/kernel:0"][0, 0, 0, 0] = np.nan


def negative(file: h5py.File) -> None:
    file["bn/bn/moving_variance:0"][3] = -1


def turned(file: h5py.File) -> None:
    array = file["conv/conv/kernel:0"][()]
    del file["conv/conv/kernel:0"]
    file["conv/conv/kernel:0"] = array.transpose(3, 2, 0, 1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (attribute, "not a file of Keras weights"),
        (scalar_attribute, "not a file of Keras weights"),
        (lost_array, "not a file of Keras weights"),
        (group_for_array, "not a file of Keras weights"),
        (lost_weight, "layer bn has beta, gamma, expected gamma, beta, moving_mean, moving_variance"),
        (rounded, "conv/bias:0 is float16, expected float32"),
        (not_finite, "stage1.block0.conv2/kernel has values that are not finite"),
        (negative, "bn/moving_variance has values that are not finite, or a negative variance"),
        (turned, "conv/kernel has shape (16, 3, 3, 3), which does not fit"),
    ],
)
def test_weights_of_something_else(change: Callable[[h5py.File], None], reason: str, tmp_path: Path) -> None:
    weights, description = writer().write(tmp_path)
    with h5py.File(weights, "r+") as file:
        change(file)
    assert reason in refusal(weights, description, weights)


def test_weights_of_another_network(tmp_path: Path) -> None:
    """Mislabelled files: a block more, a block less, other widths, other classes."""
    weights, description = writer().write(tmp_path / "dense")
    pruned, pruned_description = writer("stage2.block2").write(tmp_path / "pruned")
    message = refusal(pruned, description, pruned)
    assert "lacks layer stage2.block2.conv1, " in message
    assert f"not the weights of {description}" in message
    with pytest.raises(PrunebenchError, match=r"dense/net\.h5: has layer stage2\.block2\..* too: not the weights of "):
        import_keras(weights, pruned_description, MEAN, "resnet20")
    narrow, _ = writer(hidden_channels={"stage2.block1": 5}).write(tmp_path / "narrow")
    assert "stage2.block1.conv1/kernel has shape (3, 3, 32, 5)" in refusal(narrow, description, narrow)


def test_damaged_bytes_never_end_in_a_traceback(tmp_path: Path) -> None:
    """Wherever the damage is: the import is refused with one line, or what was hit is no part of the structure."""
    weights, description = writer(*[f"stage{stage}.block{block}" for stage in (1, 2, 3) for block in (1, 2)]).write(tmp_path)
    random = np.random.default_rng(0)
    refused = 0
    for path in (weights, description):
        content = path.read_bytes()
        for _ in range(40):
            damaged = bytearray(content)
            for place in random.integers(len(content), size=20):
                damaged[place] ^= int(random.integers(1, 256))
            path.write_bytes(damaged)
            try:
                import_keras(weights, description, MEAN, "resnet20")
            except PrunebenchError as error:
                assert str(path) in str(error)
                assert "\n" not in str(error)
                refused += 1
        path.write_bytes(content)
    assert refused > 40


def test_mean_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mean.npy"
    np.save(path, MEAN.permute(1, 2, 0).numpy())
    assert mean_from(path).equal(MEAN)
    with pytest.raises(PrunebenchError, match=r"no\.npy: no such file"):
        mean_from(tmp_path / "no.npy")
    for wrong, reason in (
        (MEAN.numpy() * 255, r"beyond \[0, 1\]"),
        (MEAN.numpy()[0], "expected one array of floats"),
        (np.full((8, 8, 3), np.nan), r"beyond \[0, 1\]"),
        (np.zeros((8, 8, 3), np.uint8), "expected one array of floats"),
        (np.array([{}]), r"not a NumPy file"),
    ):
        np.save(path, wrong)
        with pytest.raises(PrunebenchError, match=rf"mean\.npy: .*{reason}"):
            mean_from(path)
    path.write_bytes(b"no array")
    with pytest.raises(PrunebenchError, match=r"mean\.npy: not a NumPy file"):
        mean_from(path)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = writer()
    weights, description = written.write(tmp_path)
    mean = tmp_path / "mean.npy"
    np.save(mean, MEAN.permute(1, 2, 0).numpy())
    out = tmp_path / "network"
    arguments = ["import-keras", "--weights", str(weights), "--architecture", str(description), "--out", str(out)]
    main([*arguments, "--mean", str(mean)])
    assert capsys.readouterr().out == f"{out}: resnet20 with 3, 3, 3 blocks in its stages\n"
    assert load_architecture(out) == architecture("resnet20", SHAPE, keras_compatible=True)
    inputs = images(2, SHAPE)
    with torch.inference_mode():
        assert load_network(out)(inputs).equal(import_keras(weights, description, MEAN)[0](inputs))

    for wrong, reason in (
        (["--data-root", str(tmp_path / "nowhere")], f"prunebench: cifar10: {tmp_path / 'nowhere'}"),
        (["--mean", str(weights)], f"prunebench: {weights}: not a NumPy file"),
    ):
        with pytest.raises(SystemExit) as caught:
            main([*arguments, *wrong])
        printed = capsys.readouterr().err
        assert caught.value.code == 2
        assert printed.startswith(reason)
        assert printed.count("\n") == 1
    np.save(mean, np.zeros((32, 32, 3), np.float32))
    with pytest.raises(SystemExit):
        main([*arguments, "--mean", str(mean)])
    assert "takes images of (3, 8, 8) (channels, height, width), but the mean image is (3, 32, 32)" in capsys.readouterr().err


# --- The released networks -----------------------------------------------------------------------------------------------------

# Blocks in the stages; reductions as the papers print them, the one of a single block apart.
RELEASED = {
    "base": ((9, 9, 9), 0.0),
    "cka/iteration9": ((6, 3, 8), 37.52),
    "consensus/iteration0": ((8, 9, 9), 3.75),
    "consensus/iteration14": ((2, 2, 8), 56.29),
    "consensus/iteration15": ((2, 2, 7), 60.04),
    "consensus/iteration20": ((2, 2, 2), 78.80),
}
# Of the 10,000 official test images.
CORRECT = {"base": 9230, "cka/iteration9": 9355, "consensus/iteration0": 9279}


def released(name: str, mean: torch.Tensor) -> tuple[Any, Architecture]:
    files = shared_data("released", f"{name}.h5"), shared_data("released", f"{name}.json")
    return import_keras(*files, mean, "resnet56")


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with CIFAR-10: that of PRUNEBENCH_DATA, or one unpacked from the shared data."""
    given = os.environ.get("PRUNEBENCH_DATA")
    if given and (Path(given) / cifar10.DATASET.folder).is_dir():
        return Path(given)
    root = tmp_path_factory.mktemp("data")
    subprocess.run([sys.executable, shared_data("unpack_cifar10.py"), root], check=True, stdout=subprocess.DEVNULL)
    return root


@pytest.fixture(scope="module")
def mean(data_root: Path) -> torch.Tensor:
    return training_mean(data_root)


@pytest.fixture(scope="module")
def base(mean: torch.Tensor) -> Any:
    return released("base", mean)[0]


@pytest.fixture(scope="module")
def golden_split(data_root: Path) -> Any:
    """The images of the golden values: the first 100 of each class in the first file, class by class."""
    train = load_splits(cifar10.DATASET, data_root, "train", validation_fraction=0)
    first = train.labels[:10_000]
    split = train.subset(torch.cat([(first == label).nonzero().flatten()[:100] for label in range(10)]))
    assert split.indices.tolist() == golden_scores()["image_index_in_data_batch_1"]
    return split


def golden_scores() -> Any:
    return json.loads(shared_data("golden", "resnet56_scores.json").read_text(encoding="utf-8"))


@pytest.mark.shared
@pytest.mark.parametrize("name", RELEASED)
def test_released_files_are_imported(name: str) -> None:
    sizes, reduction = RELEASED[name]
    mean = torch.full((3, 32, 32), 0.5)
    network, found = released(name, mean)
    assert tuple(stage_sizes(found).values()) == sizes
    dense = find_model("resnet56").dense("resnet56", (3, 32, 32), 10)
    assert round(flops_reduction(found, dense), 2) == reduction
    arrays = read_weights(shared_data("released", f"{name}.h5"))
    kept = sum(array.size for weights in arrays.values() for array in weights.values())
    ours = [tensor for key, tensor in network.state_dict().items() if not key.endswith("tracked") and "normalise" not in key]
    assert sum(tensor.numel() for tensor in ours) == kept


@pytest.mark.shared
def test_mean_image_is_the_one_that_numpy_computes(data_root: Path, mean: torch.Tensor) -> None:
    train = load_splits(cifar10.DATASET, data_root, "train", validation_fraction=0)
    pixels = train.pixels(torch.arange(len(train)))[:, :, :4].numpy()
    exact = pixels.mean(0, dtype=np.float64) / 255
    assert np.array_equal(mean[:, :4].numpy(), np.mean(pixels.astype(np.float32) / 255, axis=0))
    assert 0 < np.abs(mean[:, :4].numpy() - exact).max() < 2e-5


@pytest.mark.shared
def test_released_network_has_the_golden_features(base: Any, golden_split: Any) -> None:
    some = torch.arange(0, 1000, 5)
    with torch.inference_mode():
        features = base.features(to_unit(golden_split.pixels(some)))
        probabilities = base.classify(features).softmax(1)
    with np.load(shared_data("golden", "resnet56_features.npz")) as golden:
        assert golden["labels"][some].tolist() == golden_split.labels[some].tolist()
        np.testing.assert_allclose(features, golden["dense"][some], atol=2e-5)
        np.testing.assert_allclose(probabilities, golden["logits"][some], atol=1e-5)


@pytest.mark.shared
def test_silenced_blocks_have_the_golden_features(base: Any, golden_split: Any) -> None:
    some = torch.arange(0, 1000, 50)
    features = silenced_features(base, to_unit(golden_split.pixels(some)), golden_scores()["blocks"])
    with np.load(shared_data("golden", "resnet56_features.npz")) as golden:
        np.testing.assert_allclose(features[1:], golden["silenced"][:, some], atol=1e-4)


@pytest.mark.shared
@pytest.mark.slow
def test_scores_of_images_are_the_published_ones(base: Any, golden_split: Any) -> None:
    """From the released files and the images to the eight scores: importer, sweep, statistics, metrics, consensus."""
    golden = golden_scores()
    probe = Probe(base, golden["blocks"], golden_split, 10, needs=needs_of([find_criterion("consensus")]))
    assert list(probe.blocks) == golden["blocks"]
    for name in METRICS:
        tolerance = 1e-3 if name.startswith("gaussian") else 1e-4
        np.testing.assert_allclose(probe.scores(name), golden["scores"][name], rtol=tolerance, err_msg=name)
    ranks = sum(np.argsort(np.argsort(golden["scores"][name])) + 1 for name in METRICS)
    assert np.array_equal(np.argsort(probe.scores("consensus"), kind="stable"), np.argsort(ranks, kind="stable"))


@pytest.mark.shared
@pytest.mark.slow
def test_scores_depend_neither_on_the_batch_size_nor_on_the_threads(base: Any, golden_split: Any) -> None:
    names = [*METRICS, "taylor", "block_influence", "loss_increase"]
    before, found = torch.get_num_threads(), []
    try:
        for batch_size, threads in ((37, 2), (250, 1)):
            torch.set_num_threads(threads)
            probe = Probe(base, golden_scores()["blocks"], golden_split, 10, batch_size=batch_size)
            found.append({name: probe.scores(name) for name in names})
    finally:
        torch.set_num_threads(before)
    for name in names:
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-5, err_msg=name)


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("name", CORRECT)
def test_released_networks_have_the_published_accuracy(name: str, data_root: Path, mean: torch.Tensor) -> None:
    test = load_splits(cifar10.DATASET, data_root, "test")
    network = released(name, mean)[0].to(memory_format=torch.channels_last)
    correct, _ = classify(network, test, torch.device("cpu"), 100)
    # The closest call among all images and these networks is decided by 4e-4 in the logits, so no rounding changes the number.
    assert correct == CORRECT[name]
