"""How good is a criterion? Its scores of the dense network's blocks, held to what removing each block really does (the oracle).

Everything is computed for many resamples at once, in which a block stands as often as its weight says; the first "resample" is the
data as they are. What differs between two criteria is then found in the same resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from prunebench.criteria import ranks
from prunebench.criteria.consensus import METRICS, OF_EIGHT, aggregate
from prunebench.errors import PrunebenchError
from prunebench.reporting.collect import DENSE, SCORING, Tables
from prunebench.reporting.display import natural, ordered_criteria
from prunebench.reporting.statistics import LEVEL

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

RANDOM = "random"
RESAMPLES = 2000
FIRST = 3
"""How many of a criterion's first choices are looked at beside the very first."""

MEASURES = ("tau", "regret_nats", "relative_regret", f"relative_regret_first{FIRST}")
_WITH_BOUNDS = [column for measure in MEASURES for column in (measure, f"{measure}_low", f"{measure}_high")]
_PASSES = ("forward_passes", "backward_passes")
QUALITY_COLUMNS = [
    *("dataset", "model", "fine_tuning_epochs", "criterion", "n", "blocks", "images"),
    *_WITH_BOUNDS,
    *("resampled", *_PASSES),
]


@dataclass(frozen=True)
class Trial:
    """One replicate: its blocks in order, the loss without each, and what criteria say.

    Attributes:
        losses: (blocks,) validation cross-entropy in nats with the block removed.
        scores: Criterion to (draws, blocks); the lowest goes first.
    """

    losses: Array
    scores: dict[str, Array]


@cache
def resamples(replicates: int, blocks: int) -> tuple[NDArray[np.int64], Array]:
    """Which replicates stand in each resample, and how often each of their blocks does; the first is the data as they are.

    Both are drawn with replacement, replicates and blocks, and the blocks are the same in all replicates of a resample: replicates
    share their blocks, and blocks drawn anew in each would make what the blocks have in common look certain. With one
    replicate the blocks alone vary.

    Returns:
        (1 + RESAMPLES, replicates) numbers of replicates, and (1 + RESAMPLES, replicates, blocks) weights.
    """
    generator = np.random.default_rng([RESAMPLES, replicates, blocks])
    chosen = generator.integers(0, replicates, (1 + RESAMPLES, replicates))
    weights = generator.multinomial(blocks, [1 / blocks] * blocks, (1 + RESAMPLES, 1)).astype(float)
    chosen[0], weights[0] = np.arange(replicates), 1.0
    return chosen, np.broadcast_to(weights, (1 + RESAMPLES, replicates, blocks))


def tau_b(first: Array, second: Array, weights: Array) -> Array:
    """Kendall's tau-b over weighted blocks: copies of a block tie with each other in both rankings.

    Args:
        first: (blocks,) scores.
        second: (blocks,) scores.
        weights: (resamples, blocks).

    Returns:
        (resamples,); ``nan`` where one of the two ties all blocks.
    """
    one, other = np.sign(np.subtract.outer(first, first)), np.sign(np.subtract.outer(second, second))

    def pairs(table: Array) -> Array:
        total: Array = (weights @ table * weights).sum(axis=1)
        return total

    untied = pairs(one**2) * pairs(other**2)
    return np.where(untied > 0, pairs(one * other) / np.sqrt(np.where(untied > 0, untied, 1.0)), math.nan)


def loss_of_first(scores: Array, losses: Array, weights: Array, count: int) -> Array:
    """(resamples,) mean loss of the ``count`` blocks that go first by the scores; a tie goes to the earlier block."""
    order = np.argsort(scores, kind="stable")
    taken = np.minimum(np.cumsum(weights[:, order], axis=1), count)
    mean: Array = np.diff(taken, axis=1, prepend=0.0) @ losses[order] / taken[:, -1]
    return mean


def measures(scores: Array | None, losses: Array, weights: Array) -> dict[str, Array]:
    """``MEASURES`` of one ranking in each resample; without scores their expected values over all rankings, which need no drawing.

    Args:
        scores: (blocks,), the lowest goes first.
        losses: (blocks,), in nats.
        weights: (resamples, blocks).
    """
    everywhere = weights @ losses / weights.sum(axis=1)
    found = {"tau": np.zeros(len(weights)) if scores is None else tau_b(scores, losses, weights)}
    for count, relative in ((1, "relative_regret"), (FIRST, f"relative_regret_first{FIRST}")):
        best = loss_of_first(losses, losses, weights, count)
        # A block drawn at random has the mean loss of all, and so have several, on average.
        room = everywhere - best
        regret = room if scores is None else loss_of_first(scores, losses, weights, count) - best
        if count == 1:
            found["regret_nats"] = regret
        # Losses that are all the same leave no room for regret; what is below 1e-12 nats is rounding.
        found[relative] = np.where(room > 1e-12, regret / np.where(room > 1e-12, room, 1.0), math.nan)
    return found


