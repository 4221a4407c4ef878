"""The audit against sequences whose removals are known, and on the papers' released files."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import architecture, random_network
from prunebench.audit import MARGIN, Checkpoint, audit, block_weights, expected_hits, match
from prunebench.errors import PrunebenchError
from prunebench.models import Architecture, find_model
from prunebench.models.files import build
from prunebench.models.keras_files import import_keras
from prunebench.surgery import Constraints, allowed, candidates, remove
from shared import shared_data


def renumbered(checkpoint: Checkpoint) -> Checkpoint:
    """The same network with the blocks of each stage called block0, block1, ..., as an import from Keras names them."""
    old = checkpoint.architecture
    new, places = {}, dict.fromkeys(("stage1", "stage2", "stage3"), 0)
    for block in old.blocks:
        stage = block.split(".")[0]
        new[block] = f"{stage}.block{places[stage]}"
        places[stage] += 1
    weights = {}
    for name, tensor in checkpoint.weights.items():
        block = ".".join(name.split(".")[:2])
        weights[name.replace(block, new[block], 1) if block in new else name] = tensor
    described = Architecture(old.model, old.input_shape, old.classes, tuple(new.values()), old.options)
    return Checkpoint(checkpoint.name, described, weights)


def sequence(removals: list[list[str]], noise: float, model: str = "resnet32") -> list[Checkpoint]:
    """A random dense network, then networks without the blocks, each with noise of so many times a kernel's own spread."""
    network, described = random_network(architecture(model)), architecture(model)
    made = [Checkpoint("dense", described, network.state_dict())]
    generator = torch.Generator().manual_seed(1)
    weights = network.state_dict()
    for number, blocks in enumerate(removals):
        network, described = remove(weights, described, blocks)
        weights = {
            name: tensor + noise * tensor.std() * torch.randn(tensor.shape, generator=generator) if tensor.ndim == 4 else tensor
            for name, tensor in network.state_dict().items()
        }
        made.append(renumbered(Checkpoint(f"net{number}", described, weights)))
    return made


REMOVALS = [["stage1.block2"], ["stage2.block1", "stage2.block3", "stage3.block4"], [], ["stage1.block1", "stage3.block1"]]


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0, 2.0])
def test_known_removals_are_found(noise: float) -> None:
    dense, *networks = sequence(REMOVALS, noise)
    transitions = audit(dense, networks)
    assert [transition.removed for transition in transitions] == REMOVALS
    for transition in transitions:
        kept = [finding for finding in transition.findings if not finding.removed]
        # Noise of s spreads turns a kernel to a cosine of 1 / sqrt(1 + s^2).
        assert [finding.similarity for finding in kept] == pytest.approx([1 / math.hypot(1, noise)] * len(kept), abs=0.08)
        assert all(finding.verdict == "clear" for finding in transition.findings)
    # Blocks of the last network before are named and counted as it has them.
    last = {finding.block: (finding.own, finding.index) for finding in transitions[-1].findings}
    assert last["stage3.block1"] == ("stage3.block1", 1) and last["stage1.block3"] == ("stage1.block2", 2)


def test_any_set_of_removals_is_found() -> None:
    chosen = random.Random(3)
    removable = candidates(architecture("resnet32"), Constraints())
    for count in (1, 4, 9):
        gone = allowed(chosen.sample(removable, len(removable)), architecture("resnet32"), Constraints())[:count]
        dense, network = sequence([gone], 0.7)
        [transition] = audit(dense, [network])
        assert set(transition.removed) == set(gone)


def test_confidence_falls_with_noise() -> None:
    lowest = []
    for noise in (0.1, 1.0, 3.0):
        dense, network = sequence([["stage1.block2", "stage2.block1"]], noise)
        [transition] = audit(dense, [network])
        lowest.append(min(finding.confidence for finding in transition.findings if finding.removed))
    assert lowest == sorted(lowest, reverse=True) and lowest[0] > 0.8 and lowest[-1] < 0.5


def test_confidence_is_what_the_opposite_would_cost() -> None:
    """Against all matchings, one by one."""
    table = np.random.default_rng(0).uniform(-1, 1, (6, 3))
    sums = {rows: sum(table[row, column] for column, row in enumerate(rows)) for rows in itertools.combinations(range(6), 3)}
    best = max(sums, key=sums.__getitem__)
    matched, confidence = match(table)
    assert matched == {row: column for column, row in enumerate(best)}
    for row in range(6):
        other = max(total for rows, total in sums.items() if (row in rows) != (row in best))
        assert confidence[row] == pytest.approx(sums[best] - other)


def test_order_is_kept_and_what_cannot_be_is_not() -> None:
    crossed = np.array([[0.0, 0.9], [0.9, 0.0], [0.1, 0.1]])
    matched, _ = match(crossed)
    # Both large values would need blocks that change places.
    assert matched is not None and sorted(matched) == list(matched)[::-1] and sorted(matched.values()) == [0, 1]
    assert match(np.full((2, 1), -math.inf))[0] is None
    matched, confidence = match(np.array([[1.0, -math.inf], [-math.inf, 0.2]]))
    assert matched == {0: 0, 1: 1} and np.isinf(confidence).all(), "with as many blocks there is no other way"


def test_equal_blocks_are_uncertain() -> None:
    dense, network = sequence([["stage1.block2"]], 0.0)
    twin = {
        name: dense.weights[name.replace("stage1.block2", "stage1.block3")] if name.startswith("stage1.block2.") else tensor
        for name, tensor in dense.weights.items()
    }
    [transition] = audit(Checkpoint("dense", dense.architecture, twin), [network])
    unsure = [finding.block for finding in transition.findings if finding.verdict == "uncertain"]
    assert unsure == ["stage1.block2", "stage1.block3"]


