"""Networks made of blocks: what they are called, how they are built, saved and loaded.

This file and the definitions of models import no torch, since they are read whenever the workflow is parsed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prunebench import plugins
from prunebench.artifacts import fingerprint

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Block:
    """A residual block of a dense network.

    Attributes:
        name: ``stage2.block7``; never changes when neighbours are removed.
        stage: Number of its stage, from 1.
        position: Its place in the dense stage, from 0.
        keeps_shape: Whether its output has the shape of its input, so that the identity can take its place.
        kind: What it computes, where blocks of a stage that keep the shape may differ; those of one kind are alike.
    """

    name: str
    stage: int
    position: int
    keeps_shape: bool
    kind: str = ""


@dataclass(frozen=True)
class Architecture:
    """All that is needed to build a network, but its weights.

    Attributes:
        model: Name of a built-in model, or the path of a Python file that defines one.
        input_shape: (channels, height, width).
        classes: Number of classes.
        blocks: Names of the blocks that are there, in order.
        options: What else the model's ``build`` needs.
    """

    model: str
    input_shape: tuple[int, int, int]
    classes: int
    blocks: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    def without(self, removed: Sequence[str]) -> Architecture:
        """The architecture that is left when ``removed`` blocks are gone."""
        blocks = tuple(block for block in self.blocks if block not in removed)
        return Architecture(self.model, self.input_shape, self.classes, blocks, self.options)

    def to_json(self) -> dict[str, Any]:
        """The keys of ``architecture.json`` that describe the network."""
        return {
            "model": self.model,
            "input_shape": list(self.input_shape),
            "classes": self.classes,
            "blocks": list(self.blocks),
            "options": dict(self.options),
        }

    @property
    def identity(self) -> str:
        """Twelve hexadecimal digits that networks share if they compute the same operations on the same shapes.

        The blocks of a stage that keep the shape and are of one kind are alike, so it does not matter which of them are left.
        """
        kinds = {
            block.name: f"stage {block.stage}, keeps shape: {block.keeps_shape}" + (f", {block.kind}" if block.kind else "")
            for block in find_model(self.model).blocks()
        }
        alike = {name: f"{place}: {kinds.get(name, name)}" for place, name in enumerate(self.blocks)}

        def renamed(value: Any) -> Any:
            if isinstance(value, Mapping):
                return {alike.get(key, key): renamed(item) for key, item in value.items()}
            if isinstance(value, list | tuple):
                return [renamed(item) for item in value]
            return alike.get(value, value) if isinstance(value, str) else value

        return fingerprint(renamed(self.to_json()))[:12]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Architecture:
        """The inverse of ``to_json``."""
        channels, height, width = content["input_shape"]
        if not isinstance(content["model"], str):
            raise TypeError(f"model is {content['model']!r}, expected a name or the path of a Python file")
        return cls(
            content["model"],
            (channels, height, width),
            content["classes"],
            tuple(content["blocks"]),
            content.get("options", {}),
        )


@dataclass(frozen=True)
class Model:
    """A plugin: a family member such as ``resnet56``.

    Attributes:
        name: As in configs and paths.
        blocks: The blocks of the dense network.
        build: Makes the untrained module of an architecture: float images in [0, 1] in, logits out. Torch is imported in it.
        macs: Multiply-accumulates of convolutions, dense layers and attention products for one image.
        source: Paper and section.
        narrows: Whether ``build`` knows the option ``hidden_channels`` (a block's name to the number of filters of its ``conv1``),
            so that filters can be pruned.
        weights: Numbers in the file of an architecture's weights, to foretell disk space; without it the network is built to count.
    """

    name: str
    blocks: Callable[[], Sequence[Block]]
    build: Callable[[Architecture], nn.Module]
    macs: Callable[[Architecture], int]
    source: str = ""
    narrows: bool = False
    weights: Callable[[Architecture], int] | None = None

    def dense(self, reference: str, input_shape: tuple[int, int, int], classes: int, **options: Any) -> Architecture:
        """The architecture of the unpruned network; ``reference`` is what the config calls the model: its name, or a path."""
        return Architecture(reference, input_shape, classes, tuple(block.name for block in self.blocks()), options)


def find_model(reference: str) -> Model:
    """The model that a name or the path of a Python file stands for."""
    return plugins.find(Model, "models", reference)
