"""Orders of removal, ranks, the consensus and the baselines, on scores made by hand."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from prunebench import plugins
from prunebench.criteria import Criterion, find_criterion, order_of_removal, ranks
from prunebench.metrics import METRICS


class HandMade:
    """In place of a probe: its metrics' scores are given."""

    def __init__(self, scores: dict[str, Sequence[float]], blocks: Sequence[str] = ("a", "b", "c"), seed: int = 0) -> None:
        self.given, self.blocks = scores, blocks
        self.random = np.random.default_rng(seed)

    def scores(self, name: str) -> Sequence[float]:
        return self.given[name]


def score(name: str, probe: Any) -> list[float]:
    return list(find_criterion(name).score(probe))


def test_the_lowest_or_the_highest_score_goes_first() -> None:
    assert order_of_removal(["a", "b", "c"], [2.0, -1.0, 3.0], "lowest") == ["b", "a", "c"]
    assert order_of_removal(["a", "b", "c"], [2.0, -1.0, 3.0], "highest") == ["c", "a", "b"]


@pytest.mark.parametrize("removes", ["lowest", "highest"])
def test_a_tie_goes_to_the_earlier_block(removes: str) -> None:
    assert order_of_removal(["a", "b", "c", "d"], [1.0, 0.0, 1.0, 0.0], removes)[:2] == (
        ["b", "d"] if removes == "lowest" else ["a", "c"]
    )
    assert order_of_removal(["a", "b", "c"], [5.0] * 3, removes) == ["a", "b", "c"]


def test_ties_share_the_average_of_their_ranks() -> None:
    assert ranks([0.3, 0.1, 0.3, 0.2]).tolist() == [3.5, 1.0, 3.5, 2.0]
    assert ranks([0.3, 0.1, 0.3, 0.2], "highest").tolist() == [1.5, 4.0, 1.5, 3.0]
    assert ranks([7.0, 7.0, 7.0]).tolist() == [2.0, 2.0, 2.0]


def test_consensus_is_the_sum_of_ranks() -> None:
    # Six metrics rank a, b, c; one ranks c, b, a with large distances, and one ties a and b behind c.
    scores: dict[str, Sequence[float]] = {name: [0.1, 0.2, 0.3] for name in METRICS}
    names = list(METRICS)
    assert len(names) == 8
    scores[names[2]] = [3e6, 2e6, 1e6]
    scores[names[5]] = [0.5, 0.5, 0.1]
    assert score("consensus", HandMade(scores)) == [6 * 1 + 3 + 2.5, 6 * 2 + 2 + 2.5, 6 * 3 + 1 + 1]


def test_consensus_does_not_depend_on_the_scale_of_a_metric() -> None:
    generator = random.Random(1)
    scores = {name: [generator.random() for _ in range(3)] for name in METRICS}
    stretched = {name: [1e9 * value**3 for value in values] for name, values in scores.items()}
    assert score("consensus", HandMade(scores)) == score("consensus", HandMade(stretched))


def test_consensus_goes_by_the_direction_of_its_metrics() -> None:
    assert all(find_criterion(name).removes == "lowest" for name in METRICS)
    assert find_criterion("consensus").removes == "lowest"
    assert set(find_criterion("consensus").combines) == set(METRICS)


def test_first_and_last_go_from_one_end_to_the_other() -> None:
    blocks = ["a", "b", "c", "d"]
    orders = {}
    for name in ("first", "last"):
        criterion = find_criterion(name)
        orders[name] = order_of_removal(blocks, score(name, HandMade({}, blocks)), criterion.removes)
    assert orders == {"first": blocks, "last": blocks[::-1]}


def test_random_draws_every_order_about_equally_often() -> None:
    found: dict[tuple[str, ...], int] = {}
    for seed in range(600):
        order = tuple(order_of_removal("abc", score("random", HandMade({}, "abc", seed)), "lowest"))
        found[order] = found.get(order, 0) + 1
    assert len(found) == 6
    assert min(found.values()) > 60  # 100 expected, standard deviation 9
    assert find_criterion("random").draws


def test_only_random_draws_and_every_criterion_names_its_source() -> None:
    known = plugins.builtin(Criterion, "criteria")
    looking = {"l1_norm", "bn_scale", "taylor", "block_influence", "loss_increase"}
    assert set(known) == {*METRICS, "consensus", "random", "first", "last", *looking}
    assert [name for name, criterion in known.items() if criterion.draws] == ["random"]
    assert all(criterion.source for criterion in known.values())
