"""Networks from the layer-pruning papers: Keras files (architecture as JSON, weights as HDF5) to a CIFAR ResNet of this package.

The architecture is read, not guessed: every layer has to stand where ``prunebench.models.cifar_resnet`` has it and to compute the
same, down to padding and batch-norm epsilon. What is left over or different is refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunebench.errors import PrunebenchError
from prunebench.models import Architecture, find_model
from prunebench.models.cifar_resnet import CHANNELS, MODELS

if TYPE_CHECKING:  # torch and h5py are imported where they are used, since this module lies beside the definitions of models
    import numpy as np
    import torch
    from torch import nn

    from prunebench.data import Split

# Weights of a Keras layer and of the torch module that takes its place.
WEIGHTS = {
    "Conv2D": {"kernel": "weight", "bias": "bias"},
    "BatchNormalization": {
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
    },
    "Dense": {"kernel": "weight", "bias": "bias"},
}
# What the config of a layer has to say.
CONVOLUTION = {"padding": "same", "use_bias": True, "activation": "linear", "dilation_rate": [1, 1], "groups": 1}
IMAGES = {"data_format": "channels_last"}
# Keys that not every version of Keras writes for every layer; where they are missing, the value expected here is meant.
OPTIONAL = {"dtype", "groups", "data_format"}


@dataclass(frozen=True)
class KerasLayer:
    """A layer that has weights.

    Attributes:
        name: Its name in both files.
        kind: Keras' class.
    """

    name: str
    kind: str


@dataclass(frozen=True)
class KerasNetwork:
    """What the architecture's JSON describes.

    Attributes:
        architecture: In the terms of this package; the blocks left in a stage are called block0, block1, ... in their order.
        layers: Name of a module of our network to the Keras layer with its weights.
    """

    architecture: Architecture
    layers: dict[str, KerasLayer]


def import_keras(
    weights: Path, architecture: Path, mean: torch.Tensor, model: str | None = None
) -> tuple[nn.Module, Architecture]:
    """Build the network of a pair of Keras files, in evaluation mode, on the CPU.

    Args:
        weights: HDF5 file of weights, or of a whole model.
        architecture: JSON file of the architecture.
        mean: Mean image of the training set in [0, 1], (channels, height, width); subtracted from images, which are not scaled.
        model: The unpruned network that this one descends from; may be left out if it is unpruned itself.

    Returns:
        The network, which takes images in [0, 1] and returns logits (Keras' network ends in a softmax), and its architecture.

    Raises:
        PrunebenchError: a file is missing, damaged, or describes another kind of network, or the files do not belong together.
    """
    import torch

    from prunebench.models.files import build, load_into

    described = read_architecture(architecture, model)
    if tuple(mean.shape) != described.architecture.input_shape:
        raise PrunebenchError(
            f"{architecture}: the network takes images of {described.architecture.input_shape} "
            f"(channels, height, width), but the mean image is {tuple(mean.shape)}"
        )
    arrays = read_weights(weights)
    missing = [layer.name for layer in described.layers.values() if layer.name not in arrays]
    surplus = sorted(set(arrays) - {layer.name for layer in described.layers.values()})
    for names, what in ((missing, f"lacks layer {', '.join(missing[:3])}"), (surplus, f"has layer {', '.join(surplus[:3])} too")):
        if names:
            raise PrunebenchError(f"{weights}: {what}: not the weights of {architecture}")
    try:
        network = build(described.architecture)
    except PrunebenchError as error:
        raise PrunebenchError(f"{architecture}: {error}") from error
    state = network.state_dict()
    state["normalise.mean"], state["normalise.std"] = mean.float(), torch.ones_like(mean, dtype=torch.float32)
    for module, layer in described.layers.items():
        own = WEIGHTS[layer.kind]
        if set(arrays[layer.name]) != set(own):
            raise PrunebenchError(
                f"{weights}: layer {layer.name} has {', '.join(sorted(arrays[layer.name]))}, expected {', '.join(own)}"
            )
        for name, parameter in own.items():
            array = arrays[layer.name][name]
            # (kh, kw, in, out) to (out, in, kh, kw); (in, out) to (out, in)
            tensor = torch.from_numpy(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T).contiguous()
            wanted = state[f"{module}.{parameter}"]
            if tensor.shape != wanted.shape:
                raise PrunebenchError(
                    f"{weights}: {layer.name}/{name} has shape {array.shape}, which does not fit {architecture}: "
                    f"{tuple(wanted.shape)} expected in torch's order"
                )
            if not tensor.isfinite().all() or (name == "moving_variance" and tensor.min() < 0):
                raise PrunebenchError(f"{weights}: {layer.name}/{name} has values that are not finite, or a negative variance")
            state[f"{module}.{parameter}"] = tensor
    load_into(network, state, weights)
    return network.eval(), described.architecture


def read_architecture(path: Path, model: str | None = None) -> KerasNetwork:
    """Read the JSON of a Keras model (``model.to_json()`` of Keras 2) and follow its layers from the output to the input.

    Args:
        path: The file.
        model: The unpruned network that it descends from; if None, the file has to be of an unpruned one.

    Raises:
        PrunebenchError: the file is missing, is no such JSON, or describes anything but a CIFAR ResNet as Keras makes it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PrunebenchError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise PrunebenchError(f"{path}: not JSON, or cut short ({error})") from None
    try:
        return _follow(content, model)
    except PrunebenchError as error:
        raise PrunebenchError(f"{path}: {error}") from None
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise PrunebenchError(f"{path}: not a network as Keras 2 writes it ({type(error).__name__}: {error})") from None


def read_weights(path: Path) -> dict[str, dict[str, np.ndarray[Any, Any]]]:
    """Read all layers that have weights from a Keras HDF5 file.

    Returns:
        Layer to name of the weight (``kernel``, ``moving_mean``) to a float32 array in Keras' order.

    Raises:
        PrunebenchError: the file is missing, truncated, no HDF5, or no file of Keras weights.
    """
    import h5py
    import numpy as np

    if not path.is_file():
        raise PrunebenchError(f"{path}: no such file")
    found: dict[str, dict[str, np.ndarray[Any, Any]]] = {}
    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            for layer in root.attrs["layer_names"]:
                layer = _text(layer)
                for weight in root[layer].attrs["weight_names"]:
                    array = root[layer][_text(weight)][()]
                    if not isinstance(array, np.ndarray):
                        raise PrunebenchError(f"{path}: {layer}/{_text(weight)} is no array of numbers")
                    if array.dtype != np.float32:
                        raise PrunebenchError(f"{path}: {layer}/{_text(weight)} is {array.dtype}, expected float32")
                    # 'conv2d_1/kernel:0' is the kernel.
                    found.setdefault(layer, {})[_text(weight).rpartition("/")[2].removesuffix(":0")] = array
    except (OSError, RuntimeError) as error:  # what HDF5's library has to say of damaged files
        raise PrunebenchError(f"{path}: not an HDF5 file, or a damaged one ({_line(error)})") from None
    except (KeyError, TypeError, ValueError, AttributeError, MemoryError) as error:
        raise PrunebenchError(f"{path}: not a file of Keras weights, or a damaged one ({_line(error)})") from None
    return found


def training_mean(root: Path) -> torch.Tensor:
    """Mean image of CIFAR-10's 50,000 training images in [0, 1], (3, 32, 32), as the papers' scripts compute it.

    They add up image after image in single precision, as NumPy's ``mean`` does over the first axis. That is off by up to 1.4e-5, but
    it is what the networks were trained with, and one test image is classified otherwise without it. Additions are
    element by element and in a fixed order, so the result is the same on every machine.

    Raises:
        PrunebenchError: the images are missing or corrupt.
    """
    from prunebench.data import find_dataset, load_splits

    return mean_image(load_splits(find_dataset("cifar10"), root, "train", validation_fraction=0))


def mean_image(split: Split) -> torch.Tensor:
    """Mean of a split's images in [0, 1], (channels, height, width), added up as ``training_mean`` says."""
    import numpy as np
    import torch

    total = np.zeros(split.dataset.input_shape, np.float32)
    for positions in torch.split(torch.arange(len(split)), 1000):
        for image in split.pixels(positions).numpy().astype(np.float32) / np.float32(255):
            total += image
    return torch.from_numpy(total / np.float32(len(split)))


def mean_from(path: Path) -> torch.Tensor:
    """Mean image from a NumPy file in Keras' order, (height, width, channels) in [0, 1], as (channels, height, width).

    Raises:
        PrunebenchError: the file is missing, is no NumPy array of this kind, or has values beyond [0, 1].
    """
    import numpy as np
    import torch

    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise PrunebenchError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError) as error:
        raise PrunebenchError(f"{path}: not a NumPy file (.npy), or a damaged one ({_line(error)})") from None
    if not isinstance(array, np.ndarray) or array.ndim != 3 or array.dtype.kind != "f":
        raise PrunebenchError(f"{path}: expected one array of floats, (height, width, channels)")
    if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
        raise PrunebenchError(f"{path}: the mean image has values beyond [0, 1]; divide pixels by 255 first")
    return torch.from_numpy(array.astype(np.float32).transpose(2, 0, 1)).contiguous()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _text(name: object) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


