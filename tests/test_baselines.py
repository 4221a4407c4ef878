"""The baselines that look at the network: known answers on tiny networks, the naive way, and what must not change."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from helpers import architecture, random_network, random_split
from prunebench.criteria import find_criterion, order_of_removal
from prunebench.data import Split, to_unit
from prunebench.errors import PrunebenchError
from prunebench.models.modules import BlockNetwork, Normalise
from prunebench.scoring import Probe, counted_passes
from prunebench.surgery import Constraints, candidates

WEIGHTS = ["l1_norm", "bn_scale"]
SAMPLES = ["taylor", "block_influence", "loss_increase"]


class Residual(nn.Module):
    """x + f(x) with f scaled; its layers have no names of their own."""

    def __init__(self, channels: int = 3, relu: bool = False) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(channels, 5, 3, padding=1),
            nn.BatchNorm2d(5),
            nn.ReLU(inplace=True),
            nn.Conv2d(5, channels, 1),
            nn.BatchNorm2d(channels),
        )
        self.relu = relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        after = x + self.branch(x)
        return functional.relu(after) if self.relu else after

    def scale(self, factor: float) -> None:
        with torch.no_grad():
            self.branch[-1].weight.mul_(factor)
            self.branch[-1].bias.mul_(factor)


class Function(nn.Module):
    """A block without layers."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


class Tiny(BlockNetwork):
    """Blocks on images as they are, a mean over pixels, a linear classifier."""

    def __init__(self, blocks: Sequence[nn.Module], classes: int = 4, channels: int = 3) -> None:
        super().__init__()
        self.normalise = Normalise(channels)
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(channels, classes)

    def stem(self, images: torch.Tensor) -> torch.Tensor:
        return self.normalise(images)

    def named_blocks(self) -> list[tuple[str, nn.Module]]:
        return [(f"block{number}", block) for number, block in enumerate(self.blocks)]

    def pool(self, activations: torch.Tensor) -> torch.Tensor:
        return activations.mean((2, 3))

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(features)


def tiny(blocks: int = 4, relu: bool = False, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    network = Tiny([Residual(relu=relu) for _ in range(blocks)])
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.5)
            nn.init.uniform_(module.running_var, 0.2, 1.0)  # type: ignore[arg-type]
    return network.eval()


def probe_of(network: BlockNetwork, split: Split | None = None, **options: Any) -> Probe:
    split = random_split(37, (3, 6, 5), 4) if split is None else split
    return Probe(network, [name for name, _ in network.named_blocks()], split, 4, **{"batch_size": 16, **options})


def score(name: str, probe: Probe) -> list[float]:
    return [float(value) for value in find_criterion(name).score(probe)]


def losses(network: nn.Module, split: Split) -> torch.Tensor:
    """Cross-entropy of each image, float64."""
    with torch.no_grad():
        logits = network(to_unit(split.pixels(torch.arange(len(split))))).double()
    return functional.cross_entropy(logits, split.labels, reduction="none")


def without(network: Tiny, number: int) -> Tiny:
    """The same weights, the block left out."""
    other = Tiny([block for i, block in enumerate(network.blocks) if i != number])
    other.normalise, other.head = network.normalise, network.head
    return other.eval()


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("name", ["bn_scale", "taylor", "block_influence"])
def test_a_block_that_adds_nothing_goes_first(name: str, number: int) -> None:
    network = tiny()
    network.blocks[number].scale(0.0)
    scores = score(name, probe_of(network))
    assert scores[number] == 0.0
    assert min(value for i, value in enumerate(scores) if i != number) > 1e-3
    assert order_of_removal(["a", "b", "c", "d"], scores, find_criterion(name).removes)[0] == "abcd"[number]


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("name", SAMPLES)
def test_a_block_that_adds_nothing_goes_first_where_all_others_help(name: str, number: int) -> None:
    """Every other block adds to the channel that speaks for the right class."""

    def adds(amount: float) -> Function:
        return Function(lambda x: x + amount * torch.tensor([1.0, 0.0, 0.0]).reshape(3, 1, 1))

    network = Tiny([adds(0.0 if i == number else 0.5 + 0.1 * i) for i in range(4)]).eval()
    with torch.no_grad():
        network.head.weight.copy_(torch.eye(4)[:, :3])
        network.head.bias.zero_()
    split = random_split(37, (3, 6, 5), 4)
    split.labels[:] = 0
    scores = score(name, probe_of(network, split))
    assert scores[number] == pytest.approx(0.0, abs=1e-6)
    assert min(value for i, value in enumerate(scores) if i != number) > 1e-3
    assert order_of_removal(["a", "b", "c", "d"], scores, find_criterion(name).removes)[0] == "abcd"[number]
    if name != "block_influence":  # what is added counts the same wherever it is added
        assert sorted(scores)[1:] == [value for i, value in enumerate(scores) if i != number]


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_block_with_the_smallest_weights_goes_first(name: str) -> None:
    network = tiny()
    before = score(name, probe_of(network))
    with torch.no_grad():
        for parameter in network.blocks[2].parameters():
            parameter.mul_(-0.25)
    after = score(name, probe_of(network))
    assert after[2] == pytest.approx(before[2] / 4, rel=1e-6)
    assert after[:2] + after[3:] == before[:2] + before[3:]
    assert order_of_removal(["a", "b", "c", "d"], after, find_criterion(name).removes)[0] == "c"


