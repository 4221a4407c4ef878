"""Finding the removable blocks of a network, and taking its forward pass apart between them.

A block is a module with parameters, called once in a forward pass with one tensor in and one out, that is the identity on
non-negative inputs when all its parameters are zero, and otherwise adds something that depends on its input. That is what silencing a
residual block means, and it holds whether a ReLU follows the addition (ResNet) or nothing does (MobileNetV2, pre-norm
transformers). Of modules within each other it is the innermost, unless the outer one does more than to run those in it. Modules of the
same class that change the shape, or that have no shortcut, are blocks that stay.

Networks are looked at as skeletons: on the meta device, where tensors have shapes and no values, so that it takes no memory.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn

import torch
from torch import fx, nn
from torch.fx.node import map_aggregate

from prunebench.artifacts import fingerprint
from prunebench.errors import PrunebenchError
from prunebench.evaluation.complexity import macs_by_module
from prunebench.models import Block
from prunebench.models.modules.found import BatchSize, Operation, Place, Program, Removed, Segment, Value

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Found:
    """The blocks of a dense network.

    Attributes:
        blocks: In the order in which they are applied.
        paths: Names of their modules in the network, in the same order.
        classifier: Name of the last dense layer.
    """

    blocks: tuple[Block, ...]
    paths: tuple[str, ...]
    classifier: str


@dataclass(frozen=True)
class _Call:
    """One call of a module: shapes of its first input and of its output, and what else it was given."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]


