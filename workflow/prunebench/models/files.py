"""A network on disk: ``architecture.json`` and ``weights.safetensors``, loaded without knowing where they came from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.artifacts import read_json, sha256_of, write_atomically, write_json
from prunebench.errors import CorruptFile, PrunebenchError
from prunebench.models import Architecture, find_model

if TYPE_CHECKING:  # torch is imported where it is used, since this module lies beside the definitions of models
    import torch
    from torch import nn

KEYS = ("model", "input_shape", "classes", "blocks", "sha256")


def save_network(folder: Path, network: nn.Module, architecture: Architecture) -> None:
    """Write the pair of files; the description last, so that a description that exists has its weights."""
    from safetensors.torch import save_file

    weights = folder / "weights.safetensors"
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_atomically(weights, lambda temporary: save_file(tensors, temporary))
    write_json(folder / "architecture.json", {**architecture.to_json(), "sha256": sha256_of(weights)})


def load_architecture(folder: Path) -> Architecture:
    """Read ``architecture.json`` alone.

    Raises:
        PrunebenchError: the file is missing, corrupt or not of the contract.
    """
    path = folder / "architecture.json"
    content = read_json(path, KEYS)
    try:
        return Architecture.from_json(content)
    except (TypeError, ValueError, KeyError) as error:
        raise PrunebenchError(f"{path}: {error} (see docs/data-contracts.md)") from None


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Read ``weights.safetensors`` and hold it to the digest in ``architecture.json``.

    Raises:
        CorruptFile: the file is not the one that the description was written with, or no safetensors file.
        PrunebenchError: a file is missing.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / "weights.safetensors"
    expected = read_json(folder / "architecture.json", KEYS)["sha256"]
    if not path.is_file():
        raise PrunebenchError(f"{path}: no such file")
    if sha256_of(path) != expected:
        raise CorruptFile(path, "its SHA-256 is not the one in architecture.json")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CorruptFile(path, f"not a safetensors file ({error})") from None


def load_network(folder: Path) -> nn.Module:
    """Build the network that the pair of files describes, in evaluation mode, on the CPU.

    Raises:
        PrunebenchError: a file is missing or corrupt, or the weights do not fit the architecture.
    """
    architecture = load_architecture(folder)
    try:
        network = build(architecture)
    except PrunebenchError as error:
        raise PrunebenchError(f"{folder / 'architecture.json'}: {error}") from error
    load_into(network, load_weights(folder), folder / "weights.safetensors")
    return network.eval()


def build(architecture: Architecture) -> nn.Module:
    """The untrained network of an architecture.

    Raises:
        PrunebenchError: the model is unknown or cannot be built from this description.
    """
    model = find_model(architecture.model)
    dense = [block.name for block in model.blocks()]
    if list(architecture.blocks) != [name for name in dense if name in architecture.blocks]:
        raise PrunebenchError(
            f"model {architecture.model}: blocks {', '.join(map(str, architecture.blocks))}: not each a block of this model, "
            f"once and in order; it has {', '.join(dense)}"
        )
    try:
        return model.build(architecture)
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise PrunebenchError(
            f"model {architecture.model}: cannot be built with blocks {architecture.blocks}: {error}"
        ) from error


def load_into(network: nn.Module, weights: dict[str, torch.Tensor], origin: Path) -> None:
    """Load weights strictly, with an error of one line."""
    try:
        network.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise PrunebenchError(f"{origin}: the weights do not fit the architecture: {reason[:300]}") from None