def test_what_is_no_sequence_is_refused() -> None:
    dense, first, second = sequence([["stage1.block2"], ["stage2.block1"]], 0.1)
    with pytest.raises(PrunebenchError, match=r"net0: 4, 5, 5 blocks in its stages, but net1 before it has 4, 4, 5"):
        audit(dense, [second, first])
    stranger = Checkpoint("stranger", first.architecture, random_network(first.architecture, seed=5).state_dict())
    with pytest.raises(PrunebenchError, match=r"stranger: no sign that it was made from dense"):
        audit(dense, [stranger])
    other = architecture("resnet20")
    with pytest.raises(PrunebenchError, match=r"other: its model is resnet20, but that of dense is resnet32"):
        audit(dense, [Checkpoint("other", other, random_network(other).state_dict())])
    narrow = architecture("resnet32", hidden_channels={"stage2.block1": 7})
    with pytest.raises(PrunebenchError, match=r"narrow: kernels of stage 2 have other shapes"):
        audit(dense, [Checkpoint("narrow", narrow, random_network(narrow).state_dict())])


def test_blocks_of_unrelated_networks_stay_below_the_margin() -> None:
    """The margin is meant to be above what chance reaches."""
    from prunebench.audit import _similarities

    wanted = architecture("resnet32")
    for seed in range(3):
        one, two = random_network(wanted, seed).state_dict(), random_network(wanted, seed + 50).state_dict()
        for stage in (1, 2, 3):
            own = [f"stage{stage}.block{i}" for i in range(1, 5)]
            _, confidence = match(_similarities(one, own, two, own[:2]))
            assert confidence.max() < MARGIN


def test_expected_hits_against_draws() -> None:
    small, constraints = architecture("resnet20").without(["stage1.block1"]), Constraints()
    removable, gone = candidates(small, constraints), ["stage2.block1", "stage3.block2"]
    chosen, hits = random.Random(0), 0
    for _ in range(4000):
        order = allowed(chosen.sample(removable, len(removable)), small, constraints)
        hits += len(set(order[:2]) & set(gone))
    assert expected_hits(gone, small, constraints) == pytest.approx(hits / 4000, abs=0.04)
    # Where no stage runs out of blocks, k of n candidates hit k^2 / n.
    large = architecture("resnet110")
    free = candidates(large, constraints)
    assert expected_hits(free[:3], large, constraints) == pytest.approx(9 / len(free))
    assert expected_hits(["stage1.block0"], large, constraints) == 0


# --- The papers' files ---------------------------------------------------------------------------------------------------------

CONSENSUS = [f"consensus/iteration{i}" for i in (0, 1, 2, 6, 7, 8, 13, 14, 15, 20)]
CKA = [f"cka/iteration{i}" for i in (9, 10, 11, 12)]


def released(name: str) -> Checkpoint:
    path: Path = shared_data("released", f"{name}.h5")
    network, found = import_keras(path, path.with_suffix(".json"), torch.zeros(3, 32, 32), "resnet56")
    return Checkpoint(name, found, network.state_dict())


@pytest.mark.shared
def test_released_consensus_files_lack_the_first_removable_block_of_the_first_stage_that_can_shrink() -> None:
    transitions = audit(released("base"), [released(name) for name in CONSENSUS])
    order = [f"stage{stage}.block{position}" for stage in (1, 2, 3) for position in range(1, 8)]
    assert [block for transition in transitions for block in transition.removed] == order
    for transition in transitions:
        gone = [finding for finding in transition.findings if finding.removed]
        assert [finding.index for finding in gone] == list(range(1, len(gone) + 1))
        assert all(finding.verdict == "clear" for finding in transition.findings)


@pytest.mark.shared
def test_released_cka_files_show_a_selection() -> None:
    transitions = audit(released("base"), [released(name) for name in CKA])
    assert [transition.removed for transition in transitions] == [
        [
            *(f"stage1.block{i}" for i in (5, 7, 8)),
            *(f"stage2.block{i}" for i in (1, 3, 5, 6, 7, 8)),
            "stage3.block3",
        ],
        ["stage3.block4"],
        ["stage1.block4"],
        ["stage3.block1"],
    ]
    assert all(finding.verdict == "clear" for transition in transitions for finding in transition.findings)


@pytest.mark.shared
def test_released_files_of_two_sequences_are_told_apart() -> None:
    with pytest.raises(PrunebenchError, match="an audit needs networks in the order in which they were made"):
        audit(released("base"), [released("cka/iteration12"), released("consensus/iteration6")])


def test_networks_whose_blocks_are_found_are_audited_too() -> None:
    described = find_model("resnet34").dense("resnet34", (3, 32, 32), 10)
    torch.manual_seed(0)
    network = build(described)
    made = [Checkpoint("dense", described, block_weights(network))]
    for number, blocks in enumerate([["stage3.block2"], ["stage1.block1", "stage3.block4"]]):
        network, described = remove(network.state_dict(), described, blocks)
        made.append(Checkpoint(f"net{number}", described, block_weights(network)))
    found = audit(made[0], made[1:])
    assert [transition.removed for transition in found] == [["stage3.block2"], ["stage1.block1", "stage3.block4"]]
    assert {finding.verdict for transition in found for finding in transition.findings} == {"clear"}
