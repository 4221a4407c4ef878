"""Pretrained weights from a torch or safetensors file, for any model, to a network of this package.

The file holds a state dict, alone or under ``state_dict`` or ``model`` as training scripts write it. Its names are those of the
library for models whose blocks are found, and those of the model's own modules otherwise. All have to be there, and no others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunebench.errors import PrunebenchError
from prunebench.models import Architecture, find_model
from prunebench.models.files import build

if TYPE_CHECKING:  # torch is imported where it is used, since this module lies beside the definitions of models
    import torch
    from torch import nn


def import_torch(
    weights: Path,
    model: str,
    input_shape: tuple[int, int, int],
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> tuple[nn.Module, Architecture]:
    """Build a dense network and load its weights.

    Args:
        weights: ``.safetensors``, or a file of ``torch.save`` that holds tensors and nothing that runs code.
        model: Name of a model, or path of a Python file that defines one.
        input_shape: (channels, height, width).
        classes: Number of classes.
        mean: What the network's training subtracted from each channel of images in [0, 1]; one value for each.
        std: What it divided by.

    Returns:
        The network in evaluation mode, with the normalisation inside, and its architecture.

    Raises:
        PrunebenchError: the file is missing, corrupt or foreign; a weight is missing, unknown or of another shape; the
            statistics do not fit the channels.
    """
    import torch

    from prunebench.models.modules.found import FoundNetwork

    for name, values in (("mean", mean), ("std", std)):
        if len(values) != input_shape[0]:
            raise PrunebenchError(f"--{name}: {len(values)} values for images of {input_shape[0]} channels; give one for each")
    if min(std) <= 0:
        raise PrunebenchError(f"--std: {min(std):g}, expected more than 0")
    found = find_model(model)
    architecture = found.dense(model, input_shape, classes)
    network = build(architecture)
    prefix = "network." if isinstance(network, FoundNetwork) else ""
    given = {f"{prefix}{name}": tensor for name, tensor in read_state_dict(weights).items()}
    given |= {
        f"normalise.{name}": torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1)
        for name, values in (("mean", mean), ("std", std))
    }
    wanted = network.state_dict()
    # Old files have no such counters, and nothing here reads them.
    given = {name: wanted[name] for name in wanted if name.endswith("num_batches_tracked")} | given
    _check(weights, found.name, prefix, wanted, given)
    network.load_state_dict(given)
    return network.eval(), architecture


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file by name, on the CPU; of copies for data-parallel training, without their prefix ``module.``.

    Raises:
        PrunebenchError: the file is missing, truncated, of another kind, or holds objects other than tensors.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise PrunebenchError(f"{path}: no such file")
    try:
        safe = path.suffix == ".safetensors"
        content: Any = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise PrunebenchError(f"{path}: corrupt or not a safetensors file ({error})") from None
    except Exception as error:  # pickle, zip and torch each have errors of their own for a broken file
        reason = " ".join(str(error).split())[:200]
        raise PrunebenchError(
            f"{path}: corrupt, or not a file of torch.save that holds tensors alone; save the state dict of the network "
            f"({type(error).__name__}: {reason})"
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise PrunebenchError(f"{path}: holds {type(content).__name__}, expected a state dict: names and tensors")
    foreign = [name for name, value in content.items() if not (isinstance(name, str) and isinstance(value, torch.Tensor))]
    if foreign:
        raise PrunebenchError(f"{path}: {foreign[0]!r} is no tensor; expected a state dict: names and tensors")
    if all(name.startswith("module.") for name in content):
        return {name.removeprefix("module."): value for name, value in content.items()}
    return dict(content)


def _check(path: Path, model: str, prefix: str, wanted: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> None:
    """Refuse weights that are not those of the model, with the first few names."""

    def shown(names: Sequence[str]) -> str:
        rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return ", ".join(name.removeprefix(prefix) for name in names[:3]) + rest

    missing = [name for name in wanted if name not in given]
    unknown = [name for name in given if name not in wanted]
    if missing or unknown:
        parts = [f"missing: {shown(missing)}"] if missing else []
        parts += [f"not of this model: {shown(unknown)}"] if unknown else []
        raise PrunebenchError(f"{path}: not the weights of {model}: {'; '.join(parts)}")
    own = ("normalise.mean", "normalise.std")  # their shape comes with the weights
    for name, tensor in wanted.items():
        if given[name].shape != tensor.shape and name not in own:
            raise PrunebenchError(
                f"{path}: {name.removeprefix(prefix)} has shape {tuple(given[name].shape)}, but {model} with this input shape "
                f"and number of classes has {tuple(tensor.shape)}; give --input-shape and --classes as it was trained with"
            )
        if given[name].is_floating_point() and not bool(given[name].isfinite().all()):
            raise PrunebenchError(f"{path}: {name.removeprefix(prefix)} has values that are not finite")
