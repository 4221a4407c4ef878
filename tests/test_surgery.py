"""Removing blocks, and what the constraints leave."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from helpers import architecture, images, random_network
from prunebench.errors import PrunebenchError
from prunebench.models.files import build
from prunebench.surgery import Constraints, allowed, candidates, flops_reduction, remove, stage_sizes


def silence(network: Any, blocks: Sequence[str]) -> None:
    """As the papers do it: the last batch norm of a branch gives zero."""
    with torch.no_grad():
        for name in blocks:
            norm = network.get_submodule(name).bn2
            for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                values.zero_()


@pytest.mark.parametrize("keras_compatible", [False, True])
@pytest.mark.parametrize(
    "removed",
    [
        ["stage1.block0"],
        ["stage3.block2"],
        ["stage2.block1", "stage2.block2"],
        ["stage1.block0", "stage1.block1", "stage1.block2", "stage2.block1", "stage2.block2", "stage3.block1", "stage3.block2"],
    ],
)
def test_removed_blocks_are_silenced_blocks(removed: list[str], keras_compatible: bool) -> None:
    dense = architecture("resnet20", (3, 15, 16), keras_compatible=keras_compatible)
    network = random_network(dense)
    smaller, left = remove(network.state_dict(), dense, removed)
    before = network(images(6, (3, 15, 16)))
    silence(network, removed)
    expected = network(images(6, (3, 15, 16)))
    assert (expected - before).abs().max() > 0.01
    torch.testing.assert_close(smaller(images(6, (3, 15, 16))), expected, atol=1e-5, rtol=1e-5)
    assert left.blocks == tuple(block for block in dense.blocks if block not in removed)
    assert [name for name, _ in smaller.named_blocks()] == list(left.blocks)  # type: ignore[operator]


def test_removing_twice_is_removing_at_once() -> None:
    dense = architecture("resnet32")
    weights = random_network(dense).state_dict()
    first, between = remove(weights, dense, ["stage1.block3", "stage3.block1"])
    twice, end = remove(first.state_dict(), between, ["stage1.block1"])
    once, same = remove(weights, dense, ["stage1.block1", "stage3.block1", "stage1.block3"])
    assert end == same
    assert torch.equal(twice(images(3)), once(images(3)))


def test_the_dense_network_keeps_its_weights() -> None:
    dense = architecture()
    network = random_network(dense)
    before = {name: values.clone() for name, values in network.state_dict().items()}
    smaller, _ = remove(network.state_dict(), dense, ["stage1.block1"])
    for values in smaller.state_dict().values():
        values.zero_()
    assert all(torch.equal(values, before[name]) for name, values in network.state_dict().items())


@pytest.mark.parametrize("block", ["stage2.block0", "stage3.block0", "stage1.block9"])
def test_blocks_that_change_the_shape_or_are_not_there_cannot_be_removed(block: str) -> None:
    with pytest.raises(PrunebenchError, match=block):
        remove(build(architecture()).state_dict(), architecture(), [block])


@pytest.mark.parametrize(
    ("model", "constraints", "most"),
    [
        ("resnet20", Constraints(), 3),
        ("resnet56", Constraints(), 21),
        ("resnet110", Constraints(), 48),
        ("resnet56", Constraints(minimum_blocks=1), 24),
        ("resnet56", Constraints(keep_first_block=False, minimum_blocks=1), 24),
        ("resnet56", Constraints(minimum_blocks=9), 0),
        ("resnet56", Constraints(minimum_blocks=100), 0),
    ],
)
def test_constraints_hold_whatever_the_order(model: str, constraints: Constraints, most: int) -> None:
    dense = architecture(model)
    draw = random.Random(0)
    for _ in range(5):
        order = draw.sample(dense.blocks, len(dense.blocks))
        gone = allowed(order, dense, constraints)
        assert len(set(gone)) == len(gone) == most
        assert gone == [block for block in order if block in gone]
        left = dense.without(gone)
        per_stage = len(dense.blocks) // 3
        assert all(size >= min(constraints.minimum_blocks, per_stage) for size in stage_sizes(left).values())
        assert {"stage2.block0", "stage3.block0"} <= set(left.blocks)
        if constraints.keep_first_block:
            assert "stage1.block0" in left.blocks
        assert candidates(left, constraints) == []
        # In steps, from the smaller network on, it is the same.
        half = gone[: most // 2]
        assert allowed([block for block in order if block not in half], dense.without(half), constraints) == gone[most // 2 :]


def test_candidates_of_resnet56_are_24_and_in_the_order_of_the_network() -> None:
    dense = architecture("resnet56")
    found = candidates(dense, Constraints())
    assert len(found) == 24
    assert found == [block for block in dense.blocks if not block.endswith("block0")]
    assert len(candidates(dense, Constraints(keep_first_block=False))) == 25


def test_a_stage_at_its_minimum_has_no_candidates() -> None:
    left = architecture().without(["stage2.block2"])
    assert candidates(left, Constraints()) == ["stage1.block1", "stage1.block2", "stage3.block1", "stage3.block2"]


def test_flops_reduction_depends_on_the_stage_where_sizes_are_odd() -> None:
    odd = architecture("resnet20", (3, 9, 9))
    first, last = (flops_reduction(odd.without([block]), odd) for block in ("stage1.block1", "stage3.block1"))
    assert 0 < first < last
    assert flops_reduction(odd, odd) == 0