def test_bn_scale_is_the_mean_absolute_factor_of_the_last_norm() -> None:
    network = tiny(2)
    with torch.no_grad():
        network.blocks[0].branch[-1].weight.copy_(torch.tensor([-2.0, 0.0, 7.0]))
        network.blocks[1].branch[-1].weight.fill_(-1.5)
    assert score("bn_scale", probe_of(network)) == [3.0, 1.5]


def test_l1_norm_is_the_mean_absolute_weight_times_the_root_of_the_fan_in() -> None:
    network = tiny(2)
    with torch.no_grad():
        first, last = network.blocks[0].branch[0], network.blocks[0].branch[3]
        first.weight.fill_(-2.0)
        last.weight.copy_(torch.tensor([1.0, -3.0]).repeat(8)[:15].reshape(last.weight.shape))
    expected = 2.0 * math.sqrt(3 * 9), (8 * 1 + 7 * 3) / 15 * math.sqrt(5)
    assert score("l1_norm", probe_of(network))[0] == pytest.approx(sum(expected) / 2, rel=1e-6)


def test_l1_norm_of_untrained_blocks_is_the_same_in_every_stage() -> None:
    dense = architecture("resnet32", (3, 32, 32))
    probe = Probe(random_network(dense), candidates(dense, Constraints()), random_split(4, (3, 32, 32)), 10)
    # The mean absolute weight itself halves from stage 1 to stage 3, the plain norm rises eightfold.
    assert score("l1_norm", probe) == pytest.approx([math.sqrt(2) * math.sqrt(2 / math.pi)] * len(probe.blocks), rel=0.05)


def test_block_influence_is_the_angle_between_input_and_output() -> None:
    def swap(x: torch.Tensor) -> torch.Tensor:
        """Orthogonal to its input, in each image."""
        return torch.stack([-x[:, 1], x[:, 0], torch.zeros_like(x[:, 2])], 1)

    def sixty(x: torch.Tensor) -> torch.Tensor:
        return 0.5 * x[:, [0, 1, 2]] + math.sqrt(0.75) * swap(x)

    functions = [lambda x: 3 * x, lambda x: -2 * x, lambda x: x * torch.tensor([1.0, 1.0, 0.0]).reshape(3, 1, 1), sixty, swap]
    found = score("block_influence", probe_of(Tiny([Function(function) for function in functions])))
    assert found[:2] == pytest.approx([0.0, 2.0], abs=1e-12)
    assert 0.05 < found[2] < 0.95
    assert found[3:] == pytest.approx([0.5, 1.0], abs=1e-6)


def test_block_influence_of_nothing_is_nothing_and_of_all_there_is_one() -> None:
    nothing, same = (lambda x: 0 * x), (lambda x: x)
    assert score("block_influence", probe_of(Tiny([Function(same), Function(nothing), Function(same)]))) == [0.0, 1.0, 0.0]


def test_block_influence_shows_that_a_network_has_diverged() -> None:
    network = tiny()
    with torch.no_grad():
        network.blocks[1].branch[-1].bias.fill_(float("nan"))
    with pytest.raises(PrunebenchError, match=r"block_influence.*block1, block2, block3 is not finite"):
        probe_of(network).scores("block_influence")