def make_skeleton(name: str, make: Callable[[], nn.Module]) -> nn.Module:
    """A network on the meta device, in evaluation mode. Torch's generator is left as it was.

    Raises:
        PrunebenchError: the network cannot be made, or has a weight under two names.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                network = make()
        except Exception:  # a library may need values there; the same without the device says what else is wrong
            try:
                network = make()
            except PrunebenchError:
                raise
            except Exception as error:
                raise PrunebenchError(f"model {name}: cannot be made: {_line(error)}") from error
    if not isinstance(network, nn.Module):
        raise PrunebenchError(f"model {name}: make returns {type(network).__name__}, expected a torch module")
    _check_weights(name, network)  # before it goes to the meta device, where what modules share comes apart
    return network.to("meta").eval()


def find_blocks(name: str, skeleton: nn.Module, input_shape: Shape) -> Found:
    """The blocks of a network, named by their stages.

    A stage is a run of blocks that begins at the first one, at one that does not keep the shape, or where the shape has changed
    since the block before.

    Raises:
        PrunebenchError: there is none, or no dense layer to take features from.
    """
    calls = _record(name, skeleton, input_shape)
    modules = dict(skeleton.named_modules())
    zeros = _zeros(skeleton)
    once = {path: made[0] for path, made in calls.items() if len(made) == 1 and made[0]}
    removable: list[str] = []
    adds: dict[tuple[str, str, int], bool] = {}
    for path, call in once.items():  # a module comes after those in it
        if call and _may_be_block(modules[path]) and _is_identity(name, path, zeros, call):
            inner = [other for other in removable if other.startswith(f"{path}.")]
            # Asked once of modules that are alike.
            key = (_kind(modules[path]), repr(call), len(inner))
            if key not in adds:
                below = [other.removeprefix(f"{path}.") for other in inner]
                adds[key] = _has_branch(zeros.get_submodule(path), call, below)
            if adds[key]:
                removable = [other for other in removable if other not in inner] + [path]
    if not removable:
        _refuse(name, "it has no residual block: no module in it is the identity when its parameters are zero")
    classes = {type(modules[path]) for path in removable}
    members = [
        path
        for path in once  # in the order in which they are called
        if path in removable or (type(modules[path]) in classes and not any(_nested(path, other) for other in removable))
    ]
    dense = [path for path in calls if isinstance(modules[path], nn.Linear) and not any(_nested(path, m) for m in members)]
    if not dense:
        _refuse(name, "it has no dense layer (torch.nn.Linear) behind its blocks, whose inputs would be the features")
    blocks: list[Block] = []
    stage = position = 0
    after: tuple[int, ...] = ()
    for path in members:
        call = once[path]
        assert call is not None
        position += 1
        # Sorted, since moving the channels to the other end begins no stage.
        if path not in removable or sorted(call.before) != sorted(after):
            stage, position = stage + 1, 0
        after = call.after
        blocks.append(Block(f"stage{stage}.block{position}", stage, position, path in removable, _kind(modules[path])))
    return Found(tuple(blocks), tuple(members), dense[-1])


def take_apart(name: str, skeleton: nn.Module, input_shape: Shape, classes: int, found: Found) -> Program:
    """A network's forward pass in pieces: up to the first block, between blocks, to the features, to the logits.

    Raises:
        PrunebenchError: it cannot be traced, more than one tensor goes from one piece to the next or one without the images in its
            first dimension, or it does not run without its removable blocks.
    """
    nodes = _trace(name, skeleton, (*found.paths, found.classifier))
    numbers = {node.target: number for number, node in enumerate(nodes) if node.op == "call_module"}
    hidden = [path for path in (*found.paths, found.classifier) if path not in numbers]
    if hidden:
        _refuse(name, f"{hidden[0]} is not called where its forward pass is traced")
    cuts = [numbers[path] for path in (*found.paths, found.classifier)]
    if cuts != sorted(cuts):
        _refuse(name, f"{found.classifier}, its last dense layer, is not behind its blocks")

    starts = [_first_input(name, nodes[cut]) for cut in cuts]  # what goes into each block, and into the last dense layer
    kept = {node.name for node in (*starts[:-1], *(nodes[cut] for cut in cuts[:-1]))}

    @cache
    def values(images: int) -> Mapping[str, Any]:
        return _evaluate(name, skeleton, nodes, torch.empty(images, *input_shape, device="meta"), kept)

    def constant(node: fx.Node, where: str) -> Any:
        """What may be used beyond the piece it is made in: numbers that depend on nothing but the size of the images."""
        two, three = values(2)[node.name], values(3)[node.name]
        if isinstance(two, bool | int | float | str | None):
            if two == three:
                return two
            if (two, three) == (2, 3):
                return BatchSize()
        _refuse(name, f"{where} needs {node.name} beside the activations that go from block to block")

    def constants(values: Any, path: str) -> Any:
        """The same for what a block is called with behind the activations."""
        filled: Any = map_aggregate(values, lambda each: constant(each, path) if isinstance(each, fx.Node) else each)
        if any(isinstance(each, BatchSize) for each in (filled.values() if isinstance(filled, dict) else filled)):
            _refuse(name, f"{path} is called with the number of images")
        return filled

    def segment(first: int, last: int, inputs: fx.Node, output: fx.Node, where: str) -> Segment:
        """The nodes from first up to last, with ``inputs`` as all they know of what was before."""
        own, borrowed = nodes[first:last], dict[str, Operation]()

        def known(node: fx.Node) -> Any:
            if node is inputs or node in own:
                return Value(node.name)
            if node.op == "get_attr":  # a parameter that several pieces use
                borrowed[node.name] = _operation(node, lambda other: other)
                return Value(node.name)
            return constant(node, where)

        operations = [_operation(node, known) for node in own]
        if output is not inputs and output not in own:
            _refuse(name, f"{where} gives something that is made before it: the blocks are not one behind the other")
        return Segment(inputs.name, (*borrowed.values(), *operations), output.name)

    result = nodes[-1].args[0]
    if not isinstance(result, fx.Node) or tuple(getattr(values(2)[result.name], "shape", ())) != (2, classes):
        _refuse(name, f"it does not return logits of shape (n, {classes})")
    if values(2)[starts[-1].name].dim() != 2:
        _refuse(name, f"the inputs of {found.classifier}, its last dense layer, are not of shape (n, d)")
    for node in (*starts, *(nodes[cut] for cut in cuts)):
        if any(tuple(values(images)[node.name].shape)[:1] != (images,) for images in (2, 3)):
            _refuse(name, f"{node.name}: what goes from block to block does not have the images in its first dimension")
    _check_removal(name, skeleton, input_shape, classes, found)
    places: dict[str, Place] = {}
    for block, path, cut, following, start in zip(found.blocks, found.paths, cuts, cuts[1:], starts[1:], strict=False):
        node = nodes[cut]
        arguments, options = constants(node.args[1:], path), constants(node.kwargs, path)
        behind = segment(cut + 1, following, node, start, f"what follows {path}")
        nothing = start is node or block is found.blocks[-1]  # what follows the last block is the pooling
        places[block.name] = Place(path, tuple(arguments), dict(options), None if nothing else behind)
    return Program(
        stem=segment(1, cuts[0], nodes[0], starts[0], "the first block"),
        places=places,
        pool=behind,
        classify=segment(cuts[-1], len(nodes) - 1, starts[-1], result, f"what follows {found.classifier}"),
    )


def _check_weights(name: str, network: nn.Module) -> None:
    """Refuse a weight with two names: it could not be saved, and would stay when the block that has it goes.

    Weights are those of the state, so a table that blocks share and that is not saved may stay. Two tensors on the same memory are
    one weight; the storages are kept, since their identity holds only as long as they live.
    """
    known: dict[tuple[int, int], tuple[str, torch.UntypedStorage]] = {}
    for path, tensor in network.state_dict(keep_vars=True).items():
        if isinstance(tensor, torch.Tensor):
            storage = tensor.untyped_storage()
            first, _ = known.setdefault((id(storage), int(tensor.storage_offset())), (path, storage))
            if first != path:
                _refuse(name, f"{first} and {path} are the same weight")


def _check_removal(name: str, skeleton: nn.Module, input_shape: Shape, classes: int, found: Found) -> None:
    """Refuse a network that asks its blocks for more than to be called, so that it does not run without them."""
    smaller = copy.deepcopy(skeleton)
    for block, path in zip(found.blocks, found.paths, strict=True):
        if block.keeps_shape:
            smaller.set_submodule(path, Removed())
    try:
        with torch.no_grad():
            logits = smaller(torch.empty(2, *input_shape, device="meta"))
    except Exception as error:
        _refuse(name, f"it does not run without its removable blocks ({_line(error)})")
    if tuple(getattr(logits, "shape", ())) != (2, classes):
        _refuse(name, f"without its removable blocks it does not return logits of shape (n, {classes})")


def block_macs(name: str, skeleton: nn.Module, input_shape: Shape, found: Found) -> dict[str, int]:
    """Multiply-accumulates of each block by its name, and of the network under the empty name, for one image.

    Raises:
        PrunebenchError: the network cannot take such images, or runs an operator that cannot be counted.
    """
    try:
        counted = macs_by_module(_zeros(skeleton), input_shape)
    except PrunebenchError:
        raise
    except Exception as error:
        raise PrunebenchError(f"model {name}: cannot take images of shape {input_shape}: {_line(error)}") from error
    return {"": counted[""]} | {block.name: counted[path] for block, path in zip(found.blocks, found.paths, strict=True)}


def _zeros(skeleton: nn.Module) -> nn.Module:
    """The network on the CPU, with zero in all its parameters and buffers."""
    network = copy.deepcopy(skeleton).to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.zero_()
    return network


def _record(name: str, skeleton: nn.Module, input_shape: Shape) -> dict[str, list[_Call | None]]:
    """Calls of each module in one forward pass, in the order in which they end; None for one that is not tensor to tensor."""
    calls: dict[str, list[_Call | None]] = {}

    def hook(path: str) -> Callable[..., None]:
        def record(module: nn.Module, inputs: Any, options: Any, output: Any) -> None:
            others = (*inputs[1:], *options.values())
            simple = inputs and isinstance(inputs[0], torch.Tensor) and isinstance(output, torch.Tensor)
            if simple and not any(isinstance(other, torch.Tensor) for other in others):
                call = _Call(tuple(inputs[0].shape), tuple(output.shape), tuple(inputs[1:]), dict(options))
                calls.setdefault(path, []).append(call)
            else:
                calls.setdefault(path, []).append(None)

        return record

    hooks = [module.register_forward_hook(hook(path), with_kwargs=True) for path, module in skeleton.named_modules() if path]
    try:
        with torch.no_grad():
            skeleton(torch.empty(1, *input_shape, device="meta"))
    except Exception as error:
        raise PrunebenchError(f"model {name}: cannot take images of shape {input_shape}: {_line(error)}") from error
    finally:
        for handle in hooks:
            handle.remove()
    return calls


def _may_be_block(module: nn.Module) -> bool:
    """Whether it is worth a look: not without parameters, and none of torch's own layers, which have no shortcut."""
    layer = type(module).__module__.startswith("torch.nn.modules") and not any(module.children())
    return not layer and any(True for _ in module.parameters())


