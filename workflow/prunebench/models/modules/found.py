"""A network of any library as a network of blocks: the network itself, and a program that says how to run it piece by piece."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import torch
from torch import nn
from torch.fx.node import map_aggregate

from prunebench.models.modules import BlockNetwork, Glue, Normalise


@dataclass(frozen=True)
class Value:
    """Stands, among the arguments of an operation, for what an earlier one of the same segment gave."""

    name: str


@dataclass(frozen=True)
class BatchSize:
    """Stands there for the number of images that pass through."""


@dataclass(frozen=True)
class Operation:
    """One step of a forward pass.

    Attributes:
        name: Of its result.
        kind: ``call_module``, ``call_function``, ``call_method`` or ``get_attr``, as in ``torch.fx``.
        target: The module's or attribute's path in the network, the function, or the method's name.
        arguments: Positional arguments; those that are no constants are ``Value`` and ``BatchSize``.
        options: Keyword arguments.
    """

    name: str
    kind: str
    target: Any
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]

    def run(self, network: nn.Module, values: Mapping[str, Any], images: int) -> Any:
        """The result, with modules and weights as they are in the network now."""

        def fill(argument: Any) -> Any:
            if isinstance(argument, Value):
                return values[argument.name]
            return images if isinstance(argument, BatchSize) else argument

        arguments: Any = map_aggregate(self.arguments, fill)
        options: Any = map_aggregate(dict(self.options), fill)
        match self.kind:
            case "call_module":
                return network.get_submodule(self.target)(*arguments, **options)
            case "call_method":
                return getattr(arguments[0], self.target)(*arguments[1:], **options)
            case "call_function":
                return self.target(*arguments, **options)
        return attrgetter(self.target)(network)


@dataclass(frozen=True)
class Segment:
    """A part of a forward pass with one tensor in and one out, (n, ...) each."""

    inputs: str
    operations: tuple[Operation, ...]
    output: str

    def run(self, network: nn.Module, activations: torch.Tensor) -> torch.Tensor:
        """Run it; the modules are those of the network, nothing is copied."""
        values: dict[str, Any] = {self.inputs: activations}
        for operation in self.operations:
            values[operation.name] = operation.run(network, values, len(activations))
        result: torch.Tensor = values[self.output]
        return result


@dataclass(frozen=True)
class Place:
    """Where a block is in the dense network.

    Attributes:
        path: Its module's name in the network.
        arguments: Constants that it is called with behind the activations.
        options: Constant keyword arguments.
        behind: What stands between it and the next block, if anything does.
    """

    path: str
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    behind: Segment | None = None


@dataclass(frozen=True)
class Program:
    """A dense network's forward pass in evaluation mode, taken apart. Only data, without weights; every network shares it.

    Attributes:
        stem: Normalised images to the input of the first block.
        places: Names of the blocks in order, with their places.
        pool: Output of the last block to features.
        classify: Features to logits.
    """

    stem: Segment
    places: Mapping[str, Place]
    pool: Segment
    classify: Segment

    def __deepcopy__(self, memo: object) -> Program:
        return self


class Removed(nn.Module):
    """The identity in the place of a block, however the block is called."""

    def forward(self, activations: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """(n, ...) to itself."""
        return activations


class Between(Glue):
    """What stands between two blocks of a network, such as downsampling. It holds no modules, so that none is there twice."""

    def __init__(self, network: nn.Module, segment: Segment) -> None:
        super().__init__()
        self._network = (network,)  # in a tuple, which hides it from torch
        self.segment = segment

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """(n, ...) to (n, ...)."""
        return self.segment.run(self._network[0], activations)


class FoundNetwork(BlockNetwork):
    """A network as its library makes it, behind a normalisation, with the identity in the place of removed blocks.

    Names of weights are ``normalise.*`` and ``network.*``, the library's own. ``forward`` is the library's; stem, blocks, pooling
    and classifier are the same pass in pieces, as it is in evaluation mode.
    """

    def __init__(self, network: nn.Module, program: Program, blocks: Collection[str], channels: int) -> None:
        super().__init__()
        self.normalise = Normalise(channels)
        self.network = network
        self.program = program
        self.blocks = tuple(name for name in program.places if name in blocks)
        self.between: list[tuple[str, nn.Module]] = []  # a list, which hides them from torch
        for name, place in program.places.items():
            if name not in blocks:
                network.set_submodule(place.path, Removed())
            elif place.arguments or place.options:
                # Whoever calls the block need not know what the network calls it with.
                constants = _Constants(place.arguments, place.options)
                network.get_submodule(place.path).register_forward_pre_hook(constants, with_kwargs=True)
            if place.behind:
                self.between.append((name, Between(network, place.behind)))

    def stem(self, images: torch.Tensor) -> torch.Tensor:
        """Images (n, c, h, w) in [0, 1] to the input of the first block, (n, c', h', w') or (n, tokens, d)."""
        return self.program.stem.run(self.network, self.normalise(images))

    def named_blocks(self) -> list[tuple[str, nn.Module]]:
        """The blocks in order, and between them what is no block."""
        between = dict(self.between)
        pieces: list[tuple[str, nn.Module]] = []
        for name, place in self.program.places.items():
            if name in self.blocks:
                pieces.append((name, self.network.get_submodule(place.path)))
            if name in between:
                pieces.append((f"behind {name}", between[name]))
        return pieces

    def pool(self, activations: torch.Tensor) -> torch.Tensor:
        """Output of the last block to features (n, d): the inputs of the last dense layer."""
        return self.program.pool.run(self.network, activations)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Features (n, d) to logits (n, classes)."""
        return self.program.classify.run(self.network, features)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (n, c, h, w) in [0, 1] to logits (n, classes), by the library's own forward pass."""
        logits: torch.Tensor = self.network(self.normalise(images))
        return logits


@dataclass(frozen=True)
class _Constants:
    """Calls a module with the same constants always."""

    arguments: tuple[Any, ...]
    options: Mapping[str, Any]

    def __call__(self, module: nn.Module, inputs: Any, options: Any) -> tuple[Any, Any]:
        return (inputs[0], *self.arguments), dict(self.options)