def test_taylor_on_a_network_that_can_be_worked_out_by_hand() -> None:
    """Two blocks, x + 1 and 2 x: dL/dy1 = 2 g and dL/dy2 = g, with g = W' (softmax - one-hot) / pixels at each pixel."""
    network = Tiny([Function(lambda x: x + 1), Function(lambda x: 2 * x)]).eval()
    split = random_split(9, (3, 2, 2), 4)
    x = to_unit(split.pixels(torch.arange(9))).double().mean((2, 3))
    weight, bias = network.head.weight.detach().double(), network.head.bias.detach().double()
    surplus = (2 * (x + 1) @ weight.T + bias).softmax(1) - functional.one_hot(split.labels, 4)
    gradient = surplus @ weight
    expected = [(2 * gradient).sum(1).abs().mean().item(), (gradient * (x + 1)).sum(1).abs().mean().item()]
    assert score("taylor", probe_of(network, split, batch_size=4)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("relu", [False, True])
def test_taylor_is_the_change_of_the_loss_for_a_small_branch(relu: bool) -> None:
    network, split = tiny(relu=relu).double(), random_split(37, (3, 6, 5), 4)
    for number, block in enumerate(network.blocks):
        block.scale(1e-3 if number in (0, 2) else 1.0)

    class Double(Probe):
        def images(self, positions: torch.Tensor) -> torch.Tensor:
            return super().images(positions).double()

    found = score("taylor", Double(network, [f"block{i}" for i in range(4)], split, 4, batch_size=16))
    images = to_unit(split.pixels(torch.arange(len(split)))).double()

    def exact(some: nn.Module) -> torch.Tensor:
        with torch.no_grad():
            return functional.cross_entropy(some(images), split.labels, reduction="none")

    for number in (0, 2):
        true = (exact(without(network, number)) - exact(network)).abs().mean().item()
        assert true > 1e-6
        assert found[number] == pytest.approx(true, rel=0.02)


def test_loss_increase_is_the_naive_loop() -> None:
    network, split = tiny(), random_split(37, (3, 6, 5), 4)
    dense = losses(network, split).mean()
    expected = [float(losses(without(network, number), split).mean() - dense) for number in range(4)]
    assert min(map(abs, expected)) > 1e-3
    assert score("loss_increase", probe_of(network, split)) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_loss_increase_of_a_resnet_is_the_naive_loop() -> None:
    from test_surgery import silence

    dense, split = architecture(), random_split()
    blocks = candidates(dense, Constraints())
    expected = []
    for block in blocks:
        network = random_network(dense)
        silence(network, [block])
        expected.append(float((losses(network, split) - losses(random_network(dense), split)).mean()))
    found = score("loss_increase", Probe(random_network(dense), blocks, split, 10, batch_size=16))
    assert found == pytest.approx(expected, rel=1e-5, abs=2e-6)


@pytest.mark.parametrize("name", SAMPLES)
def test_scores_do_not_depend_on_the_batch_size(name: str) -> None:
    dense = architecture()
    blocks = candidates(dense, Constraints())
    found = [score(name, Probe(random_network(dense), blocks, random_split(), 10, batch_size=size)) for size in (3, 13, 100)]
    assert min(map(abs, found[0])) > 1e-3
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("name", [*WEIGHTS, *SAMPLES])
def test_only_some_of_the_blocks_get_the_same_scores(name: str) -> None:
    network, split = tiny(relu=True), random_split(20, (3, 6, 5), 4)
    every = score(name, probe_of(network, split))
    some = score(name, Probe(network, ["block3", "block1"], split, 4))
    assert some == pytest.approx([every[1], every[3]], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", [*WEIGHTS, *SAMPLES])
def test_the_network_stays_as_it_is(name: str) -> None:
    """Weights, statistics, gradients and modes; and a network in training mode is scored as in evaluation mode."""
    network, split = tiny(), random_split(20, (3, 6, 5), 4)
    expected = score(name, probe_of(network, split))
    network.train()
    network.blocks[1].eval()
    for number, parameter in enumerate(network.parameters()):
        parameter.grad = torch.full_like(parameter, number)
        parameter.requires_grad_(number % 2 == 0)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    with torch.no_grad():  # a caller may have switched gradients off
        assert score(name, probe_of(network, split)) == expected
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert modes == [module.training for module in network.modules()]
    for number, parameter in enumerate(network.parameters()):
        assert parameter.requires_grad == (number % 2 == 0)
        assert parameter.grad is not None and bool((parameter.grad == number).all())


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_block_without_the_layer_is_named(name: str) -> None:
    network = Tiny([Residual(), Function(lambda x: x), Residual()]).eval()
    with pytest.raises(PrunebenchError, match=f"criterion {name}: block block1 has no"):
        score(name, probe_of(network))


def test_a_batch_norm_without_factors_is_none() -> None:
    network = tiny(2)
    network.blocks[1].branch[-1] = nn.BatchNorm2d(3, affine=False)
    first = network.blocks[1].branch[1].weight.abs().mean().item()
    assert score("bn_scale", probe_of(network))[1] == pytest.approx(first, rel=1e-6)


@pytest.mark.parametrize("name", SAMPLES)
def test_an_empty_sample_is_refused(name: str) -> None:
    with pytest.raises(PrunebenchError, match="images_per_class"):
        probe_of(tiny(), random_split(0, (3, 6, 5), 4)).scores(name)


@pytest.mark.parametrize(
    ("name", "forward", "backward"), [("block_influence", 1, 0), ("taylor", 1, 1), ("loss_increase", 2.5, 0)]
)
def test_what_a_baseline_costs_is_counted(name: str, forward: float, backward: float) -> None:
    probe = probe_of(tiny())
    with counted_passes(probe.network, len(probe.sample)) as passes:
        probe.scores(name)
    assert passes == {"forward": pytest.approx(forward), "backward": pytest.approx(backward)}
    assert probe.sweep_passes == 2.5