def _is_identity(name: str, path: str, zeros: nn.Module, call: _Call) -> bool:
    """Whether a module whose parameters are zero gives back what it is given."""
    if call.before != call.after:
        return False
    given = torch.rand(call.before, generator=torch.Generator().manual_seed(0))
    taken = given.clone()
    with torch.no_grad():
        try:
            output = zeros.get_submodule(path)(taken, *call.arguments, **call.options)
        except Exception:  # a module that cannot run without its values is not known to be a block
            return False
    if not torch.equal(output, given):
        return False
    if taken._version != 0:
        _refuse(name, f"its block {path} changes its input in place, which others still need")
    return True


def _has_branch(module: nn.Module, call: _Call, inner: Sequence[str]) -> bool:
    """Whether a module adds something to its input that depends on it, apart from what the blocks in it add.

    A position embedding adds the same to all; a stage only runs its blocks.

    Args:
        module: Its parameters are zero; they are left so.
        call: How it is called.
        inner: Names of the blocks in it, below it.
    """
    module, generator = copy.deepcopy(module), torch.Generator().manual_seed(0)
    for path in inner:
        module.set_submodule(path, Removed())
    added = []
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(-0.1, 0.1, generator=generator)
        for path, buffer in module.named_buffers():
            if path.endswith("running_var"):
                buffer.fill_(1)
        for _ in range(2):
            given = torch.rand(call.before, generator=generator)
            added.append(module(given.clone(), *call.arguments, **call.options) - given)
    return not torch.allclose(added[0], added[1], atol=1e-6)


