"""How good a criterion is, on losses and scores made by hand: rank correlation, regret, intervals, and parts of a consensus."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

from prunebench.criteria.consensus import METRICS, aggregate
from prunebench.errors import PrunebenchError
from prunebench.reporting import collect, quality
from prunebench.reporting.collect import Tables

LOSSES = [0.4, 0.1, 0.9, 0.2, 0.5, 0.3]
BLOCKS = [f"stage1.block{number}" for number in range(1, 7)]
ONES = np.ones((1, 6))


def tidy(
    losses: Mapping[int, Sequence[Sequence[float]]],
    scores: Mapping[str, Sequence[Sequence[Sequence[float]]]],
    removes: Mapping[str, str] | None = None,
    blocks_removed: Sequence[int] = (),
) -> Tables:
    """Tables from epochs -> replicate -> losses, and criterion -> replicate -> draw -> scores."""
    place = ("s", "d", "m")
    oracle = [
        (*place, r, block, epochs, loss, 90.0, 126)
        for epochs, replicates in losses.items()
        for r, values in enumerate(replicates)
        for block, loss in zip(BLOCKS, values, strict=True)
    ]
    scored = [
        (*place, r, "dense", "dense", 0, name, draw, (removes or {}).get(name, "lowest"), block, value)
        for name, replicates in scores.items()
        for r, draws in enumerate(replicates)
        for draw, values in enumerate(draws)
        for block, value in zip(BLOCKS, values, strict=True)
    ]
    results: list[tuple[Any, ...]] = [(*place, 0, "dense", "dense", 0, "dense", 0, "accuracy", "accuracy_percent", 90.0, "")]
    results += [(*place, 0, "one-shot", "cka", 0, f"b{n}", n, "accuracy", "accuracy_percent", 90.0, "") for n in blocks_removed]
    measured = [
        (*place, r, "dense", name, 0, "dense", 0, "scoring", quantity, value, "", "")
        for name, replicates in scores.items()
        for r in range(len(replicates))
        for quantity, value in (("forward_passes", 2.5), ("backward_passes", 1.0), ("seconds", 7.0))
    ]
    return Tables(
        pd.DataFrame(results, columns=list(collect.RESULT_COLUMNS)),
        pd.DataFrame(measured, columns=list(collect.MEASURED_COLUMNS)),
        pd.DataFrame(scored, columns=list(collect.SCORE_COLUMNS)),
        pd.DataFrame([], columns=list(collect.REMOVAL_COLUMNS)),
        pd.DataFrame(oracle, columns=list(collect.ORACLE_COLUMNS)),
        pd.DataFrame([], columns=list(collect.AUDIT_COLUMNS)),
        pd.DataFrame([], columns=list(collect.CHOICE_COLUMNS)),
    )


def rows_of(table: pd.DataFrame, epochs: int = 0) -> pd.DataFrame:
    return table[table["fine_tuning_epochs"] == epochs].set_index("criterion")


# --- one ranking -----------------------------------------------------------------------------------------------------


def test_tau_over_weighted_blocks_is_that_over_copies_of_blocks() -> None:
    generator = np.random.default_rng(1)
    for _ in range(50):
        one, other = generator.integers(0, 8, 10).astype(float), generator.integers(0, 8, 10).astype(float)
        weights = generator.multinomial(10, [0.1] * 10, 3).astype(float)
        found = quality.tau_b(one, other, weights)
        copies = [w.astype(int) for w in weights]
        expected = [kendalltau(np.repeat(one, w), np.repeat(other, w)).statistic for w in copies]
        assert found == pytest.approx(expected, nan_ok=True)


def test_tau_of_a_criterion_that_ties_all_blocks_is_not_defined() -> None:
    assert math.isnan(quality.tau_b(np.zeros(6), np.array(LOSSES), ONES)[0])


def test_a_ranking_by_hand() -> None:
    # Goes: the third (0.9), the second (0.1), the sixth (0.3). Best: 0.1, 0.2, 0.3. Mean of all: 0.4.
    found = quality.measures(np.array([4.0, 2.0, 1.0, 6.0, 5.0, 3.0]), np.array(LOSSES), ONES)
    assert found["regret_nats"] == pytest.approx([0.8])
    assert found["relative_regret"] == pytest.approx([0.8 / 0.3])
    assert found["relative_regret_first3"] == pytest.approx([(1.3 / 3 - 0.2) / (0.4 - 0.2)])


def test_equal_scores_choose_the_earlier_block() -> None:
    found = quality.measures(np.array([1.0, 0.0, 1.0, 0.0, 1.0, 1.0]), np.array([0.4, 0.3, 0.9, 0.1, 0.5, 0.8]), ONES)
    assert found["regret_nats"] == pytest.approx([0.2])


def test_copies_of_a_block_are_chosen_one_after_the_other() -> None:
    weights = np.array([[0.0, 2.0, 0.0, 0.0, 4.0, 0.0]])
    found = quality.measures(np.arange(6.0), np.array(LOSSES), weights)
    # Two copies of 0.1 and four of 0.5: the first three are the best three.
    assert found["relative_regret_first3"] == pytest.approx([0.0])
    assert quality.loss_of_first(np.arange(6.0), np.array(LOSSES), weights, 3) == pytest.approx([(0.1 + 0.1 + 0.5) / 3])


def test_random_removal_is_the_mean_over_all_orders() -> None:
    losses = np.array([0.4, 0.1, 0.9, 0.2, 0.25])
    weights = np.ones((1, 5))
    expected = quality.measures(None, losses, weights)
    orders = [quality.measures(np.array(order), losses, weights) for order in itertools.permutations(np.arange(5.0))]
    for name in quality.MEASURES:
        assert np.mean([found[name] for found in orders]) == pytest.approx(expected[name][0], abs=1e-12)
    assert (expected["tau"], expected["relative_regret"]) == (0.0, 1.0)


def test_losses_that_are_all_the_same_leave_no_room_for_regret() -> None:
    found = quality.measures(np.arange(6.0), np.full(6, 0.1), ONES)
    assert math.isnan(found["relative_regret"][0]) and found["regret_nats"][0] == pytest.approx(0.0)


# --- over replicates, with intervals ---------------------------------------------------------------------------------


def test_resamples_keep_the_number_of_blocks_and_begin_with_the_data() -> None:
    chosen, weights = quality.resamples(3, 6)
    assert chosen[0].tolist() == [0, 1, 2] and (weights[0] == 1).all()
    assert (weights.sum(axis=2) == 6).all() and set(chosen.flatten()) == {0, 1, 2}
    # A block is left out of a resample with probability (5/6)^6 = 0.335.
    assert (weights[1:] == 0).mean() == pytest.approx(0.335, abs=0.01)


def test_the_oracle_itself_is_perfect_its_reverse_the_worst_and_random_as_expected() -> None:
    losses = [LOSSES, LOSSES[::-1]]
    reverse = [[[-value for value in values]] for values in losses]
    table = quality.quality(tidy({0: losses}, {"right": [[values] for values in losses], "wrong": reverse}))
    found = rows_of(table)
    assert list(found.index) == ["right", "wrong", "random"]
    for column, value in (("tau", 1.0), ("regret_nats", 0.0), ("relative_regret", 0.0), ("relative_regret_first3", 0.0)):
        assert found.loc["right", [column, f"{column}_low", f"{column}_high"]].tolist() == [value] * 3
    assert found.loc["wrong", ["tau", "tau_low", "tau_high"]].tolist() == [-1.0] * 3
    assert found.loc["wrong", "regret_nats"] == pytest.approx(max(LOSSES) - min(LOSSES))
    assert found.loc["wrong", "relative_regret"] == pytest.approx(0.8 / 0.3)
    assert found.loc["random", ["tau", "relative_regret", "relative_regret_first3"]].tolist() == [0.0, 1.0, 1.0]
    assert found.loc["random", "regret_nats"] == pytest.approx(0.3)
    assert set(found["n"]) == {2} and set(found["blocks"]) == {6} and set(found["images"]) == {126}


def test_a_criterion_that_removes_the_highest_is_turned_round() -> None:
    high = [[[-value for value in LOSSES]]]
    assert rows_of(quality.quality(tidy({0: [LOSSES]}, {"high": high}, {"high": "highest"}))).loc["high", "tau"] == 1.0


def test_draws_enter_with_their_mean() -> None:
    draws = [[LOSSES, [-value for value in LOSSES], LOSSES]]
    row = rows_of(quality.quality(tidy({0: [LOSSES]}, {"drawn": draws}))).loc["drawn"]
    assert row["tau"] == pytest.approx(1 / 3)
    assert row["regret_nats"] == pytest.approx(0.8 / 3)


def test_random_removal_does_not_depend_on_what_was_drawn() -> None:
    table = [quality.quality(tidy({0: [LOSSES]}, {"random": [[draw]]})) for draw in (LOSSES, LOSSES[::-1])]
    pd.testing.assert_frame_equal(*table)
    assert rows_of(table[0]).loc["random", "tau"] == 0.0


def test_replicates_vary_in_the_interval() -> None:
    # Right in one replicate and wrong in the other, whatever the blocks: so resampled means of tau are -1, 0 or 1.
    mixed = [[LOSSES], [[-value for value in LOSSES]]]
    row = rows_of(quality.quality(tidy({0: [LOSSES, LOSSES]}, {"mixed": mixed}))).loc["mixed"]
    assert (row["tau"], row["tau_low"], row["tau_high"]) == (0.0, -1.0, 1.0)
    assert row["resampled"] == "replicates and blocks"


def test_copies_of_one_network_do_not_make_it_more_certain() -> None:
    generator = np.random.default_rng(3)
    losses = generator.normal(size=24)
    trial = quality.Trial(losses, {"near": (losses + generator.normal(size=24))[None]})
    widths = []
    for copies in (1, 10):
        found = quality.over_replicates([trial] * copies, partial(quality.of_criterion, "near"))
        interval = quality.with_interval(found["tau"], "tau")
        widths.append(interval["tau_high"] - interval["tau_low"])
    # Drawn anew in each copy, the blocks would narrow the interval to a third.
    assert widths[1] == pytest.approx(widths[0], rel=0.1)


def test_blocks_vary_in_the_interval_of_one_replicate() -> None:
    near = [0.4, 0.2, 0.9, 0.1, 0.5, 0.3]
    row = rows_of(quality.quality(tidy({0: [LOSSES]}, {"near": [[near]]}))).loc["near"]
    assert row["tau"] == pytest.approx(kendalltau(near, LOSSES).statistic)
    assert -1 <= row["tau_low"] < row["tau"] <= row["tau_high"] == 1.0
    assert row["resampled"] == "blocks" and row["n"] == 1


def test_fine_tuning_is_a_row_of_its_own() -> None:
    table = quality.quality(tidy({0: [LOSSES], 2: [LOSSES[::-1]]}, {"right": [[LOSSES]]}))
    assert table["fine_tuning_epochs"].tolist() == [0, 0, 2, 2]
    assert rows_of(table, 0).loc["right", "tau"] == 1.0
    assert rows_of(table, 2).loc["right", "tau"] == pytest.approx(kendalltau(LOSSES, LOSSES[::-1]).statistic)


def test_passes_stand_beside_the_quality_and_seconds_do_not() -> None:
    table = quality.quality(tidy({0: [LOSSES, LOSSES]}, {"right": [[LOSSES], [LOSSES]]}))
    assert rows_of(table).loc["right", ["forward_passes", "backward_passes"]].tolist() == [2.5, 1.0]
    assert not [column for column in table.columns if "seconds" in column]


def test_the_same_tables_give_the_same_numbers() -> None:
    generator = np.random.default_rng(0)
    tables = tidy({0: generator.random((3, 6)).tolist()}, {"a": generator.random((3, 1, 6)).tolist()})
    first = quality.quality(tables)
    quality.resamples.cache_clear()
    pd.testing.assert_frame_equal(first, quality.quality(tables))


def test_a_block_without_a_score_is_named() -> None:
    tables = tidy({0: [LOSSES]}, {"a": [[LOSSES]]})
    lacking = replace(tables, scores=tables.scores.iloc[1:])
    with pytest.raises(PrunebenchError, match=r"scores\.csv: a does not score .* \(d, m, replicate 0\)"):
        quality.quality(lacking)


# --- parts of the consensus ------------------------------------------------------------------------------------------


def votes(seed: int, replicates: int = 2) -> dict[str, list[list[list[float]]]]:
    generator = np.random.default_rng(seed)
    scores = {name: generator.random((replicates, 1, 6)).tolist() for name in METRICS}
    return {**scores, "consensus": [[[0.0] * 6]] * replicates, "consensus_median": [[[0.0] * 6]] * replicates}


def test_metrics_that_agree_change_nothing_when_one_is_left_out() -> None:
    scores = {name: [[LOSSES]] for name in (*METRICS, "consensus")}
    table = quality.consensus_parts(tidy({0: [LOSSES]}, scores, blocks_removed=[2, 5]))
    assert table["metric"].tolist() == list(METRICS) and set(table["consensus"]) == {"consensus"}
    assert set(table["tau_with_consensus"]) == set(table["tau_without"]) == {1.0}
    for column in (
        "changed_of_first_2",
        "changed_of_first_5",
        "tau_change_0",
        "tau_change_0_low",
        "relative_regret_change_0_high",
    ):
        assert set(table[column]) == {0.0}


def test_the_one_that_knows_is_missed_and_the_one_that_misleads_is_not() -> None:
    # Half of the metrics rank rightly and half in reverse, so that all together tie every block; the one that is left out decides.
    scores = {name: [[LOSSES if number < 4 else [-v for v in LOSSES]]] for number, name in enumerate(METRICS)}
    table = quality.consensus_parts(tidy({0: [LOSSES]}, {**scores, "consensus": [[[0.0] * 6]]}, blocks_removed=[1]))
    found = table.set_index("metric")
    first, last = METRICS[0], METRICS[-1]
    # Tied, the first block goes (0.4); the best has 0.1, the worst 0.9, chance 0.4.
    assert found.loc[last, "relative_regret_change_0"] == pytest.approx(0.0 - 1.0)
    assert found.loc[first, "relative_regret_change_0"] == pytest.approx(0.8 / 0.3 - 1.0)
    assert found.loc[last, "changed_of_first_1"] == found.loc[first, "changed_of_first_1"] == 1.0
    assert math.isnan(found.loc[last, "tau_change_0"])


@pytest.mark.parametrize(("name", "rule"), [("consensus", "borda"), ("consensus_median", "median")])
def test_parts_are_made_with_the_rule_of_the_criterion(name: str, rule: str) -> None:
    scores = votes(4)
    table = quality.consensus_parts(tidy({}, scores, blocks_removed=[3]))
    mine = table[table["consensus"] == name].set_index("metric")
    for number, metric in enumerate(METRICS):
        taus, changed = [], []
        for replicate in range(2):
            rank = np.array([pd.Series(scores[m][replicate][0]).rank() for m in METRICS])
            full, without = aggregate(rank, rule), aggregate(np.delete(rank, number, 0), rule)
            taus.append(kendalltau(full, without).statistic)
            changed.append(len(set(np.argsort(full, kind="stable")[:3]) - set(np.argsort(without, kind="stable")[:3])))
        assert mine.loc[metric, "tau_without"] == pytest.approx(np.mean(taus))
        assert mine.loc[metric, "changed_of_first_3"] == np.mean(changed)
    # Without an oracle nothing is held to it.
    assert not [column for column in table.columns if "change_" in column and "changed_of" not in column]


def test_a_change_against_the_oracle_is_the_difference_of_two_qualities() -> None:
    scores = votes(9)
    losses = np.random.default_rng(2).random((2, 6)).tolist()
    ranked = {m: [pd.Series(r[0]).rank().to_numpy() for r in scores[m]] for m in METRICS}
    for out in METRICS[:2]:
        scores["consensus"] = [[np.sum([ranked[m][r] for m in METRICS], 0).tolist()] for r in range(2)]
        scores["without"] = [[np.sum([ranked[m][r] for m in METRICS if m != out], 0).tolist()] for r in range(2)]
        tables = tidy({1: losses}, scores)
        single = rows_of(quality.quality(tables), 1)
        row = quality.consensus_parts(tables).query("consensus == 'consensus'").set_index("metric").loc[out]
        for column in ("tau", "relative_regret"):
            expected = single.loc["without", column] - single.loc["consensus", column]
            assert row[f"{column}_change_1"] == pytest.approx(expected)
            assert row[f"{column}_change_1_low"] <= row[f"{column}_change_1_high"]