def over_replicates(trials: Sequence[Trial], measure: Callable[[Trial, Array], dict[str, Array]]) -> dict[str, Array]:
    """Means over the replicates of each resample of what is measured in a trial under (resamples, blocks) weights."""
    chosen, weights = resamples(len(trials), len(trials[0].losses))
    tables: dict[str, Array] = {}
    for number, trial in enumerate(trials):
        here = chosen == number
        for name, values in measure(trial, weights[here]).items():
            tables.setdefault(name, np.full(chosen.shape, math.nan))[here] = values
    return {name: _mean(table, axis=1) for name, table in tables.items()}


def of_criterion(criterion: str, trial: Trial, weights: Array) -> dict[str, Array]:
    """``MEASURES`` of a criterion, mean over its draws; of random removal the expected values."""
    if criterion == RANDOM:
        return measures(None, trial.losses, weights)
    drawn = [measures(scores, trial.losses, weights) for scores in trial.scores[criterion]]
    return {name: _mean(np.stack([values[name] for values in drawn]), axis=0) for name in MEASURES}


def with_interval(values: Array, name: str) -> dict[str, float]:
    """The value of the data as they are, and the percentile interval over those resamples that have one."""
    drawn = values[1:][~np.isnan(values[1:])]
    low, high = np.percentile(drawn, [50 * (1 - LEVEL), 50 * (1 + LEVEL)]) if drawn.size else (math.nan, math.nan)
    return {name: float(values[0]), f"{name}_low": float(low), f"{name}_high": float(high)}


def quality(tables: Tables) -> pd.DataFrame:
    """One row for each dataset, model, length of fine-tuning and criterion; columns ``QUALITY_COLUMNS``.

    Random removal is always there, with its expected values. Criteria in the order of display, which no result changes.

    Raises:
        PrunebenchError: a criterion has no score of a block that the oracle removed.
    """
    rows = []
    passes = tables.measured[tables.measured["evaluation"] == SCORING]
    spent: dict[Any, float] = passes.groupby(["dataset", "model", "criterion", "quantity"])["value"].mean().to_dict()
    for (dataset, model), epochs, trials in designs(tables):
        images = _of(tables.oracle, dataset, model)["images"].max()
        for criterion in ordered_criteria({*trials[0].scores, RANDOM}):
            found = over_replicates(trials, partial(of_criterion, criterion))
            row: dict[str, Any] = {"dataset": dataset, "model": model, "fine_tuning_epochs": epochs, "criterion": criterion}
            row |= {"n": len(trials), "blocks": len(trials[0].losses), "images": int(images)}
            for measure in MEASURES:
                row |= with_interval(found[measure], measure)
                if criterion == RANDOM and measure != "regret_nats":  # fixed, whatever the blocks
                    row |= {f"{measure}_low": math.nan, f"{measure}_high": math.nan}
            row["resampled"] = "replicates and blocks" if len(trials) > 1 else "blocks"
            row |= {name: spent.get((dataset, model, criterion, name), math.nan) for name in _PASSES}
            rows.append(row)
    return pd.DataFrame(rows, columns=QUALITY_COLUMNS)


def consensus_parts(tables: Tables) -> pd.DataFrame:
    """What each of the eight metrics contributes to a consensus: one row for each dataset, model, consensus and metric.

    Returns:
        Columns ``dataset, model, consensus, metric, n, blocks``; ``tau_with_consensus`` and ``tau_without`` (of the consensus that
        does without the metric, with the full one); ``changed_of_first_<k>`` for each number of blocks k that an operating point
        removes: how many of the first k go out of them; and, where the oracle was run, for each length e of its fine-tuning
        ``tau_change_<e>`` and ``relative_regret_change_<e>`` with ``_low`` and ``_high``: without the metric minus with it.
    """
    rows = []
    counts = _counts(tables.results)
    for dataset, model in tables.designs():
        scores = dense_scores(_of(tables.scores, dataset, model))
        held = [(epochs, trials) for pair, epochs, trials in designs(tables) if pair == (dataset, model)]
        for name, rule in OF_EIGHT.items():
            if name not in scores or not set(METRICS) <= set(scores):
                continue
            votes = [np.stack([ranks(scores[metric][r].to_numpy(float)[0]) for metric in METRICS]) for r in sorted(scores[name])]
            for number, metric in enumerate(METRICS):
                row: dict[str, Any] = {"dataset": dataset, "model": model, "consensus": name, "metric": metric}
                row |= {"n": len(votes), "blocks": votes[0].shape[1]}
                row |= _part(votes, rule, number, counts.get((dataset, model), []))
                for epochs, trials in held:
                    row |= _against_oracle(trials, rule, number, epochs)
                rows.append(row)
    columns = ["dataset", "model", "consensus", "metric", "n", "blocks", "tau_with_consensus", "tau_without"]
    found = list(dict.fromkeys(key for row in rows for key in row))
    changed = sorted((key for key in found if key.startswith("changed_of_first_")), key=natural)
    return pd.DataFrame(rows, columns=[*columns, *changed, *(key for key in found if key not in [*columns, *changed])])


