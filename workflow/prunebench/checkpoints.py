"""Checkpoints: tensors and texts in one file that says what it belongs to and that it is whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from prunebench.artifacts import write_atomically

CHECKPOINT_SECONDS = 10.0
"""Checkpoints are at least so far apart."""


def digest(tensors: Mapping[str, torch.Tensor], *texts: str) -> str:
    """SHA-256 of tensors by name, and of texts; the same on every device and in every memory format."""
    result = hashlib.sha256("\0".join(texts).encode())
    for name in sorted(tensors):
        values = tensors[name].detach().cpu().contiguous()
        result.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        result.update(values.flatten().view(torch.uint8).numpy().tobytes())
    return result.hexdigest()


def save(path: Path, identity: str, tensors: Mapping[str, torch.Tensor], texts: Mapping[str, str]) -> None:
    """Save tensors (on the CPU, contiguous) and texts in one file, whole or not at all; ``identity`` says what they belong to."""
    metadata = {**texts, "identity": identity}
    metadata["sha256"] = _digest(tensors, metadata)
    write_atomically(path, lambda temporary: save_file(dict(tensors), temporary, metadata=metadata))


def load(path: Path, identity: str, what: str) -> tuple[dict[str, torch.Tensor], dict[str, str]] | None:
    """The tensors and texts of a checkpoint, if there is one of this identity; a foreign or corrupt one is named and left out.

    Args:
        path: The file.
        identity: As it was written with.
        what: What begins again without it, for the message: ``training``.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as handle:
            metadata: dict[str, str] = handle.metadata() or {}
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}
    except (SafetensorError, OSError) as error:
        print(f"{path}: corrupt checkpoint ({error}); starting this {what} again", flush=True)
        return None
    if metadata.get("identity") != identity:
        print(f"{path}: checkpoint of another configuration; starting this {what} again", flush=True)
        return None
    if metadata.pop("sha256", None) != _digest(tensors, metadata):
        print(f"{path}: corrupt checkpoint (its SHA-256 is another); starting this {what} again", flush=True)
        return None
    return tensors, metadata


def _digest(tensors: Mapping[str, torch.Tensor], texts: Mapping[str, str]) -> str:
    return digest(tensors, *(f"{key}={texts[key]}" for key in sorted(texts)))
