"""The sweep over silenced blocks, and the probe that criteria see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from helpers import architecture, images, random_network, random_split
from prunebench.criteria import Criterion, find_criterion
from prunebench.errors import PrunebenchError
from prunebench.metrics import METRICS
from prunebench.models import Architecture
from prunebench.scoring import Probe, needs_of, silenced_features
from prunebench.surgery import Constraints, candidates
from test_surgery import silence


def naive(dense: Architecture, batch: torch.Tensor, blocks: Sequence[str]) -> torch.Tensor:
    """One whole forward pass for the dense network and for each silenced block."""
    found = [random_network(dense).features(batch)]
    for block in blocks:
        network = random_network(dense)
        silence(network, [block])
        found.append(network.features(batch))
    return torch.stack(found).detach()


@pytest.mark.parametrize("keras_compatible", [False, True])
@pytest.mark.parametrize("first_too", [False, True])
def test_the_sweep_is_the_naive_loop(keras_compatible: bool, first_too: bool) -> None:
    dense = architecture("resnet20", (3, 12, 9), keras_compatible=keras_compatible)
    blocks = candidates(dense, Constraints(keep_first_block=not first_too))
    batch = images(7, (3, 12, 9))
    found = silenced_features(random_network(dense), batch, blocks)
    expected = naive(dense, batch, blocks)
    assert found.shape == (1 + len(blocks), 7, 64)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    # The test sees a difference only if the blocks do something.
    assert (expected[1:] - expected[0]).abs().amax((1, 2)).min() > 1e-3


def test_the_sweep_over_some_of_the_blocks() -> None:
    dense = architecture()
    some = ["stage3.block2", "stage1.block1"]
    found = silenced_features(random_network(dense), images(5), some)
    torch.testing.assert_close(found, naive(dense, images(5), some[::-1]), atol=1e-5, rtol=1e-5)
    assert silenced_features(random_network(dense), images(5), []).shape == (1, 5, 64)


def test_the_sweep_leaves_the_network_as_it_is() -> None:
    network = random_network(architecture())
    before = {name: values.clone() for name, values in network.state_dict().items()}
    silenced_features(network, images(5), ["stage1.block1"])
    assert all(torch.equal(values, before[name]) for name, values in network.state_dict().items())


def probe(batch_size: int = 16, seed: int = 0, blocks: Sequence[str] | None = None, number: int = 40) -> Probe:
    dense = architecture()
    wanted = candidates(dense, Constraints()) if blocks is None else blocks
    return Probe(random_network(dense), wanted, random_split(number), 10, batch_size=batch_size, seed=seed)


@pytest.mark.parametrize("name", ["cka", "linear_1", "gaussian_stochastic_2", "wasserstein"])
def test_scores_do_not_depend_on_the_batch_size(name: str) -> None:
    scores = [probe(batch_size).scores(name) for batch_size in (1, 13, 100)]
    assert max(scores[0]) > 1e-4
    for other in scores[1:]:
        assert other == pytest.approx(scores[0], rel=1e-4, abs=1e-6)


def test_a_score_belongs_to_its_block_whatever_the_order_of_candidates() -> None:
    whole = probe()
    by_block = dict(zip(whole.blocks, whole.scores("cka"), strict=True))
    some = probe(blocks=["stage3.block1", "stage1.block2"])
    assert dict(zip(some.blocks, some.scores("cka"), strict=True)) == pytest.approx(
        {block: by_block[block] for block in ("stage1.block2", "stage3.block1")}, rel=1e-6
    )


@pytest.mark.parametrize("blocks", [["stage9.block1"], ["stage1.block1", "stage1.block1"]])
def test_candidates_that_are_not_in_the_network_are_refused(blocks: list[str]) -> None:
    with pytest.raises(PrunebenchError, match=blocks[0]):
        probe(blocks=blocks)


def test_an_empty_sample_is_refused() -> None:
    with pytest.raises(PrunebenchError, match="images_per_class"):
        probe(number=0).scores("cka")


def counting(name: str = "counting", draws: bool = False) -> tuple[Criterion, list[int]]:
    calls: list[int] = []

    def score(probe: Probe) -> Sequence[float]:
        calls.append(len(calls))
        return [float(value) for value in probe.random.permutation(len(probe.blocks))]

    return Criterion(name, score, draws=draws), calls


def test_scores_are_computed_once() -> None:
    criterion, calls = counting()
    one = probe()
    assert one.scores(criterion) == one.scores(criterion)
    one.reseed(5)
    one.scores(criterion)
    assert len(calls) == 1


def test_the_sweep_is_made_once_for_all_criteria(monkeypatch: pytest.MonkeyPatch) -> None:
    one = probe(batch_size=100)
    passes: list[int] = []
    one.network.get_submodule("stage1.block0").register_forward_hook(lambda *_: passes.append(1))
    for name in METRICS:
        if name != "linear_0":
            one.scores(name)
    assert len(passes) == 1


def test_draws_differ_and_a_seed_gives_the_same_draw_again() -> None:
    one = probe()
    drawn = []
    for seed in (1, 2, 3, 1):
        one.reseed(seed)
        drawn.append(one.scores("random"))
        assert one.scores("random") == drawn[-1]
    assert drawn[0] == drawn[3]
    assert len({tuple(scores) for scores in drawn}) == 3
    assert sorted(drawn[0]) == [float(rank) for rank in range(len(one.blocks))]
    other, again = probe(seed=8), probe(seed=8)
    assert other.scores("random") == again.scores("random")


@pytest.mark.parametrize(
    "returned",
    [[1.0], [1.0] * 7, [1.0] * 5 + [float("nan")], [float("inf")] + [0.0] * 5, None, ["much"] * 6, 3.0],
)
def test_wrong_scores_are_refused_by_the_criterions_name(returned: Any) -> None:
    one = probe()
    assert len(one.blocks) == 6
    with pytest.raises(PrunebenchError, match="my_own"):
        one.scores(Criterion("my_own", lambda probe: returned))


def test_the_block_without_a_finite_score_is_named() -> None:
    with pytest.raises(PrunebenchError, match=r"stage1\.block2"):
        probe().scores(Criterion("my_own", lambda probe: [0.0, float("nan"), 0.0, 0.0, 0.0, 0.0]))


def test_needs_include_those_of_combined_criteria() -> None:
    assert needs_of([find_criterion("consensus")]) == {"features", "labels", "values"}
    assert needs_of([find_criterion("cka")]) == {"features"}
    assert needs_of([find_criterion("random"), find_criterion("first")]) == set()
    with pytest.raises(PrunebenchError, match="labels"):
        Probe(random_network(architecture()), ["stage1.block1"], random_split(), 10, needs={"features"}).scores(
            "gaussian_stochastic_2"
        )


def test_passes_of_the_sweep_are_those_that_blocks_make() -> None:
    """Images that go through all blocks in the sweep, over those of a plain forward pass."""
    one = probe(batch_size=7)
    images_seen = 0

    def count(module: object, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal images_seen
        images_seen += len(output)

    for _, block in one.network.named_blocks():
        block.register_forward_hook(count)
    one.scores("cka")
    assert images_seen / (len(one.sample) * len(one.network.named_blocks())) == pytest.approx(one.sweep_passes)