def _kind(module: nn.Module) -> str:
    """What tells one block from another of its class: settings and shapes of the layers with parameters, and their order.

    Layers without parameters count by their class alone, for the rates of dropout grow from block to block.
    """

    def plain(value: Any) -> bool:
        if isinstance(value, list | tuple):
            return all(plain(item) for item in value)
        return isinstance(value, bool | int | float | str | None)

    layers: list[Any] = []
    for path, layer in module.named_modules():
        settings, shapes = {}, {}
        if any(True for _ in layer.parameters()):
            settings = {key: value for key, value in vars(layer).items() if plain(value) and key != "training"}
            shapes = {key: list(weight.shape) for key, weight in layer.named_parameters(recurse=False)}
        layers.append([path, type(layer).__name__, settings, shapes])
    return f"{type(module).__name__} {fingerprint(layers)[:12]}"


class _Tracer(fx.Tracer):
    """Follows a forward pass only into the modules that hold what is looked for, since others need not be traceable."""

    def __init__(self, sought: Sequence[str]) -> None:
        super().__init__()
        self.opened = {path.rsplit(".", depth)[0] for path in sought for depth in range(1, path.count(".") + 1)}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is called as it is."""
        return module_qualified_name not in self.opened


class _Shell(nn.Module):
    """Calls a network with images alone, so that its other arguments keep their defaults."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> Any:
        """Images (n, c, h, w) to what the network returns."""
        return self.network(images)


def _trace(name: str, skeleton: nn.Module, sought: Sequence[str]) -> list[fx.Node]:
    """The operations of a forward pass in order, checks of shapes left out; targets as in the network."""
    try:
        with torch.no_grad():
            graph = _Tracer([f"network.{path}" for path in sought]).trace(_Shell(skeleton))
    except Exception as error:
        _refuse(name, f"its forward pass cannot be traced: {_line(error)}")
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            if not node.target.startswith("network."):
                _refuse(name, f"its forward pass makes a tensor of its own, {node.target}")
            node.target = node.target.removeprefix("network.")
    return [node for node in graph.nodes if node.target is not torch._assert]


def _evaluate(
    name: str, skeleton: nn.Module, nodes: Sequence[fx.Node], images: torch.Tensor, kept: Collection[str]
) -> dict[str, Any]:
    """What each node gives, for images on the meta device: shapes of tensors, values of numbers.

    What the ``kept`` nodes give goes from block to block, where criteria look at it, so nothing may write to it.
    """
    values: dict[str, Any] = {}
    versions: dict[str, int] = {}
    try:
        with torch.no_grad():
            for node in nodes:
                if node.op == "placeholder":
                    values[node.name] = images
                elif node.op != "output":
                    values[node.name] = _operation(node, lambda other: Value(other.name)).run(skeleton, values, len(images))
                if node.name in kept:
                    versions[node.name] = values[node.name]._version
    except Exception as error:
        raise PrunebenchError(f"model {name}: cannot take images of shape {tuple(images.shape[1:])}: {_line(error)}") from error
    changed = [node for node, version in versions.items() if values[node]._version != version]
    if changed:
        _refuse(name, f"what {changed[0]} gives to or takes from a block is later changed in place")
    return values


def _operation(node: fx.Node, known: Callable[[fx.Node], Any]) -> Operation:
    arguments: Any = map_aggregate(node.args, lambda each: known(each) if isinstance(each, fx.Node) else each)
    options: Any = map_aggregate(dict(node.kwargs), lambda each: known(each) if isinstance(each, fx.Node) else each)
    return Operation(node.name, node.op, node.target, tuple(arguments), dict(options))


def _first_input(name: str, node: fx.Node) -> fx.Node:
    if not node.args or not isinstance(node.args[0], fx.Node):
        _refuse(name, f"{node.target} is not called with the activations as its first argument")
    return node.args[0]


def _nested(path: str, other: str) -> bool:
    """Whether one module is the other, or inside of it."""
    return path == other or path.startswith(f"{other}.") or other.startswith(f"{path}.")


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _refuse(name: str, reason: str) -> NoReturn:
    raise PrunebenchError(f"model {name}: {reason}; write a BlockNetwork instead (docs/adding-a-method.md#a-model)")