def _part(votes: Sequence[Array], rule: str, number: int, counts: Sequence[int]) -> dict[str, float]:
    """What a metric does to the order of blocks, mean over replicates. Constraints are not looked at."""
    found: dict[str, list[float]] = {}
    for table in votes:
        full, without = aggregate(table, rule), aggregate(np.delete(table, number, axis=0), rule)
        for name, other in (("tau_with_consensus", table[number]), ("tau_without", without)):
            found.setdefault(name, []).append(tau_b(other, full, np.ones((1, len(full))))[0])
        before, after = np.argsort(full, kind="stable"), np.argsort(without, kind="stable")
        for count in counts:
            changed = len(set(before[:count]) - set(after[:count]))
            found.setdefault(f"changed_of_first_{count}", []).append(changed)
    return {key: float(_mean(np.array(values, dtype=float), axis=0)) for key, values in found.items()}


def _against_oracle(trials: Sequence[Trial], rule: str, number: int, epochs: int) -> dict[str, float]:
    """How far the agreement with the oracle and the regret change when a metric is left out."""

    def change(trial: Trial, weights: Array) -> dict[str, Array]:
        votes = np.stack([ranks(trial.scores[metric][0]) for metric in METRICS])
        full = measures(aggregate(votes, rule), trial.losses, weights)
        without = measures(aggregate(np.delete(votes, number, axis=0), rule), trial.losses, weights)
        return {name: without[name] - full[name] for name in ("tau", "relative_regret")}

    found: dict[str, float] = {}
    for name, values in over_replicates(trials, change).items():
        found |= with_interval(values, f"{name}_change_{epochs}")
    return found


def designs(tables: Tables) -> list[tuple[tuple[str, str], int, list[Trial]]]:
    """((dataset, model), epochs of fine-tuning, trials in order of replicates) of all that the oracle was run for.

    Raises:
        PrunebenchError: a criterion has no score of a block that the oracle removed.
    """
    found = []
    keys = set(zip(tables.oracle["dataset"], tables.oracle["model"], strict=True))
    for dataset, model in sorted(keys, key=lambda key: (key[0], natural(key[1]))):
        losses = _of(tables.oracle, dataset, model)
        blocks = sorted(map(str, losses["block"].unique()), key=natural)
        scores = dense_scores(_of(tables.scores, dataset, model))
        for epochs in sorted(losses["fine_tuning_epochs"].unique()):
            table = losses[losses["fine_tuning_epochs"] == epochs].pivot(index="replicate", columns="block")
            trials = []
            for replicate, row in table["cross_entropy_nats"][blocks].iterrows():
                here = {name: drawn[replicate] for name, drawn in scores.items() if replicate in drawn}
                for name, drawn in here.items():
                    if list(drawn.columns) != blocks or drawn.isna().any(axis=None):
                        raise PrunebenchError(
                            f"scores.csv: {name} does not score just the blocks that the oracle removed ({dataset}, {model}, "
                            f"replicate {replicate}); delete scores.csv and oracle.csv of the dense network and run again"
                        )
                trials.append(Trial(row.to_numpy(float), {name: drawn.to_numpy(float) for name, drawn in here.items()}))
            found.append(((dataset, model), int(epochs), trials))
    return found


def dense_scores(scores: pd.DataFrame) -> dict[str, dict[Any, pd.DataFrame]]:
    """Scores of the dense network's blocks: criterion to replicate to a table of draws by blocks, oriented: the lowest goes first.

    Args:
        scores: Rows of the tidy table of one dataset and model.
    """
    rows = scores[(scores["schedule"] == DENSE) & (scores["step"] == 0)]
    rows = rows.assign(score=rows["score"].where(rows["removes"] == "lowest", -rows["score"]))
    found: dict[str, dict[Any, pd.DataFrame]] = {}
    groups = rows.groupby(["criterion", "replicate"])
    for (criterion, replicate), group in sorted(groups, key=lambda item: item[0]):
        table = group.pivot(index="draw", columns="block", values="score")
        blocks = sorted(map(str, table.columns), key=natural)
        found.setdefault(str(criterion), {})[replicate] = table[blocks]
    return found


def _counts(results: pd.DataFrame) -> dict[tuple[str, str], list[int]]:
    """How many blocks the operating points remove, by dataset and model."""
    rows = results[results["schedule"].isin(["one-shot", "iterative"])]
    found: dict[tuple[str, str], list[int]] = {}
    for dataset, model, count in sorted(rows[["dataset", "model", "blocks_removed"]].drop_duplicates().to_numpy().tolist()):
        found.setdefault((dataset, model), []).append(count)
    return found


def _of(frame: pd.DataFrame, dataset: str, model: str) -> pd.DataFrame:
    return frame[(frame["dataset"] == dataset) & (frame["model"] == model)]


def _mean(values: Array, axis: int) -> Array:
    """Mean of what is defined; ``nan`` where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    total: Array = np.where(known, values, 0.0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), math.nan)
