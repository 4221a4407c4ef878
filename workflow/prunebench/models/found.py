"""Models whose blocks are found and not listed: any network of torch modules, such as torchvision's and timm's.

``found_model`` needs a function that makes the network; blocks, stages, multiply-accumulates and removal follow from it. What
can be found is described in ``prunebench.models.modules.finding``. Torch is imported when the blocks are first asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING

from prunebench.errors import PrunebenchError
from prunebench.models import Architecture, Block, Model

if TYPE_CHECKING:
    from torch import nn

    from prunebench.models.modules.finding import Found
    from prunebench.models.modules.found import Program

Shape = tuple[int, int, int]
Make = Callable[[Shape, int], "nn.Module"]


def found_model(name: str, make: Make, source: str = "", *, input_shape: Shape = (3, 224, 224), classes: int = 1000) -> Model:
    """A model around any network of torch modules.

    Args:
        name: As in configs and paths.
        make: ``make((channels, height, width), classes)`` gives the untrained network: images normalised by their dataset's
            statistics in, logits out. It draws its weights from torch's generator and fetches none.
        source: Paper and section.
        input_shape: A size that the network can be made for: blocks are looked for with it. A smaller one is faster.
        classes: The same for the number of classes.

    Raises:
        PrunebenchError: from the model's functions: no blocks are found, or the network cannot be taken apart between them.
    """

    def network(input_shape: Shape, classes: int) -> nn.Module:
        # A library may import torchvision, which has to be imported in this way first where it does not fit the torch.
        from prunebench.torchvision_import import import_torchvision

        import_torchvision()
        return make(input_shape, classes)

    def skeleton(input_shape: Shape, classes: int) -> nn.Module:
        from prunebench.models.modules.finding import make_skeleton

        return make_skeleton(name, lambda: network(input_shape, classes))

    @cache
    def found() -> Found:
        from prunebench.models.modules.finding import find_blocks

        return find_blocks(name, skeleton(input_shape, classes), input_shape)

    @cache
    def program(input_shape: Shape, classes: int) -> Program:
        from prunebench.models.modules.finding import take_apart

        return take_apart(name, skeleton(input_shape, classes), input_shape, classes, found())

    @cache
    def costs(input_shape: Shape, classes: int) -> Mapping[str, int]:
        from prunebench.models.modules.finding import block_macs

        return block_macs(name, skeleton(input_shape, classes), input_shape, found())

    def blocks() -> list[Block]:
        # Taken apart here too, so that what cannot be is refused when a suite is planned and not in a job.
        program(input_shape, classes)
        return list(found().blocks)

    def build(architecture: Architecture) -> nn.Module:
        from prunebench.models.modules.found import FoundNetwork

        _no_options(name, architecture)
        parts = program(architecture.input_shape, architecture.classes)
        whole = network(architecture.input_shape, architecture.classes)
        return FoundNetwork(whole, parts, architecture.blocks, architecture.input_shape[0])

    def macs(architecture: Architecture) -> int:
        _no_options(name, architecture)
        each = costs(architecture.input_shape, architecture.classes)
        return each[""] - sum(each[block.name] for block in found().blocks if block.name not in architecture.blocks)

    return Model(name, blocks, build, macs, source)


def _no_options(name: str, architecture: Architecture) -> None:
    if architecture.options:
        raise PrunebenchError(f"model {name} has no options, but is given {', '.join(architecture.options)}")
