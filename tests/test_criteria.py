"""Orders of removal, ranks, the consensus and the baselines, on scores made by hand."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from prunebench import plugins
from prunebench.criteria import Criterion, find_criterion, order_of_removal, ranks
from prunebench.criteria.consensus import aggregate, consensus
from prunebench.errors import PrunebenchError
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


def test_median_rank_does_not_follow_one_extreme_metric() -> None:
    # Seven metrics put a before b before c; one puts a last by any margin. Ranks of a: 1 (7 times) and 3.
    scores: dict[str, Sequence[float]] = {name: [0.1, 0.2, 0.3] for name in METRICS}
    scores["wasserstein"] = [9.0, 0.1, 0.2]
    values = score("consensus_median", HandMade(scores))
    # Medians 1, 2, 3; the sums 10, 15, 23 are added as a fraction of a quarter.
    assert values == pytest.approx([1 + 0.25 * 10 / 25, 2 + 0.25 * 15 / 25, 3 + 0.25 * 23 / 25])


def test_equal_median_ranks_go_by_the_sum_of_ranks_not_by_place() -> None:
    # Ranks of the four blocks by three metrics; a and b share the median 2, b has the lower sum.
    votes = np.array([[2.0, 1.0, 3.0, 4.0], [2.0, 2.0, 2.0, 4.0], [4.0, 2.0, 1.0, 3.0]])
    order = order_of_removal("abcd", list(aggregate(votes, "median")), "lowest")
    assert order == ["b", "c", "a", "d"]


def test_the_fraction_for_ties_never_outweighs_a_median() -> None:
    generator = np.random.default_rng(3)
    for _ in range(200):
        metrics, blocks = int(generator.integers(2, 9)), int(generator.integers(2, 30))
        votes = np.stack([ranks(generator.integers(0, blocks, blocks)) for _ in range(metrics)])
        values, keys = aggregate(votes, "median"), list(zip(np.median(votes, axis=0), votes.sum(axis=0), strict=True))
        assert sorted(range(blocks), key=lambda i: (values[i], i)) == sorted(range(blocks), key=lambda i: (*keys[i], i))


@pytest.mark.parametrize("out", METRICS)
def test_leaving_a_metric_out_takes_its_ranks_away(out: str) -> None:
    generator = random.Random(5)
    scores = {name: [generator.random() for _ in range(3)] for name in METRICS}
    probe = HandMade(scores)
    rest = [a - b for a, b in zip(score("consensus", probe), ranks(scores[out]), strict=True)]
    assert score(f"consensus_without_{out}", probe) == rest
    assert out not in find_criterion(f"consensus_without_{out}").combines


def test_a_vote_of_ones_own_goes_by_the_direction_of_its_metrics() -> None:
    pair = consensus("pair", ["last", "l1_norm"])
    probe = HandMade({"last": [0.0, 1.0, 2.0], "l1_norm": [5.0, 1.0, 3.0]})
    # `last` removes the highest: ranks 3, 2, 1; l1_norm: 3, 1, 2.
    assert list(pair.score(probe)) == [6.0, 3.0, 3.0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("metrics", "rule", "words"),
    [
        (["cka", "ckb"], "borda", "'ckb' is no built-in criterion"),
        (["cka", "cka"], "borda", "cka more than once"),
        (["cka"], "borda", "two or more"),
        ([], "borda", "two or more"),
        ("cka", "borda", "two or more"),
        (["cka", "random"], "borda", "random draws"),
        (["cka", "linear_0"], "mean", "rule is 'mean', expected 'borda' or 'median'"),
    ],
)
def test_a_vote_that_cannot_be_counted_is_refused(metrics: Any, rule: str, words: str) -> None:
    with pytest.raises(PrunebenchError, match=f"criterion mine: .*{words}"):
        consensus("mine", metrics, rule)


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
    votes = {"consensus", "consensus_median", *(f"consensus_without_{name}" for name in METRICS)}
    assert set(known) == {*METRICS, *votes, "random", "first", "last", *looking}
    assert [name for name, criterion in known.items() if criterion.draws] == ["random"]
    assert all(criterion.source for criterion in known.values())