class _Layers:
    """The layers of a description, each to be taken once."""

    def __init__(self, content: Any) -> None:
        config = content["config"]
        self.layers = {layer["name"]: layer for layer in config["layers"]}
        if len(self.layers) != len(config["layers"]):
            raise PrunebenchError("two layers have the same name")
        [[self.input, _, _]] = config["input_layers"]
        [[self.output, _, _]] = config["output_layers"]

    def kind(self, name: str) -> str:
        """Keras' class of a layer that is still there."""
        if name not in self.layers:
            raise PrunebenchError(f"layer {name} is not there, or is used where no CIFAR ResNet uses it")
        return str(self.layers[name]["class_name"])

    def take(self, name: str, kind: str, **expected: Any) -> tuple[dict[str, Any], list[str]]:
        """Config and inputs of a layer, which is struck off."""
        if self.kind(name) != kind:
            raise PrunebenchError(f"layer {name} is {self.kind(name)}, where a CIFAR ResNet has {kind}")
        layer = self.layers.pop(name)
        config: dict[str, Any] = layer["config"]
        for key, value in {"dtype": "float32", **expected}.items():
            if (key in config or key not in OPTIONAL) and config.get(key) != value:
                raise PrunebenchError(f"layer {name} has {key} {config.get(key)}, expected {value}")
        if len(layer["inbound_nodes"]) > 1:
            raise PrunebenchError(f"layer {name} is applied {len(layer['inbound_nodes'])} times")
        inputs = [inbound for node in layer["inbound_nodes"] for inbound in node]
        if any(inbound[1:] not in ([0, 0], [0, 0, {}]) for inbound in inputs):
            raise PrunebenchError(f"layer {name} takes {inputs}, expected the one output of a layer that is applied once")
        return config, [inbound[0] for inbound in inputs]

    def take_simple(self, name: str, kind: str, **expected: Any) -> tuple[dict[str, Any], str]:
        """The same for a layer with one input."""
        config, [before] = self.take(name, kind, **expected)
        return config, before

    def take_batch_norm(self, name: str) -> str:
        """Input of a batch norm over channels."""
        config, before = self.take_simple(name, "BatchNormalization", epsilon=1e-3, center=True, scale=True)
        if config["axis"] not in (-1, 3, [3]):
            raise PrunebenchError(f"layer {name} has axis {config['axis']}, expected the channels, 3")
        return before

    def take_convolution(self, name: str, kernel: int, stride: int) -> tuple[int, str]:
        """Number of filters, and input."""
        square = {"kernel_size": [kernel, kernel], "strides": [stride, stride]}
        config, before = self.take_simple(name, "Conv2D", **CONVOLUTION, **IMAGES, **square)
        return int(config["filters"]), before


def _follow(content: Any, model: str | None) -> KerasNetwork:
    """From the output, layer by layer, to the input."""
    layers = _Layers(content)
    head, name = layers.take_simple(layers.output, "Dense", activation="softmax", use_bias=True)
    _, name = layers.take_simple(name, "Flatten", **IMAGES)
    pool, name = layers.take_simple(name, "AveragePooling2D", **IMAGES, padding="valid")
    found: list[tuple[int, int, dict[str, KerasLayer]]] = []  # stage, hidden channels, layers; the last block first
    stage = len(CHANNELS)
    while True:
        _, before = layers.take_simple(name, "Activation", activation="relu")
        if layers.kind(before) != "Add":
            break
        stage, hidden, own, name = _block(layers, before, stage)
        found.append((stage, hidden, own))
    first = {"bn": KerasLayer(before, "BatchNormalization")}
    stem = layers.take_batch_norm(before)
    filters, name = layers.take_convolution(stem, 3, 1)
    if filters != CHANNELS[0]:
        raise PrunebenchError(f"layer {stem} has {filters} filters, expected {CHANNELS[0]}")
    first["conv"] = KerasLayer(stem, "Conv2D")
    config, _ = layers.take(layers.input, "InputLayer")
    if name != layers.input:
        raise PrunebenchError(f"layer {stem} does not follow the input layer")
    if layers.layers:
        raise PrunebenchError(f"layers {', '.join(list(layers.layers)[:3])} have no place in a CIFAR ResNet")
    _, height, width, channels = config["batch_input_shape"]
    size = [-(-height // 4), -(-width // 4)]
    if [pool["pool_size"], pool["strides"]] != [size, size]:
        raise PrunebenchError(f"the average is over {pool['pool_size']} in steps of {pool['strides']}, expected {size}")
    sizes = [sum(stage == number for stage, _, _ in found) for number in range(1, len(CHANNELS) + 1)]
    modules, hidden_channels = dict(first), {}
    blocks: list[str] = []
    for stage, hidden, own in reversed(found):
        block = f"stage{stage}.block{sum(name.startswith(f'stage{stage}.') for name in blocks)}"
        blocks.append(block)
        modules |= {f"{block}.{module}": layer for module, layer in own.items()}
        if hidden != CHANNELS[stage - 1]:
            hidden_channels[block] = hidden
    modules["classifier"] = KerasLayer(layers.output, "Dense")
    options: dict[str, Any] = {"keras_compatible": True} | ({"hidden_channels": hidden_channels} if hidden_channels else {})
    shape = (int(channels), int(height), int(width))
    return KerasNetwork(Architecture(_origin(sizes, model), shape, int(head["units"]), tuple(blocks), options), modules)


def _block(layers: _Layers, name: str, stage: int) -> tuple[int, int, dict[str, KerasLayer], str]:
    """The residual block that ends in an addition: stage, hidden channels, layers with weights, and the block's input.

    ``stage`` is that of the block behind it, so that stages can only go down.
    """
    _, summands = layers.take(name, "Add")
    branches = [summand for summand in summands if layers.kind(summand) == "BatchNormalization"]
    shortcuts = [summand for summand in summands if summand not in branches]
    if len(branches) != 1 or len(shortcuts) != 1:
        raise PrunebenchError(f"layer {name} adds {', '.join(summands)}, expected a batch norm and a shortcut")
    [last], [shortcut] = branches, shortcuts
    conv2 = layers.take_batch_norm(last)
    outputs, between = layers.take_convolution(conv2, 3, 1)
    _, bn1 = layers.take_simple(between, "Activation", activation="relu")
    conv1 = layers.take_batch_norm(bn1)
    own = {
        "conv1": KerasLayer(conv1, "Conv2D"),
        "bn1": KerasLayer(bn1, "BatchNormalization"),
        "conv2": KerasLayer(conv2, "Conv2D"),
        "bn2": KerasLayer(last, "BatchNormalization"),
    }
    if outputs not in CHANNELS[:stage]:
        raise PrunebenchError(f"layer {conv2} has {outputs} filters, expected one of {', '.join(map(str, CHANNELS[:stage]))}")
    projects = layers.kind(shortcut) == "Conv2D"
    hidden, before = layers.take_convolution(conv1, 3, 2 if projects else 1)
    if projects:
        filters, origin = layers.take_convolution(shortcut, 1, 2)
        own["shortcut"] = KerasLayer(shortcut, "Conv2D")
        if filters != outputs:
            raise PrunebenchError(f"layer {shortcut} has {filters} filters, but {conv2} has {outputs}")
    else:
        origin = shortcut
    if origin != before:
        raise PrunebenchError(f"layer {name} adds what comes from {origin} and {before}, expected the same")
    return CHANNELS.index(outputs) + 1, hidden, own, before


def _origin(sizes: list[int], model: str | None) -> str:
    """Name of the unpruned network that one with so many blocks in its stages descends from."""
    left = ", ".join(map(str, sizes))
    if not all(sizes):
        raise PrunebenchError(f"{left} blocks in the stages: a stage is empty")
    dense = {known.name: len(known.blocks()) // len(CHANNELS) for known in MODELS}
    if model is None:
        unpruned = [name for name, number in dense.items() if sizes == [number] * len(CHANNELS)]
        if not unpruned:
            raise PrunebenchError(
                f"{left} blocks in the stages: a pruned network; say which it was made from with --model {'|'.join(dense)}"
            )
        return unpruned[0]
    if model not in dense:
        raise PrunebenchError(f"--model {model}: accepted: {', '.join(dense)}")
    if max(sizes) > dense[model]:
        raise PrunebenchError(f"{left} blocks in the stages: more than {find_model(model).name} has, {dense[model]}")
    return model
